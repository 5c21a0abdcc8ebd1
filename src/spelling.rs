//! The known word nearest to a mistyped one.

/// The accepted word nearest to `found`, if one is near enough to be meant.
pub fn nearest<'a>(found: &str, accepted: impl IntoIterator<Item = &'a str>) -> Option<String> {
    accepted
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(found, word), word))
        .filter(|(distance, word)| *distance <= word.len().max(found.len()).div_ceil(3))
        .min()
        .map(|(_, word)| word.to_owned())
}
