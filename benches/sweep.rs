//! Writes what the peers of `just bench-sweep` need of a grid: every trial with its network, the images of each split, and
//! for some trials the weights that they start from and the order in which they read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Parser;
use serde_json::{Value, json};
use tl_sweep::augmentation::Augmentation;
use tl_sweep::cli::{Cli, Common, Verb};
use tl_sweep::commands::jobs::{self, Kept};
use tl_sweep::commands::world::World;
use tl_sweep::data::augment::augment;
use tl_sweep::data::batch::order;
use tl_sweep::data::packed;
use tl_sweep::data::split::split;
use tl_sweep::experiment::Experiment;
use tl_sweep::model::graph::Graph;
use tl_sweep::model::init;
use tl_sweep::plan::cost::steps;
use tl_sweep::plan::stage::{Pretrain, Stage, Start, Train, Work};
use tl_sweep::plan::{Plan, trial_key};
use tl_sweep::seed::{Rng, Stream, stream};
use tl_sweep::train::Shelf;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [grid, db, out, sample] = &arguments[..] else {
        println!("usage: sweep GRID.toml DB OUT SAMPLE (benches/sweep.sh runs it)");
        return;
    };
    // The data and weights are found as the program finds them.
    let cli = Cli::parse_from(["tl-sweep", "plan", grid, "--db", db]);
    let (Verb::Plan { asked, .. }, common) = (cli.verb, cli.common) else { return };
    let out = PathBuf::from(out);
    std::fs::create_dir_all(&out).unwrap();
    let dump = Dump::new(&asked.file, &common, out);
    dump.write(sample.parse().unwrap());
}

struct Dump {
    world: World,
    plan: Plan,
    out: PathBuf,
}

impl Dump {
    fn new(file: &Path, common: &Common, out: PathBuf) -> Self {
        let experiment = Experiment::load(file, &[]).unwrap();
        let world = World::gather(&experiment, file, common).unwrap();
        let plan = Plan::new(&experiment, &world.facts).map_err(|problems| experiment.problems(problems)).unwrap();
        Self { world, plan, out }
    }

    fn write(&self, sample: usize) {
        let mut trials = Vec::new();
        let mut works: BTreeMap<String, Vec<(String, Work)>> = BTreeMap::new();
        let (mut graphs, mut splits, mut seen) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut sources = BTreeMap::new();
        for replicate in 0..self.plan.replicates {
            for cell in &self.plan.cells {
                let key = trial_key(cell.key, replicate).to_string();
                if !seen.insert(key.clone()) {
                    continue;
                }
                let work = jobs::trial_work(&self.plan, cell, replicate, &self.world, &Kept::default()).unwrap();
                let Stage::Train(stage) = &work.stage else { continue };
                let trial = self.trial(&key, stage, &work, &mut graphs, &mut splits);
                if let Some(source) = &work.pretrain {
                    let key = Stage::Pretrain(source.clone()).key().to_string();
                    sources.entry(key).or_insert_with(|| self.source(source, &mut graphs));
                }
                // The sample covers every dataset, network, cut and freeze depth.
                let stratum = json!([
                    trial["split"].as_str().unwrap().split('-').next(),
                    trial["graph"],
                    trial["cut"],
                    trial["frozen"]
                ]);
                works.entry(stratum.to_string()).or_default().push((key, work));
                trials.push(trial);
            }
        }
        let mut sampled: Vec<String> = Vec::new();
        let mut strata: Vec<Vec<(String, Work)>> = works.into_values().collect();
        strata.iter_mut().for_each(|own| own.sort_by(|one, other| one.0.cmp(&other.0)));
        while sampled.len() < sample && strata.iter().any(|own| !own.is_empty()) {
            for own in strata.iter_mut().filter(|own| !own.is_empty()) {
                let (key, work) = own.remove(0);
                self.weights(&key, work);
                sampled.push(key);
            }
        }
        let all = json!({"trials": trials, "sample": sampled, "graphs": graphs, "splits": splits, "sources": sources});
        std::fs::write(self.out.join("grid.json"), serde_json::to_vec(&all).unwrap()).unwrap();
        println!("{} trials, {} of them sampled", seen.len(), sampled.len());
    }

    fn trial(
        &self,
        key: &str,
        stage: &Train,
        work: &Work,
        graphs: &mut BTreeMap<String, Value>,
        splits: &mut BTreeMap<String, Value>,
    ) -> Value {
        let (whole, backbone) = stage.network().unwrap();
        let graph = named(&whole, graphs);
        let per_class = stage.per_class.map_or("all".to_owned(), |count| count.to_string());
        let name = format!("{}-{per_class}-{}", stage.data.short(), stage.replicate);
        splits.entry(name.clone()).or_insert_with(|| self.split(stage));
        let cut = stage.shared_cut().unwrap().filter(|_| stage.backbone.start != Start::Random);
        json!({
            "key": key,
            "graph": graph,
            "backbone_layers": backbone,
            "cut": cut,
            "start": match &stage.backbone.start {
                Start::Random => "random".to_owned(),
                Start::File(sha256) => sha256.clone(),
                Start::Pretrained(key) => key.to_string(),
            },
            "pretrain": work.pretrain,
            "frozen": stage.phases.iter().map(|phase| stage.frozen(phase).unwrap()).collect::<Vec<_>>(),
            "phases": stage.phases,
            "classes": stage.classes,
            "split": name,
            "replicate": stage.replicate,
            "seed": stage.seed,
            "preprocess": stage.backbone.preprocess,
            "side": stage.backbone.arch.input,
            "pixels": self.world.places.cache.join(format!("{}.pixels", packed::key(stage.data, stage.backbone.frame()))),
        })
    }

    /// A source model: its network, and how many images it is trained on in which way.
    fn source(&self, source: &Pretrain, graphs: &mut BTreeMap<String, Value>) -> Value {
        let data = self.world.facts.datasets.values().find(|data| data.fingerprint == source.data).unwrap();
        let (counts, graph) = (data.counts(None).unwrap(), source.arch.graph(source.classes).unwrap());
        json!({"graph": named(&graph, graphs), "images": counts.train, "val": counts.val, "phase": source.phase})
    }

    fn split(&self, stage: &Train) -> Value {
        let dataset = self.world.datasets.values().find(|dataset| dataset.manifest.fingerprint == stage.data).unwrap();
        let manifest = &dataset.manifest;
        let split = split(manifest, stage.per_class, stage.seed, stage.replicate as u64).unwrap();
        let with_classes = |samples: &[u32]| -> Vec<(u32, u32)> {
            samples.iter().map(|sample| (*sample, manifest.samples[*sample as usize].class)).collect()
        };
        let (mut orders, mut changes) = (Vec::new(), Vec::new());
        let phase = &stage.phases[0];
        let (total, _) = steps(phase, split.train.len());
        for epoch in 0..total.div_ceil(split.train.len().div_ceil(phase.batch)) as u64 {
            let order = order(&split.train, stage.seed, stage.replicate as u64, epoch);
            if !phase.augment.is_empty() {
                let change = |sample: &u32| {
                    let path = [stage.replicate as u64, epoch, u64::from(*sample)];
                    change(&phase.augment, stage.backbone.arch.input, &mut stream(stage.seed, Stream::Augment, &path))
                };
                changes.push(order.iter().map(change).collect::<Vec<_>>());
            }
            orders.push(order);
        }
        json!({
            "train": with_classes(&split.train),
            "val": with_classes(&split.val),
            "test": with_classes(&split.test),
            "orders": orders,
            "changes": changes,
        })
    }

    /// What a trial starts from, head included.
    fn weights(&self, key: &str, work: Work) {
        let Stage::Train(stage) = &work.stage else { return };
        let places = self.world.places.clone();
        let mut shelf = Shelf::new(places, candle_core::Device::Cpu).unwrap();
        let (whole, backbone) = stage.network().unwrap();
        let mut weights =
            shelf.weights(&stage.backbone, &work).unwrap().map_or_else(Default::default, |own| (*own).clone());
        let fresh_from = if weights.0.is_empty() { 0 } else { backbone };
        weights.0.extend(init::fresh(&whole, fresh_from, stage.seed, stage.replicate as u64).unwrap().0);
        let own: std::collections::HashMap<String, Tensor> = (0..whole.layers.len())
            .flat_map(|layer| whole.params(layer).into_iter().map(move |param| (layer, param.name)))
            .map(|(layer, param)| format!("{}.{param}", whole.layers[layer].name))
            .map(|name| (name.clone(), weights.0[&name].clone()))
            .collect();
        candle_core::safetensors::save(&own, self.out.join(format!("{key}.safetensors"))).unwrap();
    }
}

/// The name of a graph among those that are handed over.
fn named(graph: &Graph, graphs: &mut BTreeMap<String, Value>) -> String {
    let text = serde_json::to_string(graph).unwrap();
    let name = tl_sweep::key::Key::of_bytes(text.as_bytes()).short();
    graphs.entry(name.clone()).or_insert_with(|| serde_json::from_str(&text).unwrap());
    name
}

/// What a flip and a crop do to an image: whether it is mirrored, and the top and left of the window in the image with its
/// border. Read off an image whose pixels say where they are, so that the draws themselves are the program's own.
fn change(list: &[Augmentation], side: usize, rng: &mut Rng) -> (bool, usize, usize) {
    let flips_and_crops = |one: &Augmentation| matches!(one, Augmentation::Flip | Augmentation::Crop);
    assert!(side <= 256 && list.iter().all(flips_and_crops), "only flips and crops of small images can be handed over");
    let places: Vec<u8> = (0..side * side).flat_map(|at| [(at / side) as u8, (at % side) as u8, 255]).collect();
    let changed = augment(list, &places, side, rng);
    let inside: Vec<usize> = (0..side * side).filter(|at| changed[at * 3 + 2] == 255).collect();
    let from = |at: usize| (changed[at * 3] as usize, changed[at * 3 + 1] as usize);
    let (first, border) = (inside[0], if list.contains(&Augmentation::Crop) { side.div_ceil(8) } else { 0 });
    let ((row, column), (_, next)) = (from(first), from(inside[1]));
    let mirrored = next < column;
    let column = if mirrored { side - 1 - column } else { column };
    (mirrored, row + border - first / side, column + border - first % side)
}
