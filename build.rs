//! Tells the program which commit it is built from, so that every result can say so, and compiles the CUDA kernels where
//! they are built in.

use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let build = git(&["rev-parse", "--short=12", "HEAD"]).map_or("unknown".to_owned(), |commit| {
        let dirty = git(&["status", "--porcelain", "--untracked-files=no", "src", "Cargo.lock"])
            .is_some_and(|changes| !changes.is_empty());
        format!("{commit}{}", if dirty { "-dirty" } else { "" })
    });
    println!("cargo::rustc-env=TL_SWEEP_BUILD={build}");
    for path in ["src", "Cargo.lock", ".git/HEAD", ".git/index"] {
        if std::path::Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    #[cfg(feature = "cuda")]
    kernels();
}

/// Compiles the kernels for the GPU at hand, or for the compute capability in $CUDA_COMPUTE_CAP.
#[cfg(feature = "cuda")]
fn kernels() {
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    cudaforge::KernelBuilder::new()
        .source_files(["src/nn/cuda/kernels.cu"])
        .watch(["src/nn/cuda/kernels"])
        .arg("-std=c++17")
        .arg("-O3")
        // Products and sums become one operation where the source says so, not where a compiler or a driver likes to: the same
        // bits from each of them.
        .arg("-fmad=false")
        .build_ptx()
        .and_then(|kernels| kernels.write(format!("{out}/kernels.rs")).map(drop))
        .expect("nvcc compiles the kernels: is the CUDA toolkit installed?");
}
