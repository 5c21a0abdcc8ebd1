//! `gauge`: measures how fast a device is, in a process of its own, with what a worker has: on a GPU the main process has no
//! context and takes none of its memory. Both ends of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::devices::Devices;
use super::{Exit, Usage, process};
use crate::device::Device;
use crate::train::pace::{self, Subject};

/// A question: what so many streams do together of some work.
#[derive(Serialize, Deserialize)]
struct Question {
    lanes: usize,
    subject: Subject,
}

/// Multiply-accumulates per second, or why there are none.
type Answer = Result<f64, String>;

/// Answers what is asked, until nobody asks any more.
pub fn run(device: &str) -> anyhow::Result<Exit> {
    let device = Device::parse(device).ok_or_else(|| Usage(format!("no device is called '{device}'")))?;
    for line in std::io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        let Question { lanes, subject } = question;
        let found = match device {
            Device::Cpu => pace::on_cpu(subject.effort, &subject.graph),
            Device::Cuda(_) => pace::on_gpu(device, lanes, &subject),
        };
        let answer: Answer = found.map_err(|error| format!("{error:#}"));
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(Exit::Complete)
}

/// The process that measures.
pub struct Gauge {
    child: Child,
    ask: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Gauge {
    /// Starts it on the first of some devices.
    ///
    /// # Errors
    /// The system starts no process.
    pub fn start(devices: &Devices) -> anyhow::Result<Self> {
        let (device, mut command) = process::on(&std::env::current_exe()?, devices, 0, 1);
        command.args(["gauge", "--device", &device.to_string()]);
        // As a worker: Ctrl-C in the terminal is for the main process.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (ask, hear) = (child.stdin.take(), child.stdout.take().context("a process without output")?);
        Ok(Self { child, ask, hear: BufReader::new(hear) })
    }

    /// Multiply-accumulates per second of `lanes` streams together, each at the same work.
    ///
    /// # Errors
    /// The GPU cannot be used, or too little of its memory is free.
    pub fn pace(&mut self, lanes: usize, subject: &Subject) -> anyhow::Result<f64> {
        let ask = self.ask.as_mut().context("a process without input")?;
        serde_json::to_writer(&mut *ask, &Question { lanes, subject: subject.clone() })?;
        ask.write_all(b"\n")?;
        ask.flush()?;
        let mut line = String::new();
        self.hear.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "the process that measures it has ended");
        serde_json::from_str::<Answer>(&line)?.map_err(anyhow::Error::msg)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        // The end of its questions is its own.
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}
