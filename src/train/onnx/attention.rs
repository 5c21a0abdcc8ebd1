//! Attention in ONNX: of all pixels of a map, of one token, and within windows. Maps are [n, channels, height, width].

use super::proto::Attribute;
use super::writer::{Name, Writer};
use crate::model::graph::Shape;

/// Queries, keys and values side by side in the channels of x, each head by head, to what every pixel takes: all as
/// [n, channels, pixels]. `more` is put on the scaled scores [n, heads, pixels, pixels].
pub fn among(
    writer: &mut Writer,
    x: &Name,
    [heads, depth, pixels]: [usize; 3],
    more: impl FnOnce(&mut Writer, Name) -> Name,
) -> Name {
    let channels = heads * depth;
    let [queries, keys, values] = [0, 1, 2].map(|kind| {
        let own = writer.part(x, 1, kind * channels, (kind + 1) * channels);
        writer.reshaped(&own, &[heads as i64, depth as i64, pixels as i64])
    });
    let taken = taken(writer, [&queries, &keys, &values], depth, more);
    writer.reshaped(&taken, &[channels as i64, pixels as i64])
}

/// What queries [n, heads, depth, asking] take of values [n, heads, depth, pixels] with such keys: [n, heads, depth, asking].
fn taken(
    writer: &mut Writer,
    [queries, keys, values]: [&Name; 3],
    depth: usize,
    more: impl FnOnce(&mut Writer, Name) -> Name,
) -> Name {
    let turned = [0, 1, 3, 2];
    let queries = writer.transposed(queries, &turned);
    let scores = writer.put("MatMul", &[&queries, keys], Vec::new());
    let scores = writer.times(&scores, 1.0 / (depth as f32).sqrt());
    let scores = more(writer, scores);
    let weights = writer.put("Softmax", &[&scores], vec![Attribute::int("axis", -1)]);
    let values = writer.transposed(values, &turned);
    let taken = writer.put("MatMul", &[&weights, &values], Vec::new());
    writer.transposed(&taken, &turned)
}

/// Of a map [n, 3 x channels, height, width].
pub fn of_map(writer: &mut Writer, x: &Name, heads: usize, [numbers, height, width]: Shape) -> Name {
    let (channels, pixels) = (numbers / 3, height * width);
    let rows = writer.reshaped(x, &[numbers as i64, pixels as i64]);
    let taken = among(writer, &rows, [heads, channels / heads, pixels], |_, scores| scores);
    writer.reshaped(&taken, &[channels as i64, height as i64, width as i64])
}

/// Of one token [n, channels, 1, 1] over the pixels of keys and values side by side.
pub fn of_one(writer: &mut Writer, query: &Name, x: &Name, heads: usize, [numbers, height, width]: Shape) -> Name {
    let (channels, pixels) = (numbers / 2, (height * width) as i64);
    let sides = |pixels: i64| [heads as i64, (channels / heads) as i64, pixels];
    let query = writer.reshaped(query, &sides(1));
    let [keys, values] = [0, 1].map(|kind| {
        let own = writer.part(x, 1, kind * channels, (kind + 1) * channels);
        writer.reshaped(&own, &sides(pixels))
    });
    let taken = taken(writer, [&query, &keys, &values], channels / heads, |_, scores| scores);
    writer.reshaped(&taken, &[channels as i64, 1, 1])
}

/// How a map is cut into windows.
pub struct Cut {
    pub heads: usize,
    pub side: usize,
    pub shift: usize,
    pub map: Shape,
}

impl Cut {
    fn shifts(&self) -> [usize; 2] {
        [self.map[1], self.map[2]].map(|length| if length > self.side { self.shift } else { 0 })
    }

    /// What is learned of how pixels lie to each other, for the scores of every window: [heads, pixels, pixels], from a table
    /// [(2 side - 1)^2, heads].
    fn biases(&self, table: &[f32]) -> Vec<f32> {
        let (side, pixels, wide) = (self.side, self.side * self.side, 2 * self.side - 1);
        let place =
            |from: usize, to: usize| (from / side + side - 1 - to / side) * wide + from % side + side - 1 - to % side;
        let pairs = |head: usize| {
            (0..pixels * pixels).map(move |pair| table[place(pair / pixels, pair % pixels) * self.heads + head])
        };
        (0..self.heads).flat_map(pairs).collect()
    }

    /// What keeps pixels apart that meet around a border, [windows, 1, pixels, pixels]: -100, as in torchvision.
    fn borders(&self) -> Vec<f32> {
        let (side, pixels) = (self.side, self.side * self.side);
        let ([down, across], shifts) = ([self.map[1] / side, self.map[2] / side], self.shifts());
        let around = |last: bool, at: usize, shift: usize| last && at >= side - shift;
        let mut all = Vec::with_capacity(down * across * pixels * pixels);
        for window in 0..down * across {
            let last = [window / across + 1 == down, window % across + 1 == across];
            let beyond =
                |pixel: usize| [around(last[0], pixel / side, shifts[0]), around(last[1], pixel % side, shifts[1])];
            for pair in 0..pixels * pixels {
                all.push(if beyond(pair / pixels) == beyond(pair % pixels) { 0.0 } else { -100.0 });
            }
        }
        all
    }
}

/// x with what lies before `by` along an axis put behind the rest.
fn rolled(writer: &mut Writer, x: &Name, axis: i64, by: usize, length: usize) -> Name {
    if by == 0 {
        return x.clone();
    }
    let (first, rest) = (writer.part(x, axis, 0, by), writer.part(x, axis, by, length));
    writer.beside(&[&rest, &first], axis)
}

/// Within windows of a map [n, 3 x channels, height, width].
pub fn in_windows(writer: &mut Writer, x: &Name, cut: &Cut, table: &[f32]) -> Name {
    let [numbers, height, width] = cut.map;
    let (side, pixels, channels) = (cut.side, cut.side * cut.side, numbers / 3);
    let ([down, across], shifts) = ([height / side, width / side], cut.shifts());
    let windows = down * across;
    let moved = rolled(writer, x, 2, shifts[0], height);
    let moved = rolled(writer, &moved, 3, shifts[1], width);
    let sides = [numbers, down, side, across, side].map(|side| side as i64);
    let apart = writer.reshaped(&moved, &sides);
    let apart = writer.transposed(&apart, &[0, 2, 4, 1, 3, 5]);
    // Windows are images of their own.
    let shape = writer.ints(&[-1, numbers as i64, pixels as i64]);
    let rows = writer.put("Reshape", &[&apart, &shape], Vec::new());
    let taken = among(writer, &rows, [cut.heads, channels / cut.heads, pixels], |writer, scores| {
        let biases = writer.floats(&[cut.heads, pixels, pixels], &cut.biases(table));
        let scores = writer.sum(&scores, &biases);
        if shifts == [0, 0] {
            return scores;
        }
        let sides = [cut.heads, pixels, pixels].map(|side| side as i64);
        let by_image = writer.ints(&[&[-1, windows as i64], &sides[..]].concat());
        let scores = writer.put("Reshape", &[&scores, &by_image], Vec::new());
        let borders = writer.floats(&[windows, 1, pixels, pixels], &cut.borders());
        let scores = writer.sum(&scores, &borders);
        let by_window = writer.ints(&[&[-1], &sides[..]].concat());
        writer.put("Reshape", &[&scores, &by_window], Vec::new())
    });
    let sides = [-1, down as i64, across as i64, channels as i64, side as i64, side as i64];
    let shape = writer.ints(&sides);
    let apart = writer.put("Reshape", &[&taken, &shape], Vec::new());
    let together = writer.transposed(&apart, &[0, 3, 1, 4, 2, 5]);
    let map = writer.reshaped(&together, &[channels, height, width].map(|side| side as i64));
    let back = rolled(writer, &map, 3, (width - shifts[1]) % width, width);
    rolled(writer, &back, 2, (height - shifts[0]) % height, height)
}
