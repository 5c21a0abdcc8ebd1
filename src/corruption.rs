//! What can be wrong with a photograph, and how badly: the words of Hendrycks and Dietterich (2019).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spelling::nearest;

/// A kind of corruption, named as in CIFAR-10-C and ImageNet-C. Those of the benchmark that need pictures of frost, or whose
/// definition is a program of its own (snow, glass, elastic, spatter), are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    GaussianNoise,
    ShotNoise,
    ImpulseNoise,
    SpeckleNoise,
    GaussianBlur,
    DefocusBlur,
    MotionBlur,
    ZoomBlur,
    Fog,
    Brightness,
    Contrast,
    Saturate,
    Pixelate,
    Jpeg,
}

impl Kind {
    pub const ALL: [(Self, &str); 14] = [
        (Self::GaussianNoise, "gaussian-noise"),
        (Self::ShotNoise, "shot-noise"),
        (Self::ImpulseNoise, "impulse-noise"),
        (Self::SpeckleNoise, "speckle-noise"),
        (Self::GaussianBlur, "gaussian-blur"),
        (Self::DefocusBlur, "defocus-blur"),
        (Self::MotionBlur, "motion-blur"),
        (Self::ZoomBlur, "zoom-blur"),
        (Self::Fog, "fog"),
        (Self::Brightness, "brightness"),
        (Self::Contrast, "contrast"),
        (Self::Saturate, "saturate"),
        (Self::Pixelate, "pixelate"),
        (Self::Jpeg, "jpeg"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// The severities of the benchmark, from hardly seen to hardly recognised.
pub const SEVERITIES: std::ops::RangeInclusive<u8> = 1..=5;

/// A kind and its severity, written `fog 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Corruption {
    pub kind: Kind,
    pub severity: u8,
}

impl Corruption {
    /// Reads the text of a setting.
    ///
    /// # Errors
    /// No such kind, or no such severity.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, severity) = text
            .split_once(' ')
            .ok_or_else(|| format!("expected a kind and a severity such as 'fog 3', found '{text}'"))?;
        let severity = self::severity(severity)?;
        let names = Kind::ALL.iter().map(|(_, name)| *name);
        match Kind::ALL.iter().find(|(_, known)| *known == name) {
            Some((kind, _)) => Ok(Self { kind: *kind, severity }),
            None => {
                let hint =
                    nearest(name, names.clone()).map_or_else(String::new, |near| format!("did you mean '{near}'? "));
                Err(format!(
                    "there is no corruption '{name}'; {hint}There are {}",
                    names.collect::<Vec<_>>().join(", ")
                ))
            }
        }
    }

    /// Those that a word of `also_test` names: one, or with `corruptions 3` all kinds at a severity; none where the word is not
    /// like the name of a kind with a number behind it.
    ///
    /// # Errors
    /// As `parse`.
    pub fn named(word: &str) -> Result<Vec<Self>, String> {
        match word.split_once(' ') {
            Some(("corruptions", severity)) => {
                let severity = self::severity(severity)?;
                Ok(Kind::ALL.iter().map(|(kind, _)| Self { kind: *kind, severity }).collect())
            }
            Some((name, last)) if last.parse::<f64>().is_ok() && is_like_a_kind(name) => Ok(vec![Self::parse(word)?]),
            _ => Ok(Vec::new()),
        }
    }
}

/// Whether a name is that of a kind, or one that is misspelt.
fn is_like_a_kind(name: &str) -> bool {
    let mut names = Kind::ALL.iter().map(|(_, known)| *known);
    names.clone().any(|known| known == name) || nearest(name, &mut names).is_some()
}

fn severity(text: &str) -> Result<u8, String> {
    let (least, most) = (SEVERITIES.start(), SEVERITIES.end());
    let known = text.parse().ok().filter(|severity| SEVERITIES.contains(severity));
    known.ok_or_else(|| format!("expected a severity of {least} to {most}, found '{text}'"))
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.severity)
    }
}

impl TryFrom<String> for Corruption {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Corruption> for String {
    fn from(corruption: Corruption) -> Self {
        corruption.to_string()
    }
}
