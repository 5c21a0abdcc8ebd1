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
#[derive(Debug, Default)]
pub struct State {
    /// On CPU.
    host: [Vec<f32>; 2],
    /// On a CUDA device.
    #[cfg(feature = "cuda")]
    device: [Option<Tensor>; 2],
    steps: i32,
}

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// Numbers of one task.
const TASK: usize = 16_384;

impl State {
    /// The parameter after one step. It is the same memory: nobody else may read the old numbers.
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

    /// A copy in memory of its own.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn own(&self) -> Result<Self> {
        Ok(Self {
            host: self.host.clone(),
            #[cfg(feature = "cuda")]
            device: match &self.device {
                [Some(first), Some(second)] => [Some(first.copy()?), Some(second.copy()?)],
                _ => [None, None],
            },
            steps: self.steps,
        })
    }

    /// The memory of `parameter`'s device, zero at first.
    #[cfg(feature = "cuda")]
    fn on_device(&mut self, parameter: &Tensor) -> Result<[&Tensor; 2]> {
        for memory in &mut self.device {
            if memory.is_none() {
                *memory = Some(parameter.zeros_like()?);
            }
        }
        match &self.device {
            [Some(first), Some(second)] => Ok([first, second]),
            _ => candle_core::bail!("an optimiser without memory"),
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
        let (decay, shrink, lr, momentum) =
            (step.coupled_decay as f32, 1.0 - (step.lr * step.decoupled_decay) as f32, step.lr as f32, momentum as f32);
        #[cfg(feature = "cuda")]
        if parameter.device().is_cuda() {
            let [velocity, _] = self.on_device(parameter)?;
            super::cuda::optim::sgd(parameter, velocity, gradient, [decay, shrink, lr, momentum], nesterov)?;
            return Ok(parameter.clone());
        }
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

    /// AdamW (Loshchilov and Hutter, 2019), with the bias corrections of Kingma and Ba (2015).
    fn adam(&mut self, step: Step, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let correction = |beta: f64| 1.0 - beta.powi(self.steps);
        let corrections = (correction(BETAS.0), correction(BETAS.1));
        let (decay, shrink) = (step.coupled_decay as f32, (1.0 - step.lr * step.decoupled_decay) as f32);
        let (rate, second_scale) = ((step.lr / corrections.0) as f32, (1.0 / corrections.1) as f32);
        #[cfg(feature = "cuda")]
        if parameter.device().is_cuda() {
            let (beta, beta_second) = (BETAS.0 as f32, BETAS.1 as f32);
            let numbers = [decay, shrink, rate, second_scale, beta, beta_second, EPSILON as f32];
            super::cuda::optim::adam(parameter, self.on_device(parameter)?, gradient, numbers)?;
            return Ok(parameter.clone());
        }
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

/// Scales gradients so that their global norm, sqrt of the sum of all squares, is at most `limit`: by limit / (norm + 1e-6)
/// where that is less than 1, as PyTorch 2's `clip_grad_norm_`.
///
/// # Errors
/// Only those of the device.
pub fn clip<'a>(gradients: impl Iterator<Item = &'a mut Tensor>, limit: f64) -> Result<()> {
    let gradients: Vec<&mut Tensor> = gradients.collect();
    #[cfg(feature = "cuda")]
    if gradients.first().is_some_and(|gradient| gradient.device().is_cuda()) {
        return super::cuda::optim::clip(&gradients, limit);
    }
    let mut squares = 0.0;
    for gradient in &gradients {
        squares +=
            with([&**gradient], |[gradient]| gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>())?;
    }
    let factor = limit / (squares.sqrt() + 1e-6);
    if factor < 1.0 {
        for gradient in gradients {
            *gradient = (&*gradient * factor)?;
        }
    }
    Ok(())
}

/// Whether all numbers of f32 tensors are finite.
///
/// # Errors
/// Only those of the device.
pub fn all_finite(tensors: &[&Tensor]) -> Result<bool> {
    #[cfg(feature = "cuda")]
    if tensors.first().is_some_and(|tensor| tensor.device().is_cuda()) {
        return super::cuda::optim::all_finite(tensors);
    }
    for tensor in tensors {
        if !tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}
