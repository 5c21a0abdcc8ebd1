//! Devices: what computes, and which numbers it promises.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A place where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Cpu,
    Cuda(usize),
}

/// How products of training round. On CUDA devices; a CPU computes in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Factors and sums in f32.
    #[default]
    F32,
    /// Factors rounded to 10 bits of mantissa, sums in f32 (NVIDIA, compute capability 8.0).
    Tf32,
    /// Factors and activations in bf16, sums, parameters and optimisers in f32.
    Bf16,
}

/// The words for it.
pub const PRECISIONS: &str = "'f32', 'tf32' or 'bf16'";

impl Precision {
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Device {
    /// Reads `cpu` or `cuda:N`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("cuda:") {
            Some(index) => index.parse().ok().map(Self::Cuda),
            None => (text == "cpu").then_some(Self::Cpu),
        }
    }
}

/// The instructions that the CPU's loops use. A wider one is faster. All but `Portable` give the same bits: their sums run in
/// one order, and round a product and its sum once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuPath {
    /// Plain Rust, on every processor; a product and its sum are rounded apart.
    Portable,
    /// ARM's, in 64 bits.
    Neon,
    Avx2,
    Avx512,
}

static CPU_PATH: OnceLock<CpuPath> = OnceLock::new();

impl CpuPath {
    /// From the narrowest to the widest.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The one that this process uses: what `choose` said, or else the widest that the processor has.
    pub fn current() -> Self {
        *CPU_PATH.get_or_init(Self::widest)
    }

    /// The widest that the processor has.
    pub fn widest() -> Self {
        Self::ALL.into_iter().rfind(|path| path.is_here()).unwrap_or(Self::Portable)
    }

    /// Whether the processor has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            _ => false,
        }
    }

    /// Makes this process use the path called `name`: to repeat what another machine computed.
    ///
    /// # Errors
    /// There is no such path, the processor has not got it, or another one is in use already.
    pub fn choose(name: &str) -> Result<(), String> {
        let found = Self::ALL.into_iter().find(|path| path.name() == name);
        let path = found.ok_or_else(|| {
            format!("'{name}' is no instruction path of a CPU; there are {}", Self::ALL.map(Self::name).join(", "))
        })?;
        if !path.is_here() {
            let here: Vec<_> = Self::ALL.into_iter().filter(|path| path.is_here()).map(Self::name).collect();
            return Err(format!("this processor cannot run {name}; it runs {}", here.join(", ")));
        }
        match *CPU_PATH.get_or_init(|| path) {
            used if used == path => Ok(()),
            used => Err(format!("{} is in use already", used.name())),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The class of CPUs within which results are equal bit for bit.
    pub fn numerics(self) -> &'static str {
        match self {
            Self::Portable => "cpu-portable",
            Self::Neon | Self::Avx2 | Self::Avx512 => "cpu-fma",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}
