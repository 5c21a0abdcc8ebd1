//! Optimisers: SGD with momentum in PyTorch's convention, and AdamW. One state per parameter.

use candle_core::{Result, Tensor};

use super::{tensor, with};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Sgd {
        momentum: f64,
        nesterov: bool,
    },
    /// Betas 0.9 and 0.999, epsilon 1e-8.
    Adam,
}

/// What one step uses: the rate of this step, and the two meanings of decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub lr: f64,
    /// Added to the gradient, times the parameter.
    pub coupled_decay: f64,
    /// Taken off the parameter, times the rate and the parameter.
    pub decoupled_decay: f64,
}

/// The memory of one parameter: velocity, or first and second moments.
#[derive(Clone, Debug, Default)]
pub struct State {
    first: Option<Tensor>,
    second: Option<Tensor>,
    steps: i32,
}

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

impl State {
    /// The parameter after one step.
    ///
    /// # Errors
    /// The gradient has another shape.
    pub fn step(&mut self, rule: Rule, step: Step, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        self.steps += 1;
        match rule {
            Rule::Sgd { momentum, nesterov } => self.sgd(momentum, nesterov, step, parameter, gradient),
            Rule::Adam => self.adam(step, parameter, gradient),
        }
    }

    fn sgd(
        &mut self,
        momentum: f64,
        nesterov: bool,
        step: Step,
        parameter: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let (decay, shrink, lr, momentum) =
            (step.coupled_decay as f32, 1.0 - (step.lr * step.decoupled_decay) as f32, step.lr as f32, momentum as f32);
        if !parameter.device().is_cpu() {
            let gradient =
                if decay == 0.0 { gradient.clone() } else { gradient.add(&(parameter * f64::from(decay))?)? };
            let velocity = match &self.first {
                Some(velocity) => (velocity * f64::from(momentum))?.add(&gradient)?,
                None => gradient.clone(),
            };
            let direction =
                if nesterov { gradient.add(&(&velocity * f64::from(momentum))?)? } else { velocity.clone() };
            self.first = Some(velocity);
            return (parameter * f64::from(shrink))?.sub(&(direction * f64::from(lr))?);
        }
        let old = self.first.take().map_or_else(|| gradient.zeros_like(), Ok)?;
        let mut velocity = Vec::with_capacity(gradient.elem_count());
        let moved = with([parameter, gradient, &old], |[parameter, gradient, old]| {
            let one = |((w, g), v): ((&f32, &f32), &f32)| {
                let g = g + decay * w;
                let v = momentum * v + g;
                velocity.push(v);
                let direction = if nesterov { g + momentum * v } else { v };
                shrink * w - lr * direction
            };
            parameter.iter().zip(gradient).zip(old).map(one).collect()
        })?;
        self.first = Some(tensor(velocity, gradient.shape().clone())?);
        tensor(moved, parameter.shape().clone())
    }

    fn adam(&mut self, step: Step, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let gradient = if step.coupled_decay == 0.0 {
            gradient.clone()
        } else {
            gradient.add(&(parameter * step.coupled_decay)?)?
        };
        let mix = |old: Option<Tensor>, new: Tensor, beta: f64| match old {
            Some(old) => (old * beta)?.add(&(new * (1.0 - beta))?),
            None => new * (1.0 - beta),
        };
        let first = mix(self.first.take(), gradient.clone(), BETAS.0)?;
        let second = mix(self.second.take(), gradient.sqr()?, BETAS.1)?;
        let correction = |beta: f64| 1.0 - beta.powi(self.steps);
        let scale = (&second / correction(BETAS.1))?.sqrt()?;
        let direction = (&first / correction(BETAS.0))?.div(&(scale + EPSILON)?)?;
        self.first = Some(first);
        self.second = Some(second);
        (parameter * (1.0 - step.lr * step.decoupled_decay))?.sub(&(direction * step.lr)?)
    }
}
