//! The test images of several scenarios as those of one, so that a mean over scenarios has an interval that heeds what they
//! have in common.

use std::collections::BTreeMap;

use super::arm::Arm;
use super::compare::Scored;

/// Test answers by scenario and replicate.
pub type Told = Vec<Vec<Scored>>;

/// The test images of all scenarios, those of a dataset once.
pub struct Images {
    /// Of each scenario and replicate: each image by its place among all, and by its number.
    tested: Vec<Vec<(Vec<usize>, Vec<u32>)>>,
    /// Of each scenario, what an image weighs in the mean over scenarios.
    weights: Vec<f64>,
    all: usize,
}

impl Images {
    /// Those on which these arms were tested.
    pub fn of(arms: &[&Arm], told: &Told) -> Self {
        let mut places = BTreeMap::new();
        for (arm, scored) in arms.iter().zip(told) {
            let own = scored.iter().flat_map(|own| &own.images);
            places.extend(own.map(|image| ((arm.context_value("dataset"), *image), 0)));
        }
        let mut of_dataset: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, ((dataset, _), place)) in places.iter_mut().enumerate() {
            *of_dataset.entry(*dataset).or_default() += 1;
            *place = at;
        }
        let (all, scenarios) = (places.len(), arms.len());
        let tested = arms.iter().zip(told).map(|(arm, scored)| {
            let place = |image: &u32| places[&(arm.context_value("dataset"), *image)];
            scored.iter().map(|own| (own.images.iter().map(place).collect(), own.images.clone())).collect()
        });
        // An image of a dataset with few of them weighs more.
        let weight = |arm: &&Arm| all as f64 / of_dataset[arm.context_value("dataset")] as f64 / scenarios as f64;
        Self { tested: tested.collect(), weights: arms.iter().map(weight).collect(), all }
    }

    /// Whether these are answers to the same images.
    pub fn fit(&self, told: &Told) -> bool {
        let same = |(tested, own): (&(Vec<usize>, Vec<u32>), &Scored)| tested.1 == own.images;
        self.tested.iter().zip(told).all(|(tested, own)| tested.len() == own.len() && tested.iter().zip(own).all(same))
    }

    /// The mean metric over scenarios as one metric of all these images, so that scenarios that test on the same images, and
    /// replicates, are not taken for independent.
    pub fn together(&self, told: &Told) -> Vec<Scored> {
        let one = |replicate: usize| {
            let mut sums: Vec<Option<f64>> = vec![None; self.all];
            for ((tested, weight), scored) in self.tested.iter().zip(&self.weights).zip(told) {
                for (place, influence) in tested[replicate].0.iter().zip(&scored[replicate].influence) {
                    *sums[*place].get_or_insert(0.0) += weight * influence;
                }
            }
            let known = sums.into_iter().enumerate().filter_map(|(place, sum)| Some((place as u32, sum?)));
            let (images, influence) = known.unzip();
            let metric = told.iter().map(|scored| scored[replicate].metric).sum::<f64>() / told.len() as f64;
            Scored { metric, influence, images }
        };
        (0..told[0].len()).map(one).collect()
    }
}
