//! What may be typed about materials: images, weight files, features, trained networks.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Answer, Asked, Format, Sheet};

/// How a dataset that is named by its path is read.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// Folder that serves as the test split; where there is none, a share of the images, such as 0.2
    #[arg(long, value_name = "FOLDER", default_value = "test")]
    pub test: String,
    /// The value that is white in images of 16 bits, such as 4095 where a camera has 12; without it 65535
    #[arg(long, value_name = "VALUE", value_parser = clap::value_parser!(u16).range(1..))]
    pub white: Option<u16>,
}

/// Weights, images, and how the images are brought before the weights.
#[derive(Clone, Debug, Args)]
pub struct Seen {
    /// A weight file, or the name of a known one
    #[arg(value_name = "WEIGHTS")]
    pub from: String,
    /// A dataset: a folder, .tar, .tar.gz, .zip, .npz or .csv
    #[arg(value_name = "DATA")]
    pub dataset: String,
    /// The architecture; without it the one of the known file, or the one that the file fits
    #[arg(long)]
    pub arch: Option<String>,
    /// Times the channels
    #[arg(long, default_value_t = 1.0)]
    pub width: f64,
    /// Side of the input in pixels
    #[arg(long)]
    pub input: Option<usize>,
    /// How inputs are prepared; it comes with known files
    #[arg(long)]
    pub preprocess: Option<String>,
    /// How images are brought to its size: crop, 'crop 0.875', stretch, or 'crop bicubic' for another filter; it comes with known files
    #[arg(long)]
    pub resize: Option<String>,
    /// How products round on a GPU: f32, tf32 or bf16
    #[arg(long, default_value = "f32")]
    pub precision: String,
    #[command(flatten)]
    pub reading: Reading,
}

/// What features are wanted.
#[derive(Clone, Debug, Args)]
pub struct Extract {
    #[command(flatten)]
    pub seen: Seen,
    /// Where to write: its ending says how
    #[arg(long, short)]
    pub out: PathBuf,
    /// The layer whose output is the feature, or several with commas between them, side by side; `features` is the last below the
    /// classifier, `early` an early one
    #[arg(long, default_value = "features", value_delimiter = ',')]
    pub tap: Vec<String>,
    /// Make a feature map a vector: flatten, avg, max, or over a grid as avg=4; without it the map itself is written
    #[arg(long)]
    pub pool: Option<String>,
    /// Which images: train, val, test or all
    #[arg(long)]
    pub part: Option<String>,
}

/// What advice is wanted on.
#[derive(Clone, Debug, Args)]
pub struct Recommend {
    #[command(flatten)]
    pub seen: Seen,
    /// Training images to look at, as many of each class; time grows with the cube
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub images: usize,
    /// Write an experiment that tests the advice; never over an existing file
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Sheet::Table)]
    pub format: Sheet,
}

/// Which weights are to be compared on which images.
#[derive(Clone, Debug, Args)]
pub struct Rank {
    /// A dataset: a folder, .tar, .tar.gz, .zip, .npz or .csv
    #[arg(value_name = "DATA")]
    pub dataset: String,
    /// Weight files, or names of known ones; FILE=ARCH or FILE=ARCH,PREPROCESS where neither the file nor the catalogue says
    #[arg(required = true, value_name = "WEIGHTS")]
    pub files: Vec<Ranked>,
    /// How inputs of files are prepared that the catalogue does not know
    #[arg(long)]
    pub preprocess: Option<String>,
    /// Side of the input in pixels, of all; without it each has its own
    #[arg(long)]
    pub input: Option<usize>,
    /// How products round on a GPU: f32, tf32 or bf16
    #[arg(long, default_value = "f32")]
    pub precision: String,
    #[command(flatten)]
    pub reading: Reading,
    /// Training images to look at, as many of each class; time grows with the cube
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub images: usize,
    /// An experiment of the store that has run these weights on these images: how well each score foresaw what it tested
    #[arg(long, value_name = "NAME")]
    pub against: Option<String>,
    /// Write an experiment that tests the order; never over an existing file
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Sheet::Table)]
    pub format: Sheet,
}

/// A weight file among others, with what it does not say itself.
#[derive(Clone, Debug)]
pub struct Ranked {
    pub name: String,
    pub arch: Option<String>,
    pub preprocess: Option<String>,
}

impl std::str::FromStr for Ranked {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What ends like a file is one, whatever stands in its name.
        let Some((name, said)) = text.rsplit_once('=').filter(|(_, said)| !said.contains('.')) else {
            return Ok(Self { name: text.to_owned(), arch: None, preprocess: None });
        };
        let (arch, preprocess) = said.split_once(',').map_or((said, None), |(arch, how)| (arch, Some(how.to_owned())));
        Ok(Self { name: name.to_owned(), arch: Some(arch.to_owned()), preprocess })
    }
}

/// What is to be answered.
#[derive(Clone, Debug, Args)]
pub struct Predict {
    /// A file that `export` wrote
    pub model: PathBuf,
    /// Image files, and folders with images at any depth
    #[arg(required = true, value_name = "IMAGES")]
    pub images: Vec<PathBuf>,
    /// So many of the likeliest classes of each image; json has all
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub top: usize,
    /// Leave open what is less sure than this, such as 0.9
    #[arg(long, value_name = "PROBABILITY")]
    pub sure: Option<f64>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Whose labels are in question.
#[derive(Clone, Debug, Args)]
pub struct LabelsOf {
    #[command(flatten)]
    pub asked: Asked,
    /// Write a page with the images
    #[arg(long, short, value_name = "PAGE")]
    pub out: Option<PathBuf>,
    /// So many of each dataset, at most; csv and json have all
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub images: usize,
    #[arg(long, value_enum, default_value_t = Format::Table, conflicts_with = "out")]
    pub format: Format,
}

/// What is to be looked at.
#[derive(Clone, Debug, Args)]
pub struct LookAt {
    /// A file that `export` wrote
    pub model: PathBuf,
    /// Image files, and folders with images at any depth
    #[arg(required = true, value_name = "IMAGES")]
    pub paths: Vec<PathBuf>,
    /// Where to write: .html is a page of pictures, .json the numbers
    #[arg(long, short, value_name = "FILE", default_value = "look.html")]
    pub out: PathBuf,
    /// So many images, evenly from all
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub images: usize,
}

#[derive(Debug, Subcommand)]
pub enum DataVerb {
    /// List the datasets that can be fetched
    List {
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Fetch a dataset, check its bytes, and lay it out under --data
    Get {
        /// A name of `data list`
        name: String,
        /// A folder on a server that has its files under their names
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum WeightsVerb {
    /// List the known weight files, and which of them are here
    List {
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Fetch a weight file, and check its bytes
    Get {
        /// A name of `weights list`, an address, or hf:OWNER/NAME of the Hugging Face hub (hf:OWNER/NAME/FILE where the file is not
        /// its model.safetensors)
        file: String,
        /// What the SHA-256 must be, or how it begins; for known files it need not be said
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// A folder on a server that has the known files under their names, or a server in the hub's place
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
    /// Show what a file is, how its tensors fit a network, or how to get it
    Inspect {
        #[command(flatten)]
        look: Look,
        #[arg(long, value_enum, default_value_t = Answer::Table)]
        format: Answer,
    },
    /// Write a file of any format as .safetensors, under the names of a framework; or what `export` wrote as .onnx
    Convert {
        #[command(flatten)]
        look: Look,
        /// Whose names and layouts: needed for .safetensors, and nothing that .onnx has
        #[arg(long, value_enum)]
        names: Option<Names>,
        /// Where to write
        #[arg(long, short)]
        out: PathBuf,
    },
}

/// A weight file, and the network to lay it beside.
#[derive(Clone, Debug, Args)]
pub struct Look {
    /// A file, or the name of a known one
    pub file: String,
    /// The architecture; without it that of the known file, or the one that the file fits
    #[arg(long)]
    pub arch: Option<String>,
    /// Times the channels
    #[arg(long, default_value_t = 1.0)]
    pub width: f64,
    /// Side of the input in pixels
    #[arg(long)]
    pub input: Option<usize>,
}

/// Whose names and layouts of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// `block1_conv1/kernel`, height x width x in x out
    Keras,
    /// `features.0.weight`, out x in x height x width
    Torch,
}
