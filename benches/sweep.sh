#!/usr/bin/env bash
# Whole grids beside an honest PyTorch loop: benches/sweep.sh [GRID.toml ...] [--sample N] [--rounds N]; all grids without one.
# Needs the real data and weights: TL_SWEEP_DATA and TL_SWEEP_WEIGHTS.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/peers.sh

peers "torch, numpy, safetensors" "torch numpy safetensors"
cargo build --release
dump=$(built sweep)
grids=()
for argument in "$@"; do
    case $argument in *.toml) grids+=("$argument") ;; esac
done
[ ${#grids[@]} -gt 0 ] || set -- benches/grids/*.toml "$@"
exec target/peers/bin/python benches/sweep.py target/release/tl-sweep "$dump" "$@"
