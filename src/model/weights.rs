//! The numbers of a network by `layer.parameter`, and reading and writing them as safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::graph::Graph;

/// Tensors by `layer.parameter`, in f32. Sorted, so that every walk over them has one order.
#[derive(Clone, Debug, Default)]
pub struct Weights(pub BTreeMap<String, Tensor>);

impl Weights {
    /// Reads a safetensors file; every number must be finite.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds NaN or infinity; the message names file and tensor.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .map_err(|error| anyhow::anyhow!("the weight file '{shown}' cannot be read: {error}"))?;
        let mut found = BTreeMap::new();
        for (name, tensor) in tensors {
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
            let finite = tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite());
            anyhow::ensure!(finite, "'{name}' in '{shown}' holds NaN or infinity");
            found.insert(name, tensor);
        }
        Ok(Self(found))
    }

    /// Writes all tensors to a temporary file beside `path` and renames it.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = path.with_extension(format!("tmp{}", std::process::id()));
        let entries: Vec<(&str, &Tensor)> = self.0.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        safetensors::serialize_to_file(entries, None, &temporary)
            .map_err(|error| anyhow::anyhow!("cannot write '{}': {error}", temporary.display()))?;
        std::fs::File::open(&temporary)?.sync_all()?;
        Ok(std::fs::rename(&temporary, path)?)
    }

    /// The number of classes of the classifier in this file, read off its last layer with weights.
    pub fn classes(&self, graph: &Graph) -> Option<usize> {
        let last = (0..graph.layers.len()).rfind(|index| !graph.params(*index).is_empty())?;
        self.0.get(&format!("{}.weight", graph.layers[last].name))?.dims().first().copied()
    }

    /// Checks that the tensors of `graph` and of this file are the same, by name and shape, both ways.
    /// A file without any tensor of the layers above `features` is a backbone alone, and is accepted.
    ///
    /// # Errors
    /// Both lists of what has no partner, and shapes that differ side by side.
    pub fn check(&self, graph: &Graph, features: usize) -> anyhow::Result<()> {
        let wanted: BTreeMap<String, (Vec<usize>, bool)> = (0..graph.layers.len())
            .flat_map(|index| {
                let name = &graph.layers[index].name;
                graph
                    .params(index)
                    .into_iter()
                    .map(move |param| (format!("{name}.{}", param.name), (param.shape, index > features)))
            })
            .collect();
        let headless = !wanted.iter().any(|(name, (_, top))| *top && self.0.contains_key(name));
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|(name, (_, top))| !(self.0.contains_key(*name) || *top && headless))
            .map(|(name, _)| name.as_str())
            .collect();
        let unused: Vec<&str> = self.0.keys().filter(|name| !wanted.contains_key(*name)).map(String::as_str).collect();
        let differing: Vec<String> = wanted
            .iter()
            .filter_map(|(name, (shape, _))| self.0.get(name).map(|tensor| (name, shape, tensor.dims())))
            .filter(|(_, shape, found)| shape != found)
            .map(|(name, shape, found)| format!("{name}: network {shape:?}, file {found:?}"))
            .collect();
        anyhow::ensure!(
            missing.is_empty() && unused.is_empty() && differing.is_empty(),
            "the weights do not fit {}.\n  in the network, not in the file: {}\n  in the file, not in the network: {}\n  of another shape: {}",
            graph.arch,
            listed(&missing),
            listed(&unused),
            listed(&differing),
        );
        Ok(())
    }
}

fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(12).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > 12 => format!("{} and {} more", shown.join(", "), count - 12),
        _ => shown.join(", "),
    }
}
