//! Cells in little memory: each distinct value of a key is stored once, and a cell is a row of small numbers.
//! A million cells of forty keys are then 160 MB instead of tens of gigabytes.

use std::collections::HashMap;

use crate::value::{Layer, Value};

/// Per key of the space, the place of its value; 0 where the cell has none.
pub type Point = Box<[u16]>;

/// All keys and values that occur.
#[derive(Default)]
pub struct Space {
    keys: Vec<String>,
    values: Vec<Vec<Value>>,
    /// The canonical text of each value, made once.
    texts: Vec<Vec<String>>,
    places: Vec<HashMap<String, u16>>,
    widest: HashMap<u16, usize>,
}

impl Space {
    /// The column of a key, made when it is new.
    pub fn column(&mut self, key: &str) -> usize {
        match self.keys.iter().position(|known| known == key) {
            Some(column) => column,
            None => {
                self.keys.push(key.to_owned());
                self.values.push(Vec::new());
                self.texts.push(Vec::new());
                self.places.push(HashMap::new());
                self.keys.len() - 1
            }
        }
    }

    /// The place of a value in its column.
    ///
    /// # Panics
    /// A key has more than 65,534 distinct values: an axis that long cannot be typed.
    pub fn place(&mut self, column: usize, value: &Value) -> u16 {
        let text = serde_json::to_string(value).expect("values serialise");
        if let Some(place) = self.places[column].get(&text) {
            return *place;
        }
        self.values[column].push(value.clone());
        let place = u16::try_from(self.values[column].len()).expect("fewer than 65,535 values of one key");
        self.texts[column].push(text.clone());
        self.places[column].insert(text, place);
        place
    }

    /// The value of a point in a column.
    pub fn value(&self, point: &[u16], column: usize) -> Option<&Value> {
        let place = usize::from(*point.get(column)?);
        place.checked_sub(1).map(|index| &self.values[column][index])
    }

    /// The value of a key.
    pub fn get(&self, point: &[u16], key: &str) -> Option<&Value> {
        let column = self.keys.iter().position(|known| known == key)?;
        self.value(point, column)
    }

    /// The settings of a point by key.
    pub fn layer(&self, point: &[u16]) -> Layer {
        let columns = 0..self.keys.len();
        columns.filter_map(|column| Some((self.keys[column].clone(), self.value(point, column)?.clone()))).collect()
    }

    /// A point with the settings of `layer`.
    pub fn point(&mut self, layer: &Layer) -> Vec<u16> {
        let mut point = vec![0; self.keys.len()];
        for (key, value) in layer {
            let column = self.column(key);
            point.resize(self.keys.len(), 0);
            point[column] = self.place(column, value);
        }
        point
    }

    /// Feeds a point to a hash: key and canonical value of every setting that is there, sorted by key, labels left out.
    pub fn hash(&self, point: &[u16], order: &[usize], hasher: &mut blake3::Hasher) {
        for column in order {
            let place = usize::from(point.get(*column).copied().unwrap_or(0));
            if place > 0 {
                hasher.update(self.keys[*column].as_bytes());
                hasher.update(b"=");
                hasher.update(self.texts[*column][place - 1].as_bytes());
                hasher.update(b"\n");
            }
        }
    }

    /// Columns in the order of their keys, without `labels`.
    pub fn sorted_columns(&self, labels: &[&str]) -> Vec<usize> {
        let mut columns: Vec<usize> =
            (0..self.keys.len()).filter(|column| !labels.contains(&self.keys[*column].as_str())).collect();
        columns.sort_by(|left, right| self.keys[*left].cmp(&self.keys[*right]));
        columns
    }

    /// Whether any point may have something for a key.
    pub fn knows(&self, key: &str) -> bool {
        self.keys.iter().position(|known| known == key).is_some_and(|column| !self.values[column].is_empty())
    }

    pub fn width(&self) -> usize {
        self.keys.len()
    }

    /// Notes for every dataset the largest `per_class` of these points; absent means all and is the largest.
    pub fn note_widest<'a>(&mut self, points: impl Iterator<Item = &'a Point>) {
        let (dataset, per_class) = (self.column("dataset"), self.column("per_class"));
        for point in points {
            let size = self.value(point, per_class).and_then(Value::count).unwrap_or(usize::MAX);
            let place = point.get(dataset).copied().unwrap_or(0);
            let widest = self.widest.entry(place).or_insert(0);
            *widest = size.max(*widest);
        }
    }

    /// What was noted for this point's dataset.
    pub fn widest(&self, point: &[u16]) -> Option<usize> {
        let dataset = self.keys.iter().position(|key| key == "dataset")?;
        self.widest.get(point.get(dataset)?).copied().filter(|size| *size != usize::MAX)
    }
}
