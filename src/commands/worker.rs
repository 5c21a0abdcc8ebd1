//! `worker`: joins `train` to the protocol of `schedule`. Reads orders, runs stages, writes lines. Its lanes run side by side;
//! on a GPU each is a stream of the one context.

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Exit, Usage};
use crate::device::Device;
use crate::schedule::protocol::{Line, Order, Said};
use crate::train::{self, Places, Shelf, Told};

pub fn run(device: &str, lanes: usize, places: &Places) -> anyhow::Result<Exit> {
    let device = Device::parse(device).ok_or_else(|| Usage(format!("no device is called '{device}'")))?;
    let (senders, receivers): (Vec<Sender<Order>>, Vec<Receiver<Order>>) = (0..lanes.max(1)).map(|_| channel()).unzip();
    listen(senders);
    let work = |lane: usize, orders: Receiver<Order>| serve(Lane { lane, device, places: places.clone() }, orders);
    std::thread::scope(|scope| {
        let lanes = receivers.into_iter().enumerate();
        let lanes: Vec<_> = lanes.map(|(lane, orders)| scope.spawn(move || work(lane, orders))).collect();
        let ends = lanes.into_iter().map(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane has panicked"))?);
        ends.collect::<anyhow::Result<Vec<Exit>>>()
    })?;
    Ok(Exit::Complete)
}

/// Hands orders to their lanes. The end of the orders is also the death of whoever gave them: then nothing may go on
/// computing.
fn listen(lanes: Vec<Sender<Order>>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order: Option<Order> = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let taken = order.and_then(|order| lanes.get(order.lane)?.send(order).ok());
            if taken.is_none() {
                break;
            }
        }
        std::process::exit(0);
    });
}

/// One lane of the process.
struct Lane {
    lane: usize,
    device: Device,
    places: Places,
}

impl Lane {
    fn say(&self, line: Line) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &Said { lane: self.lane, line })?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }
}

/// Opens the device and runs what is ordered, until the orders end.
fn serve(lane: Lane, orders: Receiver<Order>) -> anyhow::Result<Exit> {
    // On CPU the operators' own threads run it; a GPU's stream belongs to the thread that opens it.
    match lane.device {
        Device::Cpu => train::on_pool(move || serve_here(&lane, orders)),
        Device::Cuda(_) => serve_here(&lane, orders),
    }
}

fn serve_here(lane: &Lane, orders: Receiver<Order>) -> anyhow::Result<Exit> {
    let opened = match train::open_device(lane.device) {
        Ok(opened) => opened,
        Err(failure) => {
            lane.say(Line::NoDevice(failure))?;
            return Ok(Exit::NoDevice);
        }
    };
    let mut shelf = Shelf::new(lane.places.clone(), opened)?;
    lane.say(Line::Ready)?;
    for Order { jobs, works, .. } in orders {
        // A main process that is gone is noticed by the thread that listens.
        let mut hear = |told| {
            let _ = lane.say(match told {
                Told::Progress(progress) => Line::Progress(progress),
                Told::Done(stage, outcome) => Line::Finished { job: jobs[stage], outcome },
            });
        };
        let failure = train::run(&works, &mut shelf, &mut hear).err();
        lane.say(Line::Done { failure })?;
    }
    Ok(Exit::Complete)
}
