//! Our side of `just parity`: reads a job, writes all numbers as safetensors for the script to compare.

#[path = "../tests/side.rs"]
mod side;

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use tl_sweep::exec::Network;
use tl_sweep::model::arch::{Arch, family};
use tl_sweep::model::catalogue::identify;
use tl_sweep::model::texts::tokenizer;
use tl_sweep::model::vit::EMBEDS;
use tl_sweep::model::weights::Weights;
use tl_sweep::plan::stage::Texts;
use tl_sweep::recipe::Pool;
use tl_sweep::train::{named_head, reformed};

fn main() {
    let Some(path) = std::env::args().skip(1).find(|argument| argument.ends_with(".json")) else {
        println!("usage: parity JOB.json (benches/parity.sh runs it)");
        return;
    };
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let job = side::job(&value, Path::new(""));
    if let Some(path) = value.get("onnx") {
        return save(of_onnx(&job, Path::new(path.as_str().unwrap())), &value);
    }
    if let Some(texts) = value.get("texts") {
        return save(zero_shot(&job, texts), &value);
    }
    let mut numbers: HashMap<String, Tensor> = HashMap::new();
    let mut note = |name: &str, value: f64| {
        numbers.insert(name.to_owned(), Tensor::new(&[value], &Device::Cpu).unwrap());
    };
    note("memory:start", peak());
    let start = Instant::now();
    let mut side = side::Side::new(job.clone());
    note("seconds:load", start.elapsed().as_secs_f64());
    note("memory:load", peak());
    let mut fastest = f64::INFINITY;
    let mut logits = None;
    for _ in 0..value["repeats"].as_u64().unwrap_or(1) {
        let start = Instant::now();
        logits = Some(side.logits());
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    note("seconds:forward", fastest);
    note("memory:forward", peak());
    numbers.insert("logits".to_owned(), logits.unwrap());
    numbers.extend(side.cuts());
    if job.steps > 0 && job.lora.is_none() {
        for (name, gradient) in side.gradients() {
            numbers.insert(format!("grad:{name}"), gradient);
        }
    }
    if job.steps > 0 {
        numbers.insert("losses".to_owned(), Tensor::new(side.train(), &Device::Cpu).unwrap());
        for (name, tensor) in side.network.weights().unwrap().0 {
            numbers.insert(format!("after:{name}"), tensor);
        }
    }
    save(numbers, &value);
}

/// Writes a network of drawn numbers for ONNX; gives images, and what it answers to them.
fn of_onnx(job: &side::Job, path: &Path) -> HashMap<String, Tensor> {
    let arch = Arch::new(&job.arch, job.input, job.width);
    let preprocess = family(&job.arch).unwrap().preprocess;
    let opened = side::drawn(arch, "features", Pool::Avg(1), preprocess);
    let (logits, planes) = side::answered(&opened, job.images);
    reformed(opened, path).unwrap();
    [("logits", logits), ("planes", planes)].map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

/// The head that class names make, the unit vectors of images, and what both answer.
fn zero_shot(job: &side::Job, texts: &serde_json::Value) -> HashMap<String, Tensor> {
    let arch = Arch::new(&job.arch, job.input, job.width);
    let list =
        |key: &str| texts[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    let tokenizer = identify(&tokenizer::beside(&job.weights).unwrap()).unwrap().sha256;
    let texts = Texts { prompts: list("prompts"), names: list("names"), tokenizer };
    let [weight, bias] = named_head(&texts, &job.weights, &job.arch).unwrap();
    let (weights, _) = Weights::load(&job.weights, &arch, EMBEDS).unwrap();
    let network = Network::new(arch.backbone(EMBEDS).unwrap(), &weights, &Device::Cpu).unwrap();
    let images = network.infer(&side::images(job, 0)).unwrap().flatten_from(1).unwrap();
    let logits = images.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
    [("head", weight), ("images", images), ("logits", logits)].map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

fn save(numbers: HashMap<String, Tensor>, value: &serde_json::Value) {
    let numbers: HashMap<String, Tensor> = numbers
        .into_iter()
        .map(|(name, tensor)| {
            let wide = name.starts_with("seconds") || name.starts_with("memory") || name == "losses";
            (name, tensor.to_dtype(if wide { DType::F64 } else { DType::F32 }).unwrap().contiguous().unwrap())
        })
        .collect();
    candle_core::safetensors::save(&numbers, value["out"].as_str().unwrap()).unwrap();
}

/// The most memory that this process has held, in bytes.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()).map_or(0.0, |kb| kb * 1024.0)
}
