//! The golden run: when the bits of a result change, `ENGINE` must be raised by hand.

use tl_sweep::device::CpuPath;

use crate::builder::World;

/// Bits of a short training, per instruction path: engine, then the hash of losses and predictions.
const GOLDEN: [(CpuPath, u32, &str); 4] = [
    (CpuPath::Avx512, 5, "130f690289754f9f"),
    (CpuPath::Avx2, 5, "130f690289754f9f"),
    (CpuPath::Neon, 5, "130f690289754f9f"),
    (CpuPath::Portable, 5, "4d60832f5af4861e"),
];

#[test]
fn bits_change_only_with_the_engine() {
    let here: Vec<_> = GOLDEN.into_iter().filter(|(path, ..)| path.is_here()).collect();
    let found: Vec<_> = here.iter().map(|(path, ..)| (*path, tl_sweep::key::ENGINE, golden_run(*path))).collect();
    let expected: Vec<_> = here.into_iter().map(|(path, engine, hash)| (path, engine, hash.to_owned())).collect();
    assert_eq!(found, expected, "results have changed: raise ENGINE in src/key.rs, and write all of these here");
}

/// A short sweep on one instruction path; a hash of its losses and predictions.
fn golden_run(path: CpuPath) -> String {
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
    let status = world.command(&["run", "golden.toml", "--cpu-path", path.name()]).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
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
    let class: String = store.query_row("SELECT DISTINCT numerics FROM trial", [], |row| row.get(0)).unwrap();
    assert_eq!(class, path.numerics());
    hasher.finalize().to_hex()[..16].to_owned()
}
