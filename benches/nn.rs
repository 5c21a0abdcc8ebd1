//! The compute core's side of `just bench-nn`: reads cases as JSON lines, answers with milliseconds. `benches/nn.py`
//! drives it beside PyTorch. By hand: `echo '{"conv": [64, 16, 32, 16, 3, 1, 1]}' | cargo bench --bench nn`.

use std::collections::HashMap;
use std::io::BufRead;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use serde_json::{Value, json};
use tl_sweep::exec::{Mode, Network};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::graph::{Activation, Framework, Graph, Op, Reduce};
use tl_sweep::model::init;
use tl_sweep::nn::activation::Activation as Function;
use tl_sweep::nn::conv::{self, Conv};
use tl_sweep::nn::loss::cross_entropy;
use tl_sweep::nn::norm::{self, Follow, Norm};
use tl_sweep::nn::optim::{Rule, State, Step};
use tl_sweep::nn::{buffer, linear, pool};
use tl_sweep::seed::{Stream, stream};

fn main() -> anyhow::Result<()> {
    tl_sweep::nn::on_pool(answer)
}

fn answer() -> anyhow::Result<()> {
    let mut cases: HashMap<String, Case> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let spec: Value = serde_json::from_str(&line)?;
        let key = spec["case"].to_string();
        if !cases.contains_key(&key) {
            cases.clear();
            buffer::release();
            cases.insert(key.clone(), Case::new(&spec["case"])?);
        }
        let before = resident("VmRSS")?;
        let start = Instant::now();
        if let Some(case) = cases.get_mut(&key) {
            case.run(spec["pass"] == "forward")?;
        }
        let ms = start.elapsed().as_secs_f64() * 1e3;
        println!("{}", json!({ "ms": ms, "before_kb": before, "peak_kb": resident("VmHWM")? }));
    }
    Ok(())
}

/// A line of /proc/self/status, in kB.
fn resident(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or_else(|| anyhow::anyhow!("no {name}"))?.parse()?)
}

/// What is timed, with its operands.
enum Case {
    Conv { conv: Conv, x: Tensor, w: Tensor, dy: Tensor },
    Linear { x: Tensor, w: Tensor, b: Tensor, dy: Tensor },
    Norm { norm: Norm, x: Tensor, dy: Tensor },
    Pool { windows: pool::Windows, reduce: pool::Reduce, x: Tensor, dy: Tensor },
    Net(Box<Net>),
}

struct Net {
    network: Network,
    x: Tensor,
    labels: Vec<u32>,
    states: HashMap<(usize, usize), State>,
}

impl Case {
    fn new(spec: &Value) -> anyhow::Result<Self> {
        let numbers = |name: &str| -> Vec<usize> {
            let list = spec[name].as_array().into_iter().flatten();
            list.filter_map(|number| number.as_u64().map(|number| number as usize)).collect()
        };
        if let [images, channels, side, out, kernel, stride, groups] = numbers("conv")[..] {
            let conv = Conv { kernel: [kernel; 2], stride, dilation: 1, padding: [(kernel - 1) / 2; 4], groups };
            let x = random(&[images, side, side, channels])?;
            let w = random(&[out, channels / groups, kernel, kernel])?;
            let dy = conv::forward(&conv, &x, &w, None, Function::Linear)?;
            return Ok(Self::Conv { conv, x, w, dy });
        }
        if let [images, depth, out] = numbers("linear")[..] {
            let (x, w, b) = (random(&[images, depth])?, random(&[out, depth])?, random(&[out])?);
            return Ok(Self::Linear { dy: random(&[images, out])?, x, w, b });
        }
        if let [images, channels, side] = numbers("norm_relu")[..] {
            let one = Tensor::ones(channels, candle_core::DType::F32, &Device::Cpu)?;
            let zero = one.zeros_like()?;
            let norm = Norm { weight: one.clone(), bias: zero.clone(), running_mean: zero, running_var: one };
            let x = random(&[images, side, side, channels])?;
            return Ok(Self::Norm { norm, dy: random(x.dims())?, x });
        }
        if let [images, channels, side, kernel, stride] = numbers("max_pool")[..] {
            let windows = pool::Windows::Moved(pool::Pool { kernel, stride, padding: [0; 4], ceil: false });
            let x = random(&[images, side, side, channels])?;
            let dy = pool::forward(&windows, pool::Reduce::Max, &x)?;
            return Ok(Self::Pool { windows, reduce: pool::Reduce::Max, x, dy });
        }
        let [images, side] = numbers("input")[..] else { anyhow::bail!("no such case: {spec}") };
        let graph = match spec["arch"].as_str() {
            Some(name) => Arch::new(name, side, 1.0).graph(10).map_err(anyhow::Error::msg)?,
            None => {
                let mut graph = Graph::new("bench", Framework::Torch, [3, side, side]);
                for layer in spec["layers"].as_array().into_iter().flatten() {
                    push(&mut graph, layer)?;
                }
                graph
            }
        };
        let weights = init::fresh(&graph, 0, 1, 0)?;
        let mut network = Network::new(graph, &weights, &Device::Cpu)?;
        network.own()?;
        let states = HashMap::new();
        let labels = (0..images as u32).map(|index| index % 10).collect();
        let x = random(&[images, 3, side, side])?;
        Ok(Self::Net(Box::new(Net { network, x, labels, states })))
    }

    fn run(&mut self, forward: bool) -> Result<()> {
        match self {
            Self::Conv { conv, x, w, dy } => {
                buffer::recycle(conv::forward(conv, x, w, None, Function::Linear)?)?;
                if !forward {
                    let dims = x.dims4()?;
                    let grads = conv::backward(conv, [dims.0, dims.1, dims.2, dims.3], Some(x), w, dy, true)?;
                    grads.into_iter().flatten().try_for_each(buffer::recycle)?;
                }
            }
            Self::Linear { x, w, b, dy } => {
                buffer::recycle(linear::forward(x, w, b, Function::Linear)?)?;
                if !forward {
                    let (dx, own) = linear::backward(Some(x), w, dy, true)?;
                    dx.into_iter().chain(own.into_iter().flatten()).try_for_each(buffer::recycle)?;
                }
            }
            Self::Norm { norm, x, dy } => {
                let follow = Follow { momentum: 0.1, unbiased: true };
                let (y, statistics, _) = norm::batch(norm, 1e-5, follow, x, Function::Relu)?;
                buffer::recycle(y)?;
                if !forward {
                    buffer::recycle(norm::batch_backward(&statistics, x, dy, Function::Relu)?.0)?;
                }
            }
            Self::Pool { windows, reduce, x, dy } => {
                let y = pool::forward(windows, *reduce, x)?;
                if !forward {
                    buffer::recycle(pool::max_backward(windows, x, &y, dy)?)?;
                }
                buffer::recycle(y)?;
            }
            Self::Net(net) => net.run(forward)?,
        }
        Ok(())
    }
}

impl Net {
    fn run(&mut self, forward: bool) -> Result<()> {
        if forward {
            self.network.infer(&self.x)?;
            return Ok(());
        }
        let mut rng = stream(1, Stream::Dropout, &[]);
        let mut tape = self.network.forward(&self.x, Mode::Train(&mut rng))?;
        let loss = cross_entropy(&tape.result()?, &self.labels, Default::default())?;
        let rule = Rule::Sgd { momentum: 0.9, nesterov: false };
        let step = Step { lr: 0.01, coupled_decay: 0.0, decoupled_decay: 0.0 };
        let Self { network, states, .. } = self;
        network.backward_into(&mut tape, loss.gradient, &mut |layer, gradients| {
            for (which, gradient) in gradients.into_iter().enumerate() {
                let state = states.entry((layer, which)).or_default();
                state.step(rule, step, &network.params[layer][which], &gradient)?;
                buffer::recycle(gradient)?;
            }
            Ok(())
        })?;
        network.follow(tape);
        Ok(())
    }
}

/// Appends a layer of a case: ["conv", out, kernel, stride, groups, bias], ["norm"], ["relu"], ["relu6"],
/// ["max", kernel, stride, padding], ["avg", kernel, stride, padding], ["mean"], ["flatten"], ["linear", out, relu],
/// ["concat", [branch, ...]], ["add", [branch, ...]]; a branch is a list of layers, an empty one the identity.
fn push(graph: &mut Graph, layer: &Value) -> anyhow::Result<()> {
    let number = |index: usize| layer[index].as_u64().unwrap_or(0) as usize;
    let name = format!("layer{}", graph.layers.len());
    let op = match layer[0].as_str().unwrap_or_default() {
        "conv" => {
            let kernel = if layer[2].is_array() {
                [layer[2][0].as_u64().unwrap_or(1) as usize, layer[2][1].as_u64().unwrap_or(1) as usize]
            } else {
                [number(2); 2]
            };
            let padding = if layer[6] == "valid" { [0; 2] } else { kernel.map(|side| (side - 1) / 2) };
            let padding = [padding[0], padding[0], padding[1], padding[1]];
            let bias = layer[5] == true;
            let activation = Activation::Linear;
            Op::Conv {
                out: number(1),
                kernel,
                stride: number(3),
                dilation: 1,
                padding,
                groups: number(4),
                bias,
                activation,
            }
        }
        "norm" => Op::torch_norm(1e-5),
        "relu" => Op::Activation(Activation::Relu),
        "relu6" => Op::Activation(Activation::Relu6),
        "max" => {
            Op::Pool { reduce: Reduce::Max, kernel: number(1), stride: number(2), padding: [number(3); 4], ceil: false }
        }
        "avg" => Op::Pool {
            reduce: Reduce::AvgPadded,
            kernel: number(1),
            stride: number(2),
            padding: [number(3); 4],
            ceil: false,
        },
        "mean" => Op::GridPool { reduce: Reduce::Avg, grid: 1 },
        "flatten" => Op::Flatten,
        "linear" => Op::Linear {
            out: number(1),
            activation: if layer[2] == true { Activation::Relu } else { Activation::Linear },
        },
        join @ ("concat" | "add") => {
            let from = graph.last();
            let mut ends = Vec::new();
            for branch in layer[1].as_array().into_iter().flatten() {
                let mut last = from;
                for layer in branch.as_array().into_iter().flatten() {
                    let copy = graph.layers.len();
                    push(graph, layer)?;
                    if last == from && graph.layers[copy].inputs == [copy - 1] && copy - 1 != from {
                        let built = graph.layers.remove(copy);
                        graph.push("bench", built.name, built.op, &[from]);
                    }
                    last = graph.last();
                }
                ends.push(last);
            }
            graph.push("bench", name, if join == "add" { Op::Add } else { Op::Concat }, &ends);
            return Ok(());
        }
        other => anyhow::bail!("no such layer: {other}"),
    };
    // Convolutions apply a ReLU behind them themselves, as the networks of the project do.
    if let (Op::Activation(activation), Op::Conv { activation: own, .. }) =
        (&op, &mut graph.layers.last_mut().ok_or_else(|| anyhow::anyhow!("no layer"))?.op)
    {
        *own = *activation;
        return Ok(());
    }
    graph.then("bench", name, op);
    Ok(())
}

fn random(shape: &[usize]) -> Result<Tensor> {
    let mut rng = stream(1, Stream::Synthetic, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
