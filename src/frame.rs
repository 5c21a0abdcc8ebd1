//! How an image of any size becomes the square that a network reads.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an image is brought to a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resize {
    pub kept: Kept,
    pub filter: Filter,
}

/// What of an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kept {
    /// All of it, whatever its shape: Keras' `target_size`.
    All,
    /// The square in its middle, of so many thousandths of its shorter side: 875 is torchvision's 256 and 224 pixels.
    Middle(u16),
}

/// What a pixel is made of, both wider where an image shrinks, as Pillow has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    Bilinear,
    /// Keys' (1981), with a = -1/2.
    Bicubic,
}

/// What values are accepted, for messages.
pub const RESIZES: &str = "'crop', 'crop 0.875' (a share of the shorter side) or 'stretch', and 'bicubic' behind it for another filter than the bilinear";

/// The word behind the others.
const BICUBIC: &str = " bicubic";

impl Resize {
    /// The square of the whole shorter side.
    pub const WHOLE: Self = Self::crop(1000);
    /// All of an image, whatever its shape.
    pub const STRETCH: Self = Self { kept: Kept::All, filter: Filter::Bilinear };

    /// The square in the middle, of so many thousandths of the shorter side.
    pub const fn crop(thousandths: u16) -> Self {
        Self { kept: Kept::Middle(thousandths), filter: Filter::Bilinear }
    }

    /// The same with the other filter.
    pub const fn bicubic(self) -> Self {
        Self { filter: Filter::Bicubic, ..self }
    }

    /// Reads the text of a setting.
    ///
    /// # Errors
    /// The text is none of those accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {RESIZES}, found '{text}'");
        if let Some(rest) = text.strip_suffix(BICUBIC).filter(|rest| !rest.ends_with(BICUBIC)) {
            return Self::parse(rest).map(Self::bicubic).map_err(|_| wrong());
        }
        match text.split_once(' ') {
            None if text == "crop" => Ok(Self::WHOLE),
            None if text == "stretch" => Ok(Self::STRETCH),
            Some(("crop", share)) => {
                let share: f64 = share.parse().map_err(|_| wrong())?;
                let thousandths = (share * 1000.0).round();
                if (100.0..=1000.0).contains(&thousandths) { Ok(Self::crop(thousandths as u16)) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.kept {
            Kept::All => f.write_str("stretch")?,
            Kept::Middle(1000) => f.write_str("crop")?,
            Kept::Middle(thousandths) => write!(f, "crop {}", f64::from(thousandths) / 1000.0)?,
        }
        f.write_str(if self.filter == Filter::Bicubic { BICUBIC } else { "" })
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
