//! Conditions over resolved keys: `freeze != 'all' && lr > 5e-3`, `scenario ~ 'small-*'`.
//!
//! Grammar: `||` over `&&` over `!`, parentheses, and comparisons of a key with a text in quotes, a number,
//! `true` or `false`: `==  !=  <  <=  >  >=`, and `~` / `!~` for a pattern with `*`.

use crate::value::{Layer, Value};

/// A condition, ready to be asked of cells.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Compare { key: String, test: Test, value: Value },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Like,
    Unlike,
}

/// What is wrong with a condition, and at which byte of its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub message: String,
}

impl Condition {
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut parser = Parser { text, at: 0 };
        let condition = parser.any()?;
        match parser.rest().is_empty() {
            true => Ok(condition),
            false => Err(parser.fault("expected '&&', '||' or the end")),
        }
    }

    /// Whether a cell with these settings meets the condition. A key that the cell has not got equals nothing.
    pub fn holds(&self, cell: &Layer) -> bool {
        self.test(&|key| cell.get(key))
    }

    /// The same over any way of looking up a key.
    pub fn test<'a>(&self, look_up: &impl Fn(&str) -> Option<&'a Value>) -> bool {
        match self {
            Self::Any(list) => list.iter().any(|one| one.test(look_up)),
            Self::All(list) => list.iter().all(|one| one.test(look_up)),
            Self::Not(one) => !one.test(look_up),
            Self::Compare { key, test, value } => compare(look_up(key), *test, value),
        }
    }

    /// Every key that the condition asks for.
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Self::Any(list) | Self::All(list) => list.iter().flat_map(Self::keys).collect(),
            Self::Not(one) => one.keys(),
            Self::Compare { key, .. } => vec![key],
        }
    }
}

fn compare(found: Option<&Value>, test: Test, value: &Value) -> bool {
    let Some(found) = found else {
        return matches!(test, Test::Unequal | Test::Unlike);
    };
    let order = found.order(value);
    match test {
        Test::Equal => found.same(value),
        Test::Unequal => !found.same(value),
        Test::Less => order.is_some_and(|order| order.is_lt()),
        Test::AtMost => order.is_some_and(|order| order.is_le()),
        Test::Greater => order.is_some_and(|order| order.is_gt()),
        Test::AtLeast => order.is_some_and(|order| order.is_ge()),
        Test::Like => like(&value.to_string(), &found.to_string()),
        Test::Unlike => !like(&value.to_string(), &found.to_string()),
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters.
pub fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => match text.strip_prefix(head) {
            None => false,
            Some(rest) => rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| like(tail, &rest[at..])),
        },
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&mut self) -> &str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    fn fault(&self, message: &str) -> Fault {
        Fault { at: self.at, message: message.to_owned() }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn any(&mut self) -> Result<Condition, Fault> {
        let mut list = vec![self.all()?];
        while self.take("||") {
            list.push(self.all()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Condition::Any(list) })
    }

    fn all(&mut self) -> Result<Condition, Fault> {
        let mut list = vec![self.one()?];
        while self.take("&&") {
            list.push(self.one()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Condition::All(list) })
    }

    fn one(&mut self) -> Result<Condition, Fault> {
        if self.take("!") {
            return Ok(Condition::Not(Box::new(self.one()?)));
        }
        if self.take("(") {
            let inner = self.any()?;
            return match self.take(")") {
                true => Ok(inner),
                false => Err(self.fault("expected ')'")),
            };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Condition, Fault> {
        let key = self.key()?;
        const TESTS: [(&str, Test); 8] = [
            ("==", Test::Equal),
            ("!=", Test::Unequal),
            ("<=", Test::AtMost),
            ("<", Test::Less),
            (">=", Test::AtLeast),
            (">", Test::Greater),
            ("!~", Test::Unlike),
            ("~", Test::Like),
        ];
        match TESTS.iter().find(|(sign, _)| self.take(sign)) {
            Some((_, test)) => Ok(Condition::Compare { key, test: *test, value: self.value()? }),
            None => Err(self.fault("expected a comparison: == != < <= > >= ~ !~")),
        }
    }

    fn key(&mut self) -> Result<String, Fault> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len());
        let key = rest[..length].to_owned();
        if key.is_empty() || key.starts_with(|c: char| c.is_numeric()) {
            return Err(self.fault("expected a key, such as freeze, lr or scenario"));
        }
        self.at += length;
        Ok(key)
    }

    fn value(&mut self) -> Result<Value, Fault> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| *c == '\'' || *c == '"') {
            let Some(length) = rest[1..].find(quote) else {
                return Err(self.fault("this text has no closing quote"));
            };
            let text = rest[1..=length].to_owned();
            self.at += length + 2;
            return Ok(Value::Text(text));
        }
        let ends = |c: char| !c.is_alphanumeric() && !"+-._".contains(c);
        let length = rest.find(ends).unwrap_or(rest.len());
        let word = rest[..length].to_owned();
        let value = match word.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(number), _) => Value::Int(number),
                (_, Ok(number)) if number.is_finite() => Value::Float(number),
                _ => return Err(self.fault("expected a text in quotes, a number, true or false")),
            },
        };
        self.at += length;
        Ok(value)
    }
}
