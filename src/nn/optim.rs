//! Optimisers: SGD with momentum in PyTorch's convention, and AdamW; one state per parameter. Clipping of gradients.

use std::sync::Arc;

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

/// The steps of a network's layers: layers of one group go equally far.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Of each group.
    pub groups: Vec<Step>,
    /// Per layer, its group.
    pub of_layer: Arc<[usize]>,
}

impl Sizes {
    /// The same for all of so many layers.
    pub fn alike(step: Step, layers: usize) -> Self {
        Self { groups: vec![step], of_layer: vec![0; layers].into() }
    }

    pub fn of(&self, layer: usize) -> Step {
        self.groups[self.of_layer[layer]]
    }
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
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = parameter.device() {
            let mut waiting = super::cuda::optim::Waiting::of_lent();
            waiting.add(parameter, gradient.clone(), self.numbers(rule, step, parameter)?, None, constants())?;
            waiting.take(device, constants())?;
            return Ok(parameter.clone());
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
            device: {
                let copy = |which: usize| self.device[which].as_ref().map(Tensor::copy).transpose();
                [copy(0)?, copy(1)?]
            },
            steps: self.steps,
        })
    }

    /// One of the memories on `parameter`'s device, zero at first.
    #[cfg(feature = "cuda")]
    fn on_device(&mut self, parameter: &Tensor, which: usize) -> Result<Tensor> {
        let memory = self.device[which].take().map_or_else(|| parameter.zeros_like(), Ok)?;
        self.device[which] = Some(memory.clone());
        Ok(memory)
    }

    /// What a step is, for the kernels that step many; `part` has the shape of the parameter.
    #[cfg(feature = "cuda")]
    fn numbers(&mut self, rule: Rule, step: Step, part: &Tensor) -> Result<super::cuda::optim::HeadNumbers> {
        self.count();
        Ok((self.rates(rule, step), self.memories(rule, part)?))
    }

    /// Begins the next step.
    #[cfg(feature = "cuda")]
    pub fn count(&mut self) {
        self.steps += 1;
    }

    /// Six numbers that the kernels read of the step that has begun.
    #[cfg(feature = "cuda")]
    pub fn rates(&self, rule: Rule, step: Step) -> [f32; 6] {
        let (decay, shrink) = (step.coupled_decay as f32, (1.0 - step.lr * step.decoupled_decay) as f32);
        match rule {
            Rule::Sgd { momentum, nesterov } => {
                let shrink = 1.0 - (step.lr * step.decoupled_decay) as f32;
                [0.0, decay, shrink, step.lr as f32, momentum as f32, f32::from(u8::from(nesterov))]
            }
            Rule::Adam => {
                let corrections = [BETAS.0, BETAS.1].map(|beta| 1.0 - libm::pow(beta, f64::from(self.steps)));
                [1.0, decay, shrink, (step.lr / corrections[0]) as f32, (1.0 / corrections[1]) as f32, 0.0]
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn memories(&mut self, rule: Rule, part: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let second = if rule == Rule::Adam { Some(self.on_device(part, 1)?) } else { None };
        Ok([Some(self.on_device(part, 0)?), second])
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
        let correction = |beta: f64| 1.0 - libm::pow(beta, f64::from(self.steps));
        let corrections = (correction(BETAS.0), correction(BETAS.1));
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

/// Steps that are asked for one parameter after the other, and taken before `finish` returns: on a GPU, small ones together.
#[derive(Default)]
pub struct Steps {
    #[cfg(feature = "cuda")]
    waiting: super::cuda::optim::Waiting,
}

impl Steps {
    /// As `State::step`, the gradient's memory kept for others. The parameter has moved for certain when `finish` returns.
    ///
    /// # Errors
    /// As `State::step`.
    pub fn step(
        &mut self,
        state: &mut State,
        rule: Rule,
        step: Step,
        parameter: &Tensor,
        gradient: Tensor,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if parameter.device().is_cuda() && parameter.shape() == gradient.shape() {
            self.waiting.add(parameter, gradient, state.numbers(rule, step, parameter)?, None, constants())?;
            return Ok(parameter.clone());
        }
        let stepped = state.step(rule, step, parameter, &gradient)?;
        buffer::recycle(gradient)?;
        Ok(stepped)
    }

    /// The same on a GPU that was told the numbers of the step, `State::rates`; the state has counted it.
    ///
    /// # Errors
    /// As `State::step`.
    #[cfg(feature = "cuda")]
    pub fn step_told(
        &mut self,
        state: &mut State,
        rule: Rule,
        rates: &Tensor,
        parameter: &Tensor,
        gradient: Tensor,
    ) -> Result<()> {
        if parameter.shape() != gradient.shape() {
            candle_core::bail!("a gradient of {:?} does not fit {:?}", gradient.shape(), parameter.shape());
        }
        let own = ([0.0; 6], state.memories(rule, parameter)?);
        self.waiting.add(parameter, gradient, own, Some(rates), constants())
    }

    /// Takes what still waits.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn finish(self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(candle_core::Device::Cuda(device)) = self.waiting.device() {
            let mut waiting = self.waiting;
            waiting.take(&device, constants())?;
        }
        Ok(())
    }
}

/// What of AdamW is the same for all.
#[cfg(feature = "cuda")]
fn constants() -> [f32; 3] {
    [BETAS.0 as f32, BETAS.1 as f32, EPSILON as f32]
}

/// A step of one of several heads whose parameters lie one below the other.
pub struct HeadStep<'a> {
    pub state: &'a mut State,
    pub rule: Rule,
    pub step: Step,
}

/// One step of the heads in `parameter` [heads x out, ...], in place; those that are absent stand still. Each head's numbers
/// are those that it has alone.
///
/// # Errors
/// The shapes differ, or are not those of so many heads.
pub fn step_heads(heads: &mut [Option<HeadStep>], parameter: &Tensor, gradient: &Tensor) -> Result<()> {
    let rows = parameter.dim(0)?;
    if heads.is_empty() || !rows.is_multiple_of(heads.len()) || parameter.shape() != gradient.shape() {
        candle_core::bail!("{:?} and {:?} are not of {} heads", parameter.shape(), gradient.shape(), heads.len());
    }
    let own = rows / heads.len();
    #[cfg(feature = "cuda")]
    if parameter.device().is_cuda() {
        let part = parameter.narrow(0, 0, own)?;
        let numbers = |head: &mut Option<HeadStep>| match head {
            Some(head) => head.state.numbers(head.rule, head.step, &part),
            None => Ok(([-1.0; 6], [None, None])),
        };
        let numbers = heads.iter_mut().map(numbers).collect::<Result<Vec<_>>>()?;
        return super::cuda::optim::step_heads(&numbers, parameter, gradient, constants());
    }
    for (index, head) in heads.iter_mut().enumerate() {
        if let Some(head) = head {
            let part = |tensor: &Tensor| tensor.narrow(0, index * own, own);
            head.state.step(head.rule, head.step, &part(parameter)?, &part(gradient)?)?;
        }
    }
    Ok(())
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
    let mut all = 0.0;
    for gradient in &gradients {
        all += squares(gradient)?;
    }
    let factor = limit / (all.sqrt() + 1e-6);
    if factor < 1.0 {
        for gradient in gradients {
            *gradient = (&*gradient * factor)?;
        }
    }
    Ok(())
}

/// The sum of the squares of an f32 tensor, in f64.
///
/// # Errors
/// Only those of the device.
pub fn squares(tensor: &Tensor) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if tensor.device().is_cuda() {
        return tensor.to_dtype(candle_core::DType::F64)?.sqr()?.sum_all()?.to_scalar();
    }
    with([tensor], |[tensor]| tensor.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>())
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
