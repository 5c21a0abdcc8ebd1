#!/usr/bin/env bash
# What the tool itself costs, apart from training: benches/costs.sh
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo bench --bench costs -- "$PWD/target/release/tl-sweep" "$folder"
