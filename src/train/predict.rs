//! Answers of a trained network to images of no dataset, batch by batch.

use candle_core::{Device, Tensor};

use crate::data::batch::normalise;
use crate::data::loose::{self, Loose, Read};
use crate::exec::{AT_ONCE, Encoder, Network, Parts};
use crate::key::Key;
use crate::model::trained::{Opened, Trained};
use crate::nn::loss::log_probabilities;

/// What is said of a file.
pub enum Said {
    Answer {
        /// Logarithms of the probabilities, class by class.
        log_probabilities: Vec<f64>,
        content: Key,
    },
    /// It is no image, and was not named itself.
    Other,
    /// Why there is no answer.
    Broken(String),
}

/// Answers to files, in their order. On a CPU an answer has the bits that it has in the trial.
///
/// # Errors
/// The device has failed.
pub fn predict(
    trained: &Opened,
    files: &[Loose],
    device: &Device,
    tell: &mut (dyn FnMut(usize) + Send),
) -> anyhow::Result<Vec<Said>> {
    let model = &trained.model;
    let mut network = Network::new(trained.graph.clone(), &trained.weights, device)?;
    network.frozen = model.frozen;
    let encoder = Encoder::new(network);
    let mut said = Vec::with_capacity(files.len());
    for files in files.chunks(AT_ONCE) {
        let read = loose::read(files, model.frame());
        let mut rows = answers(model, &encoder, &read, device)?.into_iter();
        said.extend(read.into_iter().map(|read| match read {
            Read::Image(image) => match rows.next() {
                Some(log_probabilities) => Said::Answer { log_probabilities, content: image.content },
                None => Said::Broken("the network gave no answer".to_owned()),
            },
            Read::Other => Said::Other,
            Read::Broken(reason) => Said::Broken(reason),
        }));
        tell(said.len());
    }
    Ok(said)
}

fn answers(model: &Trained, encoder: &Encoder, read: &[Read], device: &Device) -> anyhow::Result<Vec<Vec<f64>>> {
    let (mut batch, mut images) = (Vec::new(), 0);
    for read in read {
        if let Read::Image(image) = read {
            normalise(&image.pixels, model.preprocess, &mut batch);
            images += 1;
        }
    }
    if images == 0 {
        return Ok(Vec::new());
    }
    let side = model.arch.input;
    let x = Tensor::from_vec(batch, (images, 3, side, side), device)?;
    let graph = &encoder.network.graph;
    let logits = encoder.features(&x, &[graph.last()], Parts::Alike)?.remove(0);
    Ok(log_probabilities(&logits.flatten_from(1)?)?)
}
