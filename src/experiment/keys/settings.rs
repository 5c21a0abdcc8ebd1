//! The settings of a trial: of its backbone, of its recipe, of its training.

use super::super::accepted::{bounded, early_stop, flag, fraction, input, positive, share, text, views, width};
use super::{COUNT, FLAG, FRACTION, Group, Key, POSITIVE, TABLE, TEXT, find, key};
use crate::augmentation::Augmentation;
use crate::device::{PRECISIONS, Precision};
use crate::frame::Resize;
use crate::freeze::Freeze;
use crate::phase;
use crate::preprocess::Preprocess;
use crate::recipe::{self, Calibrate, Head, OptimizerName, Pool, Schedule};
use crate::trains::Trains;
use crate::value::Value;

pub static KEYS: &[Key] = &[
    key!(
        Backbone,
        "arch",
        "taken from known weights",
        text,
        TEXT,
        "The architecture: a name that `summary` prints, or a .toml of your own with a list of layers, beside this file."
    ),
    key!(
        Backbone,
        "weights",
        "",
        text,
        TEXT,
        "Where the backbone starts: a catalogue name, a file (.h5, .weights.h5, .keras, .safetensors, .pth), `random`, or `pretrain` for the [pretrain] table."
    ),
    key!(
        Backbone,
        "input",
        "the size of the weights, else of the arch",
        input,
        r#"{"type":"integer","minimum":8,"maximum":1024}"#,
        "Side of the square input, in pixels."
    ),
    key!(
        Backbone,
        "width",
        "taken from known weights, else 1.0",
        width,
        r#"{"type":"number","minimum":0.05,"maximum":4}"#,
        "Times the channels of every layer."
    ),
    key!(
        Backbone,
        "preprocess",
        "comes with known weights; else the usual one of the arch",
        |v| Preprocess::parse(&recipe::name(v)?).map(drop),
        r#"{"type":"string","anyOf":[{"enum":["caffe","tf","torch","clip","caffe-rgb","zero-one","none"]},{"pattern":"^mean [0-9.]+ [0-9.]+ [0-9.]+ std [0-9.]+ [0-9.]+ [0-9.]+$"}]}"#,
        "How pixels become inputs: a word, or the mean and deviation of red, green and blue that the weights want, of numbers from 0 to 1, as `mean 0.43 0.411 0.296 std 0.213 0.156 0.143`. Required for a weight file that the catalogue does not know."
    ),
    key!(
        Backbone,
        "resize",
        "comes with known weights; else crop",
        |v| Resize::parse(&recipe::name(v)?).map(drop),
        TEXT,
        "How images are brought to the input: `crop` (the middle square of the whole shorter side), `crop 0.875` (of that share of it), or `stretch` (all of the image); with `bicubic` behind it, as `crop 0.875 bicubic`, by that filter instead of the bilinear one."
    ),
    key!(
        Recipe,
        "freeze",
        "none",
        |v| Freeze::parse(v).map(drop),
        r#"{"type":["string","integer"],"minimum":0}"#,
        "Freeze depth: `none`, `all`, a layer or block (that and all before it), or N for the first N layers that `summary` prints; or `transferred`, all that `transfer` names."
    ),
    key!(
        Recipe,
        "transfer",
        "all",
        |v| Freeze::parse(v).map(drop),
        r#"{"type":["string","integer"],"minimum":1}"#,
        "How far the weights are transferred (Yosinski et al., 2014): `all`, or a depth as in `freeze`; the layers above it start at random, in each replicate otherwise, and train. Their batch norms have to be trained, and all are unless `batch_norm` says something else."
    ),
    key!(
        Recipe,
        "trains",
        "all",
        |v| Trains::parse(v).map(drop),
        r#"{"type":["string","array","object"],"items":{"type":"string"},"properties":{"lora":{"type":"integer","minimum":1},"on":{"enum":["attention","all"]}},"additionalProperties":false}"#,
        "Which of the unfrozen parameters train: `all`, `norms` (scales and shifts of batch norms and layer norms), `biases` (with the shifts of norms), a layer, a block or a list of them, or none: { lora = 8 } adds a product of rank 8 beside each dense layer that gives queries, keys and values, { lora = 8, on = \"all\" } beside every dense layer of a transformer (Hu et al., 2022), and of the backbone that alone trains. What does not train is as frozen: statistics of its batch norms stand still, it drops nothing, and what lies below all that trains is shared. The head always trains."
    ),
    key!(
        Recipe,
        "tap",
        "the last features of the arch",
        |v| recipe::tap(v).map(drop),
        r#"{"type":["string","array"],"items":{"type":"string"}}"#,
        "The layer whose output is the feature; what is above it is cut off. Of a list of layers each is pooled, and their vectors stand side by side, the lowest first; names like `layer2.last` mean the last layer of a block."
    ),
    key!(
        Recipe,
        "pool",
        "avg",
        |v| Pool::parse(v).map(drop),
        r#"{"type":["string","object"]}"#,
        "How a feature map becomes a vector: `flatten`, `avg`, `max`, or over a grid: { avg = 4 }, { max = 4 }. Of a transformer's row of tokens they pool the patches; `class` takes the class token, `class-avg` that and the patches' mean. No effect on a tap that is a vector."
    ),
    key!(
        Recipe,
        "head",
        "linear",
        |v| Head::parse(v).map(drop),
        r#"{"type":["string","object"]}"#,
        "What is trained on the features: `linear` or { mlp = [256] } with hidden widths."
    ),
    key!(
        Recipe,
        "head_start",
        "random",
        |v| recipe::word::<recipe::HeadStart>(v, recipe::HEAD_START).map(drop),
        r#"{"enum":["random","class-names","lbfgs","ridge","lda"]}"#,
        "Where a linear head starts: at random, in each replicate otherwise; with `lbfgs`, `ridge` or `lda` where that optimizer solves it on the features of the untrained network, on the path of `lambda` and without augmentation, its logits divided by the temperature that validation asks for (a probe before fine-tuning, as Kumar et al., 2022, but for its steps); or with `class-names` as CLIP's zero-shot classifier (Radford et al., 2021): each class at the mean of its `prompts` as the weights' side of texts reads them, on tap = \"image_embeds\". It needs a CLIP file with both sides (`hf:OWNER/NAME` of `weights get`) and its tokenizer.json beside it."
    ),
    key!(
        Recipe,
        "prompts",
        "[\"a photo of a {}.\"]",
        |v| recipe::prompts(v).map(drop),
        r#"{"type":"array","items":{"type":"string","pattern":"\\{\\}"},"minItems":1,"uniqueItems":true}"#,
        "What class names stand in, at {}, where head_start = \"class-names\". Class names are those of folders, `_` and `-` as spaces, or what `names` under [datasets.NAME] says. In an axis, each value is a list."
    ),
    key!(
        Recipe,
        "batch_norm",
        "frozen; affine where `trains` asks for norms or biases; train with random weights",
        |v| recipe::word::<recipe::BatchNorm>(v, recipe::BATCH_NORM).map(drop),
        r#"{"enum":["frozen","affine","train"]}"#,
        "What unfrozen batch norms do. Those of frozen layers are always frozen."
    ),
    key!(
        Recipe,
        "phases",
        "one phase",
        phases,
        r#"{"type":"array","items":{"type":"object"}}"#,
        "Legs of training, one after another, each with settings of its own: [{ freeze = \"all\", steps = 200 }, { freeze = \"none\", steps = 300 }]."
    ),
    key!(
        Recipe,
        "layer_rates",
        "even",
        |v| recipe::word::<recipe::LayerRates>(v, recipe::LAYER_RATES).map(drop),
        r#"{"enum":["even","rgn"]}"#,
        "`rgn`: the rate of each layer, the head's last ones among them, is also times the norm of its gradient over the norm of its parameters, over the largest of these ratios, measured on the first five batches of every epoch (Auto-RGN; Lee et al., 2023, by tensor)."
    ),
    key!(
        Recipe,
        "interpolate",
        "1.0",
        share,
        r#"{"type":"number","exclusiveMinimum":0,"maximum":1}"#,
        "The weights that are scored and kept lie this share of the way from where the last phase began to where it ended (WiSE-FT; Wortsman et al., 2022). Trials that differ in nothing else are trained once."
    ),
    key!(
        Train,
        "steps",
        "500, unless epochs stands",
        |v| bounded(v, 100_000_000),
        COUNT,
        "Optimiser steps. Exactly one of `steps` and `epochs`."
    ),
    key!(
        Train,
        "epochs",
        "",
        |v| bounded(v, 1_000_000),
        COUNT,
        "Passes over the training images; the last short batch is kept."
    ),
    key!(Train, "batch", "32", |v| bounded(v, 1_000_000), COUNT, "Images per step."),
    key!(
        Train,
        "optimizer",
        "sgd",
        |v| recipe::word::<OptimizerName>(v, recipe::OPTIMIZERS).map(drop),
        r#"{"enum":["sgd","adamw","lbfgs","ridge","lda","none"]}"#,
        "Stochastic gradient descent or AdamW; or, for linear heads on frozen features, solved to the end: `lbfgs`, logistic regression (mean cross-entropy + lambda/2 |W|^2), `ridge`, regression on the classes (mean square + lambda |W|^2), both with free biases, or `lda`, linear discriminant analysis (class means, and one covariance around them, shrunk: (S + lambda t I) / (1 + lambda), with t the mean variance of a feature; Friedman, 1989); or `none`: a head of head_start = \"class-names\" stays as it starts, and no image is learned from."
    ),
    key!(
        Train,
        "lr",
        "0.01",
        positive,
        POSITIVE,
        "Learning rate of the head, and of the backbone unless `backbone_lr` stands."
    ),
    key!(Train, "backbone_lr", "lr", positive, POSITIVE, "Learning rate of the unfrozen backbone."),
    key!(
        Train,
        "layer_decay",
        "1.0",
        |v| recipe::number(v, f64::MIN_POSITIVE, 1.0).map(drop),
        r#"{"type":"number","exclusiveMinimum":0,"maximum":1}"#,
        "Times `backbone_lr` for each block with parameters between a layer and the head (blocks as `summary` prints them): 0.75 makes the last block train at `backbone_lr`, the one below at 0.75 of it, the next at 0.56."
    ),
    key!(Train, "momentum", "0.9", fraction, FRACTION, "Momentum of SGD."),
    key!(Train, "nesterov", "false", flag, FLAG, "Nesterov's form of momentum."),
    key!(
        Train,
        "weight_decay",
        "0.0",
        positive,
        POSITIVE,
        "Strength of weight decay; biases and batch norms are decayed too, frozen parameters never."
    ),
    key!(
        Train,
        "decay",
        "coupled",
        |v| recipe::word::<recipe::Decay>(v, recipe::DECAY).map(drop),
        r#"{"enum":["coupled","decoupled","over-lr"]}"#,
        "What weight decay means: in the gradient, on the weights, or in the gradient over the learning rate."
    ),
    key!(
        Train,
        "start_decay",
        "0.0",
        positive,
        POSITIVE,
        "L2-SP (Li et al., 2018): the backbone is pulled back to the weights that it started from instead of to zero, with this strength in the gradient, whatever `decay` says; `weight_decay` is the head's alone then."
    ),
    key!(
        Train,
        "schedule",
        "cosine",
        |v| Schedule::parse(v).map(drop),
        r#"{"type":["string","object"]}"#,
        "`cosine`, `constant`, or { step = [0.5, 0.75], factor = 0.1 } with fractions of the budget."
    ),
    key!(Train, "warmup", "0.0", fraction, FRACTION, "Fraction of the budget with a linear rise from zero."),
    key!(Train, "label_smoothing", "0.0", fraction, FRACTION, "Share of the target spread over all classes."),
    key!(
        Train,
        "class_weights",
        "none",
        |v| recipe::word::<recipe::ClassWeights>(v, recipe::CLASS_WEIGHTS).map(drop),
        r#"{"enum":["none","balanced"]}"#,
        "How much classes count in the training loss: `none`, or `balanced`, the inverse of their number of training images. Scores are not weighted."
    ),
    key!(
        Train,
        "clip",
        "no limit",
        |v| recipe::clip(v).map(drop),
        r#"{"type":"number","exclusiveMinimum":0}"#,
        "Largest norm of all gradients of a step together; larger ones are scaled down to it (PyTorch's `clip_grad_norm_`)."
    ),
    key!(
        Train,
        "dropout",
        "0.0",
        |v| recipe::number(v, 0.0, 0.99).map(drop),
        r#"{"type":"number","minimum":0,"maximum":0.99}"#,
        "Dropout before the last layer of the head."
    ),
    key!(
        Train,
        "augment",
        "[]",
        |v| Augmentation::parse_list(v).map(drop),
        r#"{"type":"array","items":{"type":"string","pattern":"^(flip|vertical-flip|quarter-turns|rotate [0-9.e-]+|crop|resized-crop( [0-9.e-]+)?|jitter|trivial-augment|rand-augment [0-9]+ [0-9]+|erase [0-9.e-]+|mixup [0-9.e-]+|cutmix [0-9.e-]+)$"}}"#,
        "Random changes of training images, in this order: flip, vertical-flip, quarter-turns, rotate DEGREES, crop, resized-crop or resized-crop LEAST (share of the area, 0.08), jitter, trivial-augment, rand-augment OPERATIONS MAGNITUDE (2 9), erase PROBABILITY, mixup ALPHA, cutmix ALPHA (of both, each batch has one). A number stands in the word: \"mixup 0.2\"."
    ),
    key!(
        Train,
        "lambda",
        "{ log = [1e-6, 1e5], n = 45 }",
        |v| recipe::strengths(v).map(drop),
        r#"{"type":["number","array","object"]}"#,
        "Strengths of regularisation for `lbfgs`, `ridge` and `lda`, as `optimizer` or as `head_start`, in a trial of their own path, from the strongest to the weakest: validation chooses one."
    ),
    key!(
        Train,
        "views",
        "new ones in every epoch",
        views,
        r#"{"type":"integer","minimum":2}"#,
        "So many augmented views of each training image are made once and their frozen features stored; epochs take turns. It changes the results, and stands in the key and in the tables."
    ),
    key!(
        Train,
        "precision",
        "f32",
        |v| recipe::word::<Precision>(v, PRECISIONS).map(drop),
        r#"{"enum":["f32","tf32","bf16"]}"#,
        "How products round on a GPU: tf32 rounds their factors to 10 bits, bf16 keeps activations in bf16 as well; parameters, sums and optimisers stay f32. A CPU computes f32 only."
    ),
    key!(
        Train,
        "keep_weights",
        "last",
        |v| recipe::word::<recipe::KeepWeights>(v, "'last' or 'best'").map(drop),
        r#"{"enum":["last","best"]}"#,
        "Which weights are scored: of the last step, or of the best evaluation."
    ),
    key!(
        Train,
        "average",
        "0.0",
        fraction,
        FRACTION,
        "The weights that are scored and kept are the mean over the last phase's last steps, this share of them, taken at up to 16 even places, running statistics among them (stochastic weight averaging; Izmailov et al., 2018). Trials that differ in nothing else are trained once."
    ),
    key!(
        Train,
        "early_stop",
        "never",
        early_stop,
        TABLE,
        "{ patience = 3 }: stop after so many evaluations without a better validation loss."
    ),
    key!(
        Train,
        "calibrate",
        "none",
        |v| recipe::word::<Calibrate>(v, recipe::CALIBRATE).map(drop),
        r#"{"enum":["none","temperature"]}"#,
        "`temperature`: when all is trained, the logits are divided by one number, with which the log loss on validation is least (Guo et al., 2017); a prior of log T, normal with variance 1, counts as much as one image. Answers stay, probabilities change, exports hold it in their last layer. A network is trained once for trials that differ in nothing else."
    ),
];

fn phases(value: &Value) -> Result<(), String> {
    for phase in phase::phases(value)? {
        for (name, value) in phase {
            let key = find(name).ok_or_else(|| format!("a phase has no '{name}'"))?;
            (key.check)(value).map_err(|message| format!("in a phase, `{name}`: {message}"))?;
        }
    }
    Ok(())
}
