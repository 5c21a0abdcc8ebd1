//! What a recipe consists of, as types: the settings of a trial once every default is filled in.

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// How the feature map at the tap becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Every element, channels first.
    Flatten,
    /// The mean over a G x G grid of cells (G = 1: over the whole map).
    Avg(usize),
    /// The maximum over a G x G grid of cells.
    Max(usize),
    /// The class token of a transformer's row of tokens; the others pool its patches.
    Class,
    /// The class token, and the mean of the patches behind it (Oquab et al., 2024).
    #[serde(rename = "class-avg")]
    ClassAvg,
}

/// What is put on top of the features.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    Linear,
    /// Hidden widths; a ReLU follows each hidden layer.
    Mlp(Vec<usize>),
}

/// Where a head starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadStart {
    #[default]
    Random,
    /// At what the names of the classes are to a network that has seen texts: CLIP's zero-shot classifier (Radford et al., 2021).
    ClassNames,
    /// Where the solution on the features of the untrained network lies, as sure as it is right: a probe before fine-tuning (Kumar
    /// et al., 2022), solved.
    Lbfgs,
    Ridge,
    Lda,
}

pub const HEAD_START: &str = "'random', 'class-names', 'lbfgs', 'ridge' or 'lda'";

impl HeadStart {
    /// What solves it, where anything does.
    pub fn solver(self) -> Option<Optimizer> {
        match self {
            Self::Random | Self::ClassNames => None,
            Self::Lbfgs => Some(Optimizer::Lbfgs),
            Self::Ridge => Some(Optimizer::Ridge),
            Self::Lda => Some(Optimizer::Lda),
        }
    }
}

/// What a class name stands in, where nothing else is said: CLIP's own.
pub const PROMPT: &str = "a photo of a {}.";

/// Where the name goes.
pub const NAME_HERE: &str = "{}";

/// Texts in which a class name stands, each once.
pub fn prompts(value: &Value) -> Parsed<Vec<String>> {
    const ACCEPTED: &str = "a list of texts with {} where the class name goes, such as [\"a photo of a {}.\"]";
    let Value::List(items) = value else { return wrong(value, ACCEPTED) };
    let texts = items.iter().map(name).collect::<Parsed<Vec<String>>>()?;
    if let Some(other) = texts.iter().find(|text| text.matches(NAME_HERE).count() != 1) {
        return Err(format!("expected {ACCEPTED}; '{other}' has not one {{}}"));
    }
    match texts.iter().enumerate().find(|(index, text)| texts[..*index].contains(text)) {
        Some((_, twice)) => Err(format!("'{twice}' stands here twice")),
        None if texts.is_empty() => wrong(value, ACCEPTED),
        None => Ok(texts),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// v = momentum v + g; w -= lr v, or lr (g + momentum v) with Nesterov: PyTorch's convention.
    Sgd { momentum: f64, nesterov: bool },
    /// Adam with betas 0.9 and 0.999 and epsilon 1e-8 (Kingma and Ba, 2015; Loshchilov and Hutter, 2019).
    Adamw,
    /// A linear head on fixed features as logistic regression, solved with L-BFGS along a path of strengths.
    Lbfgs,
    /// The same as ridge regression, in closed form.
    Ridge,
    /// The same from class means and the covariance around them: linear discriminant analysis.
    Lda,
    /// The head stays as it starts.
    None,
}

impl Optimizer {
    /// Whether it solves a linear head, or leaves it, instead of training step by step.
    pub fn solves(self) -> bool {
        matches!(self, Self::Lbfgs | Self::Ridge | Self::Lda | Self::None)
    }
}

/// What `weight_decay` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Added to the gradient: L2 regularisation.
    Coupled,
    /// Taken off the weights, times the learning rate (AdamW).
    Decoupled,
    /// Added to the gradient after division by the learning rate (Kornblith et al., 2019).
    OverLr,
}

/// How the rates of layers are to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerRates {
    /// As `lr`, `backbone_lr` and `layer_decay` say.
    #[default]
    Even,
    /// Times the norm of a layer's gradient over the norm of its parameters, over the largest of these ratios: measured anew in
    /// every epoch (Lee et al., 2023: Auto-RGN).
    Rgn,
}

impl LayerRates {
    pub fn is_even(&self) -> bool {
        *self == Self::Even
    }
}

/// What is done to probabilities when a trial is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibrate {
    #[default]
    None,
    /// Logits are divided by one number, chosen on validation (Guo et al., 2017).
    Temperature,
}

pub const CALIBRATE: &str = "'none' or 'temperature'";

impl Calibrate {
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How much the classes count in the training loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// Every image counts the same.
    None,
    /// images / (classes x images of the class), so that every class counts the same (scikit-learn's "balanced").
    Balanced,
}

/// How the learning rate moves over the sealed budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant,
    /// Half a cosine from the full rate to zero.
    Cosine,
    /// Times `factor` at each of these fractions of the budget.
    Step {
        at: Vec<f64>,
        factor: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Budget {
    Steps(usize),
    Epochs(usize),
}

/// What the unfrozen batch norms do. Those of frozen layers are always frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchNorm {
    /// A constant affine map with the stored statistics.
    Frozen,
    /// Stored statistics; scale and shift train.
    Affine,
    /// Statistics of the batch; scale and shift train.
    Train,
}

/// Which weights are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepWeights {
    Last,
    /// Those of the evaluation with the best validation metric, the first on a tie.
    Best,
}

/// Between the preprocessing that a file asks for and the one that its weights came with: `torch instead of tf`.
pub const OVERRIDE: &str = " instead of ";

/// What selects a setting and what rules compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    Accuracy,
    BalancedAccuracy,
    MacroF1,
}

/// Whose trained networks stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    None,
    /// Those of the selected setting of the best recipe, all replicates.
    BestPerScenario,
    All,
}

/// A setting, or what is accepted instead.
pub type Parsed<T> = Result<T, String>;

/// Says what is accepted in place of a value.
pub fn wrong<T>(value: &Value, accepted: &str) -> Parsed<T> {
    Err(format!("expected {accepted}, found {}", described(value)))
}

fn described(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{text}'"),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => value.to_string(),
        other => other.kind().to_owned(),
    }
}

/// Reads one of a closed set of words, through the type's own serde names.
pub fn word<T: serde::de::DeserializeOwned>(value: &Value, accepted: &'static str) -> Parsed<T> {
    let text = match value.text() {
        Some(text) => text,
        None => return wrong(value, accepted),
    };
    serde_json::from_value(serde_json::Value::String(text.to_owned())).or_else(|_| wrong(value, accepted))
}

/// A number within closed bounds.
pub fn number(value: &Value, low: f64, high: f64) -> Parsed<f64> {
    match value.number() {
        Some(number) if number >= low && number <= high => Ok(number),
        _ if high == f64::MAX => wrong(value, &format!("a number of at least {low}")),
        _ => wrong(value, &format!("a number from {low} to {high}")),
    }
}

/// A whole number of at least `low`.
pub fn count(value: &Value, low: usize) -> Parsed<usize> {
    match value.count() {
        Some(count) if count >= low => Ok(count),
        _ => wrong(value, &format!("a whole number of at least {low}")),
    }
}

/// Between the names of several layers whose outputs are features together.
pub const AND: &str = " + ";

/// One layer's name, or several that are features together, as one text.
pub fn tap(value: &Value) -> Parsed<String> {
    match value {
        Value::List(items) if !items.is_empty() => {
            Ok(items.iter().map(name).collect::<Parsed<Vec<String>>>()?.join(AND))
        }
        Value::Text(text) if !text.is_empty() => Ok(text.clone()),
        other => wrong(other, "the name of a layer, or a list of names"),
    }
}

/// A norm above zero.
pub fn clip(value: &Value) -> Parsed<f64> {
    match value.number() {
        Some(limit) if limit > 0.0 && limit.is_finite() => Ok(limit),
        _ => wrong(value, "a number above 0"),
    }
}

/// True or false.
pub fn flag(value: &Value) -> Parsed<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        other => wrong(other, "true or false"),
    }
}

/// Any text but the empty one.
pub fn name(value: &Value) -> Parsed<String> {
    match value.text() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => wrong(value, "text"),
    }
}

/// A table with exactly this one entry.
fn only<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Table(entries) if entries.len() == 1 => entries.get(key),
        _ => None,
    }
}

impl Pool {
    pub fn parse(value: &Value) -> Parsed<Self> {
        match value.text() {
            Some("flatten") => return Ok(Self::Flatten),
            Some("avg") => return Ok(Self::Avg(1)),
            Some("max") => return Ok(Self::Max(1)),
            Some("class") => return Ok(Self::Class),
            Some("class-avg") => return Ok(Self::ClassAvg),
            _ => {}
        }
        if let Some(grid) = only(value, "avg") {
            return count(grid, 1).map(Self::Avg);
        }
        if let Some(grid) = only(value, "max") {
            return count(grid, 1).map(Self::Max);
        }
        wrong(value, "'flatten', 'avg', 'max', { avg = G }, { max = G }, 'class' or 'class-avg'")
    }

    /// The word for it, as a file says it.
    pub fn word(self) -> String {
        match self {
            Self::Flatten => "\"flatten\"".to_owned(),
            Self::Avg(1) => "\"avg\"".to_owned(),
            Self::Max(1) => "\"max\"".to_owned(),
            Self::Avg(grid) => format!("{{ avg = {grid} }}"),
            Self::Max(grid) => format!("{{ max = {grid} }}"),
            Self::Class => "\"class\"".to_owned(),
            Self::ClassAvg => "\"class-avg\"".to_owned(),
        }
    }
}

impl Head {
    pub fn parse(value: &Value) -> Parsed<Self> {
        if value.text() == Some("linear") {
            return Ok(Self::Linear);
        }
        match only(value, "mlp") {
            Some(Value::List(widths)) if !widths.is_empty() => {
                let widths: Parsed<Vec<usize>> = widths.iter().map(|width| count(width, 1)).collect();
                widths.map(Self::Mlp)
            }
            _ => wrong(value, "'linear' or { mlp = [256] } with the hidden widths"),
        }
    }
}

impl Schedule {
    pub fn parse(value: &Value) -> Parsed<Self> {
        const ACCEPTED: &str = "'constant', 'cosine' or { step = [0.5, 0.75], factor = 0.1 }";
        match value {
            Value::Text(text) if text == "constant" => Ok(Self::Constant),
            Value::Text(text) if text == "cosine" => Ok(Self::Cosine),
            Value::Table(entries) if entries.len() == 2 => match (entries.get("step"), entries.get("factor")) {
                (Some(Value::List(at)), Some(factor)) => {
                    let at: Parsed<Vec<f64>> = at.iter().map(|point| number(point, 0.0, 1.0)).collect();
                    Ok(Self::Step { at: at?, factor: number(factor, 0.0, 1.0)? })
                }
                _ => wrong(value, ACCEPTED),
            },
            other => wrong(other, ACCEPTED),
        }
    }
}

/// A number, a list of numbers, or so many of them at even ratios.
pub fn strengths(value: &Value) -> Parsed<Vec<f64>> {
    const ACCEPTED: &str = "a number above 0, a list of them, or { log = [1e-6, 1e5], n = 45 }";
    let usable = |found: &Vec<f64>| {
        (1..=1000).contains(&found.len()) && found.iter().all(|strength| *strength > 0.0 && strength.is_finite())
    };
    value.numbers().filter(usable).map_or_else(|| wrong(value, ACCEPTED), Ok)
}

/// The path of strengths where none is named, at even ratios (Kornblith et al., 2019): lowest, highest, how many.
pub const STRENGTHS: (f64, f64, usize) = (1e-6, 1e5, 45);

/// How many strengths a path has, from what was asked for as a text.
pub fn strengths_told(asked: Option<&str>) -> usize {
    let Some(asked) = asked else { return STRENGTHS.2 };
    let digits = |(_, rest): (&str, &str)| rest.trim_end_matches('}').parse().ok();
    let table = asked.starts_with('{').then(|| asked.split_once("n = ").and_then(digits)).flatten();
    table.unwrap_or_else(|| asked.split(',').count())
}

/// The words of `Optimizer`, for messages.
pub const OPTIMIZERS: &str = "'sgd', 'adamw', 'lbfgs', 'ridge', 'lda' or 'none'";
pub const DECAY: &str = "'coupled', 'decoupled' or 'over-lr'";
pub const LAYER_RATES: &str = "'even' or 'rgn'";
pub const CLASS_WEIGHTS: &str = "'none' or 'balanced'";
pub const BATCH_NORM: &str = "'frozen', 'affine' or 'train'";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    Sgd,
    Adamw,
    Lbfgs,
    Ridge,
    Lda,
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_counted_from_their_text() {
        let ends = || Value::List(vec![Value::Float(1e-6), Value::Float(100.0)]);
        let table = |kind: &str| Value::Table([(kind.to_owned(), ends()), ("n".to_owned(), Value::Int(12))].into());
        let three = Value::List(vec![Value::Float(0.1), Value::Int(1), Value::Float(1e7)]);
        for value in [Value::Float(0.5), three, table("log"), table("linear")] {
            let all = strengths(&value).map(|list| list.len());
            assert_eq!(all, Ok(strengths_told(Some(&value.to_string()))), "{value}");
        }
        assert_eq!(strengths_told(None), STRENGTHS.2);
    }
}
