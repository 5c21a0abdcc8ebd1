//! What a model of the Hugging Face hub says of the images that come before it: `preprocessor_config.json` of transformers, and the
//! `pretrained_cfg` in timm's `config.json`.

use serde_json::Value;

use crate::frame::Resize;
use crate::preprocess::Preprocess;

/// The files that may say it, the first that is there and does.
pub const FILES: [&str; 2] = ["preprocessor_config.json", "config.json"];

/// What was said of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said<T> {
    #[default]
    Nothing,
    This(T),
    /// Something that there is no word for here.
    Else,
}

impl<T> Said<T> {
    fn of(found: Option<T>) -> Self {
        found.map_or(Self::Else, Self::This)
    }
}

/// What was said of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub preprocess: Said<Preprocess>,
    pub resize: Said<Resize>,
    /// Pixels of a side.
    pub input: Option<usize>,
}

/// What a file says, if it says anything of images.
pub fn told(text: &str) -> Option<Told> {
    let file: Value = serde_json::from_str(text).ok()?;
    match file.get("pretrained_cfg") {
        Some(timm) => timm.get("mean").is_some().then(|| of_timm(timm)),
        None => file.get("image_mean").is_some().then(|| of_transformers(&file)),
    }
}

/// timm 1.0: a share of the shorter side, or all of the image.
fn of_timm(file: &Value) -> Told {
    let kept = match (text(file, "crop_mode"), number(file, "crop_pct")) {
        (Some("squash"), _) => Some(Resize::STRETCH),
        (Some("center") | None, Some(share)) => share_of(share),
        _ => None,
    };
    let filter = text(file, "interpolation");
    Told {
        preprocess: Said::of(standard(file, "mean", "std")),
        resize: Said::of(kept.and_then(|kept| filtered(kept, filter == Some("bicubic"), filter == Some("bilinear")))),
        input: file.get("input_size").and_then(|size| side(size.get(1), size.get(2))),
    }
}

/// transformers 5.24: all of an image where `size` has a height and a width, a square of its shorter side where it has that. Of a
/// plain number the class says which of the two it is.
fn of_transformers(file: &Value) -> Told {
    let is = |key: &str| file.get(key).and_then(Value::as_bool);
    let class = text(file, "image_processor_type").or(text(file, "feature_extractor_type")).unwrap_or_default();
    let of_shorter = ["CLIP", "ConvNext", "Bit", "MobileNet", "Levit"].iter().any(|own| class.contains(own));
    let sides = |size: Option<&Value>| match size {
        Some(Value::Number(_)) => side(size, size),
        Some(sides) => side(sides.get("height"), sides.get("width")),
        None => None,
    };
    let size = file.get("size");
    let plain = size.is_some_and(Value::is_number);
    let whole = sides(size).filter(|_| !(plain && of_shorter));
    let shorter = size.and_then(|size| if plain && of_shorter { Some(size) } else { size.get("shortest_edge") });
    let shorter = shorter.and_then(Value::as_u64).map(|edge| edge as usize);
    let cropped = sides(file.get("crop_size")).filter(|_| is("do_center_crop") == Some(true));
    let kept = match (whole, shorter, cropped) {
        (Some(whole), _, None) => Some((Resize::STRETCH, whole)),
        // ConvNeXt's: the shorter side is brought to so much more than the square that is kept; large images are taken whole.
        (None, Some(edge), None) => {
            let kept = if edge < 384 { number(file, "crop_pct").and_then(share_of) } else { Some(Resize::STRETCH) };
            kept.filter(|_| file.get("crop_pct").is_some()).map(|kept| (kept, edge))
        }
        (None, Some(edge), Some(own)) if own <= edge => share_of(own as f64 / edge as f64).map(|kept| (kept, own)),
        _ => None,
    };
    // Pillow's numbers of its filters.
    let filter = file.get("resample").and_then(Value::as_u64);
    let resize = kept
        .filter(|_| is("do_resize") != Some(false))
        .and_then(|(kept, _)| filtered(kept, filter == Some(3), filter == Some(2)));
    let scale = number(file, "rescale_factor").unwrap_or(1.0 / 255.0);
    let by_255 = (scale * 255.0 - 1.0).abs() < 1e-6 && is("rescale_offset") != Some(true);
    let preprocess = match is("do_normalize") {
        Some(false) => Some(Preprocess::ZeroOne),
        _ => standard(file, "image_mean", "image_std"),
    };
    Told {
        preprocess: Said::of(preprocess.filter(|_| by_255 && is("do_rescale") != Some(false))),
        resize: Said::of(resize),
        input: kept.map(|(_, side)| side),
    }
}

fn text<'a>(file: &'a Value, key: &str) -> Option<&'a str> {
    file.get(key)?.as_str()
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
        fn word<T: ToString>(said: Said<T>) -> String {
            match said {
                Said::Nothing => String::new(),
                Said::This(own) => own.to_string(),
                Said::Else => "?".to_owned(),
            }
        }
        let found = told(text).unwrap_or_default();
        [word(found.preprocess), word(found.resize), found.input.map_or_else(String::new, |side| side.to_string())]
    }

    #[test]
    fn what_files_of_the_hub_say_of_images() {
        let clip = r#"{"crop_size":{"height":224,"width":224},"do_center_crop":true,"do_normalize":true,"do_resize":true,
            "image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711],"resample":3,
            "size":{"shortest_edge":224}}"#;
        assert_eq!(shown(clip), ["clip", "crop bicubic", "224"]);
        let older = r#"{"crop_size":224,"do_center_crop":true,"feature_extractor_type":"CLIPFeatureExtractor","resample":3,"size":224,
            "image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711]}"#;
        assert_eq!(shown(older), ["clip", "crop bicubic", "224"]);
        let dinov2 = r#"{"crop_size":{"height":224,"width":224},"do_center_crop":true,"do_rescale":true,"image_mean":[0.485,0.456,0.406],
            "image_std":[0.229,0.224,0.225],"resample":3,"rescale_factor":0.00392156862745098,"size":{"shortest_edge":256}}"#;
        assert_eq!(shown(dinov2), ["torch", "crop 0.875 bicubic", "224"]);
        let google = r#"{"do_normalize":true,"do_resize":true,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"size":224,"resample":2}"#;
        assert_eq!(shown(google), ["tf", "stretch", "224"]);
        let convnext = r#"{"crop_pct":0.875,"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3,
            "size":{"shortest_edge":224}}"#;
        assert_eq!(shown(convnext), ["torch", "crop 0.875 bicubic", "224"]);
        let older = r#"{"crop_pct":0.875,"feature_extractor_type":"ConvNextFeatureExtractor","image_mean":[0.485,0.456,0.406],
            "image_std":[0.229,0.224,0.225],"resample":3,"size":224}"#;
        assert_eq!(shown(older), ["torch", "crop 0.875 bicubic", "224"]);
        let large = r#"{"crop_pct":1.0,"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3,
            "size":{"shortest_edge":384}}"#;
        assert_eq!(shown(large), ["torch", "stretch bicubic", "384"]);
        let satellites = r#"{"image_mean":[0.43,0.411,0.296],"image_std":[0.213,0.156,0.143],"resample":2,"size":{"height":224,"width":224}}"#;
        assert_eq!(shown(satellites), ["mean 0.43 0.411 0.296 std 0.213 0.156 0.143", "stretch", "224"]);
        let timm = r#"{"architecture":"vit_base_patch16_siglip_384","pretrained_cfg":{"crop_mode":"squash","crop_pct":1.0,"input_size":[3,384,384],
            "interpolation":"bicubic","mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]}}"#;
        assert_eq!(shown(timm), ["tf", "stretch bicubic", "384"]);
    }

    /// What there is no word for is told to be so, and what says nothing of images says nothing.
    #[test]
    fn what_has_no_word_here_is_told() {
        let offset = r#"{"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"rescale_factor":0.00784313725490196,"rescale_offset":true,
            "size":{"height":346,"width":346},"do_center_crop":true,"crop_size":{"height":289,"width":289},"resample":0}"#;
        assert_eq!(shown(offset), ["?", "?", ""]);
        let lanczos =
            r#"{"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"size":{"height":224,"width":200},"resample":1}"#;
        assert_eq!(shown(lanczos), ["tf", "?", ""]);
        // DeiT brings all of an image to 256 pixels and cuts 224 of them out.
        let deit = r#"{"crop_size":224,"do_center_crop":true,"feature_extractor_type":"DeiTFeatureExtractor","resample":3,"size":256,
            "image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225]}"#;
        assert_eq!(shown(deit), ["torch", "?", ""]);
        for other in [r#"{"model_type":"vit","image_size":224}"#, "[]", "no json", r#"{"size":{"height":5,"width":5}}"#]
        {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
