//! `weights get`, `data get` and `data list`: public weights and datasets, fetched, checked and put where they are looked up.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::download::{Expected, REFUSED, fetch, hash_by_word};
use super::gc::megabytes;
use super::hub::{self, OfHub, of_hub};
use super::hub_config::{Said, Told};
use super::{Exit, Usage, data, materials, print, print_json, table_style};
use crate::cli::{Answer, Common, Reading};
use crate::data::known::{KNOWN, Known, Remote};
use crate::data::open::named;
use crate::data::unpack::lay_out;
use crate::frame::Resize;
use crate::model::arch::{Arch, family, prepares_images};
use crate::model::catalogue::{self, identify};
use crate::model::texts::{self, tokenizer};
use crate::model::vit;
use crate::model::weights::file::WeightFile;
use crate::model::weights::placing::Change;
use crate::model::weights::{fit, recognised};
use crate::report::table::table;

/// Behind what is usual, where a model says something else.
const NO_WORD: &str = "    # usual; for what the hub says there is no word here";

/// Fetches a known weight file, or one by its address.
///
/// # Errors
/// There is none of that name, another file has its place, or it cannot be fetched.
pub fn weights(what: &str, sha256: Option<&str>, from: Option<&str>, common: &Common) -> anyhow::Result<Exit> {
    let folder = materials::folder(common);
    let asked = sha256.map(digits).transpose()?;
    let hub = of_hub(what, &from.map_or_else(hub::server, str::to_owned))?;
    let model = hub.clone();
    let is_of_hub = hub.is_some();
    // A server that was named in the hub's place is not told who asks.
    let token = if is_of_hub && from.is_none() { hub::token()? } else { None };
    let token = token.as_deref();
    let (url, name, expected) = match (what.contains("://"), from) {
        _ if let Some(OfHub { url, name, .. }) = hub => {
            let expected = if folder.join(&name).exists() { None } else { hash_by_word(&url, token) };
            (url, name, expected.map_or(Expected::Unknown, Expected::Sha256))
        }
        (true, Some(_)) => {
            return Err(Usage("--from is for known files: an address says where it is".to_owned()).into());
        }
        (true, None) => (what.to_owned(), last_of(what)?, Expected::Unknown),
        (false, _) => {
            let known = known_weights(what, &folder)?;
            let name = format!("{}{}", known.name, known.ending);
            let url = from.map(|from| at(from, &name)).or_else(|| known.url());
            (url.ok_or_else(|| Usage(unpublished(known)))?, name, Expected::of(known.hash))
        }
    };
    let expected = asked.map_or(expected, Expected::Sha256);
    let to = folder.join(name);
    if to.exists() {
        let found = identify(&to)?;
        if let Some(wrong) = expected.differs(&found) {
            return Err(Usage(format!("'{}' is another file: {wrong}. It is not touched", to.display())).into());
        }
        print(&format!("'{}' is here already: sha256 {}", to.display(), found.sha256))?;
        model.map_or(Ok(()), |model| with_tokenizer(&model, &to, token, common.quiet))?;
        return Ok(Exit::Complete);
    }
    let found = fetch(&url, token, &to, &expected, common.quiet).map_err(|error| {
        let said = format!("{error:#}");
        let refused = said.split_once(REFUSED).map(|(_, status)| status);
        // Whom a server in the hub's place lets in is for it to say.
        let of_hub = refused.filter(|status| is_of_hub && (from.is_none() || status.starts_with("404")));
        let hint = of_hub.map_or_else(String::new, |status| hub::hint(what, status, token.is_some()));
        anyhow::anyhow!("{said}{hint}\nfetched in another way and put at '{}', it is used from there", to.display())
    })?;
    if let Err(error) = WeightFile::open(&to) {
        std::fs::remove_file(&to).with_context(|| format!("cannot remove '{}'", to.display()))?;
        return Err(Usage(format!("{url} holds no weights: {error:#}. Nothing was kept")).into());
    }
    print(&format!("'{}': {}, sha256 {}", to.display(), megabytes(found.bytes), found.sha256))?;
    if matches!(expected, Expected::Unknown) {
        let none = if is_of_hub { "the hub did not say its hash" } else { "no hash of it is published" };
        print(&format!("{none}: with --sha256 another machine can make sure that it gets the same bytes"))?;
    }
    match found.known {
        Some(known) => print(&format!("known as {}: weights = \"{}\" under [backbone]", known.name, known.name))?,
        None => print(&how_to_use(&to, model.as_ref().and_then(|model| model.told(token)))?)?,
    }
    model.map_or(Ok(()), |model| with_tokenizer(&model, &to, token, common.quiet))?;
    Ok(Exit::Complete)
}

/// Fetches the tokenizer of weights that have a side of texts, too, so that class names can be read.
fn with_tokenizer(model: &OfHub, weights: &Path, token: Option<&str>, quiet: bool) -> anyhow::Result<()> {
    let (Ok(vocabulary), Err(_)) = (texts::vocabulary(weights), tokenizer::beside(weights)) else { return Ok(()) };
    let to = tokenizer::own_place(weights);
    let fetched = fetch(&model.tokenizer(), token, &to, &Expected::Unknown, quiet);
    let fetched = fetched.and_then(|found| match tokenizer::check(&to, vocabulary) {
        Ok(()) => Ok(found),
        Err(error) => {
            std::fs::remove_file(&to).with_context(|| format!("cannot remove '{}'", to.display()))?;
            Err(error)
        }
    });
    match fetched {
        Ok(found) => print(&format!(
            "'{}': its tokenizer, sha256 {}. With its side of texts the recipe \"zero-shot\" and head_start = \"class-names\" can be had",
            to.display(),
            found.sha256
        )),
        Err(error) => print(&format!(
            "it has a side of texts and no tokenizer to read class names with ({error:#}); one that is put at '{}' is used",
            to.display()
        )),
    }
}

/// What an experiment must say of a file that the catalogue does not know; of images what its model says on the hub, else what is
/// usual.
fn how_to_use(file: &Path, told: Option<(&str, Told)>) -> anyhow::Result<String> {
    let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let not = "not in the catalogue: an experiment must say `arch` and `preprocess` under [backbone]";
    let weights = WeightFile::open(file)?;
    let Some(arch) = recognised(&weights) else {
        return Ok(format!("{not}; it fits none of the known architectures"));
    };
    let mut lines = vec![format!("weights = \"{name}\""), format!("arch = \"{}\"", arch.name)];
    if let Some(twin) = vit::twin(&arch.name) {
        lines[1].push_str(&format!("    # OpenAI's; \"{twin}\" are LAION's, DataComp's and others"));
    }
    lines.extend((arch.width != 1.0).then(|| format!("width = {}", arch.width)));
    let (whose, told) = told.unzip();
    let told = told.unwrap_or_default();
    lines.extend(image_lines(&weights, &arch, told)?);
    let said = match whose {
        Some(name) => {
            format!("what is said of images is what {name} says on the hub, and else what is usual for this network")
        }
        None => "what is said of images is what is usual for this network: its authors say how theirs come before it"
            .to_owned(),
    };
    Ok(format!("{not}, such as\n\n[backbone]\n{}\n\n{said}", lines.join("\n")))
}

/// The lines of how images come before a network.
fn image_lines(weights: &WeightFile, arch: &Arch, told: Told) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let vit = vit::named(&arch.name);
    let grid = fit(weights, arch, "features")?.found.placed.iter().find_map(|placed| match placed.change {
        Change::Stretched(grids, _) if grids.from != grids.to => Some(grids.from),
        _ => None,
    });
    // Whole patches only.
    let whole = |side: usize| vit.map_or(side, |vit| (side / vit.patch).max(1) * vit.patch);
    match (told.input, vit.zip(grid)) {
        (Some(input), _) if whole(input) != arch.input => lines.push(format!("input = {}", whole(input))),
        (None, Some((vit, side))) => {
            let (input, own) = (arch.input, side * vit.patch);
            lines.push(format!("input = {input}    # its own positions are those of {own} pixels"));
        }
        _ => {}
    }
    let others = vit
        .and_then(|vit| vit.others())
        .map_or_else(String::new, |(other, whose)| format!("    # \"{other}\" for {whose}"));
    let usual = family(&arch.name).map(|family| family.preprocess.to_string());
    lines.extend(match told.preprocess {
        Said::This(own) if !prepares_images(&arch.name) => Some(format!("preprocess = \"{own}\"")),
        Said::This(_) | Said::Nothing => usual.map(|own| format!("preprocess = \"{own}\"{others}")),
        Said::Else => usual.map(|own| format!("preprocess = \"{own}\"{NO_WORD}")),
    });
    let usual = vit.map_or(Resize::WHOLE, |vit| vit.resize());
    lines.extend(match told.resize {
        Said::This(own) => Some(format!("resize = \"{own}\"")),
        Said::Nothing => vit.map(|_| format!("resize = \"{usual}\"")),
        Said::Else => Some(format!("resize = \"{usual}\"{NO_WORD}")),
    });
    Ok(lines)
}

/// Fetches a known dataset and lays it out.
///
/// # Errors
/// There is none of that name, or it cannot be fetched, unpacked or read.
pub fn dataset(name: &str, from: Option<&str>, common: &Common) -> anyhow::Result<Exit> {
    let known = KNOWN.iter().find(|known| known.name == name).ok_or_else(|| {
        let near = crate::spelling::nearest(name, KNOWN.iter().map(|known| known.name));
        let near = near.map_or_else(|| ";".to_owned(), |near| format!("; did you mean '{near}'?"));
        Usage(format!("no dataset '{name}' is known{near} `tl-sweep data list` lists those that can be fetched"))
    })?;
    let folder = common.data.clone().unwrap_or_else(|| PathBuf::from("."));
    let place = folder.join(name);
    if let Some(here) = named(&folder, name) {
        print(&format!("'{}' is here already; `tl-sweep data` looks at it", here.display()))?;
        return Ok(Exit::Complete);
    }
    let work = folder.join(format!("{name}.part"));
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make the folder '{}'", work.display()))?;
    let lock = File::create(work.join("lock"))?;
    anyhow::ensure!(lock.try_lock().is_ok(), "another process is fetching '{}'", place.display());
    let files: anyhow::Result<Vec<PathBuf>> =
        known.files.iter().map(|remote| file(remote, &work, from, common)).collect();
    let files = files.map_err(|error| {
        anyhow::anyhow!(
            "{error:#}\nwhat has come is kept in '{}'; files that are put there by hand are used, too",
            work.display()
        )
    })?;
    let ready = lay_out(&files, known.layout, &work).with_context(|| format!("in the dataset '{name}'"))?;
    let test = if !ready.join("test").is_dir() && ready.join("val").is_dir() { "val" } else { "test" };
    let reading = Reading { test: test.to_owned(), white: None };
    let dataset = data::opened(&ready.display().to_string(), &reading, common)?;
    // Before its files are moved away from where they were found.
    data::show(&dataset)?;
    std::fs::rename(&ready, &place).with_context(|| format!("cannot move it to '{}'", place.display()))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove '{}'", work.display()))?;
    let splits = if test == "test" { "" } else { "\nsplits = { test = \"val\" }" };
    print(&format!(
        "{}\nit is at '{}'; in an experiment:\n\n[datasets.{name}]\npath = \"{name}\"{splits}",
        known.about,
        place.display()
    ))?;
    Ok(Exit::Complete)
}

/// Lists the datasets that can be fetched.
///
/// # Errors
/// Nothing can be printed.
pub fn list(format: Answer, common: &Common) -> anyhow::Result<Exit> {
    let folder = common.data.clone().unwrap_or_else(|| PathBuf::from("."));
    if format == Answer::Json {
        let one = |known: &Known| {
            serde_json::json!({
                "dataset": known.name, "about": known.about, "bytes": known.bytes(),
                "here": named(&folder, known.name).map(|path| path.display().to_string()),
            })
        };
        let all: Vec<serde_json::Value> = KNOWN.iter().map(one).collect();
        print_json(&serde_json::json!({"version": 1, "folder": folder.display().to_string(), "datasets": all}))?;
        return Ok(Exit::Complete);
    }
    let row = |known: &Known| {
        let size = known.bytes().map_or_else(|| "not published".to_owned(), megabytes);
        let here = if named(&folder, known.name).is_some() { "here" } else { "" };
        vec![known.name.to_owned(), size, here.to_owned(), known.about.to_owned()]
    };
    let rows: Vec<Vec<String>> = KNOWN.iter().map(row).collect();
    print(&table(table_style(), &["dataset", "download", "", "what it is"], &rows))?;
    print(&format!("`tl-sweep data get NAME` puts one into '{}' (--data names another folder)", folder.display()))?;
    Ok(Exit::Complete)
}

/// What a person may do about a dataset that is not there, if it is one that can be fetched.
pub fn how_to_get_dataset(path: &str, folder: &Path) -> Option<String> {
    let known = KNOWN.iter().find(|known| known.name == path)?;
    Some(format!("`tl-sweep data get {} --data '{}'` fetches it", known.name, folder.display()))
}

/// A file of a dataset in `work`; what an interrupted call has finished is not fetched again.
fn file(remote: &Remote, work: &Path, from: Option<&str>, common: &Common) -> anyhow::Result<PathBuf> {
    let name = last_of(remote.url)?;
    let to = work.join(&name);
    let expected = remote.sha256.map_or(Expected::Unknown, |digits| Expected::Sha256(digits.to_owned()));
    if remote.sha256.is_some() && to.exists() && expected.differs(&identify(&to)?).is_none() {
        return Ok(to);
    }
    let url = from.map_or_else(|| remote.url.to_owned(), |from| at(from, &name));
    if !common.quiet {
        eprintln!("fetching {url}");
    }
    let found = fetch(&url, None, &to, &expected, common.quiet)?;
    if remote.sha256.is_none() {
        print(&format!("{url}: sha256 {}; none is published", found.sha256))?;
    }
    Ok(to)
}

fn known_weights(name: &str, folder: &Path) -> anyhow::Result<&'static catalogue::Known> {
    let is = |known: &&catalogue::Known| known.name == name || format!("{}{}", known.name, known.ending) == name;
    catalogue::KNOWN.iter().find(is).ok_or_else(|| {
        Usage(format!("no weights '{name}' are known: {}", materials::how_to_get_weights(name, folder))).into()
    })
}

/// Of a file that was converted from one that is published.
fn unpublished(known: &catalogue::Known) -> String {
    let original = catalogue::KNOWN
        .iter()
        .find(|other| other.url().is_some() && known.lineage.contains(&format!("{}{}", other.name, other.ending)));
    let cure = original.map_or_else(String::new, |original| {
        format!("; `tl-sweep weights get {}` fetches the file that it was converted from", original.name)
    });
    format!(
        "{}{} is published nowhere as it is (--from URL names a server that has it){cure}",
        known.name, known.ending
    )
}

fn at(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// The file name in an address.
fn last_of(url: &str) -> anyhow::Result<String> {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let name = path.split_once('/').map_or("", |(_, path)| path).rsplit('/').next().unwrap_or("");
    anyhow::ensure!(
        !name.is_empty() && !name.starts_with('.'),
        Usage(format!("the address {url} does not end with the name of a file"))
    );
    Ok(name.to_owned())
}

fn digits(text: &str) -> anyhow::Result<String> {
    let fine = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    anyhow::ensure!(fine, Usage(format!("--sha256 {text}: 8 to 64 hexadecimal digits")));
    Ok(text.to_ascii_lowercase())
}
