//! SHA-256 of what a dataset comes as: what `sha256` pins.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use sha2::{Digest, Sha256};

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(path: &Path) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let cannot = || format!("cannot read '{}'", path.display());
    let mut file = std::fs::File::open(path).with_context(cannot)?;
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part).with_context(cannot)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hasher.update(&part[..read]),
        }
    }
}

/// The SHA-256 of several named byte strings, in hex.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
