"""Is what `recommend` says true? On real images: its linear models against heads that a sweep trains and tests on images that
`recommend` never saw, layer by layer; and its first recipe against the others that it names.

    python3 benches/recommend.py target/release/tl-sweep FOLDER [--taps-only] [DATASET ...]

wants TL_SWEEP_DATA and TL_SWEEP_WEIGHTS, writes stores and experiments into FOLDER, and prints two tables.
"""

import json
import os
import subprocess
import sys
import time

WEIGHTS = "mobilenet_v1_0.25_128_dequant"
# Name, folder that serves as test, training images of each class.
DATASETS = [("cifar10", "test", 100), ("hymenoptera", "val", 90), ("sign_digits", "test", 100), ("mnist_25k", "test", 100)]


def run(program, folder, *args):
    done = subprocess.run([program, *args, "--quiet"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def ranks(values):
    """Ranks from 0 on; equal values share the mean of theirs."""
    below = [sum(other < value for other in values) for value in values]
    same = [sum(other == value for other in values) for value in values]
    return [low + (many - 1) / 2 for low, many in zip(below, same)]


def spearman(one, other):
    one, other = ranks(one), ranks(other)
    mean = (len(one) - 1) / 2
    spread = lambda a, b: sum((x - mean) * (y - mean) for x, y in zip(a, b))
    return spread(one, other) / (spread(one, one) * spread(other, other)) ** 0.5


def heads(said, test, per_class):
    """The experiment that trains a linear head on each of the layers that were looked at."""
    recipes = "".join(
        f'[recipes.at-{place}]\nfreeze = "all"\ntap = "{tap["tap"]}"\npool = {tap["pool"]}\nhead = "linear"\n'
        f'augment = []\noptimizer = "ridge"\nlambda = {{ log = [1e-4, 1e3], n = 15 }}\n'
        for place, tap in enumerate(said["taps"])
    )
    splits = "" if test == "test" else f'splits = {{ test = "{test}" }}\n'
    names = ", ".join(f'"at-{place}"' for place in range(len(said["taps"])))
    return (
        f'[experiment]\nname = "taps"\nreplicates = 3\n[backbone]\nweights = "{WEIGHTS}"\n'
        f'[datasets.mine]\npath = "{said["dataset"]}"\n{splits}[scenarios.mine]\ndataset = "mine"\nper_class = {per_class}\n'
        f"{recipes}[axes]\nrecipe = [{names}]\n"
    )


def arms(program, folder, name, db):
    report = json.loads(run(program, folder, "report", name, "--format", "json", "--db", db))
    return {arm["recipe"]: (arm["test_mean"], arm["test_ci95"]) for arm in report["arms"]}


def main():
    program, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    os.makedirs(folder, exist_ok=True)
    names = [argument for argument in sys.argv[3:] if argument != "--taps-only"]
    layers, recipes = [], []
    for name, test, per_class in DATASETS:
        if names and name not in names:
            continue
        out = f"{name}.toml"
        if os.path.exists(os.path.join(folder, out)):
            os.remove(os.path.join(folder, out))
        start = time.time()
        images = str(per_class * (2 if name == "hymenoptera" else 10))
        said = json.loads(
            run(program, folder, "recommend", WEIGHTS, name, "--test", test, "--images", images, "--format", "json", "--out", out)
        )
        seconds = time.time() - start
        with open(os.path.join(folder, f"taps-{name}.toml"), "w") as file:
            file.write(heads(said, test, per_class))
        run(program, folder, "run", f"taps-{name}.toml", "--db", f"store-{name}/taps.sqlite")
        found = arms(program, folder, "taps", f"store-{name}/taps.sqlite")
        tested = [found[f"at-{place}"][0] for place in range(len(said["taps"]))]
        looked = {kind: [tap[kind]["accuracy"] for tap in said["taps"]] for kind in ("linear", "neighbours", "random_weights")}
        best = max(range(len(tested)), key=lambda place: tested[place])
        chosen = max(range(len(tested)), key=lambda place: looked["linear"][place])
        error = sum(abs(one - other) for one, other in zip(looked["linear"], tested)) / len(tested)
        correlations = " | ".join(f"{spearman(looked[kind], tested):+.2f}" for kind in looked)
        layers.append(
            f"| {name} | {said['size']}, {said['similarity']} | {seconds:.1f} | {error:.3f} | {correlations} | "
            f"{said['taps'][chosen]['tap']} {tested[chosen]:.3f} | {said['taps'][best]['tap']} {tested[best]:.3f} |"
        )
        if "--taps-only" in sys.argv:
            continue
        path = os.path.join(folder, out)
        with open(path) as file:
            text = file.read().replace('dataset    = "mine"\n', f'dataset    = "mine"\nper_class  = {per_class}\n')
        with open(path, "w") as file:
            file.write(text)
        start = time.time()
        run(program, folder, "run", out, "--db", f"store-{name}/recipes.sqlite")
        minutes = (time.time() - start) / 60
        experiment = text.split('name       = "')[1].split('"')[0]
        found = arms(program, folder, experiment, f"store-{name}/recipes.sqlite")
        order = [recipe["name"] for recipe in said["recipes"]]
        scores = ", ".join(f"{recipe} {found[recipe][0]:.3f} ± {found[recipe][1]:.3f}" for recipe in order)
        lost = max(score for score, _ in found.values()) - found[order[0]][0]
        recipes.append(f"| {name} | {scores} | {lost:.3f} | {minutes:.1f} |")
    print("| dataset | scenario | s | error of the linear model | rank correlation: linear | neighbours | random weights | layer chosen, on test | best layer on test |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(layers))
    if recipes:
        print("\n| dataset | recipes in the order of the advice, on test | lost by the first | minutes |\n|---|---|---|---|")
        print("\n".join(recipes))


if __name__ == "__main__":
    main()
