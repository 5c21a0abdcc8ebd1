#!/usr/bin/env bash
# Builds the compute core's benchmark, puts PyTorch into target/peers the first time, and runs both beside each other.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x target/peers/bin/python ]; then
    python3 -m venv target/peers
fi
if ! target/peers/bin/python -c 'import torch, numpy' 2>/dev/null; then
    target/peers/bin/pip install torch numpy
fi
binary=$(cargo bench --bench nn --no-run --message-format json |
    target/peers/bin/python -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "nn":
        print(message["executable"])')
exec target/peers/bin/python benches/nn.py "$binary" "$@"
