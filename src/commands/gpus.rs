//! The NVIDIA GPUs of this machine, from the driver's management library (NVML), which is loaded when it is asked: the
//! program starts where there is none. In PCI order, named by UUID, as far as CUDA_VISIBLE_DEVICES lets them be seen. One
//! that is divided (MIG) is its instances.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::train;

/// A GPU, or an instance of one that is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub uuid: String,
    pub name: String,
    /// Its place on the bus.
    pub pci: String,
    /// Which of the GPU's instances it is, where that is divided.
    pub instance: Option<u32>,
    /// Bytes.
    pub memory: u64,
    pub free: u64,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Cores of a GPU, multiprocessors of an instance, where the driver says so.
    pub units: Option<u32>,
}

impl Gpu {
    /// The class within which results are equal bit for bit: the model, its architecture and size, and the versions of our
    /// operators and of the libraries. NVIDIA, cuBLAS 13.0, "Results Reproducibility": one version gives the same bits on GPUs
    /// of one architecture and one number of multiprocessors. cuDNN promises no more than one architecture, and chooses by
    /// tables of its own.
    pub fn numerics(&self) -> String {
        let name = self.name.trim_start_matches("NVIDIA ").to_lowercase();
        let words: Vec<&str> =
            name.split(|sign: char| !sign.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let (major, minor) = self.capability;
        let units = self.units.map_or_else(String::new, |units| format!("-{units}"));
        format!("cuda-{}-sm{major}{minor}{units}{}", words.join("-"), train::cuda_libraries())
    }
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
            all.extend(parts(&nvml.device_by_index(index)?)?);
        }
        all.sort_by(|one, other| (&one.pci, one.instance).cmp(&(&other.pci, other.instance)));
        Ok((nvml.sys_driver_version()?, (cuda / 1000, cuda % 1000 / 10), all))
    };
    let (version, cuda, all) = read().map_err(|error: NvmlError| format!("the NVIDIA driver fails: {error}"))?;
    let visible = visible(&all, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref());
    Ok(Driver { version, cuda, all, visible })
}

/// Whether a GPU runs nothing but what its instances run. One that cannot be divided knows no such mode.
fn is_divided(device: &Device) -> bool {
    device.mig_mode().is_ok_and(|mode| mode.current == 1)
}

/// A GPU, or the instances of one that is divided, each a device to CUDA (NVIDIA, Multi-Instance GPU User Guide, "Device
/// Enumeration"). What only administrators may ask of a divided GPU is asked of its instances.
fn parts(gpu: &Device) -> Result<Vec<Gpu>, NvmlError> {
    let (pci, capability) = (gpu.pci_info()?.bus_id, gpu.cuda_compute_capability()?);
    let part = |device: &Device, instance, units| -> Result<Gpu, NvmlError> {
        let memory = device.memory_info()?;
        Ok(Gpu {
            uuid: device.uuid()?,
            name: device.name()?,
            pci: pci.clone(),
            instance,
            memory: memory.total,
            free: memory.free,
            capability: (capability.major.unsigned_abs(), capability.minor.unsigned_abs()),
            units,
        })
    };
    if !is_divided(gpu) {
        return Ok(vec![part(gpu, None, gpu.num_cores().ok())?]);
    }
    let mut found = Vec::new();
    for index in 0..gpu.mig_device_count()? {
        match gpu.mig_device_by_index(index) {
            Ok(own) => {
                let units = own.attributes().ok().map(|attributes| attributes.multiprocessor_count);
                found.push(part(&own, Some(index), units)?);
            }
            // A place in which none was made.
            Err(NvmlError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The GPUs that CUDA_VISIBLE_DEVICES names: by index or by the beginning of a UUID, up to the first that is none (NVIDIA,
/// CUDA C++ Programming Guide 13.0, "CUDA Environment Variables"). Indices count GPUs in PCI order; that of one which is
/// divided means its first instance, as to CUDA.
fn visible(all: &[Gpu], named: Option<&str>) -> Vec<Gpu> {
    let Some(named) = named else { return all.to_vec() };
    let mut firsts = all.to_vec();
    firsts.dedup_by(|later, first| later.instance.is_some() && later.pci == first.pci);
    let find = |name: &str| match name.parse::<usize>() {
        Ok(index) => firsts.get(index),
        Err(_) if name.starts_with("GPU-") || name.starts_with("MIG-") => {
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
        let (name, uuid, pci) = (name.to_owned(), format!("GPU-{name}"), name.to_owned());
        Gpu { uuid, name, pci, instance: None, memory: 1, free: 1, capability: (9, 0), units: None }
    }

    fn instance(of: &str, index: u32) -> Gpu {
        Gpu { uuid: format!("MIG-{of}-{index}"), name: format!("{of}/{index}"), instance: Some(index), ..gpu(of) }
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

    #[test]
    fn instances_are_named_by_uuid_and_an_index_means_the_first() {
        let all = [instance("a", 0), instance("a", 3), gpu("b"), instance("c", 1), instance("c", 2)];
        let seen = |named: &str| -> Vec<String> {
            visible(&all, Some(named)).into_iter().map(|gpu| gpu.name).collect::<Vec<_>>()
        };
        assert_eq!(visible(&all, None).len(), 5);
        assert_eq!(seen("MIG-a-3,GPU-b"), ["a/3", "b"]);
        assert_eq!(seen("2,0,1"), ["c/1", "a/0", "b"]);
        assert!(seen("MIG-a").is_empty(), "two begin so");
    }

    #[test]
    fn a_class_is_a_model_of_a_size() {
        let card = |name: &str, units| Gpu { name: name.to_owned(), units, ..gpu("x") }.numerics();
        let libraries = train::cuda_libraries();
        assert_eq!(card("NVIDIA H200", Some(16896)), format!("cuda-h200-sm90-16896{libraries}"));
        let slice = card("NVIDIA H100 80GB HBM3 MIG 1g.10gb", Some(16));
        assert_eq!(slice, format!("cuda-h100-80gb-hbm3-mig-1g-10gb-sm90-16{libraries}"));
        assert_ne!(card("NVIDIA GeForce RTX 3080", Some(8704)), card("NVIDIA GeForce RTX 3080", Some(8960)));
    }
}
