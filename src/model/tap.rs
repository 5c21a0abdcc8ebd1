//! Where a network is tapped: from the word that names a layer to the network up to it.

use super::arch::{Arch, Family, family};
use super::graph::{Activation, Graph, Op};
use super::vit;
use crate::recipe::AND;
use crate::spelling::nearest;

impl Arch {
    /// The whole network, as `graph` gives it, for whoever taps it there: the images' side of a network that has seen texts has more
    /// layers below its classifier where these are asked for.
    ///
    /// # Errors
    /// As `graph`, or the network has never seen texts.
    pub fn graph_of(&self, tap: &str, classes: usize) -> Result<Graph, String> {
        let graph = self.graph(classes)?;
        if self.own.is_some() || !tap.split(AND).any(|name| name == vit::EMBEDS) {
            return Ok(graph);
        }
        let Some(vit) = vit::named(&self.name) else {
            return Err(format!("{} has no '{}', which networks that have seen texts have", self.name, vit::EMBEDS));
        };
        let mut joined = graph.truncate(self.layer(&graph, "features")?);
        vit.join(&mut joined, self.width)?;
        joined.then("top", vit.head(), Op::Linear { out: classes, activation: Activation::Linear });
        Ok(joined)
    }

    /// The layer that a tap names, or the highest of several.
    ///
    /// # Errors
    /// As `taps`.
    pub fn tap(&self, graph: &Graph, tap: &str) -> Result<usize, String> {
        let taps = self.taps(graph, tap)?;
        taps.last().copied().ok_or_else(|| "a tap names a layer".to_owned())
    }

    /// The indices of the layers that a tap names, in their order: a layer, `features`, `early` or `no_top`, or several of them.
    ///
    /// # Errors
    /// The network has no such layer; says which is nearest.
    fn taps(&self, graph: &Graph, tap: &str) -> Result<Vec<usize>, String> {
        let mut found = tap.split(AND).map(|name| self.layer(graph, name)).collect::<Result<Vec<_>, _>>()?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn layer(&self, graph: &Graph, tap: &str) -> Result<usize, String> {
        let family = family(&self.name);
        let known = |of: fn(&Family) -> &'static str| family.as_ref().map(of).map(str::to_owned);
        let name = match (tap, &self.own) {
            ("features" | "no_top", Some(own)) => Some(own.features.clone()),
            ("early", Some(own)) => Some(own.early.clone().unwrap_or_else(|| own.features.clone())),
            ("features", None) => known(|family| family.features),
            ("early", None) => known(|family| family.early),
            ("no_top", None) => known(|family| family.no_top),
            (name, _) => Some(name.to_owned()),
        };
        let name = name.ok_or_else(|| format!("there is no architecture '{}'", self.name))?;
        let index = match name.strip_suffix(".last") {
            Some(block) => graph.layers.iter().rposition(|layer| layer.block == block),
            None => graph.find(&name),
        };
        match index {
            Some(index) if matches!(graph.layers[index].op, Op::Input) => Err("the tap is the input itself".to_owned()),
            Some(index) => Ok(index),
            None => {
                let hint = match graph.layers.iter().any(|layer| layer.block == name) {
                    true => format!("; of the block of that name '{name}.last' is the last one"),
                    false => {
                        let embeds = vit::reads_texts(&self.name).then_some(vit::EMBEDS);
                        let near = nearest(&name, graph.layers.iter().map(|layer| layer.name.as_str()).chain(embeds));
                        near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
                    }
                };
                Err(format!("{} has no layer '{name}'{hint} (`tl-sweep summary {}` lists them)", graph.arch, self.name))
            }
        }
    }

    /// The network up to a tap, or up to the highest of several, which it knows.
    ///
    /// # Errors
    /// As `graph`; a tap that names no layer, or one of several that is not below the highest, or is computed as one with the
    /// layer behind it.
    pub fn backbone(&self, tap: &str) -> Result<Graph, String> {
        let graph = self.graph_of(tap, 10)?;
        let taps = self.taps(&graph, tap)?;
        let highest = self.tap(&graph, tap)?;
        let mut backbone = graph.truncate(highest);
        for index in taps.into_iter().filter(|index| *index != highest) {
            let name = &graph.layers[index].name;
            let Some(own) = backbone.find(name) else {
                let highest = &graph.layers[highest].name;
                return Err(format!("'{name}' is not below '{highest}': taps stand one above the other"));
            };
            if let Some(reader) = backbone.absorber(own) {
                let reader = &backbone.layers[reader].name;
                return Err(format!(
                    "'{name}' is computed as one with '{reader}', which alone reads it: tap '{reader}' instead"
                ));
            }
            backbone.taps.push(own);
        }
        Ok(backbone)
    }

    /// What `backbone` gives of a tap below the source's classifier: that names other classes, and its weights are not taken over.
    ///
    /// # Errors
    /// As `backbone`, or the tap is not below it.
    pub fn features(&self, tap: &str) -> Result<Graph, String> {
        let backbone = self.backbone(tap)?;
        // Of another number of source classes nothing below the classifier changes its shape.
        let [one, other] = [10, 11].map(|classes| self.graph_of(tap, classes));
        let (one, other) = (one?, other?);
        let changed = one.layers.iter().zip(&other.layers).find(|(one, other)| one.shape != other.shape);
        match changed.filter(|(classifier, _)| backbone.find(&classifier.name).is_some()) {
            None => Ok(backbone),
            Some((classifier, _)) => Err(format!(
                "'{}' says which of the source's classes an image shows, and a head of your own takes its place: tap a layer below it",
                classifier.name
            )),
        }
    }
}
