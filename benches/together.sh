#!/usr/bin/env bash
# Several networks' first layers as one product: operators, and whole steps where the real data and weights are at hand
# (TL_SWEEP_DATA, TL_SWEEP_WEIGHTS). benches/together.sh
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release
cargo bench --bench together
if [ -d "${TL_SWEEP_DATA:-}" ] && [ -d "${TL_SWEEP_WEIGHTS:-}" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    for grid in benches/together/*.toml; do
        echo "$grid"
        target/release/tl-sweep run "$grid" --db "$folder/together.sqlite" 2>&1 >/dev/null | grep "as one product"
    done
fi
