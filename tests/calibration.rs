//! Probabilities: that they are divided by the temperature that validation chose, that networks are trained once for both, and
//! what the report makes of them.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::builder::World;
use crate::chosen::{file, refused};
use crate::sharing::{GRID, foreseen, found};

const COOL: &str = "calibrate = \"temperature\"";
const LEGS: &str = "phases = [{ freeze = \"all\", steps = 6 }, { freeze = \"layer1\", steps = 6 }]";
const PROBE: &str = "freeze = \"all\"\naugment = []";

/// Every way to train, without and with a temperature.
fn world(more: &str, ways: &[(&str, &str)]) -> World {
    let cool: Vec<(String, String)> =
        ways.iter().map(|(name, body)| (format!("{name}-cool"), format!("{body}\n{COOL}"))).collect();
    let cool = cool.iter().map(|(name, body)| (name.as_str(), body.as_str()));
    let recipes: Vec<(&str, &str)> = ways.iter().copied().chain(cool).collect();
    World::new().file("x.toml", file(&recipes).replace("seed = 5\n", &format!("seed = 5\n{more}\n")))
}

fn ways() -> [(&'static str, String); 7] {
    [
        ("tuned", String::new()),
        ("legs", LEGS.to_owned()),
        ("half", format!("{LEGS}\ninterpolate = 0.5")),
        ("probe", PROBE.to_owned()),
        ("hidden", format!("{PROBE}\nhead = {{ mlp = [7] }}")),
        ("ridge", format!("{PROBE}\noptimizer = \"ridge\"\nlambda = [0.01]")),
        ("lda", format!("{PROBE}\noptimizer = \"lda\"\nlambda = [0.5]")),
    ]
}

/// One trial as the store has it.
struct Row {
    key: String,
    temperature: Option<f64>,
    val_loss: f64,
    validated: f64,
    test_accuracy: f64,
    macs: f64,
    /// Of test: classes, probabilities of the true ones, and of these.
    predicted: Vec<u16>,
    probability: Vec<f32>,
    confidence: Vec<f32>,
}

fn rows(world: &World) -> BTreeMap<String, Row> {
    rows_of(world, "results/tl-sweep.sqlite")
}

fn rows_of(world: &World, db: &str) -> BTreeMap<String, Row> {
    let store = rusqlite::Connection::open(world.path(db)).unwrap();
    let text = "SELECT recipe, result.trial, temperature, val_loss, test_accuracy, macs, predicted, probability, confidence,
                  (SELECT length(predicted) / 2.0 FROM prediction AS val WHERE val.trial = result.trial AND part = 'val')
                FROM result JOIN prediction ON prediction.trial = result.trial AND part = 'test' WHERE replicate = 0";
    let mut statement = store.prepare(text).unwrap();
    let row = |row: &rusqlite::Row| {
        let numbers = |at: usize| -> Vec<f32> { bytemuck::pod_collect_to_vec(&row.get::<_, Vec<u8>>(at).unwrap()) };
        let own = Row {
            key: row.get(1)?,
            temperature: row.get(2)?,
            val_loss: row.get(3)?,
            test_accuracy: row.get(4)?,
            macs: row.get(5)?,
            predicted: bytemuck::pod_collect_to_vec(&row.get::<_, Vec<u8>>(6)?),
            probability: numbers(7),
            confidence: numbers(8),
            validated: row.get(9)?,
        };
        Ok((row.get::<_, String>(0)?, own))
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

fn tensors(world: &World, key: &str) -> BTreeMap<String, Tensor> {
    let said = world.run(&["export", "x.toml", key, "--out", "one.safetensors"]).exits(0).out;
    assert!(said.contains("to the bit"), "{said}");
    candle_core::safetensors::load(world.path("one.safetensors"), &Device::Cpu).unwrap().into_iter().collect()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The last layer of `cool` is that of `plain` over the temperature, and everything else is the same.
fn divided(plain: &BTreeMap<String, Tensor>, cool: &BTreeMap<String, Tensor>, temperature: f64) -> usize {
    assert!(plain.keys().eq(cool.keys()));
    let mut differs = 0;
    for (name, tensor) in plain {
        let (own, others) = (numbers(tensor), numbers(&cool[name]));
        if own != others {
            differs += 1;
            let factor = (1.0 / temperature) as f32;
            assert!(own.iter().zip(&others).all(|(own, other)| own * factor == *other), "{name}");
        }
    }
    differs
}

#[test]
fn temperatures_are_shared_exported_and_change_no_answer() {
    let ways = ways();
    let ways: Vec<(&str, &str)> = ways.iter().map(|(name, body)| (*name, body.as_str())).collect();
    let world = world("", &ways);
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (14 * 2, &alone));
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("28 of 28 trials"), "{said}");
    let rows = rows(&world);
    for (way, _) in &ways {
        let (plain, cool) = (&rows[*way], &rows[&format!("{way}-cool")]);
        let temperature = cool.temperature.expect("a temperature");
        assert!(plain.temperature.is_none() && temperature > 0.0 && (temperature - 1.0).abs() > 1e-3, "{temperature}");
        assert_eq!((&plain.predicted, plain.test_accuracy), (&cool.predicted, cool.test_accuracy), "{way}");
        // On validation it is better by more than its prior costs.
        let prior = temperature.ln().powi(2) / 2.0 / cool.validated;
        assert!(cool.val_loss + prior < plain.val_loss, "{way}: {} {}", cool.val_loss, plain.val_loss);
        let differs = divided(&tensors(&world, &plain.key), &tensors(&world, &cool.key), temperature);
        assert_eq!(differs, 2, "{way}: weight and bias of the last layer");
        for row in [plain, cool] {
            assert_eq!(row.predicted.len(), row.confidence.len());
            let pairs = row.probability.iter().zip(&row.confidence);
            assert!(pairs.clone().all(|(own, top)| own <= top && (0.25 - 1e-6..=1.0).contains(top)));
            let right = pairs.filter(|(own, top)| own == top).count();
            assert_eq!(right, (row.test_accuracy * row.predicted.len() as f64).round() as usize);
        }
    }
}

/// Banks, lock-step, branches, stored views, paths of strengths, early stops and best weights: each with and without.
#[test]
fn every_way_of_sharing_bears_a_temperature() {
    let text = GRID.replace("lr = [0.01, 0.1, 30.0]", "lr = [0.05, 30.0]\ncalibrate = [\"none\", \"temperature\"]");
    let world = World::new().file("x.toml", text);
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (15 * 2 * 2 * 2 + 3 * 2 * 2, &alone));
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let count = |what: &str| -> i64 {
        store.query_row(&format!("SELECT count(*) FROM result WHERE {what}"), [], |row| row.get(0)).unwrap()
    };
    // What diverges has no logits to calibrate.
    assert!(count("status = 'diverged'") > 0 && count("status = 'diverged' AND temperature IS NOT NULL") == 0);
    assert_eq!(count("status = 'done' AND (temperature IS NOT NULL) != (calibrate IS 'temperature')"), 0);
}

/// Both trainings where there are two: the second has the temperature of the first.
#[test]
fn networks_are_trained_once_and_what_a_temperature_costs_is_foreseen() {
    let ways = ways();
    let ways: Vec<(&str, &str)> = ways[..5].iter().map(|(name, body)| (*name, body.as_str())).collect();
    for refit in ["", "refit = true"] {
        let world = world(refit, &ways);
        let plan: serde_json::Value =
            serde_json::from_str(&world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out).unwrap();
        world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
        world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
        let ((shared, groups), (alone, _)) =
            (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
        assert_eq!((shared.len(), &shared), (10 * 2, &alone));
        assert_eq!(groups["tuned-cool"], 2, "{groups:?}");
        let (rows, apart) = (rows(&world), rows_of(&world, "alone/r.sqlite"));
        for way in ["tuned", "legs"] {
            let both = |rows: &BTreeMap<String, Row>| rows[way].macs + rows[&format!("{way}-cool")].macs;
            assert!(both(&rows) < 0.7 * both(&apart), "{way}: {} and {}", both(&rows), both(&apart));
        }
        foreseen(&world, &plan);
        let [plain, cool] = ["legs", "legs-cool"].map(|way| tensors(&world, &rows[way].key));
        assert_eq!(divided(&plain, &cool, rows["legs-cool"].temperature.expect("a temperature")), 2);
    }
}

#[test]
fn what_is_no_calibration_is_refused_or_nothing() {
    refused(&[
        ("calibrate = \"platt\"", "'none' or 'temperature'"),
        ("calibrate = true", "'none' or 'temperature'"),
        (
            "phases = [{ freeze = \"all\", steps = 6, calibrate = \"temperature\" }, { freeze = \"layer1\", steps = 6 }]",
            "calibrate",
        ),
    ]);
    let world = World::new().file("x.toml", file(&[("plain", ""), ("same", "calibrate = \"none\"")]));
    let said = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(said.contains("2 distinct trials"), "{said}");
}

/// Classes, probabilities of the true class and of that, and truth: of the test answers of a recipe, by replicate.
fn answers(world: &World, recipe: &str) -> Vec<Vec<(u16, f64, f64)>> {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let text = "SELECT predicted, probability, confidence FROM result
                JOIN prediction ON prediction.trial = result.trial AND part = 'test' WHERE recipe = ?1 ORDER BY replicate";
    let mut statement = store.prepare(text).unwrap();
    let row = |row: &rusqlite::Row| {
        let [predicted, probability, confidence] = [0, 1, 2].map(|at| row.get::<_, Vec<u8>>(at).unwrap());
        let predicted: Vec<u16> = bytemuck::pod_collect_to_vec(&predicted);
        let [probability, confidence]: [Vec<f32>; 2] =
            [probability, confidence].map(|bytes| bytemuck::pod_collect_to_vec(&bytes));
        let rows = predicted.into_iter().zip(probability.into_iter().zip(confidence));
        Ok(rows.map(|(class, (own, top))| (class, f64::from(own), f64::from(top))).collect())
    };
    statement.query_map([recipe], row).unwrap().map(Result::unwrap).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = values.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// Guo et al.: over 15 bins of confidence, the share of answers in a bin times how far their mean confidence is from the share of
/// them that is right. An answer is right where the probability of the true class is that of the predicted one.
fn error(answers: &[(u16, f64, f64)]) -> f64 {
    let bin = |bin: usize| {
        let own = |top: f64| top * 15.0 > bin as f64 && top * 15.0 <= (bin + 1) as f64;
        let own: Vec<_> = answers.iter().filter(|(_, _, top)| own(*top)).collect();
        if own.is_empty() {
            return 0.0;
        }
        let sure = mean(own.iter().map(|(_, _, top)| *top));
        let right = mean(own.iter().map(|(_, own, top)| f64::from(u8::from(own == top))));
        own.len() as f64 / answers.len() as f64 * (sure - right).abs()
    };
    (0..15).map(bin).sum()
}

#[test]
fn reports_say_how_far_probabilities_can_be_trusted() {
    let rules =
        "[[rule]]\nclaim = \"tuned-cool > tuned\"\nmetric = \"log-loss\"\n[[rule]]\nclaim = \"tuned-cool > tuned\"\n";
    let also = "synthetic = { classes = 4, task = 1, shift = 0.3, train = 14, test = 6 }\nalso_test = [\"other\"]\n\
                [datasets.other]\nsynthetic = { classes = 4, task = 1, shift = 0.6, train = 4, test = 9 }\n";
    let text = file(&[("tuned", ""), ("tuned-cool", COOL)])
        .replace("replicates = 2", "replicates = 3")
        .replace("synthetic = { classes = 4, task = 1, shift = 0.3, train = 14, test = 6 }\n", also);
    let world = World::new().file("x.toml", format!("{text}{rules}"));
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(
        said.contains("How far probabilities can be trusted") && said.contains("tuned-cool > tuned by log loss"),
        "{said}"
    );
    let report: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let [plain, cool] = ["tuned", "tuned-cool"].map(|recipe| answers(&world, recipe));
    let loss =
        |answers: &[Vec<(u16, f64, f64)>]| mean(answers.iter().map(|own| mean(own.iter().map(|own| -own.1.ln()))));
    let near = |found: &serde_json::Value, own: f64| (found.as_f64().unwrap() - own).abs() < 1e-9;
    let [by_loss, by_accuracy] = [0, 1].map(|at| &report["verdicts"][at]);
    assert!(near(&by_loss["difference"]["mean"], loss(&plain) - loss(&cool)), "{by_loss}");
    assert_eq!((&by_loss["rule"]["metric"], by_loss["difference"]["mean"] == 0.0), (&"log-loss".into(), false));
    // The answers are the same.
    assert_eq!((by_accuracy["difference"]["mean"].as_f64(), &by_accuracy["answer"]), (Some(0.0), &"EQUIVALENT".into()));
    let found = report["calibration"].as_array().unwrap();
    let of = |recipe: &str, shifted: bool| {
        found.iter().find(|own| own["recipe"] == recipe && own["shifted"] == shifted).expect("a row")
    };
    assert_eq!(found.len(), 4);
    for (recipe, answers) in [("tuned", &plain), ("tuned-cool", &cool)] {
        let own = of(recipe, false);
        assert!(near(&own["error"], mean(answers.iter().map(|own| error(own)))), "{own}");
        assert!(near(&own["log_loss"], loss(answers)), "{own}");
        assert!(near(&own["sure"], mean(answers.iter().map(|own| mean(own.iter().map(|own| own.2))))), "{own}");
        let [sure, right] = ["sure", "right"].map(|key| own[key].as_f64().unwrap());
        assert!(near(&own["overconfidence"]["mean"], sure - right), "{own}");
        let bins = own["bins"].as_array().unwrap();
        let counted: u64 = bins.iter().map(|bin| bin["answers"].as_u64().unwrap()).sum();
        assert_eq!(counted, 3 * 24);
        assert!(
            of(recipe, true)["bins"]
                .as_array()
                .unwrap()
                .iter()
                .map(|bin| bin["answers"].as_u64().unwrap())
                .sum::<u64>()
                == 3 * 36
        );
    }
    let page = world.run(&["report", "--format", "html"]).exits(0).out;
    assert!(
        page.contains("how often answers are right (up)") && page.contains("differences in log-loss"),
        "no picture"
    );
    // As an earlier program left it: without confidences.
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    store.execute("UPDATE prediction SET confidence = NULL", []).unwrap();
    let said = world.run(&["report"]).exits(0).out;
    assert!(said.contains("is not known of 6 trials") && !said.contains("surest half"), "{said}");
    assert!(said.contains("by log loss"), "log losses need none: {said}");
    world.run(&["rerun", "x.toml", "--only", "recipe == 'tuned'"]);
    let said = world.run(&["report"]).exits(0).out;
    assert!(said.contains("is not known of 3 trials") && said.contains("surest half"), "{said}");
}

/// Where nobody asks, it is said of the best recipe alone.
#[test]
fn of_others_only_the_best_is_told() {
    let world = World::new().file("x.toml", file(&[("tuned", ""), ("probe", PROBE)]));
    world.run(&["run", "x.toml"]).exits(0);
    let report: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let found = report["calibration"].as_array().unwrap();
    assert_eq!((found.len(), &found[0]["recipe"]), (1, &report["best"][0]["recipe"]));
}

/// A head that has learned its few images by heart is certain of others, too: the report says so, and what may be done.
#[test]
fn who_is_too_sure_is_told_what_mends_it() {
    let sure = format!("{PROBE}\nlr = 3.0\nsteps = 400");
    let world = |calibrate: &str| {
        let text = file(&[("sure", &format!("{sure}\n{calibrate}"))]).replace("replicates = 2", "replicates = 3");
        let world = World::new().file("x.toml", text);
        (world.run(&["run", "x.toml"]).exits(0).out, world)
    };
    let (said, plain) = world("");
    let hint = "calibrate = \"temperature\" brings sure and right together";
    assert!(said.contains(hint), "{said}");
    let over = |world: &World| {
        let report: serde_json::Value =
            serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
        report["calibration"][0]["overconfidence"]["mean"].as_f64().unwrap()
    };
    let (said, cool) = world(COOL);
    assert!(!said.contains(hint), "{said}");
    assert!(over(&plain) > 0.1 && over(&cool) < over(&plain) / 2.0, "{} {}", over(&plain), over(&cool));
}

/// What has diverged has no probabilities: it stands beside others as if it found all classes equally probable.
#[test]
fn what_diverged_loses_as_who_knows_nothing() {
    let rule = "[[rule]]\nclaim = \"tuned > burst\"\nmetric = \"log-loss\"\n";
    let text = file(&[("tuned", ""), ("burst", "lr = 1e6")]).replace("replicates = 2", "replicates = 3");
    let world = World::new().file("x.toml", format!("{text}{rule}"));
    world.run(&["run", "x.toml"]).exits(0);
    let report: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let verdict = &report["verdicts"][0];
    let tuned = mean(answers(&world, "tuned").iter().map(|own| mean(own.iter().map(|own| -own.1.ln()))));
    let found = verdict["difference"]["mean"].as_f64().unwrap();
    assert!((found - (4f64.ln() - tuned)).abs() < 1e-6, "{verdict}");
    let told = verdict["notes"].to_string();
    assert!(told.contains("burst: every setting diverged; counted as finding all classes equally probable"), "{told}");
}

#[test]
fn a_rule_of_no_such_metric_is_refused() {
    let rule = "[[rule]]\nclaim = \"tuned > probe\"\nmetric = \"brier\"\n";
    let text = format!("{}{rule}", file(&[("tuned", ""), ("probe", PROBE)]));
    let said = World::new().file("x.toml", text).run(&["check", "x.toml"]).exits(2);
    assert!(said.err.contains("expected 'accuracy', 'balanced-accuracy', 'macro-f1' or 'log-loss'"), "{}", said.err);
    assert!(said.err.contains("x.toml:"), "{}", said.err);
}
