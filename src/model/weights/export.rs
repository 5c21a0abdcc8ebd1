//! The tensors of a network under the names and in the layouts of a framework, so that it loads them back.

use std::collections::HashMap;
use std::path::Path;

use super::aliases::{aliases, torch_name};
use super::placing::{flattened_map, permuted};
use super::{Weights, save};
use crate::model::arch::Arch;
use crate::model::graph::{Framework, Graph, Op, POINTWISE};

/// A tensor as another framework has it.
pub struct Exported {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// The names that a framework has for the layers of a network, where they are not the network's own.
///
/// # Errors
/// The network is of one framework only, and not of the one asked for.
pub fn named(graph: &Graph, names: Framework) -> anyhow::Result<HashMap<usize, String>> {
    // torchvision's name is taken where timm has another.
    let torchvision = |name: &str| name.starts_with("features.") || name.starts_with("classifier.");
    let others: HashMap<usize, String> = match names {
        Framework::Torch if graph.framework == Framework::Keras => aliases(graph)
            .into_iter()
            .filter(|(name, layer)| torchvision(name) && graph.layers[*layer].name != *name)
            .map(|(name, layer)| (layer, name))
            .collect(),
        _ => HashMap::new(),
    };
    anyhow::ensure!(
        graph.framework == names || !others.is_empty(),
        "{} has {} names only: the other framework has no network with the same numbers",
        graph.arch,
        match graph.framework {
            Framework::Keras => "Keras'",
            Framework::Torch => "torchvision's",
        },
    );
    Ok(others)
}

/// All tensors of a network: Keras' `layer/kernel` in HWIO, or PyTorch's `module.weight` in OIHW.
///
/// # Errors
/// As `named`.
pub fn exported(graph: &Graph, weights: &Weights, names: Framework) -> anyhow::Result<Vec<Exported>> {
    let others = named(graph, names)?;
    let mut found = Vec::new();
    for layer in 0..graph.layers.len() {
        let own = &graph.layers[layer].name;
        for param in graph.params(layer) {
            let Some(tensor) = weights.0.get(&format!("{own}.{}", param.name)) else { continue };
            let values = in_order(graph, layer, param.name, tensor.flatten_all()?.to_vec1::<f32>()?, names);
            let base = others.get(&layer).unwrap_or(own);
            found.push(match names {
                Framework::Torch => {
                    let name = torch_name(&graph.layers[layer].op, base, param.name);
                    // torchvision's scales are there for maps whose channels come first.
                    let bare =
                        matches!(graph.layers[layer].op, Op::LayerScale { .. }) && base.ends_with(".layer_scale");
                    let shape = if bare { vec![values.len(), 1, 1] } else { param.shape };
                    Exported { name, shape, values }
                }
                Framework::Keras => in_keras(graph, layer, param.name, &param.shape, values),
            });
        }
        if matches!(graph.layers[layer].op, Op::Normalize) && names == Framework::Keras {
            // `set_weights` wants it, and nothing reads it.
            found.push(Exported { name: format!("{own}/count"), shape: Vec::new(), values: vec![0.0] });
        }
    }
    Ok(found)
}

/// The columns of a dense layer over a flattened map, in the framework's order.
fn in_order(graph: &Graph, layer: usize, param: &str, values: Vec<f32>, names: Framework) -> Vec<f32> {
    let Some([channels, height, width]) = flattened_map(graph, layer, param).filter(|_| names != graph.framework)
    else {
        return values;
    };
    let pixels = height * width;
    let row = channels * pixels;
    let place = |at: usize| match names {
        Framework::Torch => (at % pixels) * channels + at / pixels,
        Framework::Keras => (at % channels) * pixels + at / channels,
    };
    values.chunks_exact(row).flat_map(|values| (0..row).map(|at| values[place(at)])).collect()
}

fn in_keras(graph: &Graph, layer: usize, param: &'static str, shape: &[usize], values: Vec<f32>) -> Exported {
    let (leaf, shape, values) = match (&graph.layers[layer].op, shape, param) {
        (Op::Conv { groups, .. }, [o, _, h, w], "weight") if *groups > 1 => {
            let pixels = h * w;
            ("kernel", vec![*h, *w, *o, 1], permuted(&values, [pixels, *o, 1, 1], |[p, o, ..]| o * pixels + p))
        }
        (Op::Separable { .. }, [o, _, h, w], "weight") => {
            let pixels = h * w;
            let moved = permuted(&values, [pixels, *o, 1, 1], |[p, o, ..]| o * pixels + p);
            ("depthwise_kernel", vec![*h, *w, *o, 1], moved)
        }
        (Op::Conv { .. } | Op::Separable { .. }, [o, i, h, w], "weight" | POINTWISE) => {
            let pixels = h * w;
            let moved = permuted(&values, [pixels, *i, *o, 1], |[p, from, to, _]| (to * i + from) * pixels + p);
            (if param == POINTWISE { "pointwise_kernel" } else { "kernel" }, vec![*h, *w, *i, *o], moved)
        }
        (Op::Linear { .. }, [o, i], "weight") => {
            ("kernel", vec![*i, *o], permuted(&values, [*i, *o, 1, 1], |[from, to, ..]| to * i + from))
        }
        (Op::BatchNorm { .. }, shape, param) => {
            let leaf = match param {
                "weight" => "gamma",
                "bias" => "beta",
                "running_mean" => "moving_mean",
                _ => "moving_variance",
            };
            (leaf, shape.to_vec(), values)
        }
        (Op::Normalize, shape, param) => (param, shape.to_vec(), values),
        (_, shape, _) => ("bias", shape.to_vec(), values),
    };
    Exported { name: format!("{}/{leaf}", graph.layers[layer].name), shape, values }
}

/// Writes a weight file of any format under the names of a framework. Returns how many tensors were written.
///
/// # Errors
/// The file does not fit the network of `arch`, the framework has no such network, or writing fails.
pub fn convert(from: &Path, arch: &Arch, names: Framework, to: &Path) -> anyhow::Result<usize> {
    let (weights, fitted) = Weights::whole(from, arch)?;
    let tensors = exported(&fitted.graph, &weights, names)?;
    let facts = [("arch", arch.name.clone()), ("width", arch.width.to_string()), ("format", names.word().to_owned())];
    write(to, &tensors, facts.map(|(key, value)| (key.to_owned(), value)).into())?;
    Ok(tensors.len())
}

/// Writes tensors and facts about them as safetensors, to a temporary file that is renamed.
///
/// # Errors
/// Writing fails.
pub fn write(path: &Path, tensors: &[Exported], facts: HashMap<String, String>) -> anyhow::Result<()> {
    use safetensors::tensor::{Dtype, TensorView};
    let mut views = Vec::new();
    for tensor in tensors {
        let bytes: &[u8] = bytemuck::cast_slice(&tensor.values);
        views.push((tensor.name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?));
    }
    save(path, views, Some(facts))
}
