//! The strengths of regularisation along which a linear head is solved, and the one among them that validation chooses:
//! logistic regression, ridge regression, and linear discriminant analysis.

use anyhow::Context;

use super::coded::Set;
use super::course::{balanced, targets};
use crate::nn::discriminant::Discriminant;
use crate::nn::solve::{Head, Logistic, Ridge};
use crate::outcome::{Point, Progress};
use crate::phase::Phase;
use crate::recipe::{Metric, Optimizer};

/// How a head is solved.
#[derive(Clone, Copy)]
pub struct How<'a> {
    pub optimizer: Optimizer,
    pub strengths: &'a [f64],
    /// Says what the classes count, and how sure the targets are.
    pub phase: &'a Phase,
    pub metric: Metric,
}

/// What has a formula for the head of each strength.
enum Closed {
    Ridge(Ridge),
    Lda(Discriminant),
}

impl Closed {
    /// None of what is solved by iteration.
    fn new(optimizer: Optimizer, set: &Set, class_weights: Option<&[f64]>) -> candle_core::Result<Option<Self>> {
        let Set { x, labels, classes, .. } = set;
        Ok(match optimizer {
            Optimizer::Ridge => Some(Self::Ridge(Ridge::new(x, labels, *classes, class_weights)?)),
            Optimizer::Lda => Some(Self::Lda(Discriminant::new(x, labels, *classes, class_weights)?)),
            _ => None,
        })
    }

    fn head(&self, lambda: f64) -> candle_core::Result<Head> {
        match self {
            Self::Ridge(ridge) => ridge.head(lambda),
            Self::Lda(discriminant) => discriminant.head(lambda),
        }
    }
}

/// The strengths, from the strongest to the weakest; each starts where the one before ended.
pub struct Path<'a> {
    how: How<'a>,
    train: &'a Set,
    val: &'a Set,
    pub curve: Vec<Point>,
    /// Over the training images.
    pub passes: usize,
    /// Rows times the head, or times what becomes its gradient.
    pub products: usize,
    best: Option<Chosen>,
}

/// A head, and what it was chosen for.
pub struct Chosen {
    /// None of a head that was given.
    pub lambda: Option<f64>,
    score: f64,
    pub head: Head,
    pub converged: bool,
}

/// Adds to a curve what can be drawn: what is no number diverges, and has no place in the store.
fn draw(curve: &mut Vec<Point>, point: Point) {
    if point.train_loss.is_finite() && point.val.loss.is_finite() {
        curve.push(point);
    }
}

impl<'a> Path<'a> {
    pub fn new(how: How<'a>, train: &'a Set, val: &'a Set) -> Self {
        Self { how, train, val, curve: Vec::new(), passes: 0, products: 0, best: None }
    }

    /// What validation chose; there is nothing left then.
    ///
    /// # Errors
    /// Nothing was solved or given.
    pub fn chosen(&mut self) -> anyhow::Result<Chosen> {
        self.best.take().context("a path without strengths")
    }

    /// Solves for every strength.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn run(&mut self, tell: &mut dyn FnMut(Progress)) -> anyhow::Result<()> {
        let mut strengths = self.how.strengths.to_vec();
        strengths.sort_by(|one, other| other.total_cmp(one));
        let (train, val) = (self.train, self.val);
        let balanced = balanced(train.labels.iter().copied(), train.classes);
        let targets = targets(self.how.phase, &balanced);
        let mut logistic = Logistic::new(&train.x, &train.labels, train.classes, targets)?;
        let closed = Closed::new(self.how.optimizer, train, targets.class_weights)?;
        for (index, lambda) in strengths.iter().enumerate() {
            let (head, converged, passes) = match &closed {
                // The factorisation is the one pass.
                Some(closed) => (closed.head(*lambda)?, true, usize::from(index == 0)),
                None => {
                    let solved = logistic.solve(*lambda)?;
                    (solved.head, solved.converged, solved.passes)
                }
            };
            self.passes += passes;
            self.products += 2 * passes * train.labels.len() + train.labels.len() + val.labels.len();
            let (_, scores) = val.scores(&head)?;
            let (_, own) = train.scores(&head)?;
            let epoch = self.passes as f64;
            draw(&mut self.curve, Point { step: index + 1, epoch, lr: *lambda, train_loss: own.loss, val: scores });
            let (score, accuracy) = (scores.of(self.how.metric), Some(scores.accuracy));
            tell(Progress { step: index + 1, steps: strengths.len(), loss: own.loss, accuracy });
            // On a tie the stronger one stays: it is the simpler model.
            if self.best.as_ref().is_none_or(|best| score > best.score) {
                self.best = Some(Chosen { lambda: Some(*lambda), score, head, converged });
            }
        }
        Ok(())
    }

    /// Takes a head that nobody trains.
    ///
    /// # Errors
    /// It has another shape.
    pub fn given(&mut self, head: Head) -> anyhow::Result<()> {
        self.products += self.train.labels.len() + self.val.labels.len();
        let (_, val) = self.val.scores(&head)?;
        let (_, own) = self.train.scores(&head)?;
        let score = val.of(self.how.metric);
        draw(&mut self.curve, Point { step: 0, epoch: 0.0, lr: 0.0, train_loss: own.loss, val });
        self.best = Some(Chosen { lambda: None, score, head, converged: true });
        Ok(())
    }

    /// The chosen strength once more, on training and validation images.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn refitted(&mut self, chosen: &Chosen) -> anyhow::Result<Head> {
        let lambda = chosen.lambda.context("a head that was given has no strength")?;
        let both = self.train.with(self.val)?;
        let balanced = balanced(both.labels.iter().copied(), both.classes);
        let targets = targets(self.how.phase, &balanced);
        if let Some(closed) = Closed::new(self.how.optimizer, &both, targets.class_weights)? {
            self.products += 2 * both.labels.len();
            return Ok(closed.head(lambda)?);
        }
        let mut logistic = Logistic::new(&both.x, &both.labels, both.classes, targets)?;
        logistic.start_from(&chosen.head)?;
        let solved = logistic.solve(lambda)?;
        self.products += 2 * solved.passes * both.labels.len();
        Ok(solved.head)
    }
}
