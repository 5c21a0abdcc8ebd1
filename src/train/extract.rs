//! Features of images for other programs: one pass of a network up to a tap, row by row into a file.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::{Device, Tensor};

use super::feature_file::{Facts, Writer};
use super::source::Source;
use crate::data::Manifest;
use crate::data::decode::resampler;
use crate::data::packed::Packed;
use crate::device::Precision;
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::frame::{Frame, Resize};
use crate::model::arch::Arch;
use crate::model::catalogue::identify;
use crate::model::freezing::{pooled, pools};
use crate::model::graph::{Framework, Graph};
use crate::model::weights::Weights;
use crate::nn::coming::Coming;
use crate::preprocess::Preprocess;
use crate::recipe::Pool;

/// Images of one pass on a CPU. Results do not depend on it.
const BATCH: usize = 32;

/// What is to be extracted.
pub struct Extraction {
    pub arch: Arch,
    pub weights: PathBuf,
    pub preprocess: Preprocess,
    pub resize: Resize,
    pub tap: String,
    /// How a feature map becomes a vector; without it the map itself is written.
    pub pool: Option<Pool>,
    /// Indices into the manifest, in the order of the rows.
    pub samples: Vec<u32>,
    /// How products round.
    pub precision: Precision,
    pub out: PathBuf,
}

impl Extraction {
    /// What images become before they are preprocessed.
    pub fn frame(&self) -> Frame {
        Frame { side: self.arch.input, resize: self.resize }
    }
}

/// Extracts features on a device. Returns the shape of a row, and what a person should know of how it ran.
///
/// # Errors
/// The weights do not fit, the network has no such layer, or writing fails.
pub fn extract(
    what: &Extraction,
    manifest: &Manifest,
    cache: &Path,
    device: &Device,
    tell: &mut (dyn FnMut(usize) + Send),
) -> anyhow::Result<(Vec<usize>, Option<String>)> {
    let graph = graph(what)?;
    let (weights, _) = Weights::load(&what.weights, &what.arch, &what.tap)?;
    let mut network = Network::new(graph, &weights, device)?;
    network.frozen = network.graph.layers.len();
    let packed = Rc::new(Packed::open(cache, manifest.fingerprint, what.frame(), manifest.samples.len())?);
    let source = Source::Images { packed, preprocess: what.preprocess };
    let shape = shape_of_row(&network.graph);
    let mut writer = Writer::new(&what.out, &facts(what, manifest, &shape)?)?;
    let encoder = Encoder::new(network);
    let at_once = if device.is_cuda() { AT_ONCE } else { BATCH };
    let mut coming = None;
    let mut write = |coming: Option<Coming>| coming.map_or(Ok(()), |coming| coming.read(|rows| writer.rows(rows))?);
    for (index, batch) in what.samples.chunks(at_once).enumerate() {
        // A GPU is at work on this batch while the one before is written.
        let next = features(&encoder, &source.batch(batch, device)?)?;
        write(coming.replace(next))?;
        tell((index * at_once + batch.len()).min(what.samples.len()));
    }
    write(coming)?;
    writer.finish()?;
    Ok((shape, encoder.warning()))
}

/// As the framework of the network lays out its maps; a map of one pixel is a vector.
fn shape_of_row(graph: &Graph) -> Vec<usize> {
    let [channels, height, width] = graph.layers[graph.last()].shape;
    match (height * width, graph.framework) {
        (1, _) => vec![channels],
        (_, Framework::Keras) => vec![height, width, channels],
        (_, Framework::Torch) => vec![channels, height, width],
    }
}

/// The rows of some images.
fn features(encoder: &Encoder, images: &Tensor) -> candle_core::Result<Coming> {
    let graph = &encoder.network.graph;
    let found =
        encoder.network.as_images(graph.last(), &encoder.features(images, &[graph.last()], Parts::Alike)?[0])?;
    match graph.framework {
        Framework::Keras => Coming::of(&found.permute((0, 2, 3, 1))?),
        Framework::Torch => Coming::of(&found),
    }
}

fn graph(what: &Extraction) -> anyhow::Result<Graph> {
    let backbone = what.arch.backbone(&what.tap).map_err(anyhow::Error::msg)?;
    Ok(match what.pool {
        Some(pool) => {
            pools(&backbone, pool).map_err(anyhow::Error::msg)?;
            pooled(&backbone, pool)
        }
        None => backbone,
    })
}

fn facts(what: &Extraction, manifest: &Manifest, shape: &[usize]) -> anyhow::Result<Facts> {
    let of = |sample: &u32| &manifest.samples[*sample as usize];
    let identity = identify(&what.weights)?;
    let name = |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let pool = match what.pool {
        None => "none".to_owned(),
        Some(Pool::Flatten) => "flatten".to_owned(),
        Some(Pool::Avg(grid)) => format!("avg {grid}x{grid}"),
        Some(Pool::Max(grid)) => format!("max {grid}x{grid}"),
        Some(Pool::Class) => "class".to_owned(),
        Some(Pool::ClassAvg) => "class-avg".to_owned(),
    };
    let origin = [
        ("arch", what.arch.name.clone()),
        ("width", what.arch.width.to_string()),
        ("input", what.arch.input.to_string()),
        ("weights", name(&what.weights)),
        ("weights_sha256", identity.sha256),
        ("lineage", identity.known.map_or("unknown", |known| known.lineage).to_owned()),
        ("preprocess", what.preprocess.to_string()),
        ("resize", what.resize.to_string()),
        ("resampler", resampler(what.resize.filter).to_owned()),
        ("tap", what.tap.clone()),
        ("pool", pool),
        ("precision", what.precision.name().to_owned()),
        ("data_sha256", manifest.sha256.clone()),
        ("written_by", concat!("tl-sweep ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    Ok(Facts {
        shape: shape.to_vec(),
        ids: what.samples.iter().map(|sample| of(sample).id.clone()).collect(),
        labels: what.samples.iter().map(|sample| i64::from(of(sample).class)).collect(),
        parts: what.samples.iter().map(|sample| of(sample).part.name().to_owned()).collect(),
        classes: manifest.classes.clone(),
        origin: origin.map(|(key, value)| (key.to_owned(), value)).into(),
    })
}
