"""Our GPU times beside PyTorch's on the same GPU, in one run: `benches/gpu.sh` calls it.

Usage: gpu.py BINARY [--quick] [--others | --plain], or gpu.py --verdicts GPU.json CPU.json (two reports of one experiment).
BINARY is the bench `gpu`; --plain says that it was built without cuDNN. PyTorch runs at its best: channels_last, cudnn.benchmark, the fused
optimiser; TF32 where the case says so, autocast for bf16. Both sides warm up and synchronise before and behind each of the
rounds; medians. Ratios are our time / PyTorch's. Without PyTorch for CUDA its columns are empty."""

import json
import statistics
import subprocess
import sys

def vgg19(**more):
    return {"arch": "vgg19", "tap": "block5_pool", "input": 224, "batch": 64, "pass": "step", **more}


def resnet20(**more):
    return {"arch": "resnet20", "input": 32, "batch": 128, "precision": "tf32", "pass": "step", "steps": 50, **more}


def resnet50(**more):
    return {"arch": "resnet50_torchvision", "input": 224, "batch": 64, "pass": "step", "precision": "bf16", **more}


# What each case must reach, and its aim: our time / PyTorch's, or how many times PyTorch's rate.
CASES = [
    ("VGG19 @224 batch 64, step, TF32", vgg19(precision="tf32"), "<= 1.05 (0.95)"),
    ("VGG19 @224 batch 64, step, bf16", vgg19(precision="bf16"), "<= 1.05 (0.95)"),
    ("ResNet-50 @224 batch 64, step, bf16", resnet50(), "<= 1.1 (1.0)"),
    ("VGG19 @224 batch 64, frozen encoding, TF32", vgg19(precision="tf32", **{"pass": "encode"}), "<= 1.0 (0.83)"),
    ("ResNet-20 @32 batch 128, step, TF32, one", resnet20(), ""),
    ("ResNet-20 @32 batch 128, step, TF32, 16 at once", resnet20(at_once=16), ">= 4x trials per hour (8x)"),
    ("480 linear heads on 512 features, batch 64, step",
     {"pass": "heads", "heads": 480, "inputs": 512, "batch": 64, "steps": 50}, ">= 100x one by one (400x)"),
]
# Beside those: how many streams pay, the precision that is the default, and convolutions of single channels.
OTHERS = [
    ("ResNet-20, one launch at a time", resnet20(record=False), ""),
    ("ResNet-50, bf16, one launch at a time", resnet50(record=False), ""),
    ("ResNet-20, 2 at once", resnet20(at_once=2), ""),
    ("ResNet-20, 4 at once", resnet20(at_once=4), ""),
    ("ResNet-20, 8 at once", resnet20(at_once=8), ""),
    ("VGG19 @224 batch 64, step, f32", vgg19(steps=3, rounds=3), ""),
    ("ResNet-50 @224 batch 64, step, f32", resnet50(precision="f32", steps=3, rounds=3), ""),
    ("MobileNetV2 @224 batch 64, step, bf16",
     {"arch": "mobilenet_v2_torchvision", "input": 224, "batch": 64, "precision": "bf16", "pass": "step"}, ""),
]

# Where convolutions are products of patches, but for the large ones in f32.
PLAIN = [
    ("VGG19 @224 batch 64, step, f32, without cuDNN", vgg19(steps=3, rounds=3), ""),
    ("VGG19 @224 batch 64, step, bf16, without cuDNN", vgg19(precision="bf16", rounds=3), ""),
    ("ResNet-20 @32 batch 128, step, TF32, without cuDNN", resnet20(), ""),
]

# Seconds that a case of ours may take: one that hangs does not cost the rest.
LIMIT = 60


def ours(binary, spec):
    try:
        answer = subprocess.run([binary], input=json.dumps(spec) + "\n", capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT} s"}
    if answer.returncode:
        return {"error": answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else "no answer"}
    return json.loads(answer.stdout.strip().splitlines()[-1])


def network(torch, spec):
    """PyTorch's network of a case, ten classes."""
    import torchvision

    name = spec["arch"]
    if name == "vgg19":
        # Up to block5_pool, pooled, with a linear head: ours is cut there too.
        features = torchvision.models.vgg19(weights=None).features
        return torch.nn.Sequential(features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(512, 10))
    if name.startswith("resnet50"):
        return torchvision.models.resnet50(weights=None, num_classes=10)
    if name.startswith("mobilenet_v2"):
        return torchvision.models.mobilenet_v2(weights=None, num_classes=10)
    return resnet20_of(torch)


def resnet20_of(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, out, stride):
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(inputs, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
                nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out))
            self.stride, self.more = stride, (out - inputs) // 2

        def forward(self, x):
            short = x[:, :, :: self.stride, :: self.stride]
            if self.more:
                short = nn.functional.pad(short, (0, 0, 0, 0, self.more, self.more))
            return torch.relu(self.main(x) + short)

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    width = 16
    for stage, out in enumerate([16, 32, 64]):
        for block in range(3):
            layers.append(Block(width, out, 2 if stage and not block else 1))
            width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def theirs(torch, spec):
    """Milliseconds of a step, and bytes; of heads, one of them."""
    torch.backends.cudnn.benchmark = True
    tf32 = spec.get("precision") == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    batch = spec["batch"]
    labels = torch.arange(batch, device="cuda") % 10
    if spec["pass"] == "heads":
        net, x = torch.nn.Linear(spec["inputs"], 10).cuda(), torch.randn(batch, spec["inputs"], device="cuda")
    else:
        net = network(torch, spec).cuda().to(memory_format=torch.channels_last)
        x = torch.randn(batch, 3, spec["input"], spec["input"], device="cuda").to(memory_format=torch.channels_last)
    encode = spec["pass"] == "encode"
    net.train(not encode)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
    cast = torch.autocast("cuda", dtype=torch.bfloat16, enabled=spec.get("precision") == "bf16")

    def once():
        if encode:
            with torch.no_grad(), cast:
                return net(x)
        optimiser.zero_grad(set_to_none=True)
        with cast:
            loss = torch.nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimiser.step()

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(10):
        once()
    times, steps = [], spec.get("steps", 10)
    for _ in range(spec.get("rounds", 7)):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(steps):
            once()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / steps)
    return {"ms": times, "peak": torch.cuda.max_memory_allocated()}


def verdicts(paths):
    """Whether two reports come to the same verdicts. Sums run in other orders, and so trials end elsewhere: of a verdict that
    one side reaches and the other does not, the two differences must be the same to twice their standard errors."""
    reports = [json.load(open(path))["verdicts"] for path in paths]
    edges, tested = [], 0
    for one, other in zip(*reports, strict=True):
        answers, found = [one["answer"], other["answer"]], [one["difference"], other["difference"]]
        if one["rule"] != other["rule"] or one["context"] != other["context"]:
            sys.exit("the reports are not of one experiment")
        tested += "NOT TESTED" not in answers
        if answers[0] == answers[1]:
            continue
        says = [f"{a} ({d['mean']:+.3f}, p {v['adjusted_p']:.3f})" if d else a
                for a, d, v in zip(answers, found, (one, other))]
        says = f"{one['rule']['better']} > {one['rule']['worse']}: {says[0]} here, {says[1]} on the CPU"
        spread = sum(d["standard_error"] ** 2 for d in found if d) ** 0.5
        if set(answers) == {"SUPPORTED", "REFUTED"} or not all(found) or abs(found[0]["mean"] - found[1]["mean"]) > 2 * spread:
            sys.exit(says)
        edges.append(says)
    if not tested:
        sys.exit("no verdict was tested")
    print(f"; at the edge, within the standard errors: {'; '.join(edges)}" if edges else f"; all {tested}")


def main():
    if "--verdicts" in sys.argv:
        return verdicts(sys.argv[2:])
    binary, quick = sys.argv[1], "--quick" in sys.argv
    try:
        import torch

        torch = torch if torch.cuda.is_available() else None
    except ImportError:
        torch = None
    cases = OTHERS if "--others" in sys.argv else PLAIN if "--plain" in sys.argv else CASES
    if torch and cases is CASES:
        print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}.\n")
    print("| case | ours, ms (host) | PyTorch, ms | ratio | must (aim) | peak ours / predicted / PyTorch, MB |\n|---|---|---|---|---|---|")
    known = {}
    for name, spec, must in cases:
        spec = {"rounds": 5, **spec}
        if quick:
            spec = {**spec, "steps": 1, "rounds": 1, "warmup": 1, "batch": min(spec["batch"], 4), "input": min(spec.get("input", 32), 32),
                    "heads": 8, "at_once": min(spec.get("at_once", 1), 2)}
        own = ours(binary, spec)
        if "error" in own:
            print(f"| {name} | {own['error']} | | | {must} | |", flush=True)
            continue
        at_once = spec.get("at_once", 1)
        # Networks at once share the device: a step of one takes the mean, and that over their number is its share. The host's
        # part is how long asking takes; where it is all of it, the device waits for the host (or the queue is full).
        time, host = (statistics.median(own[key]) / at_once for key in ("ms", "host_ms"))
        how = f"; {own['recorded']}" if own.get("recorded") else ""
        megabytes = lambda bytes: "" if bytes is None else f"{bytes / 1e6:.0f}"
        memory = f"{megabytes(own['peak'])} / {megabytes(own['predicted'])}"
        if torch is None:
            print(f"| {name} | {time:.3f} ({host:.3f}{how}) | | | {must} | {memory} |", flush=True)
            continue
        # One after the other takes PyTorch as long for each, however many there are.
        key = json.dumps({**spec, "at_once": 1, "record": True})
        other = known[key] = known.get(key) or theirs(torch, spec)
        reference = statistics.median(other["ms"])
        rate = reference * spec.get("heads", 1) / time if spec["pass"] == "heads" or at_once > 1 else None
        ratio = f"{rate:.1f}x" if rate else f"{time / reference:.2f}"
        print(f"| {name} | {time:.3f} ({host:.3f}{how}) | {reference:.3f} | **{ratio}** | {must} | {memory} / {megabytes(other['peak'])} |", flush=True)


if __name__ == "__main__":
    main()
