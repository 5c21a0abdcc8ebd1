//! Position embeddings of another grid of patches than the network's: stretched as the code that the weights are published with
//! does it, by bicubic interpolation along each axis (Keys, 1981).

use crate::model::graph::Graph;

/// How positions are stretched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Corner on corner: torchvision 0.29's `interpolate_embeddings`.
    Corners,
    /// As DINOv2's own code: a tenth of a patch is added to the new side before both are compared.
    Offset,
    /// Smoothed where the grid shrinks: timm 1.0's `resample_abs_pos_embed`, and open_clip's `resize_pos_embed`.
    Smooth,
}

impl Stretch {
    /// That of a network's authors.
    pub fn of(graph: &Graph) -> Self {
        match graph.arch.as_str() {
            arch if arch.starts_with("dinov2") => Self::Offset,
            arch if arch.contains("_patch") || ["clip_", "siglip_"].iter().any(|own| arch.starts_with(own)) => {
                Self::Smooth
            }
            _ => Self::Corners,
        }
    }

    /// Where it is from.
    pub fn said(self) -> &'static str {
        match self {
            Self::Corners => "torchvision",
            Self::Offset => "DINOv2",
            Self::Smooth => "timm",
        }
    }

    /// What each of `to` places takes of `from` places: [to][from].
    fn weights(self, from: usize, to: usize) -> Vec<Vec<f64>> {
        let (size, sides) = (to as f64, from as f64);
        let row = |place: usize| match self {
            Self::Corners => {
                let step = if to > 1 { (sides - 1.0) / (size - 1.0) } else { 0.0 };
                four(place as f64 * step, from)
            }
            Self::Offset => four((place as f64 + 0.5) * (sides / (size + 0.1)) - 0.5, from),
            Self::Smooth => smooth(place as f64 + 0.5, sides / size, from),
        };
        (0..to).map(row).collect()
    }
}

/// Keys' kernel.
fn cubic(x: f64, a: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

/// The four places around one; what is beyond the border is the border. PyTorch 2.15's a is -3/4.
fn four(at: f64, from: usize) -> Vec<f64> {
    let mut row = vec![0.0; from];
    for step in -1..=2 {
        let place = at.floor() + f64::from(step);
        row[place.clamp(0.0, from as f64 - 1.0) as usize] += cubic(at - place, -0.75);
    }
    row
}

/// All places under a kernel as wide as the shrinking asks for. PyTorch 2.15's a is -1/2 here.
fn smooth(centre: f64, step: f64, from: usize) -> Vec<f64> {
    let (centre, wide) = (centre * step, step.max(1.0));
    let first = (centre - 2.0 * wide + 0.5).floor().max(0.0) as usize;
    let end = ((centre + 2.0 * wide + 0.5).floor() as usize).min(from);
    let mut row = vec![0.0; from];
    for (place, weight) in row.iter_mut().enumerate().take(end).skip(first) {
        *weight = cubic((place as f64 + 0.5 - centre) / wide, -0.5);
    }
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|weight| *weight /= sum);
    row
}

/// The sides of a file's grid of patches and of the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grids {
    pub from: usize,
    pub to: usize,
    pub class: Class,
}

/// The position of a class token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// In the file, too.
    Kept,
    /// Not in the file, and zero: timm has none of DINOv2's with registers.
    New,
    /// There is no such token.
    Absent,
}

impl Grids {
    /// From the numbers of positions, where they differ: the network's is a square, with a `class` token or without.
    pub fn of(file: usize, network: usize, class: bool) -> Option<Self> {
        let side = |tokens: usize| Some(tokens.isqrt()).filter(|side| *side > 0 && side * side == tokens);
        let to = side(network.checked_sub(usize::from(class))?)?;
        let grid = |tokens: usize, class: Class| side(tokens).map(|from| Self { from, to, class });
        let grids = match class {
            true => file.checked_sub(1).and_then(|file| grid(file, Class::Kept)).or_else(|| grid(file, Class::New)),
            false => grid(file, Class::Absent),
        };
        grids.filter(|_| file != network)
    }
}

/// `values` [from x from, channels], behind those of the class token if it has a position, for a grid of `to` x `to`, behind those
/// of a class token if there is one, which stay.
pub fn stretched(values: &[f32], grids: Grids, stretch: Stretch) -> Vec<f32> {
    let Grids { from, to, class } = grids;
    let channels = values.len() / (usize::from(class == Class::Kept) + from * from);
    let none = vec![0.0; channels];
    let (class, grid) = match class {
        Class::Kept => values.split_at(channels),
        Class::New => (&none[..], values),
        Class::Absent => (&[][..], values),
    };
    if from == to {
        return [class, grid].concat();
    }
    let weights = stretch.weights(from, to);
    // Along the rows first: [from, to, channels].
    let mut wide = vec![0.0; from * to * channels];
    for (row, into) in grid.chunks_exact(from * channels).zip(wide.chunks_exact_mut(to * channels)) {
        for (weights, into) in weights.iter().zip(into.chunks_exact_mut(channels)) {
            for (weight, tokens) in weights.iter().zip(row.chunks_exact(channels)) {
                into.iter_mut().zip(tokens).for_each(|(into, token)| *into += weight * f64::from(*token));
            }
        }
    }
    let mut all = class.to_vec();
    for weights in &weights {
        let mut line = vec![0.0; to * channels];
        for (weight, row) in weights.iter().zip(wide.chunks_exact(to * channels)) {
            line.iter_mut().zip(row).for_each(|(into, number)| *into += weight * number);
        }
        all.extend(line.into_iter().map(|number| number as f32));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_one_and_a_grid_of_the_same_size_is_itself() {
        for stretch in [Stretch::Corners, Stretch::Offset, Stretch::Smooth] {
            for (from, to) in [(7, 3), (3, 7), (14, 24), (37, 16)] {
                let found =
                    stretched(&vec![0.7; 2 * (1 + from * from)], Grids { from, to, class: Class::Kept }, stretch);
                assert_eq!(found.len(), 2 * (1 + to * to));
                assert!(found.iter().all(|value| (value - 0.7).abs() < 1e-6), "{stretch:?} {from} {to}");
                let alone = stretched(&vec![0.7; 2 * from * from], Grids { from, to, class: Class::Absent }, stretch);
                assert_eq!(alone, found[2..], "{stretch:?} {from} {to}");
            }
        }
        let values: Vec<f32> = (1..17).map(|value| value as f32).collect();
        let found = stretched(&values, Grids { from: 4, to: 4, class: Class::New }, Stretch::Offset);
        assert_eq!((found[0], &found[1..]), (0.0, &values[..]));
    }

    #[test]
    fn only_squares_are_grids() {
        let of = |file, network| Grids::of(file, network, true);
        assert_eq!(of(1370, 257), Some(Grids { from: 37, to: 16, class: Class::Kept }));
        assert_eq!(of(1369, 257), Some(Grids { from: 37, to: 16, class: Class::New }));
        assert_eq!(of(256, 257), Some(Grids { from: 16, to: 16, class: Class::New }));
        assert_eq!([of(257, 257), of(198, 197), of(0, 197), of(5, 0)], [None; 4]);
        assert_eq!(Grids::of(1369, 256, false), Some(Grids { from: 37, to: 16, class: Class::Absent }));
        assert_eq!([Grids::of(1370, 256, false), Grids::of(256, 256, false)], [None; 2]);
    }
}
