//! Runs a graph with the operators of `nn`: forward, and backward to the parameters that train. What is kept between
//! the two, and what is computed again, is decided from the graph before the first pass.

mod backward;
mod evaluate;
mod fixed;
mod forward;
mod front;
mod fusion;
mod learning;
mod mask;
mod meaning;
mod network;
mod peak;
#[cfg(feature = "cuda")]
pub mod routine;
pub mod texts;
mod value;

pub use backward::Gradients;
pub use evaluate::{AT_ONCE, Encoder, Parts};
pub use forward::{Mode, Tape};
pub use front::{Ahead, Front, OfLayers, Pending};
pub use network::Network;
pub use peak::Storage;
