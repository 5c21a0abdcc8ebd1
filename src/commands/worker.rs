//! `worker`: joins `train` to the protocol of `schedule`. Reads orders, runs stages, writes lines.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use super::{Exit, Usage};
use crate::device::Device;
use crate::schedule::protocol::{Line, Order};
use crate::train::{self, Places, Shelf, Told};

pub fn run(device: &str, cache: PathBuf) -> anyhow::Result<Exit> {
    let device = Device::parse(device).ok_or_else(|| Usage(format!("no device is called '{device}'")))?;
    // The end of the orders is also the death of whoever gave them: then nothing may go on computing.
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order: Option<Order> = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            if order.and_then(|order| sender.send(order).ok()).is_none() {
                break;
            }
        }
        std::process::exit(0);
    });
    let opened = match train::open_device(device) {
        Ok(opened) => opened,
        Err(failure) => {
            say(&Line::NoDevice(failure))?;
            return Ok(Exit::NoDevice);
        }
    };
    say(&Line::Ready)?;
    train::on_pool(move || serve(orders, Shelf::new(Places { cache }, opened)?))
}

/// Runs what is ordered, until the orders end.
fn serve(orders: Receiver<Order>, mut shelf: Shelf) -> anyhow::Result<Exit> {
    for Order { jobs, works } in orders {
        // A main process that is gone is noticed by the thread above.
        let mut hear = |told| {
            let _ = say(&match told {
                Told::Progress(progress) => Line::Progress(progress),
                Told::Done(stage, outcome) => Line::Finished { job: jobs[stage], outcome },
            });
        };
        let failure = train::run(&works, &mut shelf, &mut hear).err();
        say(&Line::Done { failure })?;
    }
    Ok(Exit::Complete)
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
