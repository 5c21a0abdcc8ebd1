//! Which setting of an arm validation selects, and which arm of several; which others are worth a run for that, and what is still
//! to be run.

use super::arm::{Arm, Repeats, Screening, Setting, is_open};
use super::compare::mean;

/// Fills in what follows from an arm's trials.
pub(super) fn select(arm: &mut Arm, repeats: Repeats) {
    screen(arm, repeats);
    lead(arm, repeats);
    arm.unplanned = unplanned(arm, repeats);
}

/// Finds the settings that run their whole budget, by what all reach on a share of it; the first of equals in the file. The others
/// have no trials with all of it.
fn screen(arm: &mut Arm, repeats: Repeats) {
    // What has no steps has no share of them.
    let all = arm.settings.iter().all(|setting| setting.short_cell.is_some());
    let most = repeats.screened(arm.settings.len()).filter(|_| all);
    let Some((share, most)) = repeats.share.zip(most) else {
        arm.settings.iter_mut().for_each(|setting| setting.short.clear());
        return;
    };
    let compared = |setting: &Setting| setting.short.len() == repeats.tuned && !setting.short.iter().any(is_open);
    let kept = arm.settings.iter().all(compared).then(|| {
        let mean = |setting: &Setting| Some(setting.short_scores(repeats.tuned)?.iter().sum::<f64>());
        let means = arm.settings.iter().enumerate().filter_map(|(index, setting)| Some((index, mean(setting)?)));
        let mut means: Vec<(usize, f64)> = means.collect();
        means.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let mut kept: Vec<usize> = means.into_iter().take(most).map(|(index, _)| index).collect();
        kept.sort_unstable();
        kept
    });
    for (index, setting) in arm.settings.iter_mut().enumerate() {
        if !kept.iter().flatten().any(|kept| *kept == index) {
            setting.trials.clear();
        }
    }
    arm.screening = Some(Screening { share, most, kept });
}

/// Finds the setting that leads, and those that have led before it; the first of equals in the file.
fn lead(arm: &mut Arm, Repeats { replicates, tuned, .. }: Repeats) {
    for setting in &mut arm.settings {
        setting.validation = setting.mean(tuned).map(|mean| (mean, tuned));
    }
    let compared = arm.settings.iter().all(|setting| setting.open(|trial| trial.replicate < tuned) == 0);
    let mut worth = Vec::new();
    loop {
        let mut best: Option<(usize, f64)> = None;
        for (index, setting) in arm.settings.iter().enumerate() {
            if let Some((mean, _)) = setting.validation
                && best.is_none_or(|(_, most)| mean > most)
            {
                best = Some((index, mean));
            }
        }
        arm.selected = best.map(|(index, _)| index);
        let Some((leader, _)) = best.filter(|(index, _)| tuned < replicates && !worth.contains(index)) else { break };
        worth.push(leader);
        let setting = &mut arm.settings[leader];
        match setting.mean(replicates) {
            Some(mean) => setting.validation = Some((mean, replicates)),
            None if setting.count("diverged") > 0 => setting.validation = None,
            // It is to run.
            None => break,
        }
    }
    arm.worth = match (arm.settings.len(), compared) {
        (1, _) => vec![0],
        (_, true) => worth,
        (_, false) => Vec::new(),
    };
}

/// Trials of settings that are worth their whole budget, and later replicates of the selected one, or of the one to be selected,
/// that are not planned.
fn unplanned(arm: &Arm, Repeats { replicates, tuned, .. }: Repeats) -> usize {
    let first = |index: &usize| arm.settings[*index].trials.iter().filter(|trial| trial.replicate < tuned).count();
    let lacking = |Screening { most, kept, .. }: &Screening| match kept {
        None => most * tuned,
        Some(kept) => kept.iter().map(|index| tuned - first(index)).sum(),
    };
    let lacking = arm.screening.as_ref().map_or(0, lacking);
    if lacking > 0 {
        return lacking + replicates - tuned;
    }
    let later = |setting: &Setting| setting.trials.iter().filter(|trial| trial.replicate >= tuned).count();
    let planned = match arm.best() {
        Some(best) => later(best),
        None if arm.missing() > 0 => arm.settings.iter().map(later).max().unwrap_or(0),
        None => return 0,
    };
    (replicates - tuned).saturating_sub(planned)
}

/// The arm with the best mean validation metric over the first replicates, which all have; the first of equals.
pub(super) fn leading<'a>(arms: impl Iterator<Item = &'a Arm>, first: usize) -> Option<&'a Arm> {
    let mut best: Option<(&Arm, f64)> = None;
    for arm in arms {
        let Some(setting) = arm.best() else { continue };
        let trials = setting.trials.iter().filter(|trial| trial.replicate < first);
        let value = mean(&trials.filter_map(|trial| trial.val).collect::<Vec<_>>()).mean;
        if best.is_none_or(|(_, most)| value > most) {
            best = Some((arm, value));
        }
    }
    best.map(|(arm, _)| arm)
}
