# What people type. `just` alone lists it.
_default:
    @just --list

# The quickstart: four scenarios on synthetic images
sweep *ARGS:
    cargo run --release -- run experiments/quickstart.toml {{ARGS}}

# Tables and verdicts of the last experiment
report *ARGS:
    cargo run --release -- report {{ARGS}}

test:
    cargo test

# What CI runs
ci:
    bash .ci/run

alias bench := bench-nn

# Operators and whole steps beside PyTorch on CPU, from the Python registry into target/peers; the table of benches/README.md
bench-nn *ARGS:
    bash benches/nn.sh {{ARGS}}

# Whole grids of benches/grids beside an honest PyTorch loop; needs the real data and weights
bench-sweep *ARGS:
    bash benches/sweep.sh {{ARGS}}

# What the tool itself costs: planning, scheduling, storing and reporting
bench-costs:
    bash benches/costs.sh

# Several networks' first layers as one product, beside one after the other
bench-together:
    bash benches/together.sh

# Operators and their bits on 64-bit ARM, under emulation
arm-test:
    bash .ci/arm-test.sh

# Compiles every CUDA line on a machine without a GPU, NVIDIA's compiler from the Python registry; 15 minutes the first time
cuda-check:
    CARGO_TARGET_DIR=target/cuda-build bash .ci/cuda-build.sh target/cuda -- cargo clippy --features cudnn --all-targets -- -D warnings
    CARGO_TARGET_DIR=target/cuda-build bash .ci/cuda-build.sh target/cuda -- cargo check --features cuda --all-targets

# The GPU's tests on the stand-in of tests/standin: a CUDA device made of the processor
cuda-test:
    CARGO_TARGET_DIR=target/cuda-build bash .ci/cuda-build.sh target/cuda -- cargo test --features cudnn --test tests --no-run
    CARGO_TARGET_DIR=target/cuda-build bash .ci/cuda-build.sh target/cuda -- bash tests/standin/run.sh target/cuda -- cargo test --features cudnn --test tests operators::gpu
    CARGO_TARGET_DIR=target/cuda-build STANDIN_DEVICES=2 bash .ci/cuda-build.sh target/cuda -- bash tests/standin/run.sh target/cuda -- cargo test --features cudnn --test tests on_gpu -- --test-threads 1

# What `recommend` says beside what sweeps find on real data (needs it); --taps-only leaves training out
bench-recommend *ARGS:
    cargo build --release
    python3 benches/recommend.py target/release/tl-sweep target/recommend {{ARGS}}

# What `rank` says of weight files beside what is tested (needs real data and weights)
bench-rank *ARGS:
    cargo build --release
    python3 benches/rank.py target/release/tl-sweep target/rank {{ARGS}}

# Correctness, speed beside PyTorch and faults on a GPU; writes benches/gpu.md
gpu *ARGS:
    bash benches/gpu.sh {{ARGS}}

# Writes docs/reference.md and the schema anew
docs:
    UPDATE=1 cargo test --test tests docs

# Keras and torchvision beside us: weights in every format, activations, gradients, steps; the README's table
parity *ARGS:
    bash benches/parity.sh {{ARGS}}
