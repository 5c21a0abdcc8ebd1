//! The numbers of a network by `layer.parameter`, from a file of any framework, and to safetensors.

mod aliases;
mod clip;
mod dinov3;
pub mod export;
pub mod file;
mod hub;
mod hub_maps;
mod keras;
pub mod naming;
mod pickle;
pub mod placing;
pub mod positions;
mod siglip;
mod swin;
mod torch;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use self::file::{Format, WeightFile};
use self::naming::{Match, matched};
use self::placing::{Change, Placed};
use super::arch::{Arch, NAMES, family};
use super::graph::{Graph, Op};
use crate::temporary;

/// Tensors by `layer.parameter`, in f32. Sorted, so that every walk over them has one order.
#[derive(Clone, Debug, Default)]
pub struct Weights(pub BTreeMap<String, Tensor>);

/// A file that fits a network, every tensor accounted for.
pub struct Fitted {
    pub graph: Graph,
    pub found: Match,
    /// Whether the classifier has no numbers in the file, or none that can be used.
    pub headless: bool,
}

impl Weights {
    /// Reads a weight file of any format into the network of `arch`, up to `tap` (a layer, or `features`): every parameter
    /// up to there must be in the file, and every tensor of the file in the network. What is above is not read.
    ///
    /// # Errors
    /// The file cannot be read or does not fit; lists what is missing, left over, or of another shape, on both sides; or
    /// it holds NaN or infinity.
    pub fn load(path: &Path, arch: &Arch, tap: &str) -> anyhow::Result<(Self, Fitted)> {
        let file = WeightFile::open(path)?;
        let fitted = fit(&file, arch, tap)?;
        let boundary = arch.tap(&fitted.graph, tap).map_err(anyhow::Error::msg)?;
        let weights = Self::placed(&file, &fitted, |layer| layer <= boundary)?;
        Ok((weights, fitted))
    }

    /// The same with the classifier, where the file has one that can be used.
    ///
    /// # Errors
    /// As `load`.
    pub fn whole(path: &Path, arch: &Arch) -> anyhow::Result<(Self, Fitted)> {
        let file = WeightFile::open(path)?;
        let mut fitted = fit(&file, arch, "features")?;
        let boundary = arch.tap(&fitted.graph, "features").map_err(anyhow::Error::msg)?;
        let mut weights = Self::placed(&file, &fitted, |layer| layer <= boundary)?;
        if !fitted.headless {
            let top = Self::numbers(&file, &fitted, |layer| layer > boundary)?;
            match broken(&top) {
                None => weights.0.extend(top.0),
                // torchvision's VGG16 features of Caffe's lineage come with a classifier of NaN.
                Some(name) => {
                    fitted.headless = true;
                    fitted
                        .found
                        .left_out
                        .push(("the classifier".to_owned(), format!("'{name}' holds NaN or infinity")));
                }
            }
        }
        Ok((weights, fitted))
    }

    /// Every tensor of a file that holds this very network and nothing else.
    ///
    /// # Errors
    /// A tensor is missing, left over, of another shape, or holds NaN or infinity.
    pub fn exactly(file: &WeightFile, graph: &Graph) -> anyhow::Result<Self> {
        let found = matched(file, graph);
        let of = |names: Vec<&String>| listed(&names);
        let zero: Vec<String> =
            found.zero.iter().map(|(layer, param, _)| format!("{}.{param}", graph.layers[*layer].name)).collect();
        anyhow::ensure!(
            found.missing.is_empty() && found.unused.is_empty() && found.differing.is_empty() && found.zero.is_empty(),
            "'{}' does not hold the network that it names.\n  missing: {}\n  left over: {}\n  of another shape: {}",
            file.shown,
            of(found.missing.iter().map(|(_, name)| name).chain(&zero).collect()),
            of(found.unused.iter().collect()),
            of(found.differing.iter().map(|(_, name, ..)| name).collect()),
        );
        Self::placed(file, &Fitted { graph: graph.clone(), found, headless: false }, |_| true)
    }

    fn placed(file: &WeightFile, fitted: &Fitted, wanted: impl Fn(usize) -> bool) -> anyhow::Result<Self> {
        let weights = Self::numbers(file, fitted, wanted)?;
        match broken(&weights) {
            Some(name) => anyhow::bail!("'{name}' in '{}' holds NaN or infinity", file.shown),
            None => Ok(weights),
        }
    }

    fn numbers(file: &WeightFile, fitted: &Fitted, wanted: impl Fn(usize) -> bool) -> anyhow::Result<Self> {
        let mut found: BTreeMap<String, (Vec<f32>, &[usize])> = BTreeMap::new();
        for placed in fitted.found.placed.iter().filter(|placed| wanted(placed.layer)) {
            let values = placed.laid_out(file.load(placed.stored)?, &fitted.graph);
            let name = format!("{}.{}", fitted.graph.layers[placed.layer].name, placed.param);
            let whole = found.entry(name).or_insert((Vec::new(), &placed.shape));
            match placed.change {
                Change::Third(third) => {
                    whole.0.resize(3 * values.len(), 0.0);
                    whole.0[third * values.len()..][..values.len()].copy_from_slice(&values);
                }
                _ => whole.0 = values,
            }
        }
        for (layer, param, shape) in fitted.found.zero.iter().filter(|(layer, ..)| wanted(*layer)) {
            let name = format!("{}.{param}", fitted.graph.layers[*layer].name);
            found.insert(name, (vec![0.0; shape.iter().product()], shape));
        }
        let tensors =
            found.into_iter().map(|(name, (values, shape))| Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?)));
        Ok(Self(tensors.collect::<candle_core::Result<_>>()?))
    }

    /// Writes all tensors to a temporary file beside `path` and renames it.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        save(path, self.0.iter().map(|(name, tensor)| (name.as_str(), tensor)), None)
    }
}

/// Writes tensors as safetensors to a temporary file beside `path` and renames it.
fn save<'a, V: ::safetensors::View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, V)>,
    facts: Option<HashMap<String, String>>,
) -> anyhow::Result<()> {
    let temporary = temporary::beside(path);
    let cannot = |error: &dyn std::fmt::Display| anyhow::anyhow!("cannot write '{}': {error}", temporary.display());
    // safetensors 0.8 makes files that nobody else may read; this one is to have the permissions of any other.
    let usual =
        File::create(&temporary).and_then(|file| file.metadata()).map_err(|error| cannot(&error))?.permissions();
    let sorted = facts.is_some();
    ::safetensors::serialize_to_file(tensors, facts, &temporary).map_err(|error| cannot(&error))?;
    if sorted {
        sort_header(&temporary).map_err(|error| cannot(&error))?;
    }
    std::fs::set_permissions(&temporary, usual)?;
    File::open(&temporary)?.sync_all()?;
    Ok(std::fs::rename(&temporary, path)?)
}

/// What stands in the header of a safetensors file under a name.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Facts(BTreeMap<String, String>),
    Tensor { dtype: String, shape: Vec<usize>, data_offsets: [usize; 2] },
}

/// Puts what stands in the header of a safetensors file into the order of its names: the library writes facts in another order
/// each time, and the same network is to be the same file.
fn sort_header(path: &Path) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length) as usize;
    let mut header = vec![0; length];
    file.read_exact(&mut header)?;
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(&header)?;
    let mut sorted = serde_json::to_vec(&entries)?;
    // Spaces fill a header up to its length, as the format has it.
    if sorted.len() > length {
        return Err(std::io::Error::other("its header grows when it is sorted"));
    }
    sorted.resize(length, b' ');
    file.seek(SeekFrom::Start(8))?;
    file.write_all(&sorted)
}

/// The first tensor that holds what is no number.
fn broken(weights: &Weights) -> Option<&String> {
    let finite = |tensor: &Tensor| {
        let numbers = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>());
        numbers.is_ok_and(|numbers| numbers.iter().all(|value| value.is_finite()))
    };
    weights.0.iter().find(|(_, tensor)| !finite(tensor)).map(|(name, _)| name)
}

/// Lays a file beside the network of `arch`.
///
/// # Errors
/// What does not fit, on both sides, and which network it would fit.
pub fn fit(file: &WeightFile, arch: &Arch, tap: &str) -> anyhow::Result<Fitted> {
    let message = |text: String| anyhow::anyhow!(text);
    let graph = arch.graph_of(tap, classes(file, arch).map_err(message)?).map_err(message)?;
    let boundary = arch.tap(&graph, tap).map_err(message)?.max(arch.tap(&graph, "features").map_err(message)?);
    let mut found = matched(file, &graph);
    let placed_above = found.placed.iter().any(|placed| placed.layer > boundary);
    // A dense layer over a map has the shape of one input size only; at another size what is above the tap is left out.
    let resized = family(&arch.name).is_some_and(|family| family.default_input != arch.input);
    let cut = resized && !found.differing.is_empty() && found.differing.iter().all(|(layer, ..)| *layer > boundary);
    if cut {
        for (_, name, network, stored) in found.differing.drain(..) {
            let why = format!("{stored:?} is for another input; at {} pixels it would be {network:?}", arch.input);
            found.left_out.push((name, why));
        }
    }
    let headless = cut || !placed_above;
    if headless {
        found.missing.retain(|(layer, _)| *layer <= boundary);
    }
    if found.missing.is_empty() && found.unused.is_empty() && found.differing.is_empty() {
        anyhow::ensure!(
            !is_without_imagenet(file, &graph, &found)?,
            "the weights '{}' are of a model that Keras built without ImageNet's weights: its normalization has mean 0 and variance 1, and there is no second rescaling behind it. `tl-sweep summary {} --toml` writes the network as a file; without the layer 'rescaling_1' that is yours",
            file.shown,
            arch.name
        );
        return Ok(Fitted { graph, found, headless });
    }
    let missing: Vec<&String> = found.missing.iter().map(|(_, name)| name).collect();
    let differing: Vec<String> = found
        .differing
        .iter()
        .map(|(_, name, network, stored)| format!("{name}: network {network:?}, file {stored:?}"))
        .collect();
    let above = found.differing.iter().all(|(layer, ..)| *layer > boundary);
    let hint = match recognised(file) {
        Some(other) if other.name != arch.name || other.width != arch.width => {
            format!("\n  its tensors are those of arch = \"{}\"{}", other.name, width(other.width))
        }
        _ if found.missing.is_empty() && found.unused.is_empty() && above => {
            "\n  a dense layer over a map has the shape of one input size: was it made with another `input`?".to_owned()
        }
        _ => String::new(),
    };
    anyhow::bail!(
        "the weights '{}' do not fit {}{}.\n  in the network, not in the file: {}\n  in the file, not in the network: {}\n  of another shape: {}{hint}",
        file.shown,
        arch.name,
        width(arch.width),
        listed(&missing),
        listed(&found.unused),
        listed(&differing),
    )
}

/// Whether a Keras file is of a network that prepares images otherwise than ours: its layers have the same names, and only the
/// numbers of its normalization tell.
fn is_without_imagenet(file: &WeightFile, graph: &Graph, found: &Match) -> anyhow::Result<bool> {
    let ours = matches!(file.format, Format::Safetensors | Format::Torch);
    let rescaled = |layer: usize| {
        graph.layers.iter().any(|reader| matches!(reader.op, Op::Rescale(_)) && reader.inputs == [layer])
    };
    let normalizes =
        |placed: &&Placed| matches!(graph.layers[placed.layer].op, Op::Normalize) && rescaled(placed.layer);
    let of = found.placed.iter().filter(normalizes).filter(|_| !ours).collect::<Vec<_>>();
    for placed in &of {
        let usual = if placed.param == "variance" { 1.0 } else { 0.0 };
        if file.load(placed.stored)?.iter().any(|number| *number != usual) {
            return Ok(false);
        }
    }
    Ok(!of.is_empty())
}

fn width(width: f64) -> String {
    if width == 1.0 { String::new() } else { format!(" with width = {width}") }
}

/// The number of classes of the classifier in a file; 10 where it has none.
fn classes(file: &WeightFile, arch: &Arch) -> Result<usize, String> {
    let graph = arch.graph(10)?;
    let Some(last) = (0..graph.layers.len()).rfind(|layer| !graph.params(*layer).is_empty()) else { return Ok(10) };
    let name = format!("{}.bias", graph.layers[last].name);
    let found = matched(file, &graph);
    let differing = found.differing.iter().find(|(_, differing, ..)| *differing == name);
    Ok(differing.and_then(|(.., stored)| stored.first().copied()).unwrap_or(10))
}

/// The architecture, width included, whose network a file fits up to its features; what is above has the shape of one
/// input size only.
pub fn recognised(file: &WeightFile) -> Option<Arch> {
    const WIDTHS: [f64; 8] = [1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4, 0.0625];
    let candidates = NAMES.iter().filter_map(|name| Some((*name, family(name)?.default_input)));
    let archs = candidates.flat_map(|(name, input)| WIDTHS.iter().map(move |width| Arch::new(name, input, *width)));
    archs.into_iter().find(|arch| {
        let Ok(graph) = classes(file, arch).and_then(|classes| arch.graph(classes)) else { return false };
        let Ok(features) = arch.tap(&graph, "features") else { return false };
        let found = matched(file, &graph);
        let below = found.placed.iter().any(|placed| placed.layer <= features);
        let complete = found.missing.iter().all(|(layer, _)| *layer > features);
        let same = found.differing.iter().all(|(layer, ..)| *layer > features);
        below && complete && same && found.unused.is_empty()
    })
}

fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(12).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > 12 => format!("{} and {} more", shown.join(", "), count - 12),
        _ => shown.join(", "),
    }
}
