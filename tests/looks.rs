//! `look`: what it marks is what decides, and its page needs nothing else.

use crate::builder::World;

/// Noise with a square of the class's colour at its upper left: nothing else tells the classes apart.
fn marked(class: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(99);
    let image = image::RgbImage::from_fn(30, 30, |x, y| {
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (60 + (state >> 25)) as u8
        };
        let ground = image::Rgb([noise(), noise(), noise()]);
        let sign = if class == 0 { image::Rgb([250, 20, 20]) } else { image::Rgb([20, 20, 250]) };
        if (3..10).contains(&x) && (3..10).contains(&y) { sign } else { ground }
    });
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

const FILE: &str = "
[experiment]
name = \"signs\"
replicates = 1
[backbone]
arch = \"resnet8\"
weights = \"random\"
input = 30
preprocess = \"torch\"
[datasets.signs]
path = \"signs\"
[scenarios.all]
dataset = \"signs\"
[train]
steps = 60
batch = 16
lr = 0.05
[axes]
recipe = [\"from-scratch\"]
";

/// A trained network in `m.safetensors`, which answers all test images right.
fn trained() -> World {
    let mut world = World::new().file("e.toml", FILE);
    for (split, count) in [("train", 24), ("test", 8)] {
        for (class, name) in ["blue", "red"].iter().enumerate() {
            for index in 0..count {
                let seed = index + 1000 * class as u32 + if split == "test" { 500 } else { 0 };
                world = world.file(&format!("signs/{split}/{name}/{index:02}.png"), marked(1 - class, seed));
            }
        }
    }
    world.run(&["run", "e.toml", "--quiet"]).exits(0);
    world.run(&["export", "e.toml", "--best", "all", "--out", "m.safetensors"]).exits(0);
    let said = world.run(&["predict", "m.safetensors", "signs/test"]).exits(0);
    assert!(said.out.contains("16 of 16 are what their folders say"), "{}", said.out);
    world
}

#[test]
fn what_is_marked_is_what_decides() {
    let world = trained();
    let said = world.run(&["look", "m.safetensors", "signs/test", "--out", "l.json", "--images", "6"]).exits(0);
    assert!(said.out.contains("6 of 16 images"), "{}", said.out);
    let text = std::fs::read_to_string(world.path("l.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images = json["images"].as_array().unwrap();
    let of = |name: &str| images.iter().filter(|image| image["image"].as_str().unwrap().contains(name)).count();
    assert_eq!((of("blue"), of("red")), (3, 3), "evenly of all");
    for image in images {
        let path = image["image"].as_str().unwrap();
        let class = image["answers"][0]["class"].as_str().unwrap();
        assert!(path.contains(class) && image["seen"] == false, "{path}: {class}");
        let starts: Vec<u64> =
            image["starts"].as_array().unwrap().iter().map(|start| start.as_u64().unwrap()).collect();
        let patch = image["patch"].as_u64().unwrap();
        assert_eq!((starts[0], starts[starts.len() - 1] + patch), (0, 30));
        let row = |row: &serde_json::Value| -> Vec<f64> {
            row.as_array().unwrap().iter().map(|drop| drop.as_f64().unwrap()).collect()
        };
        let drops: Vec<Vec<f64>> = image["drops"].as_array().unwrap().iter().map(row).collect();
        let places = drops.iter().enumerate();
        let places = places.flat_map(|(y, row)| row.iter().enumerate().map(move |(x, drop)| (*drop, y, x)));
        let (most, y, x) = places.clone().max_by(|one, other| one.0.total_cmp(&other.0)).unwrap();
        let touches = |start: u64| start < 10 && start + patch > 3;
        assert!(most > 0.0 && touches(starts[y]) && touches(starts[x]), "{path}: {most} at {y}, {x}");
        // Places far from the sign matter less than a quarter of that.
        let far = places.filter(|(_, y, x)| starts[*y] > 16 && starts[*x] > 16).map(|(drop, _, _)| drop.abs());
        assert!(far.fold(0.0, f64::max) < 0.25 * most, "{path}");
    }
    // The same again, to the bit; training images are told.
    world.run(&["look", "m.safetensors", "signs/test", "--out", "again.json", "--images", "6"]).exits(0);
    assert_eq!(std::fs::read_to_string(world.path("again.json")).unwrap(), text);
    world.run(&["look", "m.safetensors", "signs/train", "--out", "t.html", "--images", "2"]).exits(0);
    let page = std::fs::read_to_string(world.path("t.html")).unwrap();
    assert!(page.contains("training or its settings have seen this image"));
    assert!(page.contains("<h2>2 of 48 images</h2>"));
    assert!(page.contains("16 filters of 3 x 3, as training left them"), "{}", &page[..3000]);
    // Filters, and for each image itself, its heat and its maps, all within the page.
    let pictures = page.matches("src=\"data:image/png;base64,").count();
    assert!(pictures > 2 * 4 && !page.contains("src=\"http"), "{pictures}");
}

#[test]
fn what_cannot_be_looked_at_is_told() {
    let world = trained().file("cut.png", &marked(0, 1)[..100]).file("notes.txt", "no image");
    let said = world.run(&["look", "m.safetensors", "signs/test/red/00.png", "cut.png", "--out", "l.html"]).exits(4);
    assert!(said.err.contains("no picture of 'cut.png'"), "{}", said.err);
    assert!(said.out.contains("1 of 1 images"), "{}", said.out);
    let told = |args: &[&str], what: &str| {
        let said = world.run(&[&["look"], args].concat()).exits(2);
        assert!(said.err.contains(what), "{}", said.err);
    };
    told(&["m.safetensors", "signs/test", "--out", "l.pdf"], ".html or .json");
    told(&["m.safetensors", "signs/test", "--images", "0"], "at least 1");
    told(&["m.safetensors", "nowhere"], "there is nothing at 'nowhere'");
    told(&["notes.txt", "signs/test"], "notes.txt");
    assert!(!world.path("look.html").exists());
}
