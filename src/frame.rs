//! How an image of any size becomes the square that a network reads.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What of an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Resize {
    /// All of it, whatever its shape: Keras' `target_size`.
    Stretch,
    /// The square in its middle, of so many thousandths of its shorter side: 875 is torchvision's 256 and 224 pixels.
    Crop(u16),
}

/// What values are accepted, for messages.
pub const RESIZES: &str = "'crop', 'crop 0.875' (a share of the shorter side) or 'stretch'";

impl Resize {
    /// The square of the whole shorter side.
    pub const WHOLE: Self = Self::Crop(1000);

    /// Reads the text of a setting.
    ///
    /// # Errors
    /// The text is none of those accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {RESIZES}, found '{text}'");
        match text.split_once(' ') {
            None if text == "crop" => Ok(Self::WHOLE),
            None if text == "stretch" => Ok(Self::Stretch),
            Some(("crop", share)) => {
                let share: f64 = share.parse().map_err(|_| wrong())?;
                let thousandths = (share * 1000.0).round();
                if (100.0..=1000.0).contains(&thousandths) { Ok(Self::Crop(thousandths as u16)) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Stretch => f.write_str("stretch"),
            Self::Crop(1000) => f.write_str("crop"),
            Self::Crop(thousandths) => write!(f, "crop {}", f64::from(*thousandths) / 1000.0),
        }
    }
}

impl TryFrom<String> for Resize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Resize> for String {
    fn from(resize: Resize) -> Self {
        resize.to_string()
    }
}

/// A square of pixels, and how it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frame {
    pub side: usize,
    pub resize: Resize,
}
