//! Reports for papers and pages: complete, and with nothing in them that a name could break.

use tl_sweep::model::arch::Arch;

use crate::builder::World;
use crate::materials::network;

/// Names and words that mean something to TeX or to HTML.
const EXPERIMENT: &str = r#"
[experiment]
name = "a_b & <c>"
question = "100% of $5, <b>bold</b>?"
replicates = 3
[backbone]
weights = "w.safetensors"
arch = "vgg_small"
preprocess = "torch"
[datasets.mine]
path = "mine"
[scenarios.few_images]
size = "small"
similarity = "similar"
dataset = "mine"
per_class = 4
[recipes.some_depth]
head = "linear"
[recipes.of_noise]
weights = "random"
[train]
steps = 2
batch = 8
[axes]
recipe = ["some_depth", "of_noise"]
freeze = ["none", "block1"]
lr = [0.01, 0.1]
[[rule]]
scenario = "few_images"
claim = "some_depth > of_noise"
margin = 0.01
"#;

fn world() -> World {
    let world = World::new().images("mine", &["ants", "bees", "cats"], 8, 6).file("x.toml", EXPERIMENT);
    network(&world, "w.safetensors", &Arch::new("vgg_small", 32, 1.0));
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    world
}

/// What every way of showing it must hold: means of arms, and answers on rules.
fn shown(world: &World) -> Vec<String> {
    let said = world.run(&["report", "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let means = json["arms"].as_array().unwrap().iter();
    let means = means.map(|arm| format!("{:.3}", arm["test_mean"].as_f64().unwrap()).replace("0.", "."));
    let answers = json["verdicts"].as_array().unwrap().iter();
    let answers = answers.map(|verdict| verdict["answer"].as_str().unwrap().replace("NOT-TESTED", "NOT TESTED"));
    let found: Vec<String> = means.chain(answers).collect();
    assert!(found.len() >= 4, "{found:?}");
    found
}

/// Names of elements that are open at the end, in their order; panics at one that closes another.
fn open(html: &str) -> Vec<String> {
    let mut open = Vec::new();
    for tag in html.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        if tag.starts_with('!') || tag.ends_with('/') || matches!(name, "meta" | "br") {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else {
            open.push(name.to_owned());
        }
    }
    open
}

#[test]
fn a_page_holds_the_report_and_no_name_breaks_it() {
    let world = world();
    let page = world.run(&["report", "--format", "html"]).exits(0).out;
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    assert_eq!(open(&page), Vec::<String>::new());
    assert!(page.contains("a_b &amp; &lt;c&gt;") && page.contains("&lt;b&gt;bold&lt;/b&gt;"), "{page}");
    let figures = "arms, rates, two recipes by depth, probabilities, and rules";
    assert_eq!(page.matches("<figure>").count(), 6, "{figures}");
    assert!(page.contains("few_images: accuracy on validation by lr; lines: 95% over all replicates"), "{page}");
    let report: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let bins = report["calibration"][0]["bins"].as_array().unwrap().len();
    assert_eq!(
        page.matches("class=\"dot\"").count(),
        4 + 4 * 2 + 4 + bins + 2,
        "two recipes at two depths, thrice, once at two rates; bins of confidence; and the rule at each depth"
    );
    for text in shown(&world) {
        assert!(page.contains(&text), "{text}: {page}");
    }
    // It asks for nothing from elsewhere.
    for word in ["http:", "https:", "<script", "<link", "@import", "url("] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(word), "{word}");
    }
}

#[test]
fn tables_for_a_paper_hold_the_report_and_no_name_breaks_them() {
    let world = world();
    let text = world.run(&["report", "--format", "latex"]).exits(0).out;
    let body: String = text.lines().filter(|line| !line.starts_with('%')).collect::<Vec<_>>().join("\n");
    for text in shown(&world) {
        assert!(body.contains(&text), "{text}: {body}");
    }
    assert!(body.contains("few\\_images") && !body.contains("few_images"), "{body}");
    assert!(text.contains("% 100% of $5"), "what is said in comments needs no escape: {text}");
    for name in ["table", "tabular"] {
        let count = |word: &str| body.matches(&format!("\\{word}{{{name}}}")).count();
        assert!(count("begin") > 2 && count("begin") == count("end"), "{name}: {body}");
    }
    let plain = body.replace("\\{", "").replace("\\}", "");
    assert_eq!(plain.matches('{').count(), plain.matches('}').count());
    // Each row has the columns of its table: what nests in a cell has none of its own.
    for table in body.split("\\toprule\n").skip(1) {
        let rows: Vec<usize> =
            table.split("\\bottomrule").next().unwrap().lines().map(|row| row.matches(" & ").count()).collect();
        let columns = rows[0];
        assert!(rows.iter().filter(|row| **row > 0).all(|row| *row == columns), "{rows:?}");
    }
}

/// What goes wrong, class by class: the same answers as the scores.
#[test]
fn what_the_best_recipe_gets_wrong_agrees_with_its_score() {
    let world = world();
    let said = world.run(&["report", "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let errors = &json["errors"][0];
    let best = json["arms"].as_array().unwrap().iter().find(|arm| {
        let name = errors["recipe"].as_str().unwrap();
        let context = arm["named"].as_str().unwrap();
        name == format!("{} [{context}]", arm["recipe"].as_str().unwrap())
    });
    let classes = errors["classes"].as_array().unwrap();
    assert_eq!((classes.len(), &errors["scenario"], &errors["replicates"]), (3, &"few_images".into(), &3.into()));
    let right: f64 = classes.iter().map(|class| class["recall"].as_f64().unwrap()).sum();
    let mean = best.unwrap()["test_mean"].as_f64().unwrap();
    assert!((right / 3.0 - mean).abs() < 1e-9, "classes of one size: {right} {mean}");
    let images = |name: &str| errors[name].as_array().unwrap().len();
    assert!(images("missed") <= ((1.0 - mean) * 18.0).round() as usize);
    let html = world.run(&["report", "--format", "html"]).exits(0).out;
    assert!(html.contains("gets wrong in few_images over 3 replicates") && html.contains("<th>recall</th>"));

    let trial = best.unwrap()["trials"][0].as_str().unwrap();
    let shown = world.run(&["show", trial]).exits(0).out;
    let table: Vec<&str> = shown.split("test by class").nth(1).unwrap().lines().collect();
    for class in ["ants", "bees", "cats"] {
        assert!(table.iter().any(|line| line.contains(&format!("│ {class} "))), "{shown}");
    }
    assert!(shown.contains("of 18 test images are answered wrong") || shown.contains("answered right"), "{shown}");
    let said = world.run(&["show", trial, "--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let wrong = json["errors"]["missed"].as_array().unwrap().len() as f64;
    let accuracy: f64 = json["columns"]["test_accuracy"].as_str().unwrap().parse().unwrap();
    assert!((1.0 - wrong / 18.0 - accuracy).abs() < 1e-9);
}
