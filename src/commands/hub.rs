//! `hf:OWNER/NAME`: where a file of the Hugging Face hub is, and what it is called here.

use super::Usage;

/// What the words begin with.
const PREFIX: &str = "hf:";
const SERVER: &str = "https://huggingface.co";
/// What most models have there.
const USUAL: &str = "model.safetensors";

/// A file of the hub.
#[derive(Debug, PartialEq, Eq)]
pub struct OfHub {
    pub url: String,
    /// Of the file here: models there share the names of their files.
    pub name: String,
}

/// The file that `what` means: `hf:OWNER/NAME`, or one of its files behind another slash; `from` is a server in the hub's place.
/// None of what does not begin so.
///
/// # Errors
/// The words are not a model's, or those of no weight file.
pub fn of_hub(what: &str, from: Option<&str>) -> anyhow::Result<Option<OfHub>> {
    let Some(rest) = what.strip_prefix(PREFIX) else { return Ok(None) };
    let words: Vec<&str> = rest.split('/').collect();
    let fine = |word: &&str| {
        let letters = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        letters && !word.is_empty() && !word.starts_with('.')
    };
    let ([owner, name, file @ ..], true) = (&words[..], words.iter().all(fine)) else {
        return Err(Usage(format!(
            "'{what}' names no model of the hub: {PREFIX}OWNER/NAME, or {PREFIX}OWNER/NAME/FILE"
        ))
        .into());
    };
    let path = if file.is_empty() { USUAL.to_owned() } else { file.join("/") };
    let last = path.rsplit('/').next().unwrap_or(&path);
    let Some((stem, ending)) = last.rsplit_once('.') else {
        return Err(Usage(format!("'{last}' of '{what}' has no ending that weights have")).into());
    };
    let beside = if file.is_empty() { String::new() } else { format!("-{stem}") };
    let server = from.unwrap_or(SERVER).trim_end_matches('/');
    Ok(Some(OfHub {
        url: format!("{server}/{owner}/{name}/resolve/main/{path}"),
        name: format!("{name}{beside}.{ending}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_the_hub_has_an_address_and_a_name() {
        let of = |what: &str, from: Option<&str>| {
            of_hub(what, from)
                .map(|found| found.map(|found| (found.url, found.name)))
                .map_err(|error| error.to_string())
        };
        let found = |url: &str, name: &str| Ok(Some((url.to_owned(), name.to_owned())));
        assert_eq!(
            of("hf:openai/clip-vit-base-patch32", None),
            found(
                "https://huggingface.co/openai/clip-vit-base-patch32/resolve/main/model.safetensors",
                "clip-vit-base-patch32.safetensors"
            )
        );
        assert_eq!(
            of("hf:timm/vit_base.openai/a/open_clip_model.bin", Some("http://mirror/")),
            found(
                "http://mirror/timm/vit_base.openai/resolve/main/a/open_clip_model.bin",
                "vit_base.openai-open_clip_model.bin"
            )
        );
        assert_eq!(of("vgg19-dcbb9e9d", None), Ok(None));
        for wrong in ["hf:openai", "hf:openai/", "hf:/x", "hf:a/b/../c.bin", "hf:a/b c", "hf:a/b/c", "hf:a/b?x"] {
            assert!(of(wrong, None).is_err(), "{wrong}");
        }
    }
}
