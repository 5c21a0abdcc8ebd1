"""The honest loop: trials of a grid one after another in PyTorch, as a careful person would write it.

Usage: loop.py FOLDER (what benches/sweep.rs wrote) [--threads N] [--only KEY ...]. Images lie decoded in memory; layers
below the freeze depth run under no_grad and in evaluation mode; everything above trains with torch's SGD or AdamW under the
same schedule, on the same batches in the same order, from the same weights; validation is read after every epoch and test
once. Convolutional parts run in channels_last, which is the faster format here. Prints one JSON line for each trial: its
seconds, the mean training loss and validation loss of each epoch, and the test accuracy."""

import argparse, json, math, time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

PREPROCESS = {
    "tf": ([0, 1, 2], [1 / 127.5] * 3, [-1.0] * 3),
    "torch": ([0, 1, 2], [1 / (255 * s) for s in (.229, .224, .225)], [-m / s for m, s in zip((.485, .456, .406), (.229, .224, .225))]),
    "caffe": ([2, 1, 0], [1.0] * 3, [-103.939, -116.779, -123.68]),
    "caffe-rgb": ([0, 1, 2], [1.0] * 3, [-255 * m for m in (.48235, .45882, .40784)]),
    "zero-one": ([0, 1, 2], [1 / 255] * 3, [0.0] * 3),
    "none": ([0, 1, 2], [1.0] * 3, [0.0] * 3),
}
ACTIVATIONS = {"linear": None, "relu": F.relu, "relu6": F.relu6}


def kind(op):
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


class Net:
    """A network layer by layer; `run` does the layers first..last on the outputs so far."""

    def __init__(self, graph, weights, dropout):
        self.keras = graph["framework"] == "keras"
        self.dropout, self.calls, self.params, self.inputs = dropout, [], [], []
        self.training_norms = set()
        readers = {}
        for index, layer in enumerate(graph["layers"]):
            for source in layer["inputs"]:
                readers.setdefault(source, []).append(index)
        self.last_reader = {source: max(own) for source, own in readers.items()}
        for index, layer in enumerate(graph["layers"]):
            own = {name: weights[f"{layer['name']}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
                   if f"{layer['name']}.{name}" in weights}
            own = {name: (t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t).clone() for name, t in own.items()}
            self.params.append(own)
            self.inputs.append(layer["inputs"])
            self.calls.append(self.call(index, layer["op"], own))

    def call(self, index, op, own):
        name, o = kind(op)
        if name == "Conv":
            top, bottom, left, right = o["padding"]
            even = top == bottom and left == right
            act = ACTIVATIONS[o["activation"]]
            def conv(x):
                if not even:
                    x = F.pad(x, (left, right, top, bottom))
                y = F.conv2d(x, own["weight"], own.get("bias"), o["stride"], (top, left) if even else 0, o["dilation"], o["groups"])
                return act(y) if act else y
            return conv
        if name == "BatchNorm":
            return lambda x: F.batch_norm(x, own["running_mean"], own["running_var"], own.get("weight"), own.get("bias"),
                                          index in self.training_norms, o["momentum"], o["eps"])
        if name == "Activation":
            return ACTIVATIONS[o] or (lambda x: x)
        if name == "ZeroPad":
            top, bottom, left, right = o
            return lambda x: F.pad(x, (left, right, top, bottom))
        if name == "Pool":
            pad = (o["padding"][0], o["padding"][2])
            if o["reduce"] == "Max":
                return lambda x: F.max_pool2d(x, o["kernel"], o["stride"], pad, 1, o["ceil"])
            return lambda x: F.avg_pool2d(x, o["kernel"], o["stride"], pad, o["ceil"], o["reduce"] == "AvgPadded")
        if name == "GridPool":
            if o["grid"] == 1 and o["reduce"] != "Max":
                return lambda x: x.mean((2, 3), keepdim=True)
            pool = F.adaptive_max_pool2d if o["reduce"] == "Max" else F.adaptive_avg_pool2d
            return lambda x: pool(x, o["grid"])
        if name == "Flatten":
            return lambda x: (x.permute(0, 2, 3, 1) if self.keras and x.dim() == 4 else x).flatten(1)
        if name == "Linear":
            act = ACTIVATIONS[o["activation"]]
            def linear(x):
                y = F.linear(x.flatten(1), own["weight"], own["bias"])
                return act(y) if act else y
            return linear
        if name == "Shortcut":
            def shortcut(x):
                more = o["channels"] - x.shape[1]
                return F.pad(x[:, :, :: o["stride"], :: o["stride"]], (0, 0, 0, 0, more // 2, more - more // 2))
            return shortcut
        if name == "Dropout":
            return lambda x: F.dropout(x, self.dropout, torch.is_grad_enabled()) if self.dropout > 0 else x
        return {"Add": lambda x, y: x + y, "Concat": lambda *x: torch.cat(x, 1), "Input": lambda x: x}[name]

    def run(self, x, first, last, keep=None):
        outputs = {first - 1: x}
        for index in range(first, last):
            outputs[index] = self.calls[index](*(outputs[source] for source in self.inputs[index]))
            for source in self.inputs[index]:
                if self.last_reader[source] == index and source in outputs:
                    del outputs[source]
        return outputs[last - 1]


def factor(phase, step, total):
    warm = round(phase["warmup"] * total)
    if step < warm:
        return (step + 1) / warm
    schedule = phase["schedule"]
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))
    return schedule["step"]["factor"] ** sum(step / total >= at for at in schedule["step"]["at"])


def cut_of(graph, frozen):
    """The last layer of what can run under no_grad: where one tensor leaves the frozen part."""
    layers = graph["layers"]
    crossed = lambda cut: any(source < cut for layer in layers[cut + 1:] for source in layer["inputs"])
    return next((cut for cut in range(frozen - 1, 0, -1) if not crossed(cut)), 0)


class Images:
    """Decoded images of the samples of a split, normalised, in memory."""

    def __init__(self, trial, split):
        side = trial["side"]
        pixels = np.memmap(trial["pixels"], np.uint8, "r").reshape(-1, side, side, 3)
        samples = [s for part in ("train", "val", "test") for s, _ in split[part]]
        order, scale, shift = PREPROCESS[trial["preprocess"]]
        self.place = {sample: place for place, sample in enumerate(samples)}
        self.labels = torch.tensor([c for part in ("train", "val", "test") for _, c in split[part]])
        raw = torch.from_numpy(np.stack([pixels[s] for s in samples]))[..., order].permute(0, 3, 1, 2)
        self.x = torch.empty(raw.shape, memory_format=torch.channels_last)
        scale, shift = (torch.tensor(v)[:, None, None] for v in (scale, shift))
        self.black = shift
        for start in range(0, len(samples), 512):
            self.x[start:start + 512] = raw[start:start + 512].float() * scale + shift

    def of(self, samples):
        places = torch.tensor([self.place[sample] for sample in samples])
        return self.x[places], self.labels[places]


def augmented(x, augment, changes, black):
    """Flips and crops of a batch on the CPU, as torchvision's transforms do them, vectorised over the batch; which way each
    image goes was drawn by the other side, so that both learn from the same pixels. The border is black before
    normalisation."""
    side = x.shape[-1]
    flips, tops, lefts = zip(*changes)
    if "flip" in augment:
        x = torch.where(torch.tensor(flips)[:, None, None, None], x.flip(3), x)
    if "crop" in augment:
        pad = -(-side // 8)
        padded = black.expand(len(x), -1, side + 2 * pad, side + 2 * pad).clone(memory_format=torch.channels_last)
        padded[:, :, pad:pad + side, pad:pad + side] = x
        x = torch.stack([padded[i, :, t:t + side, l:l + side] for i, (t, l) in enumerate(zip(tops, lefts))])
        x = x.contiguous(memory_format=torch.channels_last)
    return x


def run(trial, graph, split, weights, images):
    phase, frozen = trial["phases"][0], trial["frozen"][0]
    net = Net(graph, weights, phase["dropout"])
    layers = len(graph["layers"])
    below = cut_of(graph, frozen) + 1 if frozen > 0 else 1
    # With everything of the backbone frozen its pooling belongs to what needs no gradient.
    learned = []
    for index in range(below, layers):
        if index < frozen:
            continue
        norm = kind(graph["layers"][index]["op"])[0] == "BatchNorm"
        if norm and phase["batch_norm"] == "frozen":
            continue
        if norm and phase["batch_norm"] == "train":
            net.training_norms.add(index)
        for name, tensor in net.params[index].items():
            if not name.startswith("running"):
                net.params[index][name] = tensor.requires_grad_()
                learned.append((index, net.params[index][name]))
    head = next(i for i, layer in enumerate(graph["layers"]) if layer["block"] == "head")
    groups = [{"params": [t for i, t in learned if (i >= head) == own], "base": base}
              for own, base in ((True, phase["lr"]), (False, phase["backbone_lr"]))]
    groups = [group for group in groups if group["params"]]
    optimizer = phase["optimizer"]
    if optimizer == "adamw":
        opt = torch.optim.AdamW(groups, lr=1.0, weight_decay=phase["weight_decay"], foreach=True)
    else:
        opt = torch.optim.SGD(groups, lr=1.0, momentum=optimizer["sgd"]["momentum"], weight_decay=phase["weight_decay"], foreach=True)
    train, batch = [s for s, _ in split["train"]], phase["batch"]
    epochs = phase["budget"]["epochs"]
    total, step = epochs * math.ceil(len(train) / batch), 0

    def evaluate(part):
        samples, loss, right = [s for s, _ in split[part]], 0.0, 0
        norms, net.training_norms = net.training_norms, set()
        with torch.no_grad():
            for start in range(0, len(samples), 64):
                x, y = images.of(samples[start:start + 64])
                logits = net.run(x, 1, layers)
                loss += F.cross_entropy(logits, y, reduction="sum").item()
                right += (logits.argmax(1) == y).sum().item()
        net.training_norms = norms
        return loss / max(len(samples), 1), right / max(len(samples), 1)

    start_time, train_losses, val_losses = time.perf_counter(), [], []
    for epoch in range(epochs):
        losses = []
        for start in range(0, len(train), batch):
            x, y = images.of(split["orders"][epoch][start:start + batch])
            if phase["augment"]:
                x = augmented(x, phase["augment"], split["changes"][epoch][start:start + batch], images.black)
            for group in opt.param_groups:
                group["lr"] = group["base"] * factor(phase, step, total)
            if below > 1:
                with torch.no_grad():
                    x = net.run(x, 1, below)
            loss = F.cross_entropy(net.run(x, below, layers), y, label_smoothing=phase["label_smoothing"])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            losses.append(loss.item())
            step += 1
        train_losses.append(sum(losses) / len(losses))
        val_losses.append(evaluate("val")[0])
    test = evaluate("test")
    return {"key": trial["key"], "seconds": time.perf_counter() - start_time, "train_losses": train_losses,
            "val_losses": val_losses, "test_loss": test[0], "test_accuracy": test[1]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    grid = json.load(open(f"{arguments.folder}/grid.json"))
    trials = {trial["key"]: trial for trial in grid["trials"]}
    images, known = None, None
    for key in arguments.only or grid["sample"]:
        trial = trials[key]
        split = grid["splits"][trial["split"]]
        if known != (trial["pixels"], trial["split"]):
            images, known = None, None
            images, known = Images(trial, split), (trial["pixels"], trial["split"])
        weights = load_file(f"{arguments.folder}/{key}.safetensors")
        print(json.dumps(run(trial, grid["graphs"][trial["graph"]], split, weights, images)), flush=True)


if __name__ == "__main__":
    main()
