//! `hf:OWNER/NAME`: where a file of the Hugging Face hub is, what it is called here, and who asks for it.

use std::path::PathBuf;

use anyhow::Context;

use super::Usage;
use super::download::small;
use super::hub_config::{FILES, Told, told};
use crate::model::texts::tokenizer;

/// What the words begin with.
const PREFIX: &str = "hf:";
const SERVER: &str = "https://huggingface.co";
/// What most models have there.
const USUAL: &str = "model.safetensors";

/// A file of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfHub {
    pub url: String,
    /// Of the file here: models there share the names of their files.
    pub name: String,
    /// Before the names of the model's other files.
    beside: String,
}

impl OfHub {
    /// Where the model's tokenizer is.
    pub fn tokenizer(&self) -> String {
        format!("{}{}", self.beside, tokenizer::NAME)
    }

    /// What the model says of the images that come before it, and the file that says it.
    pub fn told(&self, token: Option<&str>) -> Option<(&'static str, Told)> {
        FILES.into_iter().find_map(|name| Some((name, told(&small(&format!("{}{name}", self.beside), token)?)?)))
    }
}

/// The file of `server` that `what` means: `hf:OWNER/NAME`, or one of its files behind another slash. None of what does not begin so.
///
/// # Errors
/// The words are not a model's, or those of no weight file.
pub fn of_hub(what: &str, server: &str) -> anyhow::Result<Option<OfHub>> {
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
    let server = server.trim_end_matches('/');
    Ok(Some(OfHub {
        url: format!("{server}/{owner}/{name}/resolve/main/{path}"),
        beside: format!("{server}/{owner}/{name}/resolve/main/"),
        name: format!("{name}{beside}.{ending}"),
    }))
}

/// The hub, or what stands in its place for all programs of this machine.
pub fn server() -> String {
    set("HF_ENDPOINT").unwrap_or_else(|| SERVER.to_owned())
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The token of the person who asks, where Hugging Face's own programs look for it (huggingface_hub 2.4): in `HF_TOKEN`, or in the
/// file that `hf auth login` writes. Some models are given only to those who have accepted their terms.
///
/// # Errors
/// What is there is no token.
pub fn token() -> anyhow::Result<Option<String>> {
    let home = || {
        let cache =
            set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
        set("HF_HOME").map(PathBuf::from).or_else(|| Some(cache?.join("huggingface")))
    };
    let file = set("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home()?.join("token")));
    let (found, place) = match (set("HF_TOKEN"), file) {
        (Some(token), _) => (token, "HF_TOKEN".to_owned()),
        (None, Some(file)) if file.is_file() => {
            let shown = file.display().to_string();
            (std::fs::read_to_string(&file).with_context(|| format!("cannot read the token in '{shown}'"))?, shown)
        }
        _ => return Ok(None),
    };
    let token = found.trim();
    let fine = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    anyhow::ensure!(fine, Usage(format!("{place} holds no token of the hub")));
    Ok(Some(token.to_owned()))
}

/// What a person may do about a model that the hub will not give; `status` begins with its answer, `told` is whether it was told
/// who asks.
pub fn hint(what: &str, status: &str, told: bool) -> String {
    let model = what.strip_prefix(PREFIX).unwrap_or(what).split('/').take(2).collect::<Vec<_>>().join("/");
    let page = format!("{}/{model}", server().trim_end_matches('/'));
    match (status.starts_with("401") || status.starts_with("403"), told) {
        (true, false) => format!(
            ": there is no such model, or the hub gives it only to those who have accepted its terms. Accept them on {page}, and put \
             a token of yours ({SERVER}/settings/tokens) into HF_TOKEN"
        ),
        (true, true) => format!(": your token does not open it. Its terms must be accepted on {page}"),
        _ => ": the hub has no such file; name it: hf:OWNER/NAME/FILE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_the_hub_has_an_address_and_a_name() {
        let of = |what: &str, server: &str| {
            of_hub(what, server)
                .map(|found| found.map(|found| (found.url, found.name)))
                .map_err(|error| error.to_string())
        };
        let found = |url: &str, name: &str| Ok(Some((url.to_owned(), name.to_owned())));
        assert_eq!(
            of("hf:openai/clip-vit-base-patch32", SERVER),
            found(
                "https://huggingface.co/openai/clip-vit-base-patch32/resolve/main/model.safetensors",
                "clip-vit-base-patch32.safetensors"
            )
        );
        assert_eq!(
            of("hf:timm/vit_base.openai/a/open_clip_model.bin", "http://mirror/"),
            found(
                "http://mirror/timm/vit_base.openai/resolve/main/a/open_clip_model.bin",
                "vit_base.openai-open_clip_model.bin"
            )
        );
        assert_eq!(of("vgg19-dcbb9e9d", SERVER), Ok(None));
        for wrong in ["hf:openai", "hf:openai/", "hf:/x", "hf:a/b/../c.bin", "hf:a/b c", "hf:a/b/c", "hf:a/b?x"] {
            assert!(of(wrong, SERVER).is_err(), "{wrong}");
        }
    }
}
