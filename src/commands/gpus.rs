//! The NVIDIA GPUs of this machine, from the driver's management library (NVML), which is loaded when it is asked: the
//! program starts where there is none. In PCI order, named by UUID, as far as CUDA_VISIBLE_DEVICES lets them be seen.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub uuid: String,
    pub name: String,
    /// Its place on the bus.
    pub pci: String,
    /// Bytes.
    pub memory: u64,
    pub free: u64,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
}

/// What the driver says.
#[derive(Clone, Debug)]
pub struct Driver {
    pub version: String,
    /// The newest CUDA that it runs, major and minor.
    pub cuda: (i32, i32),
    /// All GPUs, in PCI order.
    pub all: Vec<Gpu>,
    /// Those that may be used, in the order in which they are named.
    pub visible: Vec<Gpu>,
}

/// Asks the driver.
///
/// # Errors
/// There is no driver, or it fails; in words.
pub fn ask() -> Result<Driver, String> {
    let nvml = Nvml::init().map_err(|error| match error {
        NvmlError::LibloadingError(_) => "there is no NVIDIA driver (no libnvidia-ml.so)".to_owned(),
        error => format!("the NVIDIA driver does not answer: {error}"),
    })?;
    let read = || {
        let cuda = nvml.sys_cuda_driver_version()?;
        let mut all = Vec::new();
        for index in 0..nvml.device_count()? {
            let device = nvml.device_by_index(index)?;
            let (memory, capability) = (device.memory_info()?, device.cuda_compute_capability()?);
            all.push(Gpu {
                uuid: device.uuid()?,
                name: device.name()?,
                pci: device.pci_info()?.bus_id,
                memory: memory.total,
                free: memory.free,
                capability: (capability.major.unsigned_abs(), capability.minor.unsigned_abs()),
            });
        }
        all.sort_by(|one, other| one.pci.cmp(&other.pci));
        Ok((nvml.sys_driver_version()?, (cuda / 1000, cuda % 1000 / 10), all))
    };
    let (version, cuda, all) = read().map_err(|error: NvmlError| format!("the NVIDIA driver fails: {error}"))?;
    let visible = visible(&all, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref());
    Ok(Driver { version, cuda, all, visible })
}

/// The GPUs that CUDA_VISIBLE_DEVICES names: by index or by the beginning of a UUID, up to the first that is none (NVIDIA,
/// CUDA C++ Programming Guide 13.0, "CUDA Environment Variables"). Indices count in PCI order.
fn visible(all: &[Gpu], named: Option<&str>) -> Vec<Gpu> {
    let Some(named) = named else { return all.to_vec() };
    let find = |name: &str| match name.parse::<usize>() {
        Ok(index) => all.get(index),
        Err(_) if name.starts_with("GPU-") => {
            let mut fitting = all.iter().filter(|gpu| gpu.uuid.starts_with(name));
            fitting.next().filter(|_| fitting.next().is_none())
        }
        Err(_) => None,
    };
    let mut found: Vec<Gpu> = Vec::new();
    for gpu in named.split(',').map(|name| find(name.trim())) {
        match gpu {
            Some(gpu) if !found.contains(gpu) => found.push(gpu.clone()),
            // CUDA itself sees no device at all where one is named twice.
            Some(_) => return Vec::new(),
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(name: &str) -> Gpu {
        let (name, uuid, pci) = (name.to_owned(), format!("GPU-{name}"), String::new());
        Gpu { uuid, name, pci, memory: 1, free: 1, capability: (9, 0) }
    }

    #[test]
    fn the_variable_decides_which_devices_there_are() {
        let all = [gpu("aa1"), gpu("ab2"), gpu("b3")];
        let seen = |named: &str| -> Vec<String> {
            visible(&all, Some(named)).into_iter().map(|gpu| gpu.name).collect::<Vec<_>>()
        };
        assert_eq!(visible(&all, None).len(), 3);
        assert_eq!(seen("2,0"), ["b3", "aa1"]);
        assert_eq!(seen("GPU-ab, GPU-b"), ["ab2", "b3"]);
        assert_eq!(seen("1,7,0"), ["ab2"], "what comes behind a wrong name is not seen");
        for none in ["", "-1", "GPU-a", "NoDevFiles", "1,1"] {
            assert!(seen(none).is_empty(), "{none}");
        }
    }
}
