//! Operators and their gradients on candle tensors. Each takes what it needs and returns new tensors: nothing
//! here knows of graphs, training or files. Images are [n, height, width, channels], so that vectors run along the
//! channels. On CPU the operators are our own loops; elsewhere they are composed of candle's own (`composed`), which
//! is also what the tests compare with.

pub mod activation;
pub mod buffer;
pub mod composed;
pub mod conv;
mod depthwise;
mod gemm;
pub mod join;
mod kernel;
pub mod layout;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod pool;
