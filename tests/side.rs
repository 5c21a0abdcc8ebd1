//! Our side of a comparison with another framework: the same images, the same weights, the same steps. The parity
//! benchmark compares all numbers, the tests compare samples of them with a fixture.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::Deserialize;
use tl_sweep::data::batch::normalise;
use tl_sweep::device::Precision;
use tl_sweep::exec::{Mode, Network};
use tl_sweep::frame::Resize;
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Graph, Op};
use tl_sweep::model::init;
use tl_sweep::model::lora::with_lora;
use tl_sweep::model::selected::Selected;
use tl_sweep::model::trained::{Opened, Trained};
use tl_sweep::model::weights::Weights;
use tl_sweep::nn::loss::{Targets, cross_entropy};
use tl_sweep::nn::optim::{Rule, State, Step};
use tl_sweep::preprocess::Preprocess;
use tl_sweep::recipe::{BatchNorm, Head, Pool};
use tl_sweep::seed::{Stream, stream};
use tl_sweep::trains::{Dense, Lora, Trains};

#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    pub arch: String,
    pub width: f64,
    pub input: usize,
    pub weights: PathBuf,
    pub images: usize,
    /// Layers whose outputs are compared.
    pub cuts: Vec<String>,
    /// `model.layers[:frozen]` is frozen in the steps.
    pub frozen: usize,
    pub steps: usize,
    pub lr: f64,
    pub momentum: f64,
    /// Whether images are numbers from 0 to 255, and not from -1 to 1.
    #[serde(default)]
    pub bytes: bool,
    /// The rank of what is added beside the projections to queries, keys and values, and a file of its numbers.
    #[serde(default)]
    pub lora: Option<(usize, PathBuf)>,
}

pub struct Side {
    pub network: Network,
    pub job: Job,
}

/// Noise images that both sides make for themselves, [n, 3, side, side].
pub fn images(job: &Job, number: usize) -> Tensor {
    let (images, side) = (job.images, job.input);
    let count = images * 3 * side * side;
    let value = |at| if job.bytes { noise(at) * 127.5 + 127.5 } else { noise(at) };
    let values = (number * count..(number + 1) * count).map(value).collect::<Vec<f32>>();
    Tensor::from_vec(values, (images, 3, side, side), &Device::Cpu).unwrap()
}

/// A trained network that nobody has trained: every number is drawn, those of norms and statistics as well.
pub fn drawn(arch: Arch, tap: &str, pool: Pool, preprocess: Preprocess) -> Opened {
    let model = Trained {
        arch,
        preprocess,
        white: None,
        resize: Resize::WHOLE,
        tap: tap.to_owned(),
        pool,
        head: Head::Mlp(vec![7]),
        frozen: 0,
        seam: 0,
        lora: None,
        precision: Precision::F32,
        classes: ["ant", "bee", "cat", "dog"].map(str::to_owned).into(),
        seen: Vec::new(),
    };
    let graph = model.graph().unwrap();
    let mut weights = init::fresh(&graph, 0, 1, 0).unwrap();
    let mut at = 0;
    for (name, tensor) in &mut weights.0 {
        let vector = tensor.rank() == 1;
        let [around, wide] = match name.rsplit('.').next().unwrap() {
            "running_var" | "variance" => [1.0, 0.5],
            // What many blocks add up must not grow without end.
            "weight" if name.contains("project_bn") => [0.4, 0.1],
            "weight" if vector => [1.0, 0.3],
            "relative_position_bias_table" => [0.0, 1.0],
            leaf if vector || leaf == "mean" => [0.0, 0.2],
            _ => continue,
        };
        let values = (at..at + tensor.elem_count()).map(|at| around + wide * noise(at)).collect::<Vec<f32>>();
        at += values.len();
        *tensor = Tensor::from_vec(values, tensor.shape().clone(), &Device::Cpu).unwrap();
    }
    Opened { model, graph, weights, facts: BTreeMap::from([("trial".to_owned(), "3f2a91".to_owned())]) }
}

/// Squares of RGB bytes for such a network, what it answers to them, [n, classes], and the bytes as planes of f32.
pub fn answered(opened: &Opened, images: usize) -> (Tensor, Tensor) {
    let side = opened.model.arch.input;
    let bytes: Vec<u8> = (0..images * side * side * 3).map(|at| (noise(at) * 127.5 + 127.5) as u8).collect();
    let (mut x, mut planes) = (Vec::new(), Vec::new());
    for image in bytes.chunks(side * side * 3) {
        normalise(image, opened.model.preprocess, &mut x);
        normalise(image, Preprocess::None, &mut planes);
    }
    let [x, planes] =
        [x, planes].map(|values| Tensor::from_vec(values, (images, 3, side, side), &Device::Cpu).unwrap());
    let network = Network::new(opened.graph.clone(), &opened.weights, &Device::Cpu).unwrap();
    (network.infer(&x).unwrap().flatten_from(1).unwrap(), planes)
}

impl Side {
    pub fn new(job: Job) -> Self {
        let arch = Arch::new(&job.arch, job.input, job.width);
        let (mut weights, fitted) = Weights::whole(&job.weights, &arch).unwrap();
        let mut graph = fitted.graph;
        for layer in &mut graph.layers {
            match &mut layer.op {
                Op::Dropout(p) | Op::DropPath(p) => *p = 0.0,
                _ => {}
            }
        }
        let graph = if fitted.headless {
            let features = arch.tap(&graph, "no_top").unwrap();
            graph.truncate(features)
        } else {
            graph
        };
        let Some((rank, path)) = &job.lora else {
            return Self { network: Network::new(graph, &weights, &Device::Cpu).unwrap(), job };
        };
        let lora = Lora { rank: *rank, on: Dense::Attention };
        let graph = with_lora(&graph, 0, lora).unwrap();
        weights.0.extend(init::fresh(&graph, graph.layers.len(), 0, 0).unwrap().0);
        weights.0.extend(candle_core::safetensors::load(path, &Device::Cpu).unwrap());
        let mut network = Network::new(graph, &weights, &Device::Cpu).unwrap();
        network.selected = Selected::of(&network.graph, &Trains::Lora(lora));
        Self { network, job }
    }

    /// Images and their labels.
    fn batch(&self, number: usize) -> (Tensor, Vec<u32>) {
        let images = self.job.images;
        let classes = self.network.graph.layers.last().unwrap().shape[0];
        let labels = (number * images..(number + 1) * images).map(|image| (image % classes) as u32).collect();
        (self::images(&self.job, number), labels)
    }

    pub fn logits(&self) -> Tensor {
        self.network.infer(&self.batch(0).0).unwrap()
    }

    /// The outputs of the layers that the job names.
    pub fn cuts(&self) -> Vec<(String, Tensor)> {
        self.job.cuts.iter().map(|name| (format!("cut:{name}"), self.cut(name))).collect()
    }

    /// The output of a layer, channels first.
    fn cut(&self, name: &str) -> Tensor {
        let graph: Graph = self.network.graph.truncate(self.network.graph.find(name).unwrap());
        let network = Network::new(graph, &self.network.weights().unwrap(), &Device::Cpu).unwrap();
        network.infer(&self.batch(0).0).unwrap()
    }

    /// Gradients of the cross-entropy of one image, with stored statistics: of the first, a middle and the last weight.
    pub fn gradients(&mut self) -> Vec<(String, Tensor)> {
        let (x, labels) = self.batch(0);
        let (x, labels) = (x.narrow(0, 0, 1).unwrap(), labels[..1].to_vec());
        self.network.batch_norm = BatchNorm::Affine;
        self.network.frozen = 0;
        let mut tape = self.network.forward(&x, Mode::Train(&mut stream(0, Stream::Dropout, &[]))).unwrap();
        let loss = cross_entropy(&tape.result().unwrap(), &labels, Targets::default()).unwrap();
        let mut all = BTreeMap::new();
        let mut take = |layer: usize, own: Vec<Tensor>| {
            all.insert(layer, own[0].copy()?);
            Ok(())
        };
        self.network.backward_into(&mut tape, loss.gradient, &mut take).unwrap();
        let op = |layer: usize| &self.network.graph.layers[layer].op;
        let weighs = |layer: &usize| matches!(op(*layer), Op::Conv { .. } | Op::Linear { .. } | Op::Pointwise { .. });
        let weighing: Vec<usize> = all.keys().copied().filter(weighs).collect();
        let mut layers = vec![weighing[0], weighing[weighing.len() / 2], weighing[weighing.len() - 1]];
        // Of what only transformers and their like have, the first of each kind.
        let kinds: [fn(&Op) -> bool; 4] = [
            |op| matches!(op, Op::LayerNorm { .. }),
            |op| matches!(op, Op::Tokens { .. }),
            |op| matches!(op, Op::Positions),
            |op| matches!(op, Op::LayerScale { .. }),
        ];
        layers.extend(kinds.iter().filter_map(|kind| all.keys().copied().find(|layer| kind(op(*layer)))));
        layers
            .into_iter()
            .map(|layer| (format!("{}.weight", self.network.graph.layers[layer].name), all[&layer].clone()))
            .collect()
    }

    /// Steps of SGD with the first layers frozen and batch statistics above them. Returns the losses.
    pub fn train(&mut self) -> Vec<f64> {
        self.network.batch_norm = BatchNorm::Train;
        self.network.frozen = self.job.frozen;
        self.network.own().unwrap();
        let mut states: HashMap<(usize, usize), State> = HashMap::new();
        (0..self.job.steps).map(|step| self.step(step, &mut states)).collect()
    }

    fn step(&mut self, step: usize, states: &mut HashMap<(usize, usize), State>) -> f64 {
        let (x, labels) = self.batch(step);
        let mut tape = self.network.forward(&x, Mode::Train(&mut stream(0, Stream::Dropout, &[]))).unwrap();
        let loss = cross_entropy(&tape.result().unwrap(), &labels, Targets::default()).unwrap();
        let rule = Rule::Sgd { momentum: self.job.momentum, nesterov: false };
        let plain = Step { lr: self.job.lr, coupled_decay: 0.0, decoupled_decay: 0.0 };
        let mut own: Vec<(usize, Vec<Tensor>)> = Vec::new();
        let mut take = |layer: usize, gradients: Vec<Tensor>| {
            own.push((layer, gradients.iter().map(Tensor::copy).collect::<Result<_, _>>()?));
            Ok(())
        };
        self.network.backward_into(&mut tape, loss.gradient, &mut take).unwrap();
        for (layer, gradients) in own {
            for (which, gradient) in self.network.learned(layer).into_iter().zip(&gradients) {
                let state = states.entry((layer, which)).or_default();
                let moved = state.step(rule, plain, &self.network.params[layer][which], gradient).unwrap();
                self.network.params[layer][which] = moved;
            }
        }
        self.network.follow(tape);
        loss.mean
    }
}

/// Noise between -1 and 1: splitmix64 of a number's place.
fn noise(place: usize) -> f32 {
    let z = (place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

/// A job from its JSON, with its weights beside `folder`.
pub fn job(value: &serde_json::Value, folder: &Path) -> Job {
    let mut job: Job = serde_json::from_value(value.clone()).unwrap();
    job.weights = folder.join(&job.weights);
    job
}
