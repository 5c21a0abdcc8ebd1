//! A weight file of any format, opened by what it contains: what tensors it has, and the numbers of one at a time.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::{keras, torch};

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Safetensors,
    /// Keras' HDF5 by layer names, of `save_weights("x.h5")` and `save("x.h5")`.
    KerasH5,
    /// Keras 3's HDF5 by classes, alone or inside a `.keras`.
    KerasV3,
    Torch,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::KerasH5 => "Keras .h5, by layer name",
            Self::KerasV3 => "Keras .weights.h5 or .keras, by class and order",
            Self::Torch => "PyTorch state dict",
        }
    }
}

/// Kinds of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    /// A counter or an index: no weight.
    Other(usize),
}

/// The zip that a whole file is.
pub(super) fn archive(bytes: &Bytes) -> Result<ZipArchive<Cursor<&[u8]>>, String> {
    // Looking for where it begins, zip 9.8 takes the second entry for the first where a directory of 64 bits follows whose first
    // entry has a name of thirty bytes: PyTorch's files whose own names have twenty-one.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    ZipArchive::with_config(config, Cursor::new(bytes.as_ref())).map_err(|error| error.to_string())
}

impl Kind {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(size) => size,
        }
    }

    /// The kind of a PyTorch storage, by its class.
    pub fn of_storage(class: &str) -> Option<Self> {
        Some(match class.rsplit('.').next()? {
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::Other(8),
            "IntStorage" => Self::Other(4),
            "ShortStorage" => Self::Other(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Self::Other(1),
            _ => return None,
        })
    }
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Stored {
    /// As the file says it, in full.
    pub name: String,
    /// As the file says it.
    pub shape: Vec<usize>,
    pub kind: Kind,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// From this byte of the file, with these strides in numbers.
    Bytes { start: usize, strides: Vec<usize> },
    /// A dataset of an HDF5 file.
    Dataset(String),
}

impl Stored {
    /// Numbers in the file, from byte `start`.
    pub fn spread(name: String, shape: Vec<usize>, kind: Kind, start: usize, strides: Vec<usize>) -> Self {
        Self { name, shape, kind, place: Place::Bytes { start, strides } }
    }

    /// A dataset of an HDF5 file.
    pub fn dataset(name: String, shape: Vec<usize>, kind: Kind, path: String) -> Self {
        Self { name, shape, kind, place: Place::Dataset(path) }
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A layer of a Keras file: its tensors in Keras' order.
#[derive(Clone, Debug)]
pub struct Group {
    /// The layer's name, or in Keras 3's files its class and number.
    pub name: String,
    pub tensors: Vec<usize>,
}

/// Bytes that stay where they are: a mapped file or a part of it.
#[derive(Clone)]
pub struct Bytes {
    map: Arc<memmap2::Mmap>,
    range: std::ops::Range<usize>,
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Bytes {
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let start = self.range.start;
        Self { map: self.map.clone(), range: start + range.start..start + range.end }
    }
}

/// An open weight file.
pub struct WeightFile {
    pub shown: String,
    pub format: Format,
    pub stored: Vec<Stored>,
    /// Of Keras files, the layers that have weights, in order.
    pub groups: Vec<Group>,
    /// What the file has beside weights, and why it is left alone.
    pub beside: Vec<String>,
    bytes: Bytes,
    hdf5: Option<hdf5_reader::Hdf5File>,
}

const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

impl WeightFile {
    /// Opens a file and lists its tensors; no number is read yet.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is no weight file; the message names it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let file = std::fs::File::open(path).with_context(|| format!("cannot open the weights '{shown}'"))?;
        // SAFETY: weight files are not written while they are read, and any bytes are valid u8.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(|| format!("cannot map '{shown}'"))?;
        let bytes = Bytes { range: 0..map.len(), map: Arc::new(map) };
        Self::read(shown.clone(), bytes)
            .map_err(|message| anyhow::anyhow!("the weight file '{shown}' cannot be read: {message}"))
    }

    fn read(shown: String, bytes: Bytes) -> Result<Self, String> {
        let head = bytes.as_ref();
        let plain = |format, stored| Self {
            shown: shown.clone(),
            format,
            stored,
            groups: Vec::new(),
            beside: Vec::new(),
            bytes: bytes.clone(),
            hdf5: None,
        };
        // First of all: the length that a safetensors file begins with may look like anything.
        let length = head.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        if head.get(8) == Some(&b'{') && length < head.len() as u64 {
            return Ok(plain(Format::Safetensors, safetensors(head)?));
        }
        if head.starts_with(HDF5) {
            return keras::read(shown, bytes);
        }
        if head.starts_with(b"PK\x03\x04") {
            return match keras::weights_of_archive(&bytes)? {
                Some(inner) => keras::read(shown, inner),
                None => Ok(plain(Format::Torch, torch::zipped(&bytes)?)),
            };
        }
        if head.first() == Some(&0x80) {
            return Ok(plain(Format::Torch, torch::streamed(&bytes)?));
        }
        if head.get(257..262) == Some(b"ustar") || looks_like_old_tar(head) {
            return Ok(plain(Format::Torch, torch::tarred(&bytes)?));
        }
        Err("it is none of .h5, .weights.h5, .keras, .safetensors, .pth (it may be cut short or a web page)".to_owned())
    }

    /// A Keras file.
    pub fn keras(
        shown: String,
        bytes: Bytes,
        hdf5: hdf5_reader::Hdf5File,
        format: Format,
        (stored, groups, beside): (Vec<Stored>, Vec<Group>, Vec<String>),
    ) -> Self {
        Self { shown, format, stored, groups, beside, bytes, hdf5: Some(hdf5) }
    }

    /// What a safetensors file says of itself; of other formats nothing.
    pub fn facts(&self) -> HashMap<String, String> {
        let read = |bytes| safetensors::SafeTensors::read_metadata(bytes).ok();
        let header = (self.format == Format::Safetensors).then(|| read(self.bytes.as_ref())).flatten();
        header.and_then(|(_, header)| header.metadata().clone()).unwrap_or_default()
    }

    /// The numbers of a tensor, row by row as its shape says.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn load(&self, index: usize) -> anyhow::Result<Vec<f32>> {
        let stored = &self.stored[index];
        let damaged = || format!("'{}' of '{}' cannot be read", stored.name, self.shown);
        match (&stored.place, &self.hdf5) {
            (Place::Bytes { start, strides }, _) => Ok(self.spread(stored, *start, strides)),
            (Place::Dataset(path), Some(hdf5)) => {
                let dataset = hdf5.dataset(path).with_context(damaged)?;
                let mut values = vec![0f32; stored.count()];
                match stored.kind {
                    Kind::F32 => dataset.read_into(&mut values).with_context(damaged)?,
                    _ => {
                        let mut wide = vec![0f64; stored.count()];
                        dataset.read_into(&mut wide).with_context(damaged)?;
                        values.iter_mut().zip(wide).for_each(|(value, wide)| *value = wide as f32);
                    }
                }
                Ok(values)
            }
            (Place::Dataset(_), None) => anyhow::bail!(damaged()),
        }
    }

    fn spread(&self, stored: &Stored, start: usize, strides: &[usize]) -> Vec<f32> {
        let size = stored.kind.size();
        let bytes = self.bytes.as_ref();
        let number = |at: usize| {
            let raw = &bytes[start + at * size..][..size];
            match stored.kind {
                Kind::F32 => f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]),
                Kind::F64 => {
                    f64::from_le_bytes([raw[0], raw[1], raw[2], raw[3], raw[4], raw[5], raw[6], raw[7]]) as f32
                }
                Kind::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes([raw[0], raw[1]])) << 16),
                Kind::F16 => half::f16::from_le_bytes([raw[0], raw[1]]).to_f32(),
                Kind::Other(_) => f32::NAN,
            }
        };
        let rank = stored.shape.len();
        let mut index = vec![0; rank];
        let mut at = 0;
        let mut values = Vec::with_capacity(stored.count());
        for _ in 0..stored.count() {
            values.push(number(at));
            for axis in (0..rank).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < stored.shape[axis] {
                    break;
                }
                at -= strides[axis] * stored.shape[axis];
                index[axis] = 0;
            }
        }
        values
    }
}

/// The tensors of a safetensors file.
fn safetensors(bytes: &[u8]) -> Result<Vec<Stored>, String> {
    use safetensors::{Dtype, SafeTensors};
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut stored: Vec<Stored> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let kind = match view.dtype() {
                Dtype::F16 => Kind::F16,
                Dtype::BF16 => Kind::Bf16,
                Dtype::F32 => Kind::F32,
                Dtype::F64 => Kind::F64,
                other => Kind::Other(other.bitsize().div_ceil(8)),
            };
            let shape = view.shape().to_vec();
            let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            Stored::spread(name, shape, kind, start, strides)
        })
        .collect();
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stored)
}

/// A tar without the `ustar` mark: its header's checksum is an octal number that fits.
fn looks_like_old_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let digits: String = header[148..156].iter().map(|byte| char::from(*byte)).filter(|c| c.is_digit(8)).collect();
    let sum: u32 =
        header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    u32::from_str_radix(&digits, 8).is_ok_and(|promised| promised == sum)
}
