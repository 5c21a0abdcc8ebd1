//! Settles points: fills in what follows from the weights, drops settings without effect, and takes the key of the rest.
//! Everything that depends on a network is worked out once for each combination of the settings that it depends on.

use std::collections::HashMap;

use super::depth::settle_depth;
use super::effect::{
    Fault, drop_without_effect, refuse_refit, settle_average, settle_calibration, settle_interpolation, settle_solver,
    settle_views,
};
use super::facts::{Facts, KnownBackbone};
use super::short::Cut;
use super::space::{Point, Space};
use super::transfer::settle_transfer;
use super::{Cell, chain, solved_start, zero_shot};
use crate::experiment::Experiment;
use crate::experiment::problem::Problem;
use crate::frame::Resize;
use crate::key::{ENGINE, Key};
use crate::model::arch::{family, prepares_images};
use crate::model::freezing::{pools, taps};
use crate::model::graph::Graph;
use crate::model::sketch::Sketch;
use crate::preprocess::Preprocess;
use crate::recipe;
use crate::value::{Layer, Value};

/// Labels stand in no key: they say what a person calls things.
const LABELS: &[&str] = &["scenario", "recipe", "size", "similarity", "dataset", "weights"];

/// Numbers that change neither the stages of a cell nor what they cost.
const SHAPELESS: &[&str] = &[
    "lr",
    "backbone_lr",
    "layer_decay",
    "weight_decay",
    "decay",
    "start_decay",
    "momentum",
    "nesterov",
    "schedule",
    "warmup",
    "label_smoothing",
    "class_weights",
    "clip",
    "dropout",
];

/// What decides the network and the effects of the other settings. Of the numbers that only tune, whether they are
/// zero or equal is all that matters, so a thousand learning rates are settled as one.
const STRUCTURE: &[&str] = &[
    "scenario",
    "dataset",
    "per_class",
    "weights",
    "arch",
    "width",
    "input",
    "preprocess",
    "resize",
    "tap",
    "pool",
    "freeze",
    "trains",
    "transfer",
    "layer_decay",
    "layer_rates",
    "phases",
    "interpolate",
    "average",
    "calibrate",
    "batch_norm",
    "optimizer",
    "decay",
    "nesterov",
    "keep_weights",
    "early_stop",
    "augment",
    "views",
    "head",
    "head_start",
    "prompts",
    "precision",
];
const NUMBERS: &[&str] = &["weight_decay", "momentum", "lr", "backbone_lr", "steps", "epochs", "start_decay"];

/// Settled cells of all points; where settings are first compared on a share of their budget, each behind the same one with that
/// share.
///
/// # Errors
/// Problems with layers, weights, architectures and sizes, each once.
pub fn settle(
    experiment: &Experiment,
    facts: &Facts,
    space: &mut Space,
    points: Vec<Point>,
) -> Result<Vec<Cell>, Vec<Problem>> {
    let mut settler = Settler { experiment, facts, graphs: HashMap::new(), problems: Vec::new() };
    let structure = Structure::new(space);
    let cut = experiment.tune_share.map(|share| Cut::new(share, space));
    let changes = settler.changes(space, &structure, &points);
    if !settler.problems.is_empty() {
        let mut problems = settler.problems;
        problems.dedup();
        return Err(problems);
    }
    let width = space.width();
    let order = space.sorted_columns(LABELS);
    let shaping = space.sorted_columns(&[LABELS, SHAPELESS].concat());
    let mut cells: Vec<Cell> = Vec::with_capacity(points.len());
    for asked in points {
        let mut settled = asked.to_vec();
        settled.resize(width, 0);
        let change = &changes[&structure.signature(space, &settled)];
        change.set.iter().for_each(|(column, place)| settled[*column] = *place);
        let keyed = |space: &Space, asked: Point, settled: Point, uncut: Option<Point>| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"cell");
            hasher.update(&ENGINE.to_le_bytes());
            hasher.update(change.identity.as_bytes());
            space.hash(&settled, &order, &mut hasher);
            let mut shape = blake3::Hasher::new();
            shape.update(change.identity.as_bytes());
            space.hash(&settled, &shaping, &mut shape);
            let mut low = [0; 8];
            low.copy_from_slice(&shape.finalize().as_bytes()[..8]);
            let (key, shape) = (Key::from_hash(&hasher.finalize()), u64::from_le_bytes(low));
            Cell { asked, settled, uncut, key, shape }
        };
        if let Some(cut) = &cut {
            let [asked, uncut] = [&*asked, &settled].map(|point| cut.marked(point));
            let short = cut.shortened(space, &uncut);
            // What has no steps, or one, has no share of them.
            if short != uncut {
                cells.push(keyed(space, asked, short, Some(uncut)));
            }
        }
        cells.push(keyed(space, asked, settled.into(), None));
    }
    space.note_widest(cells.iter().map(|cell| &cell.settled));
    Ok(cells)
}

/// The columns that decide what settling does.
struct Structure {
    columns: Vec<usize>,
    numbers: Vec<usize>,
}

impl Structure {
    fn new(space: &mut Space) -> Self {
        let mut columns = |keys: &[&str]| keys.iter().map(|key| space.column(key)).collect();
        Self { columns: columns(STRUCTURE), numbers: columns(NUMBERS) }
    }

    fn signature(&self, space: &Space, point: &[u16]) -> Vec<u16> {
        let mut signature: Vec<u16> =
            self.columns.iter().map(|column| point.get(*column).copied().unwrap_or(0)).collect();
        let numbers: Vec<Option<f64>> =
            self.numbers.iter().map(|column| space.value(point, *column).and_then(Value::number)).collect();
        signature.extend(numbers.iter().map(|number| match number {
            None => 0,
            Some(0.0) => 1,
            Some(_) => 2,
        }));
        signature.push(u16::from(numbers[2] == numbers[3]));
        signature
    }
}

/// What settling does to all points with one structure.
struct Change {
    /// Columns and their new places; 0 drops a setting.
    set: Vec<(usize, u16)>,
    /// What the labels stand for: bytes of the data, of the weights, the seed.
    identity: String,
}

struct Settler<'a> {
    experiment: &'a Experiment,
    facts: &'a Facts,
    graphs: HashMap<String, Result<Graph, String>>,
    problems: Vec<Problem>,
}

impl Settler<'_> {
    fn changes(&mut self, space: &mut Space, structure: &Structure, points: &[Point]) -> HashMap<Vec<u16>, Change> {
        let mut changes = HashMap::new();
        for point in points {
            let signature = structure.signature(space, point);
            if changes.contains_key(&signature) {
                continue;
            }
            let asked = space.layer(point);
            let change = match self.settled(&asked) {
                Ok((settled, identity)) => Change { set: difference(space, &asked, &settled), identity },
                Err(problem) => {
                    self.problems.push(problem);
                    Change { set: Vec::new(), identity: String::new() }
                }
            };
            changes.insert(signature, change);
        }
        changes
    }

    /// The settings that have an effect, and the identity of data and weights.
    fn settled(&mut self, asked: &Layer) -> Result<(Layer, String), Problem> {
        let mut layer = asked.clone();
        self.fill_backbone(&mut layer)?;
        let experiment = self.experiment;
        let refused = |fault: Fault| {
            let problem = experiment.problem(fault.key, &fault.value, fault.message);
            // What a built-in recipe asks for stands nowhere in the file.
            match asked.get("recipe").filter(|_| problem.spot.is_none()) {
                Some(recipe) => problem.help(format!("the recipe '{recipe}' asks for {} = {}", fault.key, fault.value)),
                None => problem,
            }
        };
        zero_shot::settle_tap(&mut layer).map_err(refused)?;
        let backbone = self.backbone(&mut layer)?;
        settle_transfer(&mut layer, asked, &backbone).map_err(refused)?;
        let texts = zero_shot::settle(&mut layer, self.facts).map_err(refused)?;
        let starts_solved = solved_start::settle(&layer).map_err(refused)?;
        if !starts_solved && texts.is_none() {
            layer.remove("head_start");
        }
        drop_without_effect(&mut layer, &backbone);
        if let Some(value) = layer.get("pool") {
            let fits = recipe::Pool::parse(value).and_then(|pool| pools(&backbone, pool));
            fits.map_err(|message| self.experiment.problem("pool", value, message))?;
        }
        settle_depth(&mut layer, asked, &backbone).map_err(refused)?;
        settle_views(&mut layer).map_err(refused)?;
        settle_interpolation(&mut layer).map_err(refused)?;
        settle_average(&mut layer).map_err(refused)?;
        settle_calibration(&mut layer);
        let solves = settle_solver(&mut layer).map_err(refused)?;
        if self.experiment.refit {
            refuse_refit(&layer).map_err(refused)?;
        }
        let dataset = layer.get("dataset").map_or_else(String::new, Value::to_string);
        let Some(fact) = self.facts.datasets.get(&dataset) else {
            return Err(self.experiment.problem("dataset", &Value::Text(dataset), "this dataset was not opened"));
        };
        if let Err(message) = fact.counts(layer.get("per_class").and_then(Value::count)) {
            let value = layer.get("per_class").cloned().unwrap_or(Value::Int(0));
            let scenario = asked.get("scenario").map_or_else(String::new, Value::to_string);
            return Err(self.experiment.problem(
                "per_class",
                &value,
                format!("{message} (scenario '{scenario}', dataset '{dataset}')"),
            ));
        }
        let start = chain::start(&layer, self.facts, self.experiment.pretrain.as_ref(), self.experiment.seed)
            .map_err(|message| self.plain(message))?;
        let best = layer.get("keep_weights").and_then(Value::text) == Some("best");
        let metric = (best || solves || starts_solved).then_some(self.experiment.metric);
        let identity = (fact.fingerprint, start, self.experiment.seed, metric);
        let mut identity = serde_json::to_string(&identity).unwrap_or_default();
        if let Some(texts) = texts {
            identity += &serde_json::to_string(&texts).unwrap_or_default();
        }
        Ok((layer, identity + if self.experiment.refit { " refit" } else { "" }))
    }

    fn plain(&self, message: String) -> Problem {
        Problem { spot: None, message, help: None }
    }

    /// Architecture, width, input and preprocessing, from the weights where the file does not say.
    fn fill_backbone(&mut self, layer: &mut Layer) -> Result<(), Problem> {
        let Some(weights) = layer.get("weights").cloned() else {
            return Err(self.plain(
                "no weights are named: [backbone] needs `weights`, a file, a known name, \"random\" or \"pretrain\""
                    .to_owned(),
            ));
        };
        // What is written out is called by its word where there is one.
        if let Some(own) = layer.get("preprocess").and_then(|own| Preprocess::parse(own.text()?).ok()) {
            layer.insert("preprocess".to_owned(), preprocess(own));
        }
        let known = self.known(&weights.to_string()).cloned();
        // Random weights in an experiment about a known file take that file's network.
        let base = self.experiment.base.get("weights").map_or_else(String::new, Value::to_string);
        let known = known.or_else(|| self.known(&base).cloned());
        if let Some(known) = &known {
            let fill = [
                ("arch", Value::Text(known.arch.clone())),
                ("width", Value::Float(known.width)),
                ("input", Value::Int(known.input as i64)),
                ("preprocess", preprocess(known.preprocess)),
                ("resize", Value::Text(known.resize.to_string())),
            ];
            for (key, value) in fill {
                layer.entry(key.to_owned()).or_insert(value);
            }
            let own = [("preprocess", known.preprocess.to_string()), ("resize", known.resize.to_string())];
            for (key, own) in own {
                let asked = layer[key].to_string();
                if self.known(&weights.to_string()).is_some() && asked != own {
                    layer.insert(key.to_owned(), Value::Text(format!("{asked}{}{own}", recipe::OVERRIDE)));
                }
            }
            let asked = layer["arch"].to_string();
            if self.known(&weights.to_string()).is_some() && asked != known.arch {
                return Err(self.experiment.problem(
                    "arch",
                    &layer["arch"],
                    format!("the weights '{weights}' are of {}, not of {asked}", known.arch),
                ));
            }
        }
        let Some(arch) = layer.get("arch").map(Value::to_string) else {
            return Err(self.experiment.problem(
                "weights",
                &weights,
                format!(
                    "with weights = \"{weights}\" [backbone] needs `arch`: {}",
                    crate::model::arch::NAMES.join(", ")
                ),
            ));
        };
        let (input, own_preprocess) = match (self.facts.graphs.get(&arch), family(&arch)) {
            (Some(own), _) => {
                layer.insert("arch".to_owned(), Value::Text(own_name(own)));
                (own.input, own.preprocess)
            }
            (None, Some(family)) => (family.default_input, family.preprocess),
            (None, None) => return Err(self.no_arch(arch)),
        };
        let unknown_file = !matches!(weights.text(), Some("random" | "pretrain")) && known.is_none();
        let prepares = prepares_images(&arch);
        if unknown_file && !layer.contains_key("preprocess") && !prepares {
            return Err(self.experiment.problem("weights", &weights, format!("the catalogue does not know the weights '{weights}': say how their inputs were prepared with `preprocess` under [backbone]")));
        }
        layer.entry("input".to_owned()).or_insert(Value::Int(input as i64));
        layer.entry("preprocess".to_owned()).or_insert(preprocess(own_preprocess));
        let asked = layer["preprocess"].to_string();
        if prepares && asked != Preprocess::None.to_string() {
            let asked = asked.split(recipe::OVERRIDE).next().unwrap_or_default().to_owned();
            let message = format!(
                "{arch} prepares images itself, in its first layers: with '{asked}' they would be prepared twice; leave `preprocess` out, or say \"none\""
            );
            return Err(self.experiment.problem("preprocess", &Value::Text(asked), message));
        }
        layer.entry("resize".to_owned()).or_insert(Value::Text(Resize::WHOLE.to_string()));
        layer.entry("width".to_owned()).or_insert(Value::Float(1.0));
        Ok(())
    }

    fn no_arch(&self, arch: String) -> Problem {
        let names = &crate::model::arch::NAMES;
        let near = crate::spelling::nearest(&arch, names.iter().copied());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        let message =
            format!("there is no architecture '{arch}'{hint}; there are {}, or a .toml of your own", names.join(", "));
        self.experiment.problem("arch", &Value::Text(arch), message)
    }

    fn known(&self, weights: &str) -> Option<&KnownBackbone> {
        self.facts.weights.get(weights)?.known.as_ref()
    }

    /// The network up to the tap; the tap is settled to its layer's own name.
    fn backbone(&mut self, layer: &mut Layer) -> Result<Graph, Problem> {
        let arch = chain::arch(layer, self.facts).map_err(|message| self.plain(message))?;
        let asked = layer.get("tap").cloned().unwrap_or_else(|| Value::Text("features".to_owned()));
        let refused = |message: String| self.experiment.problem("tap", &asked, message);
        let tap = recipe::tap(&asked).map_err(refused)?;
        let built = self.graphs.entry(format!("{arch:?} {tap}")).or_insert_with(|| arch.features(&tap));
        let graph = built.clone().map_err(refused)?;
        let names: Vec<&str> = taps(&graph).into_iter().map(|tap| graph.layers[tap].name.as_str()).collect();
        layer.insert("tap".to_owned(), Value::Text(names.join(recipe::AND)));
        Ok(graph)
    }
}

/// What a network of a person's own is called in keys and tables: its content decides, not where its file is.
pub fn own_name(own: &Sketch) -> String {
    format!("{}-{}", own.name, own.key().short())
}

fn preprocess(preprocess: Preprocess) -> Value {
    Value::Text(preprocess.to_string())
}

fn difference(space: &mut Space, asked: &Layer, settled: &Layer) -> Vec<(usize, u16)> {
    let mut set = Vec::new();
    for key in asked.keys().filter(|key| !settled.contains_key(*key)) {
        set.push((space.column(key), 0));
    }
    for (key, value) in settled.iter().filter(|(key, value)| asked.get(*key) != Some(value)) {
        let column = space.column(key);
        set.push((column, space.place(column, value)));
    }
    set
}
