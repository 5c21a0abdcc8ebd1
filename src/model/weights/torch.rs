//! PyTorch checkpoints: the zip of today, the stream of PyTorch before 1.6, and the tar before that. State dicts only.

use std::collections::HashMap;
use std::io::Cursor;

use super::file::{Bytes, Kind, Stored, archive};
use super::pickle::{self, Arena, Id, Node};

type Parsed<T> = Result<T, String>;

/// Raw numbers in the file.
#[derive(Clone, Debug)]
struct Storage {
    start: usize,
    numbers: usize,
}

/// A tensor as a pickle describes it.
struct View {
    storage: String,
    kind: Option<Kind>,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// The tensors of a zip that `torch.save` wrote.
pub fn zipped(bytes: &Bytes) -> Parsed<Vec<Stored>> {
    let mut archive = archive(bytes)?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let pickle = names.iter().find(|name| name.ends_with("data.pkl")).ok_or("the archive has no data.pkl")?;
    let prefix = pickle.trim_end_matches("data.pkl").to_owned();
    let mut span = |name: &str| -> Parsed<(usize, usize)> {
        let entry = archive.by_name(name).map_err(|error| format!("{name}: {error}"))?;
        let start = entry.data_start().ok_or_else(|| format!("{name} has no data"))? as usize;
        let length = entry.size() as usize;
        let whole = start.checked_add(length).is_some_and(|end| end <= bytes.as_ref().len());
        if entry.compression() != zip::CompressionMethod::Stored || !whole {
            return Err(format!("{name} is compressed or cut short; torch.save stores plain bytes"));
        }
        Ok((start, length))
    };
    let order = format!("{prefix}byteorder");
    if names.contains(&order) {
        let (start, length) = span(&order)?;
        if &bytes.as_ref()[start..start + length] != b"little" {
            return Err("its numbers are big-endian".to_owned());
        }
    }
    let (start, length) = span(pickle)?;
    let (arena, root, _) = pickle::read(&bytes.as_ref()[start..start + length])?;
    let views = state_dict(&arena, root)?;
    let mut stored = Vec::new();
    for (name, view) in views {
        let kind = view.kind.ok_or_else(|| format!("'{name}' has numbers of an unknown kind"))?;
        let (start, length) = span(&format!("{prefix}data/{}", view.storage))?;
        stored.push(finished(name, &view, &Storage { start, numbers: length / kind.size() }, kind)?);
    }
    Ok(stored)
}

/// The tensors of the stream that `torch.save` wrote before PyTorch 1.6: a magic number, a version, facts about the
/// machine, the object, the keys of its storages, and the storages.
pub fn streamed(bytes: &Bytes) -> Parsed<Vec<Stored>> {
    let all = bytes.as_ref();
    let mut at = 0;
    let mut next = || -> Parsed<(Arena, Id)> {
        let (arena, root, length) = pickle::read(&all[at..])?;
        at += length;
        Ok((arena, root))
    };
    next()?;
    let (arena, version) = next()?;
    if arena.count(version) != Some(1001) {
        return Err("it is a pickle, but not one that torch.save wrote".to_owned());
    }
    let (arena, facts) = next()?;
    if arena.entry(facts, "little_endian").is_some_and(|id| *arena.get(id) == Node::Bool(false)) {
        return Err("its numbers are big-endian".to_owned());
    }
    let (arena, root) = next()?;
    let views = state_dict(&arena, root)?;
    let (arena, keys) = next()?;
    let sizes: HashMap<&str, usize> =
        views.iter().filter_map(|(_, view)| Some((view.storage.as_str(), view.kind?.size()))).collect();
    let mut storages = HashMap::new();
    for key in arena.list(keys).ok_or("the list of storages is missing")? {
        let key = arena.text(*key).ok_or("a storage has no name")?;
        let numbers = long(all, at)?;
        at += 8;
        let size = *sizes.get(key).ok_or_else(|| format!("the storage {key} belongs to no tensor"))?;
        storages.insert(key.to_owned(), Storage { start: at, numbers });
        let length = numbers.checked_mul(size).and_then(|length| at.checked_add(length));
        at = length.filter(|end| *end <= all.len()).ok_or("the file ends within a storage")?;
    }
    gathered(views, &storages)
}

/// The tensors of the tar of PyTorch 0.1: `storages`, `tensors` and `pickle`, each a stream of its own.
pub fn tarred(bytes: &Bytes) -> Parsed<Vec<Stored>> {
    let all = bytes.as_ref();
    let mut members: HashMap<String, (usize, usize)> = HashMap::new();
    let mut archive = tar::Archive::new(Cursor::new(all));
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.path().map_err(|error| error.to_string())?.to_string_lossy().into_owned();
        members.insert(name, (entry.raw_file_position() as usize, entry.size() as usize));
    }
    let member = |name: &str| {
        let (start, length) = *members.get(name).ok_or_else(|| format!("the tar has no '{name}'"))?;
        let end = start.checked_add(length).filter(|end| *end <= all.len());
        end.map(|end| (start, end)).ok_or_else(|| format!("'{name}' is cut short"))
    };
    let (mut at, end) = member("storages")?;
    let mut storages = HashMap::new();
    let mut kinds = HashMap::new();
    let count = value(all, &mut at, end)?;
    for _ in 0..count.0.count(count.1).ok_or("the number of storages is missing")? {
        let (arena, head) = value(all, &mut at, end)?;
        let head = arena.list(head).filter(|head| head.len() == 3).ok_or("a storage has no head")?;
        let key = identity(&arena, head[0])?;
        let kind = arena.text(head[2]).and_then(Kind::of_storage).ok_or("a storage is of an unknown kind")?;
        let numbers = long(all, at)?;
        storages.insert(key.clone(), Storage { start: at + 8, numbers });
        kinds.insert(key, kind);
        let after = numbers.checked_mul(kind.size()).and_then(|length| (at + 8).checked_add(length));
        at = after.filter(|after| *after <= end).ok_or("the file ends within a storage")?;
    }
    let (mut at, end) = member("tensors")?;
    let mut tensors = HashMap::new();
    let count = value(all, &mut at, end)?;
    for _ in 0..count.0.count(count.1).ok_or("the number of tensors is missing")? {
        let (arena, head) = value(all, &mut at, end)?;
        let head = arena.list(head).filter(|head| head.len() == 3).ok_or("a tensor has no head")?;
        let (key, storage) = (identity(&arena, head[0])?, identity(&arena, head[1])?);
        let rank = long(all, at)? & 0xffff_ffff;
        if rank > 8 {
            return Err(format!("a tensor has {rank} dimensions"));
        }
        let numbers: Vec<usize> = (0..=2 * rank).map(|index| long(all, at + 8 + 8 * index)).collect::<Parsed<_>>()?;
        at += 8 * (2 * rank + 2);
        let view = View {
            kind: kinds.get(&storage).copied(),
            storage,
            offset: numbers[2 * rank],
            shape: numbers[..rank].to_vec(),
            strides: numbers[rank..2 * rank].to_vec(),
        };
        tensors.insert(key, view);
    }
    let (start, end) = member("pickle")?;
    let (arena, root, _) = pickle::read(&all[start..end])?;
    let mut views = Vec::new();
    for (name, id) in named(&arena, root)? {
        let Node::Persistent(key) = arena.get(parameter(&arena, id)) else { continue };
        let view = tensors.remove(&identity(&arena, *key)?);
        views.push((name.clone(), view.ok_or_else(|| format!("'{name}' has no tensor"))?));
    }
    gathered(views, &storages)
}

fn value(all: &[u8], at: &mut usize, end: usize) -> Parsed<(Arena, Id)> {
    let rest = all.get(*at..end).ok_or("a part of the tar ends early")?;
    let (arena, root, length) = pickle::read(rest)?;
    *at += length;
    Ok((arena, root))
}

/// Storages and tensors are known by numbers or by texts.
fn identity(arena: &Arena, id: Id) -> Parsed<String> {
    let number = arena.count(id).map(|number| number.to_string());
    number.or_else(|| arena.text(id).map(str::to_owned)).ok_or_else(|| "a storage has no name".to_owned())
}

fn long(all: &[u8], at: usize) -> Parsed<usize> {
    let bytes = at.checked_add(8).and_then(|end| all.get(at..end)).ok_or("the file ends early")?;
    let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).map_err(|_| "a length in the file is beyond all memory".to_owned())
}

fn gathered(views: Vec<(String, View)>, storages: &HashMap<String, Storage>) -> Parsed<Vec<Stored>> {
    let stored = |(name, view): (String, View)| {
        let kind = view.kind.ok_or_else(|| format!("'{name}' has numbers of an unknown kind"))?;
        let storage = storages.get(&view.storage).ok_or_else(|| format!("'{name}' has no storage"))?;
        finished(name, &view, storage, kind)
    };
    views.into_iter().map(stored).collect()
}

/// A tensor with its place in the file, if all of it lies within its storage.
fn finished(name: String, view: &View, storage: &Storage, kind: Kind) -> Parsed<Stored> {
    let last =
        view.shape.iter().zip(&view.strides).try_fold(view.offset, |last, (side, stride)| {
            last.checked_add(side.saturating_sub(1).checked_mul(*stride)?)
        });
    let empty = view.shape.contains(&0);
    if view.shape.len() != view.strides.len() || !(empty || last.is_some_and(|last| last < storage.numbers)) {
        return Err(format!("'{name}' reaches beyond its storage"));
    }
    let start = storage.start + view.offset * kind.size();
    Ok(Stored::spread(name, view.shape.clone(), kind, start, view.strides.clone()))
}

/// The tensors of a state dict, or of the state dict inside a checkpoint.
fn state_dict(arena: &Arena, root: Id) -> Parsed<Vec<(String, View)>> {
    let mut views = Vec::new();
    for (name, id) in named(arena, root)? {
        if let Some(view) = view(arena, parameter(arena, id)) {
            views.push((name.clone(), view.map_err(|message| format!("'{name}': {message}"))?));
        }
    }
    if views.is_empty() {
        return Err("it holds no tensors by name".to_owned());
    }
    Ok(views)
}

/// Names and values of the state dict. A checkpoint keeps it under a key; data-parallel training puts `module.` before
/// every name.
fn named(arena: &Arena, root: Id) -> Parsed<Vec<(String, Id)>> {
    if let Node::Call(callee, _) = arena.get(root) {
        let class = arena.text(*callee).unwrap_or("an unknown class");
        return Err(format!(
            "it holds a whole object of {class}, which only its code can read: save `model.state_dict()` instead"
        ));
    }
    let inner = ["state_dict", "model_state_dict", "model", "net"].iter().find_map(|key| arena.entry(root, key));
    let inner = inner.filter(|id| arena.dict(*id).is_some()).unwrap_or(root);
    let entries = arena.dict(inner).ok_or("it holds no state dict")?;
    let mut named: Vec<(String, Id)> =
        entries.iter().filter_map(|(key, value)| Some((arena.text(*key)?.to_owned(), *value))).collect();
    if named.iter().all(|(name, _)| name.starts_with("module.")) {
        named.iter_mut().for_each(|(name, _)| *name = name["module.".len()..].to_owned());
    }
    Ok(named)
}

/// A parameter's tensor; anything else as it is.
fn parameter(arena: &Arena, id: Id) -> Id {
    let Node::Call(callee, args) = arena.get(id) else { return id };
    match arena.text(*callee) {
        Some("torch._utils._rebuild_parameter" | "torch.nn.parameter.Parameter") => {
            arena.list(*args).and_then(|args| args.first()).copied().unwrap_or(id)
        }
        _ => id,
    }
}

/// What `_rebuild_tensor_v2(storage, offset, shape, strides, ...)` would make.
fn view(arena: &Arena, id: Id) -> Option<Parsed<View>> {
    let Node::Call(callee, args) = arena.get(id) else { return None };
    let known = matches!(arena.text(*callee)?, "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor");
    let args = arena.list(*args).filter(|args| known && args.len() >= 4)?;
    let numbers = |id: Id| -> Option<Vec<usize>> { arena.list(id)?.iter().map(|id| arena.count(*id)).collect() };
    let read = || {
        let Node::Persistent(storage) = arena.get(args[0]) else { return None };
        let storage = arena.list(*storage).filter(|storage| storage.len() >= 5)?;
        // A view of a storage begins somewhere within it.
        let begin =
            storage.get(5).and_then(|view| arena.list(*view)).map_or(Some(0), |view| arena.count(*view.get(1)?));
        Some(View {
            kind: arena.text(storage[1]).and_then(Kind::of_storage),
            storage: identity(arena, storage[2]).ok()?,
            offset: arena.count(args[1])?.checked_add(begin?)?,
            shape: numbers(args[2])?,
            strides: numbers(args[3])?,
        })
    };
    Some(read().ok_or_else(|| "this tensor is not described as torch.save does".to_owned()))
}
