"""What a grid costs at least, and what it costs one trial after another: formula B2, from layers and splits alone.

Usage: bound.py GRID.json (what benches/sweep.rs wrote). Per image: F the multiply-accumulates of a forward pass, phi the
part of F at or below the cut; a trainable layer costs two more passes, for its input and for its weights.

    loop  = sum over trials of  E N_train F (3 - 2 phi) + E N_val F + N_test F
    least = sum over sets of images of  U phi_max F
          + sum over trials of  (1 - phi) F (3 E N_train + E N_val + N_test)
    With augmentation the training part of U is E N_train for each (dataset, size, replicate). A source model is trained
    and scored once on both sides: (3 N + N_val) F.

Prints both and their ratio as JSON."""

import json, math, sys


def kind(op):
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


def macs(graph):
    layers = graph["layers"]
    found = []
    for layer in layers:
        name, o = kind(layer["op"])
        channels = layers[layer["inputs"][0]]["shape"][0] if layer["inputs"] else 0
        outputs = math.prod(layer["shape"])
        if name == "Conv":
            found.append(outputs * channels // o["groups"] * o["kernel"][0] * o["kernel"][1])
        elif name == "Linear":
            found.append(outputs * math.prod(layers[layer["inputs"][0]]["shape"]))
        else:
            found.append(0)
    return found


def reads(phase, images):
    """Images that a phase reads for training, and how often it reads validation."""
    if "epochs" in phase["budget"]:
        epochs = phase["budget"]["epochs"]
        return epochs * images, epochs
    steps, per_epoch = phase["budget"]["steps"], math.ceil(images / phase["batch"])
    return steps // per_epoch * images + min(steps % per_epoch * phase["batch"], images), min(10, steps)


def main(path):
    grid = json.load(open(path))
    cost = {name: macs(graph) for name, graph in grid["graphs"].items()}
    loop = suffixes = 0.0
    sets, streams = {}, {}
    sources = sum(sum(cost[source["graph"]]) * (3 * reads(source["phase"], source["images"])[0] + source["val"])
                  for source in grid["sources"].values())
    for trial in grid["trials"]:
        own, split = cost[trial["graph"]], grid["splits"][trial["split"]]
        n = {part: len(split[part]) for part in ("train", "val", "test")}
        whole = sum(own)
        prefix = sum(own[: trial["cut"] + 1]) if trial["cut"] is not None else 0
        loop += whole * n["test"]
        suffix = (whole - prefix) * n["test"]
        for phase, frozen in zip(trial["phases"], trial["frozen"]):
            below = sum(own[:frozen])
            read, evaluations = reads(phase, n["train"])
            loop += read * (3 * whole - 2 * below) + evaluations * n["val"] * whole
            suffix += read * (3 * whole - 2 * below - prefix) + evaluations * n["val"] * (whole - prefix)
            if prefix and phase["augment"]:
                stream = (trial["start"], trial["split"])
                streams[stream] = max(streams.get(stream, 0), read * prefix)
        suffixes += suffix
        if prefix:
            augmented = any(phase["augment"] for phase in trial["phases"])
            data = trial["split"].split("-")[0]
            images, deepest = sets.setdefault((trial["start"], data, augmented), [set(), [0]])
            for part in ("val", "test") if augmented else ("train", "val", "test"):
                images.update(sample for sample, _ in split[part])
            deepest[0] = max(deepest[0], prefix)
    encoded = sum(len(images) * deepest[0] for images, deepest in sets.values())
    lockstep = sum(streams.values())
    loop += sources
    least = suffixes + encoded + lockstep + sources
    print(json.dumps({"trials": len(grid["trials"]), "loop": loop, "least": least, "bound": loop / least,
                      "suffixes": suffixes, "encoded": encoded, "lockstep": lockstep, "sources": sources}))


if __name__ == "__main__":
    main(sys.argv[1])
