//! What a trained network looks at: how its answer changes where a patch of the image is covered (occlusion sensitivity, Zeiler
//! and Fergus, "Visualizing and Understanding Convolutional Networks", 2014), what its layers pass on, its first filters.

use candle_core::{Device, Tensor};

use super::predict::{Answerer, likeliest};
use crate::exec::{AT_ONCE, Network};
use crate::model::graph::Op;
use crate::model::row;
use crate::model::trained::Opened;
use crate::preprocess::Preprocess;

/// Places along a side where a patch is put, at most.
const PLACES: usize = 12;
/// A patch is this part of the side.
const PATCH: usize = 5;
/// Maps of an image at most.
const MAPS: usize = 6;

/// What is seen in one image.
pub struct Sight {
    /// Logarithms of the probabilities, class by class, of the image as it is.
    pub log_probabilities: Vec<f64>,
    /// The class whose odds are followed: the likeliest one.
    pub class: usize,
    /// The logarithm of its odds against all others.
    pub log_odds: f64,
    /// Left and upper edges of the patches, in pixels, and their side.
    pub starts: Vec<usize>,
    pub patch: usize,
    /// Row by row of patches: by how much covering one lowers the logarithm of the odds of `class`, in nats.
    pub drops: Vec<f64>,
    pub maps: Vec<Map>,
}

/// What a layer gives for an image: means over channels of absolute values, row by row.
pub struct Map {
    pub layer: String,
    pub height: usize,
    pub width: usize,
    pub values: Vec<f32>,
}

/// The filters of the first convolution, [count, 3, height, width].
pub struct Filters {
    pub layer: String,
    pub count: usize,
    pub kernel: [usize; 2],
    pub numbers: Vec<f32>,
    /// Whether the network reads BGR.
    pub reversed: bool,
    /// Whether training held them fixed.
    pub frozen: bool,
}

impl Sight {
    /// Heat for each pixel of a square: the mean over the patches that cover it; none where none does.
    pub fn heat(&self, side: usize) -> Vec<f64> {
        let (mut sum, mut count) = (vec![0.0; side * side], vec![0.0_f64; side * side]);
        for (at, drop) in self.drops.iter().enumerate() {
            let (top, left) = (self.starts[at / self.starts.len()], self.starts[at % self.starts.len()]);
            for y in top..top + self.patch {
                for pixel in y * side + left..y * side + left + self.patch {
                    sum[pixel] += drop;
                    count[pixel] += 1.0;
                }
            }
        }
        sum.iter().zip(count).map(|(sum, count)| sum / count.max(1.0)).collect()
    }
}

/// Looks at squares of RGB pixels, one after the other.
///
/// # Errors
/// The device has failed.
pub fn look(
    trained: &Opened,
    squares: &[&[u8]],
    device: &Device,
    tell: &mut (dyn FnMut(usize) + Send),
) -> anyhow::Result<Vec<Sight>> {
    let answerer = Answerer::new(trained, device)?;
    let layers = mapped(&answerer.encoder.network);
    let mut sights = Vec::with_capacity(squares.len());
    for square in squares {
        sights.push(sight(&answerer, square, trained.model.arch.input, &layers)?);
        tell(sights.len());
    }
    Ok(sights)
}

fn sight(answerer: &Answerer, square: &[u8], side: usize, layers: &[usize]) -> anyhow::Result<Sight> {
    let answers = answerer.answers(std::iter::once(square))?;
    let log_probabilities = answers.into_iter().next().unwrap_or_default();
    let class = likeliest(&log_probabilities);
    let whole = log_odds(&log_probabilities, class);
    let (starts, patch) = patches(side);
    let places: Vec<[usize; 2]> = starts.iter().flat_map(|top| starts.iter().map(|left| [*top, *left])).collect();
    let mean = mean_of(square);
    let mut drops = Vec::with_capacity(places.len());
    for places in places.chunks(AT_ONCE) {
        let covered: Vec<Vec<u8>> = places.iter().map(|place| covered(square, side, *place, patch, mean)).collect();
        let answers = answerer.answers(covered.iter().map(Vec::as_slice))?;
        drops.extend(answers.iter().map(|answer| whole - log_odds(answer, class)));
    }
    let maps = maps(answerer, square, layers)?;
    Ok(Sight { log_probabilities, class, log_odds: whole, starts, patch, drops, maps })
}

/// The logarithm of the odds of a class against all others.
fn log_odds(log_probabilities: &[f64], class: usize) -> f64 {
    let others = log_probabilities.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, value)| *value);
    let most = others.clone().fold(f64::NEG_INFINITY, f64::max);
    log_probabilities[class] - most - libm::log(others.map(|value| libm::exp(value - most)).sum())
}

/// Where patches begin along a side, and how wide they are.
fn patches(side: usize) -> (Vec<usize>, usize) {
    let patch = (side / PATCH).max(1);
    let mut starts: Vec<usize> = (0..PLACES).map(|place| place * (side - patch) / (PLACES - 1)).collect();
    starts.dedup();
    (starts, patch)
}

/// The mean colour.
fn mean_of(square: &[u8]) -> [u8; 3] {
    let pixels = square.len() / 3;
    [0, 1, 2].map(|channel| {
        let sum: usize = square.iter().skip(channel).step_by(3).map(|value| usize::from(*value)).sum();
        ((sum + pixels / 2) / pixels) as u8
    })
}

fn covered(square: &[u8], side: usize, [top, left]: [usize; 2], patch: usize, colour: [u8; 3]) -> Vec<u8> {
    let mut pixels = square.to_vec();
    for y in top..top + patch {
        let row = 3 * (y * side + left);
        pixels[row..row + 3 * patch].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&colour));
    }
    pixels
}

/// The ends of some blocks whose places can still be told apart.
fn mapped(network: &Network) -> Vec<usize> {
    let graph = &network.graph;
    let computed = |layer: usize| (0..=layer).any(|below| graph.macs(below) > 0);
    let usable = |layer: &usize| {
        let [_, height, width] = graph.layers[*layer].shape;
        let side = row::patches(graph, *layer).map_or(height.min(width), |row| row.side);
        side > 1 && network.stands_alone(*layer) && computed(*layer)
    };
    let of = |block: &str| {
        (0..graph.layers.len()).filter(|layer| graph.layers[*layer].block == block).filter(|layer| usable(layer)).max()
    };
    let mut ends: Vec<usize> = graph.blocks().into_iter().filter_map(of).collect();
    ends.sort_unstable();
    let kept = MAPS.min(ends.len());
    // The last one always, the others evenly below it.
    (1..=kept).map(|place| ends[place * ends.len() / kept - 1]).collect()
}

fn maps(answerer: &Answerer, square: &[u8], layers: &[usize]) -> anyhow::Result<Vec<Map>> {
    let network = &answerer.encoder.network;
    let given = answerer.given(std::iter::once(square), layers)?;
    let map = |(layer, output): (&usize, &Tensor)| {
        let [_, height, width] = network.graph.layers[*layer].shape;
        let values = network.as_images(*layer, output)?.to_device(&Device::Cpu)?.abs()?.mean(1)?;
        let mut values = values.flatten_all()?.to_vec1::<f32>()?;
        let (mut height, mut width) = (height, width);
        if let Some(row) = row::patches(&network.graph, *layer) {
            values.drain(..row.skip);
            (height, width) = (row.side, row.side);
        }
        Ok(Map { layer: network.graph.layers[*layer].name.clone(), height, width, values })
    };
    layers.iter().zip(&given).map(map).collect()
}

/// The filters of the first convolution, if that reads colours.
///
/// # Errors
/// Its tensor is missing.
pub fn filters(trained: &Opened) -> anyhow::Result<Option<Filters>> {
    let graph = &trained.graph;
    let reads = |index: &usize| matches!(graph.layers[*index].op, Op::Conv { .. }) && graph.input_shape(*index)[0] == 3;
    let Some(index) = (0..graph.layers.len()).find(reads) else { return Ok(None) };
    let layer = graph.layers[index].name.clone();
    let name = format!("{layer}.weight");
    let weight = trained.weights.0.get(&name).ok_or_else(|| anyhow::anyhow!("the weights have no '{name}'"))?;
    let (count, channels, height, width) = weight.dims4()?;
    if channels != 3 {
        return Ok(None);
    }
    Ok(Some(Filters {
        layer,
        count,
        kernel: [height, width],
        numbers: weight.flatten_all()?.to_vec1::<f32>()?,
        reversed: trained.model.preprocess == Preprocess::Caffe,
        frozen: index < trained.model.frozen,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_reach_from_edge_to_edge_of_any_side() {
        for side in [1, 2, 7, 12, 32, 224, 299] {
            let (starts, patch) = patches(side);
            assert_eq!((starts[0], starts[starts.len() - 1] + patch), (0, side));
            assert!(
                starts.windows(2).all(|pair| pair[0] < pair[1] && pair[1] <= pair[0] + patch),
                "{side}: {starts:?}"
            );
        }
    }

    #[test]
    fn odds_are_those_of_a_class_against_the_others() {
        let logs = [0.5f64, 0.3, 0.2].map(libm::log);
        assert!((log_odds(&logs, 0) - 0.0).abs() < 1e-15);
        assert!((log_odds(&logs, 2) - libm::log(0.25)).abs() < 1e-15);
    }

    #[test]
    fn heat_is_the_mean_over_the_patches_that_cover_a_pixel() {
        let sight = Sight {
            log_probabilities: Vec::new(),
            class: 0,
            log_odds: 0.0,
            starts: vec![0, 1],
            patch: 2,
            drops: vec![4.0, 0.0, 0.0, 0.0],
            maps: Vec::new(),
        };
        assert_eq!(sight.heat(3), [4.0, 2.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
