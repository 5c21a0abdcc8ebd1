//! Whole training runs against PyTorch, from the same weights and batches (`fixtures/steps.py` made
//! `fixtures/steps.json`): the same losses to 1e-3, and total updates within 2e-2 of theirs
//! (on a GPU 5e-2), tensor by tensor.

use candle_core::Tensor;
use serde_json::Value;
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Framework, Op};
use tl_sweep::model::init;
use tl_sweep::nn::loss::{Targets, cross_entropy};
use tl_sweep::nn::optim::{Rule, State, Step};
use tl_sweep::recipe::BatchNorm;
use tl_sweep::seed::{Stream, stream};

use super::twin::size;
use super::{device, doubles, floats, on_path, tensor, uniform, words};

const SKETCH: usize = 16;
const LR: f64 = 0.05;

struct Run<'a> {
    case: &'a Value,
    network: Network,
}

impl<'a> Run<'a> {
    fn new(case: &'a Value) -> Self {
        let name = case["arch"].as_str().unwrap().to_owned();
        let width = if name == "mobilenet_v1" { 0.25 } else { 1.0 };
        let mut graph = Arch::new(&name, case["side"].as_u64().unwrap() as usize, width).graph(10).unwrap();
        // PyTorch's side of the comparison flattens its own way.
        graph.framework = Framework::Torch;
        for layer in &mut graph.layers {
            if matches!(layer.op, Op::Dropout(_)) {
                layer.op = Op::Dropout(0.0);
            }
        }
        let weights = init::fresh(&graph, 0, 1, 0).unwrap();
        let mut network = Network::new(graph, &weights, &device()).unwrap();
        if case["stored"].as_bool().unwrap() {
            network.batch_norm = BatchNorm::Affine;
        }
        let mut run = Self { case, network };
        run.fill();
        run
    }

    fn number(&self, key: &str) -> f64 {
        self.case[key].as_f64().unwrap()
    }

    fn count(&self, key: &str) -> usize {
        self.number(key) as usize
    }

    /// The starting weights of the script.
    fn fill(&mut self) {
        for (index, (layer, which)) in self.network.trainable().into_iter().enumerate() {
            let shape = self.network.params[layer][which].dims().to_vec();
            let norm = matches!(self.network.graph.layers[layer].op, Op::BatchNorm { .. });
            let head = if shape[0] == 10 { self.number("head") } else { 1.0 };
            let scale = (self.number("gain") / size(&shape[1..]) as f64).sqrt() * head;
            let value = |value: f64| match shape.len() {
                1 => (value as f32) * 0.1 + if norm && which == 0 { 1.0 } else { 0.0 },
                _ => value as f32 * scale as f32,
            };
            let values: Vec<f32> = uniform(size(&shape), 100 + index as u64).into_iter().map(value).collect();
            self.network.params[layer][which] = Tensor::from_vec(values, shape, &device()).unwrap();
        }
    }

    fn batch(&self, step: usize) -> (Tensor, Vec<u32>) {
        let (side, cell, images) = (self.count("side"), self.count("cell"), self.count("batch"));
        let cells = side / cell;
        let noise = uniform(images * 3 * side * side, 1000 + step as u64);
        let patterns: Vec<Vec<f64>> = (0..10).map(|label| uniform(3 * cells * cells, 2000 + label)).collect();
        let labels: Vec<u32> = (step..step + images).map(|label| (label % 10) as u32).collect();
        let strength = self.number("noise") as f32;
        let pixel = |(at, noise): (usize, &f64)| {
            let (image, channel) = (at / (3 * side * side), at / (side * side) % 3);
            let (row, column) = (at / side % side / cell, at % side / cell);
            let pattern = patterns[labels[image] as usize][(channel * cells + row) * cells + column];
            f64::from(pattern as f32 + strength * *noise as f32)
        };
        let values: Vec<f64> = noise.iter().enumerate().map(pixel).collect();
        (tensor(&values, &[images, 3, side, side]), labels)
    }

    fn step(&mut self, step: usize) -> f64 {
        let (x, labels) = self.batch(step);
        let mut rng = stream(1, Stream::Dropout, &[]);
        let mut tape = self.network.forward(&x, Mode::Train(&mut rng)).unwrap();
        let loss = cross_entropy(&tape.result().unwrap(), &labels, Targets::default()).unwrap();
        let rule = Rule::Sgd { momentum: 0.0, nesterov: false };
        let network = &self.network;
        let plain = Step { lr: LR, coupled_decay: 0.0, decoupled_decay: 0.0 };
        let mut take = |layer: usize, gradients: Vec<Tensor>| {
            for (which, gradient) in gradients.iter().enumerate() {
                State::default().step(rule, plain, &network.params[layer][which], gradient)?;
            }
            Ok(())
        };
        network.backward_into(&mut tape, loss.gradient, &mut take).unwrap();
        self.network.follow(tape);
        loss.mean
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn check(number: usize) {
    on_path();
    let cases: Value = serde_json::from_str(include_str!("../fixtures/steps.json")).unwrap();
    let case = &cases[number];
    let mut run = Run::new(case);
    let before = run.network.snapshot().unwrap();
    for (step, expected) in case["losses"].as_array().unwrap().iter().enumerate() {
        let (loss, expected) = (run.step(step), expected.as_f64().unwrap());
        assert!((loss - expected).abs() < 1e-3, "step {step}: {loss} against {expected}");
    }
    // Another order of sums flips a ReLU or a maximum here and there, and twenty steps make more of it.
    let limit = if device().is_cpu() { 2e-2 } else { 5e-2 };
    let updates = case["updates"].as_array().unwrap();
    assert_eq!(updates.len(), run.network.trainable().len());
    for (index, ((layer, which), theirs)) in run.network.trainable().into_iter().zip(updates).enumerate() {
        let update = (&run.network.params[layer][which] - &before[layer][which]).unwrap();
        let update = doubles(&floats(&update));
        let length = theirs["norm"].as_f64().unwrap();
        let name = &run.network.graph.layers[layer].name;
        assert!((norm(&update) - length).abs() <= limit * length, "{name}: |update| {} not {length}", norm(&update));
        let signs: Vec<f64> =
            words(SKETCH * update.len(), 5000 + index as u64).map(|w| f64::from(w & 1) * 2.0 - 1.0).collect();
        let sketch = signs.chunks(update.len()).map(|row| row.iter().zip(&update).map(|(s, u)| s * u).sum::<f64>());
        let theirs = theirs["sketch"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        let differences: Vec<f64> = sketch.zip(theirs).map(|(ours, theirs)| ours - theirs).collect();
        let distance = norm(&differences) / (SKETCH as f64).sqrt();
        assert!(distance <= limit * length, "{name}[{which}]: the update is {} off", distance / length);
    }
}

#[test]
fn twenty_steps_of_resnet20() {
    check(0);
}

#[test]
fn twenty_steps_of_the_small_vgg() {
    check(1);
}

#[test]
fn twenty_steps_of_mobilenet_v1_with_stored_statistics() {
    check(2);
}

#[test]
fn one_step_of_mobilenet_v1_with_statistics_of_the_batch() {
    check(3);
}
