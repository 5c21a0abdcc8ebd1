//! `doctor`: what this machine can compute on, what is missing for more, and how to get it.

use super::devices::{Devices, unfit};
use super::gpus::{self, Driver, Gpu};
use super::host::{memory_free, processor, threads};
use super::{Exit, print, table_style};
use crate::cli::{Answer, Common};
use crate::device::{CpuPath, Device};
use crate::report::table::table;
use crate::train;
use crate::train::libraries::{self, Found};

pub fn run(format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let (driver, libraries) = (gpus::ask(), libraries::all());
    let wrong = wrong(&driver, libraries);
    let text = match format {
        Answer::Json => json(&driver, libraries, &wrong)?,
        Answer::Table => shown(&driver, libraries, &wrong),
    };
    print(text.trim_end())?;
    // A device that is asked for by name must be there.
    if common.devices != "auto" {
        Devices::choose(&common.devices)?;
    }
    Ok(Exit::Complete)
}

/// What keeps GPUs from being used, with its cure; and a word on what is fine.
fn wrong(driver: &Result<Driver, String>, libraries: &[Found]) -> Vec<String> {
    let mut found = Vec::new();
    let driver = match driver {
        Ok(driver) => driver,
        Err(error) => {
            found.push(format!("{error}: runs use the CPU; where there is an NVIDIA GPU, install its driver"));
            return found;
        }
    };
    let hidden = driver.all.len() - driver.visible.len();
    if hidden > 0 {
        let named = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        found.push(format!(
            "CUDA_VISIBLE_DEVICES=\"{named}\" hides {hidden} of {} GPUs: unset it to use them",
            driver.all.len()
        ));
    }
    if driver.all.is_empty() {
        found.push("the driver knows no GPU, or only such as are divided (MIG) and have no instance".to_owned());
    } else if !cfg!(feature = "cuda") {
        found.extend(train::obstacle());
    }
    if !driver.visible.is_empty() && driver.cuda.0 < libraries::CUDA as i32 {
        let (major, minor) = driver.cuda;
        found.push(format!(
            "driver {} runs CUDA {major}.{minor} and older, and builds are for CUDA {}: install a newer driver",
            driver.version,
            libraries::CUDA
        ));
    }
    let mut faults: Vec<String> = libraries.iter().filter_map(Found::missing).collect();
    if cfg!(feature = "cuda") {
        faults.extend(driver.visible.iter().filter_map(unfit));
        let tried = faults.is_empty() && !driver.visible.is_empty();
        faults
            .extend(tried.then(|| train::open_device(Device::Cuda(0)).err()).flatten().map(|failure| failure.message));
    }
    found.extend(faults);
    found
}

fn built_with() -> &'static str {
    match (cfg!(feature = "cudnn"), cfg!(feature = "cuda")) {
        (true, _) => "CUDA and cuDNN",
        (false, true) => "CUDA, without cuDNN: convolutions are slower",
        (false, false) => "no CUDA",
    }
}

/// Where a library is, or its name where the system does not say.
fn place(library: &Found) -> Option<String> {
    let (_, path) = library.here.as_ref().ok()?;
    Some(path.as_ref().map_or_else(|| library.name.clone(), |path| path.display().to_string()))
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn shown(driver: &Result<Driver, String>, libraries: &[Found], wrong: &[String]) -> String {
    let (path, free) = (CpuPath::current().name(), gigabytes(memory_free() as u64));
    let mut rows = vec![
        vec!["built with".to_owned(), built_with().to_owned()],
        vec!["CPU".to_owned(), format!("{}, {} threads, {path}, {free} free", processor(), threads())],
    ];
    match driver {
        Err(error) => rows.push(vec!["NVIDIA driver".to_owned(), error.clone()]),
        Ok(driver) => {
            let (major, minor) = driver.cuda;
            rows.push(vec!["NVIDIA driver".to_owned(), format!("{}, CUDA up to {major}.{minor}", driver.version)]);
            for gpu in &driver.all {
                let place = driver.visible.iter().position(|visible| visible == gpu);
                let name = place.map_or_else(|| "(hidden)".to_owned(), |place| format!("cuda:{place}"));
                rows.push(vec![name, describe(gpu)]);
            }
        }
    }
    for library in libraries {
        let at = place(library).unwrap_or_else(|| "not found".to_owned());
        rows.push(vec![library.name.clone(), format!("{at} ({})", library.what)]);
    }
    let mut text = table(table_style(), &["what", "found"], &rows);
    text += &match Devices::choose("auto") {
        Ok(auto) => {
            let note = auto.note.as_ref().filter(|_| auto.first() != Device::Cpu);
            let note = note.map_or_else(String::new, |note| format!("! {note}\n"));
            format!("\n--devices auto is {}; numerics class {}\n{note}", auto.names(), auto.numerics())
        }
        Err(error) => format!("\n--devices auto: {error}\n"),
    };
    for fault in wrong {
        text += &format!("! {fault}\n");
    }
    text
}

fn describe(gpu: &Gpu) -> String {
    let Gpu { name, uuid, pci, memory, free, capability: (major, minor), .. } = gpu;
    let (memory, free) = (gigabytes(*memory), gigabytes(*free));
    format!("{name}, {memory}, {free} free, compute capability {major}.{minor}, {pci}, {uuid}")
}

fn json(driver: &Result<Driver, String>, libraries: &[Found], wrong: &[String]) -> anyhow::Result<String> {
    let gpu = |gpu: &Gpu| {
        serde_json::json!({
            "uuid": gpu.uuid, "name": gpu.name, "pci": gpu.pci, "instance": gpu.instance,
            "memory": gpu.memory, "free": gpu.free,
            "compute_capability": format!("{}.{}", gpu.capability.0, gpu.capability.1), "numerics": gpu.numerics(),
        })
    };
    let driver = match driver {
        Ok(driver) => serde_json::json!({
            "version": driver.version,
            "cuda": format!("{}.{}", driver.cuda.0, driver.cuda.1),
            "gpus": driver.all.iter().map(gpu).collect::<Vec<_>>(),
            "visible": driver.visible.iter().map(|gpu| &gpu.uuid).collect::<Vec<_>>(),
        }),
        Err(error) => serde_json::json!({"error": error}),
    };
    let libraries: serde_json::Map<String, serde_json::Value> =
        libraries.iter().map(|library| (library.name.clone(), place(library).into())).collect();
    let all = serde_json::json!({
        "version": 1,
        "built_with": {"cuda": cfg!(feature = "cuda"), "cudnn": cfg!(feature = "cudnn")},
        "cpu": {"path": CpuPath::current().name(), "memory_free": memory_free() as u64},
        "driver": driver,
        "libraries": libraries,
        "wrong": wrong,
    });
    Ok(serde_json::to_string_pretty(&all)?)
}
