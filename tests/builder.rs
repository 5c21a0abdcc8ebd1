//! Small worlds for tests: a folder of its own, files in it, and the program run there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A temporary folder in which the program runs.
pub struct World {
    folder: tempfile::TempDir,
}

/// What the program said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl World {
    #[must_use]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All files of the store's cache that end so.
    pub fn cached(&self, ending: &str) -> Vec<PathBuf> {
        let list = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (folders, mut files): (Vec<_>, Vec<_>) = list(self.path("results/cache")).partition(|path| path.is_dir());
        files.extend(folders.into_iter().flat_map(list));
        files.retain(|path| path.extension().is_some_and(|own| own == ending));
        files
    }

    /// Writes a file, with the folders above it.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// A folder of split/class/file with PNG images: each class has a colour, each image noise of its own.
    #[must_use]
    pub fn images(mut self, name: &str, classes: &[&str], train: usize, test: usize) -> Self {
        for (split, count) in [("train", train), ("test", test)] {
            for (class, label) in classes.iter().enumerate() {
                for index in 0..count {
                    let seed = (class * 1000 + index * 7 + usize::from(split == "test") * 500) as u32;
                    self =
                        self.file(&format!("{name}/{split}/{label}/{index:03}.png"), png(12, 12, class as u32, seed));
                }
            }
        }
        self
    }

    /// The program that was built beside the tests, or the one that TL_SWEEP_TEST_PROGRAM names: on another machine.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = std::env::var_os("TL_SWEEP_TEST_PROGRAM");
        let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_tl-sweep").into()));
        command.args(args).current_dir(self.folder.path());
        for name in [
            "TL_SWEEP_DATA",
            "TL_SWEEP_WEIGHTS",
            "TL_SWEEP_CPU_PATH",
            "COLUMNS",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_ENDPOINT",
        ] {
            command.env_remove(name);
        }
        // Whoever runs the tests may have a token of the hub.
        command.env("HF_HOME", self.path("of-nobody"));
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        Said {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Said {
    /// Fails the test with everything that was said unless the exit code is this.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

/// Key and columns of every trial that `status NAME --format json` printed.
pub fn listed(said: &str) -> Vec<(String, serde_json::Value)> {
    let said: serde_json::Value = serde_json::from_str(said).unwrap();
    assert_eq!(said["version"], 1);
    let trials = said["trials"].as_array().unwrap().iter();
    trials.map(|trial| (trial["trial"].as_str().unwrap().to_owned(), trial["columns"].clone())).collect()
}

/// A PNG whose colour tells its class.
pub fn png(width: u32, height: u32, class: u32, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let image = image::RgbImage::from_fn(width, height, |_, _| {
        let mut channel = |base: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (base + (state >> 26)).min(255) as u8
        };
        image::Rgb([channel(class * 90 % 256), channel(200 - class * 60 % 200), channel(90)])
    });
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// The folder with real data or weights, where it is at hand: tests on it are skipped elsewhere, and say so.
pub fn shared(kind: &str) -> Option<PathBuf> {
    let variable = format!("TL_SWEEP_{}", kind.to_uppercase());
    let named = std::env::var_os(variable).map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(kind);
    let found = named.into_iter().chain([beside]).find(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: no real {kind} here");
    }
    found
}
