//! A share of a budget: what settings are compared on first.

use super::space::{Point, Space};
use crate::value::Value;

/// How a budget is cut short.
pub(super) struct Cut {
    share: f64,
    /// The column that says so, and what stands in it.
    mark: (usize, u16),
    /// Those of `steps` and `epochs`, and of phases with their own.
    budgets: [usize; 2],
    phases: usize,
}

impl Cut {
    pub(super) fn new(share: f64, space: &mut Space) -> Self {
        let column = space.column("tune_share");
        let mark = (column, space.place(column, &Value::Float(share)));
        let budgets = ["steps", "epochs"].map(|key| space.column(key));
        Self { share, mark, budgets, phases: space.column("phases") }
    }

    pub(super) fn marked(&self, point: &[u16]) -> Point {
        let mut point = point.to_vec();
        let (column, place) = self.mark;
        point.resize(point.len().max(column + 1), 0);
        point[column] = place;
        point.into()
    }

    /// A point with this share of its steps or epochs, rounded, and one at least.
    pub(super) fn shortened(&self, space: &mut Space, point: &[u16]) -> Point {
        let mut point = point.to_vec();
        for column in self.budgets {
            if let Some(whole) = space.value(&point, column).cloned() {
                point[column] = space.place(column, &self.part(&whole));
            }
        }
        if let Some(Value::List(mut phases)) = space.value(&point, self.phases).cloned() {
            for phase in &mut phases {
                let Value::Table(settings) = phase else { continue };
                for key in ["steps", "epochs"] {
                    if let Some(budget) = settings.get_mut(key) {
                        *budget = self.part(budget);
                    }
                }
            }
            point[self.phases] = space.place(self.phases, &Value::List(phases));
        }
        point.into()
    }

    fn part(&self, budget: &Value) -> Value {
        let part = budget.number().map(|whole| (whole * self.share).round().max(1.0));
        part.map_or_else(|| budget.clone(), |part| Value::Int(part as i64))
    }
}
