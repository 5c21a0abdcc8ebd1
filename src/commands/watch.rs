//! `watch`: follows the sweep that runs on a store, from another terminal, and ends as it ends.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::progress::bar_style;
use super::snapshot::Snapshot;
use super::{Exit, print};
use crate::cli::{Answer, Common};
use crate::store::Store;
use crate::store::sweeps::LastSweep;

/// Without a terminal a line is printed so often.
const PERIOD: Duration = Duration::from_secs(15);

pub fn run(once: bool, format: Answer, common: &Common) -> anyhow::Result<Exit> {
    if format == Answer::Json {
        print(&serde_json::to_string(&Snapshot::read(&common.db)?)?)?;
        return Ok(Exit::Complete);
    }
    if once {
        return match Snapshot::read(&common.db)? {
            Some(state) => print(&lines(&state).join("\n")).map(|()| Exit::Complete),
            None => ended(common),
        };
    }
    let mut screen = Screen::new();
    while let Some(state) = Snapshot::read(&common.db)? {
        screen.show(&state)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    screen.clear();
    ended(common)
}

/// What there is to say of a running sweep.
fn lines(state: &Snapshot) -> Vec<String> {
    let running = state.running.iter().map(|line| format!("  {line}"));
    let failed = state.failed.iter().map(|line| format!("failed: {line}"));
    std::iter::once(told(state)).chain(running).chain(failed).collect()
}

fn told(state: &Snapshot) -> String {
    format!("{}: {:.0}%, {}", state.experiment, 100.0 * state.share, headline(state))
}

fn headline(state: &Snapshot) -> String {
    let time = |seconds: f64| HumanDuration(Duration::from_secs_f64(seconds.clamp(0.0, 1e8)));
    if state.stages == 0 {
        return format!("reading data and measuring devices, for {}", time(state.seconds));
    }
    format!(
        "{} of {} stages in {}, {} left",
        state.finished,
        state.stages,
        time(state.seconds),
        time(state.seconds_left)
    )
}

/// Says how the last sweep ended, and ends as it did.
fn ended(common: &Common) -> anyhow::Result<Exit> {
    let store = Store::read(&common.db)?;
    let Some(LastSweep { experiment, started, finished, ended }) = store.last_sweep()? else {
        print(&format!("no sweep has run on '{}' yet", common.db.display()))?;
        return Ok(Exit::Complete);
    };
    let counts = store.overview()?.into_iter().find(|row| row.get("name") == Some(&experiment)).unwrap_or_default();
    let count = |name: &str| counts.get(name).map_or("0", String::as_str);
    let (word, exit) = match ended.as_deref() {
        Some("complete") => ("complete", Exit::Complete),
        Some("failures") => ("some trials failed: `tl-sweep status NAME` names them", Exit::SomeFailed),
        Some("disk full") => ("the disk was full; `tl-sweep run` goes on from there", Exit::Unexpected),
        Some("no device") => ("no device could be used", Exit::NoDevice),
        Some(_) => ("stopped; `tl-sweep run` goes on from there", Exit::Outstanding),
        None => ("killed; `tl-sweep run` goes on from there", Exit::Outstanding),
    };
    print(&format!(
        "{experiment}: {} of {} trials are there, {} failed; no sweep is running\nthe last one: started {started}, {}: {word}",
        count("done"),
        count("trials"),
        count("failed"),
        finished.map_or_else(|| "never ended".to_owned(), |at| format!("ended {at}")),
    ))?;
    Ok(exit)
}

/// A bar and lines in a terminal, a line now and then elsewhere.
struct Screen {
    bars: MultiProgress,
    overall: ProgressBar,
    lines: Vec<ProgressBar>,
    terminal: bool,
    /// Without a terminal: when the last line was printed, and failures that were told.
    last: Option<Instant>,
    told: usize,
}

impl Screen {
    fn new() -> Self {
        let bars = MultiProgress::new();
        let overall = bars.add(ProgressBar::new(1000));
        overall.set_style(bar_style());
        let terminal = std::io::stderr().is_terminal();
        Self { bars, overall, lines: Vec::new(), terminal, last: None, told: 0 }
    }

    fn show(&mut self, state: &Snapshot) -> anyhow::Result<()> {
        for failure in state.failed.iter().skip(self.told) {
            let line = format!("failed: {failure}");
            if !self.terminal || self.bars.println(&line).is_err() {
                print(&line)?;
            }
        }
        self.told = self.told.max(state.failed.len());
        if !self.terminal {
            if self.last.is_none_or(|last| last.elapsed() >= PERIOD) {
                print(&told(state))?;
                self.last = Some(Instant::now());
            }
            return Ok(());
        }
        self.overall.set_position((state.share * 1000.0) as u64);
        self.overall.set_message(format!("{}: {}", state.experiment, headline(state)));
        while self.lines.len() > state.running.len() {
            self.lines.pop().inspect(|line| {
                line.finish_and_clear();
                self.bars.remove(line);
            });
        }
        while self.lines.len() < state.running.len() {
            let line = self.bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("  {msg}");
            line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            self.lines.push(line);
        }
        for (line, text) in self.lines.iter().zip(&state.running) {
            line.set_message(text.clone());
            line.tick();
        }
        Ok(())
    }

    fn clear(&self) {
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
        self.overall.finish_and_clear();
    }
}
