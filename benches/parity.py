"""Keras, torchvision and timm against tl-sweep: the same random weights, read from the files that each framework writes.

usage: parity.py BINARY [--only NAME] [--performance] [--fixtures FOLDER]      (benches/parity.sh builds the binary and calls this)

For each architecture and file format: activations at named cuts, logits, gradients of the first, a middle and the last
weight (largest difference over largest value), and ten SGD steps with the first layers frozen (losses, batch-norm
statistics, frozen weights to the bit). With --fixtures: the same with a sixteenth of the channels, for the tests that
need no Python.
"""
import gzip, json, os, subprocess, sys, tempfile, time
os.environ["KERAS_BACKEND"] = "torch"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import numpy as np, torch, torchvision, keras
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

torch.set_num_threads(int(os.environ.get("THREADS", os.cpu_count())))
binary = sys.argv[1]
only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
fixtures = sys.argv[sys.argv.index("--fixtures") + 1] if "--fixtures" in sys.argv else None
work = tempfile.mkdtemp()
MOMENTUM, STEPS = 0.9, 10


def batch(number, images, side, bytes=False):
    """Noise images [n, 3, side, side] that both sides make for themselves (splitmix64 of the place of each number)."""
    index = np.arange(number * images, (number + 1) * images)
    with np.errstate(over="ignore"):
        z = np.arange(number * images * 3 * side * side, (number + 1) * images * 3 * side * side).astype(np.uint64)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values = ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0).astype(np.float32)
    if bytes:
        values = values * np.float32(127.5) + np.float32(127.5)
    return torch.tensor(values.reshape(images, 3, side, side)), index


def randomise(arrays, seed):
    """Values of every tensor: (kind, shape) -> array. He normal weights, statistics that are no identity."""
    rng = np.random.default_rng(seed)
    for kind, shape, fan_in in arrays:
        if kind == "kernel":
            scale = np.sqrt((1.0 if len(shape) == 2 else 2.0) / fan_in)
            # Few levels, so that fixtures pack well; the real thing is continuous.
            values = rng.choice(np.arange(-8, 9), size=shape, p=weights()) * (scale / 3.0) if fixtures else rng.standard_normal(shape) * scale
        elif kind in ("scale", "variance"):
            values = 0.75 + rng.integers(0, 17, size=shape) / 32
        else:
            values = rng.integers(-8, 9, size=shape) / 80
        yield values.astype(np.float32)


def weights():
    p = np.exp(-np.arange(-8, 9) ** 2 / 18.0)
    return p / p.sum()


# ---------------------------------------------------------------- Keras

def thin(model, classes):
    """The same layers with a sixteenth of the channels, from Keras' own configuration."""
    config = model.get_config()
    last = [l for l in config["layers"] if l["class_name"] in ("Conv2D", "Dense")][-1]["config"]["name"]
    for layer in config["layers"]:
        own = layer["config"]
        # It would build the layer for the channels that it had.
        layer.pop("build_config", None)
        for key in ("filters", "units"):
            if key in own and own["name"] != last:
                own[key] = int(own[key] / 16 + 0.5)
    return keras.Model.from_config(config)


def in_pieces(whole, path):
    """The same file with its lists of names cut up, as Keras does above 64,512 bytes, and its numbers packed in chunks."""
    import h5py
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        def copy(name, item):
            if isinstance(item, h5py.Dataset) and item.shape == ():
                target.create_dataset(name, data=item)
            elif isinstance(item, h5py.Dataset):
                target.create_dataset(name, data=item, chunks=True, compression="gzip", shuffle=True)
            else:
                target.require_group(name)

        source.visititems(copy)
        plain = lambda names: [name.encode() if isinstance(name, str) else name for name in names]
        names = plain(source.attrs["layer_names"])
        for part in range(3):
            target.attrs[f"layer_names{part}"] = names[part * len(names) // 3 : (part + 1) * len(names) // 3]
        for layer in names:
            layer = layer.decode()
            weights = plain(source[layer].attrs["weight_names"])
            for part, name in enumerate(weights):
                target[layer].attrs[f"weight_names{part}"] = np.array([name])
            if not len(weights):
                target[layer].attrs["weight_names"] = np.array([], dtype="S1")
    return path


def of_keras_2(whole, path):
    """The same file as Keras 2 wrote it: automatic names one higher (`conv2d_1` for `conv2d`), tensors called `kernel:0`."""
    import h5py, re

    def older(name):
        found = re.fullmatch(r"(conv2d|batch_normalization|activation|normalization|rescaling)(?:_(\d+))?", name)
        return f"{found[1]}_{int(found[2] or 0) + 1}" if found else name

    plain = lambda names: [name.decode() if isinstance(name, bytes) else name for name in names]
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        names = plain(source.attrs["layer_names"])
        target.attrs["layer_names"] = [older(name).encode() for name in names]
        for name in names:
            group = target.create_group(older(name))
            weights = plain(source[name].attrs["weight_names"])
            own = [f"{older(name)}/{weight.split('/')[-1]}:0" for weight in weights]
            for old, new in zip(weights, own):
                group.create_dataset(new, data=source[name][old][()])
            group.attrs["weight_names"] = np.array([new.encode() for new in own]) if own else np.array([], dtype="S1")
    return path


def efficientnet(number):
    """Keras' EfficientNet with the layers that it has where weights come from ImageNet, of any width."""
    import types
    from keras.src.applications import efficientnet as module
    scales = [(1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3), (1.2, 1.4, 0.3), (1.4, 1.8, 0.4), (1.6, 2.2, 0.4), (1.8, 2.6, 0.5), (2.0, 3.1, 0.5)]
    wide, deep, dropout = scales[number]
    layers = types.SimpleNamespace(**{name: getattr(keras.layers, name) for name in dir(keras.layers)})
    deviations = [0.229, 0.224, 0.225]
    layers.Normalization = lambda axis: lambda x: keras.layers.Rescaling([d**-0.5 for d in deviations])(keras.layers.Normalization(axis=axis)(x))

    def make(width=1.0, **own):
        usual, module.layers = module.layers, layers
        try:
            return module.EfficientNet(wide * width, deep, own["input_shape"][0], dropout_rate=dropout, name=f"efficientnetb{number}", **own)
        finally:
            module.layers = usual

    return make


def efficientnet_v2(make):
    """Keras' EfficientNetV2 as it is."""
    return lambda width, **own: make(**own)


class Keras:
    def __init__(self, arch, make, side, width, top):
        keras.backend.clear_session()
        own = dict(weights=None, input_shape=(side, side, 3), include_top=top)
        if top:
            own.update(classes=10 if fixtures else 1000, classifier_activation=None)
        if "mobilenet" in arch:
            own["alpha"] = width
        if "v1" in arch and top:
            own["dropout"] = 0.0
        if "efficientnet" in arch:
            own["width"] = width
        self.model = make(**own)
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        if width == 0.0625 and "mobilenet" not in arch:
            self.model = thin(self.model, own.get("classes"))
        self.arch, self.side, self.width, self.frozen = arch, side, width, 5
        described = []
        for layer in self.model.layers:
            for weight in layer.weights:
                leaf = weight.path.split("/")[-1]
                alone = leaf == "depthwise_kernel" or "Depthwise" in type(layer).__name__
                fan = int(np.prod(weight.shape[:2] if alone else weight.shape[:-1]))
                kind = {"gamma": "scale", "moving_variance": "variance", "variance": "variance"}.get(leaf, "kernel" if "kernel" in leaf else "other")
                described.append((weight, kind, tuple(weight.shape), fan))
        # The images here are some 255 times smaller than those that EfficientNet prepares.
        scales = {"normalization/mean": 1 / 255, "normalization/variance": 255.0**-2}
        for (weight, *_), values in zip(described, randomise([d[1:] for d in described], 7)):
            if not weight.path.endswith("/count"):
                weight.assign(values * scales.get("/".join(weight.path.split("/")[-2:]), 1))
            if "efficientnet_v2" in arch and weight.path.endswith("project_bn/gamma"):
                # What forty blocks add up must not grow a thousandfold, which no trained network does.
                weight.assign(weight * 0.4)

    def files(self):
        """Every format of this framework: name, path."""
        for name, ending in (("h5", ".h5"), ("weights.h5", ".weights.h5"), ("keras", ".keras")):
            path = f"{work}/{self.arch}{ending}"
            if ending == ".h5":
                # The legacy format, as the files of keras-applications have it.
                from keras.src.legacy.saving import legacy_h5_format
                import h5py
                with h5py.File(path, "w") as file:
                    legacy_h5_format.save_weights_to_hdf5_group(file, self.model)
            elif ending == ".keras":
                self.model.save(path)
            else:
                self.model.save_weights(path)
            yield name, path
        yield "h5 of Keras 2", of_keras_2(f"{work}/{self.arch}.h5", f"{work}/{self.arch}.2.h5")
        yield "h5 in pieces", in_pieces(f"{work}/{self.arch}.h5", f"{work}/{self.arch}.pieces.h5")

    def cuts(self):
        names = [l.name for l in self.model.layers[1:]]
        if "vgg" in self.arch:
            return names
        if "efficientnet" in self.arch:
            return [n for n in names if n.endswith(("_add", "stem_activation", "top_activation"))]
        if "xception" in self.arch:
            return [n for n in names if n.startswith("add") or n in ("block1_conv2_act", "block4_sepconv2_bn", "block14_sepconv2_act", "avg_pool")]
        if "densenet" in self.arch:
            return [n for n in names if n.endswith("_pool") or n in ("pool1", "relu", "avg_pool", "conv3_block4_concat")]
        ends = ("_out", "_add", "_relu", "avg_pool", "pool1_pool", "out_relu") if "resnet" in self.arch or "mobilenet" in self.arch else ()
        if "mobilenet_v2" in self.arch:
            ends = ("_add", "Conv1_relu", "out_relu")
        chosen = [n for n in names if n.endswith(ends) or n.startswith(("mixed", "max_pooling"))] if ends else [n for n in names if n.startswith(("mixed", "max_pool", "avg_pool"))]
        return [n for n in chosen if "block" not in n or n.endswith(("_out", "_add")) or "mobilenet" in self.arch]

    def outputs(self, names, x):
        tapped = keras.Model(self.model.inputs, [self.model.get_layer(n).output for n in names])
        found = tapped(x.permute(0, 2, 3, 1), training=False)
        found = found if isinstance(found, (list, tuple)) else [found]
        first = lambda t: t.permute(0, 3, 1, 2) if t.ndim == 4 and t.shape[1:3] != (1, 1) else t.flatten(1)
        return [first(t.detach()).numpy() for t in found]

    def logits(self, x, training=False):
        return self.model(x.permute(0, 2, 3, 1), training=training)

    def tensor(self, name):
        """The torch tensor behind `layer.weight`, and how it becomes our layout."""
        layer, leaf = name.rsplit(".", 1)
        layer = self.model.get_layer(layer)
        leaves = {"weight": ("kernel", "depthwise_kernel", "gamma"), "pointwise": ("pointwise_kernel",), "bias": ("bias", "beta"), "running_mean": ("moving_mean",), "running_var": ("moving_variance",), "mean": ("mean",), "variance": ("variance",)}[leaf]
        weight = next(w for w in layer.weights if w.path.split("/")[-1] in leaves)
        if weight.ndim == 4 and ("Depthwise" in type(layer).__name__ or weight.path.endswith("/depthwise_kernel")):
            return weight.value, lambda t: t.permute(2, 3, 0, 1).reshape(-1, 1, *t.shape[:2])
        if weight.ndim == 4:
            return weight.value, lambda t: t.permute(3, 2, 0, 1)
        return weight.value, (lambda t: t.T) if weight.ndim == 2 else (lambda t: t)

    def freeze(self):
        for layer in self.model.layers[: self.frozen]:
            layer.trainable = False
        return [v.value for v in self.model.trainable_variables]

    def statistics(self):
        for layer in self.model.layers:
            if "BatchNorm" in type(layer).__name__:
                for leaf in ("running_mean", "running_var"):
                    yield f"{layer.name}.{leaf}"

    def frozen_names(self):
        leaves = {"kernel": "weight", "pointwise_kernel": "pointwise", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var", "mean": "mean", "variance": "variance"}
        for layer in self.model.layers[: self.frozen]:
            for weight in layer.weights:
                leaf = weight.path.split("/")[-1]
                if leaf == "count":
                    continue
                yield f"{layer.name}.{leaves.get(leaf, 'weight' if 'kernel' in leaf else 'bias')}"

    def every(self):
        return [w.value.data for layer in self.model.layers for w in layer.weights]

    def load_back(self, path):
        """Our export into a new copy of the weights."""
        found = load_file(path)
        for layer in self.model.layers:
            if layer.weights:
                layer.set_weights([found[f"{layer.name}/{w.path.split('/')[-1]}"] for w in layer.weights])
        return len(found)


# ---------------------------------------------------------------- PyTorch

def in_tar(state, path):
    """The tar of PyTorch 0.1, which torch.load still reads: storages, tensors, and a pickle that names them."""
    import io, pickle, struct, tarfile
    tensors = list(state.values())
    add = lambda tar, name, data: tar.addfile(info(name, data), io.BytesIO(data))

    def info(name, data):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        return entry

    def pickled(value):
        return pickle.dumps(value, protocol=2)

    kinds = {torch.float32: torch.FloatStorage, torch.int64: torch.LongStorage}
    storages = pickled(len(tensors))
    described = pickled(len(tensors))
    for index, tensor in enumerate(tensors):
        tensor = tensor.contiguous()
        storages += pickled((index, "cpu", kinds[tensor.dtype])) + struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes()
        described += pickled((10000 + index, index, type(tensor))) + struct.pack("<ii", tensor.ndim, 0)
        described += struct.pack(f"<{2 * tensor.ndim + 1}q", *tensor.shape, *tensor.stride(), 0)
    storages += pickled([])

    class Names(pickle.Pickler):
        def persistent_id(self, value):
            return str(10000 + [t is value for t in tensors].index(True)) if isinstance(value, torch.Tensor) else None

    out = io.BytesIO()
    Names(out, protocol=2).dump(dict(state))
    with tarfile.open(path, "w") as tar:
        add(tar, "sys_info", pickled({"protocol_version": 1000, "little_endian": True}))
        add(tar, "pickle", out.getvalue())
        add(tar, "tensors", described)
        add(tar, "storages", storages)
    again = torch.load(path, weights_only=False)
    assert all(torch.equal(again[k], v) for k, v in state.items())
    return path


def vit(patch=16, width=1.0, **own):
    """torchvision's ViT-B with fewer heads."""
    heads = round(12 * width)
    return torchvision.models.VisionTransformer(patch_size=patch, num_layers=12, num_heads=heads, hidden_dim=64 * heads, mlp_dim=256 * heads, **own)


def regnet(width, **own):
    """torchvision's smallest RegNetX with fewer channels."""
    from torchvision.models.regnet import BlockParams, RegNet
    scaled = lambda channels: round(channels * width)
    params = BlockParams([1, 2, 7, 12], [scaled(c) for c in (32, 64, 160, 400)], [scaled(16)] * 4, [1.0] * 4, [2] * 4)
    return RegNet(params, stem_width=scaled(32), **own)


def convnext(width=1.0, **own):
    """torchvision's tiny ConvNeXt with fewer channels."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    sides = [round(96 * width) * 2**stage for stage in range(4)]
    return ConvNeXt([CNBlockConfig(own_side, after, count) for own_side, after, count in zip(sides, sides[1:] + [None], (3, 3, 9, 3))], 0.1, **own)


def swin(width=1.0, **own):
    """torchvision's tiny Swin with fewer heads."""
    heads = max(1, round(3 * width))
    return torchvision.models.SwinTransformer([4, 4], 32 * heads, [2, 2, 6, 2], [heads * 2**stage for stage in range(4)], [7, 7], **own)


class Torch:
    def __init__(self, arch, make, side, width, top):
        torch.manual_seed(0)
        options = dict(num_classes=10 if fixtures else 1000)
        if "inception" in arch:
            # The auxiliary head needs more than 107 pixels; at full size it is there, and left out on our side.
            options.update(init_weights=False, transform_input=False, aux_logits=side > 200)
        if "mobilenet" in arch:
            options.update(width_mult=width)
        if "densenet" in arch and width != 1.0:
            make = lambda **own: torchvision.models.DenseNet(2, (6, 12, 24, 16), 4, **own)
        if "efficientnet" in arch and width != 1.0:
            setting, last = torchvision.models.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=width, depth_mult=1.0)
            make = lambda **own: torchvision.models.efficientnet.EfficientNet(setting, 0.2, last_channel=last, **own)
        if "vit" in arch:
            options.update(image_size=side) if make is vit else options.update(img_size=side)
        if make in (vit, convnext, regnet, swin):
            options.update(width=width)
        self.model = make(**options).eval()
        self.arch, self.side, self.width, self.frozen = arch, side, width, 5
        if "vgg" in arch and side != 224:
            # torchvision pools any map to 7x7; the network proper is flattened as it is.
            self.model.avgpool = torch.nn.Identity()
            self.model.classifier[0] = torch.nn.Linear(512 * (side // 32) ** 2, 4096)
        for module in self.model.modules():
            if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
                module.p = 0.0
        described = []
        for name, module in self.model.named_modules():
            norm = isinstance(module, (torch.nn.BatchNorm2d, torch.nn.LayerNorm))
            for leaf, value in module.named_parameters(recurse=False):
                # What has names of its own: tokens, positions, packed projections, scales.
                if leaf not in ("weight", "bias"):
                    kind = "kernel" if leaf == "in_proj_weight" else "scale" if leaf in ("gamma", "layer_scale", "gamma_1", "gamma_2") else "other"
                    described.append((value, kind, tuple(value.shape), int(np.prod(value.shape[1:]) or 1)))
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(module, leaf, None)
                if isinstance(value, torch.Tensor):
                    kind = {"running_var": "variance"}.get(leaf, "other") if norm or leaf == "bias" else "kernel"
                    kind = "scale" if norm and leaf == "weight" else kind
                    described.append((value, kind, tuple(value.shape), int(np.prod(value.shape[1:]) or 1)))
        with torch.no_grad():
            for (value, *_), values in zip(described, randomise([d[1:] for d in described], 7)):
                value.copy_(torch.tensor(values))
            if "efficientnet_v2" in arch:
                # What forty blocks add up must not grow a thousandfold, which no trained network does.
                [value.mul_(0.4) for name, value in self.model.named_parameters() if name.endswith(".1.weight") and "block" in name]
            if "regnet" in arch:
                [value.mul_(0.4) for name, value in self.model.named_parameters() if name.endswith(".f.c.1.weight")]

    def files(self):
        state = self.model.state_dict()
        if "densenet" in self.arch:
            # The published files have the names of an older torchvision.
            import re
            old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", k): v for k, v in state.items()}
            torch.save(old, f"{work}/{self.arch}.older.pth")
            yield "pth (older names)", f"{work}/{self.arch}.older.pth"
        torch.save(state, f"{work}/{self.arch}.pth")
        yield "pth", f"{work}/{self.arch}.pth"
        # Its first entry has a name of thirty bytes, with which a zip of 64 bits can be taken for another.
        torch.save(state, f"{work}/{'weights':-<21}.pth")
        yield "pth (21 letters)", f"{work}/{'weights':-<21}.pth"
        torch.save(state, f"{work}/{self.arch}.old.pth", _use_new_zipfile_serialization=False)
        yield "pth (stream)", f"{work}/{self.arch}.old.pth"
        yield "pth (tar)", in_tar(state, f"{work}/{self.arch}.tar.pth")
        save_torch({k: v.contiguous() for k, v in state.items()}, f"{work}/{self.arch}.safetensors")
        yield "safetensors", f"{work}/{self.arch}.safetensors"

    def cuts(self):
        table = {
            "vgg19": [f"block{b}_pool" for b in range(1, 6)], "vgg16": [f"block{b}_pool" for b in range(1, 6)],
            "resnet18": ["maxpool"] + [f"layer{s}.1.relu2" for s in (1, 2, 3, 4)] + ["avgpool"],
            "resnet34": ["maxpool"] + [f"layer{s}.{b}.relu2" for s, b in ((1, 2), (2, 3), (3, 5), (4, 2))] + ["avgpool"],
            "resnet101_torchvision": ["maxpool", "layer1.2.relu3", "layer2.3.relu3", "layer3.22.relu3", "layer4.2.relu3", "avgpool"],
            "densenet121_torchvision": ["features.pool0"] + [f"features.transition{t}.pool" for t in (1, 2, 3)],
            "efficientnet_b0_torchvision": ["features.0.2"] + [f"features.{s}.{b}.add" for s, b in ((2, 1), (3, 1), (4, 2), (5, 2), (6, 3))] + ["features.8.2", "avgpool"],
            "efficientnet_b5_torchvision": ["features.0.2"] + [f"features.{s}.{b}.add" for s, b in ((1, 2), (2, 4), (3, 4), (4, 6), (5, 6), (6, 8), (7, 2))] + ["features.8.2", "avgpool"],
            "resnext50_32x4d": ["maxpool", "layer1.2.relu3", "layer2.3.relu3", "layer3.5.relu3", "layer4.2.relu3", "avgpool"],
            "wide_resnet50_2": ["maxpool", "layer1.2.relu3", "layer2.3.relu3", "layer3.5.relu3", "layer4.2.relu3", "avgpool"],
            "efficientnet_v2_s": ["features.0.2", "features.1.1.add", "features.2.3.add", "features.3.3.add", "features.4.5.add", "features.5.8.add", "features.6.14.add", "features.7.2", "avgpool"],
            "mobilenet_v3_small": ["features.0.2"] + [f"features.{i}.add" for i in (3, 5, 6, 8, 10, 11)] + ["features.12.2", "avgpool"],
            "mobilenet_v3_large": ["features.0.2"] + [f"features.{i}.add" for i in (1, 3, 5, 6, 8, 9, 10, 12, 14, 15)] + ["features.16.2", "avgpool"],
            "regnet_x_400mf": ["stem.2"] + [f"trunk_output.block{s}.block{s}-{b}.activation" for s, b in ((1, 0), (2, 1), (3, 6), (4, 11))] + ["avgpool"],
            "regnet_y_400mf": ["stem.2"] + [f"trunk_output.block{s}.block{s}-{b}.activation" for s, b in ((1, 0), (2, 2), (3, 5), (4, 5))] + ["avgpool"],
            "regnet_y_1_6gf": ["stem.2"] + [f"trunk_output.block{s}.block{s}-{b}.activation" for s, b in ((1, 1), (2, 5), (3, 16), (4, 1))] + ["avgpool"],
            "resnet50_torchvision": ["maxpool", "layer1.2.relu3", "layer2.3.relu3", "layer3.5.relu3", "layer4.2.relu3", "avgpool"],
            "mobilenet_v2_torchvision": ["features.0.2"] + [f"features.{i}.add" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)] + ["features.18.2"],
            "convnext_tiny": ["features.0.1"] + [f"features.{s}.{b}.add" for s, b in ((1, 0), (1, 2), (3, 2), (5, 4), (5, 8), (7, 2))] + ["features.4.1"],
            "convnext_small": ["features.0.1"] + [f"features.{s}.{b}.add" for s, b in ((1, 2), (3, 2), (5, 13), (5, 26), (7, 2))],
            "swin_t": ["features.0.2"] + [f"features.{s}.{b}.add_2" for s, b in ((1, 0), (1, 1), (3, 1), (5, 2), (5, 5), (7, 1))] + ["features.2.reduction", "features.6.reduction", "norm"],
            "vit_b_16": [f"encoder.layers.encoder_layer_{b}.add_2" for b in (0, 2, 5, 8, 11)] + ["encoder.ln"],
            "vit_b_32": [f"encoder.layers.encoder_layer_{b}.add_2" for b in (0, 2, 5, 8, 11)] + ["encoder.ln"],
            "squeezenet1_0": [f"features.{i}.concat" for i in (3, 4, 5, 7, 8, 9, 10, 12)],
            "inception_v3_torchvision": ["maxpool1", "maxpool2"] + [f"Mixed_{n}.cat" for n in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")] + ["avgpool"],
        }
        blocks = [f"blocks.{b}.add2" for b in (0, 2, 5, 8, 11)] + ["norm"]
        return table[self.arch] if self.arch in table else blocks

    def outputs(self, names, x):
        found, hooks = {}, []
        for name in names:
            if "vgg" in self.arch:
                pools = [n for n, m in self.model.named_modules() if isinstance(m, torch.nn.MaxPool2d)]
                module = pools[int(name[5]) - 1]
            else:
                module = name.removesuffix(".cat").removesuffix(".add").removesuffix(".concat").removesuffix(".relu3").removesuffix(".relu2").removesuffix(".add_2").removesuffix(".add2")
            keep = lambda module, inputs, output, name=name: found.__setitem__(name, output.detach())
            hooks.append(self.model.get_submodule(module).register_forward_hook(keep))
        with torch.no_grad():
            self.logits(x)
        [hook.remove() for hook in hooks]
        if "swin" in self.arch:
            # Channels come last there.
            return [found[n].permute(0, 3, 1, 2).numpy() for n in names]
        if "vit" in self.arch:
            # Rows of tokens are maps that are one pixel wide.
            rows = [found[n].permute(0, 2, 1).unsqueeze(-1).numpy() for n in names]
            # Where no token stands beside an image's own, the map is still one here.
            side = self.side // 16 if "siglip" in self.arch else 0
            return [row.reshape(*row.shape[:2], side, side) for row in rows] if side else rows
        return [found[n].numpy().reshape(found[n].shape[:2]) if found[n].ndim == 4 and found[n].shape[2:] == (1, 1) else found[n].numpy() for n in names]

    def logits(self, x, training=False):
        self.model.train(training)
        for module in self.model.modules():
            # A frozen batch norm is an affine constant.
            if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        found = self.model(x)
        return getattr(found, "logits", found)

    def tensor(self, name):
        if "vgg" in self.arch:
            convs = [n for n, m in self.model.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
            ours = ours_vgg(self.arch)
            name = convs[ours.index(name.rsplit(".", 1)[0])] + "." + name.rsplit(".", 1)[1]
        module, leaf = name.rsplit(".", 1)
        own = dict(self.model.named_parameters())
        for other in (module, f"{module}.gamma", f"{module}_{leaf}"):
            if other in own and (leaf == "weight" or other.endswith(leaf)):
                return own[other], (lambda t: t.flatten()) if "scale" in other else (lambda t: t)
        module = self.model.get_submodule(module)
        if name.startswith("classifier.0") and "vgg" in self.arch:
            pixels = self.side // 32
            return getattr(module, leaf), lambda t: t.reshape(t.shape[0], -1, pixels, pixels).permute(0, 2, 3, 1).reshape(t.shape)
        return getattr(module, leaf), lambda t: t

    def freeze(self):
        self.held = [self.tensor(name)[0] for name in self.frozen_names()]
        for value in self.held:
            value.requires_grad_(False)
        return [p for p in self.model.parameters() if p.requires_grad]

    def statistics(self):
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d) and "AuxLogits" not in name:
                yield from (f"{name}.running_mean", f"{name}.running_var")

    def frozen_names(self):
        """The tensors of the first five layers of our list, under our names."""
        table = {"vgg": ["block1_conv1", "block1_conv2", "block2_conv1"], "resne": ["conv1", "bn1"], "wide_resnet": ["conv1", "bn1"], "densenet": ["features.conv0", "features.norm0"],
                 "efficientnet": ["features.0.0", "features.0.1", "features.1.0.block.0.0"],
                 "convnext": ["features.0.0", "features.0.1", "features.1.0.block.0", "features.1.0.block.2"],
                 "swin": ["features.0.0", "features.0.2", "features.1.0.norm1"],
                 "vit_b_": ["conv_proj", "class_token", "encoder.pos_embedding", "encoder.layers.encoder_layer_0.ln_1"],
                 "vit": ["patch_embed.proj", "cls_token", "pos_embed", "blocks.0.norm1"],
                 "dinov2": ["patch_embed.proj", "cls_token", "pos_embed", "blocks.0.norm1"],
                 "dinov3": ["patch_embed.proj", "cls_token", "reg_token", "blocks.0.norm1"],
                 "clip": ["patch_embed.proj", "cls_token", "pos_embed", "norm_pre"],
                 "siglip": ["patch_embed.proj", "pos_embed", "blocks.0.norm1", "blocks.0.attn.qkv"],
                 "inception": ["Conv2d_1a_3x3.conv", "Conv2d_1a_3x3.bn", "Conv2d_2a_3x3.conv"],
                 "mobilenet_v3": ["features.0.0", "features.0.1", "features.1.block.0.0"], "regnet": ["stem.0", "stem.1", "trunk_output.block1.block1-0.proj.0"],
                 "mobilenet": ["features.0.0", "features.0.1", "features.1.conv.0.0"], "squeezenet": ["features.0", "features.3.squeeze"]}
        for layer in next(layers for arch, layers in table.items() if self.arch.startswith(arch)):
            found = []
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                try:
                    if self.tensor(f"{layer}.{leaf}")[0] is not None:
                        found.append(f"{layer}.{leaf}")
                except AttributeError:
                    pass
            assert found, f"{self.arch} has no layer {layer} that could be frozen"
            yield from found

    def every(self):
        return [t.data for n, t in self.model.state_dict().items() if "num_batches" not in n and "position_index" not in n]

    def load_back(self, path):
        from safetensors.torch import load_file as load_torch
        found = load_torch(path)
        missing, unexpected = self.model.load_state_dict(found, strict=False)
        assert not unexpected and all("num_batches_tracked" in m or "AuxLogits" in m or "position_index" in m for m in missing), (missing, unexpected)
        return len(found)


def ours_vgg(arch):
    counts = {"vgg16": [2, 2, 3, 3, 3], "vgg19": [2, 2, 4, 4, 4]}[arch]
    return [f"block{b + 1}_conv{c + 1}" for b, n in enumerate(counts) for c in range(n)] + ["fc1", "fc2", "predictions"]


# ---------------------------------------------------------------- comparison

def relative(ours, theirs):
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def run(job):
    json.dump(job, open(f"{work}/job.json", "w"))
    subprocess.run([binary, f"{work}/job.json"], check=True)
    return load_file(job["out"])


def theirs(side, job):
    """All numbers of their side."""
    x, labels = batch(0, job["images"], side.side, job["bytes"])
    numbers = {}
    for name, value in zip(job["cuts"], side.outputs(job["cuts"], x) if job["cuts"] else []):
        numbers[f"cut:{name}"] = value
    logits = side.logits(x)
    numbers["logits"] = logits.detach().numpy()
    loss_of = lambda logits, labels: torch.nn.functional.cross_entropy(logits, torch.tensor(labels % logits.shape[1]))
    loss_of(logits[:1], labels[:1]).backward()
    gradients = {n: side.tensor(n) for n in job["gradients"]}
    for name, (value, layout) in gradients.items():
        numbers[f"grad:{name}"] = layout(value.grad).detach().contiguous().numpy()
    moving = side.freeze()
    frozen = {n: side.tensor(n)[0].detach().clone() for n in side.frozen_names()}
    optimizer = torch.optim.SGD(moving, lr=job["lr"], momentum=MOMENTUM)
    losses = []
    for step in range(job["steps"]):
        x, labels = batch(step, job["images"], side.side, job["bytes"])
        for value in moving:
            value.grad = None
        loss = loss_of(side.logits(x, training=True), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    numbers["losses"] = np.array(losses)
    for name in side.statistics():
        value, _ = side.tensor(name)
        numbers[f"after:{name}"] = value.detach().numpy().copy()
    for name, before in frozen.items():
        value, layout = side.tensor(name)
        assert torch.equal(value.detach(), before), f"{name} is frozen and moved in the other framework"
        numbers[f"frozen:{name}"] = layout(value.detach()).contiguous().numpy()
    return numbers


def sample(values):
    flat = values.reshape(-1).astype(np.float64)
    chosen = flat[:: max(1, len(flat) // 24)][:24]
    return {"count": len(flat), "norm": float(np.linalg.norm(flat)), "largest": float(np.abs(flat).max()), "some": [float(f"{v:.8g}") for v in chosen]}


NO_TOP = {"vgg16": "block5_pool", "vgg19": "block5_pool", "inception_v3": "mixed10", "resnet50": "conv5_block3_out",
          "mobilenet_v1": "conv_pw_13_relu", "mobilenet_v2": "out_relu", "resnet101": "conv5_block3_out", "densenet121": "relu",
          "resnet50v2": "post_relu", "xception": "block14_sepconv2_act", "efficientnet_b0": "top_activation",
          "efficientnet_v2_b0": "top_activation", "efficientnet_v2_b2": "top_activation", "efficientnet_v2_s_keras": "top_activation", "efficientnet_b3": "top_activation"}


def prepares(name):
    """Whether a network begins with numbers of its own that bring bytes to what it was trained with."""
    return name.startswith("efficientnet_v2") and (name.endswith("_keras") or "_b" in name)


def forward(name, made, cuts, images):
    """Activations, logits and files at full size."""
    files = list(made.files())
    job = {"arch": name, "width": made.width, "input": made.side, "weights": files[0][1], "images": images, "cuts": cuts,
           "frozen": 0, "steps": 0, "lr": 0.0, "momentum": 0.0, "bytes": prepares(name), "out": f"{work}/out.safetensors"}
    ours = run(job)
    x, _ = batch(0, images, made.side, job["bytes"])
    logits = made.logits(x).detach().numpy()
    row = {"logits": relative(ours["logits"], logits)}
    row["cuts"] = max([relative(ours[f"cut:{n}"], v) for n, v in zip(cuts, made.outputs(cuts, x) if cuts else [])] or [0.0])
    # Other formats of the same weights give the same bits.
    for format, path in files[1:]:
        again = run({**job, "weights": path, "cuts": []})
        assert np.array_equal(again["logits"], ours["logits"]), (name, format)
    row["formats"] = [format for format, _ in files]
    exported = f"{work}/export.safetensors"
    if export(files[0][1], name, made.width, made.side, exported, "keras" if isinstance(made, Keras) else "torch"):
        for tensor in made.every():
            tensor.zero_()
        made.load_back(exported)
        row["back"] = relative(made.logits(x).detach().numpy(), logits)
    if isinstance(made, Keras):
        # Files of include_top=False.
        last = made.model.get_layer(NO_TOP[name])
        made.model, whole = keras.Model(made.model.inputs, last.output), made.model
        kept = made.outputs([last.name], x)[0]
        for format, path in made.files():
            again = run({**job, "weights": path, "cuts": []})
            assert relative(again["logits"].reshape(kept.shape), kept) < 1e-4, (name, format, "no top")
        made.model = whole
        row["formats"].append("and without top")
    return row


def training(name, made, images, lr):
    """Gradients and steps, on small images: a rounding error that flips a ReLU or the winner of a max pooling moves
    gradients by thousandths, in PyTorch's f32 against its f64 as much as here, and fewer units flip more seldom."""
    files = list(made.files())
    cuts = made.cuts()[:: max(1, len(made.cuts()) // 5)] if fixtures else []
    job = {"arch": name, "width": made.width, "input": made.side, "weights": files[0][1], "images": images, "cuts": cuts,
           "frozen": made.frozen, "steps": STEPS, "lr": lr, "momentum": MOMENTUM, "bytes": prepares(name), "out": f"{work}/out.safetensors"}
    ours = run(job)
    job["gradients"] = [n[5:] for n in ours if n.startswith("grad:")]
    reference = theirs(made, job)
    worst = lambda kind: max([relative(ours[n], reference[n]) for n in reference if n.startswith(kind)] or [0.0])
    frozen = [n for n in reference if n.startswith("frozen:")]
    row = {"gradients": worst("grad:"), "statistics": worst("after:"), "frozen count": len(frozen),
           "losses": float(np.abs(ours["losses"] - reference["losses"]).max()), "first to last": reference["losses"][[0, -1]],
           "frozen": all(np.array_equal(ours["after:" + n[7:]], reference[n]) for n in frozen)}
    if fixtures:
        row["cuts"], row["logits"] = worst("cut:"), relative(ours["logits"], reference["logits"])
        write_fixture(name, type(made), files, job, reference)
    return row


def compare(name, make, kind, sides, width, lr, images=4, top=True):
    if only and only not in name:
        return
    row = {"formats": [], "cuts": 0.0, "logits": 0.0, "back": float("nan")}
    if not fixtures:
        made = kind(name, make, sides[0], width, top)
        row.update(forward(name, made, made.cuts(), 4))
        count = len(made.cuts())
    made = kind(name, make, sides[1], width, top)
    row.update(training(name, made, images, lr))
    count = len(made.cuts())
    first, last = row["first to last"]
    print(f"| {name} | {'Keras' if kind is Keras else 'timm' if 'timm' in make.__qualname__ else 'torchvision'} | {', '.join(row['formats'])} | {count} at {sides[0]} px: {row['cuts']:.1e} | {row['logits']:.1e} | {row['back']:.1e} | {sides[1]} px: {row['gradients']:.1e} | {row['losses']:.1e} ({first:.3f} to {last:.3f}) | {row['statistics']:.1e} | {row['frozen count'] if row['frozen'] else 'MOVED'} |", flush=True)
    close = [row[k] for k in ("cuts", "logits", "gradients", "back") if row[k] == row[k]]
    failures.extend([] if max(close) < 1e-4 and row["losses"] < 1e-3 and row["frozen"] else [name])


def export(weights, arch, width, side, out, names):
    program = os.environ.get("TL_SWEEP")
    if not program:
        return False
    known = subprocess.run([program, "weights", "convert", weights, "--arch", arch, "--width", str(width), "--input", str(side), "--names", names, "--out", out], capture_output=True, text=True)
    assert known.returncode == 0, known.stderr
    return True


# Every format once, and the one that goes by class and order for the network with 94 of a class.
KEPT = {"resnet50v2": ["weights.h5"], "xception": ["h5 of Keras 2", "keras"], "vgg16": ["keras"], "vgg19": ["h5", "weights.h5"], "inception_v3": ["weights.h5", "h5 of Keras 2"], "resnet50": ["h5"],
        "mobilenet_v1": ["weights.h5", "h5 in pieces"], "mobilenet_v2": ["h5"], "mobilenet_v2_torchvision": ["pth", "pth (stream)", "pth (tar)"],
        "densenet121": ["h5"], "densenet121_torchvision": ["pth (older names)"], "efficientnet_b0": ["h5 of Keras 2", "weights.h5"],
        "efficientnet_b0_torchvision": ["pth (21 letters)"], "convnext_tiny": ["pth"], "vit_b_16": ["safetensors"],
        "mobilenet_v3_small": ["safetensors"], "regnet_x_400mf": ["safetensors"]}


def write_fixture(name, kind, files, job, reference):
    os.makedirs(fixtures, exist_ok=True)
    kept = []
    for format, path in files:
        if format not in KEPT[name]:
            continue
        packed = f"{name}.{format.replace('pth (stream)', 'stream.pth').replace('pth (tar)', 'tar.pth').replace('pth (older names)', 'older.pth').replace('pth (21 letters)', '21.pth').replace('h5 in pieces', 'pieces.h5').replace('h5 of Keras 2', 'keras2.h5')}.gz"
        # No time stamp: the same weights give the same bytes.
        with open(f"{fixtures}/{packed}", "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9, mtime=0) as inner:
            inner.write(open(path, "rb").read())
        kept.append(packed)
    numbers = {n: sample(v) for n, v in reference.items() if n != "losses" and not n.startswith(("frozen:", "after:"))}
    after = [n for n in reference if n.startswith("after:")]
    numbers.update({n: sample(reference[n]) for n in after[:: max(1, len(after) // 4)]})
    case = {"job": {**{k: v for k, v in job.items() if k != "out"}, "weights": ""}, "files": kept, "losses": [float(f"{l:.8g}") for l in reference["losses"]], "numbers": numbers}
    json.dump(case, open(f"{fixtures}/{name}.json", "w"))


PEER = """
import resource, sys, time, torch, torchvision
torch.set_num_threads(int(sys.argv[1])); torch.set_grad_enabled(False)
model = torchvision.models.vgg19().features.eval(); x = torch.rand(32, 3, 224, 224)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best = {}
for layout in (torch.contiguous_format, torch.channels_last):
    m, y = model.to(memory_format=layout), x.to(memory_format=layout)
    m(y)
    for _ in range(3):
        start = time.perf_counter(); m(y); best[layout] = min(best.get(layout, 1e9), time.perf_counter() - start)
print(min(best.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def performance():
    """VGG19 without top: its .h5 read, and 32 images of 224 pixels, beside PyTorch with as many threads."""
    made = Keras("vgg19", keras.applications.VGG19, 224, 1.0, False)
    _, path = next(made.files())
    size = os.path.getsize(path)
    job = {"arch": "vgg19", "width": 1.0, "input": 224, "weights": path, "images": 32, "cuts": [], "frozen": 0, "steps": 0,
           "lr": 0.0, "momentum": 0.0, "repeats": 4, "out": f"{work}/out.safetensors"}
    ours, peer = [], []
    for _ in range(3):
        ours.append({k: float(v[0]) for k, v in run(job).items() if k.startswith(("seconds", "memory"))})
        found = subprocess.run([sys.executable, "-c", PEER, str(torch.get_num_threads())], capture_output=True, text=True)
        peer.append([float(v) for v in found.stdout.split()])
    mid = lambda values: sorted(values)[len(values) // 2]
    load = mid([o["memory:load"] - o["memory:start"] for o in ours])
    print(f"loading the {size / 1e6:.0f} MB .h5: {mid([o['seconds:load'] for o in ours]):.2f} s, {load / 1e6:.0f} MB at most, "
          f"{(load - size) / size:.2f} x the file beyond the tensors")
    print(f"VGG19, 32 images of 224 px, {torch.get_num_threads()} threads: {mid([o['seconds:forward'] for o in ours]):.2f} s here, "
          f"{mid([p[0] for p in peer]):.2f} s in PyTorch {torch.__version__} (the faster of its layouts); at most "
          f"{mid([o['memory:forward'] for o in ours]) / 1e6:.0f} MB here, {mid([p[1] for p in peer]) / 1e6:.0f} MB there")


failures = []
A, V = keras.applications, torchvision.models
if "--performance" in sys.argv:
    performance()
    sys.exit(0)
if not fixtures:
    print(f"Keras {keras.__version__}, torchvision {torchvision.__version__}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
print("| architecture | framework | files | activations | logits | written back | gradients | losses of 10 steps | statistics after | frozen tensors, bit-equal |")
print("|---|---|---|---|---|---|---|---|---|---|")
width = 0.0625 if fixtures else 1.0
mobile = width
small, mid = 64, 107
compare("vgg16", A.VGG16, Keras, (224, small), width, lr=1e-5)
compare("vgg19", A.VGG19, Keras, (224, small), width, lr=1e-5)
compare("inception_v3", A.InceptionV3, Keras, (299, mid), width, images=16, lr=1e-6)
compare("resnet50", A.ResNet50, Keras, (224, small), width, images=16, lr=1e-6)
compare("resnet50v2", A.ResNet50V2, Keras, (224, small), width, images=16, lr=1e-6)
compare("xception", A.Xception, Keras, (299, 75), width, images=16, lr=1e-6)
compare("mobilenet_v1", A.MobileNet, Keras, (224, small), mobile, images=16, lr=1e-5)
compare("mobilenet_v2", A.MobileNetV2, Keras, (224, small), mobile, images=16, lr=1e-5)
if not fixtures:
    for name, make in (("vgg16", V.vgg16), ("vgg19", V.vgg19)):
        compare(name, make, Torch, (224, small), width, lr=1e-5)
    compare("inception_v3_torchvision", V.inception_v3, Torch, (299, mid), width, images=16, lr=1e-6)
    compare("resnet50_torchvision", V.resnet50, Torch, (224, small), width, images=16, lr=1e-6)
    compare("squeezenet1_0", V.squeezenet1_0, Torch, (224, small), width, lr=1e-4)
    for name, make in (("resnet18", V.resnet18), ("resnet34", V.resnet34)):
        compare(name, make, Torch, (224, small), width, images=16, lr=1e-6)
    for name, make in (("resnext50_32x4d", V.resnext50_32x4d), ("wide_resnet50_2", V.wide_resnet50_2)):
        compare(name, make, Torch, (224, small), width, images=16, lr=1e-6)
    # A hundred layers of random weights over two pixels each make much of a rounding error: smaller steps.
    compare("resnet101_torchvision", V.resnet101, Torch, (224, small), width, images=16, lr=1e-8)
    compare("resnet101", A.ResNet101, Keras, (224, small), width, images=16, lr=1e-8)
    compare("efficientnet_v2_b0", efficientnet_v2(A.EfficientNetV2B0), Keras, (224, small), width, images=16, lr=1e-5)
    compare("efficientnet_v2_b2", efficientnet_v2(A.EfficientNetV2B2), Keras, (260, small), width, images=16, lr=1e-5)
    compare("efficientnet_v2_s_keras", efficientnet_v2(A.EfficientNetV2S), Keras, (384, small), width, images=16, lr=1e-5)
    compare("efficientnet_b3", efficientnet(3), Keras, (300, small), width, images=16, lr=1e-5)
    compare("efficientnet_v2_s", V.efficientnet_v2_s, Torch, (384, small), width, images=16, lr=1e-5)
    compare("mobilenet_v3_large", V.mobilenet_v3_large, Torch, (224, small), width, images=16, lr=1e-5)
    for name, make in (("regnet_y_400mf", V.regnet_y_400mf), ("regnet_y_1_6gf", V.regnet_y_1_6gf)):
        compare(name, make, Torch, (224, small), width, images=16, lr=1e-6)
    compare("efficientnet_b5_torchvision", V.efficientnet_b5, Torch, (456, small), width, images=16, lr=1e-5)
compare("densenet121", A.DenseNet121, Keras, (224, small), width, images=16, lr=1e-6)
compare("densenet121_torchvision", V.densenet121, Torch, (224, 96), width, images=16, lr=1e-6)
efficient = 0.125 if fixtures else 1.0
compare("efficientnet_b0", efficientnet(0), Keras, (224, small), efficient, images=16, lr=1e-5)
compare("efficientnet_b0_torchvision", V.efficientnet_b0, Torch, (224, small), efficient, images=16, lr=1e-5)
compare("convnext_tiny", convnext, Torch, (224, small), width, images=16, lr=1e-5)
compare("swin_t", swin, Torch, (224, small), width, images=16, lr=1e-5)
compare("vit_b_16", vit, Torch, (224, small), 1 / 12 if fixtures else 1.0, images=16, lr=1e-5)
if not fixtures:
    import timm
    def of_timm(name, **more):
        return lambda **own: timm.create_model(name, pretrained=False, **more, **own)

    compare("vit_small_patch16", of_timm("vit_small_patch16_224"), Torch, (224, small), width, images=16, lr=1e-5)
    compare("dinov2_vits14", of_timm("vit_small_patch14_dinov2"), Torch, (224, 56), width, images=16, lr=1e-5)
    compare("clip_vitb32", of_timm("vit_base_patch32_clip_quickgelu_224"), Torch, (224, small), width, images=16, lr=1e-5)
    compare("clip_vitb16_gelu", of_timm("vit_base_patch16_clip_224"), Torch, (224, small), width, images=16, lr=1e-5)
    compare("dinov3_vits16", of_timm("vit_small_patch16_dinov3_qkvb", global_pool="token"), Torch, (224, small), width, images=16, lr=1e-5)
    compare("dinov3_vits16plus", of_timm("vit_small_plus_patch16_dinov3_qkvb", global_pool="token"), Torch, (224, small), width, images=16, lr=1e-5)
    # The activation that its numbers were trained with; timm has another one for the first generation.
    compare("siglip_vitb16", of_timm("vit_base_patch16_siglip_224", act_layer="gelu_tanh"), Torch, (224, small), width, images=16, lr=1e-5)
compare("mobilenet_v3_small", V.mobilenet_v3_small, Torch, (224, small), mobile, images=16, lr=1e-5)
compare("regnet_x_400mf", regnet, Torch, (224, small), efficient, images=16, lr=1e-6)
compare("mobilenet_v2_torchvision", V.mobilenet_v2, Torch, (224, small), mobile, images=16, lr=1e-5)
if fixtures:
    tables = [("vgg16", A.VGG16, 224), ("vgg19", A.VGG19, 224), ("inception_v3", A.InceptionV3, 299), ("resnet50", A.ResNet50, 224), ("resnet50v2", A.ResNet50V2, 224), ("xception", A.Xception, 299), ("mobilenet_v1", A.MobileNet, 224), ("mobilenet_v2", A.MobileNetV2, 224),
              ("densenet121", A.DenseNet121, 224), ("efficientnet_b0", efficientnet(0), 224), ("efficientnet_v2_b0", A.EfficientNetV2B0, 224), ("efficientnet_v2_s_keras", A.EfficientNetV2S, 384)]
    with open(f"{fixtures}/layers.tsv", "w") as file:
        for name, make, full in tables:
            keras.backend.clear_session()
            for index, layer in enumerate(make(weights=None, input_shape=(full, full, 3)).layers):
                inputs = [t._keras_history.operation.name for node in layer._inbound_nodes[:1] for t in node.input_tensors]
                shape = ", ".join(str(side) for side in layer.output.shape[1:])
                file.write("\t".join([name, str(index), layer.name, type(layer).__name__, shape, str(layer.count_params()), ",".join(inputs)]) + "\n")
if not fixtures:
    import timm
    for name, arch, side in (("vgg19", "vgg19", 224), ("resnet50", "resnet50_torchvision", 224), ("inception_v3", "inception_v3_torchvision", 299), ("mobilenetv2_100", "mobilenet_v2_torchvision", 224),
                             ("resnet18", "resnet18", 224), ("densenet121", "densenet121_torchvision", 224), ("efficientnet_b0", "efficientnet_b0_torchvision", 224),
                             ("mobilenetv3_small_100", "mobilenet_v3_small_timm", 224), ("mobilenetv3_large_100", "mobilenet_v3_large_timm", 224),
                             ("regnetx_004_tv", "regnet_x_400mf", 224), ("regnety_016", "regnet_y_1_6gf", 224),
                             ("convnextv2_atto", "convnextv2_atto", 224), ("convnextv2_tiny", "convnextv2_tiny", 224),
                             ("swin_tiny_patch4_window7_224", "swin_t", 224), ("swin_base_patch4_window12_384", "swin_b_window12", 384),
                             ("convnext_tiny", "convnext_tiny", 224), ("vit_base_patch16_224", "vit_base_patch16", 224), ("vit_small_patch14_reg4_dinov2", "dinov2_vits14_reg", 224),
                             ("vit_small_patch16_dinov3", "dinov3_vits16", 256), ("vit_so400m_patch14_siglip_224", "siglip_so400m14", 224)):
        if only and only not in f"timm {name}":
            continue
        # timm's names and layouts (VGG's dense layers as convolutions), as its .safetensors on the hub have them.
        torch.manual_seed(0)
        options = dict(img_size=side) if "vit" in name else {}
        options |= dict(global_pool="token") if "dinov3" in name else dict(act_layer="gelu_tanh") if "siglip" in name else {}
        model = timm.create_model(name, pretrained=False, num_classes=10 if "dinov2" in name else 1000, **options).eval()
        state = model.state_dict()
        with torch.no_grad():
            for key, value in state.items():
                if value.ndim == 1 and key.endswith("gamma"):
                    value.uniform_(0.5, 1.5)
                if ".grn." in key or key.endswith("relative_position_bias_table"):
                    value.normal_(0, 0.5)
        if "reg4" in name:
            # DINOv2's own code adds a position to the class token as well; timm has added it beforehand.
            state = {k.replace("reg_token", "register_tokens"): v for k, v in state.items()}
            state["pos_embed"] = torch.cat([torch.zeros_like(state["pos_embed"][:, :1]), state["pos_embed"]], 1)
        save_torch({k: v.contiguous() for k, v in state.items()}, f"{work}/timm.safetensors")
        ours = run({"arch": arch, "width": 1.0, "input": side, "weights": f"{work}/timm.safetensors", "images": 4, "cuts": [], "frozen": 0,
                    "steps": 0, "lr": 0.0, "momentum": 0.0, "out": f"{work}/out.safetensors"})
        with torch.no_grad():
            off = relative(ours["logits"], model(batch(0, 4, side)[0]).numpy())
        print(f"| {arch} | timm {timm.__version__} {name} | safetensors | | {off:.1e} | | | | | |", flush=True)
        failures.extend([] if off < 1e-4 else [f"timm {name}"])
if not fixtures:
    import transformers as hub
    from safetensors.torch import load_file as load_torch

    def with_head(name, numbers):
        """The file of the hub with a classifier under our name, and what that makes of features."""
        head = [0.05 * torch.randn(10, numbers), 0.05 * torch.randn(10)]
        save_torch(load_torch(f"{work}/hub/model.safetensors") | {f"{name}.weight": head[0], f"{name}.bias": head[1]}, f"{work}/hub/model.safetensors")
        return lambda features: torch.nn.functional.linear(features, *head)
    small = dict(image_size=224, patch_size=14, num_labels=1000)
    for arch, make in (("vit_base_patch16", lambda: hub.ViTForImageClassification(hub.ViTConfig(num_labels=1000))),
                       ("dinov2_vits14", lambda: hub.Dinov2Model(hub.Dinov2Config(hidden_size=384, num_attention_heads=6, **small))),
                       ("dinov2_vits14_reg", lambda: hub.Dinov2WithRegistersModel(hub.Dinov2WithRegistersConfig(hidden_size=384, num_attention_heads=6, **small))),
                       ("convnext_tiny", lambda: hub.ConvNextForImageClassification(hub.ConvNextConfig(num_labels=1000))),
                       ("convnextv2_atto", lambda: hub.ConvNextV2ForImageClassification(hub.ConvNextV2Config(depths=[2, 2, 6, 2], hidden_sizes=[40, 80, 160, 320], num_labels=1000))),
                       ("swin_t", lambda: hub.SwinForImageClassification(hub.SwinConfig(num_labels=1000))),
                       ("resnet18", lambda: hub.ResNetForImageClassification(hub.ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=1000))),
                       ("resnet50_torchvision", lambda: hub.ResNetForImageClassification(hub.ResNetConfig(num_labels=1000))),
                       ("convnext_tiny", lambda: hub.DINOv3ConvNextModel(hub.DINOv3ConvNextConfig())),
                       ("dinov3_vits16", lambda: hub.DINOv3ViTModel(hub.DINOv3ViTConfig(num_register_tokens=4))),
                       ("dinov3_vits16plus", lambda: hub.DINOv3ViTModel(hub.DINOv3ViTConfig(num_register_tokens=4, use_gated_mlp=True, hidden_act="silu")))):
        if only and only not in f"transformers {arch}":
            continue
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            for value in model.state_dict().values():
                value.uniform_(0.5, 1.5) if value.ndim == 1 and (value == 1).all() else value.normal_(0, 0.05) if value.is_floating_point() else value
            # What many blocks add up must not grow without end.
            [value.mul_(0.2) for name, value in model.state_dict().items() if "layer_scale_parameter" in name or name.endswith(("gamma", "layer.2.normalization.weight"))]
        # As files on the hub are: in memory, its layers have newer names.
        model.save_pretrained(f"{work}/hub")
        head = with_head("classifier.2", 768) if isinstance(model, hub.DINOv3ConvNextModel) else None
        ours = run({"arch": arch, "width": 1.0, "input": 224, "weights": f"{work}/hub/model.safetensors", "images": 4, "cuts": [], "frozen": 0,
                    "steps": 0, "lr": 0.0, "momentum": 0.0, "out": f"{work}/out.safetensors"})
        with torch.no_grad():
            found = model(batch(0, 4, 224)[0])
        found = found.logits if "logits" in found else head(found.pooler_output).detach() if head else found.last_hidden_state.permute(0, 2, 1).unsqueeze(-1)
        off = relative(ours["logits"], found.numpy())
        print(f"| {arch} | transformers {hub.__version__} {type(model).__name__} | safetensors | | {off:.1e} | | | | | |", flush=True)
        failures.extend([] if off < 1e-4 else [f"transformers {arch}"])
if not fixtures:
    import open_clip
    # Both sides of CLIP, as files on the hub have them, and what stands before the way to the texts.
    def of_hub(name):
        activation = "quick_gelu" if name == "clip_vitb32" else "gelu"
        sides = dict(vision_config=dict(patch_size=32, hidden_act=activation), text_config=dict(num_hidden_layers=2))
        model = hub.CLIPModel(hub.CLIPConfig(**sides))
        return model, f"transformers {hub.__version__} CLIPModel", lambda x: model.vision_model(x).pooler_output

    def of_open_clip(name):
        model = open_clip.create_model("ViT-B-32-quickgelu" if name == "clip_vitb32" else "ViT-B-32")
        side = model.visual
        def features(x):
            way, side.proj = side.proj, None
            found, side.proj = side(x), way
            return found
        return model, f"open_clip {open_clip.__version__}", features

    for arch in ("clip_vitb32", "clip_vitb32_gelu"):
        for make in (of_hub, of_open_clip):
            if only and only not in arch:
                continue
            torch.manual_seed(0)
            model, whose, features = make(arch)
            model.eval()
            with torch.no_grad():
                for value in model.state_dict().values():
                    value.uniform_(0.5, 1.5) if value.ndim == 1 and (value == 1).all() else value.normal_(0, 0.05) if value.is_floating_point() and value.ndim else value
            if make is of_hub:
                model.save_pretrained(f"{work}/hub")
                path = f"{work}/hub/model.safetensors"
            else:
                path = f"{work}/open_clip.safetensors"
                save_torch({k: v.contiguous() for k, v in model.state_dict().items()}, path)
            ours = run({"arch": arch, "width": 1.0, "input": 224, "weights": path, "images": 4, "cuts": [], "frozen": 0,
                        "steps": 0, "lr": 0.0, "momentum": 0.0, "out": f"{work}/out.safetensors"})
            with torch.no_grad():
                found = features(batch(0, 4, 224)[0]).numpy()
            # Without a classifier, ours gives all tokens: the first is what goes on.
            off = relative(ours["logits"][:, :, 0, 0], found)
            print(f"| {arch} | {whose} | safetensors | | {off:.1e} | | | | | |", flush=True)
            failures.extend([] if off < 1e-4 else [f"{whose} {arch}"])
if not fixtures:
    # Zero-shot answers: both sides of CLIP, its own vocabulary (open_clip brings it), three prompts of each class. What is written
    # out of the ordinary must be read as its tokenizer reads it.
    names = ["golden retriever", "Café crème", "sea-lion's pup", "number 42", "x" * 400]
    prompts = ["a photo of a {}.", "a blurry photo of the {}!", "{}"]

    def tokenizer_of_clip():
        simple = open_clip.SimpleTokenizer()
        here = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
        merges = [tuple(pair) for pair, _ in sorted(simple.bpe_ranks.items(), key=lambda item: item[1])]
        return simple, hub.CLIPTokenizer(vocab={here.get(k, k): v for k, v in simple.encoder.items()}, merges=merges)

    def whole_of_hub(arch):
        activation = "quick_gelu" if arch == "clip_vitb32" else "gelu"
        model = hub.CLIPModel(hub.CLIPConfig(vision_config=dict(patch_size=32, hidden_act=activation), text_config=dict(hidden_act=activation, eos_token_id=49407, bos_token_id=49406)))
        def texts(all_texts, tokenizers):
            tokens = tokenizers[1](all_texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            return model.text_projection(model.text_model(**tokens).pooler_output)
        return model, f"transformers {hub.__version__} CLIPModel", texts, lambda x: model.visual_projection(model.vision_model(x).pooler_output)

    def whole_of_open_clip(arch):
        model = open_clip.create_model("ViT-B-32-quickgelu" if arch == "clip_vitb32" else "ViT-B-32")
        return model, f"open_clip {open_clip.__version__}", lambda all_texts, tokenizers: model.encode_text(tokenizers[0](all_texts)), model.encode_image

    for arch in ("clip_vitb32", "clip_vitb32_gelu"):
        for make in (whole_of_hub, whole_of_open_clip):
            if only and only not in f"zero-shot {arch}":
                continue
            torch.manual_seed(0)
            model, whose, texts, images = make(arch)
            model.eval()
            with torch.no_grad():
                for value in model.state_dict().values():
                    value.uniform_(0.5, 1.5) if value.ndim == 1 and (value == 1).all() else value.normal_(0, 0.05) if value.is_floating_point() and value.ndim else value
            tokenizers = tokenizer_of_clip()
            tokenizers[1].save_pretrained(f"{work}/hub")
            path = f"{work}/hub/model.safetensors"
            save_torch({k: v.contiguous() for k, v in model.state_dict().items()}, path)
            ours = run({"arch": arch, "width": 1.0, "input": 224, "weights": path, "images": 4, "cuts": [], "frozen": 0, "steps": 0, "lr": 0.0, "momentum": 0.0,
                        "texts": {"names": names, "prompts": prompts}, "out": f"{work}/out.safetensors"})
            unit = lambda x: torch.nn.functional.normalize(x, dim=-1)
            with torch.no_grad():
                head = torch.stack([unit(unit(texts([p.replace("{}", n) for p in prompts], tokenizers)).mean(0)) for n in names]) * model.logit_scale.exp()
                there = unit(images(batch(0, 4, 224)[0]))
            offs = {"head": relative(ours["head"], head.numpy()), "images": relative(ours["images"], there.numpy()), "logits": relative(ours["logits"], (there @ head.T).numpy())}
            print(f"| {arch} zero-shot | {whose} | safetensors | | {offs['logits']:.1e} ({offs['head']:.1e} texts, {offs['images']:.1e} images) | | | | | |", flush=True)
            failures.extend([] if max(offs.values()) < 1e-4 else [f"zero-shot {whose} {arch}"])
if not fixtures and (not only or only in "transformers siglip_vitb16"):
    # Both sides of SigLIP, as files on the hub have them, and what its token gives.
    torch.manual_seed(0)
    model = hub.SiglipModel(hub.SiglipConfig(vision_config=dict(), text_config=dict(num_hidden_layers=1))).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.uniform_(0.5, 1.5) if value.ndim == 1 and (value == 1).all() else value.normal_(0, 0.05) if value.is_floating_point() and value.ndim else value
    model.save_pretrained(f"{work}/hub")
    head = with_head("head", 768)
    ours = run({"arch": "siglip_vitb16", "width": 1.0, "input": 224, "weights": f"{work}/hub/model.safetensors", "images": 4, "cuts": [], "frozen": 0, "steps": 0, "lr": 0.0, "momentum": 0.0, "out": f"{work}/out.safetensors"})
    with torch.no_grad():
        found = head(model.vision_model(batch(0, 4, 224)[0]).pooler_output).numpy()
    off = relative(ours["logits"], found)
    print(f"| siglip_vitb16 | transformers {hub.__version__} SiglipModel | safetensors | | {off:.1e} | | | | | |", flush=True)
    failures.extend([] if off < 1e-4 else ["transformers siglip_vitb16"])


def steps_of(model, moving, lr, side):
    """The losses of STEPS steps of SGD on batches of 16."""
    optimizer, losses = torch.optim.SGD(moving, lr=lr, momentum=MOMENTUM), []
    for step in range(STEPS):
        x, labels = batch(step, 16, side)
        optimizer.zero_grad()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels % logits.shape[1]))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


if not fixtures and (not only or only in "steps convnextv2_atto"):
    # Ten steps of a network whose layers have other names here.
    torch.manual_seed(0)
    model = timm.create_model("convnextv2_atto", num_classes=10).eval()
    with torch.no_grad():
        [value.normal_(0, 0.5) for key, value in model.state_dict().items() if ".grn." in key]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    save_torch({k: v.contiguous() for k, v in model.state_dict().items()}, f"{work}/timm.safetensors")
    ours = run({"arch": "convnextv2_atto", "width": 1.0, "input": 64, "weights": f"{work}/timm.safetensors", "images": 16, "cuts": [], "frozen": 0,
                "steps": STEPS, "lr": 3e-2, "momentum": MOMENTUM, "out": f"{work}/out.safetensors"})
    losses = steps_of(model, model.parameters(), 3e-2, 64)
    far = float(np.abs(ours["losses"] - np.array(losses)).max())
    name = "stages.2.blocks.3.mlp.grn.weight"
    went = model.state_dict()[name] - before[name]
    moved = relative(ours["after:features.5.3.block.grn.weight"] - before[name].numpy(), went.numpy())
    print(f"| convnextv2_atto | timm {timm.__version__} convnextv2_atto | safetensors | | | | | {far:.1e} ({losses[0]:.3f} to {losses[-1]:.3f}) | {moved:.1e} (of what a response norm has moved) | |", flush=True)
    failures.extend([] if far < 1e-3 and moved < 1e-3 else ["steps convnextv2_atto"])
if not fixtures:
    import onnx, onnxruntime
    # What is exported for ONNX, from bytes to logits, in Microsoft's runtime: networks of drawn numbers.
    for arch, side, own in (("resnet20", 32, 1.0), ("resnet50", 224, 1.0), ("resnet50v2", 224, 1.0), ("resnet50_torchvision", 224, 1.0), ("vgg16", 224, 1.0), ("inception_v3", 299, 1.0),
                            ("xception", 299, 1.0), ("squeezenet1_0", 224, 1.0), ("densenet121", 224, 1.0), ("mobilenet_v1", 224, 1.0), ("mobilenet_v2", 224, 1.0), ("mobilenet_v3_small", 224, 1.0),
                            ("regnet_y_400mf", 224, 1.0), ("efficientnet_b0", 224, 1.0), ("efficientnet_v2_b0", 224, 1.0), ("convnext_tiny", 224, 1.0), ("convnextv2_atto", 224, 1.0),
                            ("swin_t", 224, 1.0), ("swin_t", 256, 1.0), ("vit_small_patch16", 224, 1.0), ("dinov2_vits14_reg", 224, 1.0), ("dinov3_vits16plus", 224, 1.0), ("clip_vitb32", 224, 1.0), ("siglip_vitb16", 224, 1.0)):
        if only and only not in f"onnx {arch}":
            continue
        path = f"{work}/{arch}.onnx"
        ours = run({"arch": arch, "width": own, "input": side, "weights": "", "images": 3, "cuts": [], "frozen": 0, "steps": 0, "lr": 0.0, "momentum": 0.0,
                    "onnx": path, "out": f"{work}/out.safetensors"})
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits, shares = session.run(None, {"images": ours["planes"]})
        one = session.run(["logits"], {"images": ours["planes"][1:2]})[0]
        off = max(relative(ours["logits"], logits), relative(ours["logits"][1:2], one))
        told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert np.allclose(shares.sum(1), 1) and json.loads(told["classes"]) == ["ant", "bee", "cat", "dog"], arch
        print(f"| {arch} | onnxruntime {onnxruntime.__version__}, {side} px | onnx | | {off:.1e} | | | | | |", flush=True)
        failures.extend([] if off < 1e-4 else [f"onnx {arch}"])
if not fixtures:
    import peft
    # PEFT's low-rank additions on timm's models: they train, and all of the model stands still.
    for arch, make, side in (("vit_small_patch16", of_timm("vit_small_patch16_224"), 64), ("dinov2_vits14", of_timm("vit_small_patch14_dinov2"), 56)):
        if only and only not in f"peft {arch}":
            continue
        made = Torch(arch, make, side, 1.0, True)
        path = [path for format, path in made.files() if format == "safetensors"][0]
        before = {k: v.clone() for k, v in made.model.state_dict().items()}
        model = peft.get_peft_model(made.model, peft.LoraConfig(r=8, lora_alpha=8, target_modules=["qkv"])).eval()
        added = {n.split("base_model.model.")[1].replace(".lora_A.default", ".lora_a").replace(".lora_B.default", ".lora_b"): p
                 for n, p in model.named_parameters() if ".lora_" in n}
        with torch.no_grad():
            # B is drawn as well, so that A has a gradient from the first step on.
            for value in added.values():
                value.normal_(0, 0.05)
        save_torch({n: p.detach().contiguous() for n, p in added.items()}, f"{work}/lora.safetensors")
        job = {"arch": arch, "width": 1.0, "input": side, "weights": path, "images": 16, "cuts": [], "frozen": 0, "steps": STEPS, "lr": 1e-2,
               "momentum": MOMENTUM, "out": f"{work}/out.safetensors", "lora": [8, f"{work}/lora.safetensors"]}
        ours = run(job)
        with torch.no_grad():
            off = relative(ours["logits"], model(batch(0, 16, side)[0]).numpy())
        moving = [p for p in model.parameters() if p.requires_grad]
        losses = steps_of(model, moving, 1e-2, side)
        moved = max(relative(ours[f"after:{n}"], p.detach().numpy()) for n, p in added.items())
        still = [k for k in before if f"after:{k}" in ours]
        frozen = all(np.array_equal(ours[f"after:{k}"].reshape(-1), before[k].numpy().reshape(-1)) for k in still)
        far = float(np.abs(ours["losses"] - np.array(losses)).max())
        print(f"| {arch} | peft {peft.__version__}, timm {timm.__version__} | safetensors | | {off:.1e} | | | {far:.1e} ({losses[0]:.3f} to {losses[-1]:.3f}) | {moved:.1e} (A and B) | {len(still) if frozen else 'MOVED'} |", flush=True)
        failures.extend([] if off < 1e-4 and far < 1e-3 and moved < 1e-3 and frozen and len(still) > 100 else [f"peft {arch}"])
print("all within 1e-4 (activations, logits, gradients, written back) and 1e-3 (losses)" if not failures else f"BEYOND: {', '.join(failures)}")
sys.exit(1 if failures else 0)
