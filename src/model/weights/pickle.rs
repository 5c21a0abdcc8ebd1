//! Reads pickles as data: a stack machine that builds plain nodes and never imports or calls anything.
//! Opcodes and their arguments: CPython's Lib/pickletools.py, protocols 0 to 5.

use std::collections::HashMap;

/// A node by its place in the arena.
pub type Id = usize;

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Of sets, frozen sets and tuples too.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`, never looked up.
    Global(String),
    /// What `persistent_load` would be given.
    Persistent(Id),
    /// What would be called, and with what.
    Call(Id, Id),
    Mark,
}

/// All nodes of one pickle. References are places in the arena, so that neither loops nor depth can hurt.
#[derive(Debug, Default)]
pub struct Arena {
    nodes: Vec<Node>,
}

impl Arena {
    pub fn get(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// The text of a node.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) | Node::Global(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn count(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn list(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a text key.
    pub fn entry(&self, id: Id, key: &str) -> Option<Id> {
        self.dict(id)?.iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }
}

/// Reads one pickle from the start of `bytes`. Returns its nodes, its root, and how many bytes it took.
///
/// # Errors
/// The pickle is damaged or uses an opcode that no data needs.
pub fn read(bytes: &[u8]) -> Result<(Arena, Id, usize), String> {
    let mut machine = Machine { bytes, at: 0, arena: Arena::default(), stack: Vec::new(), memo: HashMap::new() };
    loop {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok((machine.arena, root, machine.at));
        }
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: Arena,
    stack: Vec<Id>,
    memo: HashMap<usize, Id>,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("the pickle ends early, at byte {}", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Step<usize> {
        let taken = self.take(bytes)?;
        let value = taken.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| "a length in the pickle is beyond all memory".to_owned())
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("a line in the pickle has no end")?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "a line in the pickle is no text".to_owned())
    }

    fn push(&mut self, node: Node) {
        self.arena.nodes.push(node);
        self.stack.push(self.arena.nodes.len() - 1);
    }

    fn pop(&mut self) -> Step<Id> {
        self.stack.pop().ok_or_else(|| "the pickle takes more than it has put".to_owned())
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "the pickle's stack is empty".to_owned())
    }

    /// What stands above the last mark, which goes too.
    fn marked(&mut self) -> Step<Vec<Id>> {
        let mark = self.stack.iter().rposition(|id| self.arena.nodes[*id] == Node::Mark);
        let mark = mark.ok_or("the pickle lacks a mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn text(&mut self, bytes: &[u8]) {
        // Python 2 wrote names as bytes; what is no text is no name of a tensor either.
        self.push(Node::Text(String::from_utf8_lossy(bytes).into_owned()));
    }

    fn recall(&mut self, key: usize) -> Step {
        let id = *self.memo.get(&key).ok_or_else(|| format!("the pickle's memo has no entry {key}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn store(&mut self, key: usize) -> Step {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn extend(&mut self, items: Vec<Id>) -> Step {
        let top = self.top()?;
        match &mut self.arena.nodes[top] {
            Node::List(list) => list.extend(items),
            // An object that is filled by `append` has nothing that tensors need.
            Node::Call(..) => {}
            _ => return Err("the pickle appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Step {
        let top = self.top()?;
        match &mut self.arena.nodes[top] {
            Node::Dict(entries) => entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Node::Call(..) => {}
            _ => return Err("the pickle sets items of what is no dict".to_owned()),
        }
        Ok(())
    }

    /// `callee(*args)`: an ordered dict is a dict, everything else stays what it says.
    fn call(&mut self) -> Step {
        let (args, callee) = (self.pop()?, self.pop()?);
        let ordered = self.arena.text(callee).is_some_and(|name| {
            matches!(name, "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict")
        });
        if !ordered {
            self.push(Node::Call(callee, args));
            return Ok(());
        }
        // OrderedDict([(key, value), ...]), as Python 2 wrote it.
        let pairs = self.arena.list(args).and_then(|args| args.first()).and_then(|first| self.arena.list(*first));
        let pair = |id: &Id| match self.arena.list(*id) {
            Some([key, value]) => Some((*key, *value)),
            _ => None,
        };
        let entries = pairs.map_or_else(Vec::new, |pairs| pairs.iter().filter_map(pair).collect());
        self.push(Node::Dict(entries));
        Ok(())
    }

    /// `object.__setstate__(state)`: of a dict only its attributes, of which tensors need none.
    fn build(&mut self) -> Step {
        self.pop()?;
        self.top().map(drop)
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.push(Node::Mark),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'I' | b'L' => {
                let line = self.line()?.trim_end_matches('L');
                let node = match line {
                    "00" => Node::Bool(false),
                    "01" => Node::Bool(true),
                    line => Node::Int(line.parse().map_err(|_| format!("'{line}' in the pickle is no number"))?),
                };
                self.push(node);
            }
            b'J' => {
                let value = self.number(4)? as u32;
                self.push(Node::Int(i64::from(value as i32)));
            }
            b'K' | b'M' => {
                let value = self.number(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Node::Int(value as i64));
            }
            0x8a => self.long()?,
            b'G' => {
                let bytes = self.take(8)?;
                let bits = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                self.push(Node::Float(f64::from_bits(bits)));
            }
            b'F' => {
                let line = self.line()?;
                let value = line.parse().map_err(|_| format!("'{line}' in the pickle is no number"))?;
                self.push(Node::Float(value));
            }
            b'S' | b'V' => {
                let line = self.line()?.trim_matches(['\'', '"']);
                self.text(line.as_bytes());
            }
            b'T' | b'U' | b'X' | b'B' | b'C' | 0x8c | 0x8d | 0x8e => {
                let width = match opcode {
                    b'U' | b'C' | 0x8c => 1,
                    b'T' | b'X' | b'B' => 4,
                    _ => 8,
                };
                let length = self.number(width)?;
                let bytes = self.take(length)?;
                self.text(bytes);
            }
            b']' | b')' | 0x8f => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'l' | b't' | 0x91 => {
                let items = self.marked()?;
                self.push(Node::List(items));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or("the pickle's tuple has too few items")?;
                let items = self.stack.split_off(start);
                self.push(Node::List(items));
            }
            b'd' => {
                let items = self.marked()?;
                self.push(Node::Dict(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.extend(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(items)?;
            }
            b'g' | b'p' => {
                let key = self.line()?.parse().map_err(|_| "a memo key in the pickle is no number".to_owned())?;
                if opcode == b'g' { self.recall(key)? } else { self.store(key)? }
            }
            b'h' | b'j' => {
                let key = self.number(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            b'q' | b'r' => {
                let key = self.number(if opcode == b'q' { 1 } else { 4 })?;
                self.store(key)?;
            }
            0x94 => self.store(self.memo.len())?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(format!("{module}.{name}")));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id| self.arena.text(id).unwrap_or("?").to_owned();
                let global = format!("{}.{}", text(module), text(name));
                self.push(Node::Global(global));
            }
            b'R' | 0x81 => self.call()?,
            0x92 => {
                self.pop()?;
                self.call()?;
            }
            b'b' => self.build()?,
            b'P' => {
                let line = self.line()?;
                self.text(line.as_bytes());
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
            other => return Err(format!("the pickle has the opcode {other:#04x}, which no weights need")),
        }
        Ok(())
    }

    /// A long of up to 255 bytes; what does not fit 64 bits keeps its lowest ones.
    fn long(&mut self) -> Step {
        let length = self.number(1)?;
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = *byte);
        self.push(Node::Int(i64::from_le_bytes(wide)));
        Ok(())
    }
}
