//! Rates of layers that follow how far their gradients are from their parameters: measured once for what is trained once, foreseen,
//! and refused where they mean nothing.

use crate::builder::World;
use crate::chosen::file;
use crate::sharing::{foreseen, found};

const RECIPES: [(&str, &str); 6] = [
    ("plain", "freeze = \"none\""),
    ("whole", "freeze = \"none\"\nlayer_rates = \"rgn\""),
    (
        "suffix",
        "freeze = \"layer1\"\nlayer_rates = \"rgn\"\naugment = [\"flip\", \"mixup 0.3\"]\nhead = { mlp = [6] }\ndropout = 0.3",
    ),
    ("hidden", "freeze = \"all\"\nlayer_rates = \"rgn\"\nhead = { mlp = [6] }"),
    (
        "legs",
        "phases = [{ freeze = \"all\", steps = 5 }, { freeze = \"none\", layer_rates = \"rgn\", steps = 9, optimizer = \"adamw\" }]",
    ),
    ("step", "freeze = \"layer1\"\nlayer_rates = \"rgn\"\nschedule = { step = [0.5], factor = 0.1 }"),
];

#[test]
fn ratios_are_shared_and_what_they_cost_is_foreseen() {
    let text = file(&RECIPES).replace("recipe = [", "lr = [0.01, 0.05]\nrecipe = [");
    let world = World::new().file("x.toml", text);
    let plan: serde_json::Value =
        serde_json::from_str(&world.run(&["plan", "x.toml", "--format", "json"]).exits(0).out).unwrap();
    world.run(&["run", "x.toml", "--slots", "1"]).exits(0);
    world.run(&["run", "x.toml", "--db", "alone/r.sqlite", "--no-share"]).exits(0);
    let ((shared, groups), (alone, _)) = (found(&world, "results/tl-sweep.sqlite"), found(&world, "alone/r.sqlite"));
    assert_eq!((shared.len(), &shared), (6 * 2 * 2, &alone));
    assert!(["suffix", "hidden"].iter().all(|recipe| groups[*recipe] > 1), "{groups:?}");
    let said = world.run(&["verify", "x.toml", "--all"]).exits(0).out;
    assert!(said.contains("24 of 24 trials"), "{said}");
    foreseen(&world, &plan);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let sum = |what: &str| store.query_row(what, [], |row| row.get::<_, f64>(0)).unwrap();
    let of = |recipe: &str, what: &str| {
        sum(&format!("SELECT avg({what}) FROM trial WHERE key IN (SELECT trial FROM result WHERE recipe = '{recipe}')"))
    };
    assert!(of("whole", "macs") > 1.2 * of("plain", "macs"));
    assert!(of("whole", "test_loss") != of("plain", "test_loss"));
}

#[test]
fn ratios_of_nothing_are_dropped_or_refused() {
    let world = World::new().file(
        "x.toml",
        file(&[
            ("probe", "freeze = \"all\""),
            ("same", "freeze = \"all\"\nlayer_rates = \"rgn\""),
            ("even", "freeze = \"none\"\nlayer_rates = \"even\""),
            ("plain", "freeze = \"none\""),
        ]),
    );
    let said = world.run(&["plan", "x.toml"]).exits(0).out;
    assert!(said.contains("4 distinct trials"), "{said}");
    crate::chosen::refused(&[
        ("trains = \"biases\"\nlayer_rates = \"rgn\"", "its gradient is infinitely far from it"),
        ("layer_rates = \"auto\"", "expected 'even' or 'rgn', found 'auto'"),
        ("freeze = \"none\"\nlayer_rates = 2", "expected 'even' or 'rgn'"),
    ]);
}
