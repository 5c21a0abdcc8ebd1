//! Datasets: every format, splits that never leak, and clear words about what cannot be used.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use image::ImageEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use tl_sweep::augmentation::Augmentation;
use tl_sweep::data::augment::augment;
use tl_sweep::data::batch::{normalise, order};
use tl_sweep::data::decode::{content, decode, square};
use tl_sweep::data::open::Source;
use tl_sweep::data::split::split;
use tl_sweep::data::synthetic::Family;
use tl_sweep::data::{Dataset, Manifest, Part, Sample, Spec, open};
use tl_sweep::frame::{Filter, Frame, Resize};
use tl_sweep::key::Key;
use tl_sweep::model::catalogue::KNOWN;
use tl_sweep::preprocess::Preprocess;
use tl_sweep::seed::{Stream, stream};

use crate::builder::{World, png};

fn spec(world: &World, path: &str) -> Spec {
    let splits = ["train", "val", "test"].map(|name| (name.to_owned(), name.to_owned())).into();
    Spec {
        holdout: None,
        name: path.to_owned(),
        source: Source::Path(world.path(path)),
        splits,
        skip_bad_images: false,
        classes: Vec::new(),
        white: None,
    }
}

fn decoded(dataset: &Dataset) -> anyhow::Result<BTreeMap<usize, Vec<u8>>> {
    let found = std::sync::Mutex::new(BTreeMap::new());
    let all: Vec<usize> = (0..dataset.manifest.samples.len()).collect();
    dataset.decode(&all, &|index, image| {
        found.lock().unwrap().insert(index, image.pixels);
        Ok(())
    })?;
    Ok(found.into_inner().unwrap())
}

fn manifest(train: &[usize], groups: Option<usize>) -> Manifest {
    let mut samples = Vec::new();
    for (class, count) in train.iter().enumerate() {
        for index in 0..*count {
            let id = format!("train/{class}/{index:04}");
            let group = groups.map(|groups| format!("g{}", (index * 7 + class) % groups));
            samples.push(Sample {
                content: Key::of_bytes(id.as_bytes()),
                id,
                class: class as u32,
                part: Part::Train,
                group,
            });
        }
        let id = format!("test/{class}");
        samples.push(Sample {
            content: Key::of_bytes(id.as_bytes()),
            id,
            class: class as u32,
            part: Part::Test,
            group: None,
        });
    }
    let classes = (0..train.len()).map(|class| format!("c{class}")).collect();
    Manifest::new("test", classes, samples, String::new()).unwrap()
}

#[test]
fn folder_and_archive_are_one_dataset() {
    let world = World::new().images("mine", &["b", "a"], 3, 2);
    for (name, zipped) in [("mine.tar", false), ("mine.tar.gz", true)] {
        let file = std::fs::File::create(world.path(name)).unwrap();
        let writer: Box<dyn Write> = if zipped {
            Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))
        } else {
            Box::new(file)
        };
        let mut builder = tar::Builder::new(writer);
        builder.append_dir_all("mine", world.path("mine")).unwrap();
        builder.into_inner().unwrap().flush().unwrap();
    }
    let mut zip = zip::ZipWriter::new(std::fs::File::create(world.path("mine.zip")).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let folder = open(&spec(&world, "mine")).unwrap();
    for sample in folder.manifest.samples.iter().rev() {
        // As some programs on Windows write them.
        let name = if sample.class == 0 { sample.id.replace('/', "\\") } else { sample.id.clone() };
        zip.start_file(format!("mine/{name}"), options).unwrap();
        zip.write_all(&std::fs::read(world.path("mine").join(&sample.id)).unwrap()).unwrap();
    }
    // What a Mac adds is nobody's.
    zip.start_file("__MACOSX/mine/train/a/._000.png", options).unwrap();
    zip.finish().unwrap();
    assert_eq!(folder.manifest.classes, ["a", "b"]);
    for name in ["mine.tar", "mine.tar.gz", "mine.zip"] {
        let archive = open(&spec(&world, name)).unwrap();
        let strip = |manifest: &Manifest| {
            manifest.samples.iter().map(|s| (s.id.replace("mine/", ""), s.class, s.part, s.content)).collect::<Vec<_>>()
        };
        assert_eq!(strip(&archive.manifest), strip(&folder.manifest));
        assert_eq!(decoded(&archive).unwrap(), decoded(&folder).unwrap());
    }
    let whole = std::fs::read(world.path("mine.zip")).unwrap();
    let world = world.file("cut.zip", &whole[..whole.len() / 2]);
    let message = format!("{:#}", open(&spec(&world, "cut.zip")).err().unwrap());
    assert!(message.contains("cut.zip' is no zip archive, or is cut short"), "{message}");
}

/// An array of NumPy, as numpy.save writes it.
fn npy(numbers: &str, columns: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{numbers}', 'fortran_order': {columns}, 'shape': {shape}, }}");
    text += &" ".repeat(63 - (10 + text.len()) % 64);
    text.push('\n');
    [b"\x93NUMPY\x01\0", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), bytes].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn npz_is_read_as_medmnist_and_keras_name_its_arrays() {
    let grey: Vec<u8> = (0..3 * 4).collect();
    let colours: Vec<u8> = (100..100 + 2 * 12).collect();
    let medmnist = npz(&[
        ("train_images", npy("|u1", "False", "(3, 2, 2)", &grey)),
        ("train_labels", npy("|u1", "False", "(3, 1)", &[1, 0, 1])),
        ("val_images", npy("|u1", "False", "(2, 2, 2, 3)", &colours)),
        ("val_labels", npy("|u1", "False", "(2, 1)", &[0, 1])),
        ("test_images", npy("|u1", "False", "(1, 2, 2, 1)", &[9, 8, 7, 6])),
        ("test_labels", npy("|u1", "False", "(1, 1)", &[1])),
    ]);
    let world = World::new().file("med.npz", medmnist);
    let dataset = open(&spec(&world, "med.npz")).unwrap();
    let samples = &dataset.manifest.samples;
    assert_eq!(dataset.manifest.classes, ["0", "1"]);
    assert_eq!(
        [Part::Train, Part::Val, Part::Test].map(|part| dataset.manifest.counts(part)),
        [[1, 2], [1, 1], [0, 1]]
    );
    assert_eq!(samples[2].id, "train/0000001");
    let pixels = decoded(&dataset).unwrap();
    assert_eq!(pixels[&0], [9, 9, 9, 8, 8, 8, 7, 7, 7, 6, 6, 6]);
    assert_eq!(pixels[&2], [4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7]);
    assert_eq!(pixels[&4], (100..112).collect::<Vec<u8>>());
    // Labels of eight bytes, as NumPy has whole numbers; a part of the classes.
    let long = |labels: &[i64]| labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>();
    let keras = |labels: &[i64]| {
        vec![
            ("x_train", npy("|u1", "False", "(3, 2, 2)", &grey)),
            ("y_train", npy("<i8", "False", "(3,)", &long(labels))),
            ("x_test", npy("|u1", "False", "(3, 2, 2)", &grey)),
            ("y_test", npy("<i8", "False", "(3,)", &long(&[0, 1, 2]))),
        ]
    };
    let world = world.file("keras.npz", npz(&keras(&[2, 1, 0])));
    let part = Spec { classes: vec!["0".to_owned(), "2".to_owned()], ..spec(&world, "keras.npz") };
    let dataset = open(&part).unwrap();
    let found: Vec<&str> = dataset.manifest.samples.iter().map(|sample| sample.id.as_str()).collect();
    assert_eq!(found, ["test/0000000", "test/0000002", "train/0000000", "train/0000002"]);
    assert_eq!(decoded(&dataset).unwrap()[&3][..3], [8, 8, 8]);
    assert_eq!(dataset.manifest.samples[3].content, dataset.manifest.samples[1].content, "the same image");
    // What cannot be used is told with the array's name.
    let other = |array: usize, bytes: Vec<u8>, wanted: &str| {
        let mut arrays = keras(&[2, 1, 0]);
        arrays[array].1 = bytes;
        std::fs::write(world.path("keras.npz"), npz(&arrays)).unwrap();
        let message = format!("{:#}", open(&spec(&world, "keras.npz")).err().unwrap());
        assert!(message.contains(wanted) && !message.contains("panicked"), "{message}");
    };
    other(0, npy("|u1", "True", "(3, 2, 2)", &grey), "'x_train' is stored column by column");
    other(0, npy("<f4", "False", "(3, 2, 2)", &[0; 48]), "'x_train' in");
    other(0, npy("|u1", "False", "(3, 2, 2)", &grey[..7]), "is damaged at 'x_train'");
    other(0, npy("|u1", "False", "(3, 2, 1, 2)", &grey), "[n, height, width, 3]");
    other(1, npy("|u1", "False", "(3, 2)", &[0; 6]), "one label for each image is needed");
    other(1, npy("|u1", "False", "(2,)", &[0, 1]), "has 3 images and 'y_train' 2 labels");
    other(1, npy("|i1", "False", "(3,)", &[0, 255, 1]), "has the label -1");
    other(1, npy("<f4", "False", "(3,)", &[0; 12]), "labels are whole numbers");
    other(1, b"no array".to_vec(), "'y_train'");
    let world = world.file("x.npz", npz(&[("a", npy("|u1", "False", "(3, 2, 2)", &grey))]));
    let message = format!("{:#}", open(&spec(&world, "x.npz")).err().unwrap());
    assert!(message.contains("its arrays are a"), "{message}");
    let message = format!(
        "{:#}",
        open(&Spec { holdout: Some(tl_sweep::data::Holdout::Share(0.5)), ..spec(&world, "med.npz") }).err().unwrap()
    );
    assert!(message.contains("brings a test split of its own"), "{message}");
}

#[test]
fn cifar_binary_is_read_record_by_record() {
    let record =
        |label: u8, value: u8| [vec![label], vec![value; 1024], vec![value + 1; 1024], vec![value + 2; 1024]].concat();
    let mut world = World::new().file("c/batches.meta.txt", "zebra\napple\n");
    for batch in 1..=5 {
        world = world.file(&format!("c/data_batch_{batch}.bin"), [record(0, 10 * batch), record(1, 100)].concat());
    }
    let world = world.file("c/test_batch.bin", record(1, 7));
    let dataset = open(&spec(&world, "c")).unwrap();
    assert_eq!(dataset.manifest.classes, ["apple", "zebra"]);
    assert_eq!(dataset.manifest.counts(Part::Train), [5, 5]);
    let first = dataset.manifest.samples.iter().position(|sample| sample.id == "data_batch_1.bin/00000").unwrap();
    assert_eq!(dataset.manifest.samples[first].class, 1);
    assert_eq!(decoded(&dataset).unwrap()[&first][..6], [10, 11, 12, 10, 11, 12]);
    let world = world.file("c/test_batch.bin", &record(1, 7)[..100]);
    assert!(format!("{:#}", open(&spec(&world, "c")).err().unwrap()).contains("truncated"));
}

#[test]
fn idx_is_read_and_its_damage_named() {
    let images = |count: u32, pixels: &[u8]| {
        [&[0, 0, 8, 3][..], &count.to_be_bytes(), &2u32.to_be_bytes(), &2u32.to_be_bytes(), pixels].concat()
    };
    let labels = |values: &[u8]| [&[0, 0, 8, 1][..], &(values.len() as u32).to_be_bytes(), values].concat();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&images(2, &[1, 2, 3, 4, 5, 6, 7, 8])).unwrap();
    let world = World::new()
        .file("m/train-images-idx3-ubyte.gz", zipped.finish().unwrap())
        .file("m/train-labels-idx1-ubyte", labels(&[1, 0]))
        .file("m/t10k-images-idx3-ubyte", images(1, &[9, 9, 9, 9]))
        .file("m/t10k-labels-idx1-ubyte", labels(&[1]));
    let dataset = open(&spec(&world, "m")).unwrap();
    assert_eq!(decoded(&dataset).unwrap()[&1], [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
    let world = world.file("m/t10k-images-idx3-ubyte", &images(1, &[9, 9, 9, 9])[..18]);
    assert!(format!("{:#}", open(&spec(&world, "m")).err().unwrap()).contains("truncated"));
}

/// Subjects of one class each, as patients are: a random fifth of them would often be of some classes only.
#[test]
fn groups_are_set_aside_for_validation_evenly_over_classes() {
    // Of each class eight subjects with 2 to 9 images.
    let mut manifest = manifest(&[44, 44, 44], None);
    let mut place = [0; 3];
    for sample in manifest.samples.iter_mut().filter(|sample| sample.part == Part::Train) {
        let class = sample.class as usize;
        let subject = (2..10)
            .scan(0, |sum, size| {
                *sum += size;
                Some(*sum)
            })
            .position(|end| place[class] < end)
            .unwrap();
        sample.group = Some(format!("subject {class} {subject}"));
        place[class] += 1;
    }
    manifest.seal();
    let mut all = BTreeSet::new();
    for replicate in 0..40 {
        let split = split(&manifest, None, 5, replicate).unwrap();
        let of = |list: &[u32]| -> BTreeSet<String> {
            list.iter().map(|at| manifest.samples[*at as usize].group.clone().unwrap()).collect()
        };
        assert!(of(&split.train).is_disjoint(&of(&split.val)));
        assert_eq!(split.train.len() + split.val.len(), 132);
        for class in 0..3 {
            let own = split.val.iter().filter(|at| manifest.samples[**at as usize].class == class).count();
            // Within half of a large subject of a fifth.
            assert!((4..=13).contains(&own), "replicate {replicate}: {own} of 44");
        }
        all.insert(of(&split.val));
    }
    assert!(all.len() > 30, "other subjects in each replicate: {}", all.len());
    assert_eq!(split(&manifest, None, 5, 7), split(&manifest, None, 5, 7));
}

#[test]
fn few_groups_are_set_aside_too_and_never_all_of_a_class() {
    let grouped = |counts: &[usize], group: fn(u32, usize) -> String| {
        let mut manifest = manifest(counts, None);
        for (index, sample) in manifest.samples.iter_mut().enumerate().filter(|(_, own)| own.part == Part::Train) {
            sample.group = Some(group(sample.class, index));
        }
        manifest.seal();
        manifest
    };
    // Two sessions with half of each class: one of them validates.
    let sessions = grouped(&[20, 20], |_, index| format!("session {}", index % 2));
    let found = split(&sessions, None, 0, 0).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (20, 20));
    // The first class is one subject: it is trained on, and others validate.
    let lone =
        grouped(&[30, 30], |class, index| if class == 0 { "all".to_owned() } else { format!("of {}", index % 6) });
    for replicate in 0..20 {
        let found = split(&lone, None, 0, replicate).unwrap();
        let class = |at: &u32| lone.samples[*at as usize].class;
        assert_eq!(found.train.iter().filter(|at| class(at) == 0).count(), 30);
        assert!(!found.val.is_empty() && found.val.iter().all(|at| class(at) == 1));
    }
    // Nothing can be set aside of two classes with a subject each.
    let both = grouped(&[9, 9], |class, _| format!("subject {class}"));
    assert!(split(&both, None, 0, 0).unwrap_err().contains("no group could be set aside"));
}

#[test]
fn a_csv_manifest_keeps_groups_together() {
    let mut table = "path,label,split,group\n".to_owned();
    let mut world = World::new();
    for index in 0..20 {
        world = world.file(&format!("i/{index}.png"), png(8, 8, index % 2, index));
        table.push_str(&format!("i/{index}.png,{},train,s{}\n", ["x", "y"][index as usize % 2], index / 4));
    }
    world = world.file("i/t.png", png(8, 8, 0, 99)).file("i/u.png", png(8, 8, 1, 98));
    let world = world.file("m.csv", format!("{table}i/t.png,x,test,t1\ni/u.png,y,test,t1\n"));
    let dataset = open(&spec(&world, "m.csv")).unwrap();
    for replicate in 0..5 {
        let split = split(&dataset.manifest, Some(2), 1, replicate).unwrap();
        let groups = |list: &[u32]| {
            list.iter()
                .map(|index| dataset.manifest.samples[*index as usize].group.clone())
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert!(groups(&split.train).is_disjoint(&groups(&split.val)) && !split.val.is_empty());
    }
    let leaking = World::new()
        .file("m.csv", "path,label,split,group\na,x,train,s\nb,y,test,s\n")
        .file("a", png(4, 4, 0, 1))
        .file("b", png(4, 4, 1, 2));
    assert!(
        format!("{:#}", open(&spec(&leaking, "m.csv")).err().unwrap())
            .contains("the group 's' stands in train and in test")
    );
    let wrong = World::new().file("m.csv", "path,label,split\na,x,trian\n");
    assert!(format!("{:#}", open(&spec(&wrong, "m.csv")).err().unwrap()).contains("line 2"));
}

#[test]
fn k_per_class_is_exact_nested_and_fails_where_there_are_too_few() {
    let manifest = manifest(&[40, 60, 33], None);
    for replicate in 0..4 {
        let mut before: Vec<u32> = Vec::new();
        for k in [1, 2, 4, 8, 16, 26] {
            let split = split(&manifest, Some(k), 7, replicate).unwrap();
            for class in 0..3 {
                assert_eq!(
                    split.train.iter().filter(|index| manifest.samples[**index as usize].class == class).count(),
                    k
                );
            }
            assert!(before.iter().all(|index| split.train.contains(index)), "not nested");
            assert!(split.train.iter().all(|index| !split.val.contains(index) && !split.test.contains(index)));
            assert!(split.val.len() <= split.train.len());
            before = split.train;
        }
        assert!(
            split(&manifest, Some(28), 7, replicate)
                .unwrap_err()
                .contains("class 'c2' has 27 images for training after 6 of 33")
        );
    }
    assert_ne!(split(&manifest, Some(4), 7, 0), split(&manifest, Some(4), 7, 1));
    assert_ne!(split(&manifest, Some(4), 7, 0), split(&manifest, Some(4), 8, 0));
}

#[test]
fn test_images_never_depend_on_the_replicate() {
    let manifest = manifest(&[20, 20], None);
    assert_eq!(split(&manifest, Some(3), 1, 0).unwrap().test, split(&manifest, None, 5, 9).unwrap().test);
}

#[test]
fn the_order_is_paired_and_changes_with_every_epoch() {
    let train: Vec<u32> = (0..50).collect();
    assert_eq!(order(&train, 1, 2, 3), order(&train, 1, 2, 3));
    assert_ne!(order(&train, 1, 2, 3), order(&train, 1, 2, 4));
    let mut sorted = order(&train, 1, 2, 3);
    sorted.sort_unstable();
    assert_eq!(sorted, train);
}

#[test]
fn broken_images_are_named_and_can_be_skipped() {
    let good = png(12, 12, 0, 5);
    for (bytes, expected) in [
        (Vec::new(), "the file is empty"),
        (b"no image at all".to_vec(), "not an image of a known format"),
        (good[..good.len() / 2].to_vec(), "broken.png"),
        ([&good[..40], &[0x55; 60], &good[100..]].concat(), "broken.png"),
    ] {
        let world = World::new()
            .images("mine", &["a", "b"], 8, 2)
            .file("mine/train/a/broken.png", bytes)
            .file("x.toml", EXPERIMENT);
        let said = world.run(&["run", "x.toml"]);
        assert_ne!(said.code, 0);
        assert!(said.err.contains("broken.png") && said.err.contains(expected), "{}", said.err);
        let world =
            world.file("x.toml", EXPERIMENT.replace("path = \"mine\"", "path = \"mine\"\non_bad_image = \"skip\""));
        let said = world.run(&["check", "x.toml"]).exits(0);
        assert!(said.out.contains("skipped: 'train/a/broken.png'"), "{}", said.out);
        world.run(&["run", "x.toml"]).exits(0);
    }
}

const EXPERIMENT: &str = r#"
[backbone]
arch = "resnet8"
input = 12
weights = "random"
[datasets.mine]
path = "mine"
[scenarios.s]
dataset = "mine"
[train]
steps = 2
[axes]
recipe = ["linear-probe"]
"#;

#[test]
fn a_decompression_bomb_is_refused_by_its_header() {
    // A PNG header that promises 50,000 x 50,000 pixels, with a valid checksum and nothing behind it.
    let mut header = b"IHDR".to_vec();
    header.extend([50_000u32.to_be_bytes(), 50_000u32.to_be_bytes()].concat());
    header.extend([8, 2, 0, 0, 0]);
    let crc = header.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&header);
    bytes.extend((!crc).to_be_bytes());
    bytes.extend(b"\0\0\0\x0aIDAT\x78\x9c\x03\0\0\0\0\x01\0\0\0\0\0\0");
    let message = decode(&bytes, None).unwrap_err();
    assert!(message.contains("50000 x 50000 pixels") || message.to_lowercase().contains("limit"), "{message}");
}

#[test]
fn no_test_split_is_an_error_and_never_a_guess() {
    let world = World::new()
        .file("p/train/a/1.png", png(4, 4, 0, 1))
        .file("p/train/b/1.png", png(4, 4, 1, 1))
        .file("p/val/a/2.png", png(4, 4, 0, 2));
    let mut asked = spec(&world, "p");
    let message = format!("{:#}", open(&asked).err().unwrap());
    assert!(message.contains("no folder 'test' for the test split") && message.contains("train, val"), "{message}");
    let cure =
        r#"splits = { test = "..." } in an experiment file, or --test with data, extract, rank and recommend; where"#;
    assert!(message.contains(cure), "{message}");
    asked.splits =
        [("train", "train"), ("test", "val")].map(|(split, folder)| (split.to_owned(), folder.to_owned())).into();
    assert_eq!(open(&asked).unwrap().manifest.counts(Part::Test), [1, 0]);
}

/// Kaggle's `valid` and Hugging Face's `validation` are not `val`: whoever does not say so is told that nobody reads them.
#[test]
fn folders_that_are_no_split_are_told_of() {
    const FILE: &str = "[experiment]\nreplicates = 3\n[backbone]\narch = \"resnet8\"\nweights = \"random\"\n\
        [datasets.mine]\npath = \"mine\"\n[scenarios.s]\ndataset = \"mine\"\n[train]\nsteps = 4\n[axes]\nrecipe = [\"from-scratch\"]\n";
    let mut world = World::new().images("mine", &["ants", "bees"], 6, 4).file("x.toml", FILE);
    for (at, class) in ["ants", "bees", "bees"].iter().enumerate() {
        world = world.file(&format!("mine/valid/{class}/{at}.png"), png(12, 12, 1, 900 + at as u32));
    }
    let told = "the folder 'valid' of 'mine' is none of its splits, and its 3 files are not read: splits = { val = \"valid\" } under [datasets.mine] reads them";
    let said = world.run(&["run", "x.toml"]).exits(0);
    assert!(said.err.contains(&format!("warning: {told}")), "{}", said.err);
    let said = world.run(&["check", "x.toml"]).exits(0);
    assert!(said.out.contains(&format!("warning: {told}")), "{}", said.out);
    assert!(world.run(&["data", "mine"]).exits(0).out.contains(told));
    let named = FILE.replace("path = \"mine\"", "path = \"mine\"\nsplits = { val = \"valid\" }");
    let world = world.file("x.toml", &named);
    assert!(!world.run(&["check", "x.toml"]).exits(0).out.contains("none of its splits"));
    // Of what is only tested nobody asks for more; and what is told stays, whatever else is done to a dataset.
    let other = "classes = [\"ants\", \"bees\"]\non_bad_image = \"skip\"\nalso_test = [\"other\"]\n[datasets.other]\npath = \"other\"\n";
    let both = FILE.replace("path = \"mine\"\n", &format!("path = \"mine\"\n{other}"));
    let world =
        world.images("other", &["ants", "bees"], 2, 2).file("x.toml", both).file("mine/train/ants/x.png", "broken");
    let said = world.run(&["check", "x.toml"]).exits(0);
    assert!(said.out.contains(told) && !said.out.contains("of 'other'"), "{}", said.out);
}

#[test]
fn a_pin_refuses_other_bytes() {
    let world = World::new().images("mine", &["a", "b"], 6, 2).file(
        "x.toml",
        EXPERIMENT.replace("path = \"mine\"", &format!("path = \"mine\"\nsha256 = \"{}\"", "0".repeat(64))),
    );
    assert!(world.run(&["check", "x.toml"]).exits(2).err.contains("is pinned to other bytes"));
}

#[test]
fn identical_bytes_in_train_and_test_are_told() {
    let world = World::new().images("mine", &["a", "b"], 6, 2);
    let copy = std::fs::read(world.path("mine/test/a/000.png")).unwrap();
    let world = world.file("mine/train/a/copy.png", copy).file("x.toml", EXPERIMENT);
    assert!(world.run(&["check", "x.toml"]).exits(0).out.contains("same bytes as a test image"));
}

#[test]
fn test_images_that_the_source_model_trains_on_are_told() {
    let world = World::new().images("source", &["a", "b"], 6, 2).images("mine", &["a", "b"], 5, 3);
    let experiment = EXPERIMENT
        .replace("weights = \"random\"", "weights = \"pretrain\"\n[pretrain]\ndataset = \"source\"\nsteps = 2")
        .replace("[datasets.mine]", "[datasets.source]\npath = \"source\"\n[datasets.mine]");
    let told = |world: &World| world.run(&["check", "x.toml"]).exits(0).out;
    let world = world.file("x.toml", experiment);
    assert!(!told(&world).contains("the source model trains"), "{}", told(&world));
    let copy = std::fs::read(world.path("source/train/a/000.png")).unwrap();
    let world = world.file("mine/test/b/same.png", copy);
    let expected = "the source model trains on 1 images of 'source' with the same bytes as a test image of 'mine', \
                    for example train/a/000.png and test/b/same.png";
    assert!(told(&world).contains(expected), "{}", told(&world));
}

#[test]
fn what_of_an_image_is_kept_is_what_was_asked() {
    // Columns of one brightness each: 0, 10, ..., 150; 16 x 8 pixels.
    let pixels = (0..8 * 16).flat_map(|at| [(at % 16 * 10) as u8; 3]).collect();
    let image = tl_sweep::data::decode::Rgb { width: 16, height: 8, pixels };
    let row = |resize: &str, side: usize| -> Vec<u8> {
        let frame = Frame { side, resize: Resize::parse(resize).unwrap() };
        square(&image, frame).unwrap().chunks(3).take(side).map(|pixel| pixel[0]).collect()
    };
    // The whole middle square is columns 4 to 11; half of it is columns 6 to 9; stretched, two columns become one.
    assert_eq!(row("crop", 8), [40, 50, 60, 70, 80, 90, 100, 110]);
    assert_eq!(row("crop 0.5", 4), [60, 70, 80, 90]);
    assert_eq!(row("stretch", 8)[3..5], [65, 85]);
    for wrong in
        ["crops", "crop 2", "crop 0.01", "stretch 0.5", "crop x", "bicubic", "crop  bicubic", "crop bicubic bicubic"]
    {
        assert!(Resize::parse(wrong).unwrap_err().contains("'crop 0.875'"), "{wrong}");
    }
    for text in ["crop", "crop 0.875", "stretch", "crop 0.9 bicubic", "stretch bicubic"] {
        assert_eq!(Resize::parse(text).unwrap().to_string(), text);
    }
}

/// python 3.11, Pillow 13: an image of side 5 with pixel (y * 5 + x) * 10 in all channels, resized by BILINEAR and BICUBIC.
#[test]
fn the_resampler_is_pillows() {
    let pixels: Vec<u8> = (0..25u8).flat_map(|at| [at * 10; 3]).collect();
    let image = tl_sweep::data::decode::Rgb { width: 5, height: 5, pixels };
    let found = |side: usize, resize: &str| -> Vec<u8> {
        let frame = Frame { side, resize: Resize::parse(resize).unwrap() };
        square(&image, frame).unwrap().chunks(3).map(|pixel| pixel[0]).collect()
    };
    assert_eq!(found(3, "crop"), [25, 41, 57, 104, 120, 136, 183, 199, 215]);
    assert_eq!(found(3, "crop bicubic"), [22, 38, 54, 104, 120, 136, 186, 202, 218]);
    let larger = [
        [0, 2, 10, 17, 24, 32, 38],
        [24, 30, 38, 45, 52, 60, 66],
        [63, 69, 77, 84, 91, 99, 105],
        [99, 105, 113, 120, 127, 135, 141],
        [135, 141, 149, 156, 163, 171, 177],
        [174, 180, 188, 195, 202, 210, 216],
        [202, 208, 216, 223, 230, 238, 244],
    ];
    let off = found(7, "stretch bicubic")
        .into_iter()
        .zip(larger.concat())
        .map(|(own, theirs): (u8, u8)| own.abs_diff(theirs));
    assert!(off.max().unwrap() <= 1);
}

/// The same of noise in three channels: pixel ((7 y^2 + 3 x^3 + 11 x y) >> channel) mod 256 of side 11, to side 5. Theirs rounds at
/// other places: a step of 255 lies between, at most.
#[test]
fn resamplers_are_pillows_on_noise() {
    let number = |x: usize, y: usize| 7 * y * y + 3 * x * x * x + 11 * x * y;
    let pixel = |at: usize| (0..3).map(move |channel| (number(at % 11, at / 11) >> channel) as u8);
    let image = tl_sweep::data::decode::Rgb { width: 11, height: 11, pixels: (0..121).flat_map(pixel).collect() };
    let off = |resize: Resize, pillow: [[u8; 15]; 5]| {
        let found = square(&image, Frame { side: 5, resize }).unwrap();
        found.iter().zip(pillow.concat()).map(|(own, theirs)| own.abs_diff(theirs)).max().unwrap()
    };
    let bicubic = [
        [9, 4, 2, 103, 53, 23, 154, 138, 110, 92, 46, 92, 139, 96, 88],
        [86, 36, 18, 162, 117, 53, 97, 111, 136, 125, 148, 141, 158, 164, 111],
        [169, 116, 52, 124, 142, 107, 117, 118, 145, 104, 108, 108, 125, 147, 175],
        [116, 138, 104, 93, 97, 173, 142, 136, 127, 119, 131, 126, 126, 120, 89],
        [107, 99, 177, 110, 142, 153, 131, 138, 128, 125, 126, 122, 117, 119, 139],
    ];
    let bilinear = [
        [22, 10, 5, 104, 57, 28, 143, 128, 106, 101, 57, 92, 139, 98, 92],
        [89, 44, 22, 151, 111, 55, 107, 112, 132, 122, 144, 132, 154, 161, 116],
        [159, 113, 57, 124, 135, 103, 115, 120, 142, 106, 107, 113, 123, 140, 160],
        [116, 133, 111, 98, 105, 163, 137, 132, 126, 122, 134, 127, 126, 121, 96],
        [108, 104, 171, 109, 136, 154, 131, 137, 130, 126, 127, 122, 117, 121, 138],
    ];
    assert!(off(Resize::WHOLE.bicubic(), bicubic) <= 1 && off(Resize::WHOLE, bilinear) <= 1);
    assert!(off(Resize::WHOLE, bicubic) > 10, "they are not the same");
}

/// What their authors measured them with comes with known weights.
#[test]
fn known_weights_bring_their_filter() {
    let resize = |name: &str| KNOWN.iter().find(|known| known.name == name).unwrap().resize.to_string();
    assert_eq!(resize("dinov2_vits14_pretrain"), "crop 0.875 bicubic");
    assert_eq!(resize("efficientnet_b0_rwightman-7f5810bc"), "crop 0.875 bicubic");
    assert_eq!(resize("vit_b_16_swag-9ac1b537"), "crop bicubic");
    assert_eq!(resize("resnet50-0676ba61"), "crop 0.875");
    let bicubic = KNOWN
        .iter()
        .filter(|known| known.lineage.contains("bicubic"))
        .all(|known| known.resize.filter == Filter::Bicubic);
    assert!(bicubic, "whatever a lineage says of it holds");
}

#[test]
fn preprocessing_in_numbers() {
    let pixel = [255u8, 128, 0];
    let of = |preprocess| {
        let mut batch = Vec::new();
        normalise(&pixel, preprocess, &mut batch);
        batch
    };
    let close = |found: Vec<f32>, expected: [f32; 3]| {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4)
    };
    assert!(close(of(Preprocess::Caffe), [0.0 - 103.939, 128.0 - 116.779, 255.0 - 123.68]));
    assert!(close(of(Preprocess::Tf), [1.0, 0.003_921_6, -1.0]));
    assert!(close(of(Preprocess::Torch), [2.248_908_3, 0.205_182_1, -1.804_444_4]));
    assert!(close(of(Preprocess::CaffeRgb), [255.0 * (1.0 - 0.48235), 128.0 - 255.0 * 0.45882, -255.0 * 0.40784]));
    assert!(close(of(Preprocess::ZeroOne), [1.0, 128.0 / 255.0, 0.0]));
}

#[test]
fn augmentation_is_drawn_from_its_stream_and_leaves_the_image() {
    let image: Vec<u8> = (0..16 * 16 * 3).map(|at| (at % 251) as u8).collect();
    let before = image.clone();
    for list in [
        vec![Augmentation::Flip],
        vec![Augmentation::Crop],
        vec![Augmentation::ResizedCrop(0.08), Augmentation::Jitter],
    ] {
        let draw = |seed| augment(&list, &image, 16, &mut stream(seed, Stream::Augment, &[0, 1, 2]));
        assert_eq!(draw(1), draw(1));
        assert!((0..20).any(|seed| draw(seed) != draw(1)));
        assert_eq!(draw(3).len(), image.len());
    }
    assert_eq!(image, before);
}

#[test]
fn synthetic_images_depend_on_task_class_and_shift_alone() {
    let family = |shift, train| Family { classes: 3, shift, task: 1, train, test: 2 };
    assert_eq!(family(0.5, 5).image("train/001/00002").unwrap(), family(0.5, 50).image("train/001/00002").unwrap());
    assert_ne!(family(0.5, 5).image("train/001/00002").unwrap(), family(0.6, 5).image("train/001/00002").unwrap());
    assert_ne!(family(0.5, 5).manifest("x").unwrap().fingerprint, family(0.6, 5).manifest("x").unwrap().fingerprint);
}

/// A smooth image, as photographs are: waves of random directions in each channel.
pub fn photograph(seed: u64, side: u32) -> image::RgbImage {
    let mut rng = stream(seed, Stream::Synthetic, &[]);
    let waves: Vec<[f64; 5]> = (0..12)
        .map(|_| [rng.range(-9.0, 9.0), rng.range(-9.0, 9.0), rng.range(0.0, 6.3), rng.range(0.3, 1.0), rng.normal()])
        .collect();
    image::RgbImage::from_fn(side, side, |x, y| {
        let (x, y) = (f64::from(x) / f64::from(side), f64::from(y) / f64::from(side));
        image::Rgb([0, 1, 2].map(|channel| {
            let value: f64 = waves
                .iter()
                .enumerate()
                .map(|(at, [a, b, phase, size, tint])| {
                    size * (a * x + b * y + phase).sin() * if at % 3 == channel { 1.0 } else { 0.5 + 0.2 * tint }
                })
                .sum();
            (128.0 + 24.0 * value).clamp(0.0, 255.0) as u8
        }))
    })
}

pub fn encoded(image: &image::RgbImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// Two classes of twenty photographs to train on and ten to test on, and changed copies of the first ones of class a.
fn with_near_duplicates(copies: &[(&str, image::RgbImage)]) -> World {
    let mut world = World::new();
    for (split, count, seed) in [("train", 20, 1000), ("test", 10, 2000)] {
        for (class, label) in ["a", "b"].into_iter().enumerate() {
            for index in 0..count {
                let image = photograph(seed + class as u64 * 100 + index, 48);
                let path = format!("mine/{split}/{label}/{index:03}.png");
                world = world.file(&path, encoded(&image, image::ImageFormat::Png));
            }
        }
    }
    for (name, copy) in copies {
        let format = image::ImageFormat::from_path(name).unwrap();
        world = world.file(&format!("mine/test/a/{name}"), encoded(copy, format));
    }
    world
}

#[test]
fn test_images_that_are_training_images_once_more_are_found() {
    use image::imageops;
    let original = |index: u64| photograph(1000 + index, 48);
    let tinted = |image: image::RgbImage| {
        let change = |image::Rgb([r, g, b]): &image::Rgb<u8>| image::Rgb([r / 2 + 90, g / 2 + 60, b / 2 + 20]);
        image::RgbImage::from_fn(48, 48, |x, y| change(image.get_pixel(x, y)))
    };
    let copies = [
        ("0-jpeg.jpg", original(0)),
        ("1-half.png", imageops::resize(&original(1), 24, 24, imageops::FilterType::Triangle)),
        ("2-brighter.png", imageops::colorops::brighten(&original(2), 20)),
        ("3-mirrored.png", imageops::flip_horizontal(&original(3))),
        ("4-tinted.png", tinted(original(4))),
        ("5-cut.png", imageops::crop_imm(&original(5), 1, 1, 46, 46).to_image()),
        ("6-grey.png", image::DynamicImage::ImageLuma8(imageops::grayscale(&original(6))).to_rgb8()),
    ];
    let world = with_near_duplicates(&copies);
    let said = world.run(&["data", "mine", "--near-duplicates"]).exits(0);
    let mut found: Vec<&str> = said.out.lines().collect();
    assert_eq!(found.remove(0), "test,train,distance,mirrored");
    assert_eq!(found.len(), copies.len(), "{}", said.out);
    for (line, (index, (name, _))) in found.iter().zip(copies.iter().enumerate()) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[..2], [format!("test/a/{name}"), format!("train/a/{index:03}.png")], "{}", said.out);
        assert_eq!(cells[3] == "true", index == 3, "{line}");
    }
    assert!(said.err.contains("7 of 27 test images (25.9%) are near-duplicates"), "{}", said.err);
    assert!(!said.err.contains("of another class"), "{}", said.err);
    let none = with_near_duplicates(&[]).run(&["data", "mine", "--near-duplicates"]).exits(0);
    assert_eq!(none.out.trim(), "test,train,distance,mirrored");
    assert!(none.err.contains("no test image of 'mine' is a near-duplicate"), "{}", none.err);
}

#[test]
fn near_duplicates_of_another_class_are_counted() {
    // The last is a training image of class b.
    let copies = [("own.jpg", photograph(1000, 48)), ("other.jpg", photograph(1103, 48))];
    let said = with_near_duplicates(&copies).run(&["data", "mine", "--near-duplicates"]).exits(0);
    let told = "2 of 22 test images (9.1%) are near-duplicates of images to train or validate on (1 of another class), for example";
    assert!(
        said.err.contains(told) && said.out.contains("test/a/other.jpg,train/b/003.png"),
        "{}{}",
        said.out,
        said.err
    );
}

/// What looks alike by nature is no duplicate: a test image has ten training images as near as the nearest.
#[test]
fn classes_whose_images_look_alike_are_no_near_duplicates() {
    // A bar, thicker or thinner and a little elsewhere, as ones are written.
    let one = |seed: u32| {
        let (left, width, slant) = (18 + seed % 5, 5 + seed / 5 % 4, f64::from(seed / 20) * 0.015);
        image::RgbImage::from_fn(48, 48, |x, y| {
            let at = f64::from(x) - slant * f64::from(y);
            let inside = (f64::from(left)..f64::from(left + width)).contains(&at) && (6..42).contains(&y);
            image::Rgb([if inside { 255 } else { 0 }; 3])
        })
    };
    let mut world = with_near_duplicates(&[]);
    for seed in 0..120 {
        let split = if [47, 52, 67, 72].contains(&seed) { "test" } else { "train" };
        world = world.file(&format!("mine/{split}/b/one{seed:03}.png"), encoded(&one(seed), image::ImageFormat::Png));
    }
    let found = world.run(&["data", "mine", "--near-duplicates"]).exits(0).out;
    assert_eq!(found.lines().count(), 1, "{found}");
}

const TWO_RECIPES: &str = r#"
[backbone]
arch = "resnet8"
input = 24
weights = "random"
[datasets.mine]
path = "mine"
[scenarios.s]
dataset = "mine"
[recipes.quick]
freeze = "all"
lr = 0.1
[recipes.slow]
freeze = "all"
lr = 1e-6
[train]
steps = 40
[axes]
recipe = ["quick", "slow"]
[[rule]]
claim = "quick > slow"
"#;

#[test]
fn verdicts_say_what_they_are_without_near_duplicates() {
    let copies: Vec<(String, image::RgbImage)> =
        (0..6).map(|index| (format!("{index}.jpg"), photograph(1000 + index, 48))).collect();
    let copies: Vec<(&str, image::RgbImage)> =
        copies.iter().map(|(name, image)| (name.as_str(), image.clone())).collect();
    let clean = with_near_duplicates(&[]).file("x.toml", TWO_RECIPES);
    assert!(!clean.run(&["check", "x.toml"]).exits(0).out.contains("near-duplicates"));
    let said = clean.run(&["run", "x.toml"]).exits(0);
    assert!(!said.out.contains("near-duplicate"), "{}", said.out);
    let json = |world: &World| -> serde_json::Value {
        serde_json::from_str(&world.run(&["report", "--format", "json"]).exits(0).out).unwrap()
    };
    assert_eq!(json(&clean)["near_duplicates"], serde_json::json!([]));
    let difference = said.out.lines().find(|line| line.contains("quick > slow")).unwrap();
    let difference = difference.split('┆').nth(4).unwrap().trim().to_owned();

    let world = with_near_duplicates(&copies).file("x.toml", TWO_RECIPES);
    let warned = world.run(&["check", "x.toml"]).exits(0).out;
    assert!(
        warned.contains("warning: in 'mine' 6 of 26 test images (23.1%) are near-duplicates of images"),
        "{warned}"
    );
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(said.contains("mine: 6 of 26 test images are near-duplicates of images trained or validated on"), "{said}");
    // Without those that were copied the clean dataset's test images are left, and with them its difference.
    let note = said
        .lines()
        .find(|line| line.contains("that are near-duplicates of images trained or validated on: "))
        .unwrap();
    assert!(note.contains("without the 6 test images"), "{note}");
    assert!(note.contains(&difference), "{note}\n{difference}");
    assert_eq!(json(&world)["near_duplicates"], serde_json::json!([{ "dataset": "mine", "near": 6, "of": 26 }]));
    assert!(world.run(&["report", "--format", "html"]).exits(0).out.contains("without the 6 test images"));
}

#[test]
fn training_images_that_are_test_images_once_more_can_be_left_out() {
    let copies: Vec<(String, image::RgbImage)> =
        (0..6).map(|index| (format!("{index}.jpg"), photograph(1000 + index, 48))).collect();
    let copies: Vec<(&str, image::RgbImage)> =
        copies.iter().map(|(name, image)| (name.as_str(), image.clone())).collect();
    let drop = TWO_RECIPES.replace("path = \"mine\"", "path = \"mine\"\nnear_duplicates = \"drop\"");
    let world = with_near_duplicates(&copies).file("x.toml", &drop);
    for _ in 0..2 {
        let said = world.run(&["check", "x.toml"]).exits(0).out;
        for index in 0..6 {
            let line = format!(
                "skipped: 'train/a/00{index}.png' of 'mine': a near-duplicate of the test image 'test/a/{index}.jpg'"
            );
            assert!(said.contains(&line), "{said}");
        }
        assert!(!said.contains("warning: in 'mine'"), "{said}");
    }
    let said = world.run(&["run", "x.toml"]).exits(0).out;
    assert!(!said.contains("near-duplicate"), "{said}");
    let splits = world.run(&["data", "x", "--splits"]).exits(0).out;
    let of = |part: &str| splits.lines().filter(|line| line.contains(&format!(",0,{part},"))).count();
    assert_eq!((of("train") + of("val"), of("test")), (40 - 6, 26));
    world.run(&["verify", "x.toml", "--sample", "1"]).exits(0);
    let world = world.file("x.toml", drop.replace("\"drop\"", "\"delete\""));
    let said = world.run(&["check", "x.toml"]).exits(2).err;
    assert!(said.contains("near_duplicates") && said.contains("expected 'keep', 'drop' or 'together'"), "{said}");
}

#[test]
fn images_stay_with_their_names_where_others_are_left_out() {
    let manifest = manifest(&[3, 3], None);
    let pixels = |index: usize| tl_sweep::data::decode::Rgb { width: 1, height: 1, pixels: vec![index as u8; 3] };
    let images = (0..manifest.samples.len()).map(pixels).collect();
    let ids: Vec<String> = manifest.samples.iter().map(|sample| sample.id.clone()).collect();
    let before = manifest.fingerprint;
    let mut dataset =
        Dataset { name: "d".to_owned(), manifest, content: tl_sweep::data::open::Content::Arrays(images) };
    let without = [3, 6].map(|index| (index, "not wanted".to_owned())).into();
    dataset.leave_out(&without).unwrap();
    assert_ne!(dataset.manifest.fingerprint, before, "other images, other results");
    assert_eq!(dataset.manifest.skipped, [3, 6].map(|index| (ids[index].clone(), "not wanted".to_owned())));
    let found = decoded(&dataset).unwrap();
    assert_eq!(found.len(), ids.len() - 2);
    for (index, pixels) in found {
        assert_eq!(ids[usize::from(pixels[0])], dataset.manifest.samples[index].id);
    }
}

/// A part of a dataset is a dataset: the images of its classes, as they are in the whole, from files, archives and arrays alike.
#[test]
fn a_dataset_of_some_classes_is_that_part_of_the_whole() {
    let world = World::new().images("mine", &["ants", "bees", "cats", "dogs"], 5, 3);
    let mut tar = tar::Builder::new(std::fs::File::create(world.path("mine.tar")).unwrap());
    tar.append_dir_all("mine", world.path("mine")).unwrap();
    tar.finish().unwrap();
    for path in ["mine", "mine.tar"] {
        let whole = open(&spec(&world, path)).unwrap();
        let some = |classes: &[&str]| {
            let classes = classes.iter().map(|name| (*name).to_owned()).collect();
            open(&Spec { classes, ..spec(&world, path) })
        };
        let part = some(&["dogs", "bees"]).unwrap();
        assert_eq!(part.manifest.classes, ["bees", "dogs"]);
        assert_eq!((part.manifest.samples.len(), part.manifest.skipped.len()), (16, 0));
        assert_ne!(part.manifest.fingerprint, whole.manifest.fingerprint);
        assert_eq!(part.manifest.fingerprint, some(&["bees", "dogs"]).unwrap().manifest.fingerprint);
        let (all, own) = (decoded(&whole).unwrap(), decoded(&part).unwrap());
        for (index, sample) in part.manifest.samples.iter().enumerate() {
            let place = whole.manifest.samples.iter().position(|other| other.id == sample.id).unwrap();
            let other = &whole.manifest.samples[place];
            assert_eq!(part.manifest.classes[sample.class as usize], whole.manifest.classes[other.class as usize]);
            assert_eq!((&own[&index], sample.content), (&all[&place], other.content), "{}", sample.id);
        }
        let error = format!("{:#}", some(&["bees", "dgos"]).err().unwrap());
        assert!(error.contains("has no class 'dgos'; did you mean 'dogs'? (it has ants, bees, cats, dogs)"), "{error}");
    }
}

/// One folder as the source and as two targets.
#[test]
fn a_sweep_moves_from_some_classes_to_others() {
    let text = |classes: &str| {
        format!(
            "[experiment]\nreplicates = 2\n[backbone]\narch = \"resnet8\"\ninput = 12\nweights = \"pretrain\"\n\
             [pretrain]\ndataset = \"source\"\nsteps = 4\n\
             [datasets.source]\npath = \"mine\"\nclasses = [\"ants\", \"bees\"]\n\
             [datasets.near]\npath = \"mine\"\nclasses = {classes}\n\
             [scenarios.near]\ndataset = \"near\"\nper_class = 4\n\
             [train]\nsteps = 4\nbatch = 4\n[axes]\nrecipe = [\"linear-probe\"]\n"
        )
    };
    let world = World::new().images("mine", &["ants", "bees", "cats", "dogs"], 8, 4);
    let world = world.file("x.toml", text("[\"cats\", \"dogs\"]"));
    world.run(&["run", "x.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let count = |sql: &str| -> i64 { store.query_row(sql, [], |row| row.get(0)).unwrap() };
    let near = "SELECT count(*) FROM sample WHERE data = (SELECT data FROM cell) AND id LIKE ";
    assert_eq!((count(&format!("{near} '%/cats/%'")), count(&format!("{near} '%/ants/%'"))), (12, 0));
    // What the source has trained on is no target's test image.
    let said = world.run(&["check", "x.toml"]).exits(0);
    assert!(!said.err.contains("the source model trains on"), "{}", said.err);
    for (classes, message) in [
        ("[\"cats\"]", "expected a list of two names of classes or more"),
        ("[\"cats\", \"cats\"]", "the class 'cats' stands here twice"),
        ("[\"cats\", \"cows\"]", "has no class 'cows'"),
    ] {
        let world = World::new().images("mine", &["ants", "bees", "cats", "dogs"], 8, 4).file("x.toml", text(classes));
        let said = world.run(&["check", "x.toml"]).exits(2);
        assert!(said.err.contains(message) && said.err.contains("x.toml:"), "{classes}: {}", said.err);
    }
}

/// An image [2 rows, 3 columns] that says how it was held, as a file of that format.
fn held(format: image::ImageFormat, orientation: u16) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(3 * 16, 2 * 16, |x, y| {
        let place = (y / 16 * 3 + x / 16) as u8;
        image::Rgb([40 * place, 255 - 40 * place, 100])
    });
    // TIFF, little-endian: one entry, the orientation (0x0112), a short.
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend(orientation.to_le_bytes());
    exif.extend([0; 6]);
    let mut bytes = Vec::new();
    let [width, height] = [pixels.width(), pixels.height()];
    let kind = image::ExtendedColorType::Rgb8;
    match format {
        image::ImageFormat::Png => {
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_exif_metadata(exif).unwrap();
            encoder.write_image(&pixels, width, height, kind).unwrap();
        }
        _ => {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
            encoder.set_exif_metadata(exif).unwrap();
            encoder.write_image(&pixels, width, height, kind).unwrap();
        }
    }
    bytes
}

/// A camera stores what it saw, and how it was held beside it: networks see what a viewer shows. What lies upright has the hash of
/// its bytes, as ever; what is turned has another.
#[test]
fn images_are_turned_upright_as_their_cameras_were_held() {
    // Which of the six stored fields stands at a row and a column of what is shown (EXIF 2.32, orientation).
    type Shown = fn(usize, usize) -> usize;
    let shown: [(u16, [usize; 2], Shown); 8] = [
        (1, [2, 3], |r, c| 3 * r + c),
        (2, [2, 3], |r, c| 3 * r + 2 - c),
        (3, [2, 3], |r, c| 3 * (1 - r) + 2 - c),
        (4, [2, 3], |r, c| 3 * (1 - r) + c),
        (5, [3, 2], |r, c| 3 * c + r),
        (6, [3, 2], |r, c| 3 * (1 - c) + r),
        (7, [3, 2], |r, c| 3 * (1 - c) + 2 - r),
        (8, [3, 2], |r, c| 3 * c + 2 - r),
    ];
    for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg] {
        for (orientation, [rows, columns], stored) in shown {
            let bytes = held(format, orientation);
            let found = decode(&bytes, None).unwrap();
            assert_eq!(
                [found.height as usize, found.width as usize],
                [16 * rows, 16 * columns],
                "{format:?} {orientation}"
            );
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let at = ((16 * row + 8) * 16 * columns + 16 * column + 8) * 3;
                let expected = 40 * stored(row, column) as i32;
                let red = i32::from(found.pixels[at]);
                assert!((red - expected).abs() < 12, "{format:?} {orientation} at {row}, {column}: {red}, {expected}");
            }
            assert_eq!(content(&bytes) == Key::of_bytes(&bytes), orientation == 1, "{format:?} {orientation}");
        }
    }
    // An orientation that there is not, and bytes that are no image, say nothing.
    let bytes = held(image::ImageFormat::Png, 77);
    assert_eq!((decode(&bytes, None).unwrap().width, content(&bytes)), (48, Key::of_bytes(&bytes)));
    assert_eq!(content(b"no image"), Key::of_bytes(b"no image"));
    // A dataset of them has their hashes; so has who asks for answers.
    let world = World::new();
    let world = ["train", "test"]
        .iter()
        .flat_map(|part| ["ants", "bees"].map(|class| (part, class)))
        .fold(world, |world, (part, class)| {
            world.file(&format!("held/{part}/{class}/a.jpg"), held(image::ImageFormat::Jpeg, 6))
        });
    let own = open(&spec(&world, "held")).unwrap();
    let bytes = held(image::ImageFormat::Jpeg, 6);
    assert!(own.manifest.samples.iter().all(|sample| sample.content == content(&bytes)));
    let first = decoded(&own).unwrap().remove(&0).unwrap();
    assert_eq!(first, decode(&bytes, None).unwrap().pixels);
}
