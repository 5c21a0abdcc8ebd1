"""Is the order true that `rank` puts weight files in? On real images: its scores, from training images alone, against what
probes and fine-tunings of the same files reach on test images that `rank` never saw.

    python3 benches/rank.py target/release/tl-sweep FOLDER [DATASET ...]

wants TL_SWEEP_DATA and TL_SWEEP_WEIGHTS, writes stores and experiments into FOLDER, and prints two tables. All files read
64 pixels, so that fine-tuning them is a matter of seconds.
"""

import json
import os
import subprocess
import sys
import time

FILES = [
    "cifar10_resnet20",
    "cifar10_resnet56",
    "mobilenet_v1_0.25_128_dequant",
    "mobilenet_v1_0.5_160_dequant",
    "mobilenet_v1_0.75_224_float",
    "mobilenet_v2_1.0_224_dequant_tf2ptq",
    "squeezenet1_0_deepcompression",
]
# Name, folder that serves as test, classes.
DATASETS = [("hymenoptera", "val", 2), ("sign_digits", "test", 10), ("cifar10", "test", 10), ("mnist_25k", "test", 10)]
INPUT, PER_CLASS = "64", 60


def run(program, folder, *args):
    done = subprocess.run([program, *args, "--quiet"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def shorter(path):
    """The experiment as `rank` wrote it, on as many images as it looked at and for fewer steps."""
    text = open(path).read()
    for before, after in [
        ('dataset = "mine"\n', f'dataset = "mine"\nper_class = {PER_CLASS}\n'),
        ("tune_replicates = 2", "tune_replicates = 1"),
        ("{ log = [1e-3, 1e-1], n = 3 }", "[0.0003, 0.003]"),
        ("steps = 500\nbatch = 32", "steps = 300\nbatch = 16"),
    ]:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    open(path, "w").write(text)


def main():
    program, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    os.makedirs(folder, exist_ok=True)
    scores, tested = [], []
    for name, test, classes in DATASETS:
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        out, db = f"rank-{name}.toml", f"store-{name}/rank.sqlite"
        if os.path.exists(os.path.join(folder, out)):
            os.remove(os.path.join(folder, out))
        ask = ["rank", name, *FILES, "--test", test, "--input", INPUT, "--images", str(PER_CLASS * classes)]
        ask += ["--format", "json", "--db", db]
        start = time.time()
        run(program, folder, *ask, "--out", out)
        seconds = time.time() - start
        shorter(os.path.join(folder, out))
        run(program, folder, "run", out, "--db", db)
        said = json.loads(run(program, folder, *ask, "--against", f"ranked-{name}"))
        report = json.loads(run(program, folder, "report", f"ranked-{name}", "--format", "json", "--db", db))
        # None where every setting diverged; that counts as naming the largest class.
        found = {(arm["context"]["weights"], arm["recipe"]): arm["test_mean"] for arm in report["arms"]}
        reached = lambda file, recipe: found[file, recipe] if found[file, recipe] is not None else said["largest"]
        for own in said["foresight"]:
            best = max(reached(file, own["recipe"]) for file in FILES)
            lost = best - reached(said["first"], own["recipe"])
            taus = [f"{tau:+.2f}" if tau is not None else "-" for tau in own["kendall"].values()]
            scores.append([name, own["recipe"], f"{seconds:.0f}", *taus, f"{best:.3f}", f"{said['first']} {lost:.3f}"])
        for file in said["files"]:
            tests = [found[file["weights"], recipe] for recipe in ["linear-probe", "fine-tune"]]
            near = "yes" if file["weights"] in said["near_the_best"] else ""
            told = ["diverged" if test is None else f"{test:.3f}" for test in tests]
            tested.append([name, file["weights"], f"{file['linear']:.3f}", near, *told])
        print(f"{name} is done", file=sys.stderr)
    heading = ["dataset", "recipe", "s", "linear model", "neighbours", "LogME", "H-score", "LEEP", "best on test", "lost by the file to try first"]
    show(heading, scores)
    print()
    show(["dataset", "weights", "linear model", "not told from the best", "probe on test", "fine-tuned on test"], tested)


def show(heading, rows):
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
