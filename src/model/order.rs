//! The order in which Keras lists the layers of a functional model.

use super::graph::Graph;

/// Indices of the layers as Keras' `model.layers` has them: by their distance from the output (the longest path), the
/// farthest first; within one distance by when a walk back from the output, inputs in order, first meets them
/// (Keras 3, `map_graph` in keras/src/ops/function.py).
pub fn keras_order(graph: &Graph) -> Vec<usize> {
    let count = graph.layers.len();
    let mut depth = vec![0; count];
    for index in (0..count).rev() {
        for input in &graph.layers[index].inputs {
            depth[*input] = depth[*input].max(depth[index] + 1);
        }
    }
    let mut met = vec![usize::MAX; count];
    let mut walk = vec![graph.last()];
    let mut next = 0;
    while let Some(index) = walk.pop() {
        if met[index] == usize::MAX {
            met[index] = next;
            next += 1;
            walk.extend(graph.layers[index].inputs.iter().rev());
        }
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(depth[*index]), met[*index]));
    order
}
