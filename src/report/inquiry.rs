//! Rules look by look: what is settled, and what runs on to the next look.

use super::arm::{Arm, Repeats, Trial, arms};
use super::interim::{Look, looks};
use super::verdict::{Answers, Reach, Rule, Verdict, decide, examine, place, stated};

/// What was found look by look.
pub struct Inquiry {
    /// All arms at each look that was taken.
    pub looks: Vec<(Look, Vec<Arm>)>,
    pub verdicts: Vec<Verdict>,
    /// Of each arm, the last look that a rule asks it to stand at.
    asked: Vec<usize>,
    state: Vec<State>,
}

/// How far a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be looked at.
    Open,
    /// To be looked at when the replicates of a look are there.
    Waiting,
    Settled,
}

/// Verdicts on all rules, one for each context in which both arms stand. A rule that a look leaves open is looked at again
/// with more replicates. `folds` says in how many folds the images of a dataset are.
///
/// # Errors
/// What `answers` returns.
pub fn inquire(
    rules: &[Rule],
    trials: &[Trial],
    repeats: Repeats,
    reach: Reach,
    folds: &dyn Fn(&str) -> Option<usize>,
    answers: Answers,
) -> anyhow::Result<Inquiry> {
    let all = looks(repeats.replicates, repeats.most);
    let mut inquiry = Inquiry { looks: Vec::new(), verdicts: Vec::new(), asked: Vec::new(), state: Vec::new() };
    for (number, look) in all.iter().enumerate() {
        let mut arms = arms(trials, repeats.on(look.replicates));
        arms.iter_mut().for_each(|arm| arm.folds = folds(arm.context_value("dataset")));
        if number == 0 {
            inquiry.asked = vec![0; arms.len()];
            inquiry.verdicts = stated(rules, &arms, reach);
            inquiry.state = vec![State::Open; inquiry.verdicts.len()];
        }
        let begun: Vec<usize> =
            (0..inquiry.verdicts.len()).filter(|index| inquiry.state[*index] == State::Open).collect();
        let mut seen = Vec::new();
        for index in begun {
            let found = examine(&inquiry.verdicts[index], &arms, answers, *look)?;
            let sides = [&found.rule.better, &found.rule.worse].map(|recipe| place(&arms, recipe, &found.context));
            sides.iter().flatten().for_each(|arm| inquiry.asked[*arm] = number);
            if found.difference.is_some() {
                inquiry.verdicts[index] = found;
                seen.push(index);
                continue;
            }
            // What does not stand here never will.
            let none = sides.iter().any(Option::is_none);
            inquiry.state[index] = if none { State::Settled } else { State::Waiting };
            if number == 0 {
                inquiry.verdicts[index] = found;
            } else {
                let awaited = format!("at {} replicates: {}", look.replicates, found.notes.join("; "));
                inquiry.verdicts[index].notes.push(awaited);
            }
        }
        let settled = decide(&mut inquiry.verdicts, &seen, *look, &all[number..]);
        settled.into_iter().for_each(|index| inquiry.state[index] = State::Settled);
        inquiry.looks.push((*look, arms));
        if !inquiry.state.contains(&State::Open) {
            break;
        }
    }
    Ok(inquiry)
}

impl Inquiry {
    /// The verdicts, and each arm at the last look that is asked of it.
    pub fn into_parts(self) -> (Vec<Verdict>, Vec<Arm>) {
        let mut looks: Vec<_> = self.looks.into_iter().map(|(_, arms)| arms.into_iter()).collect();
        let last = |look: usize| {
            let own: Vec<Option<Arm>> = looks.iter_mut().map(Iterator::next).collect();
            own.into_iter().nth(look).flatten()
        };
        (self.verdicts, self.asked.into_iter().filter_map(last).collect())
    }

    /// The arms that a look asks for.
    pub fn asked(&self, number: usize) -> impl Iterator<Item = &Arm> {
        let arms = &self.looks[number].1;
        arms.iter().zip(&self.asked).filter(move |(_, asked)| **asked >= number).map(|(arm, _)| arm)
    }

    /// All arms as they stood where a verdict was found.
    pub fn at(&self, verdict: &Verdict) -> &[Arm] {
        let replicates = verdict.difference.map_or(0, |difference| difference.replicates);
        self.looks.iter().find(|(look, _)| look.replicates == replicates).map_or(&[], |(_, arms)| arms)
    }

    /// What the look before the last one found, where the last one has not all replicates yet.
    pub fn told(&self) -> Option<String> {
        let [.., (before, _), (last, _)] = self.looks.as_slice() else { return None };
        let on = self.asked(self.looks.len() - 1).filter(|arm| arm.missing() > 0).count();
        let settled = self.state.iter().filter(|state| **state == State::Settled).count();
        let recipes = if on == 1 { "recipe runs" } else { "recipes run" };
        (on > 0).then(|| {
            format!(
                "after {} replicates {settled} of {} rules are settled; {on} {recipes} on to {}",
                before.replicates,
                self.state.len(),
                last.replicates
            )
        })
    }

    /// Arms of rules that are not settled.
    pub fn unsettled(&self) -> usize {
        let Some((_, arms)) = self.looks.last() else { return 0 };
        let open = |state: State| state != State::Settled;
        let of =
            |arm: &&Arm| self.verdicts.iter().zip(&self.state).any(|(own, state)| open(*state) && own.speaks_of(arm));
        arms.iter().filter(of).count()
    }
}
