//! `doctor`: what this machine can compute on, what is missing for more, and how to get it.

use super::devices::{BUILD, Devices};
use super::gpus::{self, Driver, Gpu};
use super::machine::{self, memory_free};
use super::{Exit, print, table_style};
use crate::cli::{Common, Format};
use crate::device::{CpuPath, Device};
use crate::report::table::table;
use crate::train;

/// Libraries that a build with CUDA loads, what each is for, and whether only cuDNN's builds want it.
const LIBRARIES: &[(&str, &str, bool)] = &[
    ("libcuda.so.1", "the driver", false),
    ("libcublas.so.13", "products", false),
    ("libcublasLt.so.13", "products", false),
    ("libcudart.so.13", "CUDA's runtime", false),
    ("libcurand.so.10", "candle's generator", false),
    ("libcudnn.so.9", "convolutions", true),
];

/// A library: where it was found.
struct Library {
    name: &'static str,
    what: &'static str,
    only_cudnn: bool,
    at: Option<String>,
}

pub fn run(format: Format, common: &Common) -> anyhow::Result<Exit> {
    let (driver, libraries) = (gpus::ask(), libraries());
    let wrong = wrong(&driver, &libraries);
    let text = match format {
        Format::Json => json(&driver, &libraries, &wrong)?,
        _ => shown(&driver, &libraries, &wrong),
    };
    print(text.trim_end())?;
    // A device that is asked for by name must be there.
    if common.devices != "auto" {
        Devices::choose(&common.devices)?;
    }
    Ok(Exit::Complete)
}

/// What keeps GPUs from being used, with its cure; and a word on what is fine.
fn wrong(driver: &Result<Driver, String>, libraries: &[Library]) -> Vec<String> {
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
        found.push(format!("this program was built without CUDA, and runs on the CPU: {BUILD}"));
    }
    if !driver.visible.is_empty() && driver.cuda.0 < 13 {
        let (major, minor) = driver.cuda;
        found.push(format!(
            "driver {} runs CUDA {major}.{minor} and older: builds for CUDA 13 need driver 580 or newer",
            driver.version
        ));
    }
    for library in
        libraries.iter().filter(|library| library.at.is_none() && (cfg!(feature = "cudnn") || !library.only_cudnn))
    {
        found.push(format!("{} ({}) was not found: put its folder on LD_LIBRARY_PATH", library.name, library.what));
    }
    if cfg!(feature = "cuda")
        && !driver.visible.is_empty()
        && let Err(failure) = train::open_device(Device::Cuda(0))
    {
        found.push(failure.message);
    }
    found
}

/// Where the loader would find the libraries of a CUDA build: LD_LIBRARY_PATH, the loader's cache, the usual folders.
fn libraries() -> Vec<Library> {
    let cache = std::process::Command::new("/sbin/ldconfig").arg("-p").output().ok();
    let cache = cache.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let named = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = named.split(':').filter(|folder| !folder.is_empty()).chain(["/usr/local/cuda/lib64", "/usr/lib"]);
    let folders: Vec<&std::path::Path> = folders.map(std::path::Path::new).collect();
    let place = |name: &str| {
        let beside = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
        let cached = || cache.lines().find(|line| line.trim().starts_with(&format!("{name} ")))?.split("=> ").nth(1);
        beside.map(|path| path.display().to_string()).or_else(|| cached().map(str::to_owned))
    };
    let library = |(name, what, only_cudnn): &(&'static str, &'static str, bool)| Library {
        name,
        what,
        only_cudnn: *only_cudnn,
        at: place(name),
    };
    LIBRARIES.iter().map(library).collect()
}

fn built_with() -> &'static str {
    match (cfg!(feature = "cudnn"), cfg!(feature = "cuda")) {
        (true, _) => "CUDA and cuDNN",
        (false, true) => "CUDA, without cuDNN: convolutions are slower",
        (false, false) => "no CUDA",
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn shown(driver: &Result<Driver, String>, libraries: &[Library], wrong: &[String]) -> String {
    let threads = machine::threads();
    let mut rows = vec![
        vec!["built with".to_owned(), built_with().to_owned()],
        vec![
            "CPU".to_owned(),
            format!("{threads} threads, {}, {} free", CpuPath::current().name(), gigabytes(memory_free() as u64)),
        ],
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
        let at = library.at.clone().unwrap_or_else(|| "not found".to_owned());
        rows.push(vec![library.name.to_owned(), format!("{at} ({})", library.what)]);
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

fn json(driver: &Result<Driver, String>, libraries: &[Library], wrong: &[String]) -> anyhow::Result<String> {
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
        libraries.iter().map(|library| (library.name.to_owned(), library.at.clone().into())).collect();
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
