//! Random changes of training images: the words of `augment`, some of which have numbers behind them (`rotate 15`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::recipe::{Parsed, wrong};
use crate::spelling::nearest;
use crate::value::Value;

/// A random change, in the order in which those of a list are applied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Augmentation {
    /// Mirrors left and right with probability one half.
    Flip,
    /// Mirrors top and bottom with probability one half.
    VerticalFlip,
    /// Turns by 0, 90, 180 or 270 degrees, each as probable.
    QuarterTurns,
    /// Turns by up to so many degrees in either direction, bilinearly; corners that come from outside are black.
    Rotate(f64),
    /// Pads each side by an eighth with zeros and cuts a random window of the old size.
    Crop,
    /// A window of this to 100% of the area and aspect 3/4 to 4/3, scaled back (Szegedy et al., 2015; 8% where nothing else
    /// is said, as in torchvision).
    ResizedCrop(f64),
    /// Brightness, contrast and saturation scaled by 0.6 to 1.4.
    Jitter,
    /// One of fourteen operations at a random strength (Müller and Hutter, 2021: TrivialAugment Wide).
    TrivialAugment,
    /// So many of fourteen operations, all at one strength from 0 to 30 (Cubuk et al., 2020: RandAugment).
    RandAugment { operations: usize, magnitude: usize },
    /// With this probability random numbers in place of a rectangle of 2% to 33% of the area (Zhong et al., 2020: random
    /// erasing; sizes are torchvision's).
    Erase(f64),
    /// Each image of a batch and its label averaged with those of another, by a share from Beta(alpha, alpha) for the batch
    /// (Zhang et al., 2018).
    MixUp(f64),
    /// Each image of a batch with a rectangle out of another, whose share of the area its label has; that share is from
    /// Beta(alpha, alpha) for the batch (Yun et al., 2019).
    CutMix(f64),
}

/// The smallest share of the area that `resized-crop` keeps where it has no number.
const LEAST_AREA: f64 = 0.08;

/// Below it a share is zero or one, and drawing it would run out of numbers in the end.
const LEAST_ALPHA: f64 = 1e-6;

/// Each word with the numbers that people use behind it.
pub const WORDS: [&str; 12] = [
    "flip",
    "vertical-flip",
    "quarter-turns",
    "rotate 15",
    "crop",
    "resized-crop",
    "jitter",
    "trivial-augment",
    "rand-augment 2 9",
    "erase 0.25",
    "mixup 0.2",
    "cutmix 1",
];

impl Augmentation {
    /// Reads one word with its numbers.
    ///
    /// # Errors
    /// There is no such word, or its numbers are others.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(' ');
        let word = parts.next().unwrap_or_default();
        let numbers: Vec<&str> = parts.collect();
        let one = |meaning: &str, low: f64, high: f64| {
            match numbers.as_slice() {
                [number] => number.parse().ok().filter(|number| *number > low && *number <= high),
                _ => None,
            }
            .ok_or_else(|| format!("`{word}` needs {meaning} above {low} and up to {high}, as in '{}'", example(word)))
        };
        let found = match word {
            "flip" => Self::Flip,
            "vertical-flip" => Self::VerticalFlip,
            "quarter-turns" => Self::QuarterTurns,
            "rotate" => return one("degrees", 0.0, 180.0).map(Self::Rotate),
            "crop" => Self::Crop,
            "resized-crop" if numbers.is_empty() => Self::ResizedCrop(LEAST_AREA),
            "resized-crop" => {
                let share = one("no number, or the least share of the area", 0.0, 1.0)?;
                return Ok(Self::ResizedCrop(share));
            }
            "jitter" => Self::Jitter,
            "trivial-augment" => Self::TrivialAugment,
            "rand-augment" => return Self::rand_augment(&numbers),
            "erase" => return one("a probability", 0.0, 1.0).map(Self::Erase),
            "mixup" => return one("the alpha of a Beta distribution", LEAST_ALPHA, 100.0).map(Self::MixUp),
            "cutmix" => return one("the alpha of a Beta distribution", LEAST_ALPHA, 100.0).map(Self::CutMix),
            _ => return Err(unknown(word)),
        };
        if numbers.is_empty() { Ok(found) } else { Err(format!("`{word}` has no numbers, found '{text}'")) }
    }

    fn rand_augment(numbers: &[&str]) -> Result<Self, String> {
        let found = match numbers {
            [operations, magnitude] => operations.parse().ok().zip(magnitude.parse().ok()),
            _ => None,
        };
        found
            .filter(|(operations, magnitude)| (1..=14).contains(operations) && *magnitude <= 30)
            .map(|(operations, magnitude)| Self::RandAugment { operations, magnitude })
            .ok_or_else(|| {
                "`rand-augment` needs a number of operations from 1 to 14 and a magnitude from 0 to 30, as in 'rand-augment 2 9'"
                    .to_owned()
            })
    }

    /// Reads the value of `augment`: a list without repetition, in the one order in which its changes are applied.
    ///
    /// # Errors
    /// It is no list, a word is unknown or stands there twice, or two exclude each other.
    pub fn parse_list(value: &Value) -> Parsed<Vec<Self>> {
        let Value::List(items) = value else {
            return wrong(value, &format!("a list of {}", quoted()));
        };
        let read = |item: &Value| match item.text() {
            Some(text) => Self::parse(text),
            None => wrong(item, &format!("one of {}", quoted())),
        };
        let mut parsed = items.iter().map(read).collect::<Parsed<Vec<Self>>>()?;
        parsed.sort_by_key(|augmentation| augmentation.place());
        if let Some(twice) = parsed.windows(2).find(|pair| pair[0].place() == pair[1].place()) {
            return Err(format!("an augmentation stands here twice: '{}'", twice[1]));
        }
        let has = |word: &str| parsed.iter().find(|augmentation| example(word) == WORDS[augmentation.place()]);
        for [one, other] in [["crop", "resized-crop"], ["trivial-augment", "rand-augment"]] {
            if has(one).is_some() && has(other).is_some() {
                return Err(format!("'{one}' and '{other}' exclude each other"));
            }
        }
        Ok(parsed)
    }

    /// A list as it is keyed and shown, its numbers written in the one way; other values as they are.
    pub fn settled(value: &Value) -> Value {
        let Value::List(items) = value else { return value.clone() };
        let written = |item: &Value| match item.text().map(Self::parse) {
            Some(Ok(augmentation)) => Value::Text(augmentation.to_string()),
            _ => item.clone(),
        };
        Value::List(items.iter().map(written).collect())
    }

    /// Whether it makes one image of two.
    pub fn mixes(self) -> bool {
        matches!(self, Self::MixUp(_) | Self::CutMix(_))
    }

    /// Its place among all words.
    fn place(self) -> usize {
        match self {
            Self::Flip => 0,
            Self::VerticalFlip => 1,
            Self::QuarterTurns => 2,
            Self::Rotate(_) => 3,
            Self::Crop => 4,
            Self::ResizedCrop(_) => 5,
            Self::Jitter => 6,
            Self::TrivialAugment => 7,
            Self::RandAugment { .. } => 8,
            Self::Erase(_) => 9,
            Self::MixUp(_) => 10,
            Self::CutMix(_) => 11,
        }
    }
}

/// The words, for messages.
fn quoted() -> String {
    WORDS.map(|word| format!("'{word}'")).join(", ")
}

/// The word with the numbers that people use.
fn example(word: &str) -> &'static str {
    WORDS.into_iter().find(|known| known.split(' ').next() == Some(word)).unwrap_or_default()
}

fn unknown(word: &str) -> String {
    let names = WORDS.iter().filter_map(|known| known.split(' ').next());
    let hint = nearest(word, names).map_or_else(String::new, |near| format!("did you mean '{near}'? "));
    format!("there is no augmentation '{word}'; {hint}There are {}", quoted())
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let word = WORDS[self.place()].split(' ').next().unwrap_or_default();
        match self {
            Self::Rotate(number) | Self::Erase(number) | Self::MixUp(number) | Self::CutMix(number) => {
                write!(f, "{word} {number}")
            }
            Self::ResizedCrop(share) if *share != LEAST_AREA => write!(f, "{word} {share}"),
            Self::RandAugment { operations, magnitude } => write!(f, "{word} {operations} {magnitude}"),
            _ => f.write_str(word),
        }
    }
}

impl TryFrom<String> for Augmentation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Augmentation> for String {
    fn from(augmentation: Augmentation) -> Self {
        augmentation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_written_as_it_stands() {
        for (place, word) in WORDS.into_iter().enumerate() {
            let read = Augmentation::parse(word);
            assert_eq!(read.as_ref().map(|read| (read.to_string(), read.place())), Ok((word.to_owned(), place)));
        }
        let settled = |text: &str| Augmentation::settled(&Value::List(vec![Value::Text(text.to_owned())])).to_string();
        assert_eq!(settled("mixup 0.20"), "[mixup 0.2]");
        assert_eq!(settled("resized-crop 0.08"), "[resized-crop]");
    }
}
