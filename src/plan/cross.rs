//! The cross: axes, zips, `when`, `exclude` and `include` become points, in the order of the file, the first axis slowest.

use std::collections::HashMap;

use super::space::{Point, Space};
use crate::experiment::Experiment;
use crate::experiment::axis::Axis;
use crate::experiment::problem::Problem;
use crate::experiment::resolve::overlay;
use crate::value::{Layer, Value};

/// More points than this are refused: nobody means them.
const MAX_CELLS: usize = 20_000_000;

/// All points, and for each exclude its reason and how many points it took out.
pub type Crossed = (Vec<Point>, Vec<(String, usize)>);

/// Crosses the axes of an experiment.
///
/// # Errors
/// An exclude that matches nothing; a cross that is empty or beyond all measure.
pub fn cross(experiment: &Experiment, space: &mut Space) -> Result<Crossed, Vec<Problem>> {
    let sizes = experiment.axes.iter().map(|axis| axis.rows.len());
    let total = sizes.clone().try_fold(1usize, usize::checked_mul).filter(|total| *total <= MAX_CELLS);
    let Some(total) = total else {
        return Err(vec![plain(format!("the axes cross to more than {MAX_CELLS} cells"))]);
    };
    let mut builder = Builder::new(experiment, space);
    let mut counters = vec![0; experiment.axes.len()];
    for _ in 0..total {
        builder.cell(&counters);
        advance(&mut counters, &experiment.axes);
    }
    experiment.includes.iter().for_each(|layer| builder.include(layer));
    let Builder { points, matched, .. } = builder;
    let mut problems: Vec<Problem> = Vec::new();
    for (exclude, count) in experiment.excludes.iter().zip(&matched) {
        if *count == 0 {
            problems.push(
                Problem::at(exclude.spot, "this exclude matches no cell").help("take it out, or mend its condition"),
            );
        }
    }
    if points.is_empty() && problems.is_empty() {
        problems.push(plain("no cell is left: the excludes take everything".to_owned()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let reasons = experiment
        .excludes
        .iter()
        .map(|exclude| if exclude.reason.is_empty() { exclude.text.clone() } else { exclude.reason.clone() });
    Ok((points, reasons.zip(matched).collect()))
}

fn plain(message: String) -> Problem {
    Problem { spot: None, message, help: None }
}

fn advance(counters: &mut [usize], axes: &[Axis]) {
    for (counter, axis) in counters.iter_mut().zip(axes).rev() {
        *counter += 1;
        if *counter < axis.rows.len() {
            return;
        }
        *counter = 0;
    }
}

/// Columns and places of an axis, row by row.
struct Placed {
    columns: Vec<usize>,
    rows: Vec<Vec<u16>>,
}

struct Builder<'a> {
    experiment: &'a Experiment,
    space: &'a mut Space,
    axes: Vec<Placed>,
    whens: Vec<Vec<Placed>>,
    /// The layers below the axes, for each scenario and recipe.
    bases: HashMap<(u16, u16), Vec<u16>>,
    columns: [usize; 4],
    points: Vec<Point>,
    matched: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn new(experiment: &'a Experiment, space: &'a mut Space) -> Self {
        let columns = ["scenario", "recipe", "steps", "epochs"].map(|key| space.column(key));
        let axes = placed(&experiment.axes, space);
        let whens = experiment.whens.iter().map(|when| placed(&when.axes, space)).collect();
        let matched = vec![0; experiment.excludes.len()];
        Self { experiment, space, axes, whens, bases: HashMap::new(), columns, points: Vec::new(), matched }
    }

    /// The point of one setting of all axes, with the axes that its `when`s add.
    fn cell(&mut self, counters: &[usize]) {
        let [scenario, recipe, ..] = self.columns;
        let mut labels = (0, 0);
        for (axis, counter) in self.axes.iter().zip(counters) {
            for (column, place) in axis.columns.iter().zip(&axis.rows[*counter]) {
                labels.0 = if *column == scenario { *place } else { labels.0 };
                labels.1 = if *column == recipe { *place } else { labels.1 };
            }
        }
        let mut point = self.base(labels);
        for (axis, counter) in self.axes.iter().zip(counters) {
            set(&mut point, axis, *counter, &self.columns);
        }
        self.finish(point);
    }

    fn include(&mut self, layer: &Layer) {
        let text = |key: &str| layer.get(key).cloned().unwrap_or(Value::Text(String::new()));
        let [scenario, recipe, ..] = self.columns;
        let labels = (self.space.place(scenario, &text("scenario")), self.space.place(recipe, &text("recipe")));
        let mut whole = self.base_layer(&text("scenario").to_string(), &text("recipe").to_string());
        overlay(&mut whole, layer);
        let mut point = self.space.point(&whole);
        (point[scenario], point[recipe]) = labels;
        // A single cell is what it says: no axis widens it and no exclude takes it back.
        self.points.push(point.into());
    }

    fn base(&mut self, labels: (u16, u16)) -> Vec<u16> {
        if let Some(base) = self.bases.get(&labels) {
            return base.clone();
        }
        let [scenario, recipe, ..] = self.columns;
        let mut probe = vec![0; self.space.width()];
        (probe[scenario], probe[recipe]) = labels;
        let text = |column| self.space.value(&probe, column).map_or_else(String::new, Value::to_string);
        let layer = self.base_layer(&text(scenario), &text(recipe));
        let base = self.space.point(&layer);
        self.bases.insert(labels, base.clone());
        base
    }

    /// Defaults < [backbone], [train] < scenario < recipe.
    fn base_layer(&self, scenario: &str, recipe: &str) -> Layer {
        let mut layer = self.experiment.base.clone();
        let mut labels = Layer::new();
        if let Some(found) = self.experiment.scenario(scenario) {
            overlay(&mut layer, &found.layer);
            labels.extend(found.size.map(|size| ("size".to_owned(), Value::Text(size.to_string()))));
            labels.extend(
                found.similarity.map(|similarity| ("similarity".to_owned(), Value::Text(similarity.to_string()))),
            );
        }
        if let Some(found) = self.experiment.recipes.get(recipe) {
            overlay(&mut layer, found);
        }
        layer.extend(labels);
        layer
    }

    /// Adds the conditional axes, drops what is excluded, keeps the rest.
    fn finish(&mut self, mut point: Vec<u16>) {
        point.resize(self.space.width(), 0);
        let mut open = vec![point];
        for (when, axes) in self.experiment.whens.iter().zip(&self.whens) {
            for axis in axes {
                open = open
                    .into_iter()
                    .flat_map(|point| {
                        let holds = when.condition.test(&|key| self.space.get(&point, key));
                        let rows = if holds { axis.rows.len() } else { 0 };
                        let mut spread: Vec<Vec<u16>> = (0..rows)
                            .map(|row| {
                                let mut point = point.clone();
                                set(&mut point, axis, row, &self.columns);
                                point
                            })
                            .collect();
                        if !holds {
                            spread.push(point);
                        }
                        spread
                    })
                    .collect();
            }
        }
        for point in open {
            let mut excluded = false;
            for (exclude, count) in self.experiment.excludes.iter().zip(&mut self.matched) {
                if exclude.condition.test(&|key| self.space.get(&point, key)) {
                    *count += 1;
                    excluded = true;
                    break;
                }
            }
            if !excluded {
                self.points.push(point.into());
            }
        }
    }
}

fn placed(axes: &[Axis], space: &mut Space) -> Vec<Placed> {
    let mut found = Vec::new();
    for axis in axes {
        let columns: Vec<usize> = axis.keys.iter().map(|key| space.column(key)).collect();
        let rows = axis
            .rows
            .iter()
            .map(|row| row.iter().zip(&columns).map(|(value, column)| space.place(*column, value)).collect());
        found.push(Placed { rows: rows.collect(), columns });
    }
    found
}

/// Sets an axis's values in a point; a budget of one kind replaces one of the other.
fn set(point: &mut Vec<u16>, axis: &Placed, row: usize, [_, _, steps, epochs]: &[usize; 4]) {
    for (column, place) in axis.columns.iter().zip(&axis.rows[row]) {
        if point.len() <= *column {
            point.resize(column + 1, 0);
        }
        if column == steps || column == epochs {
            (point[*steps], point[*epochs]) = (0, 0);
        }
        point[*column] = *place;
    }
}
