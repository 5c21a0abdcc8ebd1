//! Files of images: every format gives the same pixels, 16 bits are as bright as they are said to be, what is not read is named.

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage};
use tl_sweep::data::decode::{decode, header};
use tl_sweep::model::arch::Arch;

use crate::builder::World;
use crate::materials::network;
use crate::predictions::{experiment, of_truth, predict, trials};

fn bytes(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A grey image whose values have 12 of 16 bits, brighter at one side for one class.
fn microscope(class: u32, seed: u32) -> DynamicImage {
    let value = |x: u32, y: u32| (x * (class * 90 + 10) + (1 - class) * y * 100 + seed * 7 % 500) as u16;
    DynamicImage::ImageLuma16(ImageBuffer::from_fn(20, 20, |x, y| Luma([value(x, y)])))
}

/// 12 images to train on and 6 to test on of each of two classes, all of them of 12 bits, half of them as TIFF.
fn microscopes() -> World {
    let mut world = World::new();
    for (part, count) in [("train", 12), ("test", 6)] {
        for (class, name) in ["ants", "bees"].into_iter().enumerate() {
            for at in 0..count {
                let (ending, format) = [("png", ImageFormat::Png), ("tif", ImageFormat::Tiff)][at % 2];
                let image = microscope(class as u32, (at + 100 * class + count) as u32);
                world = world.file(&format!("mine/{part}/{name}/{at}.{ending}"), bytes(&image, format));
            }
        }
    }
    world
}

#[test]
fn formats_without_loss_give_the_same_pixels() {
    let image = RgbImage::from_fn(9, 7, |x, y| Rgb([(x * 28) as u8, (y * 36) as u8, (x * y) as u8]));
    let own = DynamicImage::ImageRgb8(image.clone());
    let kinds = [
        (ImageFormat::Png, "PNG"),
        (ImageFormat::Bmp, "BMP"),
        (ImageFormat::Tiff, "TIFF"),
        (ImageFormat::Pnm, "PNM"),
        (ImageFormat::WebP, "WebP"),
    ];
    for (format, name) in kinds {
        let bytes = bytes(&own, format);
        let (read, said) = (decode(&bytes, None).unwrap(), header(&bytes).unwrap());
        assert_eq!((read.width, read.height, &read.pixels), (9, 7, image.as_raw()), "{name}");
        assert_eq!((said.format, said.width, said.height, said.grey, said.deep), (name, 9, 7, false, false));
    }
}

/// What is white is what is said to be; the bits of 8 are left alone. PIL's `convert("RGB")` makes grey values above 255 white.
#[test]
fn sixteen_bits_are_as_bright_as_their_white_says() {
    let values = [0u16, 255, 256, 1000, 2047, 4095, 5000, 65535];
    let grey = DynamicImage::ImageLuma16(ImageBuffer::from_raw(8, 1, values.to_vec()).unwrap());
    let colour = DynamicImage::ImageRgb16(ImageBuffer::from_fn(8, 1, |x, _| Rgb([values[x as usize]; 3])));
    for white in [None, Some(4095), Some(255)] {
        let most = f64::from(white.unwrap_or(u16::MAX));
        let expected = values.map(|value| (f64::from(value).min(most) / most * 255.0).round() as i32);
        for (image, format) in
            [&grey, &colour].into_iter().flat_map(|image| [ImageFormat::Png, ImageFormat::Tiff].map(|of| (image, of)))
        {
            let bytes = bytes(image, format);
            assert!(header(&bytes).unwrap().deep);
            let read = decode(&bytes, white).unwrap().pixels;
            for (pixel, expected) in read.chunks(3).zip(expected) {
                // Two roundings, to 16 bits and to 8.
                assert!(pixel.iter().all(|own| (i32::from(*own) - expected).abs() <= 1), "{white:?}: {read:?}");
                assert!(pixel[0] == pixel[1] && pixel[1] == pixel[2]);
            }
        }
    }
    let eight = bytes(&DynamicImage::ImageLuma8(ImageBuffer::from_fn(3, 3, |x, _| Luma([x as u8]))), ImageFormat::Png);
    assert_eq!(decode(&eight, Some(4095)), decode(&eight, None));
}

/// A TIFF of several pages, each of what kind NewSubfileType says: 0 is a picture, 1 a smaller copy of one, 4 a mask.
fn pages(kinds: &[u32]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut file = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    for kind in kinds {
        let mut page = file.new_image::<tiff::encoder::colortype::Gray8>(20, 20).unwrap();
        page.encoder().write_tag(tiff::tags::Tag::NewSubfileType, *kind).unwrap();
        page.write_data(&[kind.to_le_bytes()[0]; 400]).unwrap();
    }
    bytes.into_inner()
}

fn frames(count: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = image::codecs::gif::GifEncoder::new(&mut bytes);
    for at in 0..count {
        let image = image::RgbaImage::from_pixel(6, 6, image::Rgba([at * 60, 0, 0, 255]));
        file.encode_frame(image::Frame::new(image)).unwrap();
    }
    drop(file);
    bytes
}

/// The same PNG with a chunk behind its header that says how many frames move.
fn moving(png: &[u8]) -> Vec<u8> {
    let chunk = [&b"acTL"[..], &2u32.to_be_bytes(), &0u32.to_be_bytes()].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);
    [&png[..33], &8u32.to_be_bytes(), &chunk, &crc.sum().to_be_bytes(), &png[33..]].concat()
}

#[test]
fn pages_and_frames_behind_the_first_are_told() {
    let still = bytes(&microscope(0, 1), ImageFormat::Png);
    for (file, more) in [
        (pages(&[0]), false),
        (pages(&[0, 1]), false),
        (pages(&[0, 4, 1]), false),
        (pages(&[0, 0]), true),
        (pages(&[0, 1, 0]), true),
        (frames(1), false),
        (frames(3), true),
        (moving(&still), true),
        (still, false),
    ] {
        assert_eq!(header(&file).unwrap().more, more);
        decode(&file, None).unwrap();
    }
    let world =
        microscopes().file("mine/train/ants/stack.tif", pages(&[0, 0, 0])).file("mine/train/bees/two.gif", frames(2));
    let said = world.run(&["data", "mine"]).exits(0).out;
    assert!(said.contains("; 2 with more pages or frames behind the first, which is read"), "{said}");
    let warned =
        "2 of the 38 files of 'mine' that were looked at hold several pages or frames, and the first of each is read";
    assert!(said.contains(warned), "{said}");
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let world = world.file("x.toml", experiment(&["linear-probe"]));
    let said = world.run(&["check", "x.toml"]).exits(0);
    assert!(said.err.contains(warned) || said.out.contains(warned), "{}{}", said.out, said.err);
}

#[test]
fn what_is_not_read_is_named_and_never_passed_over() {
    let heic = [&b"\0\0\0\x18ftypheic"[..], &[0; 40]].concat();
    let dicom = [&[0; 128][..], b"DICM", &[0; 40]].concat();
    for (bytes, name) in [(&heic, "HEIC"), (&dicom, "DICOM")] {
        let reason = decode(bytes, None).unwrap_err();
        assert!(reason.contains(name) && reason.contains("convert it to PNG or JPEG"), "{reason}");
    }
    let world = microscopes().file("mine/train/ants/phone.heic", &heic);
    let said = world.run(&["data", "mine"]).exits(0);
    assert!(said.out.contains("1 cannot be read, for example train/ants/phone.heic: it is HEIC"), "{}", said.out);
    std::fs::create_dir(world.path("new")).unwrap();
    std::fs::rename(world.path("mine/train/ants/phone.heic"), world.path("new/phone.heic")).unwrap();
    std::fs::write(world.path("new/notes.txt"), "no image").unwrap();
    let world = world.file("x.toml", experiment(&["linear-probe"]));
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    world.run(&["run", "x.toml", "--quiet"]).exits(0);
    let (trial, ..) = &trials(&world)[0];
    world.run(&["export", "x.toml", trial, "--out", "m.safetensors"]).exits(0);
    // A folder of photographs of a telephone is no folder without images.
    let said = world.run(&["predict", "m.safetensors", "new"]).exits(4);
    assert!(said.err.contains("phone.heic': it is HEIC") && said.err.contains("1 files are no images"), "{}", said.err);
}

/// Values of 12 bits under a white of 16 are told of; what the file then says of white is in the dataset's identity, and goes
/// with the network to new images.
#[test]
fn dark_images_are_told_of_and_white_goes_with_the_network() {
    let plain = experiment(&["linear-probe"]);
    let world = microscopes().file("x.toml", &plain);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let told = "images of 'mine' have 16 bits, and in 36 that were looked at 999 of 1000 values are at most ";
    // Nobody who never calls `check` misses it.
    let said = world.run(&["run", "x.toml"]).exits(0);
    assert!(said.err.contains(&format!("warning: {told}")), "{}", said.err);
    let said = world.run(&["check", "x.toml"]).exits(0);
    assert!(said.out.contains(told) && said.out.contains("white = 4095 under [datasets.mine]"), "{}", said.out);
    let said = world.run(&["data", "mine"]).exits(0);
    assert!(said.out.contains("files: 18 PNG, 18 TIFF; all 20 x 20; 36 grey; 36 of 16 bits\n"), "{}", said.out);
    assert!(said.out.contains(told), "{}", said.out);
    let dark = trials(&world);
    let bright =
        plain.replace("path = \"mine\"", "path = \"mine\"\nwhite = 4095").replace("\"mine\"\nrep", "\"bright\"\nrep");
    std::fs::write(world.path("bright.toml"), bright).unwrap();
    let said = world.run(&["check", "bright.toml"]).exits(0);
    assert!(!said.out.contains("warning: images of") && !said.out.contains("no effect"), "{}", said.out);
    world.run(&["run", "bright.toml", "--quiet"]).exits(0);
    let bright: Vec<_> = trials(&world).into_iter().filter(|trial| !dark.contains(trial)).collect();
    assert_eq!(bright.len(), 1);
    let (trial, _, probabilities) = &bright[0];
    world.run(&["export", "bright.toml", trial, "--out", "m.safetensors"]).exits(0);
    assert_eq!(of_truth(&predict(&world, &["m.safetensors", "mine/test"])), *probabilities);
    // Too low a white cuts off, and one of images of 8 bits does nothing.
    std::fs::write(world.path("low.toml"), plain.replace("path = \"mine\"", "path = \"mine\"\nwhite = 255")).unwrap();
    let said = world.run(&["check", "low.toml"]).exits(0);
    assert!(said.out.contains("are above white = 255 and become white: 4095 would keep them apart"), "{}", said.out);
    let white = plain.replace("path = \"mine\"", "path = \"mine\"\nwhite = 4095");
    let world = World::new().images("mine", &["ants", "bees"], 12, 6).file("x.toml", white);
    network(&world, "w.safetensors", &Arch::new("resnet8", 32, 1.0));
    let said = world.run(&["check", "x.toml"]).exits(0);
    assert!(
        said.out
            .contains("white = 4095 of 'mine' has no effect on 36 of its images that were looked at: none has 16 bits"),
        "{}",
        said.out
    );
    std::fs::write(world.path("x.toml"), plain.replace("path = \"mine\"", "path = \"mine\"\nwhite = 70000")).unwrap();
    let said = world.run(&["check", "x.toml"]).exits(2);
    assert!(said.err.contains("70000 is beyond the most that is taken, 65535"), "{}", said.err);
}
