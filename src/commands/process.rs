//! Processes of this program that compute on a device: workers, and what measures a pace as a worker has it.

use std::path::Path;
use std::process::Command;

use super::devices::Devices;
use crate::device::{CpuPath, Device};

/// A process of `program` on one of `devices`, with so many threads for its operators or for images; its verb and flags are
/// still to come.
pub fn on(program: &Path, devices: &Devices, number: usize, threads: usize) -> (Device, Command) {
    let mut command = Command::new(program);
    let (device, environment) = devices.of_process(number);
    command.envs(environment).env("TL_SWEEP_CPU_PATH", CpuPath::current().name());
    command.env("RAYON_NUM_THREADS", threads.to_string()).env("CANDLE_NUM_THREADS", "1");
    // Large buffers stay with a process instead of going back to the kernel.
    command
        .env("MALLOC_MMAP_THRESHOLD_", "4294967296")
        .env("MALLOC_TRIM_THRESHOLD_", "8589934592")
        .env("MALLOC_TOP_PAD_", "67108864");
    (device, command)
}
