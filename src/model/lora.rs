//! Low-rank adaptation (Hu et al., 2022): beside a dense layer W x stands B A x, of a small rank, and of the backbone A and B
//! alone train. A starts at random and B at zero, so that a network starts as it was; the sum is not scaled.

use candle_core::{DType, Device, Tensor};

use super::freezing::frozen_layers;
use super::graph::{Graph, Layer, Op};
use super::weights::Weights;
use crate::freeze::Freeze;
use crate::phase::Phase;
use crate::trains::{Dense, Lora, Trains};

/// Behind the name of a dense layer: of A, of B, and of the sum.
const PARTS: [&str; 3] = [".lora_a", ".lora_b", ".lora"];

/// Whether a layer is the A or the B of another.
pub fn is_addition(layer: &Layer) -> bool {
    PARTS[..2].iter().any(|part| layer.name.ends_with(part))
}

/// Whether it is the B, which starts at zero.
pub fn starts_at_zero(layer: &Layer) -> bool {
    layer.name.ends_with(PARTS[1])
}

/// Numbers of additions that never train: biases that stay zero, which nobody counts.
pub fn idle(graph: &Graph) -> usize {
    let biases = |index: usize| graph.params(index).into_iter().filter(|param| param.name == "bias");
    let additions = (0..graph.layers.len()).filter(|index| is_addition(&graph.layers[*index]));
    additions.flat_map(biases).map(|bias| bias.shape.iter().product::<usize>()).sum()
}

/// The dense layers of a backbone that `lora` is beside, above its first `frozen` ones, from the lowest.
///
/// # Errors
/// There is none; says what could be done.
pub fn adapted(backbone: &Graph, frozen: usize, lora: Lora) -> Result<Vec<usize>, String> {
    let dense = |index: usize| matches!(backbone.layers[index].op, Op::Pointwise { .. });
    let attends = |index: usize| {
        let attention =
            |layer: &Layer| matches!(layer.op, Op::Attention { .. } | Op::Rotary { .. } | Op::WindowAttention { .. });
        let reads = |layer: &Layer| attention(layer) && layer.inputs.contains(&index);
        lora.on == Dense::All || backbone.layers.iter().any(reads)
    };
    let found: Vec<usize> = (0..backbone.layers.len()).filter(|index| dense(*index) && attends(*index)).collect();
    let above: Vec<usize> = found.iter().copied().filter(|index| *index >= frozen).collect();
    match (above.is_empty(), found.is_empty()) {
        (false, _) => Ok(above),
        (true, false) => Err(format!("`freeze` holds all of what {lora} would stand beside")),
        (true, true) if (0..backbone.layers.len()).any(dense) => {
            Err(format!("{} has no attention; `on = \"all\"` is beside every dense layer", backbone.arch))
        }
        (true, true) => Err(format!(
            "{} has no dense layers between tokens, which low-rank additions stand beside: transformers and ConvNeXts have",
            backbone.arch
        )),
    }
}

/// A backbone with what `lora` adds above its first `frozen` layers. Those layers are as they were.
///
/// # Errors
/// As `adapted`.
pub fn with_lora(backbone: &Graph, frozen: usize, lora: Lora) -> Result<Graph, String> {
    let chosen = adapted(backbone, frozen, lora)?;
    let mut graph = Graph { layers: vec![backbone.layers[0].clone()], taps: Vec::new(), ..backbone.clone() };
    let mut place = vec![0];
    for (index, layer) in backbone.layers.iter().enumerate().skip(1) {
        let inputs: Vec<usize> = layer.inputs.iter().map(|input| place[*input]).collect();
        let mut end = graph.push(&layer.block, layer.name.clone(), layer.op.clone(), &inputs);
        if let Op::Pointwise { out, .. } = layer.op
            && chosen.contains(&index)
        {
            let [a, b, sum] = PARTS.map(|part| format!("{}{part}", layer.name));
            let a = graph.push(&layer.block, a, Op::dense(lora.rank), &inputs);
            let b = graph.push(&layer.block, b, Op::dense(out), &[a]);
            end = graph.push(&layer.block, sum, Op::Add, &[end, b]);
        }
        place.push(end);
    }
    graph.taps = backbone.taps.iter().map(|tap| place[*tap]).collect();
    Ok(graph)
}

/// What the phases of a trial add to its backbone, and above how many layers.
///
/// # Errors
/// Two phases add differently, or a freeze depth names no layer.
pub fn of_phases(backbone: &Graph, phases: &[Phase]) -> Result<Option<(usize, Lora)>, String> {
    let mut found: Option<(usize, Lora)> = None;
    for phase in phases {
        let Trains::Lora(lora) = phase.trains else { continue };
        let frozen = frozen_layers(backbone, &phase.freeze)?;
        found = match found {
            Some((_, other)) if other != lora => {
                return Err(format!("phases of one trial add the same everywhere: {other} is not {lora}"));
            }
            Some((least, _)) => Some((least.min(frozen), lora)),
            None => Some((frozen, lora)),
        };
    }
    Ok(found)
}

/// A freeze depth, which counts the layers of `plain`, in a network with additions.
///
/// # Errors
/// As `frozen_layers`.
pub fn frozen_in(graph: &Graph, plain: &Graph, freeze: &Freeze) -> Result<usize, String> {
    match freeze {
        Freeze::Index(_) => {
            let last = frozen_layers(plain, freeze)?.checked_sub(1).map(|last| &plain.layers[last].name);
            Ok(last.and_then(|name| graph.find(name)).map_or(0, |index| index + 1))
        }
        other => frozen_layers(graph, other),
    }
}

/// The numbers of the network without additions that computes the same, to rounding: W + B A.
///
/// # Errors
/// An addition's tensors are missing, or only candle's own.
pub fn merged(graph: &Graph, mut weights: Weights) -> anyhow::Result<Weights> {
    for name in graph.layers.iter().filter_map(|layer| layer.name.strip_suffix(PARTS[0])) {
        let mut take = |part: &str, param: &str| {
            let name = format!("{name}{part}.{param}");
            weights.0.remove(&name).ok_or_else(|| anyhow::anyhow!("there is no '{name}'"))
        };
        let [a, b] = [take(PARTS[0], "weight")?, take(PARTS[1], "weight")?];
        // What is added trains without biases: they are the zeros that they began as.
        take(PARTS[0], "bias")?;
        take(PARTS[1], "bias")?;
        let own = format!("{name}.weight");
        let weight = weights.0.get(&own).ok_or_else(|| anyhow::anyhow!("there is no '{own}'"))?;
        let sum = (weight.to_dtype(DType::F64)? + product(&b, &a)?)?;
        weights.0.insert(own, sum.to_dtype(DType::F32)?);
    }
    Ok(weights)
}

/// B A in f64, whatever computes candle's products.
fn product(b: &Tensor, a: &Tensor) -> candle_core::Result<Tensor> {
    let [b, a] = [b, a].map(|tensor| tensor.to_dtype(DType::F64)?.to_vec2::<f64>());
    let (b, a) = (b?, a?);
    let columns = a.first().map_or(0, Vec::len);
    let row = |row: &Vec<f64>| {
        let number = |column: usize| row.iter().zip(&a).map(|(b, a)| b * a[column]).sum::<f64>();
        (0..columns).map(number).collect::<Vec<f64>>()
    };
    Tensor::from_vec(b.iter().flat_map(row).collect::<Vec<f64>>(), (b.len(), columns), &Device::Cpu)
}
