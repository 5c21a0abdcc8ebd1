//! Experiment files: every problem at once, each with its place and its cure.

use tl_sweep::experiment::Experiment;
use tl_sweep::experiment::condition::Condition;
use tl_sweep::value::{Layer, Value};

use crate::builder::World;

const GOOD: &str = r#"
[backbone]
arch = "resnet8"
input = 16
weights = "random"
[datasets.a]
synthetic = { classes = 3, train = 20, test = 5 }
[scenarios.s]
dataset = "a"
[axes]
recipe = ["linear-probe", "fine-tune"]
"#;

/// The messages of all problems of a file.
#[track_caller]
fn problems(text: &str) -> String {
    match Experiment::parse("test", text) {
        Ok(_) => panic!("no problem found in:\n{text}"),
        Err(problems) => problems.render(false),
    }
}

#[test]
fn a_good_file_resolves() {
    let experiment = Experiment::parse("test", GOOD).unwrap();
    assert_eq!((experiment.name.as_str(), experiment.replicates, experiment.axes.len()), ("test", 3, 2));
}

#[test]
fn all_problems_come_at_once_with_line_and_column() {
    let text = GOOD
        .replace("arch =", "arhc =")
        .replace("classes = 3", "classes = 1")
        .replace("dataset = \"a\"", "dataset = \"b\"")
        .replace("fine-tune", "fine-tnue");
    let found = problems(&text);
    for expected in [
        "test.toml:3:1",
        "did you mean `arch`?",
        "test.toml:7:13",
        "there is no dataset 'b'",
        "did you mean `fine-tune`?",
        "4 problems",
    ] {
        assert!(found.contains(expected), "no {expected} in:\n{found}");
    }
}

/// It was passed over before, or ended the worker.
#[test]
fn a_source_model_refuses_what_it_would_pass_over() {
    let text = |line: &str| {
        let source = "[datasets.source]\nsynthetic = { classes = 3, train = 20, test = 5 }\n";
        let pretrain = format!("[pretrain]\ndataset = \"source\"\nsteps = 5\n{line}\n{source}[scenarios.s]");
        GOOD.replace("weights = \"random\"", "weights = \"pretrain\"").replace("[scenarios.s]", &pretrain)
    };
    for line in [
        "early_stop = { patience = 2 }",
        "keep_weights = \"best\"",
        "views = 2",
        "lambda = 0.1",
        "start_decay = 0.1",
        "dropout = 0.5",
        "precision = \"tf32\"",
        "calibrate = \"temperature\"",
    ] {
        let found = problems(&text(line));
        assert!(found.contains("does nothing in [pretrain]") && found.contains("test.toml:11:1"), "{line}: {found}");
    }
    let found = problems(&text("optimizer = \"ridge\""));
    assert!(found.contains("a source model is trained with 'sgd' or 'adamw'"), "{found}");
    for line in ["optimizer = \"adamw\"", "label_smoothing = 0.1", "backbone_lr = 0.1", "augment = [\"flip\"]"] {
        Experiment::parse("test", &text(line)).unwrap_or_else(|found| panic!("{}", found.render(false)));
    }
    // Trials may all be calibrated.
    let all = GOOD.replace("[axes]", "[train]\ncalibrate = \"temperature\"\n[axes]");
    let experiment = Experiment::parse("test", &all).unwrap();
    assert_eq!(experiment.base["calibrate"], Value::Text("temperature".to_owned()));
}

#[test]
fn what_has_no_meaning_is_an_error() {
    for (old, new, expected) in [
        ("[axes]", "[axes]\nlr = [0.1, 0.1]", "twice"),
        ("[axes]", "[axes]\nreplicate = [1, 2]", "never an axis"),
        ("[axes]", "[experiment]\nreplicates = 1000000000000\n[axes]", "beyond the most"),
        ("[axes]", "[train]\nsteps = 9223372036854775807\n[axes]", "beyond the most"),
        ("[axes]", "[train]\nsteps = 9223372036854775808\n[axes]", "does not fit"),
        ("[axes]", "[train]\nlr = inf\n[axes]", "finite"),
        ("train = 20", "train = 999999999", "synthetic images"),
        ("[axes]", "[axes]\nlr = []", "no values"),
        ("[axes]", "[axes]\nlr = 0.1", "write lr = [0.1]"),
        ("[axes]", "[axes]\nlr = { log = [0, 1], n = 3 }", "a range is"),
        ("[axes]", "[axes]\nfreeze = [\"none\"]", "stands in the recipe"),
        ("[axes]", "[train]\nsteps = 5\nepochs = 5\n[axes]", "exactly one"),
        ("[axes]", "[train]\ntap = \"features\"\n[axes]", "`tap` is a key of [recipes.NAME]"),
        ("[axes]", "[[exclude]]\nif = \"lr >\"\n[axes]", "expected a text"),
        ("[axes]", "[[exclude]]\nif = \"speed > 3\"\n[axes]", "cannot ask for `speed`"),
        ("[axes]", "[[rule]]\nclaim = \"a > fine-tune\"\n[axes]", "no recipe"),
        ("[axes]", "[[rule]]\nclaim = \"fine-tune\"\n[axes]", "is not a claim"),
        ("[axes]", "[[zip]]\nlr = [1, 2]\nbatch = [1]\n[axes]", "move together"),
        ("[axes]", "[recipes.x]\naugment = [\"flip\", \"flip\"]\n[axes]", "twice"),
        ("[axes]", "[recipes.x]\nphases = [{ tap = \"x\" }]\n[axes]", "a phase has no 'tap'"),
        ("synthetic = { classes = 3, train = 20, test = 5 }", "", "needs `path` or `synthetic`"),
        ("[scenarios.s]\ndataset = \"a\"", "", "no scenario"),
    ] {
        let found = problems(&GOOD.replace(old, new));
        assert!(found.contains(expected), "no '{expected}' for {new} in:\n{found}");
    }
}

#[test]
fn a_broken_text_is_told_as_such_and_nothing_else() {
    let found = problems("a = = 3\n[x");
    assert!(found.contains("not valid TOML") && !found.contains("no table"), "{found}");
}

#[test]
fn an_exclude_that_matches_nothing_and_a_layer_that_is_not_there_are_errors() {
    let world = World::new()
        .file("exclude.toml", format!("{GOOD}\n[[exclude]]\nif = \"lr > 5\"\n"))
        .file("freeze.toml", GOOD.replace("[axes]", "[recipes.fine-tune]\nfreeze = \"layer9\"\n[axes]"))
        .file("index.toml", GOOD.replace("[axes]", "[recipes.fine-tune]\nfreeze = 900\n[axes]"))
        .file("tap.toml", GOOD.replace("[axes]", "[recipes.fine-tune]\ntap = \"layer1.0.rleu2\"\n[axes]"))
        .file("few.toml", GOOD.replace("dataset = \"a\"", "dataset = \"a\"\nper_class = 17"));
    assert!(world.run(&["plan", "exclude.toml"]).exits(2).err.contains("matches no cell"));
    let freeze = world.run(&["plan", "freeze.toml"]).exits(2).err;
    assert!(freeze.contains("no layer or block 'layer9'") && freeze.contains("freeze.toml:11:10"), "{freeze}");
    assert!(world.run(&["plan", "index.toml"]).exits(2).err.contains("layers up to the tap"));
    assert!(world.run(&["plan", "tap.toml"]).exits(2).err.contains("did you mean 'layer1.0.relu2'"));
    assert!(world.run(&["plan", "few.toml"]).exits(2).err.contains("only 16 images for training"));
}

#[test]
fn a_file_may_extend_another_but_not_itself() {
    let world = World::new()
        .file("base.toml", GOOD)
        .file(
            "more.toml",
            "extends = \"base.toml\"\n[experiment]\nname = \"more\"\n[axes]\nrecipe = [\"linear-probe\"]\n",
        )
        .file("loop.toml", "extends = \"loop.toml\"\n");
    let said = world.run(&["plan", "more.toml", "--format", "json"]).exits(0);
    let plan: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((plan["experiment"].as_str(), plan["cells"].as_u64()), (Some("more"), Some(1)));
    assert!(world.run(&["plan", "loop.toml"]).exits(2).err.contains("extends itself"));
}

#[test]
fn conditions_see_resolved_keys() {
    let cell: Layer = [
        ("freeze", Value::Text("all".into())),
        ("lr", Value::Float(0.05)),
        ("scenario", Value::Text("small-similar".into())),
        ("batch", Value::Int(32)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (text, expected) in [
        ("freeze == 'all'", true),
        ("freeze != 'all' && lr > 1e-2", false),
        ("freeze != 'all' || lr > 1e-2", true),
        ("scenario ~ 'small-*' && !(lr < 0.05)", true),
        ("scenario !~ '*-similar'", false),
        ("batch == 32.0 && batch >= 32", true),
        ("momentum == 0.9", false),
        ("momentum != 0.9", true),
        ("train.lr <= 0.05", false),
    ] {
        assert_eq!(Condition::parse(text).unwrap().holds(&cell), expected, "{text}");
    }
    for text in ["", "lr", "lr >", "lr > 'x", "(lr > 1", "lr > 1 lr", "1 > lr", "lr = 1", "&& lr > 1"] {
        assert!(Condition::parse(text).is_err(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z\\[\\]\\.=\"'0-9 \n{},#_-]{0,200}") {
        let _ = Experiment::parse("fuzz", &text);
    }

    #[test]
    fn a_good_file_with_any_damage_is_read_or_refused(at in 0usize..250, byte in 32u8..127) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Err(problems) = Experiment::parse("fuzz", &String::from_utf8(bytes).unwrap()) {
            proptest::prop_assert!(!problems.render(false).is_empty());
        }
    }
}
