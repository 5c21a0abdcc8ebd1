//! Keras' HDF5 files: by layer names (`layer_names` and `weight_names`, keras/src/legacy/saving/legacy_h5_format.py), and
//! by class and order (`layers/conv2d_10/vars/0`, keras/src/saving/saving_lib.py), the latter also inside a `.keras`.

use hdf5_reader::Hdf5File;
use hdf5_reader::dataset::Dataset;
use hdf5_reader::group::Group as Hdf5Group;
use hdf5_reader::messages::datatype::Datatype;

use super::file::{Bytes, Format, Group, Kind, Stored, WeightFile, archive};

type Parsed<T> = Result<T, String>;

/// Reads the structure of an HDF5 file.
pub fn read(shown: String, bytes: Bytes) -> Parsed<WeightFile> {
    // Contiguous tensors are read from the map; a cache of chunks would only keep them twice.
    let options = hdf5_reader::OpenOptions::default().with_chunk_cache_bytes(0);
    let file = Hdf5File::from_owner(bytes.clone(), options).map_err(|error| error.to_string())?;
    let limit = bytes.as_ref().len().saturating_mul(PACKED).min(1 << 34);
    let root = file.root_group().map_err(|error| error.to_string())?;
    let mut reader = Reader { limit, stored: Vec::new(), groups: Vec::new(), beside: Vec::new() };
    let children = names(&root)?.0;
    let has = |name: &str| children.iter().any(|child| child == name);
    let format = if has("layers") || has("_layer_checkpoint_dependencies") {
        reader.by_class(&root)?;
        Format::KerasV3
    } else {
        let inner = if has("model_weights") { "model_weights" } else { "" };
        reader.by_name(&root, inner)?;
        Format::KerasH5
    };
    for name in children.iter().filter(|name| matches!(name.as_str(), "optimizer" | "optimizer_weights" | "metrics")) {
        reader.beside.push(name.clone());
    }
    Ok(WeightFile::keras(shown, bytes, file, format, (reader.stored, reader.groups, reader.beside)))
}

/// The weights inside a `.keras` archive; nothing if the archive is no such thing.
pub fn weights_of_archive(bytes: &Bytes) -> Parsed<Option<Bytes>> {
    let mut archive = archive(bytes)?;
    let Ok(entry) = archive.by_name("model.weights.h5") else { return Ok(None) };
    let (start, length) = (entry.data_start().unwrap_or(0) as usize, entry.size() as usize);
    let whole = start.checked_add(length).filter(|end| *end <= bytes.as_ref().len());
    match whole {
        Some(end) if entry.compression() == zip::CompressionMethod::Stored => Ok(Some(bytes.part(start..end))),
        _ => Err("model.weights.h5 in it is compressed or cut short; Keras stores it plain".to_owned()),
    }
}

/// Deflate packs a thousand times at most.
const PACKED: usize = 1100;

struct Reader {
    /// Bytes that a tensor may have.
    limit: usize,
    stored: Vec<Stored>,
    groups: Vec<Group>,
    beside: Vec<String>,
}

impl Reader {
    fn by_name(&mut self, root: &Hdf5Group, inner: &str) -> Parsed<()> {
        let group =
            if inner.is_empty() { root.clone() } else { root.group(inner).map_err(|error| error.to_string())? };
        let layers = strings(&group, "layer_names")?;
        let layers = layers.ok_or("it is HDF5, but has no `layer_names`: no weights that Keras wrote")?;
        for layer in layers {
            let own = group.group(&layer).map_err(|error| format!("the layer '{layer}': {error}"))?;
            let weights = strings(&own, "weight_names")?.unwrap_or_default();
            if weights.is_empty() {
                continue;
            }
            let mut tensors = Vec::new();
            for name in weights {
                let path = format!("{inner}/{layer}/{name}");
                tensors.push(self.dataset(&own, &name, path, &layer)?);
            }
            self.groups.push(Group { name: layer, tensors });
        }
        Ok(())
    }

    fn dataset(&mut self, group: &Hdf5Group, name: &str, path: String, layer: &str) -> Parsed<usize> {
        let mut inner = group.clone();
        let mut parts: Vec<&str> = name.split('/').collect();
        let last = parts.pop().unwrap_or(name);
        for part in parts {
            inner = inner.group(part).map_err(|error| format!("'{path}': {error}"))?;
        }
        let dataset = inner.dataset(last).map_err(|error| format!("'{path}': {error}"))?;
        let shown = if name.starts_with(layer) { name.to_owned() } else { format!("{layer}/{name}") };
        self.add(shown, &dataset, path)
    }

    fn add(&mut self, name: String, dataset: &Dataset, path: String) -> Parsed<usize> {
        let shape: Vec<usize> = dataset.shape().iter().map(|side| *side as usize).collect();
        let kind = match dataset.dtype() {
            Datatype::FloatingPoint { size: 4, .. } => Kind::F32,
            Datatype::FloatingPoint { size: 8, .. } => Kind::F64,
            Datatype::FloatingPoint { size, .. } => return Err(format!("'{name}' has floats of {size} bytes")),
            _ => Kind::Other(4),
        };
        // A damaged file may promise any shape; the numbers must be in the file.
        let bytes = shape.iter().try_fold(kind.size(), |bytes, side| bytes.checked_mul(*side));
        if bytes.is_none_or(|bytes| bytes > self.limit) {
            return Err(format!("'{name}' has the shape {shape:?}"));
        }
        self.stored.push(Stored::dataset(name, shape, kind, path));
        Ok(self.stored.len() - 1)
    }

    /// `layers/CLASS_N/vars/I`, sorted by class and number: the order in which Keras has written them.
    fn by_class(&mut self, root: &Hdf5Group) -> Parsed<()> {
        let top = if names(root)?.0.iter().any(|name| name == "layers") {
            "layers"
        } else {
            "_layer_checkpoint_dependencies"
        };
        let layers = root.group(top).map_err(|error| error.to_string())?;
        let mut found = names(&layers)?.0;
        found.sort_by_key(|name| class_and_number(name));
        for name in found {
            let own = layers.group(&name).map_err(|error| error.to_string())?;
            let (children, _) = names(&own)?;
            if children.iter().any(|child| child == "layers") {
                return Err(format!("it holds a model within a model, at {top}/{name}: save the inner model alone"));
            }
            if !children.iter().any(|child| child == "vars") {
                continue;
            }
            let vars = own.group("vars").map_err(|error| error.to_string())?;
            let mut numbers = names(&vars)?.1;
            numbers.sort_by_key(|number| number.parse::<usize>().unwrap_or(usize::MAX));
            let mut tensors = Vec::new();
            for number in numbers {
                let dataset = vars.dataset(&number).map_err(|error| error.to_string())?;
                let path = format!("{top}/{name}/vars/{number}");
                tensors.push(self.add(format!("{name}/vars/{number}"), &dataset, path)?);
            }
            if !tensors.is_empty() {
                self.groups.push(Group { name, tensors });
            }
        }
        Ok(())
    }
}

/// `conv2d_10` as ("conv2d", 10); Keras leaves the number of the first one out.
pub fn class_and_number(name: &str) -> (String, usize) {
    match name.rsplit_once('_').and_then(|(class, number)| Some((class, number.parse().ok()?))) {
        Some((class, number)) => (class.to_owned(), number),
        None => (name.to_owned(), 0),
    }
}

fn names(group: &Hdf5Group) -> Parsed<(Vec<String>, Vec<String>)> {
    group.member_names().map_err(|error| error.to_string())
}

/// A list of names in an attribute; long ones are cut into `name0`, `name1`, ...
fn strings(group: &Hdf5Group, name: &str) -> Parsed<Option<Vec<String>>> {
    let attributes = group.attributes().map_err(|error| error.to_string())?;
    let read = |name: &str| {
        let attribute = attributes.iter().find(|attribute| attribute.name == name)?;
        let empty = attribute.shape.first() == Some(&0);
        Some(if empty { Ok(Vec::new()) } else { attribute.read_strings().map_err(|error| error.to_string()) })
    };
    if let Some(whole) = read(name) {
        return whole.map(Some);
    }
    let parts: Vec<_> = (0..).map_while(|part| read(&format!("{name}{part}"))).collect::<Parsed<_>>()?;
    Ok((!parts.is_empty()).then(|| parts.concat()))
}
