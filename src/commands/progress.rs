//! What a person sees of a running sweep: one bar with the time left, and the trials that run. On stderr.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::Exit;
use super::budget::Budget;
use super::jobs::Jobs;
use super::run::describe;
use super::snapshot::{Beacon, Snapshot};
use super::world::World;
use crate::cli::{Asked, Common};
use crate::plan::Plan;
use crate::plan::shard::Shard;
use crate::schedule::event::Event;
use crate::store::record::SweepCost;
use crate::train::WORTH;

/// At most so many running trials have a line of their own.
const LINES: usize = 8;

/// Seconds of a job whose cost is all but nothing: it must be handed out and its results stored.
const LEAST: f64 = 1e-3;

pub struct Board {
    beacon: Beacon,
    bars: MultiProgress,
    overall: ProgressBar,
    lines: BTreeMap<usize, ProgressBar>,
    names: Vec<String>,
    /// Predicted seconds of each job.
    weights: Vec<f64>,
    /// How far each job is, 0 to 1.
    parts: Vec<f64>,
    start: Instant,
    forecast: f64,
    forecast_saving: f64,
    failures: Vec<String>,
    /// What steps of several networks together took, as a part of what they took apart.
    abreast: Vec<f64>,
    finished: usize,
    left_out: bool,
    /// Without a terminal: when the last line was printed.
    plain: Option<Instant>,
    quiet: bool,
    announced_stop: usize,
    last_retry: Option<crate::outcome::Failure>,
}

impl Board {
    pub fn new(beacon: Beacon, common: &Common) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bars = MultiProgress::new();
        if !terminal || common.quiet {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Self {
            beacon,
            bars,
            overall: ProgressBar::hidden(),
            lines: BTreeMap::new(),
            names: Vec::new(),
            parts: Vec::new(),
            weights: Vec::new(),
            start: Instant::now(),
            forecast: 0.0,
            forecast_saving: 1.0,
            failures: Vec::new(),
            abreast: Vec::new(),
            finished: 0,
            left_out: false,
            plain: (!terminal && !common.quiet).then(Instant::now),
            quiet: common.quiet,
            announced_stop: 0,
            last_retry: None,
        }
    }

    /// Says what is to run now and what will follow from it, and starts the bar; what failed before stays noted.
    pub fn begin(&mut self, plan: &Plan, jobs: &Jobs, later: usize, world: &World, decoded: usize) {
        let trials = jobs.list.iter().filter(|job| matches!(job.what, super::jobs::What::Trial { .. })).count();
        self.weights = jobs.list.iter().map(|job| job.seconds.max(LEAST)).collect();
        self.parts = vec![0.0; self.weights.len()];
        self.names = jobs.list.iter().map(|job| describe(plan, &job.what)).collect();
        self.forecast = self.weights.iter().sum::<f64>() / world.slots_worth();
        let (alone, macs) = jobs.list.iter().fold((0.0, 0.0), |sum, job| (sum.0 + job.alone, sum.1 + job.macs));
        self.forecast_saving = alone / macs.max(1.0);
        self.left_out = trials + jobs.totals.done < jobs.totals.trials;
        (self.start, self.finished) = (Instant::now(), 0);
        self.abreast.clear();
        self.overall = self.bars.add(ProgressBar::new(1000));
        self.overall.set_style(bar_style());
        if !self.quiet {
            let later = match later {
                0 => String::new(),
                later => format!("; about {later} more will follow, for the settings that lead by validation"),
            };
            let note = if decoded > 0 { format!("; {decoded} images decoded") } else { String::new() };
            eprintln!(
                "{} trials: {} in the store, {trials} to run on {} slot(s) of {}, about {}{later}{note}",
                jobs.totals.trials,
                jobs.totals.done,
                world.facts.slots,
                world.devices.names(),
                HumanDuration(Duration::from_secs_f64(self.forecast.min(1e8)))
            );
        }
    }

    pub fn tell(&mut self, event: &Event, interrupts: usize) {
        if interrupts > self.announced_stop && !self.quiet {
            self.announced_stop = interrupts;
            self.say("stopping: running trials are finished first; Ctrl-C again stops at once");
        }
        match event {
            Event::Started { jobs } => self.open(jobs),
            Event::Progress { jobs, progress } => {
                for job in jobs {
                    self.parts[*job] = (progress.step as f64 / progress.steps.max(1) as f64).min(1.0);
                }
                let accuracy = progress.accuracy.map_or_else(String::new, |accuracy| format!("  val {accuracy:.3}"));
                // An encoding has no loss.
                let loss = if progress.loss > 0.0 { format!("  loss {:.3}", progress.loss) } else { String::new() };
                if let Some(line) = jobs.iter().find_map(|job| self.lines.get(job)) {
                    let job = jobs.iter().find(|job| self.lines.contains_key(job)).copied().unwrap_or(jobs[0]);
                    let others = if jobs.len() > 1 { format!(" and {} more", jobs.len() - 1) } else { String::new() };
                    line.set_message(format!(
                        "{}{others}  step {}/{}{loss}{accuracy}",
                        self.names[job],
                        progress.step.min(progress.steps),
                        progress.steps
                    ));
                    line.tick();
                }
            }
            Event::Finished { job, outcome } => {
                self.close_line(*job);
                self.finished += 1;
                self.abreast.extend(outcome.abreast);
                for warning in &outcome.warnings {
                    self.say(&format!("warning: {}: {warning}", self.names[*job]));
                }
            }
            Event::Failed { job, failure, again } => {
                self.close_line(*job);
                let text = format!("{}: {} ({})", self.names[*job], failure.message, failure.class.name());
                if *again {
                    self.parts[*job] = 0.0;
                    self.retried(failure);
                } else {
                    self.say(&format!("failed: {text}"));
                    self.failures.push(text);
                }
            }
            Event::Blocked { job } => {
                self.parts[*job] = 1.0;
                self.failures.push(format!("{}: not run, a stage that it needs has failed", self.names[*job]));
            }
        }
        self.draw();
    }

    /// One message for all that is tried again for the same reason.
    fn retried(&mut self, failure: &crate::outcome::Failure) {
        if self.last_retry.as_ref() != Some(failure) {
            self.say(&format!("will be tried again: {} ({})", failure.message, failure.class.name()));
            self.last_retry = Some(failure.clone());
        }
    }

    /// One line for a group, under the name of its last job: it is among the last to finish.
    fn open(&mut self, jobs: &[usize]) {
        if let Some(job) = jobs.last().copied().filter(|_| self.lines.len() < LINES) {
            let line = self.bars.add(ProgressBar::new_spinner());
            line.set_style(
                ProgressStyle::with_template("  {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            line.set_message(self.names[job].clone());
            line.tick();
            self.lines.insert(job, line);
        }
    }

    fn close_line(&mut self, job: usize) {
        self.parts[job] = 1.0;
        if let Some(line) = self.lines.remove(&job) {
            line.finish_and_clear();
            self.bars.remove(&line);
        }
    }

    /// The bar counts half-done trials by their predicted cost.
    fn draw(&mut self) {
        let total: f64 = self.weights.iter().sum();
        let done: f64 = self.weights.iter().zip(&self.parts).map(|(weight, part)| weight * part).sum();
        let share = done / total.max(LEAST);
        let elapsed = self.start.elapsed().as_secs_f64();
        let left = if share > 0.02 { elapsed * (1.0 - share) / share } else { (self.forecast - elapsed).max(0.0) };
        let message = format!(
            "{} of {} stages, {} left",
            self.finished,
            self.names.len(),
            HumanDuration(Duration::from_secs_f64(left.min(1e8)))
        );
        self.overall.set_position((share * 1000.0) as u64);
        self.overall.set_message(message.clone());
        self.beacon.show(|| Snapshot {
            share,
            stages: self.names.len(),
            finished: self.finished,
            seconds_left: left,
            running: self.lines.values().map(ProgressBar::message).collect(),
            failed: self.failures.clone(),
            ..Snapshot::default()
        });
        if self.plain.is_some_and(|last| last.elapsed() > Duration::from_secs(15)) {
            eprintln!("{:3.0}%  {message}", share * 100.0);
            self.plain = Some(Instant::now());
        }
    }

    fn say(&self, text: &str) {
        if self.plain.is_some() || self.quiet || self.bars.println(text).is_err() {
            eprintln!("{text}");
        }
    }

    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Whether `--limit` left trials out.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// Says that the time is up.
    pub fn spent(&self, budget: &Budget) {
        if !self.quiet {
            self.say(&budget.spent(self.names.len() - self.finished - self.failures.len()));
        }
    }

    /// Seconds that the sweep should take.
    pub fn forecast(&self) -> f64 {
        self.forecast
    }

    /// Takes the bars away, and says what was foreseen and what came of it.
    pub fn close(&mut self, cost: &SweepCost) {
        self.overall.finish_and_clear();
        if self.quiet || self.names.is_empty() {
            return;
        }
        eprintln!(
            "{} stages in {} (forecast {})",
            self.finished,
            HumanDuration(Duration::from_secs_f64(cost.seconds)),
            HumanDuration(Duration::from_secs_f64(self.forecast.min(1e8)))
        );
        if cost.shared > 0.0 && cost.alone > cost.shared {
            eprintln!(
                "sharing: {:.2} TFLOP done, {:.2} one by one: a factor of {:.1} (forecast {:.1})",
                2e-12 * cost.shared,
                2e-12 * cost.alone,
                cost.alone / cost.shared,
                self.forecast_saving
            );
        }
        if !self.abreast.is_empty() {
            self.abreast.sort_by(f64::total_cmp);
            eprintln!(
                "first layers of several networks as one product: tried for {} sets, kept for {}; a step took {:.2} of its time apart (median)",
                self.abreast.len(),
                self.abreast.iter().filter(|ratio| **ratio < WORTH).count(),
                self.abreast[self.abreast.len() / 2]
            );
        }
        eprintln!();
    }

    /// Failures once more, and what to type next.
    pub fn last_words(&self, exit: Exit, asked: &Asked, shard: Option<Shard>) {
        let part = shard.map_or_else(String::new, |shard| format!(" --shard {shard}"));
        for failure in &self.failures {
            eprintln!("failed: {failure}");
        }
        if self.quiet {
            return;
        }
        match exit {
            Exit::SomeFailed => {
                eprintln!("\n{} failed; `tl-sweep run {asked}{part}` tries them again", self.failures.len())
            }
            Exit::Outstanding => {
                eprintln!("\nnot everything has run; `tl-sweep run {asked}{part}` goes on from here")
            }
            _ if shard.is_some() => {}
            _ => eprintln!(
                "\n`tl-sweep export {} --best SCENARIO --out best.onnx` writes a network of what it uses there; `tl-sweep report --format html` makes a page of this",
                asked
            ),
        }
    }
}

/// Of the bar of a whole sweep.
pub fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
