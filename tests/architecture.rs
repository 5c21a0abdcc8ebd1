//! The walls of the house: who may know whom, where each library lives, how long a file may be, which words are refused.

use std::path::{Path, PathBuf};

/// Module, and the modules it may use. The nouns may be used by everything and use only each other.
const MAY_USE: &[(&str, &[&str])] = &[
    ("experiment", &[]),
    ("model", &[]),
    ("nn", &[]),
    ("data", &[]),
    ("report", &[]),
    ("store", &[]),
    ("plan", &["experiment", "model"]),
    ("schedule", &["plan"]),
    ("exec", &["model", "nn"]),
    ("train", &["plan", "data", "model", "nn", "exec"]),
    ("commands", &["experiment", "plan", "schedule", "data", "model", "train", "store", "report", "cli"]),
    ("cli", &[]),
    ("main", &["cli", "commands"]),
    ("lib", &[]),
];

const NOUNS: &[&str] = &[
    "value",
    "scenario",
    "frame",
    "preprocess",
    "corruption",
    "augmentation",
    "freeze",
    "trains",
    "recipe",
    "phase",
    "outcome",
    "expense",
    "key",
    "seed",
    "device",
    "spelling",
    "temporary",
];

/// A library, and the modules that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("clap", &["cli", "main"]),
    ("toml::", &["experiment/file.rs", "model/sketch/mod.rs"]),
    ("candle_core", &["model", "nn", "exec", "train"]),
    ("rayon", &["data", "nn"]),
    ("rusqlite", &["store"]),
    ("comfy_table", &["report"]),
    ("image::", &["data"]),
    ("statrs", &["report"]),
    ("indicatif", &["commands"]),
    ("nvml_wrapper", &["commands/gpus.rs"]),
    ("ureq", &["commands/download.rs"]),
    ("sysinfo", &["commands/host.rs"]),
    ("tokenizers::", &["model/texts/tokenizer.rs"]),
    ("prost", &["train/onnx/mod.rs", "train/onnx/proto.rs"]),
];

const REFUSED: &[&str] = &["todo!", "unimplemented!", "dbg!", ".unwrap()", "TODO", "FIXME", "lazy_static"];

/// A file longer than this is more than one room.
const MAX_LINES: usize = 500;

fn files() -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, PathBuf)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push((path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), path));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort();
    assert!(found.len() > 60, "{}", found.len());
    found
}

/// The code of a file: no inline tests, no comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn module(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn every_module_knows_only_what_it_may() {
    let mut wrong = Vec::new();
    for (name, path) in files() {
        let own = module(&name);
        let allowed = MAY_USE.iter().find(|(module, _)| *module == own).map_or(&[][..], |(_, allowed)| allowed);
        assert!(
            MAY_USE.iter().any(|(module, _)| *module == own) || NOUNS.contains(&own),
            "the module {own} has no walls"
        );
        for (index, piece) in code(&path).split("crate::").enumerate().skip(1) {
            let used: String = piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let fine = used == own || NOUNS.contains(&used.as_str()) || allowed.contains(&used.as_str());
            if !(fine || own == "main" || own == "lib") {
                wrong.push(format!("{name}: use {index} of crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_library_has_one_home() {
    let mut wrong = Vec::new();
    for (name, path) in files() {
        let code = code(&path);
        for (library, homes) in HOMES {
            let named = code
                .match_indices(library)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            let home = homes.iter().any(|home| module(&name) == *home || name == *home);
            if named && !home {
                wrong.push(format!("{name} names {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions of the standard library whose last bits are the system's: glibc's, musl's or another's (Rust, `f64::exp`,
/// "Unspecified precision"). Results rest on `libm`, which is the same everywhere.
const OF_THE_SYSTEM: &[&str] = &[
    "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "powf", "sin", "cos", "sin_cos", "tan", "tanh",
    "cbrt",
];

#[test]
fn no_result_rests_on_functions_of_the_system() {
    let mut wrong = Vec::new();
    for (name, path) in files().into_iter().filter(|(name, _)| !matches!(module(name), "commands" | "report")) {
        let code = code(&path);
        for function in OF_THE_SYSTEM {
            let called = [format!(".{function}("), format!("f64::{function})"), format!("f32::{function})")];
            wrong.extend(called.iter().filter(|call| code.contains(*call)).map(|call| format!("{name} calls {call}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_open_with_a_sentence_and_hold_no_refused_word() {
    let mut wrong = Vec::new();
    for (name, path) in files() {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.lines().count() > MAX_LINES {
            wrong.push(format!("{name} has {} lines", text.lines().count()));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not say what it answers for"));
        }
        let code = code(&path);
        wrong.extend(REFUSED.iter().filter(|word| code.contains(**word)).map(|word| format!("{name} holds {word}")));
        let printing = ["println!", "print!("].iter().any(|word| code.contains(word));
        if printing && !matches!(module(&name), "commands" | "report" | "main") {
            wrong.push(format!("{name} prints"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
