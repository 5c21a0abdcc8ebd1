//! Labels to look at: images that most recipes, not having learned from them, surely take for another class than their label.
//!
//! An answer is sure of a class where its probability is no less than the mean that this class has over the images that are
//! labelled so (confident learning: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
//! JAIR 2021). A network may be sure of what is wrong; that most recipes of a sweep are is rarer.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Value, json};

use super::csv::Csv;
use super::findings::fraction;
use super::html::{escaped, page};
use super::look::{Shown, shown};
use super::table::{Style, table};

/// What one trial answered to images that it did not learn from, all in one order.
#[derive(Clone, Debug, Default)]
pub struct HeldOut {
    /// Positions in the dataset.
    pub samples: Vec<u32>,
    /// Indices into the classes.
    pub labels: Vec<u32>,
    pub answers: Vec<u16>,
    /// The probability of the label, and of the answer.
    pub of_label: Vec<f32>,
    pub of_answer: Vec<f32>,
}

/// An image that was held out by some trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Examined {
    #[serde(skip)]
    pub sample: u32,
    pub image: String,
    pub label: String,
    /// Of the label: the mean over recipes, each with equal weight.
    pub probability: f64,
    /// The other class that most are sure of; nothing where none is of any.
    pub taken_for: Option<String>,
    /// The part of its trials that are, the mean over recipes.
    pub share: f64,
    /// Trials that held it out.
    pub trials: usize,
    pub in_question: bool,
}

/// What all recipes of a sweep say of the labels of one dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Labels {
    pub dataset: String,
    /// Images that are learned from or tested.
    pub images: usize,
    pub recipes: usize,
    /// Trials that are not counted: they ran before it was stored how sure they were.
    pub without: usize,
    /// The share of answers that are the label: of the recipe with the fewest, and of the one with the most.
    pub right: [f64; 2],
    /// The least probable label first.
    pub examined: Vec<Examined>,
}

impl Labels {
    /// From the trials of each recipe; `images` holds id and class by position.
    pub fn of(
        dataset: &str,
        classes: &[String],
        images: &HashMap<u32, (String, u32)>,
        recipes: &[Vec<HeldOut>],
    ) -> Self {
        let mut heard: BTreeMap<u32, Heard> = BTreeMap::new();
        let mut right = [1.0f64, 0.0];
        for trials in recipes {
            let mut own: BTreeMap<u32, OfRecipe> = BTreeMap::new();
            for trial in trials {
                trial.told_to(&mut own);
            }
            let (count, agreed) = own.values().fold((0, 0), |(all, right), of| (all + of.trials, right + of.right));
            let share = agreed as f64 / count.max(1) as f64;
            right = [right[0].min(share), right[1].max(share)];
            for (sample, of) in own {
                heard.entry(sample).or_default().add(&of);
            }
        }
        let mut examined: Vec<Examined> = heard
            .into_iter()
            .filter_map(|(sample, heard)| {
                let (id, class) = images.get(&sample)?;
                Some(heard.examined(sample, id, *class, classes))
            })
            .collect();
        examined.sort_by(|one, other| one.probability.total_cmp(&other.probability));
        Self { dataset: dataset.to_owned(), images: images.len(), recipes: recipes.len(), without: 0, right, examined }
    }

    /// Those that most recipes surely take for one other class; the least probable label first.
    pub fn in_question(&self) -> impl Iterator<Item = &Examined> {
        self.examined.iter().filter(|image| image.in_question)
    }

    /// A sentence for people.
    pub fn said(&self) -> String {
        let Self { dataset, images, examined, right: [least, most], .. } = self;
        let (found, held) = (self.in_question().count(), examined.len());
        let by = match self.recipes {
            1 => format!("by the one recipe there is, which is right on {}", fraction(*most)),
            all => format!("by most of {all} recipes, which are right on {} to {}", fraction(*least), fraction(*most)),
        };
        let of = if held == *images {
            format!("{held} images")
        } else {
            format!("{held} images that some trial did not learn from ({images} in all)")
        };
        let first = if found > 1 { ", the least probable label first" } else { "" };
        let without = match self.without {
            0 => String::new(),
            some => format!("; trials that ran before it was stored how sure they were are not counted: {some}"),
        };
        format!("{dataset}: {found} of {of} are surely taken for another class {by}{first}{without}")
    }

    pub const HEADING: [&str; 5] = ["image", "label", "taken for", "by", "probability of the label"];

    /// Of those in question the first `most`.
    pub fn table(&self, style: Style, most: usize) -> String {
        let row = |image: &Examined| {
            vec![
                image.image.clone(),
                image.label.clone(),
                image.taken_for.clone().unwrap_or_default(),
                format!("{:.0}% of {} trials", 100.0 * image.share, image.trials),
                fraction(image.probability),
            ]
        };
        let rows: Vec<Vec<String>> = self.in_question().take(most).map(row).collect();
        table(style, &Self::HEADING, &rows)
    }
}

/// What the trials of one recipe say of an image.
#[derive(Default)]
struct OfRecipe {
    trials: usize,
    right: usize,
    /// Of the label, summed.
    probability: f64,
    /// Trials that are sure of another class.
    sure: BTreeMap<u16, usize>,
}

impl HeldOut {
    /// The mean probability of each class over the images that are labelled so.
    fn thresholds(&self) -> HashMap<u32, f64> {
        let mut sums: HashMap<u32, (f64, usize)> = HashMap::new();
        for (label, probability) in self.labels.iter().zip(&self.of_label) {
            let (sum, count) = sums.entry(*label).or_default();
            *sum += f64::from(*probability);
            *count += 1;
        }
        sums.into_iter().map(|(label, (sum, count))| (label, sum / count as f64)).collect()
    }

    fn told_to(&self, images: &mut BTreeMap<u32, OfRecipe>) {
        let thresholds = self.thresholds();
        for (at, sample) in self.samples.iter().enumerate() {
            let (label, answer) = (self.labels[at], self.answers[at]);
            let own = images.entry(*sample).or_default();
            own.trials += 1;
            own.probability += f64::from(self.of_label[at]);
            let threshold = thresholds.get(&u32::from(answer));
            if u32::from(answer) == label {
                own.right += 1;
            } else if threshold.is_some_and(|threshold| f64::from(self.of_answer[at]) >= *threshold) {
                *own.sure.entry(answer).or_default() += 1;
            }
        }
    }
}

/// What all recipes say of an image.
#[derive(Default)]
struct Heard {
    recipes: usize,
    trials: usize,
    /// Means of recipes, summed.
    probability: f64,
    sure: BTreeMap<u16, f64>,
}

impl Heard {
    fn add(&mut self, of: &OfRecipe) {
        self.recipes += 1;
        self.trials += of.trials;
        self.probability += of.probability / of.trials as f64;
        for (class, trials) in &of.sure {
            *self.sure.entry(*class).or_default() += *trials as f64 / of.trials as f64;
        }
    }

    fn examined(&self, sample: u32, id: &str, label: u32, classes: &[String]) -> Examined {
        let recipes = self.recipes as f64;
        let name = |class: usize| classes.get(class).cloned().unwrap_or_default();
        let mut most: Option<(u16, f64)> = None;
        for (class, sum) in &self.sure {
            if most.is_none_or(|(_, other)| *sum > other) {
                most = Some((*class, *sum));
            }
        }
        let share = most.map_or(0.0, |(_, sum)| sum / recipes);
        Examined {
            sample,
            image: id.to_owned(),
            label: name(label as usize),
            probability: self.probability / recipes,
            taken_for: most.map(|(class, _)| name(usize::from(class))),
            share,
            trials: self.trials,
            in_question: share > 0.5,
        }
    }
}

/// A row for each image that was examined, of all datasets.
///
/// # Errors
/// Only the writer's own.
pub fn csv(all: &[Labels]) -> anyhow::Result<String> {
    let columns = ["dataset", "image", "label", "taken_for", "share", "trials", "probability", "in_question"];
    let mut csv = Csv::new(&columns)?;
    for labels in all {
        for image in &labels.examined {
            let cells = [
                labels.dataset.clone(),
                image.image.clone(),
                image.label.clone(),
                image.taken_for.clone().unwrap_or_default(),
                image.share.to_string(),
                image.trials.to_string(),
                image.probability.to_string(),
                image.in_question.to_string(),
            ];
            csv.push(&columns.into_iter().zip(cells).collect())?;
        }
    }
    csv.text()
}

/// Everything, for machines.
pub fn json(experiment: &str, all: &[Labels]) -> Value {
    json!({"version": 1, "experiment": experiment, "datasets": all})
}

/// What the page says before its pictures.
const LEGEND: &str = "An answer is sure of a class where its probability is no less than the mean that the class has over the images that \
    are labelled so (Northcutt et al., 2021). None of these trials learned from the image that it answered. That most recipes are \
    sure of another class does not make a label wrong, least where they are often wrong: look.";

/// A page of pictures of those in question, one list for each of `all`.
pub fn html(experiment: &str, all: &[Labels], pictures: &[Vec<Shown>]) -> String {
    let paragraph = |text: &str| format!("<p class=\"state\">{}</p>", escaped(text));
    let title = format!("{experiment}: labels to look at");
    let mut body = vec![format!("<h1>{}</h1>", escaped(&title)), paragraph(LEGEND)];
    for (labels, pictures) in all.iter().zip(pictures) {
        body.push(format!("<h2>{}</h2>", escaped(&labels.dataset)));
        body.push(paragraph(&labels.said()));
        body.push(format!("<div class=\"row\">{}</div>", pictures.iter().map(shown).collect::<String>()));
    }
    page(&title, &body.join("\n"))
}

/// What stands under a picture.
pub fn caption(image: &Examined) -> String {
    let taken_for = image.taken_for.as_deref().unwrap_or("nothing else");
    format!(
        "{}: labelled {} ({}), taken for {taken_for} by {:.0}% of {} trials",
        image.image,
        image.label,
        fraction(image.probability),
        100.0 * image.share,
        image.trials
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two classes, from labels, answers, and the probability of the label.
    fn trial(samples: &[u32], labels: &[u32], answers: &[u16], of_label: &[f32]) -> HeldOut {
        let right = labels.iter().zip(answers).map(|(label, answer)| *label == u32::from(*answer));
        let of_answer = right.zip(of_label).map(|(right, own)| if right { *own } else { 1.0 - own }).collect();
        HeldOut {
            samples: samples.to_vec(),
            labels: labels.to_vec(),
            answers: answers.to_vec(),
            of_label: of_label.to_vec(),
            of_answer,
        }
    }

    #[test]
    fn an_answer_is_sure_by_the_mean_of_its_class() {
        let classes = ["ant", "bee"].map(str::to_owned);
        let images = (0..5).map(|at| (at, (format!("{at}.png"), u32::from(at > 2)))).collect();
        // Ants are ants by (.9 + .8 + .1) / 3 = .6, bees are bees by (.75 + .25) / 2 = .5: image 2 is a bee by .9 and surely
        // so; image 4 is an ant by .75 and surely so.
        let one = trial(&[0, 1, 2, 3, 4], &[0, 0, 0, 1, 1], &[0, 0, 1, 1, 0], &[0.9, 0.8, 0.1, 0.75, 0.25]);
        // Ants by .7, bees by (.95 + .4) / 2 = .675: image 4 is an ant by .6, which is less than .7.
        let two = trial(&[1, 2, 3, 4], &[0, 0, 1, 1], &[0, 0, 1, 0], &[0.8, 0.6, 0.95, 0.4]);
        // The same and not sure: ants by .85, bees by .45; and image 2 a bee by .55, which is sure.
        let three = trial(&[0, 2, 4], &[0, 0, 1], &[0, 1, 0], &[0.9, 0.45, 0.45]);

        let found = Labels::of("d", &classes, &images, &[vec![one.clone(), two.clone()], vec![three.clone()]]);
        let of = |sample: u32| found.examined.iter().find(|image| image.sample == sample).cloned();
        // Image 2: one of two trials of the first recipe and the one of the second are sure of bee.
        let two_of = of(2).map(|image| (image.taken_for, image.share, image.trials, image.in_question));
        assert_eq!(two_of, Some((Some("bee".to_owned()), 0.75, 3, true)));
        // Image 4: half of the first recipe and nothing of the second.
        let four = of(4).map(|image| (image.taken_for, image.share, image.trials, image.in_question));
        assert_eq!(four, Some((Some("ant".to_owned()), 0.25, 3, false)));
        // Recipes count alike: ((.1 + .6) / 2 + .45) / 2.
        assert!(of(2).is_some_and(|image| (image.probability - 0.4).abs() < 1e-7));
        assert_eq!(of(0).map(|image| (image.taken_for, image.share)), Some((None, 0.0)));
        let order: Vec<u32> = found.examined.iter().map(|image| image.sample).collect();
        assert_eq!(order, [4, 2, 1, 3, 0], "the least probable label first");
        // Six of nine answers and one of three.
        assert_eq!(found.right, [1.0 / 3.0, 6.0 / 9.0]);
        assert_eq!(
            found.said(),
            "d: 1 of 5 images are surely taken for another class by most of 2 recipes, which are right on .333 to .667"
        );
        // Half is not most, and what nobody held out is not spoken of.
        let half = Labels::of("d", &classes, &images, &[vec![one], vec![two]]);
        assert_eq!(half.in_question().count(), 0);
        let few = Labels::of("d", &classes, &images, &[vec![three]]);
        assert!(
            few.said().starts_with("d: 1 of 3 images that some trial did not learn from (5 in all) are"),
            "{}",
            few.said()
        );
    }
}
