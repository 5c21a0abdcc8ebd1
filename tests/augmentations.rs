//! Random changes of training images: as their authors define them, drawn for each image or batch, and in a sweep.

use std::collections::BTreeMap;

use serde::Deserialize;
use tl_sweep::augmentation::{Augmentation, WORDS};
use tl_sweep::data::augment::augment;
use tl_sweep::data::mix::Mix;
use tl_sweep::data::policy::{Operation, Space, apply};
use tl_sweep::seed::{Rng, Stream, stream};

use crate::builder::World;
use crate::sharing::{GRID, found};

/// Of torchvision, made by fixtures/augmentations.py.
#[derive(Deserialize)]
struct Fixture {
    /// By policy, side and operation: a sum for each strength and, where it has signs, each sign.
    sums: BTreeMap<String, Vec<u32>>,
}

/// The image that the fixture was made of.
fn image(side: usize) -> Vec<u8> {
    let value = |row: usize, column: usize, channel: usize| {
        (40 + (row * 7 + column * 3 + row * column / 11 * (1 + channel)) % 180) as u8
    };
    let places = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
    places.flat_map(|(row, column)| [0, 1, 2].map(|channel| value(row, column, channel))).collect()
}

fn sum(image: &[u8]) -> u32 {
    image.iter().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

fn rng(seed: u64) -> Rng {
    stream(seed, Stream::Augment, &[])
}

fn read(word: &str) -> Augmentation {
    Augmentation::parse(word).unwrap()
}

#[test]
fn operations_are_those_of_torchvision_to_the_byte() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/augmentations.json")).unwrap();
    assert_eq!(fixture.sums.len(), 2 * 2 * Operation::ALL.len());
    let mut compared = 0;
    for (name, sums) in fixture.sums {
        let parts: Vec<&str> = name.split(' ').collect();
        let side: usize = parts[1].parse().unwrap();
        let operation = Operation::ALL.iter().find(|(_, known)| *known == parts[2]).unwrap().0;
        let space = if parts[0] == "rand-augment" { Space::rand(side) } else { Space::WIDE };
        let signs: &[f64] = if sums.len() == 62 { &[1.0, -1.0] } else { &[1.0] };
        for (index, expected) in sums.iter().enumerate() {
            let (strength, sign) = (index / signs.len(), signs[index % signs.len()]);
            let found = apply(operation, sign * space.magnitude(operation, strength), &image(side), side);
            assert_eq!(sum(&found), *expected, "{name} at {strength}, sign {sign}");
            compared += 1;
        }
    }
    assert_eq!(compared, 4 * (9 * 62 + 5 * 31));
}

#[test]
fn each_image_is_changed_by_a_stream_of_its_own() {
    let plain = image(24);
    for word in WORDS {
        let list = [read(word)];
        let of = |seed| augment(&list, &plain, 24, &mut rng(seed));
        let drawn: Vec<Vec<u8>> = (0..40).map(of).collect();
        assert!(drawn.iter().all(|image| image.len() == plain.len()), "{word}");
        assert_eq!(of(7), drawn[7], "{word}");
        let changed = drawn.iter().filter(|image| **image != plain).count();
        if list[0].mixes() {
            assert_eq!(changed, 0, "{word} changes no image alone");
        } else {
            assert!(changed >= 5, "{word} changes {changed} of 40");
        }
    }
}

#[test]
fn flips_and_turns_move_pixels_and_lose_none() {
    let (side, plain) = (9, image(9));
    let pixels = |image: &[u8]| {
        let mut pixels: Vec<[u8; 3]> = image.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        pixels.sort_unstable();
        pixels
    };
    for (word, ways) in [("flip", 2), ("vertical-flip", 2), ("quarter-turns", 4)] {
        let mut seen: Vec<Vec<u8>> = (0..60).map(|seed| augment(&[read(word)], &plain, side, &mut rng(seed))).collect();
        assert!(seen.iter().all(|image| pixels(image) == pixels(&plain)), "{word}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ways, "{word}");
    }
    // The corner of the top and right is, one turn on, that of the top and left.
    let corner = |image: &[u8], row: usize, column: usize| image[(row * side + column) * 3];
    let turned = (0..60).map(|seed| augment(&[read("quarter-turns")], &plain, side, &mut rng(seed)));
    assert!(
        turned
            .into_iter()
            .any(|image| corner(&image, 0, 0) == corner(&plain, 0, 8) && corner(&image, 0, 8) == corner(&plain, 8, 8))
    );
    // Turned by a little, the middle stays and corners may become black; an even image stays even there.
    let grey = vec![90; 3 * 41 * 41];
    for seed in 0..20 {
        let image = augment(&[read("rotate 30")], &grey, 41, &mut rng(seed));
        assert_eq!(image[(20 * 41 + 20) * 3], 90);
        assert!(image.iter().all(|value| *value <= 90));
        let black = image.iter().filter(|value| **value == 0).count() as f64 / image.len() as f64;
        assert!(black < 0.2, "{black}");
    }
}

#[test]
fn an_erased_rectangle_is_noise_of_2_to_33_percent() {
    let (side, grey) = (64, vec![90u8; 3 * 64 * 64]);
    let mut erased = 0;
    for seed in 0..200 {
        let image = augment(&[read("erase 0.4")], &grey, side, &mut rng(seed));
        let changed: Vec<usize> = (0..side * side).filter(|at| image[3 * at..3 * at + 3] != [90; 3]).collect();
        if changed.is_empty() {
            continue;
        }
        erased += 1;
        let spread = |of: fn(usize) -> usize| {
            changed.iter().map(|at| of(*at)).max().unwrap() - changed.iter().map(|at| of(*at)).min().unwrap() + 1
        };
        let area = (spread(|at| at / 64) * spread(|at| at % 64)) as f64 / (side * side) as f64;
        assert!((0.015..0.35).contains(&area), "{area}");
        assert!(changed.len() as f64 > 0.95 * area * (side * side) as f64, "a rectangle");
        let mean = changed.iter().map(|at| f64::from(image[3 * at])).sum::<f64>() / changed.len() as f64;
        assert!((mean - 127.5).abs() < 35.0, "{mean}");
    }
    assert!((50..110).contains(&erased), "{erased} of 200 at a probability of 0.4");
}

/// Moments of Beta(a, a): one half, and 1 / (4 (2a + 1)); no number is lost however small a is.
#[test]
fn shares_are_from_a_beta_distribution() {
    for alpha in [0.001, 0.2, 1.0, 3.5] {
        let mut rng = rng(3);
        let drawn: Vec<f64> = (0..40_000).map(|_| rng.beta(alpha)).collect();
        let mean = drawn.iter().sum::<f64>() / 40_000.0;
        let variance = drawn.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 40_000.0;
        assert!(drawn.iter().all(|share| (0.0..=1.0).contains(share)), "{alpha}");
        assert!((mean - 0.5).abs() < 0.01, "{alpha}: {mean}");
        assert!((variance - 0.25 / (2.0 * alpha + 1.0)).abs() < 0.004, "{alpha}: {variance}");
    }
}

#[test]
fn a_batch_is_mixed_as_its_labels_are() {
    let (side, size) = (12, 3 * 12 * 12);
    let labels: Vec<u32> = (0..5).collect();
    // Each image has one number everywhere, by which its part can be told.
    let before: Vec<u8> = (0..5u8).flat_map(|image| vec![50 * image; size]).collect();
    let (mut cut, mut up, mut whole) = (0, 0, 0);
    for seed in 0..300 {
        let list = [read("mixup 0.4"), read("cutmix 1")];
        let mix = Mix::drawn(&list, 5, side, &mut rng(seed)).unwrap();
        assert_eq!(Mix::drawn(&list, 5, side, &mut rng(seed)).unwrap(), mix);
        let mut images = before.clone();
        mix.blend(&mut images, side);
        let others = mix.others(&labels);
        let mut sorted = others.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, labels, "partners are the batch once more");
        for (index, image) in images.chunks_exact(size).enumerate() {
            let (own, other) = (50.0 * index as f64, 50.0 * f64::from(others[index]));
            let expected = mix.share() * own + (1.0 - mix.share()) * other;
            let mean = image.iter().map(|value| f64::from(*value)).sum::<f64>() / size as f64;
            let even = image.iter().all(|value| value.abs_diff(image[0]) == 0);
            // MixUp rounds to whole numbers; CutMix has each pixel from one or from the other.
            assert!((mean - expected).abs() <= 0.5, "{mean} for {expected}");
            if !even {
                assert!(image.iter().all(|value| f64::from(*value) == own || f64::from(*value) == other));
                cut += 1;
            } else if own != other {
                up += usize::from(mean != own && mean != other);
                whole += usize::from(mean == own || mean == other);
            }
        }
    }
    assert!(cut > 200 && up > 200 && whole > 20, "{cut} cut, {up} averaged, {whole} whole");
    assert_eq!(Mix::drawn(&[read("flip")], 5, side, &mut rng(0)), None);
    let alone = Mix::drawn(&[read("mixup 1")], 1, side, &mut rng(0)).unwrap();
    assert_eq!(alone.others(&[3]), [3], "a batch of one image has itself for a partner");
}

/// Mixed batches read by heads in a bank, on a prefix in lock-step, in phases and by whole networks.
fn mixed() -> String {
    let recipes = "[recipes.probe]\nfreeze = \"all\"\naugment = [\"mixup 0.4\"]\n\
        [recipes.adam]\nfreeze = \"all\"\naugment = [\"mixup 0.4\"]\noptimizer = \"adamw\"\nclass_weights = \"balanced\"\n\
        [recipes.layer1]\nfreeze = \"layer1\"\naugment = [\"mixup 0.4\"]\nlabel_smoothing = 0.1\nbatch_norm = \"train\"\n\
        [recipes.layer2]\nfreeze = \"layer2\"\naugment = [\"cutmix 1\", \"flip\", \"mixup 0.4\"]\nhead = { mlp = [6] }\ndropout = 0.3\n\
        [recipes.legs]\nphases = [{ freeze = \"all\", steps = 6 }, { freeze = \"none\", steps = 6, augment = [\"rand-augment 2 9\", \"erase 0.5\", \"cutmix 1\"] }]\n\
        [recipes.whole]\nfreeze = \"none\"\naugment = [\"trivial-augment\", \"quarter-turns\", \"mixup 0.4\"]\n";
    let names = ["probe", "adam", "layer1", "layer2", "legs", "whole"];
    let axes = format!("[axes]\nrecipe = {names:?}\nlr = [0.01, 0.05]\n");
    let head =
        GRID.split("[recipes.probe]").next().unwrap().replace("lr = 0.05", "lr = 0.05\naugment = [\"mixup 0.2\"]");
    head + recipes + &axes
}

#[test]
fn mixed_batches_are_shared_to_the_bit() {
    let world = World::new().file("grid.toml", mixed());
    let plan = world.run(&["plan", "grid.toml"]).exits(0).out;
    assert!(plan.contains("24 distinct trials"), "{plan}");
    world.run(&["run", "grid.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "grid.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, groups), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (6 * 2 * 2, &alone));
    assert!(["probe", "adam", "layer1", "layer2"].iter().all(|recipe| groups[*recipe] > 1), "{groups:?}");
    let said = world.run(&["verify", "grid.toml", "--all"]).exits(0).out;
    assert!(said.contains("24 of 24 trials"), "{said}");
    // Without mixing, what is learned is another thing; and a pretrained source without it is another source.
    let plain =
        World::new().file("grid.toml", mixed().replace(", \"mixup 0.4\"", "").replace("\"mixup 0.4\"", "\"flip\""));
    plain.run(&["run", "grid.toml", "--only", "recipe == 'probe'"]).exits(5);
    let (other, _) = found(&plain, "results/tl-sweep.sqlite");
    assert!(other.len() == 4 && other.iter().all(|(trial, result)| shared.get(trial) != Some(result)));
    let source = World::new().file("grid.toml", mixed().replace("lr = 0.05\naugment = [\"mixup 0.2\"]", "lr = 0.05"));
    source.run(&["run", "grid.toml", "--only", "recipe == 'probe'"]).exits(5);
    let keys = |found: &BTreeMap<String, String>| found.keys().cloned().collect::<Vec<String>>();
    let (other, _) = found(&source, "results/tl-sweep.sqlite");
    assert!(keys(&other).iter().all(|key| !shared.contains_key(key)));
}

/// Numbers written otherwise are the same trials, in phases too.
#[test]
fn one_augmentation_has_one_key() {
    let world = World::new().file("grid.toml", mixed());
    world.run(&["run", "grid.toml"]).exits(0);
    let text = mixed().replace("mixup 0.4", "mixup 0.40").replace("cutmix 1", "cutmix 1.0");
    std::fs::write(world.path("grid.toml"), text).unwrap();
    let said = world.run(&["plan", "grid.toml"]).exits(0).out;
    assert!(said.contains("24 distinct trials, 24 of them in the store"), "{said}");
}

#[test]
fn what_is_no_augmentation_is_refused_with_its_place_and_cure() {
    let world = World::new().file("grid.toml", mixed());
    let refused = |from: &str, to: &str, told: &[&str]| {
        std::fs::write(world.path("grid.toml"), mixed().replace(from, to)).unwrap();
        let said = world.run(&["check", "grid.toml"]).exits(2).err;
        assert!(told.iter().all(|part| said.contains(part)) && said.contains("grid.toml:"), "{to}: {said}");
    };
    refused(
        "quarter-turns",
        "quarter-turn",
        &["no augmentation 'quarter-turn'; did you mean 'quarter-turns'?", "'rotate 15'"],
    );
    refused("quarter-turns", "rotate", &["`rotate` needs degrees above 0 and up to 180, as in 'rotate 15'"]);
    refused("quarter-turns", "rotate -5", &["up to 180"]);
    refused("quarter-turns", "flip 0.5", &["`flip` has no numbers, found 'flip 0.5'"]);
    refused("quarter-turns", "resized-crop 1.5", &["the least share of the area above 0 and up to 1"]);
    refused("quarter-turns", "erase 2", &["a probability above 0 and up to 1", "'erase 0.25'"]);
    refused("quarter-turns", "mixup 0", &["the alpha of a Beta distribution"]);
    refused("quarter-turns", "mixup 0.1", &["stands here twice: 'mixup 0.4'"]);
    refused("quarter-turns", "rand-augment 2", &["as in 'rand-augment 2 9'"]);
    refused("quarter-turns", "rand-augment 2 31", &["a magnitude from 0 to 30"]);
    refused("quarter-turns", "rand-augment 2 9", &["'trivial-augment' and 'rand-augment' exclude each other"]);
    refused("[\"mixup 0.4\"]\noptimizer", "\"mixup 0.4\"\noptimizer", &["a list of 'flip'"]);
    let views = "augment = [\"mixup 0.4\"]\nviews = 3\noptimizer";
    refused("augment = [\"mixup 0.4\"]\noptimizer", views, &["a view is stored of one image", "make one of two"]);
}

#[test]
fn pages_show_what_words_and_lists_make_of_training_images() {
    let world = World::new().images("mine", &["ants", "bees"], 5, 2);
    let page = |args: &[&str], code: i32| {
        let said = world.run(&[&["data", "mine", "--input", "24", "--augmentations", "page.html"], args].concat());
        (said.exits(code), std::fs::read_to_string(world.path("page.html")).unwrap_or_default())
    };
    let (_, words) = page(&[], 0);
    assert_eq!(words.matches("<img").count(), 12 * 6);
    assert!(WORDS.iter().all(|word| words.contains(&format!("<h2>{word}</h2>"))));
    let (said, list) = page(&["--augment", "rotate 15, mixup 1,cutmix 1"], 0);
    assert!(said.out.contains("6 epochs of rotate 15, mixup 1,cutmix 1: 'page.html'"), "{}", said.out);
    assert_eq!(list.matches("<img").count(), 7 * 6);
    // The shares of two classes are those of one image, and of partners of one class nothing is to be said.
    let shares = |caption: &str| -> Option<f64> {
        let parts = caption.split(", ").map(|part| part.split_once(' ')?.1.strip_suffix('%')?.parse::<f64>().ok());
        parts.sum()
    };
    let captions = list.split("<figcaption>").skip(1).filter_map(|part| part.split("</figcaption>").next());
    let told: Vec<Option<f64>> = captions.map(shares).collect();
    assert!(told[..6].iter().all(Option::is_none) && told.iter().any(Option::is_some) && told[6..].contains(&None));
    assert!(told.iter().flatten().all(|whole| (99.0..=101.0).contains(whole)), "{told:?}");
    let (said, _) = page(&["--augment", "rotate"], 2);
    assert!(said.err.contains("--augment: `rotate` needs degrees"), "{}", said.err);
    world.run(&["data", "mine", "--augment", "flip"]).exits(2);
}
