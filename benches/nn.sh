#!/usr/bin/env bash
# Builds the compute core's benchmark, puts PyTorch into target/peers the first time, and runs both beside each other.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/peers.sh

peers "torch, torchvision, numpy" "torch torchvision numpy"
binary=$(built nn)
exec target/peers/bin/python benches/nn.py "$binary" "$@"
