//! Linear heads on one tap, trained together: one read of the features and one product for all of them at each step. Each
//! head's sums run as they run alone, so its bits are the same.

use candle_core::{DType, Result, Tensor};

use super::course::{Course, Now, targets};
use super::descent::{rule, step};
use super::lane::read_all;
use super::mean::Mean;
use super::record::History;
use crate::nn::loss::{Labels, Means, Targets, cross_entropies};
use crate::nn::optim::{HeadStep, State, all_finite, clip, step_heads};
use crate::nn::{linear, numbers};
use crate::outcome::Ending;

pub struct Bank {
    /// The heads' weights one below the other: [heads x classes, inputs], and their biases.
    weight: Tensor,
    bias: Tensor,
    classes: usize,
    pub heads: Vec<Head>,
    /// Losses of steps that the device has not told yet.
    owed: Vec<Means>,
}

pub struct Head {
    pub history: History,
    /// Its patience is over.
    pub stops: bool,
    states: [State; 2],
    best: Option<(f64, [Tensor; 2])>,
    /// Of what it is at the end of its course.
    mean: Option<Mean>,
}

/// What a head does at a step.
pub struct Turn<'a> {
    pub course: &'a Course,
    pub now: Now,
}

impl Bank {
    /// Heads that start from `params`: weights [classes, inputs] and biases `[classes]`.
    ///
    /// # Errors
    /// The shapes differ.
    pub fn new(params: &[[Tensor; 2]], histories: Vec<History>) -> Result<Self> {
        let head = |history| Head { history, stops: false, states: Default::default(), best: None, mean: None };
        let (weight, bias) = stacked(params)?;
        let classes = params[0][1].elem_count();
        Ok(Self { weight, bias, classes, heads: histories.into_iter().map(head).collect(), owed: Vec::new() })
    }

    /// Multiply-accumulates of one head for one row.
    pub fn macs(&self) -> f64 {
        self.weight.elem_count() as f64 / self.heads.len() as f64
    }

    /// The logits of all heads side by side for features [n, inputs, 1, 1].
    ///
    /// # Errors
    /// The features have another size.
    pub fn infer(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.flatten_from(1)?.to_dtype(numbers(x.device()))?;
        linear::heads_forward(&x, &self.weight, &self.bias)?.to_dtype(DType::F32)
    }

    /// One step of every head on the same rows, each with its own settings; `balanced` is for those that balance classes.
    ///
    /// # Errors
    /// The shapes do not fit, or a label is beyond the classes.
    pub fn learn(&mut self, x: &Tensor, labels: Labels, balanced: &[f64], turns: &[Turn]) -> Result<()> {
        // Rounded where a network on the same features rounds.
        let x = x.flatten_from(1)?.to_dtype(numbers(x.device()))?;
        let logits = linear::heads_forward(&x, &self.weight, &self.bias)?.to_dtype(DType::F32)?;
        let targets: Vec<Targets> = turns.iter().map(|turn| targets(turn.course.phase(0), balanced)).collect();
        let (losses, dy) = cross_entropies(&logits, labels, &targets)?;
        let gradients = linear::heads_backward(&x, &dy.to_dtype(x.dtype())?, self.heads.len())?;
        let known = match losses {
            Means::Known(losses) => Some(losses),
            owed => {
                self.owed.push(owed);
                None
            }
        };
        let mut going = vec![true; self.heads.len()];
        for ((head, going), loss) in self.heads.iter_mut().zip(&mut going).zip(known.into_iter().flatten()) {
            head.history.record.step(loss);
            *going = loss.is_finite();
        }
        let gradients = self.clipped(gradients, turns, &going)?;
        for (which, (param, gradient)) in [&self.weight, &self.bias].into_iter().zip(&gradients).enumerate() {
            let step = |((head, turn), going): ((_, &Turn), &bool)| {
                let head: &mut Head = head;
                let (phase, state) = (turn.course.phase(0), &mut head.states[which]);
                going.then(|| HeadStep { state, rule: rule(phase), step: step(phase, &turn.now, None) })
            };
            let mut heads: Vec<Option<HeadStep>> = self.heads.iter_mut().zip(turns).zip(&going).map(step).collect();
            // The numbers change where they lie, in the memory of all heads.
            step_heads(&mut heads, param, gradient)?;
        }
        Ok(())
    }

    /// The gradients of all heads, those of heads that clip clipped.
    fn clipped(&self, gradients: [Tensor; 2], turns: &[Turn], going: &[bool]) -> Result<[Tensor; 2]> {
        if turns.iter().all(|turn| turn.course.phase(0).clip.is_none()) {
            return Ok(gradients);
        }
        let mut parts: [Vec<Tensor>; 2] = Default::default();
        for (index, turn) in turns.iter().enumerate() {
            let own = |tensor: &Tensor| tensor.narrow(0, index * self.classes, self.classes)?.copy();
            let mut own = [own(&gradients[0])?, own(&gradients[1])?];
            if let Some(limit) = turn.course.phase(0).clip.filter(|_| going[index]) {
                clip(own.iter_mut(), limit)?;
            }
            parts.iter_mut().zip(own).for_each(|(parts, own)| parts.push(own));
        }
        let [weights, biases] = parts.each_ref().map(|parts| Tensor::cat(parts, 0));
        Ok([weights?, biases?])
    }

    /// Notes the losses that the device still owes, of each head up to the first that is not finite.
    ///
    /// # Errors
    /// The device has failed.
    pub fn settle(&mut self) -> Result<()> {
        for losses in read_all(&mut self.owed)? {
            for (head, loss) in self.heads.iter_mut().zip(losses) {
                if head.history.record.ending != Ending::Diverged {
                    head.history.record.step(loss);
                }
            }
        }
        Ok(())
    }

    /// Keeps what a head has now, if `score` is the best so far; whether it is.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn keep_best(&mut self, index: usize, score: f64) -> Result<bool> {
        let better = self.heads[index].best.as_ref().is_none_or(|(best, _)| score > *best);
        if better {
            let params = self.params(index)?;
            self.heads[index].best = Some((score, params));
        }
        Ok(better)
    }

    /// Takes what a head has now into its mean. What it had was scored, and the mean is not.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn average(&mut self, index: usize) -> Result<()> {
        let [weight, bias] = &self.params(index)?;
        let head = &mut self.heads[index];
        head.mean.get_or_insert_default().add(&[weight, bias])
    }

    /// What a head has now: weights [classes, inputs] and biases `[classes]`.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn params(&self, index: usize) -> Result<[Tensor; 2]> {
        let own = |tensor: &Tensor| tensor.narrow(0, index * self.classes, self.classes)?.copy();
        Ok([own(&self.weight)?, own(&self.bias)?])
    }

    /// Divides the logits of each head by its temperature, if it has one.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn cool(&mut self, temperatures: &[Option<f64>]) -> Result<()> {
        let mut all = Vec::new();
        for (index, temperature) in temperatures.iter().enumerate() {
            let mut params = self.params(index)?;
            if let Some(temperature) = *temperature {
                for param in &mut params {
                    *param = param.affine(1.0 / temperature, 0.0)?;
                }
                self.heads[index].history.cooled(temperature);
            }
            all.push(params);
        }
        (self.weight, self.bias) = stacked(&all)?;
        Ok(())
    }

    /// Takes heads out into a bank of their own, with the weights that are to be scored; the others stay as they are.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn take(&mut self, which: impl Fn(&Head) -> bool) -> Result<Option<Self>> {
        if !self.heads.iter().any(&which) {
            return Ok(None);
        }
        self.settle()?;
        let params = (0..self.heads.len()).map(|index| self.params(index)).collect::<Result<Vec<_>>>()?;
        let mut parts: [(Vec<[Tensor; 2]>, Vec<Head>); 2] = Default::default();
        for (params, mut head) in params.into_iter().zip(std::mem::take(&mut self.heads)) {
            let gone = which(&head);
            let params = if gone { head.scored()?.unwrap_or(params) } else { params };
            let part = &mut parts[usize::from(gone)];
            part.0.push(params);
            part.1.push(head);
        }
        let [left, gone] = parts;
        if !left.0.is_empty() {
            (self.weight, self.bias) = stacked(&left.0)?;
            self.heads = left.1;
        }
        let (weight, bias) = stacked(&gone.0)?;
        Ok(Some(Self { weight, bias, classes: self.classes, heads: gone.1, owed: Vec::new() }))
    }

    /// Marks the heads whose numbers are not all finite.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn check(&mut self) -> Result<()> {
        for index in 0..self.heads.len() {
            let [weight, bias] = &self.params(index)?;
            if !all_finite(&[weight, bias])? {
                self.heads[index].history.record.ending = Ending::Diverged;
            }
        }
        Ok(())
    }
}

impl Head {
    /// What it is scored with, where that is not what it has in the end.
    ///
    /// # Errors
    /// Its mean is not of weights and biases: a bug.
    fn scored(&mut self) -> Result<Option<[Tensor; 2]>> {
        if let Some((_, best)) = self.best.take() {
            return Ok(Some(best));
        }
        let Some(mean) = self.mean.take() else { return Ok(None) };
        match <[Tensor; 2]>::try_from(mean.tensors()) {
            Ok(params) => Ok(Some(params)),
            Err(tensors) => candle_core::bail!("the mean of a head has {} tensors", tensors.len()),
        }
    }
}

fn stacked(params: &[[Tensor; 2]]) -> Result<(Tensor, Tensor)> {
    let part = |which: usize| Tensor::cat(&params.iter().map(|own| &own[which]).collect::<Vec<_>>(), 0);
    Ok((part(0)?, part(1)?))
}
