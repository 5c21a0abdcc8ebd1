//! Optimisers: SGD with momentum in PyTorch's convention, and AdamW; one state per parameter. Clipping of gradients.

use candle_core::{Result, Tensor};

use rayon::prelude::*;

use super::buffer::{self, with};
use super::kernel::on_every_path;

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
    /// On CPU.
    host: [Vec<f32>; 2],
    /// On other devices.
    first: Option<Tensor>,
    second: Option<Tensor>,
    steps: i32,
}

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// Numbers of one task.
const TASK: usize = 16_384;

impl State {
    /// The parameter after one step. On CPU it is the same memory: nobody else may read the old numbers.
    ///
    /// # Errors
    /// The gradient has another shape.
    pub fn step(&mut self, rule: Rule, step: Step, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        if parameter.shape() != gradient.shape() {
            candle_core::bail!("a gradient of {:?} does not fit {:?}", gradient.shape(), parameter.shape());
        }
        self.steps += 1;
        match rule {
            Rule::Sgd { momentum, nesterov } => self.sgd(momentum, nesterov, step, parameter, gradient),
            Rule::Adam => self.adam(step, parameter, gradient),
        }
    }

    /// PyTorch 2's SGD: velocity <- momentum velocity + gradient, parameter <- parameter - lr velocity.
    fn sgd(
        &mut self,
        momentum: f64,
        nesterov: bool,
        step: Step,
        parameter: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        if !parameter.device().is_cpu() {
            return self.sgd_composed(momentum, nesterov, step, parameter, gradient);
        }
        let (decay, shrink, lr, momentum) =
            (step.coupled_decay as f32, 1.0 - (step.lr * step.decoupled_decay) as f32, step.lr as f32, momentum as f32);
        let count = parameter.elem_count();
        let [velocity, _] = &mut self.host;
        velocity.resize(count, 0.0);
        with([gradient], |[gradient]| {
            buffer::in_place(parameter, |parameter| {
                let parts = parameter.par_chunks_mut(TASK).zip(velocity.par_chunks_mut(TASK));
                parts.zip(gradient.par_chunks(TASK)).for_each(|((w, velocity), g)| {
                    sgd_part(w, velocity, g, decay, shrink, lr, momentum, nesterov);
                });
            })
        })??;
        Ok(parameter.clone())
    }

    fn sgd_composed(
        &mut self,
        momentum: f64,
        nesterov: bool,
        step: Step,
        parameter: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let gradient = gradient.add(&(parameter * step.coupled_decay)?)?;
        let velocity = match &self.first {
            Some(velocity) => (velocity * momentum)?.add(&gradient)?,
            None => gradient.clone(),
        };
        let direction = if nesterov { gradient.add(&(&velocity * momentum)?)? } else { velocity.clone() };
        self.first = Some(velocity);
        (parameter * (1.0 - step.lr * step.decoupled_decay))?.sub(&(direction * step.lr)?)
    }

    /// AdamW (Loshchilov and Hutter, 2019), with the bias corrections of Kingma and Ba (2015).
    fn adam(&mut self, step: Step, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let correction = |beta: f64| 1.0 - beta.powi(self.steps);
        let corrections = (correction(BETAS.0), correction(BETAS.1));
        if !parameter.device().is_cpu() {
            return self.adam_composed(step, corrections, parameter, gradient);
        }
        let (decay, shrink) = (step.coupled_decay as f32, (1.0 - step.lr * step.decoupled_decay) as f32);
        let (rate, second_scale) = ((step.lr / corrections.0) as f32, (1.0 / corrections.1) as f32);
        let count = parameter.elem_count();
        let [first, second] = &mut self.host;
        first.resize(count, 0.0);
        second.resize(count, 0.0);
        let memories = first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK));
        with([gradient], |[gradient]| {
            buffer::in_place(parameter, |parameter| {
                let parts = parameter.par_chunks_mut(TASK).zip(memories);
                parts.zip(gradient.par_chunks(TASK)).for_each(|((w, (m, v)), g)| {
                    adam_part(w, m, v, g, decay, shrink, rate, second_scale);
                });
            })
        })??;
        Ok(parameter.clone())
    }

    fn adam_composed(
        &mut self,
        step: Step,
        corrections: (f64, f64),
        parameter: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let gradient = gradient.add(&(parameter * step.coupled_decay)?)?;
        let mix = |old: Option<Tensor>, new: Tensor, beta: f64| match old {
            Some(old) => (old * beta)?.add(&(new * (1.0 - beta))?),
            None => new * (1.0 - beta),
        };
        let first = mix(self.first.take(), gradient.clone(), BETAS.0)?;
        let second = mix(self.second.take(), gradient.sqr()?, BETAS.1)?;
        let scale = (&second / corrections.1)?.sqrt()?;
        let direction = (&first / corrections.0)?.div(&(scale + EPSILON)?)?;
        self.first = Some(first);
        self.second = Some(second);
        (parameter * (1.0 - step.lr * step.decoupled_decay))?.sub(&(direction * step.lr)?)
    }
}

on_every_path! {
    fn sgd_part(w: &mut [f32], velocity: &mut [f32], gradient: &[f32], decay: f32, shrink: f32, lr: f32, momentum: f32, nesterov: bool) {
        let _ = FUSED;
        for ((w, v), g) in w.iter_mut().zip(velocity).zip(gradient) {
            let g = g + decay * *w;
            *v = momentum * *v + g;
            let direction = if nesterov { g + momentum * *v } else { *v };
            *w = shrink * *w - lr * direction;
        }
    }
}

on_every_path! {
    fn adam_part(w: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], decay: f32, shrink: f32, rate: f32, second_scale: f32) {
        let _ = FUSED;
        let (beta, beta_second) = (BETAS.0 as f32, BETAS.1 as f32);
        let (rest, rest_second) = ((1.0 - BETAS.0) as f32, (1.0 - BETAS.1) as f32);
        for ((w, (m, v)), g) in w.iter_mut().zip(first.iter_mut().zip(second)).zip(gradient) {
            let g = g + decay * *w;
            *m = beta * *m + rest * g;
            *v = beta_second * *v + rest_second * g * g;
            *w = shrink * *w - rate * *m / ((*v * second_scale).sqrt() + EPSILON as f32);
        }
    }
}

/// The gradients' global norm, sqrt of the sum of all squares, and by what they are multiplied so that it is at most
/// `limit`: limit / (norm + 1e-6), as PyTorch 2's `clip_grad_norm_`.
///
/// # Errors
/// Only those of the device.
pub fn clip<'a>(gradients: impl Iterator<Item = &'a mut Tensor>, limit: f64) -> Result<f64> {
    let gradients: Vec<&mut Tensor> = gradients.collect();
    let mut squares = 0.0;
    for gradient in &gradients {
        squares += if gradient.device().is_cpu() {
            with([&**gradient], |[gradient]| gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>())?
        } else {
            f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?)
        };
    }
    let norm = squares.sqrt();
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        for gradient in gradients {
            *gradient = (&*gradient * factor)?;
        }
    }
    Ok(norm)
}
