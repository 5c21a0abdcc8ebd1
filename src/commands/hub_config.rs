//! What a model of the Hugging Face hub says of the images that come before it: `preprocessor_config.json` of transformers, and the
//! `pretrained_cfg` in timm's `config.json`.

use serde_json::Value;

use crate::frame::Resize;
use crate::preprocess::Preprocess;

/// The files that may say it, the first that is there and does.
pub const FILES: [&str; 2] = ["preprocessor_config.json", "config.json"];

/// What was said; what there is no word for here is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub preprocess: Option<Preprocess>,
    pub resize: Option<Resize>,
    /// Pixels of a side.
    pub input: Option<usize>,
}

/// What a file says, if it says anything of images.
pub fn told(text: &str) -> Option<Told> {
    let file: Value = serde_json::from_str(text).ok()?;
    let found = match file.get("pretrained_cfg") {
        Some(timm) => of_timm(timm),
        None => of_transformers(&file),
    };
    (found != Told::default()).then_some(found)
}

/// timm 1.0: a share of the shorter side, or all of the image.
fn of_timm(file: &Value) -> Told {
    let resize = || {
        let kept = match (file.get("crop_mode").and_then(Value::as_str), number(file, "crop_pct")) {
            (Some("squash"), _) => Some(Resize::STRETCH),
            (Some("center") | None, Some(share)) => share_of(share),
            _ => None,
        }?;
        let filter = file.get("interpolation")?.as_str()?;
        filtered(kept, filter == "bicubic", filter == "bilinear")
    };
    Told {
        preprocess: standard(file, "mean", "std"),
        resize: resize(),
        input: file.get("input_size").and_then(|size| side(size.get(1), size.get(2))),
    }
}

/// transformers 5.24: all of an image where `size` has a height and a width or is a number, else a square of its shorter side.
fn of_transformers(file: &Value) -> Told {
    let is = |key: &str| file.get(key).and_then(Value::as_bool);
    let size = file.get("size");
    let of = |size: Option<&Value>| match size {
        Some(Value::Number(_)) => side(size, size),
        Some(sides) => side(sides.get("height"), sides.get("width")),
        None => None,
    };
    let shorter = size.and_then(|size| size.get("shortest_edge")).and_then(Value::as_u64).map(|edge| edge as usize);
    let cropped = of(file.get("crop_size")).filter(|_| is("do_center_crop") == Some(true));
    let kept = match (of(size), shorter, cropped) {
        (Some(whole), _, None) => Some((Resize::STRETCH, whole)),
        // ConvNeXt's: the shorter side is brought to so much more than the square that is kept.
        (None, Some(edge), None) => {
            number(file, "crop_pct").and_then(share_of).map(|kept| (kept, edge)).filter(|_| edge < 384)
        }
        (None, Some(edge), Some(own)) if own <= edge => share_of(own as f64 / edge as f64).map(|kept| (kept, own)),
        _ => None,
    };
    let filter = file.get("resample").and_then(Value::as_u64);
    let resize = kept.filter(|_| is("do_resize") != Some(false)).and_then(|(kept, _)| {
        // Pillow's numbers of its filters.
        filtered(kept, filter == Some(3), filter == Some(2))
    });
    let scale = number(file, "rescale_factor").unwrap_or(1.0 / 255.0);
    let plain =
        (scale * 255.0 - 1.0).abs() < 1e-6 && is("rescale_offset") != Some(true) && is("do_rescale") != Some(false);
    let preprocess = match is("do_normalize") {
        Some(false) => Some(Preprocess::ZeroOne),
        _ => standard(file, "image_mean", "image_std"),
    };
    let says = file.get("image_mean").is_some() || file.get("image_processor_type").is_some();
    Told {
        preprocess: preprocess.filter(|_| plain && says),
        resize: resize.filter(|_| says),
        input: kept.map(|(_, side)| side).filter(|_| says),
    }
}

fn number(file: &Value, key: &str) -> Option<f64> {
    file.get(key)?.as_f64()
}

fn share_of(share: f64) -> Option<Resize> {
    let thousandths = (share * 1000.0).round();
    (100.0..=1000.0).contains(&thousandths).then(|| Resize::crop(thousandths as u16))
}

/// The two filters that there are here.
fn filtered(kept: Resize, bicubic: bool, bilinear: bool) -> Option<Resize> {
    if bicubic { Some(kept.bicubic()) } else { bilinear.then_some(kept) }
}

/// Of squares only.
fn side(height: Option<&Value>, width: Option<&Value>) -> Option<usize> {
    let height = height?.as_u64()?;
    (width?.as_u64()? == height && height > 0).then_some(height as usize)
}

fn standard(file: &Value, mean: &str, deviation: &str) -> Option<Preprocess> {
    let three = |key: &str| {
        let numbers: Vec<f32> =
            file.get(key)?.as_array()?.iter().map(|n| n.as_f64().map(|n| n as f32)).collect::<Option<_>>()?;
        <[f32; 3]>::try_from(numbers).ok()
    };
    let [mean, deviation] = [three(mean)?, three(deviation)?];
    // Read as a person would write it, which also says what numbers are none of these.
    let shown = |numbers: [f32; 3]| numbers.map(|number| number.to_string()).join(" ");
    Preprocess::parse(&format!("mean {} std {}", shown(mean), shown(deviation))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> [String; 3] {
        let found = told(text).unwrap_or_default();
        let or = |word: Option<String>| word.unwrap_or_default();
        [
            or(found.preprocess.map(|own| own.to_string())),
            or(found.resize.map(|own| own.to_string())),
            or(found.input.map(|own| own.to_string())),
        ]
    }

    #[test]
    fn what_files_of_the_hub_say_of_images() {
        let clip = r#"{"crop_size":{"height":224,"width":224},"do_center_crop":true,"do_normalize":true,"do_resize":true,
            "image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711],"resample":3,
            "size":{"shortest_edge":224}}"#;
        assert_eq!(shown(clip), ["clip", "crop bicubic", "224"]);
        let dinov2 = r#"{"crop_size":{"height":224,"width":224},"do_center_crop":true,"do_rescale":true,"image_mean":[0.485,0.456,0.406],
            "image_std":[0.229,0.224,0.225],"resample":3,"rescale_factor":0.00392156862745098,"size":{"shortest_edge":256}}"#;
        assert_eq!(shown(dinov2), ["torch", "crop 0.875 bicubic", "224"]);
        let google = r#"{"do_normalize":true,"do_resize":true,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"size":224,"resample":2}"#;
        assert_eq!(shown(google), ["tf", "stretch", "224"]);
        let convnext = r#"{"crop_pct":0.875,"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3,
            "size":{"shortest_edge":224}}"#;
        assert_eq!(shown(convnext), ["torch", "crop 0.875 bicubic", "224"]);
        let satellites = r#"{"image_mean":[0.43,0.411,0.296],"image_std":[0.213,0.156,0.143],"resample":2,"size":{"height":224,"width":224}}"#;
        assert_eq!(shown(satellites), ["mean 0.43 0.411 0.296 std 0.213 0.156 0.143", "stretch", "224"]);
        let timm = r#"{"architecture":"vit_base_patch16_siglip_384","pretrained_cfg":{"crop_mode":"squash","crop_pct":1.0,"input_size":[3,384,384],
            "interpolation":"bicubic","mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]}}"#;
        assert_eq!(shown(timm), ["tf", "stretch bicubic", "384"]);
    }

    /// What there is no word for is not said, and what says nothing of images says nothing.
    #[test]
    fn what_has_no_word_here_is_left_out() {
        let offset = r#"{"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"rescale_factor":0.00784313725490196,"rescale_offset":true,
            "size":{"height":346,"width":346},"do_center_crop":true,"crop_size":{"height":289,"width":289},"resample":0}"#;
        assert_eq!(shown(offset), ["", "", ""]);
        let lanczos =
            r#"{"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"size":{"height":224,"width":200},"resample":1}"#;
        assert_eq!(shown(lanczos), ["tf", "", ""]);
        for other in [r#"{"model_type":"vit","image_size":224}"#, "[]", "no json", r#"{"size":{"height":5,"width":5}}"#]
        {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
