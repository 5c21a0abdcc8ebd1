//! The head of an HDF5 file with one large dataset at its end, so that its rows can be streamed: no library writes a
//! dataset of more than one dimension without holding all of it.
//!
//! HDF5 File Format Specification 3.0, the oldest structures of all (superblock 0, object headers 1, symbol tables), which
//! every reader knows: a root group with a few datasets, each contiguous, and text attributes on the root.

use super::feature_file::Facts;

const UNDEFINED: u64 = u64::MAX;

/// A dataset: its name, its shape, what its elements are, and its numbers; the large one's come later.
struct Dataset {
    name: &'static str,
    shape: Vec<u64>,
    element: Element,
    bytes: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Element {
    F32,
    I64,
    /// UTF-8 of so many bytes, filled up with zeros.
    Text(u32),
}

impl Element {
    fn size(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::I64 => 8,
            Self::Text(size) => size,
        }
    }

    /// The datatype message, version 1.
    fn message(self) -> Vec<u8> {
        let (class, bits, properties): (u8, [u8; 3], &[u8]) = match self {
            // IEEE 754: sign at 31, exponent of 8 bits at 23 with bias 127, mantissa of 23 bits with a leading 1.
            Self::F32 => (0x11, [0x20, 31, 0], &[0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]),
            Self::I64 => (0x10, [0x08, 0, 0], &[0, 0, 64, 0]),
            Self::Text(_) => (0x13, [0x11, 0, 0], &[]),
        };
        let mut message = vec![class];
        message.extend(bits);
        message.extend(self.size().to_le_bytes());
        message.extend(properties);
        message
    }
}

fn texts(values: &[String]) -> (Element, Vec<u8>) {
    let size = values.iter().map(String::len).max().unwrap_or(0).max(1);
    let mut bytes = Vec::with_capacity(size * values.len());
    for value in values {
        bytes.extend(value.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(size).max(bytes.len()), 0);
        if value.is_empty() {
            bytes.resize(bytes.len() + size, 0);
        }
    }
    (Element::Text(size as u32), bytes)
}

/// Everything up to the first number of `features`.
pub fn head(facts: &Facts) -> Vec<u8> {
    let rows = facts.ids.len() as u64;
    let text = |name, values: &[String]| {
        let (element, bytes) = texts(values);
        Dataset { name, shape: vec![values.len() as u64], element, bytes: Some(bytes) }
    };
    let features = std::iter::once(rows).chain(facts.shape.iter().map(|side| *side as u64)).collect();
    let labels = facts.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    // Symbols of a group are sorted by name.
    let datasets = [
        text("classes", &facts.classes),
        Dataset { name: "features", shape: features, element: Element::F32, bytes: None },
        text("ids", &facts.ids),
        Dataset { name: "labels", shape: vec![rows], element: Element::I64, bytes: Some(labels) },
        text("parts", &facts.parts),
    ];
    let attributes: Vec<(u16, Vec<u8>)> =
        facts.origin.iter().map(|(name, value)| (0x000C, attribute(name, value))).collect();
    // Sizes do not depend on addresses, so a first round of zeros tells where everything comes to lie.
    let mut places = Places { headers: vec![0; datasets.len()], data: vec![0; datasets.len()], ..Places::default() };
    let mut file = Vec::new();
    for _ in 0..2 {
        (file, places) = laid_out(&datasets, &attributes, &places);
    }
    file
}

#[derive(Default)]
struct Places {
    tree: u64,
    heap: u64,
    symbols: u64,
    headers: Vec<u64>,
    data: Vec<u64>,
    end: u64,
}

fn laid_out(datasets: &[Dataset], attributes: &[(u16, Vec<u8>)], known: &Places) -> (Vec<u8>, Places) {
    let mut next = Places::default();
    let mut file = superblock(known);
    let mut messages = vec![(0x0011, [known.tree.to_le_bytes(), known.heap.to_le_bytes()].concat())];
    messages.extend(attributes.iter().cloned());
    file.extend(object_header(&messages));
    next.tree = file.len() as u64;
    let mut offsets = Vec::new();
    let mut names = vec![0; 8];
    for dataset in datasets {
        offsets.push(names.len() as u64);
        names.extend(dataset.name.as_bytes());
        names.resize((names.len() + 1).next_multiple_of(8), 0);
    }
    file.extend(tree(known.symbols, offsets.last().copied().unwrap_or(0)));
    next.heap = file.len() as u64;
    file.extend(heap(file.len() as u64, &names));
    next.symbols = file.len() as u64;
    file.extend(symbols(&offsets, &known.headers));
    for (dataset, place) in datasets.iter().zip(&known.data) {
        next.headers.push(file.len() as u64);
        file.extend(dataset_header(dataset, *place));
    }
    next.data = vec![0; datasets.len()];
    for (index, dataset) in datasets.iter().enumerate() {
        if let Some(bytes) = &dataset.bytes {
            next.data[index] = file.len() as u64;
            file.extend(bytes);
            file.resize(file.len().next_multiple_of(8), 0);
        }
    }
    let large = datasets.iter().position(|dataset| dataset.bytes.is_none());
    next.end = file.len() as u64;
    if let Some(large) = large {
        next.data[large] = next.end;
        next.end += bytes(&datasets[large]);
    }
    (file, next)
}

fn bytes(dataset: &Dataset) -> u64 {
    dataset.shape.iter().product::<u64>() * u64::from(dataset.element.size())
}

fn superblock(places: &Places) -> Vec<u8> {
    let mut block = b"\x89HDF\r\n\x1a\n".to_vec();
    // Versions, sizes of offsets and lengths, and how many symbols a leaf (2 x 4) and children a node (2 x 16) hold.
    block.extend([0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]);
    for address in [0, UNDEFINED, places.end, UNDEFINED] {
        block.extend(address.to_le_bytes());
    }
    // The root group: no name, its header right behind, and where its symbol table is.
    for value in [0, 96, 1, places.tree, places.heap] {
        block.extend(value.to_le_bytes());
    }
    block
}

fn object_header(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, data) in messages {
        body.extend(kind.to_le_bytes());
        body.extend((data.len().next_multiple_of(8) as u16).to_le_bytes());
        body.extend([0; 4]);
        body.extend(data);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let mut header = vec![1, 0];
    header.extend((messages.len() as u16).to_le_bytes());
    header.extend(1u32.to_le_bytes());
    header.extend((body.len() as u32).to_le_bytes());
    header.extend([0; 4]);
    header.extend(body);
    header
}

/// A group's B-tree: one leaf, with room for 32 children.
fn tree(symbols: u64, last: u64) -> Vec<u8> {
    let mut node = b"TREE".to_vec();
    node.extend([0, 0, 1, 0]);
    for value in [UNDEFINED, UNDEFINED, 0, symbols, last] {
        node.extend(value.to_le_bytes());
    }
    node.resize(24 + 8 * 33 + 8 * 32, 0);
    node
}

fn heap(place: u64, names: &[u8]) -> Vec<u8> {
    let mut heap = b"HEAP".to_vec();
    heap.extend([0; 4]);
    // Nothing is free (1 stands for the end of the list); the names follow.
    for value in [names.len() as u64, 1, place + 32] {
        heap.extend(value.to_le_bytes());
    }
    heap.extend(names);
    heap
}

fn symbols(names: &[u64], headers: &[u64]) -> Vec<u8> {
    let mut node = b"SNOD".to_vec();
    node.extend([1, 0]);
    node.extend((names.len() as u16).to_le_bytes());
    for (name, header) in names.iter().zip(headers) {
        node.extend(name.to_le_bytes());
        node.extend(header.to_le_bytes());
        node.extend([0; 24]);
    }
    node.resize(8 + 8 * 40, 0);
    node
}

fn dataspace(shape: &[u64]) -> Vec<u8> {
    let mut message = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
    shape.iter().for_each(|side| message.extend(side.to_le_bytes()));
    message
}

fn dataset_header(dataset: &Dataset, place: u64) -> Vec<u8> {
    let mut layout = vec![3, 1];
    layout.extend(place.to_le_bytes());
    layout.extend(bytes(dataset).to_le_bytes());
    object_header(&[
        (0x0001, dataspace(&dataset.shape)),
        (0x0003, dataset.element.message()),
        // Space is allocated early, nothing is filled, no value is defined.
        (0x0005, vec![2, 1, 1, 0]),
        (0x0008, layout),
    ])
}

/// A text attribute, version 1: every part is filled up to eight bytes.
fn attribute(name: &str, value: &str) -> Vec<u8> {
    let (element, data) = texts(&[value.to_owned()]);
    let (datatype, space) = (element.message(), dataspace(&[]));
    let mut message = vec![1, 0];
    for size in [name.len() + 1, datatype.len(), space.len()] {
        message.extend((size as u16).to_le_bytes());
    }
    for part in [[name.as_bytes(), &[0]].concat(), datatype, space] {
        message.extend(&part);
        message.resize(message.len().next_multiple_of(8), 0);
    }
    message.extend(data);
    message
}
