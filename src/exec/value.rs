//! Tensors of a pass. When the last reader of one lets go of it, its memory is kept for the next pass.

use std::ops::Deref;
use std::rc::Rc;

use candle_core::{Result, Tensor};

use crate::nn::buffer;

/// A tensor, or a view of one, that others may share.
#[derive(Clone)]
pub struct Value {
    view: Tensor,
    owner: Rc<Owner>,
}

struct Owner(Option<Tensor>);

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(tensor) = self.0.take() {
            // Memory that cannot be kept is freed like any other.
            let _ = buffer::recycle(tensor);
        }
    }
}

impl Value {
    /// A tensor that an operator has made for this pass, and that nobody else holds.
    pub fn new(tensor: Tensor) -> Self {
        Self { view: tensor.clone(), owner: Rc::new(Owner(Some(tensor))) }
    }

    /// A tensor of somebody else's.
    pub fn borrowed(tensor: &Tensor) -> Self {
        Self { view: tensor.clone(), owner: Rc::new(Owner(None)) }
    }

    /// The same numbers in another shape.
    pub fn reshaped(&self, shape: impl Into<candle_core::Shape>) -> Result<Self> {
        Ok(Self { view: self.view.reshape(shape.into())?, owner: self.owner.clone() })
    }
}

impl Deref for Value {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.view
    }
}
