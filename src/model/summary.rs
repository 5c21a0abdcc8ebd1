//! What a network looks like in rows, as Keras' `model.summary()` prints it.

use super::graph::{Graph, Shown};

/// One layer of a summary.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    pub index: usize,
    pub name: String,
    pub class: &'static str,
    pub block: String,
    pub output: String,
    pub params: usize,
    pub frozen: bool,
    pub connected_to: Vec<String>,
    pub macs: u64,
}

/// A row for every layer, the first `frozen` of them marked.
pub fn rows(graph: &Graph, frozen: usize) -> Vec<Row> {
    let row = |(index, layer): (usize, &super::graph::Layer)| Row {
        index,
        name: layer.name.clone(),
        class: layer.class(graph.input_shape(index)),
        block: layer.block.clone(),
        output: Shown(layer.shape).to_string(),
        params: graph.param_count(index),
        frozen: index < frozen,
        connected_to: layer.inputs.iter().map(|input| graph.layers[*input].name.clone()).collect(),
        macs: graph.macs(index),
    };
    graph.layers.iter().enumerate().map(row).collect()
}

/// Names of the frozen layers that own parameters, and how many numbers they hold.
pub fn frozen_names(graph: &Graph, frozen: usize) -> (Vec<String>, usize) {
    let owning: Vec<usize> =
        (0..frozen.min(graph.layers.len())).filter(|index| graph.param_count(*index) > 0).collect();
    let count = owning.iter().map(|index| graph.param_count(*index)).sum();
    (owning.iter().map(|index| graph.layers[*index].name.clone()).collect(), count)
}
