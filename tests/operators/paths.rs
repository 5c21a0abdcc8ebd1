//! The same tests on the narrower instruction paths of this machine, each in a process of its own.

use std::process::Command;

use tl_sweep::device::CpuPath;

#[test]
fn operators_hold_on_every_path_of_this_machine() {
    if std::env::var_os("TL_SWEEP_CPU_PATH").is_some() {
        return;
    }
    for path in CpuPath::ALL.into_iter().filter(|path| path.is_here() && *path != CpuPath::widest()) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["operators::fast", "operators::torch", "operators::bits", "operators::fingerprint"])
            .env("TL_SWEEP_CPU_PATH", path.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "on {}:\n{said}", path.name());
        for test in ["bits::an_image_of_a_convolution", "fingerprint::of_all_operators"] {
            assert!(said.contains(&format!("test operators::{test} ... ok")), "{said}");
        }
    }
}

#[test]
fn a_path_that_is_not_there_is_refused() {
    let error = CpuPath::choose("sse9").unwrap_err();
    assert!(error.contains("'sse9' is no instruction path") && error.contains("avx2"), "{error}");
    let other = if CpuPath::Neon.is_here() { "avx2" } else { "neon" };
    let error = CpuPath::choose(other).unwrap_err();
    assert!(error.contains(&format!("cannot run {other}; it runs portable")), "{error}");
}
