"""Recomputes in PyTorch what tl-sweep trained: the same weights, the same splits, an independent implementation.

    tl-sweep run experiments/cifar10-source.toml --only "recipe == 'linear-probe' || recipe == 'fine-tune'"
    python benches/recompute.py results/tl-sweep.sqlite DATA WEIGHTS

For every scenario and replicate: features of the frozen ResNet-20 from images that Pillow decodes and resizes, a linear
probe and a fine-tuning trained with torch's SGD under the same cosine schedule. Order of batches and start of the head
differ, so accuracies agree to some points, not to the bit. Needs torch, pillow, safetensors, numpy.
"""
import io
import json
import math
import sqlite3
import sys
import tarfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

torch.set_num_threads(2)


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.stride, self.pad = stride, (cout - cin) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        stage = lambda cin, cout, stride: nn.Sequential(Block(cin, cout, stride), Block(cout, cout, 1), Block(cout, cout, 1))
        self.layer1, self.layer2, self.layer3 = stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def features(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def images(path, ids):
    """Shorter side to 32, centre crop, torch's normalisation."""
    wanted = {i: n for n, i in enumerate(ids)}
    out = torch.zeros(len(ids), 3, 32, 32)
    with tarfile.open(path) as tar:
        for member in tar:
            name = member.name.split("/", 1)[-1]  # ids leave the outermost folder out
            if name in wanted:
                im = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
                side = min(im.size)
                left, top = (im.width - side) / 2, (im.height - side) / 2
                im = im.resize((32, 32), Image.BILINEAR, box=(left, top, left + side, top + side))
                pixels = torch.from_numpy(np.asarray(im).astype(np.float32) / 255).permute(2, 0, 1)
                out[wanted[name]] = pixels
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (out - mean[:, None, None]) / std[:, None, None]


def train(model, params, x, y, lr, steps, batch, seed):
    g = torch.Generator().manual_seed(seed)
    opt = torch.optim.SGD(params, lr, momentum=0.9)
    step = 0
    while step < steps:
        order = torch.randperm(len(x), generator=g)
        for start in range(0, len(x), batch):
            if step == steps:
                break
            for group in opt.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            index = order[start:start + batch]
            opt.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            opt.step()
            step += 1


def main(db, data, weights):
    store = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    state = load_file(f"{weights}/cifar10_resnet20.safetensors")
    rows = store.execute(
        """SELECT r.scenario, r.recipe, r.replicate, r.lr, r.test_accuracy, r.steps_run, r.batch, s.data, s.train, s.test, d.name
           FROM result r JOIN trial t ON t.key = r.trial JOIN split s ON s.key = t.split JOIN dataset d ON d.fingerprint = s.data
           WHERE r.experiment = 'cifar10-source' AND r.status = 'done' AND r.recipe IN ('linear-probe', 'fine-tune') AND r.lr = 0.01
           ORDER BY r.scenario, r.recipe, r.replicate"""
    ).fetchall()
    files = {"signs": "sign_digits", "digits": "mnist_25k"}
    cache, found = {}, {}
    for scenario, recipe, replicate, lr, accuracy, steps, batch, fingerprint, train_ids, test_ids, name in rows:
        samples = dict((p, (i, c)) for p, i, c in store.execute("SELECT position, id, class FROM sample WHERE data = ?", (fingerprint,)))
        def load(blob):
            positions = np.frombuffer(blob, dtype="<u4").tolist()
            key = (name, tuple(positions))
            if key not in cache:
                cache[key] = images(f"{data}/{files[name]}.tar.gz", [samples[p][0] for p in positions])
            return cache[key], torch.tensor([samples[p][1] for p in positions])
        (x, y), (xt, yt) = load(train_ids), load(test_ids)
        torch.manual_seed(replicate)
        net = ResNet20()
        net.load_state_dict(state, strict=False)
        net.linear = nn.Linear(64, 10)
        net.eval()  # batch norms frozen, as in the experiment
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.requires_grad_(False)
                module.bias.requires_grad_(False)
        with torch.no_grad():
            if recipe == "linear-probe":
                x, xt = net.features(x), torch.cat([net.features(part) for part in xt.split(500)])
        if recipe == "linear-probe":
            model, params = net.linear, net.linear.parameters()
        else:
            model, params = (lambda v: net.linear(net.features(v))), [p for p in net.parameters() if p.requires_grad]
        train(model, params, x, y, lr, steps, batch, replicate)
        with torch.no_grad():
            right = torch.cat([model(part) for part in xt.split(500)]).argmax(1).eq(yt).float().mean().item()
        found.setdefault((scenario, recipe), []).append((accuracy, right))
        print(f"{scenario:16} {recipe:13} #{replicate}  tl-sweep {accuracy:.4f}  torch {right:.4f}", flush=True)
    print(json.dumps({f"{s} {r}": [round(float(np.mean([a for a, _ in v])), 4), round(float(np.mean([b for _, b in v])), 4)] for (s, r), v in found.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:4])
