//! Heads that start from class names: what they are, what is shared with others, what their keys are made of, and what they need.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use serde_json::Value;
use tl_sweep::exec::texts::embeds;
use tl_sweep::model::arch::Arch;
use tl_sweep::model::catalogue::identify;
use tl_sweep::model::init;
use tl_sweep::model::texts::{TextSide, tokenizer};
use tl_sweep::model::vit::EMBEDS;
use tl_sweep::model::weights::Weights;
use tl_sweep::plan::stage::Texts;
use tl_sweep::train::named_head;

use crate::builder::World;
use crate::clip::renamed;
use crate::downloads::{Answer, Server};
use crate::operators::uniform;
use crate::sharing::{foreseen, found};

/// What transformers made (`fixtures/zero_shot.py`).
fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/zero_shot.json")).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The tensors of the side of texts, numbered as the script numbers them.
fn of_texts() -> BTreeMap<String, Tensor> {
    let fixture = fixture();
    let tensors = fixture["tensors"].as_array().unwrap().iter().enumerate();
    let mut found: BTreeMap<String, Tensor> = tensors
        .map(|(index, tensor)| {
            let (name, shape) = (tensor[0].as_str().unwrap(), tensor[1].as_array().unwrap());
            let shape: Vec<usize> = shape.iter().map(|side| side.as_u64().unwrap() as usize).collect();
            let scales = name.contains("norm") && name.ends_with("weight");
            let own = |x: f64| if scales { 1.0 + x / 2.0 } else { x / 8.0 };
            let values = uniform(shape.iter().product(), index as u64 + 1);
            let values: Vec<f32> = values.into_iter().map(|x| own(x) as f32).collect();
            (name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect();
    found.insert("logit_scale".to_owned(), Tensor::new(3f32, &Device::Cpu).unwrap());
    found
}

/// The same as open_clip writes them: queries, keys and values in one, ways from the left.
fn of_open_clip(hub: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut other = BTreeMap::new();
    for (name, tensor) in hub {
        let name = name
            .replace("text_model.encoder.layers.", "transformer.resblocks.")
            .replace("text_model.embeddings.position_embedding.weight", "positional_embedding")
            .replace("text_model.embeddings.token_embedding", "token_embedding")
            .replace("text_model.final_layer_norm", "ln_final")
            .replace("layer_norm", "ln_")
            .replace("self_attn.out_proj", "attn.out_proj")
            .replace("mlp.fc1", "mlp.c_fc")
            .replace("mlp.fc2", "mlp.c_proj");
        if let Some((block, leaf)) = name.split_once(".self_attn.q_proj.") {
            let base = block.replace("transformer.resblocks.", "text_model.encoder.layers.");
            let parts = ["q", "k", "v"].map(|letter| &hub[&format!("{base}.self_attn.{letter}_proj.{leaf}")]);
            other.insert(format!("{block}.attn.in_proj_{leaf}"), Tensor::cat(&parts, 0).unwrap());
        } else if name == "text_projection.weight" {
            other.insert("text_projection".to_owned(), tensor.t().unwrap().contiguous().unwrap());
        } else if !name.contains(".self_attn.") {
            other.insert(name, tensor.clone());
        }
    }
    other
}

/// Both sides of a small CLIP in one file, and its tokenizer beside it.
fn clip(world: &World, hub: bool) {
    let arch = Arch::new("clip_vitb32", 64, 0.0625);
    let mut own = init::fresh(&arch.graph_of(EMBEDS, 3).unwrap(), 0, 1, 0).unwrap();
    let way = own.0.remove("visual_projection.weight").unwrap();
    let mut whole = renamed(&own, hub);
    let beside = ["text_model.", "text_projection", "transformer.", "token_embedding", "positional_", "visual.proj"];
    whole.0.retain(|name, _| !beside.iter().any(|start| name.starts_with(start)));
    let texts = of_texts();
    match hub {
        true => {
            whole.0.insert("visual_projection.weight".to_owned(), way);
            whole.0.extend(texts);
        }
        false => {
            whole.0.insert("visual.proj".to_owned(), way.t().unwrap().contiguous().unwrap());
            whole.0.extend(of_open_clip(&texts));
        }
    }
    whole.write(&world.path("clip.safetensors")).unwrap();
    let tokenizer = serde_json::to_vec(&fixture()["tokenizer"]).unwrap();
    std::fs::write(world.path("clip.tokenizer.json"), tokenizer).unwrap();
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn head(world: &World, names: Vec<String>, prompts: Vec<String>) -> [Vec<f32>; 2] {
    let tokenizer = identify(&world.path("clip.tokenizer.json")).unwrap().sha256;
    let texts = Texts { prompts, names, tokenizer };
    named_head(&texts, &world.path("clip.safetensors"), "clip_vitb32").unwrap().map(|tensor| numbers(&tensor))
}

#[test]
fn class_names_make_the_head_that_transformers_makes() {
    let fixture = fixture();
    let (names, prompts) = (texts(&fixture["names"]), texts(&fixture["prompts"]));
    let expected: Vec<f64> = fixture["head"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let mut heads = Vec::new();
    for hub in [true, false] {
        let world = World::new();
        clip(&world, hub);
        let plain: Vec<String> = names.iter().map(|name| prompts[0].replace("{}", name)).collect();
        let tokens = tokenizer::tokens(&world.path("clip.tokenizer.json"), &plain, 24).unwrap();
        assert_eq!(serde_json::to_value(tokens).unwrap(), fixture["tokens"]);
        let [weight, bias] = head(&world, names.clone(), prompts.clone());
        assert_eq!((weight.len(), bias), (3 * 32, vec![0.0; 3]));
        let off = weight.iter().zip(&expected).map(|(own, there)| (f64::from(*own) - there).abs());
        let off = off.fold(0.0, f64::max) / 20.1;
        assert!(off < 1e-5, "hub: {hub}: {off}");
        heads.push(weight);
    }
    assert_eq!(heads[0], heads[1], "one network under two names");
}

const SWEEP: &str = r#"
[experiment]
name = "names"
replicates = 2
[backbone]
arch = "clip_vitb32"
weights = "clip.safetensors"
width = 0.0625
input = 64
preprocess = "clip"
[datasets.mine]
path = "mine"
names = { ants = "Ants" }
[scenarios.few]
dataset = "mine"
per_class = 6
[train]
steps = 6
batch = 8
lr = 0.001
[recipes.trained]
freeze = "all"
head_start = "class-names"
[recipes.half-trained]
freeze = "all"
head_start = "class-names"
interpolate = 0.5
[recipes.quarter-trained]
freeze = "all"
head_start = "class-names"
interpolate = 0.25
[recipes.tuned]
head_start = "class-names"
[recipes.half]
head_start = "class-names"
interpolate = 0.5
[recipes.random]
tap = "image_embeds"
[recipes.solved]
tap = "image_embeds"
freeze = "all"
optimizer = "ridge"
[axes]
recipe = ["zero-shot", "trained", "half-trained", "quarter-trained", "tuned", "half", "random", "solved", "linear-probe"]
"#;

fn world() -> World {
    let world = World::new().images("mine", &["ants", "bees", "big_cats"], 12, 8).file("x.toml", SWEEP);
    clip(&world, true);
    world
}

fn tensors(world: &World, recipe: &str) -> HashMap<String, Vec<f32>> {
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let text = "SELECT trial FROM result WHERE recipe = ?1 AND replicate = 0";
    let key: String = store.query_row(text, [recipe], |row| row.get(0)).unwrap();
    let said = world.run(&["export", "x.toml", &key, "--out", "one.safetensors"]).exits(0).out;
    assert!(said.contains("to the bit"), "{said}");
    let read = candle_core::safetensors::load(world.path("one.safetensors"), &Device::Cpu).unwrap();
    read.into_iter().map(|(name, tensor)| (name, numbers(&tensor))).collect()
}

#[test]
fn training_starts_where_class_names_are_and_shares_its_work() {
    let world = world();
    let said = world.run(&["plan", "x.toml"]).exits(0).out;
    let texts = "class names\n  mine: \"a photo of a Ants.\", \"a photo of a bees.\", \"a photo of a big cats.\"\n";
    assert!(said.contains(texts), "{said}");
    let plan = world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out;
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, _), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (9 * 2, &alone));
    // The texts are read once for all workers; what is damaged is read again.
    let heads = world.cached("head");
    let [kept] = &heads[..] else { panic!("{heads:?}") };
    let bytes = std::fs::read(kept).unwrap();
    std::fs::write(kept, &bytes[..bytes.len() - 4]).unwrap();
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("18 of 18 trials"), "{said}");
    assert_eq!(std::fs::read(kept).unwrap(), bytes);
    let said = world.run(&["gc", "--dry-run"]).exits(0).out;
    assert!(said.lines().any(|line| line.contains("heads of class names") && line.contains(" 1 ")), "{said}");
    foreseen(&world, &serde_json::from_str(&plan).unwrap());

    let names = ["Ants", "bees", "big cats"].map(str::to_owned).to_vec();
    let [weight, bias] = head(&world, names, vec!["a photo of a {}.".to_owned()]);
    let start = tensors(&world, "zero-shot");
    assert_eq!((&start["head.linear.weight"], &start["head.linear.bias"]), (&weight, &bias));
    for (half, whole, share) in
        [("half", "tuned", 0.5), ("half-trained", "trained", 0.5), ("quarter-trained", "trained", 0.25)]
    {
        let (half, whole) = (tensors(&world, half), tensors(&world, whole));
        let mut moved = 0;
        for (name, own) in &half {
            let ends = start[name].iter().zip(&whole[name]);
            let between: Vec<f32> = ends.map(|(start, end)| (end - start) * share + start).collect();
            assert_eq!(*own, between, "{name}");
            moved += usize::from(start[name] != whole[name]);
        }
        assert!(moved == if whole["norm.weight"] == start["norm.weight"] { 2 } else { half.len() }, "{moved}");
    }
    // Nothing was trained, and both replicates are one.
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let read = |what: &str| {
        let text =
            format!("SELECT count(DISTINCT {what}) || ' ' || min({what}) FROM result WHERE recipe = 'zero-shot'");
        store.query_row(&text, [], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_eq!([read("steps_run"), read("trainable")], ["1 0", "1 0"]);
    assert!(read("test_loss").starts_with("1 ") && read("val_loss").starts_with("2 "), "{}", read("val_loss"));
}

#[test]
fn what_is_said_of_classes_is_in_the_key() {
    let world = world();
    let one = |more: &[&str]| {
        let base = ["plan", "x.toml", "--set", "axes.recipe=[\"zero-shot\"]"];
        let said = world.run(&[&base[..], more].concat()).exits(0).out;
        said.lines().next().unwrap().to_owned()
    };
    world.run(&["run", "x.toml", "--set", "axes.recipe=[\"zero-shot\"]"]).exits(0);
    let here = "names: 1 cells x 2 replicates = 2 distinct trials, 2 of them in the store".to_owned();
    let anew = here.replace("2 of them", "0 of them");
    assert_eq!(one(&[]), here);
    let own = |body: &str| SWEEP.replace("[axes]", &format!("[recipes.mine]\n{body}\n[axes]"));
    let base = "freeze = \"all\"\nhead_start = \"class-names\"\noptimizer = \"none\"\n";
    let cases = [
        ("", &here),
        ("prompts = [\"a photo of a {}.\"]", &here),
        ("steps = 9\nlr = 0.5\nlabel_smoothing = 0.1\nclass_weights = \"balanced\"\ntap = \"image_embeds\"", &here),
        ("prompts = [\"a drawing of {}.\"]", &anew),
        ("prompts = [\"a photo of a {}.\", \"{}\"]", &anew),
    ];
    for (more, expected) in cases {
        std::fs::write(world.path("x.toml"), own(&format!("{base}{more}"))).unwrap();
        let said = world.run(&["plan", "x.toml", "--set", "axes.recipe=[\"mine\"]"]).exits(0).out;
        assert_eq!(said.lines().next().unwrap(), *expected, "{more}");
    }
    std::fs::write(world.path("x.toml"), SWEEP).unwrap();
    assert_eq!(one(&["--set", "datasets.mine.names={ ants = \"wood ants\" }"]), anew);
    assert_eq!(one(&["--set", "datasets.mine.names={ ants = \"Ants\", big_cats = \"big cats\" }"]), here);
    // Another tokenizer is another trial, and one that changes under a plan is an error.
    let path = world.path("clip.tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let bundle = ["export", "x.toml", "--bundle", "--out", "b.tar.gz"];
    world.run(&[&bundle[..], &["--set", "axes.recipe=[\"zero-shot\"]"]].concat()).exits(0);
    let verify = ["verify", "b.tar.gz", "--weights", "."];
    assert!(world.run(&verify).exits(0).out.contains("2 of 2 trials"));
    let sha256 = identify(&path).unwrap().sha256;
    std::fs::write(&path, format!("{text}\n")).unwrap();
    assert_eq!(one(&[]), anew);
    let said = world.run(&verify).exits(6).out;
    assert!(said.contains(&format!("tokenizer of 'clip.safetensors': sha256 {sha256} there, ")), "{said}");
}

#[test]
fn what_class_names_need_is_told() {
    let world = world();
    let cases = [
        ("head_start = \"class-names\"\ntap = \"token\"", "are compared at 'image_embeds', not at 'token'"),
        ("head_start = \"class-names\"\nhead = { mlp = [8] }", "class names are the start of a linear head"),
        ("head_start = \"class-names\"\nweights = \"random\"", "these are \"random\""),
        ("head_start = \"class-names\"\nfreeze = \"all\"\noptimizer = \"ridge\"", "the same head wherever it starts"),
        ("head_start = \"class-names\"\ntransfer = \"blocks.1.add2\"", "leave `transfer` out"),
        ("head_start = \"class-names\"\noptimizer = \"none\"", "leaves a linear head on fixed features"),
        ("freeze = \"all\"\noptimizer = \"none\"", "a head that starts at random must be trained"),
        ("interpolate = 0.5", "or a head that starts from class names"),
        ("head_start = \"class-names\"\nprompts = [\"a photo\"]", "'a photo' has not one {}"),
        ("head_start = \"class-names\"\nprompts = []", "a list of texts with {}"),
        ("head_start = \"class-names\"\nprompts = [\"{}\", \"{}\"]", "'{}' stands here twice"),
        ("head_start = \"names\"", "'random', 'class-names', 'lbfgs', 'ridge' or 'lda'"),
    ];
    let check = |text: String| {
        std::fs::write(world.path("x.toml"), text).unwrap();
        let said = world.run(&["check", "x.toml"]).exits(2);
        assert!(said.err.contains("x.toml:"), "{}", said.err);
        said.err
    };
    let mine = |body: &str| {
        let base = SWEEP.split("[recipes.trained]").next().unwrap();
        format!("{base}[recipes.mine]\n{body}\n[axes]\nrecipe = [\"mine\"]\n")
    };
    for (body, message) in cases {
        let said = check(mine(body));
        assert!(said.contains(message), "{body}: {said}");
    }
    let named = "head_start = \"class-names\"";
    let said = check(mine(named).replace("ants = ", "ant = "));
    assert!(
        said.contains("names the class 'ant', which it has not") && said.contains("did you mean 'ants'?"),
        "{said}"
    );
    let said = check(mine(named).replace("ants = \"Ants\"", "ants = \"bees\""));
    assert!(said.contains("two classes are called 'bees' in texts"), "{said}");
    let said = check(mine(named).replace("ants = \"Ants\"", "ants = \"n02219486\""));
    assert!(said.contains("'n02219486' is a number of WordNet's") && said.contains("[datasets.mine]"), "{said}");
    let said = check(mine("tap = \"image_embed\""));
    assert!(said.contains("did you mean 'image_embeds'?"), "{said}");
    let said = check(mine(named).replace("clip_vitb32", "vit_base_patch32"));
    assert!(said.contains("vit_base_patch32 has not, the networks clip_* have"), "{said}");
    let said = check(mine("tap = \"image_embeds\"").replace("clip_vitb32", "siglip_vitb32"));
    assert!(said.contains("siglip_vitb32 has no 'image_embeds'") && said.contains("clip_vitl14"), "{said}");
    // Of a recipe that is built in nothing stands in the file.
    let text = mine("").replace("clip_vitb32", "vit_base_patch32").replace("\"mine\"]", "\"zero-shot\"]");
    std::fs::write(world.path("own.toml"), text).unwrap();
    let said = world.run(&["check", "own.toml"]).exits(2);
    assert!(said.err.contains("the recipe 'zero-shot' asks for head_start = class-names"), "{}", said.err);
    std::fs::rename(world.path("clip.tokenizer.json"), world.path("elsewhere.json")).unwrap();
    let said = check(mine(named));
    assert!(said.contains("there is no tokenizer of 'clip.safetensors': neither 'clip.tokenizer.json' nor"), "{said}");
    // As a copy of the hub's folder has it.
    std::fs::rename(world.path("elsewhere.json"), world.path("tokenizer.json")).unwrap();
    world.run(&["check", "x.toml"]).exits(0);
    let arch = Arch::new("clip_vitb32", 64, 0.0625);
    let images = init::fresh(&arch.graph_of(EMBEDS, 3).unwrap(), 0, 1, 0).unwrap();
    images.write(&world.path("clip.safetensors")).unwrap();
    assert!(check(mine(named)).contains("has no side of texts"));
}

/// A tokenizer of another network has tokens that these weights have not.
#[test]
fn a_tokenizer_of_another_network_is_refused() {
    let world = world();
    let path = world.path("clip.safetensors");
    let mut whole = Weights(candle_core::safetensors::load(&path, &Device::Cpu).unwrap().into_iter().collect());
    let tokens = whole.0.get_mut("text_model.embeddings.token_embedding.weight").unwrap();
    *tokens = tokens.narrow(0, 0, 527).unwrap().contiguous().unwrap();
    whole.write(&path).unwrap();
    let said = world.run(&["check", "x.toml", "--set", "axes.recipe=[\"zero-shot\"]"]).exits(2);
    assert!(said.err.contains("has 528 tokens, and the weights have 527: it is of another network"), "{}", said.err);
    // One that names too few and gives too many.
    let tokens = [vec![526, 527]];
    let failed = embeds(&TextSide::read(&path, "clip_vitb32").unwrap(), &tokens).unwrap_err().to_string();
    assert!(failed.contains("the tokenizer gives token 527, and the weights have 527"), "{failed}");
}

#[test]
fn a_model_of_the_hub_comes_with_its_tokenizer() {
    let world = world();
    let [weights, text] =
        ["clip.safetensors", "clip.tokenizer.json"].map(|name| std::fs::read(world.path(name)).unwrap());
    let server = Server::new([
        ("/me/net/resolve/main/model.safetensors", Answer::Well(weights.clone())),
        ("/me/net/resolve/main/tokenizer.json", Answer::Well(text.clone())),
        ("/you/net/resolve/main/model.safetensors", Answer::Well(weights)),
    ]);
    let get = |what: &str, lib: &str| {
        world.run(&["weights", "get", what, "--from", &server.address, "--weights", lib]).exits(0).out
    };
    let said = get("hf:me/net", "lib");
    assert!(said.contains("net.tokenizer.json': its tokenizer, sha256") && said.contains("\"zero-shot\""), "{said}");
    assert_eq!(std::fs::read(world.path("lib/net.tokenizer.json")).unwrap(), text);
    std::fs::remove_file(world.path("lib/net.tokenizer.json")).unwrap();
    let said = get("hf:me/net", "lib");
    assert!(said.contains("is here already") && said.contains("net.tokenizer.json"), "{said}");
    assert_eq!(get("hf:me/net", "lib").lines().count(), 1);
    let said = get("hf:you/net", "other");
    assert!(said.contains("no tokenizer to read class names with") && said.contains("404"), "{said}");
    server.answers("/you/net/resolve/main/tokenizer.json", Answer::Well(b"{}".to_vec()));
    assert!(get("hf:you/net", "other").contains("no tokenizer to read class names with"));
    assert!(!world.path("other/net.tokenizer.json").exists());
}

#[test]
fn advice_knows_what_class_names_alone_are_worth() {
    let world = world();
    std::fs::write(world.path("x.toml"), SWEEP.replace("names = { ants = \"Ants\" }", "")).unwrap();
    world.run(&["run", "x.toml", "--set", "axes.recipe=[\"zero-shot\"]"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let key: String = store.query_row("SELECT trial FROM result WHERE replicate = 0", [], |row| row.get(0)).unwrap();
    let set = ["--set", "axes.recipe=[\"zero-shot\"]"];
    world.run(&[&["export", "x.toml", &key, "--out", "z.safetensors"][..], &set].concat()).exits(0);
    let answers = world.run(&["predict", "z.safetensors", "mine/train", "--format", "csv"]).exits(0).out;
    let right = |line: &&str| {
        let class = line.split("mine/train/").nth(1).and_then(|rest| rest.split('/').next());
        class.is_some_and(|class| line.split(',').nth(1) == Some(class))
    };
    let lines: Vec<&str> = answers.lines().skip(1).collect();
    assert_eq!(lines.len(), 36, "{answers}");
    let expected = lines.iter().filter(|line| right(line)).count() as f64 / 36.0;
    assert!(expected > 0.0, "{answers}");

    let of = ["--arch", "clip_vitb32", "--width", "0.0625", "--input", "64", "--preprocess", "clip"];
    let base = [&["recommend", "clip.safetensors", "mine", "--format", "json"][..], &of].concat();
    let said = world.run(&[&base[..], &["--out", "advised.toml"]].concat()).exits(0).out;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["class_names"]["accuracy"], expected, "{said}");
    let names = said["recipes"].as_array().unwrap().iter().filter(|recipe| recipe["name"] == "zero-shot").count();
    assert_eq!((names, said["class_names_not_asked"].is_null()), (1, true));
    world.run(&["check", "advised.toml"]).exits(0);
    let text = world.run(&[&["recommend", "clip.safetensors", "mine"][..], &of].concat()).exits(0).out;
    assert!(text.contains("right without any other image (\"a photo of a ants.\", \"a photo of a bees.\","), "{text}");
    std::fs::remove_file(world.path("clip.tokenizer.json")).unwrap();
    let said: Value = serde_json::from_str(&world.run(&base).exits(0).out).unwrap();
    assert!(said["class_names"].is_null(), "{said}");
    let why = said["class_names_not_asked"].as_str().unwrap();
    assert!(why.contains("there is no tokenizer of 'clip.safetensors'"), "{why}");
}
