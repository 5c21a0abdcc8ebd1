#!/usr/bin/env bash
# Builds for 64-bit ARM on another Linux machine, and runs under emulation what does not start programs of its own: operators,
# solvers and their bits on both instruction paths of ARM, and the library's own tests.
#   arm-test.sh
# Needs Rust's library for the target, a cross compiler and an emulator of user programs. Some ten minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
need() { command -v "$1" > /dev/null || { echo "$1 is missing: $2" >&2; exit 2; }; }
need qemu-aarch64 "on Debian, apt-get install qemu-user"
need aarch64-linux-gnu-g++ "on Debian, apt-get install g++-aarch64-linux-gnu"
[[ -d $(rustc --print sysroot)/lib/rustlib/$target ]] || { echo "rustup target add $target" >&2; exit 2; }

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/arm}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
cargo test --target "$target" --lib
for path in neon portable; do
    TL_SWEEP_CPU_PATH=$path cargo test --target "$target" --test tests operators -- \
        --skip operators::paths --skip operators::steps
done
