//! One file from the network to its place: interrupted ones go on where they stopped, and only the right bytes stay.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ureq::RequestBuilder;
use ureq::config::RedirectAuthHeaders;
use ureq::typestate::WithoutBody;

use crate::model::catalogue::{Hash, Identity, identify};

/// So often a transfer that brings nothing more is begun again.
const TRIES: u32 = 4;

const AGENT: &str = concat!("tl-sweep/", env!("CARGO_PKG_VERSION"));

/// Before the status of a server that will not give a file.
pub const REFUSED: &str = "the server answers ";

/// A server that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Bytes of a small file, at most.
const SMALL: u64 = 1 << 20;

/// What the bytes must be.
pub enum Expected {
    /// Or its first digits.
    Sha256(String),
    Md5(String),
    /// Nothing is published.
    Unknown,
}

impl Expected {
    pub fn of(hash: Hash) -> Self {
        match hash {
            Hash::Sha256(digits) | Hash::Sha256Prefix(digits) => Self::Sha256(digits.to_owned()),
            Hash::Md5(digits) => Self::Md5(digits.to_owned()),
            Hash::Unpublished => Self::Unknown,
        }
    }

    /// What is wrong with a file, if anything is.
    pub fn differs(&self, found: &Identity) -> Option<String> {
        match self {
            Self::Sha256(digits) if !found.sha256.starts_with(digits.as_str()) => {
                Some(format!("its SHA-256 is {}, and not {digits}", found.sha256))
            }
            Self::Md5(digits) if found.md5 != *digits => Some(format!("its MD5 is {}, and not {digits}", found.md5)),
            _ => None,
        }
    }
}

/// How a transfer ended that has not brought the whole file.
enum Broken {
    /// It may go on.
    Off(String),
    /// It will not.
    Refused(String),
}

/// Fetches `url` to `to`, by way of `to.part`, which stays where the network fails and something was published to check it by:
/// the next call goes on behind it. The `token` says who asks; no other server than the one that is asked first sees it.
///
/// # Errors
/// The network or the server fails four times without a byte between, another process fetches the same, the bytes are not what
/// was published, or the disk cannot take them.
pub fn fetch(url: &str, token: Option<&str>, to: &Path, expected: &Expected, quiet: bool) -> anyhow::Result<Identity> {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
    }
    let shown = || format!("cannot write '{}'", part.display());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&part).with_context(shown)?;
    // The other process may have ended, and what was opened may be what it has moved to its place.
    if file.try_lock().is_err() || std::fs::metadata(&part).ok().map(|own| own.ino()) != Some(file.metadata()?.ino()) {
        anyhow::bail!("another process is fetching '{}'", to.display());
    }
    // Nothing would tell bytes of two versions that were put together.
    let resume = !matches!(expected, Expected::Unknown);
    let bar = bar(quiet);
    let done = transfer(url, token, &mut file, resume, &bar);
    bar.finish_and_clear();
    if let Err(error) = done {
        if !resume || file.metadata()?.len() == 0 {
            std::fs::remove_file(&part).with_context(|| format!("cannot remove '{}'", part.display()))?;
        }
        return Err(error.context(format!("cannot fetch {url}")));
    }
    file.sync_all().with_context(shown)?;
    let found = identify(&part)?;
    if let Some(wrong) = expected.differs(&found) {
        let page = is_page(&part);
        std::fs::remove_file(&part).with_context(|| format!("cannot remove '{}'", part.display()))?;
        let hint = if page { "; it is a web page, perhaps of a proxy" } else { "" };
        anyhow::bail!("{url} is not the file that is known: {wrong} ({} bytes{hint}). Nothing was kept", found.bytes);
    }
    std::fs::rename(&part, to).with_context(|| format!("cannot move '{}' to '{}'", part.display(), to.display()))?;
    Ok(found)
}

/// The SHA-256 that the Hugging Face hub has of a file, which its server says before it sends one to where the bytes are; none where
/// it says none.
pub fn hash_by_word(url: &str, token: Option<&str>) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .user_agent(AGENT)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(SILENCE))
        .build()
        .into();
    let response = told(agent.head(url), token).call().ok()?;
    let word = response.headers().get("x-linked-etag")?.to_str().ok()?.trim_matches('"').to_ascii_lowercase();
    (word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(word)
}

/// The text of a small file; none where there is none, or it is not so small.
pub fn small(url: &str, token: Option<&str>) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .user_agent(AGENT)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_global(Some(SILENCE))
        .build()
        .into();
    told(agent.get(url), token).call().ok()?.into_body().with_config().limit(SMALL).read_to_string().ok()
}

/// A request that says who asks.
fn told(request: RequestBuilder<WithoutBody>, token: Option<&str>) -> RequestBuilder<WithoutBody> {
    match token {
        Some(token) => request.header("Authorization", format!("Bearer {token}")),
        None => request,
    }
}

fn bar(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Begins again as long as that brings something.
fn transfer(url: &str, token: Option<&str>, file: &mut File, resume: bool, bar: &ProgressBar) -> anyhow::Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .user_agent(AGENT)
        .http_status_as_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build()
        .into();
    let mut fruitless = 0;
    loop {
        if !resume {
            file.set_len(0)?;
        }
        let before = file.metadata()?.len();
        match attempt(&agent, url, token, file, bar)? {
            Ok(()) => return Ok(()),
            Err(Broken::Refused(why)) => anyhow::bail!(why),
            Err(Broken::Off(why)) => {
                fruitless = if resume && file.metadata()?.len() > before { 1 } else { fruitless + 1 };
                anyhow::ensure!(fruitless < TRIES, why);
                std::thread::sleep(Duration::from_millis(250 << fruitless));
            }
        }
    }
}

/// Asks for what is not there yet. An error outside is the disk's.
fn attempt(
    agent: &ureq::Agent,
    url: &str,
    token: Option<&str>,
    file: &mut File,
    bar: &ProgressBar,
) -> anyhow::Result<Result<(), Broken>> {
    let mut have = file.metadata()?.len();
    let mut request = told(agent.get(url), token);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(error) => return Ok(Err(unreachable(&error))),
    };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let length: Option<u64> = header("content-length").and_then(|text| text.parse().ok());
    match response.status().as_u16() {
        206 if header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {have}-"))) => {}
        // The whole file, or another part than was asked for: from the start.
        200 => {
            have = 0;
            file.set_len(0)?;
        }
        206 | 416 if have > 0 => {
            file.set_len(0)?;
            return Ok(Err(Broken::Off("the server does not go on where a transfer stopped".to_owned())));
        }
        status @ (408 | 425 | 429 | 500..=599) => {
            return Ok(Err(Broken::Off(format!("the server is not ready: it answers {status}"))));
        }
        status => return Ok(Err(Broken::Refused(format!("{REFUSED}{status}")))),
    }
    let whole = length.map(|length| have + length);
    bar.set_length(whole.unwrap_or(0));
    file.seek(SeekFrom::Start(have))?;
    let mut body = response.into_body().into_reader();
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return Ok(Err(Broken::Off(format!("the transfer broke off: {error}")))),
        };
        file.write_all(&piece[..read])?;
        have += read as u64;
        bar.set_position(have);
    }
    match whole {
        Some(whole) if have < whole => Ok(Err(Broken::Off(format!("{have} of {whole} bytes came")))),
        _ => Ok(Ok(())),
    }
}

/// A wrong address will not become right; a network may.
fn unreachable(error: &ureq::Error) -> Broken {
    match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            Broken::Off(error.to_string())
        }
        _ => Broken::Refused(error.to_string()),
    }
}

fn is_page(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_end(&mut start));
    let start = String::from_utf8_lossy(&start).trim_start().to_lowercase();
    read.is_ok() && (start.starts_with("<!doctype html") || start.starts_with("<html"))
}
