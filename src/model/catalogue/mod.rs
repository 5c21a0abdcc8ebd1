//! Weight files that are known by their content: what is known of each, and which one a file is.

mod known;

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use sha2::Digest;

pub use self::known::KNOWN;
use crate::frame::Resize;
use crate::preprocess::Preprocess;

/// What is published about a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha256(&'static str),
    /// The first digits of the SHA-256, as PyTorch puts them into file names.
    Sha256Prefix(&'static str),
    Md5(&'static str),
    /// The file is listed for its address; its content cannot be told.
    Unpublished,
}

/// A weight file that this version knows. Identity is the content, never the name.
pub struct Known {
    pub name: &'static str,
    /// Of its file name.
    pub ending: &'static str,
    pub hash: Hash,
    pub arch: &'static str,
    pub width: f64,
    pub input: usize,
    pub preprocess: Preprocess,
    /// How its authors brought images to the input's size when they measured it.
    pub resize: Resize,
    /// Where the numbers come from.
    pub lineage: &'static str,
    pub published: Published,
}

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// A folder below keras-applications; none is that itself.
    Keras(&'static str),
    Torch,
    /// A folder of somebody else's.
    Below(&'static str),
    /// As it is, nowhere.
    Nowhere,
}

/// What a file on disk is.
pub struct Identity {
    pub sha256: String,
    pub md5: String,
    pub bytes: u64,
    pub known: Option<&'static Known>,
}

/// Reads a file once, in pieces, and looks its hashes up.
///
/// # Errors
/// The file cannot be read.
pub fn identify(path: &Path) -> anyhow::Result<Identity> {
    let shown = || format!("cannot read the weights '{}'", path.display());
    let mut file = std::fs::File::open(path).with_context(shown)?;
    let (mut sha, mut md5) = (sha2::Sha256::new(), md5::Md5::new());
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut piece).with_context(shown)?;
        if read == 0 {
            break;
        }
        sha.update(&piece[..read]);
        md5::Digest::update(&mut md5, &piece[..read]);
        bytes += read as u64;
    }
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (sha256, md5) = (hex(&sha.finalize()), hex(&md5::Digest::finalize(md5)));
    let known = KNOWN.iter().find(|known| match known.hash {
        Hash::Sha256(hash) => hash == sha256,
        Hash::Sha256Prefix(prefix) => sha256.starts_with(prefix),
        Hash::Md5(hash) => hash == md5,
        Hash::Unpublished => false,
    });
    Ok(Identity { sha256, md5, bytes, known })
}

impl Known {
    /// Where the file is and what is published about its bytes.
    pub fn source(&self) -> String {
        let hash = match self.hash {
            Hash::Sha256(hash) => format!("sha256 {hash}"),
            Hash::Sha256Prefix(prefix) => format!("sha256 {prefix}..."),
            Hash::Md5(hash) => format!("md5 {hash}"),
            Hash::Unpublished => "no hash is published".to_owned(),
        };
        self.url().map_or_else(|| hash.clone(), |url| format!("{url} ({hash})"))
    }

    /// The file's address, if it is anywhere as it is.
    pub fn url(&self) -> Option<String> {
        const KERAS: &str = "https://storage.googleapis.com";
        let folder = match self.published {
            Published::Keras("") => format!("{KERAS}/keras-applications"),
            Published::Keras(folder) => format!("{KERAS}/tensorflow/keras-applications/{folder}"),
            Published::Torch => "https://download.pytorch.org/models".to_owned(),
            Published::Below(folder) => folder.to_owned(),
            Published::Nowhere => return None,
        };
        Some(format!("{folder}/{}{}", self.name, self.ending))
    }

    /// What a person must do to have this file in `folder`.
    pub fn how_to_get(&self, folder: &Path) -> String {
        let place = folder.join(format!("{}{}", self.name, self.ending));
        match self.url() {
            Some(_) => format!("fetch {} and put it at '{}'", self.source(), place.display()),
            None => format!(
                "put {}{} ({}; {}) into '{}'",
                self.name,
                self.ending,
                self.lineage,
                self.source(),
                folder.display()
            ),
        }
    }
}
