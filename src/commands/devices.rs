//! Which devices a sweep runs on: what `--devices` asks for, and what there is. A GPU that was asked for and is not there is
//! an error, never a run on the CPU.

use std::collections::BTreeSet;

use super::gpus::{self, Gpu};
use super::{NoDevice, Usage};
use crate::cli::Common;
use crate::device::{CpuPath, Device, Precision};
use crate::train;
use crate::value::Value;

/// Variables that make NVIDIA's libraries round otherwise than they are asked to, whatever an experiment says (NVIDIA, cuBLAS
/// 13, "Environment Variables").
const ROUNDING: [&str; 2] = ["NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION"];

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
    /// The list cannot be read, a device is not there, or the environment decides how it rounds.
    pub fn choose(list: &str) -> anyhow::Result<Self> {
        let chosen = Self::chosen(list)?;
        match ROUNDING.into_iter().find(|name| !chosen.gpus.is_empty() && std::env::var_os(name).is_some()) {
            Some(name) => {
                let message = format!("{name} is set, and decides how a GPU rounds, not the experiment: unset it");
                Err(Usage(message).into())
            }
            None => Ok(chosen),
        }
    }

    fn chosen(list: &str) -> anyhow::Result<Self> {
        if list == "auto" {
            let driver = gpus::ask();
            let obstacle = obstacle(&driver);
            return Ok(Self::auto(driver, obstacle));
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
        let driver = gpus::ask();
        let obstacle = obstacle(&driver);
        Ok(Self::of(asked, driver, obstacle).map_err(NoDevice)?)
    }

    /// The GPUs of one class that this build can use, or the CPU where there is none: of several classes the one with the
    /// most memory in all, so that a card for the screen slows nothing down.
    fn auto(driver: Result<gpus::Driver, String>, obstacle: Option<String>) -> Self {
        let (visible, all) = driver.map_or_else(|_| Default::default(), |driver| (driver.visible, driver.all));
        let mut classes: Vec<(String, Vec<usize>)> = Vec::new();
        let usable = |gpu: &Gpu| obstacle.is_none() && unfit(gpu).is_none();
        for (index, gpu) in visible.iter().enumerate().filter(|(_, gpu)| usable(gpu)) {
            let class = gpu.numerics();
            match classes.iter_mut().find(|(other, _)| *other == class) {
                Some((_, places)) => places.push(index),
                None => classes.push((class, vec![index])),
            }
        }
        let memory = |places: &[usize]| places.iter().map(|index| visible[*index].memory).sum::<u64>();
        classes.sort_by_key(|(_, places)| std::cmp::Reverse(memory(places)));
        match classes.first() {
            None => Self { list: vec![Device::Cpu], gpus: Vec::new(), note: why_the_cpu(&visible, &all, obstacle) },
            Some((_, places)) => {
                let gpus = places.iter().map(|index| visible[*index].clone()).collect();
                let list = places.iter().copied().map(Device::Cuda).collect();
                let others: Vec<String> = (0..visible.len())
                    .filter(|index| !places.contains(index))
                    .map(|index| format!("{} {}", Device::Cuda(index), visible[index].name))
                    .collect();
                let note = (!others.is_empty()).then(|| {
                    format!("left alone: {}; a sweep has GPUs of one model, --devices takes others", others.join(", "))
                });
                Self { list, gpus, note }
            }
        }
    }

    /// The GPUs of a list.
    fn of(asked: Vec<Device>, driver: Result<gpus::Driver, String>, obstacle: Option<String>) -> Result<Self, String> {
        let first = asked[0];
        if let Some(obstacle) = obstacle {
            return Err(format!("{first} was asked for, and {obstacle}"));
        }
        let driver =
            driver.map_err(|error| format!("{first} was asked for, but {error}; `tl-sweep doctor` says more"))?;
        let mut gpus = Vec::new();
        for device in &asked {
            let Device::Cuda(index) = device else { continue };
            let gpu = driver.visible.get(*index).ok_or_else(|| not_there(*device, &driver))?;
            if let Some(fault) = unfit(gpu) {
                return Err(format!("{device} cannot be used: {fault}"));
            }
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

    /// Says what a person should know of the choice.
    pub fn tell(&self, common: &Common) {
        self.note.iter().filter(|_| !common.quiet).for_each(|note| eprintln!("{note}"));
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

    /// The class within which results are equal bit for bit: that of the first device.
    pub fn numerics(&self) -> String {
        self.numerics_of(0)
    }

    /// The class of a process' device.
    pub fn numerics_of(&self, process: usize) -> String {
        self.gpus.get(process % self.count()).map_or_else(|| CpuPath::current().numerics().to_owned(), Gpu::numerics)
    }

    /// All classes among them, each once.
    pub fn classes(&self) -> Vec<String> {
        (0..self.count()).map(|place| self.numerics_of(place)).collect::<BTreeSet<_>>().into_iter().collect()
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

/// Why there is a GPU here that this build cannot use, and the cure.
pub fn unfit(gpu: &Gpu) -> Option<String> {
    let (major, minor) = gpu.capability;
    (!train::runs_on(gpu.capability)).then(|| {
        format!(
            "{} has compute capability {major}.{minor}, and this program was built for {}; CUDA_COMPUTE_CAP={major}{minor} builds for it",
            gpu.name,
            train::built_for()
        )
    })
}

/// What keeps this program from GPUs that may be there. Libraries are looked for only where a GPU is.
fn obstacle(driver: &Result<gpus::Driver, String>) -> Option<String> {
    let here = driver.as_ref().is_ok_and(|driver| !driver.visible.is_empty());
    if here || !cfg!(feature = "cuda") { train::obstacle() } else { None }
}

/// What a person should know who has a GPU and runs on the CPU.
fn why_the_cpu(visible: &[Gpu], all: &[Gpu], obstacle: Option<String>) -> Option<String> {
    match (visible.first(), all.first()) {
        (Some(gpu), _) => match obstacle {
            Some(obstacle) => Some(format!("it runs on the CPU, though {} is here: {obstacle}", gpu.name)),
            None => unfit(gpu).map(|fault| format!("it runs on the CPU: {fault}")),
        },
        (None, Some(gpu)) => {
            Some(format!("CUDA_VISIBLE_DEVICES names no GPU that is here ({} is): it runs on the CPU", gpu.name))
        }
        (None, None) => None,
    }
}

fn not_there(device: Device, driver: &gpus::Driver) -> String {
    let visible = driver.visible.iter().enumerate();
    let there: Vec<String> = visible.map(|(index, gpu)| format!("cuda:{index} {}", gpu.name)).collect();
    let hidden = driver.all.len() - driver.visible.len();
    let behind = if hidden > 0 { format!("; CUDA_VISIBLE_DEVICES hides {hidden}") } else { String::new() };
    format!("there is no {device}: there are [{}]{behind}", there.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compute capability that this build runs on.
    fn fitting() -> (u32, u32) {
        let all = (50..200).rev().map(|number| (number / 10, number % 10));
        all.into_iter().find(|capability| train::runs_on(*capability)).expect("the build is for some GPU")
    }

    /// So many cards of one model, with so much free.
    fn driver(free: &[u64]) -> gpus::Driver {
        let gpu = |(index, free): (usize, &u64)| Gpu {
            uuid: format!("GPU-{index}"),
            name: "card".to_owned(),
            pci: index.to_string(),
            instance: None,
            memory: 100,
            free: *free,
            capability: fitting(),
            units: Some(512),
        };
        let all: Vec<Gpu> = free.iter().enumerate().map(gpu).collect();
        gpus::Driver { version: "580".to_owned(), cuda: (13, 0), visible: all.clone(), all }
    }

    /// The same, where card 0 is another one.
    fn mixed(free: &[u64], first: Gpu) -> gpus::Driver {
        let mut driver = driver(free);
        driver.all[0] = first;
        gpus::Driver { visible: driver.all.clone(), ..driver }
    }

    fn other() -> Gpu {
        Gpu { name: "for the screen".to_owned(), memory: 2, ..driver(&[1]).all.remove(0) }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_never_a_cpu() {
        let asked = || vec![Device::Cuda(1)];
        let none = || Err("no NVIDIA driver answers".to_owned());
        let missing = || Some("libcudnn.so.9 cannot be loaded".to_owned());
        for (driver, obstacle, words) in [
            (none(), None, "cuda:1 was asked for, but no NVIDIA driver answers"),
            (Ok(driver(&[1, 1])), missing(), "cuda:1 was asked for, and libcudnn.so.9 cannot be loaded"),
            (Ok(driver(&[1])), None, "there is no cuda:1: there are [cuda:0 card]"),
        ] {
            let error = Devices::of(asked(), driver, obstacle).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(Devices::auto(none(), None).first(), Device::Cpu);
        let without = Devices::auto(Ok(driver(&[1])), missing());
        let note = without.note.clone().expect("a GPU is left alone");
        assert!(without.first() == Device::Cpu && note.contains("though card is here: libcudnn.so.9"), "{note}");
        let hidden = gpus::Driver { visible: Vec::new(), ..driver(&[1]) };
        let note = Devices::auto(Ok(hidden), None).note.expect("a GPU is hidden");
        assert!(note.contains("names no GPU that is here (card is)"), "{note}");
    }

    #[test]
    fn each_process_sees_the_gpu_of_its_own() {
        let both = Devices::of(vec![Device::Cuda(1), Device::Cuda(0)], Ok(driver(&[8, 6])), None).expect("two GPUs");
        let seen: Vec<String> = (0..4).map(|process| both.of_process(process).1[0].1.clone()).collect();
        assert_eq!(seen, ["GPU-1", "GPU-0", "GPU-1", "GPU-0"]);
        assert_eq!(both.of_process(0).0, Device::Cuda(0));
        assert_eq!((both.memory(2), both.memory(4)), (Some(6.0), Some(3.0)));
        assert!(both.numerics().starts_with("cuda-card-sm") && both.numerics().contains("-512"));
        assert_eq!(both.classes().len(), 1);
        assert_eq!(Devices::auto(Ok(driver(&[8, 6])), None).count(), 2);
    }

    #[test]
    fn a_precision_that_the_device_has_not_got_is_refused() {
        let text = |name: &str| [Value::Text(name.to_owned())];
        let new = Devices::of(vec![Device::Cuda(0)], Ok(driver(&[8])), None).expect("a GPU");
        let gpus = vec![Gpu { capability: (7, 5), ..other() }];
        let old = Devices { gpus, ..new.clone() };
        let cpu = Devices::auto(Err(String::new()), None);
        assert!(cpu.allow(&text("f32")).is_ok() && new.allow(&text("bf16")).is_ok());
        assert!(cpu.allow(&text("tf32")).unwrap_err().to_string().contains("the CPU computes f32 only"));
        assert!(old.allow(&text("tf32")).unwrap_err().to_string().contains("for the screen has not got it"));
    }

    #[test]
    #[cfg(feature = "cuda")]
    fn a_gpu_that_the_build_is_not_for_is_never_tried() {
        let old = || Gpu { capability: (5, 2), ..other() };
        let error = Devices::of(vec![Device::Cuda(0)], Ok(mixed(&[8, 8], old())), None).unwrap_err();
        assert!(error.contains("cuda:0 cannot be used") && error.contains("CUDA_COMPUTE_CAP=52"), "{error}");
        assert_eq!(Devices::auto(Ok(mixed(&[8, 8], old())), None).names(), "cuda:1");
        let alone = Devices::auto(Ok(mixed(&[8], old())), None);
        let note = alone.note.clone().expect("it is told");
        assert!(alone.first() == Device::Cpu && note.contains("it runs on the CPU: for the screen has"), "{note}");
        assert!(note.contains(&train::built_for()), "{note}");
    }

    #[test]
    fn a_sweep_has_gpus_of_one_model_unless_others_are_named() {
        let auto = Devices::auto(Ok(mixed(&[8, 8, 8], other())), None);
        assert_eq!((auto.names().as_str(), auto.classes().len()), ("cuda:1,cuda:2", 1));
        assert_eq!(auto.of_process(0).1[0].1, "GPU-1");
        let note = auto.note.expect("one is left alone");
        assert!(note.contains("left alone: cuda:0 for the screen"), "{note}");
        let named = vec![Device::Cuda(0), Device::Cuda(1)];
        let named = Devices::of(named, Ok(mixed(&[8, 8, 8], other())), None).expect("two GPUs");
        assert_eq!(named.classes().len(), 2);
        assert_ne!(named.numerics_of(0), named.numerics_of(1));
        assert_eq!(named.numerics_of(2), named.numerics());
    }
}
