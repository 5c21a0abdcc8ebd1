//! Which recipe to try first: what features say of a dataset before anything is trained, which of the four scenarios that is,
//! and what the rules of thumb hold of it. A hypothesis, not a finding: an experiment tests it.

use serde::Serialize;
use serde_json::{Value, json};

use super::compare::{Difference, paired, share, share_interval};
use super::findings::fraction;
use super::table::{Style, table};
use crate::recipe::AND;
use crate::scenario::{Similarity, Size};

/// Fewer training images of a class than this are called small. The rules of thumb give no number; this one is ours.
pub const SMALL: usize = 50;

/// What the features at one tap say; of each image whether its class was found without it.
pub struct Tap {
    pub name: String,
    /// Whether it is of the last feature map: over a grid, or as a probe reads it, which stands at the end of a panel.
    pub last: bool,
    /// As an experiment file has it.
    pub pool: String,
    pub numbers: usize,
    pub probe: Vec<bool>,
    /// Of the first half of the images, with only that half to learn from.
    pub half: Vec<bool>,
    pub neighbours: Vec<bool>,
    pub untrained: Vec<bool>,
}

/// Everything that was looked at.
pub struct Panel {
    pub dataset: String,
    pub weights: String,
    pub classes: usize,
    /// Images that were looked at.
    pub images: usize,
    /// Training images of the smallest class that a trial has.
    pub per_class: usize,
    /// The share of the largest class among the images that were looked at.
    pub largest: f64,
    /// From the lowest layer up; the last features stand at the end.
    pub taps: Vec<Tap>,
    /// The maps among them side by side, as one recipe reads them.
    pub together: Option<Tap>,
    /// What class names alone answer, where the weights have seen texts.
    pub named: Option<Named>,
    /// Why such weights were not asked.
    pub unnamed: Option<String>,
}

/// Answers of weights that have seen texts, from class names and no image beside the one that is asked for.
pub struct Named {
    /// Of each image, whether it was right.
    pub right: Vec<bool>,
    /// What was read.
    pub texts: String,
}

/// What follows.
pub struct Advice {
    pub size: Size,
    pub similarity: Similarity,
    /// The place of the best of the earlier taps, if there are any, and by how much a linear model reads classes better there
    /// than on the last features, in the better of the two ways of reading these.
    pub earlier: Option<(usize, Difference)>,
    /// The place of the last map over a grid, if it is more than one pixel, and by how much a linear model reads classes better
    /// there than on its mean.
    pub grid: Option<(usize, Difference)>,
    /// By how much a linear model reads classes better on all maps side by side than on the best of them alone.
    pub together: Option<Difference>,
    /// By how much a linear model on the last features reads classes better than their names do.
    pub named: Option<Difference>,
    /// By how much a linear model reads classes better on the last features than on those of random weights.
    pub learned: Difference,
    /// From the first to try on; two of them at least.
    pub recipes: Vec<Recipe>,
}

/// A recipe, and why it has its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    pub name: &'static str,
    pub why: &'static str,
}

const PROBE: Recipe =
    Recipe { name: "linear-probe", why: "a linear model on the last features: nothing below it can overfit" };
const LDA: Recipe = Recipe {
    name: "lda",
    why: "another linear model on them, with a formula: it costs nothing more than to read them",
};
const EARLY: Recipe = Recipe { name: "early-features", why: "features from before the source's own classes take over" };
const GRID: Recipe =
    Recipe { name: "grid-probe", why: "a linear model on the last map over a grid: places count here" };
const TOGETHER: Recipe = Recipe {
    name: "all-layers",
    why: "a linear model on several layers side by side: each knows something of its own",
};
const LAST: Recipe =
    Recipe { name: "last-block", why: "the last block moves, from where lda solves the head, and nothing below it" };
const NAMES: Recipe = Recipe {
    name: "zero-shot",
    why: "the answers of class names: no image is learned from, and it is the mark for all that do",
};
const TUNE: Recipe = Recipe { name: "fine-tune", why: "all layers move, from the pretrained weights" };
const SCRATCH: Recipe = Recipe { name: "from-scratch", why: "what the pretrained weights are worth" };

/// The order in which recipes are to be tried in a scenario: first what CS231n's rule of thumb favours there, then what the rule
/// holds to be worse.
fn recipes(size: Size, similarity: Similarity) -> &'static [Recipe] {
    match (size, similarity) {
        (Size::Small, Similarity::Similar) => &[PROBE, LDA, TUNE, LAST],
        (Size::Small, Similarity::Different) => &[EARLY, PROBE, LDA, LAST],
        (Size::Large, Similarity::Similar) => &[TUNE, PROBE, LDA, LAST],
        (Size::Large, Similarity::Different) => &[TUNE, SCRATCH, EARLY],
    }
}

/// What was looked at, of whose classes the largest has such a share.
pub(super) fn looked_at(dataset: &str, images: usize, classes: usize, largest: f64) -> String {
    format!(
        "{dataset}: {images} images of {classes} classes looked at, from training alone; the largest class is {} of them",
        fraction(largest)
    )
}

impl Panel {
    fn last(&self) -> Option<&Tap> {
        self.taps.last()
    }

    /// What follows; nothing of a panel without taps.
    pub fn advice(&self) -> Option<Advice> {
        let probe = self.last()?;
        let best = |last: bool| {
            let mut best: Option<usize> = None;
            for (place, tap) in self.taps.iter().enumerate().filter(|(_, tap)| tap.last == last) {
                if best.is_none_or(|best| share(&tap.probe) > share(&self.taps[best].probe)) {
                    best = Some(place);
                }
            }
            best
        };
        let last = &self.taps[best(true)?];
        let earlier = best(false).map(|place| (place, paired(&self.taps[place].probe, &last.probe)));
        // The best of several is better by luck alone: all of them are to be right together (Bonferroni).
        let differs = earlier.is_some_and(|(_, difference)| difference.mean > difference.half_width(self.level()));
        let size = if self.per_class < SMALL { Size::Small } else { Size::Large };
        let similarity = if differs { Similarity::Different } else { Similarity::Similar };
        let learned = paired(&probe.probe, &probe.untrained);
        let mut recipes = recipes(size, similarity).to_vec();
        let grid = self.taps.len().checked_sub(2).filter(|place| self.taps[*place].last);
        let grid = grid.map(|place| (place, paired(&self.taps[place].probe, &probe.probe)));
        let at = recipes.iter().position(|recipe| *recipe == PROBE);
        if let (Some(at), Some((_, difference))) = (at, grid)
            && difference.mean > difference.half_width(0.95)
        {
            recipes.insert(at, GRID);
        }
        let alone = self.taps.iter().max_by(|one, other| share(&one.probe).total_cmp(&share(&other.probe)))?;
        let together = self.together.as_ref().map(|together| paired(&together.probe, &alone.probe));
        if together.is_some_and(|difference| difference.mean > difference.half_width(0.95)) {
            let linear = |recipe: &Recipe| [PROBE, EARLY, GRID].contains(recipe);
            recipes.insert(recipes.iter().position(linear).unwrap_or(recipes.len()), TOGETHER);
        }
        if learned.mean <= learned.half_width(0.95) && !recipes.contains(&SCRATCH) {
            recipes.push(SCRATCH);
        }
        let named = self.named.as_ref().map(|named| paired(&probe.probe, &named.right));
        if let Some(difference) = named {
            // What learns from nothing goes first unless learning is clearly worth it.
            let clear = difference.mean > difference.half_width(0.95);
            recipes.insert(if clear { recipes.len() } else { 0 }, NAMES);
        }
        Some(Advice { size, similarity, earlier, grid, together, named, learned, recipes })
    }

    /// At which each of the earlier taps is compared with the last features, for 95% of all together.
    fn level(&self) -> f64 {
        1.0 - 0.05 / self.taps.iter().filter(|tap| !tap.last).count().max(1) as f64
    }

    /// For people.
    pub fn text(&self, advice: &Advice, style: Style) -> String {
        let rows: Vec<Vec<String>> = self.taps.iter().chain(&self.together).map(row).collect();
        let heading =
            ["features at", "pool", "numbers", "linear model [95% CI]", "from half", "neighbours", "random weights"];
        let order = advice.recipes.iter().enumerate().map(|(place, recipe)| {
            vec![(place + 1).to_string(), recipe.name.to_owned(), self.expected(advice, recipe), recipe.why.to_owned()]
        });
        [
            looked_at(&self.dataset, self.images, self.classes, self.largest),
            format!(
                "How many classes are read right from frozen features of {}, each image by others\n{}",
                self.weights,
                table(style, &heading, &rows)
            ),
            self.reasons(advice).join("\n"),
            format!(
                "Try first (a hypothesis: the rules of thumb say so, and they are often wrong)\n{}",
                table(style, &["", "recipe", "expected", "why"], &order.collect::<Vec<_>>())
            ),
        ]
        .join("\n\n")
    }

    /// What the linear model promises, where it says something of a recipe.
    fn expected(&self, advice: &Advice, recipe: &Recipe) -> String {
        if let Some(named) = self.named.as_ref().filter(|_| *recipe == NAMES) {
            return format!("near {}", fraction(share(&named.right)));
        }
        let tap = match (recipe.name, advice.earlier) {
            ("linear-probe" | "lda", _) => self.last(),
            ("early-features", Some((place, _))) => self.taps.get(place),
            ("all-layers", _) => self.together.as_ref(),
            ("grid-probe", _) => advice.grid.and_then(|(place, _)| self.taps.get(place)),
            _ => None,
        };
        tap.map_or_else(
            || "not known before it is trained".to_owned(),
            |tap| format!("near {}", fraction(share(&tap.probe))),
        )
    }

    fn reasons(&self, advice: &Advice) -> Vec<String> {
        let compared = if self.per_class < SMALL { "below" } else { "not below" };
        let mut reasons = vec![format!(
            "size: {} ({} training images in the smallest class, {compared} {SMALL}; the rules of thumb give no number)",
            advice.size, self.per_class
        )];
        reasons.push(match advice.earlier {
            None => format!("similarity: {} (there is no earlier layer to compare with)", advice.similarity),
            Some((place, difference)) => {
                let said = interval(difference.mean, difference.half_width(self.level()));
                let name = &self.taps[place].name;
                match advice.similarity {
                    Similarity::Different => format!("similarity: different ({name} is read better than the last features: {said})"),
                    Similarity::Similar => format!(
                        "similarity: similar (no earlier layer is clearly read better than the last features; the best, {name}: {said})"
                    ),
                }
            }
        });
        reasons.extend(advice.grid.map(|(_, difference)| {
            let half = difference.half_width(0.95);
            format!("places: {} for the last map over a grid, beside its mean", interval(difference.mean, half))
        }));
        reasons.extend(advice.together.map(|difference| {
            let half = difference.half_width(0.95);
            format!("layers: {} for all of them side by side, beside the best alone", interval(difference.mean, half))
        }));
        if let (Some(difference), Some(named)) = (advice.named, &self.named) {
            let [low, high] = share_interval(named.right.iter().filter(|right| **right).count(), named.right.len());
            reasons.push(format!(
                "class names: {} [{}, {}] are right without any other image ({}); the linear model on the last features: {}",
                fraction(share(&named.right)),
                fraction(low),
                fraction(high),
                named.texts,
                interval(difference.mean, difference.half_width(0.95)),
            ));
        }
        reasons.extend(self.unnamed.iter().map(|why| format!("class names: the weights could not be asked: {why}")));
        let half = advice.learned.half_width(0.95);
        reasons.push(format!(
            "the weights: {} over random ones on the last features{}",
            interval(advice.learned.mean, half),
            if advice.learned.mean > half { "" } else { ": they may be worth nothing for these images" }
        ));
        let grown = self.last().map_or(0.0, |tap| share(&tap.probe) - share(&tap.half));
        reasons.push(format!("the number of images: {grown:+.3} from half of them to all, on the last features"));
        reasons
    }

    /// For machines.
    pub fn json(&self, advice: &Advice) -> Value {
        let tap = |tap: &Tap| {
            let found = |right: &[bool]| {
                let count = right.iter().filter(|right| **right).count();
                json!({"accuracy": share(right), "ci95": share_interval(count, right.len()), "images": right.len()})
            };
            json!({
                "tap": tap.name, "last": tap.last, "pool": tap.pool, "numbers": tap.numbers,
                "linear": found(&tap.probe), "half": found(&tap.half),
                "neighbours": found(&tap.neighbours), "random_weights": found(&tap.untrained),
            })
        };
        json!({
            "version": 1,
            "dataset": self.dataset,
            "weights": self.weights,
            "classes": self.classes,
            "images": self.images,
            "per_class": self.per_class,
            "taps": self.taps.iter().map(tap).collect::<Vec<_>>(),
            "size": advice.size,
            "similarity": advice.similarity,
            "earlier": advice.earlier.map(|(place, difference)| json!({
                "tap": self.taps[place].name,
                "difference": difference.mean,
                "half_width": difference.half_width(self.level()),
            })),
            "grid": advice.grid.map(|(place, difference)| json!({
                "tap": self.taps[place].name,
                "difference": difference.mean,
                "half_width": difference.half_width(0.95),
            })),
            "together": advice.together.zip(self.together.as_ref()).map(|(difference, own)| {
                let mut found = tap(own);
                found["difference"] = json!(difference.mean);
                found["half_width"] = json!(difference.half_width(0.95));
                found
            }),
            "class_names": advice.named.zip(self.named.as_ref()).map(|(difference, named)| json!({
                "texts": named.texts,
                "accuracy": share(&named.right),
                "difference": difference.mean,
                "half_width": difference.half_width(0.95),
            })),
            "class_names_not_asked": self.unnamed,
            "learned": json!({"difference": advice.learned.mean, "half_width": advice.learned.half_width(0.95)}),
            "recipes": advice.recipes,
        })
    }
}

fn row(tap: &Tap) -> Vec<String> {
    let count = tap.probe.iter().filter(|right| **right).count();
    let [low, high] = share_interval(count, tap.probe.len());
    vec![
        tap.name.replace(AND, " +\n"),
        tap.pool.clone(),
        tap.numbers.to_string(),
        format!("{} [{}, {}]", fraction(share(&tap.probe)), fraction(low), fraction(high)),
        fraction(share(&tap.half)),
        fraction(share(&tap.neighbours)),
        fraction(share(&tap.untrained)),
    ]
}

fn interval(mean: f64, half: f64) -> String {
    format!("{mean:+.3} [{:+.3}, {:+.3}]", mean - half, mean + half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(name: &str, right: usize, of: usize) -> Tap {
        let found = |right: usize| (0..of).map(|image| image < right).collect::<Vec<bool>>();
        Tap {
            name: name.to_owned(),
            last: name.starts_with("last"),
            pool: "\"avg\"".to_owned(),
            numbers: 8,
            probe: found(right),
            half: found(right)[..of / 2].to_vec(),
            neighbours: found(right),
            untrained: found(of / 4),
        }
    }

    fn panel(per_class: usize, taps: Vec<Tap>) -> Panel {
        let (dataset, weights) = ("mine".to_owned(), "w".to_owned());
        let (together, named, unnamed) = (None, None, None);
        Panel { dataset, weights, classes: 4, images: 200, per_class, largest: 0.25, taps, together, named, unnamed }
    }

    #[test]
    fn each_scenario_has_the_recipe_of_its_rule_first() {
        let first = |per_class: usize, early: usize| {
            let advice =
                panel(per_class, vec![tap("a", 90, 200), tap("b", early, 200), tap("last", 120, 200)]).advice();
            let advice = advice.expect("a panel with taps");
            (advice.size, advice.similarity, advice.recipes[0].name)
        };
        assert_eq!(first(20, 100), (Size::Small, Similarity::Similar, "linear-probe"));
        assert_eq!(first(20, 150), (Size::Small, Similarity::Different, "early-features"));
        assert_eq!(first(50, 100), (Size::Large, Similarity::Similar, "fine-tune"));
        assert_eq!(first(50, 150), (Size::Large, Similarity::Different, "fine-tune"));
        // A little better is no evidence.
        assert_eq!(first(20, 122), (Size::Small, Similarity::Similar, "linear-probe"));
    }

    #[test]
    fn layers_side_by_side_are_advised_where_they_say_more_than_each_alone() {
        let names = |together: usize| {
            let taps = vec![tap("a", 110, 200), tap("last", 120, 200)];
            let panel = Panel { together: Some(tap("a + last", together, 200)), ..panel(20, taps) };
            let advice = panel.advice().expect("a panel with taps");
            advice.recipes.iter().map(|recipe| recipe.name).collect::<Vec<_>>()
        };
        assert_eq!(names(150)[..2], ["all-layers", "linear-probe"]);
        assert!(!names(121).contains(&"all-layers"));
    }

    #[test]
    fn class_names_come_first_unless_learning_is_clearly_worth_it() {
        let of = |right: usize| {
            let right = (0..200).map(|image| image < right).collect();
            let named = Some(Named { right, texts: "\"a photo of a bee.\"".to_owned() });
            let panel = Panel { named, ..panel(20, vec![tap("last", 120, 200)]) };
            let advice = panel.advice().expect("a panel with taps");
            let text = panel.text(&advice, Style::Markdown);
            assert!(text.contains("are right without any other image (\"a photo of a bee.\")"), "{text}");
            (advice.recipes[0].name, advice.recipes[advice.recipes.len() - 1].name)
        };
        assert_eq!(of(119), ("zero-shot", "last-block"));
        assert_eq!(of(150), ("zero-shot", "last-block"));
        assert_eq!(of(60), ("linear-probe", "zero-shot"));
    }

    #[test]
    fn the_best_of_many_must_be_better_by_more_than_the_best_of_one() {
        // 5 of 200 answers differ, all for the earlier tap: p = .025 for one comparison.
        let one = panel(20, vec![tap("a", 125, 200), tap("last", 120, 200)]);
        let many = panel(20, (0..5).map(|_| tap("a", 125, 200)).chain([tap("last", 120, 200)]).collect());
        assert_eq!(one.advice().map(|advice| advice.similarity), Some(Similarity::Different));
        assert_eq!(many.advice().map(|advice| advice.similarity), Some(Similarity::Similar));
    }

    #[test]
    fn places_that_averaging_loses_do_not_make_a_target_different() {
        let of = |grid: usize| {
            let taps = vec![tap("a", 150, 200), tap("last over a grid", grid, 200), tap("last", 120, 200)];
            panel(20, taps).advice().map(|advice| advice.similarity)
        };
        assert_eq!(of(125), Some(Similarity::Different));
        assert_eq!(of(149), Some(Similarity::Similar));
        // Where they count, a probe that sees them comes before the one that does not.
        let order = |grid: usize| {
            let advice = panel(20, vec![tap("last over a grid", grid, 200), tap("last", 120, 200)]).advice();
            advice.expect("a panel with taps").recipes.iter().map(|recipe| recipe.name).collect::<Vec<_>>()
        };
        assert_eq!(order(140), ["grid-probe", "linear-probe", "lda", "fine-tune", "last-block"]);
        assert_eq!(order(121), ["linear-probe", "lda", "fine-tune", "last-block"]);
    }

    #[test]
    fn weights_that_say_no_more_than_random_ones_are_compared_with_them() {
        let panel = panel(20, vec![tap("last", 52, 200)]);
        let advice = panel.advice().expect("a panel with taps");
        assert_eq!(advice.recipes.last().map(|recipe| recipe.name), Some("from-scratch"));
        let text = panel.text(&advice, Style::Markdown);
        assert!(text.contains("they may be worth nothing for these images"), "{text}");
        assert!(text.contains("there is no earlier layer to compare with"), "{text}");
    }
}
