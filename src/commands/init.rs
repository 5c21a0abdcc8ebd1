//! `init [TEMPLATE]`: a commented starter file.

use std::io::Write;
use std::path::Path;

use super::{Exit, Usage, print};

/// Starters by name. A test reads and resolves each of them.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("folder", include_str!("../../experiments/templates/folder.toml")),
    ("weights", include_str!("../../experiments/templates/weights.toml")),
    ("synthetic", include_str!("../../experiments/templates/synthetic.toml")),
];

pub fn run(template: &str, output: &Path) -> anyhow::Result<Exit> {
    let names: Vec<&str> = TEMPLATES.iter().map(|(name, _)| *name).collect();
    let Some((_, text)) = TEMPLATES.iter().find(|(name, _)| *name == template) else {
        let names = names.join(", ");
        return Err(Usage(format!(
            "there is no template '{template}'; there are {names} (-o names the file to write)"
        ))
        .into());
    };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(output);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(
                Usage(format!("'{}' exists already; it is not touched (-o names another)", output.display())).into()
            );
        }
        opened => opened?,
    };
    file.write_all(text.as_bytes())?;
    print(&format!("wrote {}; edit it, then `tl-sweep check {}`", output.display(), output.display()))?;
    Ok(Exit::Complete)
}
