//! What stands around the settings: the tables of a file, and the keys of the experiment, its data, scenarios and rules.

use super::super::accepted::{
    also_test, bounded, class_names, corruption, flag, fraction, hex64, names_of_classes, per_class, splits, synthetic,
    text, whole,
};
use super::{COUNT, FLAG, FRACTION, Group, Key, TABLE, TEXT, Value, WHOLE, key};
use crate::recipe::{self, Keep, Metric};
use crate::scenario::{Similarity, Size};

/// Tables at the top of the file, and what each is for.
pub static TABLES: &[(&str, &str)] = &[
    ("extends", "Another experiment file that this one changes: tables merge key by key, lists are replaced."),
    ("experiment", "What is asked, how often, from which seed."),
    ("backbone", "The network that is transferred."),
    ("pretrain", "How the source model is made when `weights = \"pretrain\"`: a shared, cached stage."),
    ("datasets", "[datasets.NAME]: where images come from."),
    ("scenarios", "[scenarios.NAME]: a target at a size. Any key of [train] and [backbone] may stand here too."),
    (
        "recipes",
        "[recipes.NAME]: a way to transfer. Any key of [train] and [backbone] may stand here too. linear-probe, first-layers-frozen, early-features, fine-tune, from-scratch and zero-shot are built in; a table of that name replaces one.",
    ),
    ("train", "How every trial trains, unless a scenario, a recipe or an axis says otherwise."),
    (
        "axes",
        "The cross: KEY = [values] or { log = [low, high], n = 4 } or { linear = [low, high], n = 4 }, in the order of the file.",
    ),
    ("zip", "[[zip]]: axes that move together."),
    ("when", "[[when]]: axes that exist only where a condition holds."),
    ("exclude", "[[exclude]]: cells that are left out, with the reason."),
    ("include", "[[include]]: single cells beside the cross: a scenario, a recipe and any settings."),
    ("rule", "[[rule]]: a claim to test."),
];

pub static KEYS: &[Key] = &[
    key!(Experiment, "name", "the file's name", text, TEXT, "What reports and the store call this experiment."),
    key!(
        Experiment,
        "question",
        "",
        text,
        TEXT,
        "The question that the experiment is to answer; printed above its report."
    ),
    key!(
        Experiment,
        "replicates",
        "3",
        |v| bounded(v, 1_000),
        COUNT,
        "How many paired repetitions every cell gets: other subset, order and head per replicate, the same for all arms."
    ),
    key!(
        Experiment,
        "tune_replicates",
        "replicates",
        |v| bounded(v, 1_000),
        COUNT,
        "On how many of the replicates all settings of a recipe (what `lr` and other keys that only tune make of it) are compared: 2 of 5, say. The others run for the one that leads by validation; where its mean then falls behind what another has reached on these, for that one as well."
    ),
    key!(
        Experiment,
        "tune_share",
        "the whole budget",
        |v| recipe::number(v, 0.01, 0.49).map(drop),
        r#"{"type":"number","minimum":0.01,"maximum":0.49}"#,
        "On what share of its steps or epochs each setting of a recipe is compared first, with the whole schedule within it: of 0.25, that quarter of the settings (two at least) which does best on validation then runs the whole budget, and is compared on that as ever (one round of successive halving; Jamieson and Talwalkar, 2016). Test is not read for the first comparison. Recipes with too few settings to gain by it are compared on the whole budget at once."
    ),
    key!(
        Experiment,
        "max_replicates",
        "replicates",
        |v| bounded(v, 1_000),
        COUNT,
        "Where rules are still open after `replicates`, their recipes run on, and are looked at again after half as many more each time, up to so many: `replicates = 5` and `max_replicates = 20` look after 5, 8, 12 and 20. What is settled, or will hardly be, stops. Intervals and p values hold at all looks together. All settings of a recipe are compared on the first `replicates` at most."
    ),
    key!(Experiment, "seed", "0", whole, WHOLE, "The number from which every random stream is derived."),
    key!(
        Experiment,
        "metric",
        "accuracy",
        |v| recipe::word::<Metric>(v, "'accuracy', 'balanced-accuracy' or 'macro-f1'").map(drop),
        r#"{"enum":["accuracy","balanced-accuracy","macro-f1"]}"#,
        "What selects a setting on validation and what rules compare on test."
    ),
    key!(
        Experiment,
        "refit",
        "false",
        flag,
        FLAG,
        "Whether every trial, once validation has scored it, trains again on training and validation images before test is read. For all arms or for none."
    ),
    key!(
        Experiment,
        "keep",
        "none",
        |v| recipe::word::<Keep>(v, "'none', 'best-per-scenario' or 'all'").map(drop),
        r#"{"enum":["none","best-per-scenario","all"]}"#,
        "Whose trained networks stay beside the store, so that `export` need not train them again: of nobody, of the best recipe of each scenario (until a sweep ends, of all), or of all trials."
    ),
    key!(
        Experiment,
        "mix_numerics",
        "false",
        flag,
        FLAG,
        "Allow trials of other numerics classes (another kind of device, as `doctor` names it) in one experiment."
    ),
    key!(
        Pretrain,
        "dataset",
        "",
        text,
        TEXT,
        "The source dataset. All its training images are used. Keys of [train] that bear on its steps may stand beside it; it is trained to its last one."
    ),
    key!(
        Dataset,
        "path",
        "",
        text,
        TEXT,
        "A folder, .tar, .tar.gz or .zip of split/class/file, or of class/file with a share to test on or with `folds`; a CIFAR or IDX folder, an .npz as MedMNIST or Keras has them, or a .csv manifest, under --data."
    ),
    key!(
        Dataset,
        "splits",
        "train, val, test",
        splits,
        TABLE,
        "Folder names where they differ: { test = \"val\" }. Where there is no test split, the share of each class that is tested, the same images in every experiment: { test = 0.2 }; { test = 1 } tests all, for `also_test`."
    ),
    key!(
        Dataset,
        "folds",
        "",
        |v| match recipe::count(v, 2)? {
            2..=100 => Ok(()),
            count => Err(format!("{count} folds; at most 100 are dealt")),
        },
        r#"{"type":"integer","minimum":2,"maximum":100}"#,
        "Cross-validation, where there is no test split: the images are dealt into so many folds, and each replicate tests on another one; after as many replicates they are dealt anew. Images of one group, or with the same bytes, are in one fold."
    ),
    key!(
        Dataset,
        "synthetic",
        "",
        synthetic,
        TABLE,
        "Built-in images instead of a path: { classes = 10, shift = 0.0, task = 0, train = 300, test = 100 }. `shift` is the distance from the source; train and test count images per class."
    ),
    key!(
        Dataset,
        "classes",
        "all",
        |v| class_names(v).map(drop),
        r#"{"type":"array","items":{"type":"string"},"minItems":2,"uniqueItems":true}"#,
        "Only images of these classes: a part of a dataset as a source, or as a target that is near it or far. Tables of their own may share a path."
    ),
    key!(
        Dataset,
        "names",
        "what the classes are called, `_` and `-` as spaces",
        |v| names_of_classes(v).map(drop),
        r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
        "What classes are called in texts, for head_start = \"class-names\": { n02099601 = \"golden retriever\" }. Those that are not named here go by their own names."
    ),
    key!(
        Dataset,
        "also_test",
        "",
        |v| also_test(v).map(drop),
        r#"{"type":"array","items":{"type":"string"},"minItems":1,"uniqueItems":true}"#,
        "What every trial is tested on as well: the test images of other datasets with the same classes (another camera, another place, another year), by their names; its own, corrupted as in `corrupt`; or with \"corruptions 3\" in all these ways. None of them selects anything; a [[rule]] may speak of them (`on`)."
    ),
    key!(
        Dataset,
        "corrupt",
        "not at all",
        corruption,
        TEXT,
        "What is done to all of its images, behind resizing, with a severity of 1 to 5: \"gaussian-noise 3\", and so shot-noise, impulse-noise, speckle-noise, gaussian-blur, defocus-blur, motion-blur, zoom-blur, fog, brightness, contrast, saturate, pixelate, jpeg (Hendrycks and Dietterich, 2019: up to 64 pixels as in CIFAR-10-C, beyond as in ImageNet-C)."
    ),
    key!(
        Dataset,
        "white",
        "65535",
        |v| bounded(v, u16::MAX.into()),
        r#"{"type":"integer","minimum":1,"maximum":65535}"#,
        "The value that is white in images of 16 bits, such as 4095 where a camera or a microscope has 12. What is brighter is white, too; images of 8 bits are left alone."
    ),
    key!(
        Dataset,
        "sha256",
        "",
        hex64,
        TEXT,
        "Pin: other bytes are refused. Of the file, or for a folder what `data` prints."
    ),
    key!(
        Dataset,
        "on_bad_image",
        "error",
        |v| match v.text() {
            Some("error" | "skip") => Ok(()),
            _ => Err("expected 'error' or 'skip'".to_owned()),
        },
        r#"{"enum":["error","skip"]}"#,
        "What an image that cannot be read does: stop everything, or be left out and listed."
    ),
    key!(
        Dataset,
        "near_duplicates",
        "keep",
        |v| match v.text() {
            Some("keep" | "drop" | "together") => Ok(()),
            _ => Err("expected 'keep', 'drop' or 'together'".to_owned()),
        },
        r#"{"enum":["keep","drop","together"]}"#,
        "What becomes of training and validation images that are a test image once more (compressed, scaled, brightened, mirrored, cut a little otherwise): they stay, and the report says what that is worth, or they are left out. The test images stay as published. Where there is no test split, `together` deals near-duplicates as one, so that none is tested on what was trained on."
    ),
    key!(
        Scenario,
        "size",
        "",
        |v| recipe::word::<Size>(v, "'small' or 'large'").map(drop),
        r#"{"enum":["small","large"]}"#,
        "Label of the cell; `per_class` decides."
    ),
    key!(
        Scenario,
        "similarity",
        "",
        |v| recipe::word::<Similarity>(v, "'similar' or 'different'").map(drop),
        r#"{"enum":["similar","different"]}"#,
        "Label of the cell; the dataset decides."
    ),
    key!(Scenario, "dataset", "", text, TEXT, "The target dataset, a name of [datasets]."),
    key!(
        Scenario,
        "per_class",
        "all",
        per_class,
        r#"{"type":["integer","string","array"],"minimum":1}"#,
        "Training images of each class, exactly; nested over sizes for one replicate. Validation is carved before. A list makes a scenario \
         of each: NAME-5, NAME-20 and NAME-all of [5, 20, \"all\"]; in `scenario` of an axis or of a rule NAME is all of them. The report then says what more images buy."
    ),
    key!(
        Rule,
        "scenario",
        "every scenario",
        text,
        TEXT,
        "Where the rule is claimed; `*` stands for any run of letters."
    ),
    key!(Rule, "claim", "", text, TEXT, "`A > B`: recipe A scores higher than recipe B."),
    key!(
        Rule,
        "on",
        "the scenario's own test images",
        text,
        TEXT,
        "On which of those that the scenario's dataset names in `also_test` it is claimed; `*` stands for any run of letters, and the images of all that match count as one set, in which a picture counts once."
    ),
    key!(
        Rule,
        "metric",
        "that of [experiment]",
        |v| match v.text() {
            Some("accuracy" | "balanced-accuracy" | "macro-f1" | "log-loss") => Ok(()),
            _ => Err("expected 'accuracy', 'balanced-accuracy', 'macro-f1' or 'log-loss'".to_owned()),
        },
        r#"{"enum":["accuracy","balanced-accuracy","macro-f1","log-loss"]}"#,
        "What it is claimed of. Of `log-loss`, in nats, A > B says that A's probabilities are better: that B loses more. A probability below 1e-38 counts as that."
    ),
    key!(Rule, "margin", "0.005", fraction, FRACTION, "Differences within plus or minus this are equivalence."),
    key!(Condition, "if", "", text, TEXT, "A condition over resolved keys: \"freeze != 'all' && lr > 5e-3\"."),
    key!(
        Condition,
        "axes",
        "",
        |v| match v {
            Value::Table(_) => Ok(()),
            _ => Err("expected a table of axes".to_owned()),
        },
        TABLE,
        "Axes that exist only where the condition of a [[when]] holds."
    ),
    key!(Condition, "reason", "", text, TEXT, "Why an [[exclude]] leaves these cells out; shown by plan and report."),
];
