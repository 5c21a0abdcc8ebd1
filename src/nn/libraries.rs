//! NVIDIA's libraries that computing on a GPU takes: which they are, and where they are. They are loaded when a GPU is asked
//! for, so that a build with CUDA starts where there are none.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

/// The major version of CUDA whose libraries a build loads; of one without CUDA, the one that is recommended.
#[cfg(feature = "cuda")]
pub const CUDA: u32 = candle_core::cuda_backend::cudarc::driver::sys::CUDA_VERSION / 1000;
#[cfg(not(feature = "cuda"))]
pub const CUDA: u32 = 13;

/// A library: its name but for the version, that version, and what it is for.
const WANTED: [(&str, u32, &str); 6] = [
    ("cuda", 1, "the driver"),
    ("cudart", CUDA, "CUDA's runtime"),
    ("curand", 10, "candle's generator"),
    ("cublasLt", CUDA, "products"),
    ("cublas", CUDA, "products"),
    ("cudnn", 9, "convolutions"),
];

/// A library that computing on a GPU takes, as it is here.
pub struct Found {
    /// The name of the file, as `libcublas.so.13`.
    pub name: String,
    pub what: &'static str,
    /// The library and its file, or why there is none.
    pub here: Result<(Library, Option<PathBuf>), String>,
}

impl Found {
    /// Why it is missing, with the cure.
    pub fn missing(&self) -> Option<String> {
        let Self { name, what, here } = self;
        let error = here.as_ref().err()?;
        Some(format!("{name} ({what}) cannot be loaded: {error}; install it, or put its folder on LD_LIBRARY_PATH"))
    }
}

/// All of them that this build takes, and of one without CUDA the one that is recommended, loaded once: where the system's
/// loader finds them, else from the toolkit's folder.
pub fn all() -> &'static [Found] {
    static ALL: OnceLock<Vec<Found>> = OnceLock::new();
    ALL.get_or_init(|| {
        let wanted = WANTED
            .into_iter()
            .filter(|(name, ..)| *name != "cudnn" || cfg!(feature = "cudnn") || !cfg!(feature = "cuda"));
        wanted.map(|(name, version, what)| find(&format!("lib{name}.so.{version}"), what)).collect()
    })
}

/// The one of a name without version.
#[cfg(feature = "cuda")]
pub fn named(name: &str) -> Option<&'static Found> {
    all().iter().find(|found| found.name.starts_with(&format!("lib{name}.so.")))
}

fn find(name: &str, what: &'static str) -> Found {
    let (toolkits, usual) = (["CUDA_HOME", "CUDA_PATH"], Path::new("/usr/local/cuda"));
    let toolkits = toolkits.into_iter().filter_map(std::env::var_os).map(PathBuf::from).chain([usual.to_owned()]);
    let beside = toolkits.map(|folder| folder.join("lib64").join(name)).filter(|path| path.exists());
    let mut here = open(OsStr::new(name));
    for path in beside {
        here = here.or_else(|_| open(path.as_os_str()));
    }
    Found { name: name.to_owned(), what, here: here.map(|library| (library, place(name))) }
}

fn open(name: &OsStr) -> Result<Library, String> {
    // Safety: NVIDIA's libraries may be loaded at any time; what runs in them then is theirs.
    unsafe { Library::new(name) }.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        cause.to_string()
    })
}

/// The file of a library that is loaded. Its own name may have more of a version than the one that it was loaded by.
fn place(name: &str) -> Option<PathBuf> {
    let stem = name.split_inclusive(".so").next()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let is = |path: &&Path| path.file_name().is_some_and(|own| own.to_string_lossy().starts_with(stem));
    paths.filter(is).map(Path::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_says_its_name_and_the_cure() {
        let found = find("libno-such-thing.so.7", "nothing");
        let words = found.missing().expect("it is missing");
        let error = "libno-such-thing.so.7: cannot open shared object file: No such file or directory";
        assert!(cfg!(not(target_os = "linux")) || words.contains(error), "{words}");
        assert!(words.ends_with("or put its folder on LD_LIBRARY_PATH"), "{words}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn one_that_is_there_says_where() {
        let found = find("libc.so.6", "everything");
        let (_, place) = found.here.as_ref().expect("it is there");
        assert!(place.as_ref().is_some_and(|path| path.exists()), "{place:?}");
        assert_eq!(found.missing(), None);
    }
}
