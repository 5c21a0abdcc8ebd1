//! The same tests on the first CUDA device, in a process of their own. Only in builds that have CUDA; there a machine
//! without a device fails them.

use std::process::Command;
use std::sync::OnceLock;

use candle_core::Device;
use tl_sweep::nn::cuda;

/// Set where the tests are to run on the GPU.
pub const ASKED: &str = "TL_SWEEP_TEST_GPU";

thread_local! {
    // A device belongs to the stream of its thread.
    static DEVICE: OnceLock<Device> = const { OnceLock::new() };
}

pub fn device() -> Device {
    DEVICE.with(|device| device.get_or_init(|| cuda::device::open(0).expect("a CUDA device")).clone())
}

#[test]
fn operators_and_steps_hold_on_the_gpu() {
    if std::env::var_os(ASKED).is_some() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["operators::fast", "operators::torch", "operators::steps", "operators::solve", "operators::gpu"])
        .env(ASKED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("test operators::steps::twenty_steps_of_resnet20 ... ok"), "{said}");
}
