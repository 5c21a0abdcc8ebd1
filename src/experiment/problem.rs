//! Problems of an experiment file: every one of them, each with its place and its cure.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// The text of one file that the experiment is made of.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: String,
    pub text: String,
}

/// A place: bytes of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

impl Spot {
    pub fn new(source: usize, span: Range<usize>) -> Self {
        Self { source, start: span.start, end: span.end }
    }
}

/// One thing that is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub spot: Option<Spot>,
    pub message: String,
    pub help: Option<String>,
}

impl Problem {
    pub fn at(spot: Spot, message: impl Into<String>) -> Self {
        Self { spot: Some(spot), message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A problem for machines. Lines and columns count from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located {
    pub file: Option<String>,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    pub help: Option<String>,
}

/// All problems of one experiment, with the texts that they point into.
#[derive(Debug)]
pub struct Problems {
    pub sources: Vec<Source>,
    pub list: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Problems {
    /// The report that a person reads, in the order of the file, with terminal colours if `styled`.
    pub fn render(&self, styled: bool) -> String {
        let ordered = self.ordered();
        let mut text = String::new();
        for problem in &ordered {
            text.push_str(&self.render_one(problem, styled));
            text.push_str("\n\n");
        }
        let noun = if ordered.len() == 1 { "problem" } else { "problems" };
        text.push_str(&format!("{} {noun}; nothing was run and nothing was changed", ordered.len()));
        text
    }

    fn ordered(&self) -> Vec<&Problem> {
        let mut ordered: Vec<&Problem> = self.list.iter().collect();
        ordered.sort_by_key(|problem| problem.spot);
        ordered.dedup();
        ordered
    }

    /// The same for machines, in the same order.
    pub fn located(&self) -> Vec<Located> {
        let one = |problem: &Problem| {
            let place = problem.spot.map(|spot| {
                let Source { path, text } = &self.sources[spot.source];
                let before = &text[..text.floor_char_boundary(spot.start)];
                let line = before.rsplit('\n').next().unwrap_or(before);
                (path.clone(), before.matches('\n').count() + 1, line.chars().count() + 1)
            });
            let (file, line, column) =
                place.map_or((None, None, None), |(path, line, column)| (Some(path), Some(line), Some(column)));
            Located { file, line, column, message: problem.message.clone(), help: problem.help.clone() }
        };
        self.ordered().into_iter().map(one).collect()
    }

    fn render_one(&self, problem: &Problem, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let title = Level::ERROR.primary_title(problem.message.as_str());
        let group = match problem.spot {
            Some(spot) => title.element(self.excerpt(spot)),
            None => title.elements(None::<Snippet<annotate_snippets::Annotation>>),
        };
        let group = match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        };
        renderer.render(&[group])
    }

    fn excerpt(&self, spot: Spot) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        let source = &self.sources[spot.source];
        let end = spot.end.min(source.text.len());
        Snippet::source(source.text.as_str())
            .path(source.path.as_str())
            .annotation(AnnotationKind::Primary.span(spot.start.min(end)..end))
    }
}
