//! The head that class names make: the classifier of CLIP's zero-shot answers (Radford et al., 2021, 3.1).

use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};

use super::predict::likeliest;
use super::{Places, kept};
use crate::exec::Network;
use crate::exec::texts::embeds;
use crate::key::{ENGINE, Key};
use crate::model::arch::Arch;
use crate::model::catalogue::identify;
use crate::model::texts::{TextSide, tokenizer};
use crate::model::vit::EMBEDS;
use crate::model::weights::Weights;
use crate::nn::activation::Activation;
use crate::nn::loss::log_probabilities;
use crate::nn::{linear, unit_norm};
use crate::plan::stage::Texts;
use crate::recipe::NAME_HERE;

/// Weights [classes, joint] and biases `[classes]`: each class at the mean of its prompts' unit vectors, made one of unit length
/// again, times what cosines are multiplied with; biases are zero.
///
/// # Errors
/// The side of texts or the tokenizer cannot be read, or is another one than the plan saw.
pub fn head(texts: &Texts, weights: &Path, arch: &str) -> anyhow::Result<[Tensor; 2]> {
    let file = tokenizer::beside(weights).map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        identify(&file)?.sha256 == texts.tokenizer,
        "the tokenizer '{}' has changed since the plan was made",
        file.display()
    );
    let side = TextSide::read(weights, arch)?;
    let said: Vec<String> = texts
        .names
        .iter()
        .flat_map(|name| texts.prompts.iter().map(move |prompt| prompt.replace(NAME_HERE, name)))
        .collect();
    let tokens = tokenizer::tokens(&file, &said, side.context())?;
    let (classes, prompts) = (texts.names.len(), texts.prompts.len());
    let found = embeds(&side, &tokens).with_context(|| format!("with the tokenizer '{}'", file.display()))?;
    let joint = found.dim(1)?;
    let rows = found.to_vec2::<f32>()?;
    let mut means = vec![0f32; classes * joint];
    for (mean, own) in means.chunks_exact_mut(joint).zip(rows.chunks_exact(prompts)) {
        own.iter().for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, number)| *mean += number / prompts as f32));
    }
    let weight =
        unit_norm::forward(&Tensor::from_vec(means, (classes, joint), &Device::Cpu)?)?.affine(side.scale, 0.0)?;
    Ok([weight, Tensor::zeros(classes, candle_core::DType::F32, &Device::Cpu)?])
}

/// The same from the cache, or made and put there: texts are read once for all trials, sweeps and workers. `sha256` is of the weights.
///
/// # Errors
/// As `head`, or the cache cannot be written.
pub fn prepared(
    texts: &Texts,
    weights: &Path,
    sha256: &str,
    arch: &str,
    places: &Places,
) -> anyhow::Result<[Tensor; 2]> {
    let path = places.head(Key::of("class names", &(ENGINE, sha256, arch, texts)));
    if let Some(head) = read(&path, texts.names.len()) {
        return Ok(head);
    }
    let [weight, bias] = head(texts, weights, arch)?;
    let folder = path.parent().context("a cache without a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
    kept::head(weight.clone(), bias.clone()).write(&path)?;
    Ok([weight, bias])
}

/// What was put into the cache; none where nothing was, or it is damaged and is to be made again.
fn read(path: &Path, classes: usize) -> Option<[Tensor; 2]> {
    let mut found = candle_core::safetensors::load(path, &Device::Cpu).ok()?;
    let [weight, bias] = kept::HEAD.map(|name| found.remove(name));
    let (weight, bias) = weight.zip(bias)?;
    (weight.rank() == 2 && weight.dims()[0] == classes && bias.dims() == [classes]).then_some([weight, bias])
}

/// The class that the head of class names answers for each row of a network's last features, [n, numbers].
///
/// # Errors
/// As `head`, or the weights do not lead to where texts are.
pub fn answers(texts: &Texts, weights: &Path, arch: &Arch, features: &Tensor) -> anyhow::Result<Vec<usize>> {
    let [weight, bias] = head(texts, weights, &arch.name)?;
    let backbone = arch.backbone(EMBEDS).map_err(anyhow::Error::msg)?;
    let cut = arch.tap(&backbone, "features").map_err(anyhow::Error::msg)?;
    let (weights, _) = Weights::load(weights, arch, EMBEDS)?;
    let way = Network::new(backbone.above(cut), &weights, &Device::Cpu)?;
    let (images, numbers) = features.dims2()?;
    let embeds = way.infer(&features.reshape((images, numbers, 1, 1))?)?.flatten_from(1)?;
    let logits = linear::forward(&embeds, &weight, &bias, Activation::Linear)?;
    Ok(log_probabilities(&logits)?.iter().map(|row| likeliest(row)).collect())
}
