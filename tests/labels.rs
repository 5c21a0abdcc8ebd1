//! `labels`: that what is labelled wrong is found by those that did not learn from it, and that images of two classes are told.

use crate::builder::{World, png};

const FILE: &str = "
[experiment]
name = \"mine\"
replicates = 3
[backbone]
arch = \"resnet8\"
weights = \"random\"
input = 12
preprocess = \"torch\"
[datasets.mine]
path = \"mine\"
folds = 3
[scenarios.all]
dataset = \"mine\"
[recipes.tuned]
freeze = \"none\"
[recipes.probe]
freeze = \"all\"
optimizer = \"lbfgs\"
[recipes.longer]
steps = 90
[train]
steps = 60
batch = 16
lr = 0.05
[axes]
recipe = [\"tuned\", \"probe\", \"longer\"]
";

const CLASSES: [&str; 3] = ["red", "green", "blue"];
const IMAGES: usize = 20;

/// Every seventh image lies in the folder of the next class.
fn is_wrong(index: usize) -> bool {
    index % 7 == 3
}

fn world() -> World {
    let mut world = World::new().file("e.toml", FILE);
    for class in 0..CLASSES.len() {
        for index in 0..IMAGES {
            let label = if is_wrong(index) { CLASSES[(class + 1) % 3] } else { CLASSES[class] };
            let bytes = png(12, 12, class as u32, (1000 * class + index) as u32);
            world = world.file(&format!("mine/{label}/{}-{index:02}.png", CLASSES[class]), bytes);
        }
    }
    world
}

#[test]
fn what_is_labelled_wrong_is_found() {
    let world = world();
    world.run(&["run", "e.toml", "--quiet"]).exits(0);
    let said = world.run(&["labels", "e.toml", "--format", "json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let found = &json["datasets"][0];
    assert_eq!(
        (&json["experiment"], &found["dataset"], &found["images"]),
        (&"mine".into(), &"mine".into(), &60.into())
    );
    let examined = found["examined"].as_array().unwrap();
    assert_eq!(examined.len(), 60, "in folds every image is held out once");
    let mut wrong = 0;
    for image in examined {
        let name = image["image"].as_str().unwrap();
        let (label, file) = name.split_once('/').unwrap();
        let (class, rest) = file.split_once('-').unwrap();
        assert_eq!(image["label"], label);
        assert_eq!(image["in_question"], class != label, "{image}");
        if class != label {
            assert!(is_wrong(rest[..2].parse().unwrap()));
            assert_eq!(image["taken_for"], class, "{image}");
            wrong += 1;
        }
        // Each of three recipes tests on it once, and some validate on it as well.
        assert!((3..=9).contains(&image["trials"].as_u64().unwrap()), "{image}");
    }
    assert_eq!(wrong, 9);
    let probability = |at: usize| examined[at]["probability"].as_f64().unwrap();
    assert!((1..60).all(|at| probability(at - 1) <= probability(at)), "the least probable label first");

    let table = world.run(&["labels", "e.toml", "--images", "4"]).exits(0).out;
    let first = "mine: 9 of 60 images are surely taken for another class by most of 3 recipes, which are right on ";
    assert!(table.starts_with(first) && table.contains("and 5 more"), "{table}");
    let csv = world.run(&["labels", "e.toml", "--format", "csv"]).exits(0).out;
    assert_eq!((csv.lines().count(), csv.matches(",true").count()), (61, 9), "{csv}");

    // The pictures are those images, as squares.
    world.run(&["labels", "e.toml", "--out", "page.html"]).exits(0);
    let page = std::fs::read_to_string(world.path("page.html")).unwrap();
    let shown: Vec<&str> = page.split("<figure>").skip(1).collect();
    assert_eq!(shown.len(), 9);
    for figure in shown {
        let caption = figure.split("<figcaption>").nth(1).unwrap();
        let (_, class) = caption.split_once("taken for ").unwrap();
        let bytes = figure.split("base64,").nth(1).unwrap().split('"').next().unwrap();
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, bytes).unwrap();
        let picture = image::load_from_memory(&bytes).unwrap().to_rgb8();
        let centre = picture.get_pixel(80, 80).0;
        let of = |class: usize| {
            let plain = image::load_from_memory(&png(1, 1, class as u32, 7)).unwrap().to_rgb8().get_pixel(0, 0).0;
            plain.iter().zip(centre).map(|(one, other)| one.abs_diff(other) as usize).sum::<usize>()
        };
        let nearest = (0..3).min_by_key(|class| of(*class)).unwrap();
        assert!(class.starts_with(CLASSES[nearest]), "{caption}: {centre:?}");
    }
}

#[test]
fn only_what_was_tested_is_said_and_only_of_the_same_images() {
    let world = world();
    let said = world.run(&["labels", "e.toml"]).exits(7);
    assert!(said.err.contains("tl-sweep.sqlite"), "{}", said.err);
    world.run(&["run", "e.toml", "--quiet", "--only", "recipe == 'probe'"]).exits(5);
    let said = world.run(&["labels", "e.toml"]).exits(0);
    assert!(said.out.contains("by the one recipe there is, which is right on "), "{}", said.out);

    // What has moved since is another image to the tool: no picture of it may stand for what was tested.
    std::fs::rename(world.path("mine/green/red-03.png"), world.path("mine/red/red-03.png")).unwrap();
    let said = world.run(&["labels", "e.toml", "--out", "page.html"]).exits(2);
    assert!(said.err.contains("have changed since; `tl-sweep run`"), "{}", said.err);
    assert!(!world.path("page.html").exists());

    // Trials of before confidences were stored.
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let forget =
        "UPDATE prediction SET confidence = NULL WHERE trial IN (SELECT trial FROM result WHERE replicate >= ?)";
    store.execute(forget, [2]).unwrap();
    let said = world.run(&["labels", "e.toml"]).exits(0);
    assert!(
        said.out.contains("; trials that ran before it was stored how sure they were are not counted: 1"),
        "{}",
        said.out
    );
    store.execute(forget, [0]).unwrap();
    let said = world.run(&["labels", "e.toml"]).exits(2);
    assert!(said.err.contains("of 3 trials on 'mine' it is not known how sure they were"), "{}", said.err);
    assert!(said.err.contains("`tl-sweep rerun e.toml --only \"dataset == 'mine'\"` runs them again"), "{}", said.err);
    std::fs::rename(world.path("mine/red/red-03.png"), world.path("mine/green/red-03.png")).unwrap();
    world.run(&["rerun", "e.toml", "--quiet", "--only", "dataset == 'mine' && recipe == 'probe'"]).exits(0);
    assert!(!world.run(&["labels", "e.toml"]).exits(0).out.contains("are not counted"));
}

#[test]
fn images_of_two_classes_are_told() {
    let twin = png(12, 12, 0, 1000);
    let world = world().file("mine/blue/twin.png", &twin).file("mine/red/twin.png", &twin);
    let told = "1 image of 'mine' has the bytes of one of another class, so that one of the labels is wrong, for example \
                red/twin.png (red) and blue/twin.png (blue)";
    let said = world.run(&["check", "e.toml"]).exits(0);
    assert!(said.out.contains(told), "{}", said.out);
    let said = world.run(&["data", "mine", "--test", "0.2"]).exits(0);
    assert!(said.out.contains(&told.replace("'mine'", "it")), "{}", said.out);
}
