//! A graph of ONNX in the making: nodes, each with one output, and what they read beside it.

use super::proto::{Attribute, FLOAT, Graph, INT64, Node, Tensor};

/// What a value is called.
pub type Name = String;

#[derive(Default)]
pub struct Writer {
    pub graph: Graph,
    /// The layer that is written, and how many values there are so far: no two have one name, whatever layers are called.
    layer: String,
    values: usize,
}

impl Writer {
    /// Whatever is put from here on belongs to this layer.
    pub fn begin(&mut self, layer: &str) {
        layer.clone_into(&mut self.layer);
    }

    fn next(&mut self) -> Name {
        self.values += 1;
        format!("{}/{}", self.layer, self.values)
    }

    /// A node; returns what its output is called.
    pub fn put(&mut self, op: &str, inputs: &[&Name], attribute: Vec<Attribute>) -> Name {
        let name = self.next();
        let input = inputs.iter().map(|input| (*input).clone()).collect();
        let node = Node { input, output: vec![name.clone()], name: name.clone(), op_type: op.to_owned(), attribute };
        self.graph.node.push(node);
        name
    }

    /// Gives a value another name.
    pub fn rename(&mut self, from: &Name, to: &str) {
        let node = Node {
            input: vec![from.clone()],
            output: vec![to.to_owned()],
            name: to.to_owned(),
            op_type: "Identity".to_owned(),
            attribute: Vec::new(),
        };
        self.graph.node.push(node);
    }

    /// Numbers that stand in the file.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> Name {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(dims.iter().map(|side| *side as i64).collect(), FLOAT, raw_data)
    }

    /// One number.
    pub fn float(&mut self, value: f32) -> Name {
        self.floats(&[], &[value])
    }

    /// The same of whole numbers, a row.
    pub fn ints(&mut self, values: &[i64]) -> Name {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(vec![values.len() as i64], INT64, raw_data)
    }

    fn constant(&mut self, dims: Vec<i64>, data_type: i32, raw_data: Vec<u8>) -> Name {
        let name = self.next();
        self.graph.initializer.push(Tensor { dims, data_type, name: name.clone(), raw_data });
        name
    }

    /// x with other sides behind the images; -1 is what is left.
    pub fn reshaped(&mut self, x: &Name, sides: &[i64]) -> Name {
        // 0 keeps what is there.
        let shape = self.ints(&[&[0], sides].concat());
        self.put("Reshape", &[x, &shape], Vec::new())
    }

    pub fn transposed(&mut self, x: &Name, order: &[i64]) -> Name {
        self.put("Transpose", &[x], vec![Attribute::ints("perm", order)])
    }

    /// x from `from` up to `to` along an axis.
    pub fn part(&mut self, x: &Name, axis: i64, from: usize, to: usize) -> Name {
        self.steps(x, axis, from, to, 1)
    }

    /// The same in steps.
    pub fn steps(&mut self, x: &Name, axis: i64, from: usize, to: usize, step: usize) -> Name {
        let [from, to, axes, steps] = [from as i64, to as i64, axis, step as i64].map(|number| self.ints(&[number]));
        self.put("Slice", &[x, &from, &to, &axes, &steps], Vec::new())
    }

    pub fn beside(&mut self, parts: &[&Name], axis: i64) -> Name {
        self.put("Concat", parts, vec![Attribute::int("axis", axis)])
    }

    pub fn sum(&mut self, left: &Name, right: &Name) -> Name {
        self.put("Add", &[left, right], Vec::new())
    }

    pub fn product(&mut self, left: &Name, right: &Name) -> Name {
        self.put("Mul", &[left, right], Vec::new())
    }

    /// x times a number.
    pub fn times(&mut self, x: &Name, by: f32) -> Name {
        let by = self.float(by);
        self.product(x, &by)
    }

    /// x plus a number.
    pub fn plus(&mut self, x: &Name, more: f32) -> Name {
        let more = self.float(more);
        self.sum(x, &more)
    }
}
