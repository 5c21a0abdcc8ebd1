//! What a recipe gets wrong on test: class by class, which it takes for which, and the images that it never gets right.

use std::collections::BTreeMap;

use serde::Serialize;

use super::findings::fraction;

/// One test image in one replicate.
#[derive(Clone, Debug)]
pub struct Answer {
    pub id: String,
    pub truth: usize,
    pub predicted: usize,
    /// Of the true class.
    pub probability: f64,
}

/// A class on test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    pub class: String,
    /// Test images.
    pub images: usize,
    /// The share of its images that is answered right.
    pub recall: f64,
    /// The share of right ones among the answers that name it; nothing where none does.
    pub precision: Option<f64>,
    /// The class that it is most often taken for, and the share of its images that is.
    pub taken_for: Option<(String, f64)>,
}

/// An image that no replicate answers right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missed {
    pub id: String,
    pub class: String,
    /// What it is taken for, by most replicates.
    pub taken_for: String,
    /// Of the true class, the mean over replicates.
    pub probability: f64,
}

/// All of it, over the replicates of one recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Errors {
    pub scenario: String,
    pub recipe: String,
    pub replicates: usize,
    /// How many of them tested on an image: all, or fewer where they test on one fold after another.
    pub tested: usize,
    /// The class with the lowest recall first.
    pub classes: Vec<Class>,
    /// The least probable first.
    pub missed: Vec<Missed>,
}

impl Errors {
    /// Counts the answers of each replicate. Images are known by their ids: replicates may test on others.
    pub fn of(scenario: &str, recipe: &str, names: &[String], replicates: &[Vec<Answer>]) -> Self {
        let mut confusion = vec![vec![0usize; names.len()]; names.len()];
        let mut images: BTreeMap<&str, Vec<&Answer>> = BTreeMap::new();
        for answer in replicates.iter().flatten() {
            confusion[answer.truth][answer.predicted] += 1;
            images.entry(&answer.id).or_default().push(answer);
        }
        let mut of_class = vec![0; names.len()];
        images.values().for_each(|answers| of_class[answers[0].truth] += 1);
        let class = |class: usize| count(class, of_class[class], &confusion, names);
        let mut classes: Vec<Class> = (0..names.len()).filter_map(class).collect();
        classes.sort_by(|one, other| one.recall.total_cmp(&other.recall));
        let mut missed: Vec<Missed> = images.values().filter_map(|answers| never_right(answers, names)).collect();
        missed.sort_by(|one, other| one.probability.total_cmp(&other.probability));
        Self {
            scenario: scenario.to_owned(),
            recipe: recipe.to_owned(),
            replicates: replicates.len(),
            tested: images.values().map(Vec::len).max().unwrap_or(0),
            classes,
            missed,
        }
    }

    pub const HEADING: [&str; 5] = ["class", "test images", "recall", "precision", "most often taken for"];

    /// The first `most` classes as cells.
    pub fn rows(&self, most: usize) -> Vec<Vec<String>> {
        let row = |class: &Class| {
            let taken = class.taken_for.as_ref().map(|(other, share)| format!("{other} ({})", fraction(*share)));
            vec![
                class.class.clone(),
                class.images.to_string(),
                fraction(class.recall),
                class.precision.map_or("-".to_owned(), fraction),
                taken.unwrap_or_default(),
            ]
        };
        self.classes.iter().take(most).map(row).collect()
    }

    /// The images that are never right, the first `most` by name.
    pub fn missed_words(&self, most: usize) -> String {
        let images: usize = self.classes.iter().map(|class| class.images).sum();
        let mut text = match (self.missed.len(), self.tested) {
            (0, 1) => format!("all of {images} test images are answered right"),
            (0, _) => format!("each of {images} test images is answered right by some replicate"),
            (missed, 1) => format!("{missed} of {images} test images are answered wrong"),
            (missed, all) if all == self.replicates => {
                format!("{missed} of {images} test images are answered wrong in all {all} replicates")
            }
            (missed, _) => format!("{missed} of {images} test images are answered wrong whenever they are tested"),
        };
        let named: Vec<String> =
            self.missed.iter().take(most).map(|image| format!("{} ({})", image.id, image.taken_for)).collect();
        if !named.is_empty() {
            let first = if self.missed.len() > most { ", the least probable first" } else { "" };
            text.push_str(&format!("{first}, with what they are taken for: {}", named.join(", ")));
        }
        text
    }
}

/// A class with so many images from the table of all answers; nothing of a class without test images.
fn count(class: usize, images: usize, confusion: &[Vec<usize>], names: &[String]) -> Option<Class> {
    let own = &confusion[class];
    let answers: usize = own.iter().sum();
    if answers == 0 {
        return None;
    }
    let share = |count: usize| count as f64 / answers as f64;
    let named: usize = confusion.iter().map(|row| row[class]).sum();
    let mut taken_for: Option<(usize, usize)> = None;
    for (other, times) in own.iter().enumerate().filter(|(other, times)| *other != class && **times > 0) {
        if taken_for.is_none_or(|(_, most)| *times > most) {
            taken_for = Some((other, *times));
        }
    }
    Some(Class {
        class: names[class].clone(),
        images,
        recall: share(own[class]),
        precision: (named > 0).then(|| own[class] as f64 / named as f64),
        taken_for: taken_for.map(|(other, times)| (names[other].clone(), share(times))),
    })
}

/// An image from the answers that it got.
fn never_right(answers: &[&Answer], names: &[String]) -> Option<Missed> {
    if answers.iter().any(|answer| answer.predicted == answer.truth) {
        return None;
    }
    let first = answers.first()?;
    let times = |class: usize| answers.iter().filter(|answer| answer.predicted == class).count();
    let mut taken_for = first.predicted;
    for answer in answers {
        if times(answer.predicted) > times(taken_for) {
            taken_for = answer.predicted;
        }
    }
    let probability = answers.iter().map(|answer| answer.probability).sum::<f64>() / answers.len() as f64;
    let (class, taken_for) = (names[first.truth].clone(), names[taken_for].clone());
    Some(Missed { id: first.id.clone(), class, taken_for, probability })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_counted_over_replicates() {
        let names = ["ant", "bee", "cat", "dog"].map(str::to_owned);
        let answers = |predicted: [usize; 5], probabilities: [f64; 5]| -> Vec<Answer> {
            let truth = [0, 0, 0, 1, 2];
            (0..5)
                .map(|at| Answer {
                    id: format!("{at}.png"),
                    truth: truth[at],
                    predicted: predicted[at],
                    probability: probabilities[at],
                })
                .collect()
        };
        let found = Errors::of(
            "s",
            "r",
            &names,
            &[
                answers([0, 1, 3, 1, 0], [0.9, 0.3, 0.2, 0.8, 0.1]),
                answers([0, 0, 1, 1, 0], [0.9, 0.6, 0.1, 0.8, 0.05]),
            ],
        );
        let class = |class: &str, images, recall, precision, taken_for: Option<(&str, f64)>| Class {
            class: class.to_owned(),
            images,
            recall,
            precision,
            taken_for: taken_for.map(|(other, share)| (other.to_owned(), share)),
        };
        assert_eq!(
            found.classes,
            [
                class("cat", 1, 0.0, None, Some(("ant", 1.0))),
                class("ant", 3, 0.5, Some(0.6), Some(("bee", 1.0 / 3.0))),
                class("bee", 1, 1.0, Some(0.5), None),
            ]
        );
        let missed: Vec<(&str, &str)> =
            found.missed.iter().map(|image| (image.id.as_str(), image.taken_for.as_str())).collect();
        assert_eq!(missed, [("4.png", "ant"), ("2.png", "dog")], "1.png is right once; ties go to the first replicate");
        assert!((found.missed[1].probability - 0.15).abs() < 1e-12);
        assert_eq!(
            found.missed_words(1),
            "2 of 5 test images are answered wrong in all 2 replicates, the least probable first, with what they are taken for: 4.png (ant)"
        );
        // Cross-validation: each replicate tests on images of its own.
        let [mut one, other] = [answers([0, 1, 3, 1, 0], [0.5; 5]), answers([0, 0, 1, 1, 0], [0.5; 5])];
        one.iter_mut().for_each(|answer| answer.id.insert(0, 'x'));
        let folds = Errors::of("s", "r", &names, &[one, other]);
        assert_eq!((folds.tested, folds.classes.iter().map(|class| class.images).sum::<usize>()), (1, 10));
        assert!(
            folds.missed_words(0).starts_with("5 of 10 test images are answered wrong"),
            "{}",
            folds.missed_words(0)
        );
        assert_eq!(found.rows(1), [["cat", "1", ".000", "-", "ant (1.000)"].map(str::to_owned)]);
    }
}
