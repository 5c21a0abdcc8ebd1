//! Probabilities: that they are divided by the temperature that validation chose, that networks are trained once for both, and
//! what the report makes of them.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::builder::World;
use crate::chosen::{file, refused};
use crate::sharing::found;

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

fn ways() -> [(&'static str, String); 6] {
    [
        ("tuned", String::new()),
        ("legs", LEGS.to_owned()),
        ("half", format!("{LEGS}\ninterpolate = 0.5")),
        ("probe", PROBE.to_owned()),
        ("hidden", format!("{PROBE}\nhead = {{ mlp = [7] }}")),
        ("ridge", format!("{PROBE}\noptimizer = \"ridge\"\nlambda = [0.01]")),
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
    assert_eq!((shared.len(), &shared), (12 * 2, &alone));
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("24 of 24 trials"), "{said}");
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

fn foreseen(world: &World, plan: &serde_json::Value) {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let sum = |what: &str| store.query_row(what, [], |row| row.get::<_, f64>(0)).unwrap();
    let done = sum("SELECT sum(macs) FROM trial") + sum("SELECT sum(macs) FROM stage");
    let foreseen = plan["macs"]["shared"].as_f64().unwrap();
    assert!((done / foreseen - 1.0).abs() < 1e-9, "{done} for {foreseen}");
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
