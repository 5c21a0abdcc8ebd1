//! What this computer is: its processor, and the memory that programs could have.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The processor by the name that its maker gave it.
pub fn processor() -> String {
    let asked = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let name = asked.ok().and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown processor".to_owned())
}

/// Threads that run at one time.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of memory that programs could have now: of the machine, or of the container that this one runs in.
pub fn memory_free() -> f64 {
    let asked = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let free = asked.map_or(0, |system| {
        // What a container keeps of files counts as used there, and is given up when memory is wanted: only `rss` is not.
        let container = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
        system.available_memory().min(container.unwrap_or(u64::MAX))
    });
    // A machine that does not say is taken for a small one.
    if free == 0 { 1e9 } else { free as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known() {
        // Those of x86-64 all say their name; a virtual machine of another kind may not.
        assert!(cfg!(not(target_arch = "x86_64")) || processor() != "unknown processor");
        assert!(memory_free() > 1e8 && memory_free() != 1e9, "{}", memory_free());
    }
}
