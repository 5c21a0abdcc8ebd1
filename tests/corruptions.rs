//! Corrupted images: as the benchmark's authors define them, the same for everybody, and in a sweep.

use std::collections::BTreeMap;

use serde::Deserialize;
use tl_sweep::corruption::{Corruption, Kind};
use tl_sweep::data::corrupt::corrupt;
use tl_sweep::key::Key;

use crate::builder::{World, png};

/// Of `imagecorruptions`, made by fixtures/corruptions.py.
#[derive(Deserialize)]
struct Fixture {
    side: usize,
    /// By kind and severity, some numbers of the corrupted test image.
    samples: BTreeMap<String, Vec<u8>>,
    /// Mean and standard deviation of a grey image with noise; of many in fog.
    noise: BTreeMap<String, [f64; 2]>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/corruptions.json")).unwrap()
}

/// The image that the fixture was made of.
fn image(side: usize) -> Vec<u8> {
    let value = |row: usize, column: usize, channel: usize| {
        ((row * 7 + column * 3 + row * column / 11 * (1 + channel)) % 256) as u8
    };
    let places = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
    places.flat_map(|(row, column)| [0, 1, 2].map(|channel| value(row, column, channel))).collect()
}

fn key(number: usize) -> Key {
    Key::of("image", &number)
}

fn moments(values: &[u8]) -> [f64; 2] {
    let n = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
    [mean, (values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / n).sqrt()]
}

#[test]
fn what_draws_nothing_is_as_the_authors_have_it() {
    let Fixture { side, samples, .. } = fixture();
    assert_eq!(samples.len(), 30);
    let plain = image(side);
    for (name, expected) in samples {
        let found = corrupt(Corruption::parse(&name).unwrap(), &plain, side, key(0)).unwrap();
        for (index, expected) in expected.into_iter().enumerate() {
            let at = 3 * (index * 37 % side * side + index * 101 % side) + index % 3;
            assert!(found[at].abs_diff(expected) <= 1, "{name} {index}: {} instead of {expected}", found[at]);
        }
    }
}

#[test]
fn noise_is_as_strong_as_theirs_and_its_own_for_each_image() {
    let Fixture { side, noise, .. } = fixture();
    assert_eq!(noise.len(), 25);
    let grey = vec![128; 3 * side * side];
    for (name, [mean, deviation]) in noise {
        let what = Corruption::parse(&name).unwrap();
        let fog = what.kind == Kind::Fog;
        let of = |number: usize| corrupt(what, &grey, side, key(number)).unwrap();
        let found = moments(&(0..if fog { 100 } else { 1 }).flat_map(of).collect::<Vec<u8>>());
        // Clouds differ from image to image; noise is an average over 150,528 numbers.
        let [most_mean, most_deviation] = if fog { [2.5, 2.0] } else { [0.8, 0.8] };
        assert!((found[0] - mean).abs() < most_mean, "{name}: mean {} instead of {mean}", found[0]);
        assert!((found[1] - deviation).abs() < most_deviation, "{name}: {} instead of {deviation}", found[1]);
        assert_eq!(of(1), of(1), "{name}");
        assert_ne!(of(1), of(2), "{name}");
    }
}

/// Of small images the constants are those of CIFAR-10-C: weaker in most.
#[test]
fn every_kind_and_severity_changes_an_image_more_than_the_one_before() {
    for side in [32, 96] {
        let plain = image(side);
        for (kind, name) in Kind::ALL {
            let distance = |severity: u8| {
                let found = corrupt(Corruption { kind, severity }, &plain, side, key(3)).unwrap();
                assert_eq!(found.len(), plain.len());
                let square = |(one, other): (&u8, &u8)| f64::from(one.abs_diff(*other)).powi(2);
                found.iter().zip(&plain).map(square).sum::<f64>()
            };
            let distances: Vec<f64> = (1..=5).map(distance).collect();
            assert!(
                distances[0] > 0.0 && (distances[4] > distances[0] || kind == Kind::Saturate),
                "{name} at {side}: {distances:?}"
            );
            // Saturation first falls and then rises; where motion goes is drawn anew.
            let wanders = matches!(kind, Kind::Saturate | Kind::MotionBlur | Kind::Fog);
            assert!(wanders || distances.is_sorted(), "{name} at {side}: {distances:?}");
        }
    }
    let strong = |side: usize| {
        let found = corrupt(Corruption::parse("gaussian-noise 5").unwrap(), &vec![128; 3 * side * side], side, key(0));
        moments(&found.unwrap())[1]
    };
    assert!((strong(64) - 25.5).abs() < 1.0 && strong(65) > 70.0, "{} {}", strong(64), strong(65));
}

/// What only moves light about leaves an even image as it is.
#[test]
fn blurs_keep_light() {
    for name in ["gaussian-blur 4", "defocus-blur 5", "motion-blur 3", "zoom-blur 2", "pixelate 5"] {
        for side in [9, 32, 70] {
            let even: Vec<u8> = [200, 90, 30].repeat(side * side);
            let found = corrupt(Corruption::parse(name).unwrap(), &even, side, key(5)).unwrap();
            assert!(found.iter().zip(&even).all(|(one, other)| one.abs_diff(*other) <= 2), "{name} at {side}");
        }
    }
}

const SWEEP: &str = r#"
[experiment]
name = "x"
replicates = 2
[backbone]
arch = "resnet8"
input = 16
weights = "random"
[datasets.mine]
path = "mine"
also_test = ["corruptions 4", "jpeg 1", "grey", "phone"]
[datasets.grey]
path = "mine"
corrupt = "saturate 2"
[datasets.phone]
path = "phone"
splits = { test = 1 }
[scenarios.few]
dataset = "mine"
per_class = 8
[scenarios.faded]
dataset = "grey"
per_class = 8
[train]
steps = 20
batch = 8
lr = 0.05
[axes]
recipe = ["from-scratch"]
"#;

fn world() -> World {
    let mut world = World::new().images("mine", &["ants", "bees"], 12, 10).file("x.toml", SWEEP);
    for index in 0..6 {
        world = world.file(&format!("phone/bees/{index}.png"), png(16, 16, 1, 800 + index));
    }
    world
}

#[test]
fn a_sweep_tests_on_its_own_images_corrupted_and_trains_on_corrupted_ones() {
    let world = world();
    let plan = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(plan.contains("20 of gaussian-noise 4") && plan.contains("14 more"), "{plan}");
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(said.contains("accuracy under each shift, in few"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap();
    let shifts = json["shifts"].as_array().unwrap();
    assert_eq!(shifts.len(), 1, "only one of them is tested on others");
    let names: Vec<&str> =
        shifts[0]["others"].as_array().unwrap().iter().map(|other| other["dataset"].as_str().unwrap()).collect();
    let mut expected: Vec<String> = Kind::ALL.iter().map(|(_, name)| format!("{name} 4")).collect();
    expected.extend(["jpeg 1", "grey", "phone"].map(str::to_owned));
    assert_eq!(names, expected);
    let all = world.run(&["verify", "x.toml", "--sample", "100"]).exits(0).out;
    assert!(all.contains("4 of 4 trials, run alone, gave what the store holds"), "{all}");
    // The dataset of grey images is another one, and what is packed of it is grey.
    let packed = world.cached("pixels");
    let grey = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let spread = |pixel: &[u8]| f64::from(pixel.iter().max().unwrap() - pixel.iter().min().unwrap());
        bytes.chunks_exact(3).map(spread).sum::<f64>() / (bytes.len() / 3) as f64
    };
    let mut spreads: Vec<f64> = packed.iter().map(grey).collect();
    spreads.sort_by(f64::total_cmp);
    assert!(spreads.len() == 2 && spreads[0] < 0.3 * spreads[1], "{spreads:?}");
}

#[test]
fn a_corruption_that_is_none_is_refused_and_a_page_shows_what_there_is() {
    let world = world();
    let refused = |from: &str, to: &str, told: &[&str]| {
        std::fs::write(world.path("x.toml"), SWEEP.replace(from, to)).unwrap();
        let said = world.run(&["check", "x.toml"]).exits(2).err;
        assert!(told.iter().all(|part| said.contains(part)) && said.contains("x.toml:"), "{said}");
    };
    refused("saturate 2", "fogg 2", &["there is no corruption 'fogg'; did you mean 'fog'?", "zoom-blur"]);
    refused("saturate 2", "fog 6", &["a severity of 1 to 5, found '6'"]);
    refused("saturate 2", "fog", &["such as 'fog 3', found 'fog'"]);
    refused("jpeg 1", "jpeg 0", &["a severity of 1 to 5"]);
    refused("jpeg 1", "jpgg 1", &["there is no corruption 'jpgg'; did you mean 'jpeg'?"]);
    // What is like no kind is a dataset.
    refused("jpeg 1", "camera 2", &["also tests 'camera 2', which is no dataset"]);
    refused("jpeg 1", "jpeg 4", &["'jpeg 4' stands here twice"]);
    refused("corruptions 4", "corruptions 9", &["a severity of 1 to 5"]);
    let folds = "path = \"mine\"\nfolds = 2\nalso_test = [\"fog 3\"]";
    let own = "path = \"mine\"\nalso_test = [\"corruptions 4\", \"jpeg 1\", \"grey\", \"phone\"]";
    refused(own, folds, &["in folds there are none", "splits = { test = 0.2 }"]);
    world.run(&["data", "mine", "--corruptions", "page.html", "--input", "24"]).exits(0);
    let page = std::fs::read_to_string(world.path("page.html")).unwrap();
    assert_eq!(page.matches("<img").count(), 14 * 6);
    assert!(page.contains(">zoom-blur 5<") && page.contains("test/ants/000.png"), "{}", &page[page.len() - 300..]);
    world.run(&["data", "mine", "--input", "24"]).exits(2);
}
