//! What is done to rows of tokens, in ONNX. They are maps [n, channels, tokens, 1].

use super::layers::Layer;
use super::writer::{Name, Writer};
use crate::model::graph::Op;
use crate::nn::rotary;

impl Layer<'_> {
    /// Rows of tokens, which are maps one pixel wide.
    pub(super) fn tokens(&self, writer: &mut Writer, x: &Name) -> anyhow::Result<Name> {
        let [channels, height, width] = self.graph.input_shape(self.index);
        let pixels = height * width;
        let row = |writer: &mut Writer| match width {
            1 => x.clone(),
            _ => writer.reshaped(x, &[channels as i64, pixels as i64, 1]),
        };
        Ok(match &self.graph.layers[self.index].op {
            Op::Tokens { at, count } => {
                let row = row(writer);
                let learned = turned(self.values("weight")?, *count, channels);
                let learned = writer.floats(&[1, channels, *count, 1], &learned);
                // As many times as there are images.
                let sides = writer.put("Shape", &[&row], Vec::new());
                let images = writer.part(&sides, 0, 0, 1);
                let others = writer.ints(&[channels as i64, *count as i64, 1]);
                let sides = writer.beside(&[&images, &others], 0);
                let learned = writer.put("Expand", &[&learned, &sides], Vec::new());
                match *at {
                    0 => writer.beside(&[&learned, &row], 2),
                    at => {
                        let (before, behind) = (writer.part(&row, 2, 0, at), writer.part(&row, 2, at, pixels));
                        writer.beside(&[&before, &learned, &behind], 2)
                    }
                }
            }
            Op::Positions => {
                let learned = turned(self.values("weight")?, pixels, channels);
                let learned = writer.floats(&[channels, height, width], &learned);
                writer.sum(x, &learned)
            }
            Op::Token(at) => {
                let row = row(writer);
                writer.part(&row, 2, *at, at + 1)
            }
            Op::Patches { skip } => {
                let row = row(writer);
                let patches = writer.part(&row, 2, *skip, pixels);
                writer.reshaped(&patches, &self.graph.layers[self.index].shape.map(|side| side as i64))
            }
            Op::Rotary { heads, skip, base } => self.turn(writer, x, *heads, *skip, *base)?,
            _ => anyhow::bail!("'{}' has no tokens", self.graph.layers[self.index].name),
        })
    }

    /// Biases of queries and values, and queries and keys turned: both halves of a head's numbers are the two sides of planes.
    fn turn(&self, writer: &mut Writer, x: &Name, heads: usize, skip: usize, base: f64) -> anyhow::Result<Name> {
        let [numbers, pixels, _] = self.graph.input_shape(self.index);
        let (channels, patches) = (numbers / 3, pixels - skip);
        let depth = channels / heads;
        let biases = [self.values("q_bias")?, &vec![0.0; channels], self.values("v_bias")?].concat();
        let biases = writer.floats(&[numbers, 1, 1], &biases);
        let x = writer.sum(x, &biases);
        let (turning, values) = (writer.part(&x, 1, 0, 2 * channels), writer.part(&x, 1, 2 * channels, numbers));
        let table = rotary::table(patches.isqrt(), depth, base);
        // [depth, pixels]; what is no patch stands still.
        let angles = |which: usize, still: f32| {
            let of = |at: usize| move |pixel: usize| (at, pixel);
            let all = (0..depth).flat_map(|at| (0..pixels).map(of(at % (depth / 2))));
            all.map(|(at, pixel)| pixel.checked_sub(skip).map_or(still, |patch| table[patch * depth + 2 * at + which]))
                .collect::<Vec<f32>>()
        };
        let [cosines, sines] = [angles(0, 1.0), angles(1, 0.0)].map(|own| writer.floats(&[depth, pixels], &own));
        let apart = writer.reshaped(&turning, &[2 * heads, depth, pixels].map(|side| side as i64));
        let [first, second] = [(0, depth / 2), (depth / 2, depth)].map(|(from, to)| writer.part(&apart, 2, from, to));
        let second = writer.put("Neg", &[&second], Vec::new());
        let across = writer.beside(&[&second, &first], 2);
        let (along, across) = (writer.product(&apart, &cosines), writer.product(&across, &sines));
        let turned = writer.sum(&along, &across);
        let turned = writer.reshaped(&turned, &[2 * channels, pixels, 1].map(|side| side as i64));
        Ok(writer.beside(&[&turned, &values], 1))
    }
}

/// Rows [count, channels] as [channels, count].
fn turned(rows: &[f32], count: usize, channels: usize) -> Vec<f32> {
    (0..channels * count).map(|at| rows[at % count * channels + at / count]).collect()
}
