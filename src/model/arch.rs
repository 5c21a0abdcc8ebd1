//! The architectures by name, and those of a person's own file.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::graph::{Framework, Graph, Op};
use super::sketch::Sketch;
use super::{
    convnext, densenet, efficientnet, efficientnet_v2, inception, mobilenet, mobilenet_v3, regnet, resnet,
    resnet_cifar, resnet_v2, squeezenet, swin, vgg, vit, xception,
};
use crate::preprocess::Preprocess;

/// What decides a backbone's graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arch {
    pub name: String,
    pub input: usize,
    /// Times the channels.
    pub width: f64,
    /// The network of a person's own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Box<Sketch>>,
}

/// Facts about an architecture that the graph itself does not say.
pub struct Family {
    pub default_input: usize,
    pub least_input: usize,
    /// The tap where nothing else is asked for: the last features below the classifier.
    pub features: &'static str,
    /// An early tap, for targets far from the source.
    pub early: &'static str,
    /// The last layer of Keras' `include_top=False`; elsewhere the last feature map.
    pub no_top: &'static str,
    pub preprocess: Preprocess,
}

/// What `summary` and messages list.
pub static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let more = [
        resnet::WIDER,
        resnet_v2::NAMES,
        regnet::NAMES,
        efficientnet_v2::NAMES,
        efficientnet_v2::KERAS,
        mobilenet_v3::NAMES,
        convnext::NAMES,
        swin::NAMES,
        vit::NAMES,
    ];
    CONVOLUTIONAL.iter().chain(more.into_iter().flatten()).copied().collect()
});

const CONVOLUTIONAL: &[&str] = &[
    "vgg16",
    "vgg19",
    "inception_v3",
    "inception_v3_torchvision",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet50_torchvision",
    "resnet101",
    "resnet101_torchvision",
    "resnet152",
    "resnet152_torchvision",
    "densenet121",
    "densenet121_torchvision",
    "densenet169",
    "densenet169_torchvision",
    "densenet201",
    "densenet201_torchvision",
    "efficientnet_b0",
    "efficientnet_b0_torchvision",
    "efficientnet_b1",
    "efficientnet_b1_torchvision",
    "efficientnet_b2",
    "efficientnet_b2_torchvision",
    "efficientnet_b3",
    "efficientnet_b3_torchvision",
    "efficientnet_b4",
    "efficientnet_b4_torchvision",
    "efficientnet_b5",
    "efficientnet_b5_torchvision",
    "efficientnet_b6",
    "efficientnet_b6_torchvision",
    "efficientnet_b7",
    "efficientnet_b7_torchvision",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v2_torchvision",
    "mobilenet_v2_tf",
    "squeezenet1_0",
    "xception",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "vgg_small",
];

/// The family of an architecture.
pub fn family(name: &str) -> Option<Family> {
    use Preprocess::{Caffe, None as Bytes, Tf, Torch};
    let family = |inputs: [usize; 2], [features, early, no_top]: [&'static str; 3], preprocess| Family {
        default_input: inputs[0],
        least_input: inputs[1],
        features,
        early,
        no_top,
        preprocess,
    };
    if let Some((series, number, framework)) = series(name) {
        let side = efficientnet::scaling(number).map_or(224, |scaling| scaling.side);
        return Some(match (series, framework) {
            (Series::CifarResnet, _) => family([32, 8], ["avgpool", "layer1.last", "layer3.last"], Torch),
            (Series::Resnet, Framework::Keras) => family([224, 32], ["avg_pool", "conv2.last", "conv5.last"], Caffe),
            (Series::Resnet, Framework::Torch) => family([224, 32], ["avgpool", "layer1.last", "layer4.last"], Torch),
            (Series::Densenet, Framework::Keras) => family([224, 32], ["avg_pool", "pool2_pool", "relu"], Torch),
            (Series::Densenet, Framework::Torch) => {
                family([224, 32], ["avgpool", "features.transition1.pool", "relu"], Torch)
            }
            (Series::Efficientnet, Framework::Keras) => {
                family([side, 32], ["avg_pool", "block3.last", "top_activation"], Bytes)
            }
            (Series::Efficientnet, Framework::Torch) => {
                family([side, 32], ["avgpool", "features.3.last", "features.8.last"], Torch)
            }
        });
    }
    if let Some(vit) = vit::named(name) {
        return Some(family([224, vit.patch], vit.taps(), vit.preprocess()));
    }
    if resnet::wider(name).is_some() {
        return Some(family([224, 32], ["avgpool", "layer1.last", "layer4.last"], Torch));
    }
    if resnet_v2::NAMES.contains(&name) {
        return Some(family([224, 32], ["avg_pool", "conv2.last", "post_relu"], Tf));
    }
    if let Some(side) = efficientnet_v2::side_of_keras(name) {
        return Some(family([side, 32], ["avg_pool", "block3.last", "top_activation"], Bytes));
    }
    if let Some((side, no_top)) = efficientnet_v2::facts(name) {
        let preprocess = if name == "efficientnet_v2_l" { Tf } else { Torch };
        return Some(family([side, 32], ["avgpool", "features.3.last", no_top], preprocess));
    }
    if let Some(taps) = mobilenet_v3::taps(name) {
        return Some(family([224, 32], taps, Torch));
    }
    if regnet::NAMES.contains(&name) {
        let taps = ["avgpool", "trunk_output.block2.last", "trunk_output.block4.last"];
        return Some(family([224, 32], taps, Torch));
    }
    if convnext::NAMES.contains(&name) {
        return Some(family([224, 32], ["classifier.0", "features.3.last", "features.7.last"], Torch));
    }
    if swin::is_one(name) {
        return Some(family([swin::side(name), 32], ["avgpool", "features.3.last", "norm"], Torch));
    }
    Some(match name {
        "vgg_small" => family([32, 8], ["fc1", "block2_pool", "block3_pool"], Torch),
        "vgg16" | "vgg19" => family([224, 32], ["block5_pool", "block2_pool", "block5_pool"], Caffe),
        "inception_v3" => family([299, 75], ["avg_pool", "mixed2", "mixed10"], Tf),
        "inception_v3_torchvision" => family([299, 75], ["avgpool", "Mixed_5d.cat", "Mixed_7c.cat"], Tf),
        "xception" => family([299, 71], ["avg_pool", "block3.last", "block14_sepconv2_act"], Tf),
        "mobilenet_v1" => family([224, 32], ["global_average_pooling2d", "conv_pw_5_relu", "conv_pw_13_relu"], Tf),
        "mobilenet_v2" => family([224, 32], ["global_average_pooling2d", "block_5_add", "out_relu"], Tf),
        "mobilenet_v2_torchvision" => family([224, 32], ["avgpool", "features.6.add", "features.18.2"], Torch),
        "mobilenet_v2_tf" => family([224, 32], ["avgpool", "features.6.add", "features.18.2"], Tf),
        "squeezenet1_0" => family([224, 32], ["features.12.concat", "features.5.concat", "features.12.concat"], Torch),
        _ => return None,
    })
}

/// Whether an architecture begins with layers that prepare images.
pub fn prepares_images(name: &str) -> bool {
    family(name).is_some_and(|family| family.preprocess == Preprocess::None)
}

/// Architectures that differ by a number in their names.
#[derive(Clone, Copy)]
enum Series {
    CifarResnet,
    Resnet,
    Densenet,
    Efficientnet,
}

/// The series, number and framework that a listed name means.
fn series(name: &str) -> Option<(Series, usize, Framework)> {
    let base = name.strip_suffix("_torchvision").unwrap_or(name);
    let mut framework = if base == name { Framework::Keras } else { Framework::Torch };
    let prefixes =
        [("resnet", Series::Resnet), ("densenet", Series::Densenet), ("efficientnet_b", Series::Efficientnet)];
    let found = prefixes.iter().find_map(|(prefix, series)| Some((*series, base.strip_prefix(prefix)?)));
    let (mut series, number) = found.filter(|_| NAMES.contains(&name))?;
    let number = number.parse().ok()?;
    if matches!(series, Series::Resnet) && !matches!(number, 50 | 101 | 152) {
        // Keras has none of these; of 18 and 34 layers is torchvision's.
        framework = Framework::Torch;
        series = if matches!(number, 18 | 34) { Series::Resnet } else { Series::CifarResnet };
    }
    Some((series, number, framework))
}

impl Arch {
    /// An architecture by its name.
    pub fn new(name: &str, input: usize, width: f64) -> Self {
        Self { name: name.to_owned(), input, width, own: None }
    }

    /// The whole network with its original classifier of `classes` outputs.
    ///
    /// # Errors
    /// The name is unknown, or the input too small for the network.
    pub fn graph(&self, classes: usize) -> Result<Graph, String> {
        let graph = match &self.own {
            Some(own) => own.graph(self.input, classes).map_err(|(_, message)| format!("{}: {message}", self.name))?,
            None => self.built_in(classes)?,
        };
        let scales = ["mobilenet", "efficientnet", "convnext", "swin_", "vit_", "dinov", "clip_", "siglip_"];
        let scales = scales.iter().any(|own| self.name.starts_with(own));
        let scales_itself = self.own.is_none() && scales;
        if self.width == 1.0 || scales_itself {
            return Ok(graph);
        }
        let thin = graph.thinned(self.width);
        let whole = |index: usize| match thin.layers[index].op {
            Op::Conv { groups, out, .. } => thin.input_shape(index)[0] % groups == 0 && out % groups == 0,
            _ => true,
        };
        match (0..thin.layers.len()).all(whole) {
            true => Ok(thin),
            false => {
                Err(format!("{} has groups of channels, which width = {} does not leave whole", self.name, self.width))
            }
        }
    }

    fn built_in(&self, classes: usize) -> Result<Graph, String> {
        let input = [3, self.input, self.input];
        let unknown = || format!("there is no architecture '{}'; there are {}", self.name, NAMES.join(", "));
        let least = family(&self.name).ok_or_else(unknown)?.least_input;
        if self.input < least {
            return Err(format!("{} needs an input of at least {least} pixels", self.name));
        }
        if let Some((series, number, framework)) = series(&self.name) {
            let (arch, width) = (&self.name, self.width);
            let graph = match (series, framework) {
                (Series::CifarResnet, _) => Some(resnet_cifar::resnet(number, input, classes)),
                (Series::Resnet, Framework::Keras) => resnet::keras(number, input, classes),
                (Series::Resnet, Framework::Torch) => {
                    resnet::torchvision(arch, number, resnet::Inner::PLAIN, input, classes)
                }
                (Series::Densenet, Framework::Keras) => densenet::keras(number, input, classes),
                (Series::Densenet, Framework::Torch) => densenet::torchvision(arch, number, input, classes),
                (Series::Efficientnet, Framework::Keras) => efficientnet::keras(number, width, input, classes),
                (Series::Efficientnet, Framework::Torch) => {
                    efficientnet::torchvision(arch, number, width, input, classes)
                }
            };
            return graph.ok_or_else(unknown);
        }
        if let Some(vit) = vit::named(&self.name) {
            return vit.graph(&self.name, self.width, input, classes);
        }
        if let Some((depth, inner)) = resnet::wider(&self.name) {
            return resnet::torchvision(&self.name, depth, inner, input, classes).ok_or_else(unknown);
        }
        if let Some(graph) = resnet_v2::keras(&self.name, input, classes) {
            return Ok(graph);
        }
        if let Some(graph) = efficientnet_v2::keras(&self.name, self.width, input, classes) {
            return Ok(graph);
        }
        if let Some(graph) = efficientnet_v2::torchvision(&self.name, self.width, input, classes) {
            return Ok(graph);
        }
        if let Some(graph) = mobilenet_v3::graph(&self.name, self.width, input, classes) {
            return Ok(graph);
        }
        if let Some(graph) = regnet::torchvision(&self.name, input, classes) {
            return Ok(graph);
        }
        if let Some(graph) = convnext::torchvision(&self.name, self.width, input, classes) {
            return Ok(graph);
        }
        if let Some(graph) = swin::torchvision(&self.name, self.width, input, classes) {
            return Ok(graph);
        }
        let torch_v2 = |pad| mobilenet::v2_torchvision(&self.name, pad, self.width, input, classes);
        Ok(match self.name.as_str() {
            "vgg_small" => vgg::small(input, classes),
            "vgg16" => vgg::keras("vgg16", [2, 2, 3, 3, 3], input, classes),
            "vgg19" => vgg::keras("vgg19", [2, 2, 4, 4, 4], input, classes),
            "inception_v3" => inception::keras(input, classes),
            "inception_v3_torchvision" => inception::torchvision(input, classes),
            "mobilenet_v1" => mobilenet::v1(self.width, input, classes),
            "mobilenet_v2" => mobilenet::v2(self.width, input, classes),
            "mobilenet_v2_torchvision" => torch_v2(mobilenet::Pad::Torch),
            "mobilenet_v2_tf" => torch_v2(mobilenet::Pad::Tensorflow),
            "squeezenet1_0" => squeezenet::v1_0(input, classes),
            "xception" => xception::keras(input, classes),
            _ => return Err(unknown()),
        })
    }
}
