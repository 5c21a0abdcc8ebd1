//! Devices: what computes, and which numbers it promises.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Cpu,
    Cuda(usize),
}

impl Device {
    /// Reads `cpu` or `cuda:N`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("cuda:") {
            Some(index) => index.parse().ok().map(Self::Cuda),
            None => (text == "cpu").then_some(Self::Cpu),
        }
    }

    /// The class within which results are equal bit for bit (on CPU) or to a stated tolerance (on CUDA).
    pub fn numerics(self) -> &'static str {
        match self {
            Self::Cpu => cpu_numerics(),
            Self::Cuda(_) => "cuda-f32",
        }
    }
}

/// The instruction path that the CPU kernels take on this machine.
fn cpu_numerics() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "cpu-avx512";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return "cpu-avx2";
        }
    }
    "cpu-portable"
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}
