//! The mean of the weights of several steps, taken while they go by.

use candle_core::{Result, Tensor};

/// Tensors of one network or head, averaged over the steps that were added.
#[derive(Clone, Default)]
pub struct Mean {
    count: usize,
    tensors: Vec<Tensor>,
}

impl Mean {
    /// Takes the weights of one more step in: m + (w - m) / n of the n-th, in f32. Tensors that later steps change in place may
    /// be given.
    ///
    /// # Errors
    /// The tensors are not as many, or their shapes not those, of the step before.
    pub fn add(&mut self, tensors: &[&Tensor]) -> Result<()> {
        self.count += 1;
        if self.count == 1 {
            self.tensors = tensors.iter().map(|tensor| tensor.copy()).collect::<Result<_>>()?;
            return Ok(());
        }
        if tensors.len() != self.tensors.len() {
            candle_core::bail!("{} tensors after {}", tensors.len(), self.tensors.len());
        }
        let part = 1.0 / self.count as f64;
        for (mean, tensor) in self.tensors.iter_mut().zip(tensors) {
            // A new tensor: a lane that was forked has the old one.
            *mean = (((*tensor - &*mean)? * part)? + &*mean)?;
        }
        Ok(())
    }

    pub fn tensors(self) -> Vec<Tensor> {
        self.tensors
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_mean_is_the_sum_over_the_number_and_holds_nothing_that_changes_later() -> Result<()> {
        let of = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu);
        let mut mean = Mean::default();
        mean.add(&[&of(&[1.0, -4.0])?, &of(&[0.5])?])?;
        let before = mean.clone();
        mean.add(&[&of(&[2.0, 0.0])?, &of(&[1.5])?])?;
        mean.add(&[&of(&[6.0, 1.0])?, &of(&[4.0])?])?;
        let found: Vec<Vec<f32>> = mean.tensors().iter().map(|one| one.to_vec1()).collect::<Result<_>>()?;
        assert_eq!(found, [vec![3.0, -1.0], vec![2.0]]);
        assert_eq!(before.tensors()[0].to_vec1::<f32>()?, [1.0, -4.0]);
        Ok(())
    }
}
