//! How texts become tokens: a `tokenizer.json` of Hugging Face's tokenizers, which lies beside the weights.

use std::path::{Path, PathBuf};

use tokenizers::{Tokenizer, TruncationParams};

/// What such files are called on the hub.
pub const NAME: &str = "tokenizer.json";

/// Where the tokenizer of a weight file is: under its name, as `weights get` puts it, or under the hub's.
///
/// # Errors
/// It is at neither place; says both.
pub fn beside(weights: &Path) -> Result<PathBuf, String> {
    let places = [own_place(weights), weights.with_file_name(NAME)];
    let [own, common] = &places;
    let message = format!("there is no tokenizer of '{}': neither '{}' nor '{}'", shown(weights), shown(own), NAME);
    let found = places.iter().find(|place| place.is_file()).cloned();
    debug_assert_ne!(own, common);
    found.ok_or(message)
}

/// Where `weights get` puts it.
pub fn own_place(weights: &Path) -> PathBuf {
    let stem = weights.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    weights.with_file_name(format!("{stem}.{NAME}"))
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Texts as tokens, with those that begin and end them.
///
/// # Errors
/// The file is no tokenizer, or a text has no tokens.
pub fn tokens(file: &Path, texts: &[String], most: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let wrong = |error: tokenizers::Error| anyhow::anyhow!("the tokenizer '{}': {error}", file.display());
    let mut tokenizer = Tokenizer::from_file(file).map_err(wrong)?;
    let cut = TruncationParams { max_length: most, ..TruncationParams::default() };
    tokenizer.with_padding(None).with_truncation(Some(cut)).map_err(wrong)?;
    texts.iter().map(|text| Ok(tokenizer.encode(text.as_str(), true).map_err(wrong)?.get_ids().to_vec())).collect()
}
