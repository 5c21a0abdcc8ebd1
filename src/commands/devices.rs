//! Which devices a sweep runs on: what `--devices` asks for, and what there is. A GPU that was asked for and is not there is
//! an error, never a run on the CPU.

use super::gpus::{self, Gpu};
use super::{NoDevice, Usage};
use crate::device::{Device, Precision};
use crate::value::Value;

/// How a build gets CUDA.
pub const BUILD: &str = "build it with `cargo build --release --features cudnn` (or `cuda`, without cuDNN) where the CUDA toolkit is installed";

/// The CPU, or GPUs.
#[derive(Clone, Debug)]
pub struct Devices {
    list: Vec<Device>,
    /// One for each device, where they are GPUs.
    gpus: Vec<Gpu>,
    /// Something that a person should know of the choice.
    pub note: Option<String>,
}

impl Devices {
    /// Reads `auto`, `cpu`, or `cuda:0,cuda:1`: numbers in PCI order among the devices that CUDA_VISIBLE_DEVICES shows.
    ///
    /// # Errors
    /// The list cannot be read, or a device is not there.
    pub fn choose(list: &str) -> anyhow::Result<Self> {
        if list == "auto" {
            return Ok(Self::auto(gpus::ask(), cfg!(feature = "cuda")));
        }
        let parsed: Option<Vec<Device>> = list.split(',').map(|name| Device::parse(name.trim())).collect();
        let Some(asked) = parsed else {
            return Err(Usage(format!("--devices {list}: auto, cpu, or a list such as cuda:0,cuda:1")).into());
        };
        if asked == [Device::Cpu] {
            return Ok(Self { list: asked, gpus: Vec::new(), note: None });
        }
        if asked.contains(&Device::Cpu) {
            let message = "--devices cpu stands alone: its numbers differ from those of CUDA devices";
            return Err(Usage(message.to_owned()).into());
        }
        Ok(Self::of(asked, gpus::ask(), cfg!(feature = "cuda")).map_err(NoDevice)?)
    }

    /// All GPUs that may be used, or the CPU where there is none.
    fn auto(driver: Result<gpus::Driver, String>, cuda: bool) -> Self {
        let (gpus, hidden) = driver.map_or_else(|_| Default::default(), |driver| (driver.visible, driver.all));
        if gpus.is_empty() || !cuda {
            let left_alone = gpus.first().map(|gpu| {
                format!(
                    "{} is here, and this program was built without CUDA: it runs on the CPU; to use it, {BUILD}",
                    gpu.name
                )
            });
            let hidden = hidden.first().map(|gpu| {
                format!("CUDA_VISIBLE_DEVICES names no GPU that is here ({} is): it runs on the CPU", gpu.name)
            });
            return Self { list: vec![Device::Cpu], gpus: Vec::new(), note: left_alone.or(hidden) };
        }
        Self { list: (0..gpus.len()).map(Device::Cuda).collect(), gpus, note: None }
    }

    /// The GPUs of a list.
    fn of(asked: Vec<Device>, driver: Result<gpus::Driver, String>, cuda: bool) -> Result<Self, String> {
        let first = asked[0];
        if !cuda {
            return Err(format!("{first} was asked for, and this program was built without CUDA: {BUILD}"));
        }
        let driver =
            driver.map_err(|error| format!("{first} was asked for, but {error}; `tl-sweep doctor` says more"))?;
        let mut gpus = Vec::new();
        for device in &asked {
            let Device::Cuda(index) = device else { continue };
            let gpu = driver.visible.get(*index).ok_or_else(|| {
                let there: Vec<String> = driver
                    .visible
                    .iter()
                    .enumerate()
                    .map(|(index, gpu)| format!("cuda:{index} {}", gpu.name))
                    .collect();
                let hidden = driver.all.len() - driver.visible.len();
                let behind = if hidden > 0 { format!("; CUDA_VISIBLE_DEVICES hides {hidden}") } else { String::new() };
                format!("there is no {device}: there are [{}]{behind}", there.join(", "))
            })?;
            gpus.push(gpu.clone());
        }
        Ok(Self { list: asked, gpus, note: None })
    }

    /// Refuses precisions that the devices have not got.
    ///
    /// # Errors
    /// A reduced precision is asked for on the CPU, or on GPUs that are too old for it.
    pub fn allow(&self, precisions: &[Value]) -> anyhow::Result<()> {
        let plain = Precision::default().name();
        let Some(asked) = precisions.iter().filter_map(Value::text).find(|name| *name != plain) else { return Ok(()) };
        let fault = if self.gpus.is_empty() {
            Some("the CPU computes f32 only".to_owned())
        } else {
            let old = self.gpus.iter().find(|gpu| gpu.capability < (8, 0));
            old.map(|gpu| format!("{} has not got it (compute capability 8.0 has)", gpu.name))
        };
        match fault {
            Some(fault) => Err(NoDevice(format!(
                "precision = \"{asked}\" needs an NVIDIA GPU: {fault}; `tl-sweep doctor` shows what is here"
            ))
            .into()),
            None => Ok(()),
        }
    }

    pub fn first(&self) -> Device {
        self.list[0]
    }

    /// The UUID of the first, where they are GPUs: for what runs in this process.
    pub fn uuid(&self) -> Option<&str> {
        self.gpus.first().map(|gpu| gpu.uuid.as_str())
    }

    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Names for the store.
    pub fn names(&self) -> String {
        self.list.iter().map(Device::to_string).collect::<Vec<_>>().join(",")
    }

    /// What GPUs they are, for the store.
    pub fn models(&self) -> Option<String> {
        let names: Vec<&str> = self.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The class within which results are equal bit for bit.
    pub fn numerics(&self) -> String {
        match self.gpus.first() {
            Some(gpu) => crate::device::cuda_numerics(gpu.capability),
            None => crate::device::cpu_numerics().to_owned(),
        }
    }

    /// Bytes that a slot of `slots` may fill: of the least GPU, or nothing where they are no GPUs.
    pub fn memory(&self, slots: usize) -> Option<f64> {
        let least = self.gpus.iter().map(|gpu| gpu.free).min()?;
        Some(least as f64 / slots.div_ceil(self.count()).max(1) as f64)
    }

    /// The device of a process, as it is to call it, and what must be in that process' environment: it sees
    /// its one GPU, whatever the driver's own order is.
    pub fn of_process(&self, process: usize) -> (Device, Vec<(&'static str, String)>) {
        let place = process % self.count();
        match self.gpus.get(place) {
            None => (self.list[place], Vec::new()),
            Some(gpu) => {
                let order = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned());
                (Device::Cuda(0), vec![("CUDA_VISIBLE_DEVICES", gpu.uuid.clone()), order])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(free: &[u64]) -> gpus::Driver {
        let gpu = |(index, free): (usize, &u64)| Gpu {
            uuid: format!("GPU-{index}"),
            name: format!("card {index}"),
            pci: index.to_string(),
            memory: 100,
            free: *free,
            capability: (7 + 2 * (index as u32 % 2), 5),
        };
        let all: Vec<Gpu> = free.iter().enumerate().map(gpu).collect();
        gpus::Driver { version: "580".to_owned(), cuda: (13, 0), visible: all.clone(), all }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_never_a_cpu() {
        let asked = || vec![Device::Cuda(1)];
        let none = || Err("no NVIDIA driver answers".to_owned());
        for (driver, cuda, words) in [
            (none(), true, "cuda:1 was asked for, but no NVIDIA driver answers"),
            (Ok(driver(&[1, 1])), false, "built without CUDA"),
            (Ok(driver(&[1])), true, "there is no cuda:1: there are [cuda:0 card 0]"),
        ] {
            let error = Devices::of(asked(), driver, cuda).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(Devices::auto(none(), true).first(), Device::Cpu);
        let note = Devices::auto(Ok(driver(&[1])), false).note.expect("a GPU is left alone");
        assert!(note.contains("card 0 is here") && note.contains("--features cudnn"), "{note}");
        let hidden = gpus::Driver { visible: Vec::new(), ..driver(&[1]) };
        let note = Devices::auto(Ok(hidden), true).note.expect("a GPU is hidden");
        assert!(note.contains("names no GPU that is here (card 0 is)"), "{note}");
    }

    #[test]
    fn each_process_sees_the_gpu_of_its_own() {
        let both = Devices::of(vec![Device::Cuda(1), Device::Cuda(0)], Ok(driver(&[8, 6])), true).expect("two GPUs");
        let seen: Vec<String> = (0..4).map(|process| both.of_process(process).1[0].1.clone()).collect();
        assert_eq!(seen, ["GPU-1", "GPU-0", "GPU-1", "GPU-0"]);
        assert_eq!(both.of_process(0).0, Device::Cuda(0));
        assert_eq!((both.memory(2), both.memory(4)), (Some(6.0), Some(3.0)));
        assert!(both.numerics().starts_with("cuda-sm95"), "{}", both.numerics());
        assert_eq!(Devices::auto(Ok(driver(&[8, 6])), true).count(), 2);
    }

    #[test]
    fn a_precision_that_the_device_has_not_got_is_refused() {
        let text = |name: &str| [Value::Text(name.to_owned())];
        let old = Devices::of(vec![Device::Cuda(0)], Ok(driver(&[8])), true).expect("a GPU");
        let new = Devices::of(vec![Device::Cuda(1)], Ok(driver(&[8, 8])), true).expect("a GPU");
        let cpu = Devices::auto(Err(String::new()), true);
        assert!(cpu.allow(&text("f32")).is_ok() && new.allow(&text("bf16")).is_ok());
        assert!(cpu.allow(&text("tf32")).unwrap_err().to_string().contains("the CPU computes f32 only"));
        assert!(old.allow(&text("tf32")).unwrap_err().to_string().contains("card 0 has not got it"));
    }
}
