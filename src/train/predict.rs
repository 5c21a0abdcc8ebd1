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

/// A trained network on a device, for images of no dataset.
pub(super) struct Answerer<'a> {
    model: &'a Trained,
    pub encoder: Encoder,
    device: &'a Device,
}

impl<'a> Answerer<'a> {
    pub fn new(trained: &'a Opened, device: &'a Device) -> anyhow::Result<Self> {
        let mut network = Network::new(trained.graph.clone(), &trained.weights, device)?;
        (network.frozen, network.seam) = (trained.model.frozen, trained.model.seam);
        Ok(Self { model: &trained.model, encoder: Encoder::new(network), device })
    }

    /// Logarithms of the probabilities of squares of RGB pixels, class by class.
    pub fn answers<'b>(&self, squares: impl Iterator<Item = &'b [u8]>) -> anyhow::Result<Vec<Vec<f64>>> {
        let last = self.encoder.network.graph.last();
        match self.given(squares, &[last])?.first() {
            Some(logits) => Ok(log_probabilities(&logits.flatten_from(1)?)?),
            None => Ok(Vec::new()),
        }
    }

    /// What layers give for such squares; nothing for none.
    pub fn given<'b>(&self, squares: impl Iterator<Item = &'b [u8]>, layers: &[usize]) -> anyhow::Result<Vec<Tensor>> {
        let (mut batch, mut images) = (Vec::new(), 0);
        for square in squares {
            normalise(square, self.model.preprocess, &mut batch);
            images += 1;
        }
        if images == 0 {
            return Ok(Vec::new());
        }
        let side = self.model.arch.input;
        let x = Tensor::from_vec(batch, (images, 3, side, side), self.device)?;
        Ok(self.encoder.features(&x, layers, Parts::Alike)?)
    }
}

/// The likeliest class, the first of equals, as in a trial's scores.
pub(super) fn likeliest(log_probabilities: &[f64]) -> usize {
    (1..log_probabilities.len()).fold(
        0,
        |best, class| {
            if log_probabilities[class] > log_probabilities[best] { class } else { best }
        },
    )
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
    let answerer = Answerer::new(trained, device)?;
    let mut said = Vec::with_capacity(files.len());
    for files in files.chunks(AT_ONCE) {
        let read = loose::read(files, trained.model.frame(), trained.model.white);
        let images = read.iter().filter_map(|read| match read {
            Read::Image(image) => Some(&image.pixels[..]),
            _ => None,
        });
        let mut rows = answerer.answers(images)?.into_iter();
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
