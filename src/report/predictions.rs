//! Answers to images: as a table, as CSV, as JSON, and how many are what the images' folders say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::compare::share_interval;
use super::csv::Csv;
use super::findings::fraction;
use super::table::{Style, table};

/// What is said of one image.
pub struct Answered {
    pub path: PathBuf,
    /// Logarithms of the probabilities, class by class; or why there are none.
    pub found: Result<Vec<f64>, String>,
    /// Whether training, or the choice of its settings, has seen this very image.
    pub seen: bool,
}

/// The answers of one model.
pub struct Predictions {
    /// Facts of its file, such as the trial that it comes from.
    pub facts: BTreeMap<String, String>,
    pub classes: Vec<String>,
    pub images: Vec<Answered>,
    /// What is less sure is left open.
    pub sure: Option<f64>,
}

/// How many answers are what the folders say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    pub right: usize,
    pub of: usize,
    /// Of those, the ones that training has seen.
    pub seen: usize,
}

/// Classes from the likeliest on, with their probabilities; the first of equals comes first, as in a trial's scores.
pub fn ranked(log_probabilities: &[f64]) -> Vec<(usize, f64)> {
    let mut ranked: Vec<(usize, f64)> = log_probabilities.iter().copied().enumerate().collect();
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    ranked.into_iter().map(|(class, logarithm)| (class, logarithm.exp())).collect()
}

impl Answered {
    fn ranked(&self) -> Vec<(usize, f64)> {
        self.found.as_ref().map_or_else(|_| Vec::new(), |found| ranked(found))
    }

    /// The name of the folder that it lies in.
    fn folder(&self) -> Option<&str> {
        self.path.parent().and_then(Path::file_name)?.to_str()
    }
}

impl Predictions {
    /// Whether an answer is not sure enough; never without a bound.
    fn is_open(&self, image: &Answered) -> bool {
        let first = image.ranked().first().map(|(_, probability)| *probability);
        self.sure.zip(first).is_some_and(|(sure, probability)| probability < sure)
    }

    /// How many answers are not sure enough, for people; nothing without a bound.
    pub fn left_open_words(&self) -> Option<String> {
        let sure = self.sure?;
        let open = self.images.iter().filter(|image| self.is_open(image)).count();
        let all = self.images.iter().filter(|image| image.found.is_ok()).count();
        Some(format!("{open} of {all} answers are less sure than {} and are left open", fraction(sure)))
    }

    /// Of images in folders that are all called as classes are, those that are not left open; nothing otherwise.
    pub fn agreement(&self) -> Option<Agreement> {
        let mut agreement = Agreement { right: 0, of: 0, seen: 0 };
        for image in self.images.iter().filter(|image| image.found.is_ok()) {
            let truth = image.folder().and_then(|folder| self.classes.iter().position(|class| class == folder))?;
            if self.is_open(image) {
                continue;
            }
            agreement.of += 1;
            agreement.right += usize::from(image.ranked().first().is_some_and(|(class, _)| *class == truth));
            agreement.seen += usize::from(image.seen);
        }
        (agreement.of > 0).then_some(agreement)
    }

    /// The same in a sentence.
    pub fn agreement_words(&self) -> Option<String> {
        Some(self.agreement()?.said(if self.sure.is_some() { "of the others " } else { "" }))
    }

    /// Images that could not be answered.
    pub fn broken(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.images.iter().filter_map(|image| Some((image.path.as_path(), image.found.as_ref().err()?.as_str())))
    }

    /// A row for each image: the `top` likeliest classes.
    pub fn table(&self, style: Style, top: usize) -> String {
        let top = top.min(self.classes.len());
        let places: Vec<String> =
            (1..=top).map(|place| if place == 1 { "class".to_owned() } else { place.to_string() }).collect();
        let heading: Vec<&str> = std::iter::once("image").chain(places.iter().map(String::as_str)).collect();
        let rows: Vec<Vec<String>> = self.images.iter().map(|image| self.row(image, top)).collect();
        table(style, &heading, &rows)
    }

    fn row(&self, image: &Answered, top: usize) -> Vec<String> {
        let mut row = vec![image.path.display().to_string()];
        match &image.found {
            Err(reason) => row.push(format!("no answer: {reason}")),
            Ok(_) => {
                let cell =
                    |(class, probability): (usize, f64)| format!("{} {}", self.classes[class], fraction(probability));
                row.extend(image.ranked().into_iter().take(top).map(cell));
                if self.is_open(image) {
                    row[1] = format!("unsure: {}", row[1]);
                }
            }
        }
        row.resize(top + 1, String::new());
        row
    }

    /// A row for each image: the likeliest classes and their probabilities, whether it was seen, why there is no answer.
    ///
    /// # Errors
    /// Only the writer's own.
    pub fn csv(&self, top: usize) -> anyhow::Result<String> {
        let top = top.min(self.classes.len());
        let places = (0..top).flat_map(|place| [numbered("class", place), numbered("probability", place)]);
        let names: Vec<String> = std::iter::once("image".to_owned())
            .chain(places)
            .chain(["seen", "unsure", "problem"].map(str::to_owned))
            .collect();
        let columns: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut csv = Csv::new(&columns)?;
        for image in &self.images {
            let mut row = BTreeMap::from([("image".to_owned(), image.path.display().to_string())]);
            for (place, (class, probability)) in image.ranked().into_iter().take(top).enumerate() {
                row.insert(numbered("class", place), self.classes[class].clone());
                row.insert(numbered("probability", place), probability.to_string());
            }
            row.insert("seen".to_owned(), image.seen.to_string());
            row.extend(self.sure.map(|_| ("unsure".to_owned(), self.is_open(image).to_string())));
            row.extend(image.found.as_ref().err().map(|reason| ("problem".to_owned(), reason.clone())));
            csv.push(&row)?;
        }
        csv.text()
    }

    /// Everything, for machines.
    pub fn json(&self) -> Value {
        let image = |image: &Answered| {
            let ranked = image.ranked();
            let all: serde_json::Map<String, Value> =
                ranked.iter().map(|(class, probability)| (self.classes[*class].clone(), json!(probability))).collect();
            json!({
                "image": image.path.display().to_string(),
                "class": ranked.first().map(|(class, _)| self.classes[*class].clone()),
                "probability": ranked.first().map(|(_, probability)| probability),
                "probabilities": all,
                "seen": image.seen,
                "unsure": self.sure.map(|_| self.is_open(image)),
                "problem": image.found.as_ref().err(),
            })
        };
        json!({
            "version": 1,
            "model": self.facts,
            "classes": self.classes,
            "sure": self.sure,
            "images": self.images.iter().map(image).collect::<Vec<_>>(),
            "agreement": self.agreement().map(|found| json!({
                "right": found.right, "of": found.of, "seen": found.seen, "ci95": found.interval(),
            })),
        })
    }
}

fn numbered(name: &str, place: usize) -> String {
    if place == 0 { name.to_owned() } else { format!("{name}_{}", place + 1) }
}

impl Agreement {
    /// A 95% interval of the share that is right.
    pub fn interval(&self) -> [f64; 2] {
        share_interval(self.right, self.of)
    }

    /// A sentence for people, which begins so.
    fn said(&self, begin: &str) -> String {
        let [low, high] = self.interval();
        let share = fraction(self.right as f64 / self.of as f64);
        let mut text = format!(
            "{begin}{} of {} are what their folders say: {share} [{}, {}]",
            self.right,
            self.of,
            fraction(low),
            fraction(high)
        );
        if self.seen > 0 {
            text.push_str(&format!("; training or its settings have seen {} of them, so that is too good", self.seen));
        }
        text
    }
}
