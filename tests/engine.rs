//! The golden run: when the bits of a result change, `ENGINE` must be raised by hand.

use crate::builder::World;

/// Bits of a short training, per numerics class of the CPU paths: engine, then the hash of losses and predictions.
const GOLDEN: &[(&str, u32, &str)] = &[("cpu-avx512", 1, "06dfbe77c93cdf3a")];

#[test]
fn bits_change_only_with_the_engine() {
    let numerics = tl_sweep::device::Device::Cpu.numerics();
    let Some((_, engine, expected)) = GOLDEN.iter().find(|(class, ..)| *class == numerics) else {
        eprintln!("skipped: no golden bits for {numerics}");
        return;
    };
    let world = World::new().file(
        "golden.toml",
        "[experiment]\nreplicates = 1\nseed = 3\n[backbone]\narch = \"resnet8\"\ninput = 16\nweights = \"pretrain\"\n\
         [pretrain]\ndataset = \"a\"\nsteps = 12\nlr = 0.05\n[datasets.a]\nsynthetic = { classes = 4, train = 30, test = 10 }\n\
         [datasets.b]\nsynthetic = { classes = 4, task = 1, shift = 0.3, train = 30, test = 10 }\n[scenarios.s]\ndataset = \"b\"\nper_class = 8\n\
         [train]\nsteps = 15\naugment = [\"flip\", \"crop\", \"jitter\"]\nlabel_smoothing = 0.1\nweight_decay = 1e-4\n\
         [recipes.m]\nhead = { mlp = [8] }\nbatch_norm = \"train\"\ndropout = 0.2\nfreeze = \"layer1\"\n\
         [recipes.w]\nhead = \"linear\"\nbatch_norm = \"affine\"\noptimizer = \"adamw\"\nlr = 1e-3\naugment = []\n\
         [axes]\nrecipe = [\"linear-probe\", \"m\", \"w\", \"from-scratch\"]\n",
    );
    world.run(&["run", "golden.toml"]).exits(0);
    let store = rusqlite::Connection::open(world.path("results/tl-sweep.sqlite")).unwrap();
    let mut hasher = blake3::Hasher::new();
    let mut statement = store
        .prepare("SELECT printf('%.17g %.17g', val_loss, test_loss), probability FROM planned JOIN trial ON trial.key = planned.trial JOIN prediction ON prediction.trial = trial.key ORDER BY position, part")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut count = 0;
    while let Some(row) = rows.next().unwrap() {
        hasher.update(row.get::<_, String>(0).unwrap().as_bytes());
        hasher.update(&row.get::<_, Vec<u8>>(1).unwrap());
        count += 1;
    }
    assert_eq!(count, 8);
    let found = hasher.finalize().to_hex()[..16].to_owned();
    assert_eq!(
        (tl_sweep::key::ENGINE, found.as_str()),
        (*engine, *expected),
        "results have changed: raise ENGINE in src/key.rs, and write both here"
    );
}
