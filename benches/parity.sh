#!/usr/bin/env bash
# Keras, torchvision and tl-sweep side by side: puts both frameworks into target/peers the first time, builds our side,
# and prints the table of the README (--performance: what loading and running VGG19 cost). With --fixtures FOLDER it writes what the tests compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x target/peers/bin/python ]; then
    python3 -m venv target/peers
fi
if ! KERAS_BACKEND=torch target/peers/bin/python -c 'import torch, torchvision, keras, timm, h5py, safetensors' 2>/dev/null; then
    target/peers/bin/pip install --quiet torch torchvision keras timm h5py safetensors numpy
fi
cargo build --release
binary=$(cargo bench --bench parity --no-run --message-format json |
    target/peers/bin/python -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "parity":
        print(message["executable"])')
TL_SWEEP=target/release/tl-sweep exec target/peers/bin/python benches/parity.py "$binary" "$@"
