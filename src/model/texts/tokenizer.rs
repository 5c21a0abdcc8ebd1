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
    let own = own_place(weights);
    let message = format!("there is no tokenizer of '{}': neither '{}' nor '{NAME}'", shown(weights), shown(&own));
    [own, weights.with_file_name(NAME)].into_iter().find(|place| place.is_file()).ok_or(message)
}

/// Where `weights get` puts it.
pub fn own_place(weights: &Path) -> PathBuf {
    let stem = weights.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    weights.with_file_name(format!("{stem}.{NAME}"))
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file is a tokenizer of weights that know so many tokens.
///
/// # Errors
/// It is none, or has more tokens.
pub fn check(file: &Path, vocabulary: usize) -> anyhow::Result<()> {
    let tokens = Tokenizer::from_file(file).map_err(|error| wrong(file, error))?.get_vocab_size(true);
    anyhow::ensure!(
        tokens <= vocabulary,
        "the tokenizer '{}' has {tokens} tokens, and the weights have {vocabulary}: it is of another network",
        file.display()
    );
    Ok(())
}

fn wrong(file: &Path, error: tokenizers::Error) -> anyhow::Error {
    anyhow::anyhow!("'{}' is no tokenizer that can be used: {error}", file.display())
}

/// Texts as tokens, with those that begin and end them; of a longer text the first, and the one that ends it.
///
/// # Errors
/// The file is no tokenizer, or makes no tokens of a text.
pub fn tokens(file: &Path, texts: &[String], most: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let wrong = |error| wrong(file, error);
    let mut tokenizer = Tokenizer::from_file(file).map_err(wrong)?;
    let cut = TruncationParams { max_length: most, ..TruncationParams::default() };
    tokenizer.with_padding(None).with_truncation(Some(cut)).map_err(wrong)?;
    texts.iter().map(|text| Ok(tokenizer.encode(text.as_str(), true).map_err(wrong)?.get_ids().to_vec())).collect()
}
