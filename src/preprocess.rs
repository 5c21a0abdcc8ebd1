//! How pixels become the numbers that a weight file expects.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What x, a byte of a pixel, becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Preprocess {
    /// RGB to BGR, minus (103.939, 116.779, 123.68), no scaling (Keras' VGG).
    Caffe,
    /// x / 127.5 - 1.
    Tf,
    /// x / 255, minus (.485, .456, .406), over (.229, .224, .225).
    Torch,
    /// x / 255, minus (.48145466, .4578275, .40821073), over (.26862954, .26130258, .27577711): CLIP's (Radford et al., 2021).
    Clip,
    /// x minus 255 (.48235, .45882, .40784), no scaling: torchvision's VGG16 features of Caffe's lineage.
    CaffeRgb,
    /// x / 255.
    ZeroOne,
    /// x as it is, 0 to 255: for networks that begin with the preparation of images.
    None,
    /// x / 255, minus a mean, over a deviation of each channel, as torchvision's Normalize.
    Standard(Standard),
}

/// A mean and a deviation of red, green and blue, of numbers from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standard {
    /// The bits of f32, so that two are equal or not.
    mean: [u32; 3],
    deviation: [u32; 3],
}

/// What is done to the numbers of a pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Over 255, minus a mean, over a deviation.
    Standard(Standard),
    /// Minus these, in the order of the planes, the first of which is blue or red.
    Minus { numbers: [f32; 3], blue_first: bool },
}

/// What values are accepted, for messages.
pub const PREPROCESSES: &str = "'caffe', 'tf', 'torch', 'clip', 'caffe-rgb', 'zero-one', 'none', or a mean and a deviation of red, green and blue, of \
     numbers from 0 to 1: 'mean 0.43 0.411 0.296 std 0.213 0.156 0.143'";

/// Those that have a word.
const WORDS: [(&str, Preprocess); 7] = [
    ("caffe", Preprocess::Caffe),
    ("tf", Preprocess::Tf),
    ("torch", Preprocess::Torch),
    ("clip", Preprocess::Clip),
    ("caffe-rgb", Preprocess::CaffeRgb),
    ("zero-one", Preprocess::ZeroOne),
    ("none", Preprocess::None),
];

impl Standard {
    const fn new(mean: [f32; 3], deviation: [f32; 3]) -> Self {
        let [m, d] = [mean, deviation];
        Self {
            mean: [m[0].to_bits(), m[1].to_bits(), m[2].to_bits()],
            deviation: [d[0].to_bits(), d[1].to_bits(), d[2].to_bits()],
        }
    }

    pub fn mean(self) -> [f32; 3] {
        self.mean.map(f32::from_bits)
    }

    pub fn deviation(self) -> [f32; 3] {
        self.deviation.map(f32::from_bits)
    }
}

impl Preprocess {
    /// A mean and a deviation, under the word for them if there is one.
    pub fn standard(mean: [f32; 3], deviation: [f32; 3]) -> Self {
        let own = Standard::new(mean, deviation);
        let named = WORDS.into_iter().find(|(_, one)| one.change() == Change::Standard(own));
        named.map_or(Self::Standard(own), |(_, one)| one)
    }

    /// What it does.
    pub fn change(self) -> Change {
        let minus = |numbers, blue_first| Change::Minus { numbers, blue_first };
        let standard = |mean, deviation| Change::Standard(Standard::new(mean, deviation));
        match self {
            Self::Caffe => minus([103.939, 116.779, 123.68], true),
            Self::CaffeRgb => minus([0.48235, 0.45882, 0.40784].map(|mean: f32| 255.0 * mean), false),
            Self::None => minus([0.0; 3], false),
            Self::Tf => standard([0.5; 3], [0.5; 3]),
            Self::Torch => standard([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            // To the digits that f32 has.
            Self::Clip => standard([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]),
            Self::ZeroOne => standard([0.0; 3], [1.0; 3]),
            Self::Standard(own) => Change::Standard(own),
        }
    }

    /// Reads the text of a setting.
    ///
    /// # Errors
    /// The text is none of those accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, found)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*found);
        }
        let wrong = || format!("expected {PREPROCESSES}, found '{text}'");
        let (mean, deviation) =
            text.strip_prefix("mean ").and_then(|rest| rest.split_once(" std ")).ok_or_else(wrong)?;
        let three = |numbers: &str| {
            let numbers: Vec<f32> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
            <[f32; 3]>::try_from(numbers).ok().filter(|own| own.iter().all(|number| (0.0..=1.0).contains(number)))
        };
        let deviation = three(deviation).filter(|own| own.iter().all(|number| *number > 0.0));
        Ok(Self::standard(three(mean).ok_or_else(wrong)?, deviation.ok_or_else(wrong)?))
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some((word, _)) = WORDS.iter().find(|(_, own)| own == self) {
            return f.write_str(word);
        }
        let shown = |numbers: [f32; 3]| numbers.map(|number| number.to_string()).join(" ");
        match self {
            Self::Standard(own) => write!(f, "mean {} std {}", shown(own.mean()), shown(own.deviation())),
            _ => Ok(()),
        }
    }
}

impl TryFrom<String> for Preprocess {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Preprocess> for String {
    fn from(preprocess: Preprocess) -> Self {
        preprocess.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (word, own) in WORDS {
            assert_eq!((own.to_string().as_str(), Preprocess::parse(word)), (word, Ok(own)));
        }
        let satellites =
            Preprocess::parse("mean 0.430 .411 0.296 std 0.213 0.156 0.143").expect("three and three numbers");
        assert_eq!(satellites.to_string(), "mean 0.43 0.411 0.296 std 0.213 0.156 0.143");
        assert_eq!(Preprocess::parse(&satellites.to_string()), Ok(satellites));
        for wrong in [
            "",
            "imagenet",
            "mean 0.4 0.4 std 1 1 1",
            "mean 1 1 1 std 0 1 1",
            "mean 123 116 103 std 1 1 1",
            "mean NaN 0 0 std 1 1 1",
        ] {
            assert!(Preprocess::parse(wrong).is_err_and(|said| said.contains("'mean 0.43")), "{wrong}");
        }
    }

    #[test]
    fn what_has_a_word_is_called_by_it() {
        for (text, word) in [
            ("mean 0.485 0.456 0.406 std 0.229 0.224 0.225", "torch"),
            ("mean 0.5 0.5 0.5 std 0.5 0.5 0.5", "tf"),
            ("mean 0 0 0 std 1 1 1", "zero-one"),
            ("mean 0.48145466 0.4578275 0.40821073 std 0.26862954 0.26130258 0.27577711", "clip"),
        ] {
            assert_eq!(Preprocess::parse(text).map(|own| own.to_string()), Ok(word.to_owned()));
        }
    }
}
