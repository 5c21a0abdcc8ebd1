//! Our side of `benches/gpu.py`: reads cases as JSON lines, runs whole networks and heads on the first CUDA device, and answers
//! with milliseconds and bytes; `"record": false` asks for every launch of a step. By hand: `echo '{"arch": "resnet20", "input": 32, "batch": 128, "pass": "step"}' |
//! cargo bench --features cudnn --bench gpu`.

use std::io::BufRead;
use std::time::Instant;

use candle_core::cuda_backend::cudarc::driver::Profiler;
use candle_core::{Device, Result, Tensor};
use serde_json::{Value, json};
use tl_sweep::device::Precision;
use tl_sweep::exec::routine::{Routine, States, TrainStep};
use tl_sweep::exec::{Network, Storage};
use tl_sweep::model::arch::Arch;
use tl_sweep::model::freezing::with_head;
use tl_sweep::model::init;
use tl_sweep::nn::activation::Activation;
use tl_sweep::nn::loss::{Targets, cross_entropies};
use tl_sweep::nn::optim::{HeadStep, Rule, Sizes, State, Step, step_heads};
use tl_sweep::nn::{self, activation, buffer, cuda, linear};
use tl_sweep::recipe::{Head, Pool};
use tl_sweep::seed::{Stream, stream};

const RULE: Rule = Rule::Sgd { momentum: 0.9, nesterov: false };
const STEP: Step = Step { lr: 1e-3, coupled_decay: 0.0, decoupled_decay: 0.0 };

fn main() -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let spec: Value = serde_json::from_str(&line?)?;
        println!("{}", answer(&spec)?);
    }
    Ok(())
}

fn number(spec: &Value, key: &str, default: usize) -> usize {
    spec[key].as_u64().map_or(default, |value| value as usize)
}

fn precision(spec: &Value) -> Precision {
    let named = |precision: &Precision| spec["precision"] == precision.name();
    Precision::ALL.into_iter().find(named).unwrap_or_default()
}

/// Each case on threads of its own: `at_once` networks, each on a stream.
fn answer(spec: &Value) -> anyhow::Result<Value> {
    let threads = number(spec, "at_once", 1);
    let start = Instant::now();
    let answers: Vec<anyhow::Result<Times>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| timed(spec))).collect();
        running.into_iter().map(|thread| thread.join().expect("a case has panicked")).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut all = Times::default();
    for answer in answers {
        let own = answer?;
        all.ms.extend(own.ms);
        all.host_ms.extend(own.host_ms);
        all.workspace = own.workspace;
        all.recorded = own.recorded;
    }
    let device = cuda::device::open(0)?;
    let peak = cuda::device::peak(&device)?;
    cuda::device::trim(&device, 0)?;
    let predicted = predicted(spec, all.workspace)?;
    let (ms, host_ms, recorded) = (all.ms, all.host_ms, all.recorded);
    Ok(
        json!({"ms": ms, "host_ms": host_ms, "recorded": recorded, "seconds": seconds, "peak": peak, "predicted": predicted}),
    )
}

#[derive(Default)]
struct Times {
    /// Milliseconds of a step, for each round.
    ms: Vec<f64>,
    /// Those of asking for it alone, without waiting.
    host_ms: Vec<f64>,
    /// Bytes that products and convolutions keep to work in, and the most for the moment.
    workspace: (usize, usize),
    /// Whether its steps are recorded, or why not.
    recorded: Option<String>,
}

/// Steps in rounds, the device synchronised before and behind each. With `profile` one more step runs between the marks that a
/// profiler starts and stops at.
fn timed(spec: &Value) -> anyhow::Result<Times> {
    let _rounding = nn::round(precision(spec));
    let device = cuda::device::open(0)?;
    let mut case = Case::new(spec, &device)?;
    let (steps, rounds) = (number(spec, "steps", 10), number(spec, "rounds", 7));
    for _ in 0..number(spec, "warmup", 5) {
        case.run()?;
    }
    case.wait()?;
    // What building took is not what running takes; networks at once are all built by the time that the last one warms up.
    cuda::device::peak(&device)?;
    let mut times = Times::default();
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..steps {
            case.run()?;
        }
        times.host_ms.push(start.elapsed().as_secs_f64() * 1e3 / steps as f64);
        case.wait()?;
        times.ms.push(start.elapsed().as_secs_f64() * 1e3 / steps as f64);
    }
    if spec["profile"] == true {
        let _marks = Profiler::new()?;
        case.run()?;
        case.wait()?;
    }
    times.workspace = cuda::device::workspace();
    times.recorded = case.recorded();
    Ok(times)
}

enum Case {
    Network {
        network: Box<Network>,
        states: States,
        routine: Routine,
        x: Tensor,
        labels: Vec<u32>,
        step: bool,
    },
    /// A hundred launches of a small kernel, with and without memory for what it gives: what asking costs.
    Calls {
        x: Tensor,
        state: State,
        allocate: bool,
    },
    Heads {
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        states: Vec<[State; 2]>,
        labels: Vec<u32>,
    },
}

fn network(spec: &Value, device: &Device) -> anyhow::Result<Network> {
    let name = spec["arch"].as_str().unwrap_or("resnet20").to_owned();
    let arch = Arch::new(&name, number(spec, "input", 32), 1.0);
    // Up to a tap, pooled, with a linear head; or as it is.
    let graph = match spec["tap"].as_str() {
        Some(tap) => arch.backbone(tap).map(|backbone| with_head(&backbone, Pool::Avg(1), &Head::Linear, 10, 0.0)),
        None => arch.graph(10),
    };
    let graph = graph.map_err(anyhow::Error::msg)?;
    let weights = init::fresh(&graph, 0, 1, 0)?;
    let mut network = Network::new(graph, &weights, device)?;
    network.frozen = number(spec, "frozen", 0).min(network.graph.layers.len());
    network.own()?;
    Ok(network)
}

/// Numbers that are not zero: those would multiply faster.
fn noise(shape: &[usize], device: &Device) -> Result<Tensor> {
    let mut rng = stream(1, Stream::Init, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, shape, device)
}

impl Case {
    fn new(spec: &Value, device: &Device) -> anyhow::Result<Self> {
        let batch = number(spec, "batch", 64);
        let labels = (0..batch as u32).map(|label| label % 10).collect();
        if spec["pass"] == "heads" {
            let (heads, inputs) = (number(spec, "heads", 480), number(spec, "inputs", 512));
            let states = (0..heads).map(|_| Default::default()).collect();
            let (weight, bias) = (noise(&[heads * 10, inputs], device)?, noise(&[heads * 10], device)?);
            return Ok(Self::Heads { x: noise(&[batch, inputs], device)?, weight, bias, states, labels });
        }
        if spec["pass"] == "launches" || spec["pass"] == "allocations" {
            let allocate = spec["pass"] == "allocations";
            return Ok(Self::Calls { x: noise(&[1024], device)?, state: State::default(), allocate });
        }
        let mut network = Box::new(network(spec, device)?);
        let step = spec["pass"] == "step";
        if !step {
            network.frozen = network.graph.layers.len();
        }
        let [channels, height, width] = network.graph.layers[0].shape;
        let x = noise(&[batch, channels, height, width], device)?;
        let routine = if spec["record"] == false { Routine::unrecorded() } else { Routine::default() };
        Ok(Self::Network { network, states: States::new(), routine, x, labels, step })
    }

    fn run(&mut self) -> Result<()> {
        match self {
            Self::Network { network, x, step: false, .. } => network.infer(x).map(drop),
            Self::Network { network, states, routine, x, labels, step: true } => {
                let sizes = &Sizes::alike(STEP, network.graph.layers.len());
                let lesson = TrainStep {
                    labels: (&*labels).into(),
                    targets: Targets::default(),
                    rule: RULE,
                    sizes,
                    pull: None,
                    clip: None,
                };
                let mean = routine.step(network, states, x, &lesson, &mut stream(1, Stream::Dropout, &[]))?;
                buffer::recycle(mean)
            }
            Self::Calls { x, state, allocate } => {
                for _ in 0..100 {
                    match allocate {
                        true => drop(activation::forward(x, Activation::Relu)?),
                        false => drop(state.step(RULE, STEP, x, x)?),
                    }
                }
                Ok(())
            }
            Self::Heads { x, weight, bias, states, labels } => {
                let logits = linear::heads_forward(x, weight, bias)?;
                let targets = vec![Targets::default(); states.len()];
                let (_, dy) = cross_entropies(&logits, &*labels, &targets)?;
                let gradients = linear::heads_backward(x, &dy, states.len())?;
                for (which, (parameter, gradient)) in [weight, bias].into_iter().zip(&gradients).enumerate() {
                    let own = |state| Some(HeadStep { state, rule: RULE, step: STEP });
                    let mut heads: Vec<_> = states.iter_mut().map(|states| own(&mut states[which])).collect();
                    step_heads(&mut heads, parameter, gradient)?;
                }
                Ok(())
            }
        }
    }

    fn recorded(&self) -> Option<String> {
        match self {
            Self::Network { routine, step: true, .. } if routine.is_recorded() => Some("recorded".to_owned()),
            Self::Network { routine, step: true, .. } => Some(routine.refused().unwrap_or("one by one").to_owned()),
            _ => None,
        }
    }

    fn wait(&self) -> Result<()> {
        match self {
            Self::Network { x, .. } | Self::Heads { x, .. } | Self::Calls { x, .. } => cuda::device::synchronise(x),
        }
    }
}

/// Bytes that the graph says a network's case takes.
fn predicted(spec: &Value, (workspace, patches): (usize, usize)) -> anyhow::Result<Value> {
    if spec["arch"].is_null() {
        return Ok(Value::Null);
    }
    let network = network(spec, &Device::Cpu)?;
    let storage =
        Storage { number: if precision(spec) == Precision::Bf16 { 2 } else { 4 }, memories: 1, workspace, patches };
    let batch = number(spec, "batch", 64);
    let bytes = match spec["pass"] == "step" {
        true => network.training_bytes(batch, storage),
        false => network.evaluation_bytes(batch, storage),
    };
    Ok(json!(bytes * number(spec, "at_once", 1)))
}
