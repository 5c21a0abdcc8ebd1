//! Backbones as data, and the weights that go into them.

pub mod arch;
pub mod catalogue;
pub mod freezing;
pub mod graph;
pub mod init;
mod mobilenet;
mod resnet_cifar;
mod squeezenet;
pub mod summary;
mod vgg;
pub mod weights;
