//! What is shown in a document is true: reference, schema, templates, experiments, traps.

use std::path::Path;

use tl_sweep::experiment::{Experiment, keys, reference};
use tl_sweep::store::schema;

use crate::builder::World;

/// The file `name` of the repository is what the code would write; UPDATE=1 writes it.
fn generated(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        text,
        "{name} is out of date: UPDATE=1 cargo test writes it"
    );
}

#[test]
fn the_reference_is_what_the_code_says() {
    generated("docs/reference.md", &reference::page());
    generated("docs/experiment.schema.json", &reference::schema());
}

/// Links of the pages that a person reads lead to a file that is there, and to a heading that it has.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let beside = ["README.md", "CONTRIBUTING.md", "benches/README.md", "results/README.md"].map(|name| root.join(name));
    let mut count = 0;
    for page in docs.chain(beside).filter(|page| page.extension().is_some_and(|ending| ending == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: there is no {}", page.display(), to.display());
            let own = std::fs::read_to_string(&to).unwrap_or_default();
            let mut named = own.lines().filter(|line| line.starts_with('#')).map(anchor);
            assert!(heading.is_empty() || named.any(|own| own == heading), "{}: no {link}", page.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign)).collect::<String>().replace(' ', "-")
}

#[test]
fn every_experiment_and_template_resolves() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let mut count = 0;
    for folder in [root.clone(), root.join("templates")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                Experiment::load(&path, &[]).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
                count += 1;
            }
        }
    }
    assert!(count >= 7, "{count}");
}

#[test]
fn networks_of_experiments_are_networks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/networks");
    let world = World::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let said = world.run(&["summary", path.to_str().unwrap(), "--no-top"]).exits(0).out;
        assert!(said.contains("multiply-accumulates per image"), "{said}");
    }
}

#[test]
fn the_store_has_a_column_for_every_setting() {
    for key in keys::settings().map(|key| key.name).chain(keys::CELL_KEYS.iter().copied()) {
        assert!(schema::SETTINGS.contains(&key), "{key}");
    }
    for column in schema::SETTINGS {
        let known = keys::all().any(|key| key.name == *column) || keys::CELL_KEYS.contains(column);
        assert!(known, "{column}");
    }
    for column in schema::RESULTS {
        assert!(schema::COLUMNS.iter().any(|(name, kind, _)| name == column && *kind == "result"), "{column}");
    }
}

#[test]
fn defaults_in_the_reference_are_the_defaults() {
    let defaults = tl_sweep::experiment::resolve::defaults();
    for (key, value) in &defaults {
        let shown = keys::find(key).unwrap().default;
        let number = shown.parse::<f64>().ok().zip(value.number()).is_some_and(|(shown, value)| shown == value);
        assert!(shown.starts_with(&value.to_string()) || number, "{key}: reference says {shown}, the code {value}");
    }
}

#[test]
fn every_trap_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let traps = std::fs::read_to_string(root.join("docs/traps.md")).unwrap();
    let mut sources = String::new();
    for folder in
        ["tests", "tests/operators", "src/nn", "src/report", "src/schedule", "src/data", "src/plan", "src/train"]
    {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            sources.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
        }
    }
    let rows: Vec<&str> = traps
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert_eq!(rows.len(), 36, "one row for each trap");
    for row in rows {
        let proof = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        if proof.starts_with("open") {
            continue;
        }
        for name in proof.split(", ") {
            let name = name.trim_matches('`');
            assert!(
                sources.contains(&format!("fn {name}(")),
                "the trap '{row}' names the test {name}, which does not exist"
            );
        }
    }
}
