//! A trained network as an ONNX file: from the pixels of a square to the probabilities of classes, so that nobody has to prepare images
//! as it was trained with them.

mod attention;
mod layers;
mod proto;
mod tokens;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use prost::Message;

use crate::model::graph::Graph;
use crate::model::trained::Trained;
use crate::model::weights::Weights;
use crate::preprocess::Change;
use crate::temporary;
use proto::{Entry, Model, Operators, value};
use writer::{Name, Writer};

/// What its input and its outputs are called.
const IMAGES: &str = "images";
const LOGITS: &str = "logits";
const PROBABILITIES: &str = "probabilities";

/// Bytes that one message of protocol buffers may have.
const MOST: usize = 1 << 31;

/// Whether a network can be such a file: to be asked before it is trained.
///
/// # Errors
/// It has a layer that ONNX has not got, or is larger than a file may be.
pub fn possible(graph: &Graph) -> anyhow::Result<()> {
    (1..graph.layers.len()).try_for_each(|index| layers::possible(graph, index))?;
    fits(graph, graph.total_params() * size_of::<f32>())
}

fn fits(graph: &Graph, bytes: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        bytes < MOST,
        "{} has {bytes} bytes of numbers, and an ONNX file holds less than {MOST}: export it as .safetensors",
        graph.arch
    );
    Ok(())
}

/// Writes such a file to a temporary one beside `path` and renames it.
///
/// # Errors
/// As `bytes`, or writing fails.
pub fn write(
    path: &Path,
    trained: &Trained,
    graph: &Graph,
    weights: &Weights,
    facts: &[(String, String)],
) -> anyhow::Result<()> {
    let bytes = bytes(trained, graph, weights, facts)?;
    let temporary = temporary::beside(path);
    let cannot = || format!("cannot write '{}'", path.display());
    std::fs::write(&temporary, bytes).with_context(cannot)?;
    std::fs::rename(&temporary, path).with_context(cannot)
}

/// The file: reads `images` [n, 3, side, side], red, green and blue from 0 to 255, and gives `logits` and `probabilities` [n, classes].
/// Names of classes, how images become squares, and `facts` stand beside it as metadata.
///
/// # Errors
/// The network has a layer that ONNX has not got, a tensor is missing, or it is larger than such a file may be.
fn bytes(trained: &Trained, graph: &Graph, weights: &Weights, facts: &[(String, String)]) -> anyhow::Result<Vec<u8>> {
    possible(graph)?;
    let mut numbers = BTreeMap::new();
    for (name, tensor) in &weights.0 {
        numbers.insert(name.clone(), tensor.flatten_all()?.to_vec1::<f32>()?);
    }
    let mut writer = Writer::default();
    writer.graph.name.clone_from(&graph.arch);
    let mut names: Vec<Name> = vec![prepared(&mut writer, trained)];
    for index in 1..graph.layers.len() {
        let inputs: Vec<&Name> = graph.layers[index].inputs.iter().map(|input| &names[*input]).collect();
        let name = layers::layer(&mut writer, graph, index, &inputs, &numbers)?;
        names.push(name);
    }
    let classes = trained.classes.len();
    writer.begin(LOGITS);
    let last = names.last().context("a network without layers")?;
    let rows = writer.put("Flatten", &[last], vec![proto::Attribute::int("axis", 1)]);
    writer.rename(&rows, LOGITS);
    let shares = writer.put("Softmax", &[&rows], vec![proto::Attribute::int("axis", 1)]);
    writer.rename(&shares, PROBABILITIES);
    let side = trained.arch.input;
    writer.graph.input.push(value(IMAGES, &[3, side, side]));
    writer.graph.output.extend([LOGITS, PROBABILITIES].map(|name| value(name, &[classes])));
    let model = Model {
        ir_version: proto::IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(writer.graph),
        opset_import: vec![Operators { domain: String::new(), version: proto::OPERATORS }],
        metadata_props: metadata(trained, facts)?,
    };
    fits(graph, model.encoded_len())?;
    Ok(model.encode_to_vec())
}

/// What the network reads, of pixels as they are.
fn prepared(writer: &mut Writer, trained: &Trained) -> Name {
    writer.begin("preprocess");
    let images = IMAGES.to_owned();
    let numbers = |writer: &mut Writer, own: [f32; 3]| writer.floats(&[3, 1, 1], &own);
    match trained.preprocess.change() {
        Change::Standard(own) => {
            let shares = writer.times(&images, 1.0 / 255.0);
            let (mean, deviation) = (numbers(writer, own.mean()), numbers(writer, own.deviation()));
            let moved = writer.put("Sub", &[&shares, &mean], Vec::new());
            writer.put("Div", &[&moved, &deviation], Vec::new())
        }
        Change::Minus { numbers: own, blue_first } => {
            let planes = match blue_first {
                false => images,
                true => {
                    let planes = [2, 1, 0].map(|plane| writer.part(&images, 1, plane, plane + 1));
                    writer.beside(&planes.iter().collect::<Vec<&Name>>(), 1)
                }
            };
            if own == [0.0; 3] {
                return planes;
            }
            let own = numbers(writer, own);
            writer.put("Sub", &[&planes, &own], Vec::new())
        }
    }
}

fn metadata(trained: &Trained, facts: &[(String, String)]) -> anyhow::Result<Vec<Entry>> {
    let own = [
        ("classes", serde_json::to_string(&trained.classes)?),
        ("images", format!("RGB from 0 to 255, [n, 3, {0}, {0}]", trained.arch.input)),
        ("resize", trained.resize.to_string()),
        ("arch", trained.arch.name.clone()),
    ];
    let white = trained.white.map(|white| ("white of 16 bits", white.to_string()));
    let own = own.into_iter().chain(white).map(|(key, value)| (key.to_owned(), value));
    Ok(own.chain(facts.iter().cloned()).map(|(key, value)| Entry { key, value }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::arch::Arch;
    use crate::model::graph::{Framework, Op, Reduce};

    #[test]
    fn what_cannot_be_such_a_file_is_known_without_its_numbers() {
        let of = |name: &str| {
            Arch::new(name, 224, 1.0).graph(1000).map_err(anyhow::Error::msg).and_then(|own| possible(&own))
        };
        assert!(of("vit_b_16").is_ok() && of("regnet_y_16gf").is_ok());
        let said = of("vit_h_14").err().map_or_else(String::new, |error| error.to_string());
        assert!(said.contains("vit_h_14 has 2528183200 bytes of numbers"), "{said}");
        let pooled = |ceil: bool, reduce: Reduce| {
            let mut graph = Graph::new("own", Framework::Torch, [3, 8, 8]);
            graph.then("own", "pool", Op::Pool { reduce, kernel: 3, stride: 2, padding: [0; 4], ceil });
            possible(&graph)
        };
        assert!(pooled(false, Reduce::AvgPadded).is_ok() && pooled(true, Reduce::Avg).is_ok());
        let said = pooled(true, Reduce::AvgPadded).err().map_or_else(String::new, |error| error.to_string());
        assert!(said.starts_with("'pool' counts pixels of its padding"), "{said}");
    }
}
