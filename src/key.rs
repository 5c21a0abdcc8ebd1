//! Keys: the one equality from which resume, caching and de-duplication follow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Raised by hand whenever the numbers that a configuration leads to change.
/// A golden test fails when bits change and this does not.
pub const ENGINE: u32 = 5;

/// The first 128 bits of a BLAKE3 hash, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// The key of `value`: the hash of its kind, the engine and its canonical JSON.
    /// Struct fields keep their order and map keys are sorted, so equal values give equal text.
    pub fn of<T: Serialize>(kind: &str, value: &T) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes());
        hasher.update(&ENGINE.to_le_bytes());
        serde_json::to_writer(&mut hasher, value).expect("plain structs and maps with string keys always serialise");
        Self::from_hash(&hasher.finalize())
    }

    /// The key of raw bytes, for content such as images and weight files.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(bytes))
    }

    /// Takes the first half of a finished hash.
    pub fn from_hash(hash: &blake3::Hash) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        Self(half)
    }

    /// The first twelve digits: what tables show and commands accept.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    /// Its first 64 bits, to seed what depends on it.
    pub fn word(&self) -> u64 {
        self.0[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// Reads 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Key::parse(&text).ok_or_else(|| serde::de::Error::custom("a key has 32 hex digits"))
    }
}
