//! Worker processes, one per slot: started, fed, listened to, and started again when they die.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::protocol::{Line, Order};

/// What the pool hears, with the slot it comes from.
#[derive(Debug)]
pub enum Heard {
    Line(Line),
    /// The process is gone; how it ended.
    Gone(String),
}

pub struct Pool {
    /// Builds the command of a slot's worker.
    command: Box<dyn Fn(usize) -> Command>,
    workers: Vec<Option<Worker>>,
    sender: Sender<(usize, u64, Heard)>,
    receiver: Receiver<(usize, u64, Heard)>,
    /// Counts processes, so that the last words of a dead one are not taken for its successor's.
    started: u64,
}

struct Worker {
    child: Child,
    stdin: ChildStdin,
    id: u64,
}

impl Pool {
    pub fn new(slots: usize, command: impl Fn(usize) -> Command + 'static) -> Self {
        let (sender, receiver) = channel();
        Self { command: Box::new(command), workers: (0..slots).map(|_| None).collect(), sender, receiver, started: 0 }
    }

    pub fn slots(&self) -> usize {
        self.workers.len()
    }

    /// Starts the worker of a slot.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&mut self, slot: usize) -> std::io::Result<()> {
        let mut command = (self.command)(slot);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // A group of its own, so that Ctrl-C in the terminal reaches the main process only.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        self.started += 1;
        let id = self.started;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("a worker without pipes"));
        };
        self.workers[slot] = Some(Worker { child, stdin, id });
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let parsed = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(parsed) = parsed else { break };
                if sender.send((slot, id, Heard::Line(parsed))).is_err() {
                    return;
                }
            }
            // The main process may be gone itself; then nobody needs to know.
            let _ = sender.send((slot, id, Heard::Gone(String::new())));
        });
        Ok(())
    }

    /// Hands an order to a slot. A worker that cannot take it is about to be heard as gone.
    pub fn order(&mut self, slot: usize, order: &Order) {
        if let Some(worker) = &mut self.workers[slot] {
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
        let (slot, id, heard) = self.receiver.recv_timeout(wait).ok()?;
        let current = self.workers[slot].as_ref().is_some_and(|worker| worker.id == id);
        if !current {
            return None;
        }
        match heard {
            Heard::Gone(_) => {
                let status = self.workers[slot].take().and_then(|mut worker| {
                    drop(worker.stdin);
                    let _ = worker.child.kill();
                    worker.child.wait().ok()
                });
                Some((slot, Heard::Gone(status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()))))
            }
            line => Some((slot, line)),
        }
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

impl Drop for Pool {
    fn drop(&mut self) {
        self.end(true);
    }
}
