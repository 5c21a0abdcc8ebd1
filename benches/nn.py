"""`just bench-nn`: the compute core beside PyTorch on CPU, alternating in one run; prints a table for benches/README.md.

Usage: nn.py BINARY [--threads N] [--rounds N] [--only TEXT]. Both sides use the same threads and keep freed memory
(glibc's thresholds are raised for both). Ratios are our time / PyTorch's: above 1 is slower. PyTorch runs each case in
planes and in channels_last; the faster of the two counts."""

import argparse, ctypes, json, os, statistics, subprocess, sys, time

MALLOC = {"MALLOC_TOP_PAD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def residual(out, stride, project):
    """A basic block of a CIFAR ResNet, with a 1x1 projection where the shape changes."""
    main = [["conv", out, 3, stride, 1, False], ["norm"], ["relu"], ["conv", out, 3, 1, 1, False], ["norm"]]
    return [["add", [main, [["conv", out, 1, stride, 1, False], ["norm"]] if project else []]], ["relu"]]


def bottleneck(width, out, stride, project):
    """A ResNet-50 block (v1.5: the stride is in the 3x3)."""
    main = [["conv", width, 1, 1, 1, False], ["norm"], ["relu"], ["conv", width, 3, stride, 1, False], ["norm"], ["relu"],
            ["conv", out, 1, 1, 1, False], ["norm"]]
    return [["add", [main, [["conv", out, 1, stride, 1, False], ["norm"]] if project else []]], ["relu"]]


def unit(out, kernel, stride=1, padding=None):
    return [["conv", out, kernel, stride, 1, False] + ([padding] if padding else []), ["norm"], ["relu"]]


def inception_a(pool):
    """InceptionV3's mixed0..2."""
    return [["concat", [unit(64, 1), unit(48, 1) + unit(64, 5), unit(64, 1) + unit(96, 3) + unit(96, 3),
                        [["avg", 3, 1, 1]] + unit(pool, 1)]]]


def inception_c(width):
    """InceptionV3's mixed4..7, with 1x7 and 7x1 kernels."""
    return [["concat", [unit(192, 1), unit(width, 1) + unit(width, [1, 7]) + unit(192, [7, 1]),
                        unit(width, 1) + unit(width, [7, 1]) + unit(width, [1, 7]) + unit(width, [7, 1]) + unit(192, [1, 7]),
                        [["avg", 3, 1, 1]] + unit(192, 1)]]]


def resnet20():
    layers = unit(16, 3)
    for stage, out in enumerate([16, 32, 64]):
        for block in range(3):
            first = stage > 0 and block == 0
            layers += residual(out, 2 if first else 1, first)
    return layers + [["mean"], ["flatten"], ["linear", 10, False]]


def vgg(blocks, head):
    layers = []
    for out, convs in blocks:
        layers += [layer for _ in range(convs) for layer in (["conv", out, 3, 1, 1, True], ["relu"])] + [["max", 2, 2, 0]]
    return layers + head


def mobilenet(width):
    layers, channels = [["conv", int(32 * width), 3, 2, 1, False], ["norm"], ["relu6"]], int(32 * width)
    for out, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]:
        layers += [["conv", channels, 3, stride, channels, False], ["norm"], ["relu6"],
                   ["conv", int(out * width), 1, 1, 1, False], ["norm"], ["relu6"]]
        channels = int(out * width)
    return layers + [["mean"], ["flatten"], ["linear", 10, False]]


VGG19 = vgg([(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)],
            [["flatten"], ["linear", 4096, True], ["linear", 4096, True], ["linear", 10, False]])
END = [["mean"], ["flatten"], ["linear", 10, False]]
CASES = [
    ("conv 3x3 64-64 @112, batch 8", {"conv": [8, 64, 112, 64, 3, 1, 1]}, ("forward", "both")),
    ("conv 3x3 256-256 @28, batch 8", {"conv": [8, 256, 28, 256, 3, 1, 1]}, ("forward", "both")),
    ("conv 3x3 512-512 @14, batch 8", {"conv": [8, 512, 14, 512, 3, 1, 1]}, ("forward", "both")),
    ("conv 3x3 16-16 @32, batch 64", {"conv": [64, 16, 32, 16, 3, 1, 1]}, ("forward", "both")),
    ("conv 3x3 32-32 @16, batch 64", {"conv": [64, 32, 16, 32, 3, 1, 1]}, ("forward", "both")),
    ("conv 3x3 64-64 @8, batch 64", {"conv": [64, 64, 8, 64, 3, 1, 1]}, ("forward", "both")),
    ("conv 3x3 stride 2 64-128 @56, batch 8", {"conv": [8, 64, 56, 128, 3, 2, 1]}, ("forward", "both")),
    ("conv 1x1 96-24 @56, batch 8", {"conv": [8, 96, 56, 24, 1, 1, 1]}, ("forward", "both")),
    ("conv 1x1 256-512 @14, batch 32", {"conv": [32, 256, 14, 512, 1, 1, 1]}, ("forward", "both")),
    ("depthwise 96 @56, batch 8", {"conv": [8, 96, 56, 96, 3, 1, 96]}, ("forward", "both")),
    ("depthwise 96 @56 stride 2, batch 8", {"conv": [8, 96, 56, 96, 3, 2, 96]}, ("forward", "both")),
    ("batch norm + ReLU 64 @32, batch 64", {"norm_relu": [64, 64, 32]}, ("both",)),
    ("max pool 2x2 64 @32, batch 64", {"max_pool": [64, 64, 32, 2, 2]}, ("both",)),
    ("max pool 3x3 stride 2 64 @33, batch 64", {"max_pool": [64, 64, 33, 3, 2]}, ("both",)),
    ("linear 1024-1024, batch 64", {"linear": [64, 1024, 1024]}, ("forward", "both")),
    ("ResNet-20 @32, batch 64", {"input": [64, 32], "layers": resnet20()}, ("forward", "both")),
    ("small VGG @32, batch 64", {"input": [64, 32], "layers": vgg([(32, 2), (64, 2), (128, 2)], END)}, ("forward", "both")),
    ("MobileNetV1-0.25 @128, batch 64", {"input": [64, 128], "layers": mobilenet(0.25)}, ("forward", "both")),
    ("ResNet-50 blocks (stages 2 and 3) @56, batch 8", {"input": [8, 56], "layers":
        unit(64, 3) + bottleneck(64, 256, 1, True) + bottleneck(64, 256, 1, False) + bottleneck(128, 512, 2, True)
        + bottleneck(128, 512, 1, False) + END}, ("both",)),
    ("Inception blocks (mixed0, mixed4) @35, batch 8", {"input": [8, 71], "layers":
        unit(32, 3, 2, "valid") + unit(192, 3) + inception_a(32) + [["max", 3, 2, 0]] + inception_c(128) + END}, ("both",)),
    ("VGG19 @224, batch 8", {"input": [8, 224], "layers": VGG19}, ("forward", "both")),
    # Whole architectures: ours by its name, theirs torchvision's.
    ("ResNet-18 @224, batch 16", {"input": [16, 224], "arch": "resnet18", "layers": "resnet18"}, ("forward", "both")),
    ("DenseNet-121 @224, batch 8", {"input": [8, 224], "arch": "densenet121_torchvision", "layers": "densenet121"}, ("forward", "both")),
    ("EfficientNet-B0 @224, batch 16", {"input": [16, 224], "arch": "efficientnet_b0_torchvision", "layers": "efficientnet_b0"},
     ("forward", "both")),
    ("ConvNeXt-tiny @224, batch 8", {"input": [8, 224], "arch": "convnext_tiny", "layers": "convnext_tiny"}, ("forward", "both")),
    ("Swin-T @224, batch 8", {"input": [8, 224], "arch": "swin_t", "layers": "swin_t"}, ("forward", "both")),
    ("ViT-B/16 @224, batch 4", {"input": [4, 224], "arch": "vit_b_16", "layers": "vit_b_16"}, ("forward", "both")),
]


class Ours:
    """The Rust side, a process that answers one case a line."""

    def __init__(self, binary, threads):
        env = {**os.environ, **MALLOC, "RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def send(self, case, way):
        self.process.stdin.write(json.dumps({"case": case, "pass": way}) + "\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def run(self, case, way):
        self.send(case, way)
        return self.answer()

    def time(self, case, way):
        """The fastest of a few runs, the threads awake."""
        time.sleep(0.02)  # the other side's threads spin for a while before they sleep
        first = self.run(case, way)["ms"]
        return min(self.run(case, way)["ms"] for _ in range(repeats(first)))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def repeats(ms):
    return max(1, min(5, int(60 / ms)))


def module(layers, channels, side):
    """The layers as a PyTorch module; also returns channels and side of the result."""
    import torch.nn as nn

    class Join(nn.Module):
        def __init__(self, branches, add):
            super().__init__()
            self.branches, self.add = nn.ModuleList(branches), add

        def forward(self, x):
            import torch
            outs = [branch(x) for branch in self.branches]
            return outs[0] + outs[1] if self.add else torch.cat(outs, 1)

    built = []
    for layer in layers:
        kind = layer[0]
        if kind == "conv":
            kernel = layer[2] if isinstance(layer[2], list) else [layer[2]] * 2
            padding = [0, 0] if layer[6:] == ["valid"] else [(k - 1) // 2 for k in kernel]
            built.append(nn.Conv2d(channels, layer[1], kernel, layer[3], padding, groups=layer[4], bias=layer[5]))
            channels, side = layer[1], (side + 2 * padding[0] - kernel[0]) // layer[3] + 1
        elif kind == "norm":
            built.append(nn.BatchNorm2d(channels))
        elif kind in ("relu", "relu6"):
            built.append((nn.ReLU if kind == "relu" else nn.ReLU6)(inplace=True))
        elif kind in ("max", "avg"):
            built.append((nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(layer[1], layer[2], layer[3]))
            side = (side + 2 * layer[3] - layer[1]) // layer[2] + 1
        elif kind == "mean":
            built.append(nn.AdaptiveAvgPool2d(1))
            side = 1
        elif kind == "flatten":
            built.append(nn.Flatten())
            channels = channels * side * side
        elif kind == "linear":
            built.append(nn.Linear(channels, layer[1]))
            built += [nn.ReLU(inplace=True)] if layer[2] else []
            channels = layer[1]
        else:
            branches = [module(branch, channels, side) for branch in layer[1]]
            built.append(Join([branch[0] for branch in branches], kind == "add"))
            channels = branches[0][1] if kind == "add" else sum(branch[1] for branch in branches)
            side = branches[0][2]
    return nn.Sequential(*built), channels, side


class Theirs:
    """One case in PyTorch, in one memory format."""

    def __init__(self, case, last):
        import torch
        import torch.nn.functional as F
        self.torch, self.F = torch, F
        form = torch.channels_last if last else torch.contiguous_format
        torch.manual_seed(1)
        images = lambda *shape: torch.randn(*shape).contiguous(memory_format=form).requires_grad_()
        self.optimiser = None
        if "conv" in case:
            n, c, side, out, k, stride, groups = case["conv"]
            self.x = images(n, c, side, side)
            w = torch.randn(out, c // groups, k, k).contiguous(memory_format=form).requires_grad_()
            self.params, self.function = [w], lambda x: F.conv2d(x, w, None, stride, (k - 1) // 2, 1, groups)
        elif "linear" in case:
            n, c, out = case["linear"]
            self.x = torch.randn(n, c, requires_grad=True)
            w, b = torch.randn(out, c, requires_grad=True), torch.randn(out, requires_grad=True)
            self.params, self.function = [w, b], lambda x: F.linear(x, w, b)
        elif "norm_relu" in case:
            n, c, side = case["norm_relu"]
            self.x = images(n, c, side, side)
            norm = torch.nn.BatchNorm2d(c)
            self.params, self.function = list(norm.parameters()), lambda x: F.relu(norm(x), inplace=True)
        elif "max_pool" in case:
            n, c, side, k, stride = case["max_pool"]
            self.x, self.params, self.function = images(n, c, side, side), [], lambda x: F.max_pool2d(x, k, stride)
        else:
            n, side = case["input"]
            if "arch" in case:
                import torchvision
                self.model = getattr(torchvision.models, case["layers"])(num_classes=10).to(memory_format=form)
            else:
                self.model = module(case["layers"], 3, side)[0].to(memory_format=form)
            self.x = torch.randn(n, 3, side, side).contiguous(memory_format=form)
            self.labels = torch.arange(n) % 10
            self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        if self.optimiser is None:
            self.dy = torch.randn_like(self.function(self.x).detach())

    def time(self, way):
        time.sleep(0.02)
        first = self.run(way)
        return min(self.run(way) for _ in range(repeats(first)))

    def run(self, way):
        torch, start = self.torch, time.perf_counter()
        if self.optimiser is None:
            if way == "forward":
                with torch.no_grad():
                    self.function(self.x)
            else:
                torch.autograd.grad(self.function(self.x), [self.x] + self.params, self.dy)
        elif way == "forward":
            self.model.eval()
            with torch.no_grad():
                self.model(self.x)
        else:
            self.model.train()
            self.optimiser.zero_grad(set_to_none=True)
            self.F.cross_entropy(self.model(self.x), self.labels).backward()
            self.optimiser.step()
        return (time.perf_counter() - start) * 1e3


def peak(which, binary, threads, index):
    """Peak resident memory of a step less that before the first one, in MB, in a process of its own."""
    if which == "ours":
        ours = Ours(binary, threads)
        first = ours.run(CASES[index][1], "both")
        last = ours.run(CASES[index][1], "both")
        ours.close()
        return (last["peak_kb"] - first["before_kb"]) / 1e3
    line = [sys.executable, __file__, binary, "--threads", str(threads), "--memory", str(index)]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[-1])


def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="")
    parser.add_argument("--memory", type=int)
    args = parser.parse_args()
    if not all(os.environ.get(name) == value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable] + sys.argv, {**os.environ, **MALLOC})
    import torch
    torch.set_num_threads(args.threads)
    if args.memory is not None:
        case = Theirs(CASES[args.memory][1], True)
        before = resident("VmRSS")
        case.run("both"), case.run("both")
        print((resident("VmHWM") - before) / 1e3)
        return
    chosen = [index for index, case in enumerate(CASES) if args.only in case[0]]
    print(f"PyTorch {torch.__version__}, {args.threads} threads, medians of {args.rounds} rounds, ms\n")
    print("| | ours | PyTorch planes | channels last | ratio to the faster (10% to 90%) |\n|---|---|---|---|---|")
    ours = Ours(args.binary, args.threads)
    for index in chosen:
        name, case, ways = CASES[index]
        theirs = [Theirs(case, False), Theirs(case, True)]
        for way in ways:
            times = [[], [], []]
            for round in range(args.rounds + 2):
                found = [ours.time(case, way), theirs[0].time(way), theirs[1].time(way)]
                if round > 1:
                    [column.append(ms) for column, ms in zip(times, found)]
            medians = [statistics.median(column) for column in times]
            best = 1 if medians[1] <= medians[2] else 2
            ratios = sorted(a / b for a, b in zip(times[0], times[best]))
            low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
            label = {"forward": "forward", "both": "step" if "layers" in case else "forward + backward"}[way]
            print(f"| {name}: {label} | {medians[0]:.1f} | {medians[1]:.1f} | {medians[2]:.1f} "
                  f"| **{statistics.median(ratios):.2f}** ({low:.2f}-{high:.2f}) |", flush=True)
        del theirs
    ours.close()
    print("\n| peak memory of a step, MB | ours | PyTorch channels last | ratio |\n|---|---|---|---|")
    for index in chosen:
        if "layers" in CASES[index][1]:
            a, b = peak("ours", args.binary, args.threads, index), peak("theirs", args.binary, args.threads, index)
            print(f"| {CASES[index][0]} | {a:.0f} | {b:.0f} | **{a / b:.2f}** |", flush=True)
    for index in chosen:
        if CASES[index][0].startswith(("ResNet-20", "small VGG")):
            throughput(args, index)


def throughput(args, index):
    """Two trials of ours with one thread each, side by side, against one of PyTorch's with two threads."""
    import torch
    name, case, _ = CASES[index]
    torch.set_num_threads(2)
    theirs = [Theirs(case, False), Theirs(case, True)]
    pair, ratios = [Ours(args.binary, 1), Ours(args.binary, 1)], []
    for round in range(args.rounds + 2):
        start = time.perf_counter()
        for _ in range(4):
            [side.send(case, "both") for side in pair]
            [side.answer() for side in pair]
        two = (time.perf_counter() - start) / 8
        one = min(sum(side.run("both") for _ in range(4)) / 4e3 for side in theirs)
        if round > 1:
            ratios.append(one / two)
    [side.close() for side in pair]
    ratios.sort()
    print(f"\n{name}: two trials of one thread each have {statistics.median(ratios):.2f} times ({ratios[len(ratios) // 10]:.2f}"
          f"-{ratios[-1 - len(ratios) // 10]:.2f}) the throughput of PyTorch's one with two threads", flush=True)


main()
