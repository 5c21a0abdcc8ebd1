//! `run FILE`: makes the store match the file. The table of contents of the whole program.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::budget::Budget;
use super::data::told_of_files;
use super::jobs::{self, Jobs, What};
use super::progress::Board;
use super::recorder::{Ground, Recorder, begin, circumstance};
use super::rerun::Again;
use super::snapshot::Beacon;
use super::world::World;
use super::{
    DiskFull, Exit, NoDevice, Usage, findings, host, keep, near, prepare, print, process, report, streams, tuning,
};
use crate::cli::{Asked, Common, Published};
use crate::device::Device;
use crate::experiment::Experiment;
use crate::experiment::over_cells;
use crate::key::Key;
use crate::plan::Plan;
use crate::plan::shard::{self, Shard};
use crate::plan::stage::Stage;
use crate::recipe::Keep;
use crate::schedule::event::Event;
use crate::schedule::pool::Pool;
use crate::schedule::queue::{Limits, Queue};
use crate::schedule::sweep::{End, Stop, sweep};
use crate::store::Store;
use crate::store::record::SweepCost;
use crate::value::Value;

/// The part of free memory that the parameters of trials that run together may take.
const MEMORY_OF_GROUPS: f64 = 0.3;

/// Which part of the file a sweep takes.
pub struct Part {
    pub only: Option<String>,
    pub limit: Option<usize>,
    /// How long it may take.
    pub budget: Option<Duration>,
    /// What one of several machines runs.
    pub shard: Option<Shard>,
    /// Every trial alone, for audit.
    pub no_share: bool,
    /// How the report is written.
    pub format: Published,
    /// Trials that have results and run again, by the first digits of their keys; empty: all of `only`.
    pub again: Option<Vec<String>>,
}

pub fn run(asked: &Asked, part: &Part, common: &Common) -> anyhow::Result<Exit> {
    let interrupts = listen_for_interrupts()?;
    let budget = part.budget.map(Budget::new);
    let experiment = Experiment::load(&asked.file, &asked.set)?;
    let mut world = World::gather(&experiment, &asked.file, common)?;
    world.share = !part.no_share;
    world.keep = experiment.keep != Keep::None;
    let plan = Plan::new(&experiment, &world.facts).map_err(|list| experiment.problems(list))?;
    let store = Store::open(&common.db)?;
    let cells = chosen(&plan, part)?;
    let beacon = Beacon::light(&common.db, &experiment.name);
    let board = Board::new(beacon, common);
    let mut rounds = Rounds { experiment, part, budget, common, cells, plan, world, store, board, open: 0 };
    rounds.choose()?;
    let mut again = rounds.again()?;
    rounds.refuse_mixed_numerics(again.as_ref())?;
    rounds.world.devices.tell(common);
    let mut tried = HashSet::new();
    let exit = loop {
        let jobs = rounds.outstanding(&tried, again.as_ref())?;
        tried.extend(jobs.trials());
        let (exit, more) = rounds.round(&jobs, again.as_mut(), &interrupts)?;
        if !more {
            break exit;
        }
    };
    let Rounds { experiment, world, plan, store, board, cells, .. } = rounds;
    let found = findings::gather(&store, Some(&experiment.name))?;
    let unkept = keep::settle(&experiment, &found, &world, &store)?;
    if let Some(again) = again {
        return again.say(exit);
    }
    match part.shard {
        Some(shard) => print(&shard_words(shard, &plan, &cells, &world, &store, common)?)?,
        None => print(report::published(&found, &store, part.format)?.trim_end())?,
    }
    if let Some(unkept) = unkept.filter(|_| !common.quiet) {
        eprintln!("\n{unkept}");
    }
    board.last_words(exit, asked, part.shard);
    Ok(exit)
}

/// A sweep, round by round: where settings are compared on a share of their budget, the next round runs all of it for the best;
/// where they are compared on the first replicates, the next one runs the others for what leads by validation; where rules are
/// open after a look, the next one runs the replicates of another look.
struct Rounds<'a> {
    experiment: Experiment,
    part: &'a Part,
    budget: Option<Budget>,
    common: &'a Common,
    cells: Vec<usize>,
    plan: Plan,
    world: World,
    store: Store,
    board: Board,
    /// Trials that will follow where settings are still to be compared.
    open: usize,
}

impl Rounds<'_> {
    /// Runs jobs and notes how it ended; whether there is another round.
    fn round(
        &mut self,
        jobs: &Jobs,
        again: Option<&mut Again>,
        interrupts: &AtomicUsize,
    ) -> anyhow::Result<(Exit, bool)> {
        let Self { experiment, budget, common, plan, world, store, board, .. } = self;
        let repeats = again.is_some();
        streams::settle(plan, jobs, common.slots, world)?;
        let prepared = prepare::prepare_data(plan, jobs, world)?;
        if prepared.decoded > 0 && !common.quiet {
            // `check` says it of what is packed already.
            for dataset in world.datasets.values() {
                told_of_files(dataset)?.iter().for_each(|told| eprintln!("warning: {told}"));
            }
        }
        let near = near::found(&prepared, world)?;
        if world.places.cache.is_dir() {
            world.rates.keep()?;
        }
        let circumstance = circumstance(world);
        let begun = begin(store, experiment, plan, world, &circumstance)?;
        near::record(&near, store)?;
        let alone = self.part.shard.is_none() && self.part.only.is_none() && self.part.limit.is_none();
        let later = if alone && !repeats { self.open } else { 0 };
        board.begin(plan, jobs, later, world, prepared.decoded);
        let ground = Ground { plan, jobs, world, circumstance: &circumstance, sweep: begun };
        let (end, cost) = execute(&ground, budget.as_ref(), store, board, again, interrupts)?;
        let more = !repeats && matches!(end, End::Complete) && self.choose()?;
        let whole = self.part.shard.is_some() || jobs.totals.trials == self.plan.all_trials().len() && self.open == 0;
        let exit = finish(&mut self.store, begun, end, &cost, &self.board, self.part, repeats || whole)?;
        self.board.close(&cost);
        Ok((exit, more))
    }

    /// Says which settings are worth how many replicates; whether that is more than before.
    fn choose(&mut self) -> anyhow::Result<bool> {
        let of = if self.part.shard.is_some() { tuning::of_part } else { tuning::worth };
        let worth = of(&self.plan, &self.experiment, Some(&self.store))?;
        let more = self.plan.choose(worth.cells);
        self.open = self.plan.more(&worth.open);
        if let Some(looked) = worth.looked.filter(|_| more && !self.common.quiet) {
            eprintln!("{looked}");
        }
        Ok(more)
    }

    /// The trials that run again, if that is asked for.
    fn again(&self) -> anyhow::Result<Option<Again>> {
        let Some(keys) = &self.part.again else { return Ok(None) };
        Again::chosen(keys, &self.plan, &self.cells, &self.store.finished()?).map(Some)
    }

    /// What is to be run and has not been tried: what the store lacks of some cells, or what is to run again.
    fn outstanding(&self, tried: &HashSet<Key>, again: Option<&Again>) -> anyhow::Result<Jobs> {
        let mut finished = self.store.finished()?;
        finished.retain(|key| again.is_none_or(|again| !again.keys.contains(key)));
        finished.extend(tried);
        let jobs = match own(self.part.shard, &self.plan, &self.cells, &self.world)? {
            Some(own) => jobs::of_part(&self.plan, &self.cells, &own, &finished, &self.world),
            None => jobs::jobs(&self.plan, &self.cells, &finished, &self.world),
        };
        let mut jobs = jobs.map_err(anyhow::Error::msg)?;
        if let Some(again) = again {
            jobs.retain(&again.keys);
        }
        let limit = self.part.limit.map(|limit| limit.saturating_sub(tried.len()));
        Ok(limited(jobs, limit))
    }

    /// Results of one experiment come from one numerics class, unless the file allows a mix.
    fn refuse_mixed_numerics(&self, again: Option<&Again>) -> anyhow::Result<()> {
        let Self { experiment, plan, store, world, .. } = self;
        if experiment.mix_numerics {
            return Ok(());
        }
        let keys = plan.all_trials().into_iter().map(|trial| trial.key);
        let keys: HashSet<Key> = keys.filter(|key| again.is_none_or(|again| !again.keys.contains(key))).collect();
        let classes = world.devices.classes();
        if classes.len() > 1 {
            return Err(Usage(format!(
                "--devices {}: results may differ in the last digits between {}. Name devices of one class, or set \
                 mix_numerics = true under [experiment]",
                world.devices.names(),
                classes.join(" and ")
            ))
            .into());
        }
        let own = world.devices.numerics();
        match store.numerics_of(&keys)?.iter().find(|(class, _)| class.as_str() != own) {
            None => Ok(()),
            Some((class, count)) => Err(Usage(format!(
                "the store holds {count} trials of this experiment from {class}, and this machine computes {own}: results may differ in the last digits. \
                 Use another --db, or set mix_numerics = true under [experiment]"
            ))
            .into()),
        }
    }
}

/// The trials of a machine's part.
fn own(shard: Option<Shard>, plan: &Plan, cells: &[usize], world: &World) -> anyhow::Result<Option<HashSet<Key>>> {
    shard.map(|shard| shard::part(plan, cells, shard, &world.facts)).transpose().map_err(anyhow::Error::msg)
}

/// What became of a machine's part.
fn shard_words(
    shard: Shard,
    plan: &Plan,
    cells: &[usize],
    world: &World,
    store: &Store,
    common: &Common,
) -> anyhow::Result<String> {
    let own = own(Some(shard), plan, cells, world)?.unwrap_or_default();
    let done = store.finished()?.intersection(&own).count();
    let all = own.len();
    let none = if all == 0 { ": so many machines have nothing to do" } else { "" };
    let what = match (plan.compares_first(), plan.replicates < plan.max_replicates) {
        (true, false) => Some("for the settings that lead"),
        (false, true) => Some("for the rules that are open"),
        (true, true) => Some("for the settings that lead and the rules that are open"),
        (false, false) => None,
    };
    let again = |what| format!("; then every machine runs its part again from the joined store, {what}");
    let later = what.map(again).unwrap_or_default();
    Ok(format!(
        "part {shard}: {done} of {all} trials are done{none}; `tl-sweep merge {}` and the stores of the other parts joins them{later}",
        common.db.display()
    ))
}

/// The cells that `--only` asks for, all without it.
fn chosen(plan: &Plan, part: &Part) -> anyhow::Result<Vec<usize>> {
    let Some(text) = &part.only else { return Ok((0..plan.cells.len()).collect()) };
    let condition = over_cells(text).map_err(|message| Usage(format!("--only \"{text}\": {message}")))?;
    let cells: Vec<usize> =
        (0..plan.cells.len()).filter(|index| condition.holds(&plan.asked(&plan.cells[*index]))).collect();
    anyhow::ensure!(
        !cells.is_empty(),
        Usage(format!("--only \"{text}\" matches none of the {} cells", plan.whole().count()))
    );
    Ok(cells)
}

/// The first `limit` trials, with the stages that stand before the last of them.
fn limited(mut jobs: Jobs, limit: Option<usize>) -> Jobs {
    let Some(limit) = limit else { return jobs };
    let trials = jobs.list.iter().enumerate().filter(|(_, job)| matches!(job.what, What::Trial { .. }));
    let end = trials.take(limit).last().map_or(0, |(last, _)| last + 1);
    jobs.list.truncate(end);
    jobs.queue.truncate(end);
    jobs
}

/// Runs the queue; every event goes to the store first and then to the board.
fn execute(
    ground: &Ground,
    budget: Option<&Budget>,
    store: &mut Store,
    board: &mut Board,
    mut again: Option<&mut Again>,
    interrupts: &AtomicUsize,
) -> anyhow::Result<(End, SweepCost)> {
    let Ground { plan, jobs, world, .. } = ground;
    let mut cost = SweepCost { forecast: board.forecast(), ..SweepCost::default() };
    if jobs.list.is_empty() {
        return Ok((End::Complete, cost));
    }
    let start = std::time::Instant::now();
    let stop = || match interrupts.load(Ordering::SeqCst) {
        0 => Stop::No,
        1 => Stop::Cleanly,
        _ => Stop::AtOnce,
    };
    let slots = world.facts.slots;
    let free = world.devices.memory(slots).unwrap_or_else(|| host::memory_free() / slots as f64);
    let bytes = MEMORY_OF_GROUPS * free;
    let mut queue = Queue::new(jobs.queue.clone(), Limits { slots: world.facts.slots, bytes });
    let mut pool = pool(world, jobs.list.len())?;
    let mut recorder = Recorder::new(ground);
    let work = |job: usize| match &jobs.list[job].what {
        What::Shared(work) => Ok((**work).clone()),
        What::Trial { cell, replicate } => {
            jobs::trial_work(plan, &plan.cells[*cell], *replicate, world, &jobs.kept).map_err(anyhow::Error::msg)
        }
    };
    let may_start = |started: &[usize]| {
        let seconds = || started.iter().map(|job| jobs.list[*job].seconds).sum();
        budget.is_none_or(|budget| budget.fits(seconds()))
    };
    let end = sweep(&mut queue, &mut pool, work, stop, may_start, |event| {
        if let (Some(again), Event::Finished { job, outcome }) = (&mut again, &event) {
            again.compare(jobs.queue[*job].key, &describe(plan, &jobs.list[*job].what), outcome, store)?;
        }
        // What failed this time takes no result away.
        let held = |job: &usize| again.as_ref().is_some_and(|again| again.keys.contains(&jobs.queue[*job].key));
        if !matches!(&event, Event::Failed { job, .. } | Event::Blocked { job } if held(job)) {
            recorder.record(&event, store)?;
        }
        if let Event::Finished { job, outcome } = &event {
            cost.alone += jobs.list[*job].alone * outcome.part;
            cost.shared += outcome.macs;
            budget.into_iter().for_each(|budget| budget.learn(jobs.list[*job].seconds, outcome.seconds));
        }
        board.tell(&event, interrupts.load(Ordering::SeqCst));
        Ok(())
    })?;
    cost.seconds = start.elapsed().as_secs_f64();
    if let (End::Spent, Some(budget)) = (&end, budget) {
        board.spent(budget);
    }
    Ok((end, cost))
}

/// Counts Ctrl-C and TERM; the sweep looks at the count between events.
fn listen_for_interrupts() -> anyhow::Result<Arc<AtomicUsize>> {
    let interrupts = Arc::new(AtomicUsize::new(0));
    let heard = interrupts.clone();
    ctrlc::set_handler(move || {
        heard.fetch_add(1, Ordering::SeqCst);
    })?;
    Ok(interrupts)
}

/// On CPU a single-threaded worker process for each slot; for each GPU one process, whose slots are streams of the device.
pub fn pool(world: &World, jobs: usize) -> anyhow::Result<Pool> {
    world.rates.rest();
    let program = std::env::current_exe()?;
    let (devices, cache) = (world.devices.clone(), world.places.cache.clone());
    let slots = world.facts.slots.min(jobs.max(1));
    let on_cpu = devices.first() == Device::Cpu;
    let processes = if on_cpu { slots } else { devices.count().min(slots) };
    let lanes = slots.div_ceil(processes);
    // On a GPU the threads prepare images.
    let threads = if on_cpu { 1 } else { (host::threads() / processes).max(1) };
    Ok(Pool::new(processes, lanes, move |number| {
        let (device, mut command) = process::on(&program, &devices, number, threads);
        command.args(["worker", "--device", &device.to_string(), "--numerics", &devices.numerics_of(number)]);
        command.args(["--lanes", &lanes.to_string(), "--cache"]).arg(&cache);
        command
    }))
}

/// Notes how it ended, and what the shell shall know.
fn finish(
    store: &mut Store,
    sweep: i64,
    end: End,
    cost: &SweepCost,
    board: &Board,
    part: &Part,
    whole: bool,
) -> anyhow::Result<Exit> {
    let exit = match end {
        End::NoDevice(message) => {
            store.end(sweep, "no device", cost)?;
            return Err(NoDevice(message).into());
        }
        End::DiskFull(message) => {
            store.end(sweep, "disk full", cost)?;
            return Err(DiskFull(message).into());
        }
        End::Stopped | End::Spent => Exit::Outstanding,
        End::Complete if board.failed() > 0 => Exit::SomeFailed,
        End::Complete if part.limit.is_some() && board.left_out() || !whole => Exit::Outstanding,
        End::Complete => Exit::Complete,
    };
    store.end(
        sweep,
        if exit == Exit::Complete {
            "complete"
        } else if exit == Exit::SomeFailed {
            "failures"
        } else {
            "stopped"
        },
        cost,
    )?;
    Ok(exit)
}

/// Names a stage for the board and for messages.
pub fn describe(plan: &Plan, what: &What) -> String {
    match what {
        What::Shared(work) => match &work.stage {
            Stage::Pretrain(stage) => format!("pretrain {}", stage.arch.name),
            Stage::Encode(stage) => format!("encode {} at {}", stage.backbone.arch.name, stage.cut),
            Stage::Train(_) => "trial".to_owned(),
        },
        What::Trial { cell, replicate } => {
            let asked = plan.asked(&plan.cells[*cell]);
            let get = |key: &str| asked.get(key).map_or_else(String::new, Value::to_string);
            let share = asked.get("tune_share").map_or_else(String::new, |share| format!(", {share} of its budget"));
            format!("{} {} lr {} #{replicate}{share}", get("scenario"), get("recipe"), get("lr"))
        }
    }
}
