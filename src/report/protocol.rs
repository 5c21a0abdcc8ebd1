//! How settings were compared and recipes tested, in words: what stands below the table of recipes.

use super::findings::{Findings, Folds};

/// How a dataset without a test split was tested.
pub fn cross_validated(of: &Folds, findings: &Findings) -> String {
    let Folds { dataset, folds, images } = of;
    let several = findings.arms.iter().any(|arm| arm.context_value("dataset") == dataset && arm.settings.len() > 1);
    let selects = if several { ", with the setting that its own validation selects" } else { "" };
    format!("{dataset}: its {images} images are in {folds} folds, of which each replicate tests another{selects}")
}

/// On what settings were compared, where that is not all replicates, or not all of a budget.
pub fn tuned(findings: &Findings) -> Vec<String> {
    let screened = findings.arms.iter().filter_map(|arm| arm.screening.as_ref());
    let (count, share) = screened.fold((0, 0.0), |(count, _), screening| (count + 1, screening.share));
    let of = match findings.arms.len() {
        all if all == count => "settings were".to_owned(),
        all => format!("the settings of {count} of {all} recipes were"),
    };
    let screened = (count > 0).then(|| {
        format!("{of} compared on {share} of their budget first; that share of them, two at least, ran all of it")
    });
    let several = findings.arms.iter().any(|arm| arm.settings.len() > 1);
    let then = if count > 0 { "then " } else { "" };
    let first = findings.repeats.first().filter(|_| several).map(|first| {
        format!("settings were {then}compared on {first}; the others ran for what led, until one that has run them all leads")
    });
    screened.into_iter().chain(first).collect()
}
