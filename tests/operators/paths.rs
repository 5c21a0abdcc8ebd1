//! The same tests on the narrower instruction paths of this machine, each in a process of its own. What agrees with the
//! definitions to 1e-5 on every path agrees between paths.

use std::process::Command;

use tl_sweep::device::CpuPath;

#[test]
fn operators_hold_on_every_path_of_this_machine() {
    if std::env::var_os("TL_SWEEP_CPU_PATH").is_some() {
        return;
    }
    for path in CpuPath::ALL.into_iter().filter(|path| *path < CpuPath::widest()) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["operators::fast", "operators::torch", "operators::bits"])
            .env("TL_SWEEP_CPU_PATH", path.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "on {}:\n{said}", path.name());
        assert!(said.contains("test operators::bits::an_image_of_a_convolution ... ok"), "{said}");
    }
}

#[test]
fn a_path_that_is_not_there_is_refused() {
    let error = CpuPath::choose("sse9").unwrap_err();
    assert!(error.contains("'sse9' is no instruction path") && error.contains("avx2"), "{error}");
}
