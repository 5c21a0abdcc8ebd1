//! `weights get` and `data get` against a server on this machine: what breaks off goes on, and only the right bytes stay.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::Digest;
use tl_sweep::data::known::{Layout, List};
use tl_sweep::data::unpack::lay_out;
use tl_sweep::model::arch::Arch;

use crate::builder::{World, png};
use crate::materials::network;

/// How a file is served. A line serves one request, and says so: a client would send the next one into a dead line.
#[derive(Clone)]
pub enum Answer {
    /// As a good server does, parts included.
    Well(Vec<u8>),
    /// Whole, whatever part was asked for.
    Whole(Vec<u8>),
    /// Of what is asked for, so many bytes; then the line is dead.
    Broken(Vec<u8>, usize),
    /// This status, the first so many times.
    Failing(u16, usize, Vec<u8>),
    Redirect(String),
    /// The same from a server that says a hash of what is there, in a header of its own.
    Hub(String, String),
    /// That, for those who show this token; 401 for others.
    Gated(&'static str, Box<Answer>),
    /// 400 for those who show one: they have told it somebody whom they had not asked.
    Stranger(Vec<u8>),
}

/// What was asked: path, and the first byte of the part that was wanted.
type Asked = Arc<Mutex<Vec<(String, usize)>>>;

pub struct Server {
    pub address: String,
    asked: Asked,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Server {
    pub fn new(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let answers: HashMap<String, Answer> =
            answers.into_iter().map(|(path, answer)| (path.to_owned(), answer)).collect();
        let answers = Arc::new(Mutex::new(answers));
        let (log, known) = (asked.clone(), answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, known) = (log.clone(), known.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &log, &known.lock().unwrap()));
            }
        });
        Self { address, asked, answers }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn answers(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(stream: &TcpStream, log: &Asked, answers: &HashMap<String, Answer>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let range = headers.get("range").map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').to_owned());
    let from = range.map_or(0, |from| from.parse::<usize>().unwrap());
    let shown = headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let before = {
        let mut log = log.lock().unwrap();
        log.push((path.clone(), from));
        log.iter().filter(|(known, _)| *known == path).count() - 1
    };
    let part = |bytes: &[u8], sent: usize| {
        let head = if from == 0 {
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", bytes.len())
        } else if from >= bytes.len() {
            "HTTP/1.1 416 Range Not Satisfiable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            format!(
                "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
                bytes.len() - 1,
                bytes.len(),
                bytes.len() - from
            )
        };
        let body = &bytes[from.min(bytes.len())..];
        [head.as_bytes(), &body[..sent.min(body.len())]].concat()
    };
    let whole = |bytes: &[u8]| {
        [format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes(), bytes]
            .concat()
    };
    let status =
        |status: u16| format!("HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let answer = match answers.get(&path) {
        Some(Answer::Gated(token, behind)) => (shown == Some(*token)).then_some(&**behind).ok_or(401),
        other => other.ok_or(404),
    };
    let said = match answer {
        Err(code) => status(code),
        Ok(Answer::Gated(..)) => status(500),
        Ok(Answer::Stranger(_)) if shown.is_some() => status(400),
        Ok(Answer::Well(bytes) | Answer::Stranger(bytes)) => part(bytes, usize::MAX),
        Ok(Answer::Whole(bytes)) => whole(bytes),
        Ok(Answer::Broken(bytes, sent)) => part(bytes, *sent),
        Ok(Answer::Failing(code, times, _)) if before < *times => status(*code),
        Ok(Answer::Failing(_, _, bytes)) => part(bytes, usize::MAX),
        Ok(Answer::Redirect(to)) => moved(to, ""),
        Ok(Answer::Hub(to, hash)) => moved(to, &format!("X-Linked-Etag: \"{hash}\"\r\n")),
    };
    // The client may have gone away.
    let mut stream = stream;
    let _ = stream.write_all(&said);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 1]);
}

fn moved(to: &str, more: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a weight file.
fn some_weights(world: &World) -> Vec<u8> {
    network(world, "made.safetensors", &Arch::new("resnet8", 32, 1.0));
    std::fs::read(world.path("made.safetensors")).unwrap()
}

fn leftovers(world: &World, folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(world.path(folder)) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn weights_come_from_an_address_once_and_nothing_is_written_over() {
    let world = World::new();
    let bytes = some_weights(&world);
    let server = Server::new([
        ("/w.safetensors", Answer::Well(bytes.clone())),
        ("/moved/w.safetensors?download=1", Answer::Redirect("/w.safetensors".to_owned())),
    ]);
    let get =
        |path: &str, sum: &str| world.run(&["weights", "get", &server.url(path), "--sha256", sum, "--weights", "lib"]);
    let said = get("/moved/w.safetensors?download=1", &sha256(&bytes)).exits(0);
    assert!(said.out.contains(&format!("sha256 {}", sha256(&bytes))), "{}", said.out);
    assert!(said.out.contains("must say `arch` and `preprocess`"), "{}", said.out);
    assert_eq!(std::fs::read(world.path("lib/w.safetensors")).unwrap(), bytes);
    assert_eq!(leftovers(&world, "lib"), ["w.safetensors"]);
    assert_eq!(server.asked().len(), 2);

    assert!(get("/w.safetensors", &sha256(&bytes)[..12]).exits(0).out.contains("is here already"));
    let said = get("/w.safetensors", &sha256(b"others")).exits(2);
    assert!(said.err.contains("is another file") && said.err.contains("not touched"), "{}", said.err);
    assert!(server.asked().is_empty(), "what is there is not fetched");
    assert_eq!(std::fs::read(world.path("lib/w.safetensors")).unwrap(), bytes);
    assert!(get("/w.safetensors", "12").exits(2).err.contains("8 to 64 hexadecimal digits"));
    assert!(get("/", &sha256(&bytes)).exits(2).err.contains("name of a file"));
}

/// The hub has many files of one name, and says their hashes: they have names of their own here, and go on where they stopped.
#[test]
fn a_model_of_the_hub_comes_by_its_name_with_the_hash_that_the_hub_has() {
    let world = World::new();
    let bytes = some_weights(&world);
    let server = Server::new([
        ("/me/small-net/resolve/main/model.safetensors", Answer::Hub("/cdn/1".to_owned(), sha256(&bytes))),
        ("/cdn/1", Answer::Broken(bytes.clone(), 150_000)),
        (
            "/me/other/resolve/main/open_clip_model.safetensors",
            Answer::Hub("/cdn/2".to_owned(), sha256(b"another file")),
        ),
        ("/cdn/2", Answer::Well(bytes.clone())),
        ("/me/plain/resolve/main/model.safetensors", Answer::Well(bytes.clone())),
    ]);
    let get = |what: &str| world.run(&["weights", "get", what, "--from", &server.address, "--weights", "lib"]);
    let said = get("hf:me/small-net").exits(0).out;
    assert!(said.contains(&sha256(&bytes)) && !said.contains("did not say its hash"), "{said}");
    let usage = "weights = \"small-net.safetensors\"\narch = \"resnet8\"\npreprocess = \"torch\"";
    assert!(said.contains(usage), "what an experiment must say: {said}");
    assert!(!said.contains("resize ="), "{said}");
    let cdn = server.asked().into_iter().filter(|(path, _)| path == "/cdn/1").map(|(_, from)| from);
    let cdn: Vec<usize> = cdn.collect();
    assert!(cdn.len() > 1 && cdn[1] == 150_000, "with a hash it goes on where it stopped: {cdn:?}");
    assert_eq!(std::fs::read(world.path("lib/small-net.safetensors")).unwrap(), bytes);
    assert!(get("hf:me/small-net").exits(0).out.contains("is here already"));

    // What the model says of images is what an experiment is told to say, from the first file that says it.
    let beside = |name: &str| format!("/me/small-net/resolve/main/{name}");
    let says = r#"{"pretrained_cfg":{"mean":[0.43,0.411,0.296],"std":[0.213,0.156,0.143],"interpolation":"bicubic","crop_pct":0.9}}"#;
    server.answers(&beside("preprocessor_config.json"), Answer::Well(br#"{"model_type":"resnet"}"#.to_vec()));
    server.answers(&beside("config.json"), Answer::Well(says.into()));
    std::fs::remove_file(world.path("lib/small-net.safetensors")).unwrap();
    let said = get("hf:me/small-net").exits(0).out;
    let lines = "preprocess = \"mean 0.43 0.411 0.296 std 0.213 0.156 0.143\"\nresize = \"crop 0.9 bicubic\"\n";
    assert!(said.contains(lines) && said.contains("what config.json says on the hub"), "{said}");

    let said = get("hf:me/other/open_clip_model.safetensors").exits(1);
    assert!(said.err.contains(&sha256(b"another file")) && said.err.contains("Nothing was kept"), "{}", said.err);
    let says = r#"{"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":1,"size":{"height":32,"width":32}}"#;
    server.answers("/me/plain/resolve/main/preprocessor_config.json", Answer::Well(says.into()));
    let said = get("hf:me/plain").exits(0).out;
    let lines = "preprocess = \"tf\"\nresize = \"crop\"    # usual; for what the hub says there is no word here\n";
    assert!(said.contains("the hub did not say its hash") && said.contains(lines), "{said}");
    let said = get("hf:me/none").exits(1);
    assert!(said.err.contains("the server answers 404: the hub has no such file"), "{}", said.err);
    assert!(get("hf:none").exits(2).err.contains("hf:OWNER/NAME"));
    assert_eq!(leftovers(&world, "lib"), ["plain.safetensors", "small-net.safetensors"]);
}

/// Some models are given only to those who have accepted their terms, which a token shows. Where the bytes are it is not told.
#[test]
fn a_model_that_is_not_for_all_comes_with_a_token() {
    let world = World::new().file("hf/token", "hf_mine\n").file("empty", " \n");
    let bytes = some_weights(&world);
    let server = Server::new([("/elsewhere", Answer::Stranger(bytes.clone()))]);
    let elsewhere = server.url("/elsewhere").replace("127.0.0.1", "localhost");
    let gated = |to| Answer::Gated("hf_mine", Box::new(to));
    server.answers("/me/gated/resolve/main/model.safetensors", gated(Answer::Hub(elsewhere, sha256(&bytes))));
    let get = |more: &[&str], variables: &[(&str, &str)]| {
        let mut command = world.command(&[&["weights", "get", "hf:me/gated", "--weights", "lib"], more].concat());
        let output = command.env("HF_ENDPOINT", &server.address).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let nobody = [("HF_HOME", "nowhere")];
    let (code, _, err) = get(&[], &nobody);
    let told = format!(
        "401: there is no such model, or the hub gives it only to those who have accepted its terms. Accept them on {}/me/gated",
        server.address
    );
    assert!(code == 1 && err.contains(&told) && err.contains("into HF_TOKEN"), "{code} {err}");
    let (code, _, err) = get(&[], &[("HF_TOKEN", "hf_other")]);
    assert!(code == 1 && err.contains("your token does not open it") && !err.contains("hf_other"), "{code} {err}");
    let (code, _, err) = get(&[], &[("HF_TOKEN_PATH", "empty")]);
    assert!(code == 2 && err.contains("empty holds no token"), "{code} {err}");
    // A server that is named in the hub's place is not told either.
    let (code, _, err) = get(&["--from", &server.address], &[("HF_TOKEN", "hf_mine")]);
    assert!(code == 1 && err.contains("answers 401\n"), "{code} {err}");
    assert_eq!(leftovers(&world, "lib"), Vec::<String>::new());

    let (code, out, err) = get(&[], &[("HF_TOKEN", "hf_mine")]);
    assert!(code == 0 && out.contains(&sha256(&bytes)) && !out.contains("did not say its hash"), "{code} {out} {err}");
    std::fs::remove_file(world.path("lib/gated.safetensors")).unwrap();
    // The file that Hugging Face's own programs keep one in.
    let (code, _, err) = get(&[], &[("HF_HOME", "hf")]);
    assert_eq!((code, std::fs::read(world.path("lib/gated.safetensors")).unwrap()), (0, bytes), "{err}");
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_stopped_also_in_the_next_call() {
    let world = World::new();
    let bytes = some_weights(&world);
    let server = Server::new([("/w.safetensors", Answer::Broken(bytes.clone(), 50_000))]);
    let sum = sha256(&bytes);
    let url = server.url("/w.safetensors");
    let get = || world.run(&["weights", "get", &url, "--sha256", &sum, "--weights", "lib"]);
    // As long as something comes, it goes on.
    get().exits(0);
    let starts: Vec<usize> = server.asked().into_iter().map(|(_, from)| from).collect();
    assert!(starts.len() > 2 && starts.windows(2).all(|pair| pair[1] - pair[0] == 50_000), "{starts:?}");
    assert_eq!(std::fs::read(world.path("lib/w.safetensors")).unwrap(), bytes);

    // A server that falls silent: four tries, and what has come stays.
    std::fs::remove_file(world.path("lib/w.safetensors")).unwrap();
    server.answers("/w.safetensors", Answer::Broken(bytes.clone(), 0));
    std::fs::write(world.path("lib/w.safetensors.part"), &bytes[..70_000]).unwrap();
    let said = get().exits(1);
    assert!(said.err.contains("used from there"), "{}", said.err);
    assert_eq!(server.asked(), vec![("/w.safetensors".to_owned(), 70_000); 4]);
    assert_eq!(std::fs::read(world.path("lib/w.safetensors.part")).unwrap(), &bytes[..70_000]);
    server.answers("/w.safetensors", Answer::Well(bytes.clone()));
    get().exits(0);
    assert_eq!(server.asked(), [("/w.safetensors".to_owned(), 70_000)]);
    assert_eq!(std::fs::read(world.path("lib/w.safetensors")).unwrap(), bytes);

    // A server that sends the whole file for a part, and a beginning that was longer than the file is.
    for (start, answer) in [(70_000, Answer::Whole(bytes.clone())), (bytes.len() + 5, Answer::Well(bytes.clone()))] {
        std::fs::remove_file(world.path("lib/w.safetensors")).unwrap();
        std::fs::write(world.path("lib/w.safetensors.part"), vec![7; start]).unwrap();
        server.answers("/w.safetensors", answer);
        get().exits(0);
        assert_eq!(std::fs::read(world.path("lib/w.safetensors")).unwrap(), bytes);
        assert_eq!(leftovers(&world, "lib"), ["w.safetensors"]);
    }
}

#[test]
fn other_bytes_than_those_that_are_known_do_not_stay() {
    let world = World::new();
    let bytes = some_weights(&world);
    let page = b"<!DOCTYPE html><html>Log in to the network</html>".to_vec();
    let server = Server::new([
        ("/vgg19-dcbb9e9d.pth", Answer::Well(bytes.clone())),
        ("/resnet50-0676ba61.pth", Answer::Well(page.clone())),
        ("/mobilenet_1_0_224_tf.h5", Answer::Well(page)),
        ("/busy.safetensors", Answer::Failing(503, 2, bytes.clone())),
        ("/later.safetensors", Answer::Failing(503, 99, bytes.clone())),
    ]);
    let mirror = |name: &str| world.run(&["weights", "get", name, "--from", &server.address, "--weights", "lib"]);
    let said = mirror("vgg19-dcbb9e9d").exits(1);
    assert!(said.err.contains("is not the file that is known") && said.err.contains(&sha256(&bytes)), "{}", said.err);
    assert!(mirror("resnet50-0676ba61.pth").exits(1).err.contains("a web page"));
    // Nothing is published about this one's bytes, but they must be weights.
    assert!(mirror("mobilenet_1_0_224_tf").exits(2).err.contains("holds no weights"));
    assert!(mirror("vgg16-397923af").exits(1).err.contains("the server answers 404"));
    let tries = server.asked().into_iter().filter(|(path, _)| path.contains("vgg16")).count();
    assert_eq!(tries, 1, "what is not there will not come");
    assert_eq!(leftovers(&world, "lib"), Vec::<String>::new());

    let get = |path: &str| world.run(&["weights", "get", &server.url(path), "--weights", "lib"]);
    assert!(get("/busy.safetensors").exits(0).out.contains("no hash of it is published"));
    assert!(get("/later.safetensors").exits(1).err.contains("the server is not ready: it answers 503"));
    assert_eq!(leftovers(&world, "lib"), ["busy.safetensors"]);

    // Names: a slip, one that is published only as another file, and what `check` says of a known one.
    assert!(mirror("vgg19-dcbb9e9c").exits(2).err.contains("did you mean 'vgg19-dcbb9e9d'"));
    let said = world.run(&["weights", "get", "cifar10_resnet20", "--weights", "lib"]).exits(2);
    assert!(said.err.contains("weights get resnet20-12fca82f"), "{}", said.err);
    let said = world.run(&["weights", "inspect", "vgg19-dcbb9e9d", "--weights", "lib"]).exits(2);
    assert!(said.err.contains("`tl-sweep weights get vgg19-dcbb9e9d --weights 'lib'`"), "{}", said.err);
}

/// A zip as other programs write it, deflated.
fn zipped(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in entries {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn tarred(entries: &[(&str, Vec<u8>)], gzip: bool) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Not `append_data`: it refuses names that lead elsewhere, as some archives have them.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, bytes.as_slice()).unwrap();
    }
    let plain = archive.into_inner().unwrap();
    if !gzip {
        return plain;
    }
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(&plain).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_dataset_comes_as_its_folder_and_can_be_used() {
    let world = World::new();
    let mut entries = vec![("hymenoptera_data/train/ants/imageNotFound.gif", b"GIF89a".to_vec())];
    let names: Vec<(String, Vec<u8>)> = ["train", "val"]
        .iter()
        .flat_map(|split| ["ants", "bees"].iter().enumerate().map(move |(class, name)| (split, class, name)))
        .flat_map(|(split, class, name)| {
            (0..12u32).map(move |index| {
                let seed = index * 7 + 100 * class as u32 + if *split == "val" { 1000 } else { 0 };
                (format!("hymenoptera_data/{split}/{name}/{index}.jpg"), png(12, 12, class as u32, seed))
            })
        })
        .collect();
    entries.extend(names.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
    let archive = zipped(&entries);
    let server = Server::new([
        ("/hymenoptera_data.zip", Answer::Broken(archive.clone(), archive.len() / 2)),
        ("/train.zip", Answer::Well(archive.clone())),
    ]);
    let get = |name: &str| world.run(&["data", "get", name, "--from", &server.address, "--data", "sets"]);
    // Nothing is published to check a continued transfer by: it is begun anew, and what broke off does not stay.
    get("hymenoptera").exits(1);
    assert!(server.asked().iter().all(|(_, from)| *from == 0));
    assert!(!world.path("sets/hymenoptera").exists());
    server.answers("/hymenoptera_data.zip", Answer::Well(archive.clone()));
    let said = get("hymenoptera").exits(0);
    assert!(said.out.contains(&sha256(&archive)) && said.out.contains("splits = { test = \"val\" }"), "{}", said.out);
    assert_eq!(leftovers(&world, "sets"), ["hymenoptera"]);
    assert!(!world.path("sets/hymenoptera/train/ants/imageNotFound.gif").exists(), "no photo");
    let said = world.run(&["data", "hymenoptera", "--test", "val", "--data", "sets"]).exits(0);
    assert!(said.out.contains("24"), "{}", said.out);
    assert!(get("hymenoptera").exits(0).out.contains("here already"));

    let said = get("beans").exits(1);
    assert!(said.err.contains("is not the file that is known"), "{}", said.err);
    assert!(!world.path("sets/beans").exists());
    assert!(get("beens").exits(2).err.contains("did you mean 'beans'"));
    let listed = world.run(&["data", "list", "--data", "sets"]).exits(0).out;
    let row = listed.lines().find(|line| line.contains("hymenoptera")).unwrap();
    assert!(row.contains("here"), "{listed}");
    let said = world.run(&["data", "beans", "--data", "sets"]).exits(2);
    assert!(said.err.contains("`tl-sweep data get beans --data 'sets'`"), "{}", said.err);
}

/// Lays archives out, and lists what came of it.
fn laid_out(archives: &[(&str, Vec<u8>)], layout: Layout) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = archives
        .iter()
        .map(|(name, bytes)| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        })
        .collect();
    let ready = lay_out(&files, layout, folder.path())?;
    let (mut found, mut left) = (Vec::new(), vec![ready.clone()]);
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    let name = |path: &std::path::PathBuf| path.strip_prefix(&ready).unwrap().to_string_lossy().into_owned();
    let mut names: Vec<String> = found.iter().map(name).collect();
    names.sort();
    Ok(names)
}

#[test]
fn every_layout_becomes_split_class_file() {
    let image = || png(4, 4, 0, 0);
    let pets = [
        (
            "images.tar.gz",
            tarred(
                &[
                    ("images/great_pyrenees_1.jpg", image()),
                    ("images/Sphynx_2.jpg", image()),
                    ("images/Sphynx_9.mat", image()),
                ],
                // As it is published: no gzip, whatever its name says.
                false,
            ),
        ),
        (
            "annotations.tar.gz",
            tarred(
                &[
                    ("annotations/trainval.txt", b"#comment\ngreat_pyrenees_1 16 2 9\n".to_vec()),
                    ("annotations/test.txt", b"Sphynx_2 34 1 12\n".to_vec()),
                ],
                true,
            ),
        ),
    ];
    let lists = Layout::Lists(List::Pets, &[("train", "annotations/trainval.txt"), ("test", "annotations/test.txt")]);
    assert_eq!(
        laid_out(&pets, lists).unwrap(),
        ["test/Sphynx/Sphynx_2.jpg", "train/great_pyrenees/great_pyrenees_1.jpg"]
    );
    let missing = laid_out(&pets[1..], lists).unwrap_err().to_string();
    assert!(missing.contains("great_pyrenees_1.jpg") && missing.contains("not in what was downloaded"), "{missing}");

    let textures = tarred(
        &[
            ("dtd/labels/train1.txt", b"banded/banded_0002.jpg\n".to_vec()),
            ("dtd/labels/test1.txt", b"woven/woven_1.jpg\n".to_vec()),
            ("dtd/images/banded/banded_0002.jpg", image()),
            ("dtd/images/woven/woven_1.jpg", image()),
        ],
        true,
    );
    let lists = Layout::Lists(List::Textures, &[("train", "dtd/labels/train1.txt"), ("test", "dtd/labels/test1.txt")]);
    assert_eq!(
        laid_out(&[("dtd.tar.gz", textures)], lists).unwrap(),
        ["test/woven/woven_1.jpg", "train/banded/banded_0002.jpg"]
    );

    let food = tarred(
        &[
            ("food-101/meta/train.json", br#"{"apple_pie": ["apple_pie/10"]}"#.to_vec()),
            ("food-101/meta/test.json", br#"{"waffles": ["waffles/7"]}"#.to_vec()),
            ("food-101/images/apple_pie/10.jpg", image()),
            ("food-101/images/waffles/7.jpg", image()),
        ],
        true,
    );
    let lists =
        Layout::Lists(List::Food, &[("train", "food-101/meta/train.json"), ("test", "food-101/meta/test.json")]);
    assert_eq!(laid_out(&[("f.tgz", food)], lists).unwrap(), ["test/waffles/7.jpg", "train/apple_pie/10.jpg"]);

    let splits = [
        ("train.zip", zipped(&[("train/healthy/a.jpg", image()), ("__MACOSX/train/healthy/._a.jpg", image())])),
        ("test.zip", zipped(&[("healthy/b.png", image()), ("healthy/.DS_Store", image())])),
    ];
    assert_eq!(
        laid_out(&splits, Layout::Splits(&["train", "test"])).unwrap(),
        ["test/healthy/b.png", "train/healthy/a.jpg"]
    );
    assert_eq!(
        laid_out(&[("c.tar.gz", tarred(&[("cifar/test.bin", vec![1])], true))], Layout::Folder("cifar")).unwrap(),
        ["test.bin"]
    );
    assert_eq!(laid_out(&[("a.gz", vec![1]), ("b.gz", vec![2])], Layout::Plain).unwrap(), ["a.gz", "b.gz"]);
}

#[test]
fn an_archive_that_is_damaged_or_writes_elsewhere_is_refused() {
    let outside = |archive: Vec<u8>| laid_out(&[("a", archive)], Layout::Folder("x")).unwrap_err();
    for archive in [
        zipped(&[("../../escaped.jpg", png(4, 4, 0, 0))]),
        tarred(&[("../escaped.jpg", png(4, 4, 0, 0))], true),
        tarred(&[("/tmp/tl-sweep-escaped.jpg", png(4, 4, 0, 0))], false),
    ] {
        let error = format!("{:#}", outside(archive));
        assert!(error.contains("would be written elsewhere"), "{error}");
    }
    assert!(!Path::new("/tmp/tl-sweep-escaped.jpg").exists());
    let mut cut = tarred(&[("x/a.jpg", png(64, 64, 0, 0))], true);
    cut.truncate(cut.len() / 2);
    assert!(format!("{:#}", outside(cut)).contains("is damaged"));
    let mut cut = zipped(&[("x/a.jpg", png(64, 64, 0, 0))]);
    cut.truncate(cut.len() / 2);
    assert!(format!("{:#}", outside(cut)).contains("is damaged"));
}
