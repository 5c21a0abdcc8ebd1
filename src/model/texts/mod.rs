//! CLIP's side of texts (Radford et al., 2021): its tensors, from files of open_clip (3.3), which has OpenAI's names, or of Hugging
//! Face's transformers (5.24).

pub mod tokenizer;

use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};

use super::graph::Activation;
use super::vit::quick;
use super::weights::file::WeightFile;

/// Of all layer norms.
pub const EPS: f64 = 1e-5;
/// Numbers of a token that one head attends with, in all of them.
const DEPTH: usize = 64;
/// Tokens of an empty text: its beginning and its end.
const LEAST: usize = 2;
/// What a cosine is multiplied with at most (Radford et al., 2.4).
const MOST: f64 = 100.0;

/// A side of texts. Dense layers have weights [out, in].
pub struct TextSide {
    /// [vocabulary, width].
    pub tokens: Tensor,
    /// [context, width].
    pub positions: Tensor,
    pub blocks: Vec<Block>,
    pub norm: [Tensor; 2],
    /// To where images are, [joint, width], without a bias.
    pub projection: Tensor,
    pub heads: usize,
    pub activation: Activation,
    /// What cosines of images and texts are multiplied with.
    pub scale: f64,
}

/// Weights and biases of a block.
pub struct Block {
    pub norms: [[Tensor; 2]; 2],
    /// To queries, keys and values side by side.
    pub qkv: [Tensor; 2],
    pub out: [Tensor; 2],
    pub wide: [Tensor; 2],
    pub narrow: [Tensor; 2],
}

/// What a block's layers are called: norms, the way out of attention, the two dense layers.
struct Names {
    /// Before the number of a block.
    block: &'static str,
    parts: [&'static str; 5],
    tokens: &'static str,
    positions: &'static str,
    norm: &'static str,
}

const OPENAI: Names = Names {
    block: "transformer.resblocks.",
    parts: ["ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"],
    tokens: "token_embedding.weight",
    positions: "positional_embedding",
    norm: "ln_final",
};

const HUB: Names = Names {
    block: "text_model.encoder.layers.",
    parts: ["layer_norm1", "layer_norm2", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"],
    tokens: "text_model.embeddings.token_embedding.weight",
    positions: "text_model.embeddings.position_embedding.weight",
    norm: "text_model.final_layer_norm",
};

/// How many tokens the side of texts of a weight file knows.
///
/// # Errors
/// The file cannot be read, or has no such side; says what has.
pub fn vocabulary(path: &Path) -> anyhow::Result<usize> {
    let file = WeightFile::open(path)?;
    let tokens = Reader::new(&file)?.names.tokens;
    let stored = file.stored.iter().find(|stored| stored.name == tokens);
    stored.and_then(|stored| stored.shape.first().copied()).context("a vocabulary without a size")
}

impl TextSide {
    /// Reads it from the file of a network that is called `arch`.
    ///
    /// # Errors
    /// The file has none, or not all of it.
    pub fn read(path: &Path, arch: &str) -> anyhow::Result<Self> {
        let file = WeightFile::open(path)?;
        let reader = Reader::new(&file)?;
        let tokens = reader.tensor(reader.names.tokens)?;
        let width = tokens.dim(1)?;
        anyhow::ensure!(
            width.is_multiple_of(DEPTH),
            "the texts of '{}' are {width} wide, no multiple of {DEPTH}",
            file.shown
        );
        let positions = reader.tensor(reader.names.positions)?;
        let context = positions.dim(0)?;
        anyhow::ensure!(context > LEAST, "the texts of '{}' have room for {context} tokens", file.shown);
        let blocks = (0..).take_while(|number| reader.has(&reader.of_block(*number, 0, "weight")));
        let blocks = blocks.map(|number| reader.block(number)).collect::<anyhow::Result<Vec<Block>>>()?;
        let projection = match reader.is_hub {
            true => reader.tensor("text_projection.weight")?,
            // A matrix from the left.
            false => reader.tensor("text_projection")?.t()?.contiguous()?,
        };
        let scale = reader.tensor("logit_scale")?.flatten_all()?.to_vec1::<f32>()?;
        let scale = scale.first().copied().context("an empty `logit_scale`")?;
        Ok(Self {
            positions,
            blocks,
            norm: reader.pair(reader.names.norm)?,
            projection,
            heads: width / DEPTH,
            activation: if quick(arch) { Activation::QuickGelu } else { Activation::Gelu },
            scale: libm::exp(f64::from(scale)).min(MOST),
            tokens,
        })
    }

    /// Tokens of a text, at most.
    pub fn context(&self) -> usize {
        self.positions.dims()[0]
    }
}

struct Reader<'a> {
    file: &'a WeightFile,
    names: &'static Names,
    is_hub: bool,
}

impl<'a> Reader<'a> {
    fn new(file: &'a WeightFile) -> anyhow::Result<Self> {
        let has = |name: &str| file.stored.iter().any(|stored| stored.name == name);
        let names = [&OPENAI, &HUB].into_iter().find(|names| has(names.tokens)).with_context(|| {
            format!(
                "'{}' has no side of texts, which class names are read with: files of Hugging Face's CLIPModel and of open_clip have both",
                file.shown
            )
        })?;
        Ok(Self { file, names, is_hub: std::ptr::eq(names, &HUB) })
    }

    fn has(&self, name: &str) -> bool {
        self.file.stored.iter().any(|stored| stored.name == name)
    }

    fn tensor(&self, name: &str) -> anyhow::Result<Tensor> {
        let index = self.file.stored.iter().position(|stored| stored.name == name);
        let index = index.with_context(|| format!("'{}' has no '{name}', a part of its texts", self.file.shown))?;
        let values = self.file.load(index)?;
        anyhow::ensure!(
            values.iter().all(|value| value.is_finite()),
            "'{name}' in '{}' holds NaN or infinity",
            self.file.shown
        );
        Ok(Tensor::from_vec(values, self.file.stored[index].shape.as_slice(), &Device::Cpu)?)
    }

    /// A layer's weight and bias.
    fn pair(&self, layer: &str) -> anyhow::Result<[Tensor; 2]> {
        Ok([self.tensor(&format!("{layer}.weight"))?, self.tensor(&format!("{layer}.bias"))?])
    }

    fn of_block(&self, number: usize, part: usize, param: &str) -> String {
        format!("{}{number}.{}.{param}", self.names.block, self.names.parts[part])
    }

    fn block(&self, number: usize) -> anyhow::Result<Block> {
        let pair = |part: usize| {
            Ok::<_, anyhow::Error>([
                self.tensor(&self.of_block(number, part, "weight"))?,
                self.tensor(&self.of_block(number, part, "bias"))?,
            ])
        };
        let base = format!("{}{number}.", self.names.block);
        let qkv = |param: &str| match self.is_hub {
            false => self.tensor(&format!("{base}attn.in_proj_{param}")),
            true => {
                let part = |letter| self.tensor(&format!("{base}self_attn.{letter}_proj.{param}"));
                let parts = ["q", "k", "v"].map(part).into_iter().collect::<anyhow::Result<Vec<Tensor>>>()?;
                Ok(Tensor::cat(&parts, 0)?)
            }
        };
        Ok(Block {
            norms: [pair(0)?, pair(1)?],
            qkv: [qkv("weight")?, qkv("bias")?],
            out: pair(2)?,
            wide: pair(3)?,
            narrow: pair(4)?,
        })
    }
}
