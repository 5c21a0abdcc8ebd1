//! Backbones as data, and the weights that go into them.

pub mod arch;
pub mod catalogue;
mod convnext;
mod densenet;
mod efficientnet;
mod efficientnet_v2;
pub mod freezing;
pub mod graph;
mod inception;
pub mod init;
pub mod lora;
mod mobilenet;
mod op;
mod order;
mod resnet;
mod resnet_cifar;
pub mod row;
pub mod selected;
mod shape;
pub mod sketch;
mod squeezenet;
pub mod summary;
pub mod trained;
mod vgg;
pub mod vit;
pub mod weights;
