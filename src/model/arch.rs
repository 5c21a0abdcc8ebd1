//! The architectures by name.

use serde::{Deserialize, Serialize};

use super::graph::{Graph, Op};
use super::{mobilenet, resnet_cifar, squeezenet, vgg};
use crate::recipe::Preprocess;
use crate::spelling::nearest;

/// What decides a backbone's graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arch {
    pub name: String,
    pub input: usize,
    pub width: f64,
}

/// Facts about an architecture that the graph itself does not say.
pub struct Family {
    pub default_input: usize,
    pub has_width: bool,
    /// The tap where nothing else is asked for: the last features below the classifier.
    pub features: &'static str,
    /// An early tap, for targets far from the source.
    pub early: &'static str,
    pub preprocess: Preprocess,
}

/// What `summary` and messages list.
pub const NAMES: &[&str] = &[
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "vgg_small",
    "mobilenet_v1",
    "mobilenet_v2",
    "squeezenet1_0",
];

/// The family of an architecture.
pub fn family(name: &str) -> Option<Family> {
    let family = |default_input, has_width, features, early, preprocess| Family {
        default_input,
        has_width,
        features,
        early,
        preprocess,
    };
    Some(match name {
        _ if resnet_depth(name).is_some() => family(32, false, "avgpool", "layer1.last", Preprocess::Torch),
        "vgg_small" => family(32, false, "fc1", "block2_pool", Preprocess::Torch),
        "mobilenet_v1" => family(224, true, "global_average_pooling2d", "conv_pw_5_relu", Preprocess::Tf),
        "mobilenet_v2" => family(224, true, "avgpool", "features.6.add", Preprocess::Tf),
        "squeezenet1_0" => family(224, false, "features.12.concat", "features.5.concat", Preprocess::Torch),
        _ => return None,
    })
}

/// The depth of a CIFAR ResNet's name, if it is 6n + 2 and listed.
fn resnet_depth(name: &str) -> Option<usize> {
    NAMES.contains(&name).then(|| name.strip_prefix("resnet")?.parse().ok())?
}

impl Arch {
    /// The whole network with its original classifier of `classes` outputs.
    ///
    /// # Errors
    /// The name is unknown, or the input too small for the network.
    pub fn graph(&self, classes: usize) -> Result<Graph, String> {
        let input = [3, self.input, self.input];
        let least = if self.name == "squeezenet1_0" { 32 } else { 8 };
        if self.input < least {
            return Err(format!("{} needs an input of at least {least} pixels", self.name));
        }
        match (self.name.as_str(), resnet_depth(&self.name)) {
            (_, Some(depth)) => Ok(resnet_cifar::resnet(depth, input, classes)),
            ("vgg_small", _) => Ok(vgg::small(input, classes)),
            ("mobilenet_v1", _) => Ok(mobilenet::v1(self.width, input, classes)),
            ("mobilenet_v2", _) => Ok(mobilenet::v2(self.width, input, classes)),
            ("squeezenet1_0", _) => Ok(squeezenet::v1_0(input, classes)),
            _ => Err(format!("there is no architecture '{}'; there are {}", self.name, NAMES.join(", "))),
        }
    }

    /// The network up to a tap: a layer by name, `features` or `early`.
    ///
    /// # Errors
    /// As `graph`, or the backbone has no such layer.
    pub fn backbone(&self, tap: &str) -> Result<Graph, String> {
        let graph = self.graph(10)?;
        let family = family(&self.name).ok_or_else(|| format!("there is no architecture '{}'", self.name))?;
        let name = match tap {
            "features" => family.features,
            "early" => family.early,
            name => name,
        };
        let index = match name.strip_suffix(".last") {
            Some(block) => graph.layers.iter().rposition(|layer| layer.block == block),
            None => graph.find(name),
        };
        match index {
            Some(index) if matches!(graph.layers[index].op, Op::Input) => Err("the tap is the input itself".to_owned()),
            Some(index) => Ok(graph.truncate(index)),
            None => {
                let near = nearest(name, graph.layers.iter().map(|layer| layer.name.as_str()));
                let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
                Err(format!("{} has no layer '{name}'{hint} (`tl-sweep summary {}` lists them)", self.name, self.name))
            }
        }
    }
}
