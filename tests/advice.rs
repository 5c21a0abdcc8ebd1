//! `recommend`: what it says follows from features of training images alone, and what it writes can be run.

use tl_sweep::model::arch::Arch;

use crate::builder::{World, png};
use crate::materials::network;

fn said(world: &World, args: &[&str]) -> serde_json::Value {
    let base = ["recommend", "w.safetensors", "mine", "--preprocess", "torch", "--format", "json"];
    let said = world.run(&[&base[..], args].concat()).exits(0);
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn the_advice_is_of_training_images_alone_and_its_experiment_runs() {
    let world = World::new().images("mine", &["ants", "bees", "cats"], 12, 8);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let first = said(&world, &["--out", "x.toml"]);
    assert_eq!(first["images"].as_u64(), Some(36));
    assert_eq!(first["per_class"].as_u64(), Some(10), "a fifth is validation");
    assert_eq!(first["size"].as_str(), Some("small"));
    let taps = first["taps"].as_array().unwrap();
    assert_eq!(taps.last().unwrap()["tap"].as_str(), Some("avgpool"));
    assert!(taps.len() >= 4 && taps.len() <= 6, "{}", taps.len());
    // Classes have colours of their own: any features read them.
    for tap in taps {
        assert!(tap["linear"]["accuracy"].as_f64().unwrap() > 0.9, "{tap}");
        assert_eq!((tap["linear"]["images"].as_u64(), tap["half"]["images"].as_u64()), (Some(36), Some(18)));
    }
    // All maps among them are read side by side as well, over one grid.
    assert_eq!(first["together"]["tap"].as_str().map(|tap| tap.split(" + ").count()), Some(taps.len() - 1));
    assert!(first["together"]["linear"]["accuracy"].as_f64().unwrap() > 0.9, "{}", first["together"]);
    // So do those of random weights: they are to be compared with.
    assert_eq!(first["recipes"].as_array().unwrap().last().unwrap()["name"].as_str(), Some("from-scratch"));

    // Other test images, another test folder: the same advice.
    for index in 0..8 {
        std::fs::write(world.path(&format!("mine/test/ants/{index:03}.png")), png(12, 12, 2, index)).unwrap();
    }
    std::fs::rename(world.path("mine/test"), world.path("mine/held")).unwrap();
    let second = said(&world, &["--test", "held", "--out", "y.toml"]);
    assert_eq!((&second["taps"], &second["recipes"]), (&first["taps"], &first["recipes"]));

    let text = std::fs::read_to_string(world.path("y.toml")).unwrap();
    assert!(text.contains("splits = { test = \"held\" }"), "{text}");
    world.run(&["check", "y.toml"]).exits(0);
    let text = text.replace("steps = 500", "steps = 2").replace("n = 3", "n = 2");
    let world = world.file("short.toml", text);
    let said = world.run(&["run", "short.toml", "--quiet"]).exits(0);
    assert!(
        said.out.contains("Best recipe per scenario")
            && said.out.contains("linear-probe > fine-tune")
            && said.out.contains("What pretrained weights are worth"),
        "{}",
        said.out
    );
}

#[test]
fn an_image_that_is_there_twice_gives_no_class_away() {
    // Noise of no class, each image twice under other names: with its twin among the others, each would be found.
    let mut world = World::new();
    for (class, name) in ["ants", "bees"].into_iter().enumerate() {
        for index in 0..16u32 {
            let image = png(12, 12, 0, 1 + (index / 2) * 31 + 977 * class as u32);
            world = world.file(&format!("mine/train/{name}/{index:03}.png"), &image);
            world = world.file(&format!("mine/test/{name}/{index:03}.png"), image);
        }
    }
    network(&world, "w.safetensors", &Arch::new("vgg_small", 32, 1.0));
    let said = said(&world, &[]);
    assert_eq!(said["images"].as_u64(), Some(16));
    for tap in said["taps"].as_array().unwrap() {
        assert!(tap["linear"]["accuracy"].as_f64().unwrap() < 0.85, "{tap}");
    }
}

#[test]
fn images_of_a_group_do_not_give_each_others_class_away() {
    // Twelve subjects, three images of each that look alike, of classes that say nothing of their looks.
    let table = |grouped: bool| {
        let rows = (0..12u32).flat_map(|subject| {
            ["train", "train", "train", "test"].into_iter().enumerate().map(move |(index, split)| {
                let group = if grouped { format!("{split}{subject}") } else { String::new() };
                format!("all/{subject}-{index}.png,class{},{split},{group}\n", (subject * 5 + subject / 3) % 2)
            })
        });
        "path,label,split,group\n".to_owned() + &rows.collect::<String>()
    };
    let mut world = World::new();
    for subject in 0..12u32 {
        for index in 0..4 {
            let image = image::RgbImage::from_fn(12, 12, |x, y| {
                let looks =
                    |channel: u32| ((subject * 37 + channel * 101 + (x / 4 + y / 4) * subject * 13) % 240) as u8;
                image::Rgb([looks(0) + (index + x) as u8 % 3, looks(1), looks(2)])
            });
            let mut bytes = Vec::new();
            image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
            world = world.file(&format!("all/{subject}-{index}.png"), bytes);
        }
    }
    let world = world.file("grouped.csv", table(true)).file("loose.csv", table(false));
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let best = |name: &str| {
        let args = ["recommend", "w.safetensors", name, "--preprocess", "torch", "--format", "json"];
        let said: serde_json::Value = serde_json::from_str(&world.run(&args).exits(0).out).unwrap();
        assert_eq!(said["images"].as_u64(), Some(36));
        let found = said["taps"].as_array().unwrap().iter();
        found.map(|tap| tap["linear"]["accuracy"].as_f64().unwrap()).fold(0.0, f64::max)
    };
    let of_one = |row: &str| match row.split_once(",train,") {
        Some((image, _)) => format!("{image},train,all\n"),
        None => format!("{row}\n"),
    };
    std::fs::write(world.path("one.csv"), table(true).lines().map(of_one).collect::<String>()).unwrap();
    let said = world.run(&["recommend", "w.safetensors", "one.csv", "--preprocess", "torch"]).exits(2);
    assert!(said.err.contains("the training images are of 1 groups"), "{}", said.err);
    assert!(best("loose.csv") > 0.95, "{}", best("loose.csv"));
    assert!(best("grouped.csv") < 0.8, "{}", best("grouped.csv"));
}

#[test]
fn what_is_missing_for_advice_is_said() {
    let world = World::new().images("mine", &["ants", "bees"], 6, 2).images("few", &["ants", "bees"], 3, 2);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let world = world.file("there.toml", "mine");
    let base = ["recommend", "w.safetensors"];
    for (args, expected) in [
        (vec!["mine"], "say with --preprocess how its inputs were prepared"),
        (vec!["few", "--preprocess", "torch"], "of the class 'ants' there are 3 training images to look at"),
        (
            vec!["mine", "--preprocess", "torch", "--images", "5"],
            "of the class 'ants' there are 2 training images to look at with --images 5: 8 are needed",
        ),
        (vec!["mine", "--preprocess", "torch", "--out", "there.toml"], "'there.toml' exists already"),
        (vec!["mine", "--preprocess", "torch", "--format", "csv"], "possible values: table, md, json"),
        (vec!["gone", "--preprocess", "torch"], "there is nothing at 'gone'"),
    ] {
        let said = world.run(&[&base[..], &args].concat()).exits(2);
        assert!(said.err.contains(expected), "{} lacks {expected}", said.err);
    }
    assert_eq!(std::fs::read_to_string(world.path("there.toml")).unwrap(), "mine");
}
