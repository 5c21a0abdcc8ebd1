//! What a network looks at, as one page of pictures or as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::findings::fraction;
use super::html::{escaped, page};

/// A PNG, what it shows, and how many screen pixels it shall be wide.
pub struct Shown {
    pub png: Vec<u8>,
    pub caption: String,
    pub width: usize,
}

/// One image, and what was seen in it.
pub struct Looked {
    pub path: PathBuf,
    /// Whether training, or the choice of its settings, has seen this very image.
    pub seen: bool,
    /// Class and probability, from the likeliest on.
    pub ranked: Vec<(String, f64)>,
    /// The logarithm of the odds of the first of them.
    pub log_odds: f64,
    pub starts: Vec<usize>,
    pub patch: usize,
    pub drops: Vec<f64>,
    pub pictures: Vec<Shown>,
}

/// Everything that is shown of a model.
pub struct Look {
    pub facts: BTreeMap<String, String>,
    pub classes: Vec<String>,
    pub filters: Option<Shown>,
    pub images: Vec<Looked>,
    /// Images that were there.
    pub of: usize,
}

/// What the colours mean.
const LEGEND: &str = "A patch in the image's mean colour is put over each place in turn (occlusion sensitivity, Zeiler and Fergus, \
     2014). Orange: without this place the odds of the answer fall; purple: they rise. Each picture is scaled by its own largest \
     change. Maps are means over a layer's channels of absolute values, dark to bright.";

impl Look {
    /// The page.
    pub fn html(&self) -> String {
        let name = self.facts.get("file").map_or("a network", String::as_str);
        let mut body = vec![format!("<h1>{}</h1>", escaped(name))];
        body.push(paragraph("state", &self.origin()));
        if let Some(filters) = &self.filters {
            body.push("<h2>First filters</h2>".to_owned());
            body.push(format!("<div class=\"row\">{}</div>", shown(filters)));
        }
        body.push(format!("<h2>{} of {} images</h2>", self.images.len(), self.of));
        body.push(paragraph("state", LEGEND));
        for image in &self.images {
            body.push(format!("<h3>{}</h3>", escaped(&image.path.display().to_string())));
            body.push(paragraph("state", &image.said()));
            body.push(format!("<div class=\"row\">{}</div>", image.pictures.iter().map(shown).collect::<String>()));
        }
        page(name, &body.join("\n"))
    }

    fn origin(&self) -> String {
        let fact = |name: &str| self.facts.get(name).map(|value| format!("{name} {value}"));
        let facts: Vec<String> = ["experiment", "trial"].into_iter().filter_map(fact).collect();
        format!("{}; classes: {}", facts.join(", "), self.classes.join(", "))
    }

    /// The same without pictures.
    pub fn json(&self) -> Value {
        let image = |image: &Looked| {
            let rows: Vec<&[f64]> = image.drops.chunks(image.starts.len().max(1)).collect();
            json!({
                "image": image.path.display().to_string(),
                "seen": image.seen,
                "answers": image.ranked.iter().map(|(class, probability)| json!({"class": class, "probability": probability})).collect::<Vec<_>>(),
                "log_odds": image.log_odds,
                "patch": image.patch,
                "starts": image.starts,
                "drops": rows,
            })
        };
        json!({"version": 1, "model": self.facts, "classes": self.classes, "images": self.images.iter().map(image).collect::<Vec<_>>()})
    }
}

impl Looked {
    fn said(&self) -> String {
        let ranked: Vec<String> = self
            .ranked
            .iter()
            .take(3)
            .map(|(class, probability)| format!("{class} {}", fraction(*probability)))
            .collect();
        let first = self.ranked.first().map_or("", |(class, _)| class.as_str());
        let most = self.drops.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let seen = if self.seen { "; training or its settings have seen this image" } else { "" };
        format!(
            "{}; the patch that matters most takes {first} from {} to {}{seen}",
            ranked.join(", "),
            probability(self.log_odds),
            probability(self.log_odds - most)
        )
    }
}

/// Of the logarithm of odds; what is all but sure is told by what is left.
fn probability(log_odds: f64) -> String {
    match log_odds > 7.0 {
        true => format!("1 - {:.0e}", 1.0 / (1.0 + log_odds.exp())),
        false => fraction(1.0 / (1.0 + (-log_odds).exp())),
    }
}

fn paragraph(class: &str, text: &str) -> String {
    format!("<p class=\"{class}\">{}</p>", escaped(text))
}

/// A picture with its caption.
pub fn shown(picture: &Shown) -> String {
    format!(
        "<figure><img alt=\"{0}\" width=\"{1}\" src=\"data:image/png;base64,{2}\"><figcaption>{0}</figcaption></figure>",
        escaped(&picture.caption),
        picture.width,
        BASE64_STANDARD.encode(&picture.png)
    )
}
