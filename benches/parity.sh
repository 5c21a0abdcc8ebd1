#!/usr/bin/env bash
# Keras, torchvision and tl-sweep side by side: puts the frameworks into target/peers the first time, builds our side,
# and prints the table of the README (--performance: what loading and running VGG19 cost). With --fixtures FOLDER it writes
# what the tests compare with.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/peers.sh

peers "torch, torchvision, keras, timm, transformers, open_clip, peft, h5py, safetensors, onnx, onnxruntime" \
    "torch torchvision keras timm transformers open_clip_torch peft h5py safetensors numpy onnx onnxruntime"
cargo build --release
binary=$(built parity)
TL_SWEEP=target/release/tl-sweep exec target/peers/bin/python benches/parity.py "$binary" "$@"
