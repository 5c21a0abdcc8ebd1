//! Worker processes: started, fed, listened to, and started again when they die. Each has as many lanes that run orders side
//! by side as there are slots on its device.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::protocol::{Line, Order, Said};
use crate::plan::stage::Work;

/// What the pool hears, with the slot it comes from.
#[derive(Debug)]
pub enum Heard {
    Line(Line),
    /// The process is gone; how it ended.
    Gone(String),
}

pub struct Pool {
    /// Builds the command of a process.
    command: Box<dyn Fn(usize) -> Command>,
    workers: Vec<Option<Worker>>,
    /// Of each process.
    lanes: usize,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    /// What is heard of a death by the slots that have not been told yet.
    pending: VecDeque<(usize, Heard)>,
    /// Counts processes, so that the last words of a dead one are not taken for its successor's.
    started: u64,
}

/// The process, the number of its start, and what it said: nothing at the end of its output, an error where that is unreadable.
type Message = (usize, u64, Option<Result<Said, String>>);

struct Worker {
    child: Child,
    stdin: ChildStdin,
    id: u64,
}

impl Pool {
    /// So many processes with so many lanes each; slot s is lane s / processes of process s % processes.
    pub fn new(processes: usize, lanes: usize, command: impl Fn(usize) -> Command + 'static) -> Self {
        let (sender, receiver) = channel();
        let workers = (0..processes).map(|_| None).collect();
        let pending = VecDeque::new();
        Self { command: Box::new(command), workers, lanes, sender, receiver, pending, started: 0 }
    }

    pub fn slots(&self) -> usize {
        self.workers.len() * self.lanes
    }

    /// Starts the worker of a slot, unless another slot's start has.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&mut self, slot: usize) -> std::io::Result<()> {
        let process = slot % self.workers.len();
        if self.workers[process].is_some() {
            return Ok(());
        }
        let mut command = (self.command)(process);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // A group of its own, so that Ctrl-C in the terminal reaches the main process only.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        self.started += 1;
        let id = self.started;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("a worker without pipes"));
        };
        self.workers[process] = Some(Worker { child, stdin, id });
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let said = serde_json::from_str(&line).map_err(|error| unreadable(&line, &error));
                let over = said.is_err();
                if sender.send((process, id, Some(said))).is_err() || over {
                    return;
                }
            }
            // The main process may be gone itself; then nobody needs to know.
            let _ = sender.send((process, id, None));
        });
        Ok(())
    }

    /// Hands an order to a slot. A worker that cannot take it is about to be heard as gone.
    pub fn order(&mut self, slot: usize, jobs: Vec<usize>, works: Vec<Work>) {
        let processes = self.workers.len();
        let order = &Order { lane: slot / processes, jobs, works };
        if let Some(worker) = &mut self.workers[slot % processes] {
            let written = serde_json::to_string(order)
                .map_err(std::io::Error::other)
                .and_then(|text| writeln!(worker.stdin, "{text}"));
            if written.is_err() {
                let _ = worker.child.kill();
            }
        }
    }

    /// The next thing heard, or nothing within `wait`.
    pub fn hear(&mut self, wait: std::time::Duration) -> Option<(usize, Heard)> {
        if let Some(pending) = self.pending.pop_front() {
            return Some(pending);
        }
        let (process, id, said) = self.receiver.recv_timeout(wait).ok()?;
        let current = self.workers[process].as_ref().is_some_and(|worker| worker.id == id);
        if !current {
            return None;
        }
        let slot = |lane: usize| lane * self.workers.len() + process;
        let fault = match said {
            Some(Ok(Said { lane, line })) => return Some((slot(lane), Heard::Line(line))),
            Some(Err(fault)) => Some(fault),
            None => None,
        };
        let slots: Vec<usize> = (0..self.lanes).map(slot).collect();
        let status = self.workers[process].take().and_then(|mut worker| {
            drop(worker.stdin);
            let _ = worker.child.kill();
            worker.child.wait().ok()
        });
        let how = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        let how = fault.unwrap_or(how);
        self.pending.extend(slots.into_iter().map(|slot| (slot, Heard::Gone(how.clone()))));
        self.pending.pop_front()
    }

    /// Ends all workers: at once, if `kill`, else when they have read the end of their orders.
    pub fn end(&mut self, kill: bool) {
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            let Worker { mut child, stdin, .. } = worker;
            drop(stdin);
            if kill {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

/// What is wrong with a line, and where.
fn unreadable(line: &str, error: &serde_json::Error) -> String {
    let around: String = line.chars().skip(error.column().saturating_sub(60)).take(80).collect();
    format!("it said what cannot be read ({error}): ...{around}...")
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end(true);
    }
}
