//! Runs a graph with the operators of `nn`: forward, and backward to the parameters that train.

mod backward;
mod forward;
mod network;

pub use backward::Gradients;
pub use forward::{Mode, Saved, Tape};
pub use network::Network;
