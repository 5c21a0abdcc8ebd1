#!/usr/bin/env bash
# Everything that a machine with an NVIDIA GPU is to show, in one call: what is there, whether the numbers are right, how fast
# it is beside PyTorch on the same GPU, and what faults do. Writes benches/gpu.md with the machine and the date.
#   benches/gpu.sh                  builds here (CUDA toolkit needed), then runs
#   benches/gpu.sh BIN TESTS BENCH [PLAIN]  runs binaries that were built elsewhere: the program, the test binary, the bench
#                                           `gpu`, and the same bench built without cuDNN (`--features cuda`)
# PYTHON names a Python with PyTorch for CUDA (default python3); without one its columns stay empty. QUICK=1: small shapes.
# COMMIT names what was built, where git cannot tell; LOGS is a file for all that failed checks say. REAL is an experiment on
# real images and weights, found by TL_SWEEP_DATA and TL_SWEEP_WEIGHTS, whose verdicts are to be the CPU's as well: as
# experiments/imagenet-source.toml.
set -uo pipefail
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=0
if [[ $# -eq 0 ]]; then
  cargo build --release --features cudnn || exit 1
  built() { grep -oE '"executable":"[^"]+"' | tail -1 | cut -d'"' -f4; }
  bin=$PWD/target/release/tl-sweep
  tests=$(cargo test --features cudnn --test tests --no-run --message-format json 2>/dev/null | built)
  bench=$(cargo bench --features cudnn --bench gpu --no-run --message-format json 2>/dev/null | built)
else
  bin=$(realpath "$1"); tests=$(realpath "$2"); bench=$(realpath "$3"); plain=${4:+$(realpath "$4")}
fi
python=${PYTHON:-python3}
# Libraries that came with PyTorch, where the system has none.
libraries=$("$python" -c 'import glob, os, site; print(":".join(glob.glob(os.path.join(site.getsitepackages()[0], "nvidia", "*", "lib"))))' 2>/dev/null)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$work/gpu.md
failed=0

# The quickstart, and a short one.
experiment=$work/quickstart.toml short=$work/short.toml
sed -E -e 's/^steps( *)= .*/steps = 6/' -e 's/per_class( *)= 200/per_class = 12/' \
  -e 's/train = [0-9]+, test = [0-9]+/train = 30, test = 10/' experiments/quickstart.toml > "$short"
if [[ -n ${QUICK:-} ]]; then cp "$short" "$experiment"; else cp experiments/quickstart.toml "$experiment"; fi

say() { printf '%s\n' "$*" | tee -a "$out"; }
check() { # name command...: a row with what it came to
  local name=$1; shift
  if "$@" > "$work/log" 2>&1; then say "| $name | ok$(grep -h '^; ' "$work/log") |"; else failed=1; { echo "== $name"; cat "$work/log"; } >> "${LOGS:-/dev/null}"; say "| $name | **failed**: $(tail -3 "$work/log" | tr '\n|' '  ' | LC_ALL=C.UTF-8 sed -E 's/^(.{300}).*/\1/') |"; fi
}

say "# On a GPU"
say ""
say "\`bash benches/gpu.sh\` wrote this on $(date -u +%F), commit ${COMMIT:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}."
say ""
say '```'
"$bin" doctor --devices cuda:0 2>&1 | grep -v 'not found' | tee -a "$out"
say '```'
say ""
say "## Beside PyTorch"
say ""
"$python" benches/gpu.py "$bench" ${QUICK:+--quick} 2>&1 | tee -a "$out"
say ""
say "| correctness | |"
say "|---|---|"
sweep() { # device folder [more flags]
  local device=$1 folder=$2 start=$SECONDS code; shift 2
  "$bin" run "$experiment" --devices "$device" --db "$work/$folder/r.sqlite" --quiet "$@" > "$work/$folder.log" 2>&1
  code=$?
  echo $((SECONDS - start)) > "$work/$folder.seconds"
  return $code
}
reported() { # device folder [more flags]: a sweep, and what its report says
  sweep "$@" || { cat "$work/$2.log"; return 1; }
  "$bin" report --db "$work/$2/r.sqlite" --format json > "$work/$2.json" 2>/dev/null
}
same_verdicts() {
  reported cuda:0 gpu --slots 8 && wait "$on_cpu" && "$python" benches/gpu.py --verdicts "$work/gpu.json" "$work/cpu.json"
}
real_verdicts() { # the GPU's own number of streams; the CPU beside it
  local experiment=$REAL beside
  reported cpu cpu-real &
  beside=$!
  reported cuda:0 gpu-real && wait $beside && "$python" benches/gpu.py --verdicts "$work/gpu-real.json" "$work/cpu-real.json"
}
# The CPU's side runs while the GPU is tested.
reported cpu cpu &
on_cpu=$!
check "operators, steps, precisions, repeats, recordings and memory against the definitions (\`operators::gpu\`)" "$tests" operators::gpu
check "sweeps over one GPU and all of them, exports and features (\`on_gpu\`)" env TL_SWEEP_TEST_PROGRAM="$bin" "$tests" on_gpu --test-threads 1
check "the quickstart on eight streams (\`--slots 8\`), the CPU's verdicts" same_verdicts
check "\`verify\`: trials alone give what the store holds" "$bin" verify "$experiment" --db "$work/gpu/r.sqlite" --devices cuda:0 --sample 3
[[ -z ${REAL:-} ]] || check "$(basename "$REAL"), real images and weights: the CPU's verdicts" real_verdicts
took() { echo "$(cat "$work/gpu$1.seconds" 2>/dev/null || echo '?') s on the GPU and $(cat "$work/cpu$1.seconds" 2>/dev/null || echo '?') s on the CPU"; }

say ""
say "The quickstart took $(took "") ($(nproc) threads, while the GPU was tested)${REAL:+, $(basename "$REAL") $(took -real)}."
say ""
say "| faults | |"
say "|---|---|"
too_large() ( # an allocation that fails: the message tells what would fit
  # All images of the source at once, with 2 GB left by somebody else; the stand-in has little memory.
  sed -e 's/^batch .*/batch = 1000000/' -e 's/^input .*/input = 64/' "$short" > "$work/large.toml"
  if [[ -n ${QUICK:-} ]]; then
    export STANDIN_MEMORY=60000000
  else
    "$python" -u -c 'import time, torch
held = torch.empty(torch.cuda.mem_get_info()[0] - (2 << 30), dtype=torch.uint8, device="cuda")
print("held")
time.sleep(300)' > "$work/held" &
    local holder=$!
    trap 'kill $holder' EXIT
    for _ in $(seq 300); do grep -q held "$work/held" && break; sleep 0.1; done
  fi
  "$bin" run "$work/large.toml" --devices cuda:0 --db "$work/large/r.sqlite" --quiet > "$work/large.log" 2>&1
  local code=$?
  cat "$work/large.log"
  [[ $code -eq 4 ]] && grep -q "would fit" "$work/large.log"
)
killed() { # a worker that is killed costs its stages, not the sweep
  sweep cuda:0 killed --slots 8 &
  local sweep=$! worker=
  for _ in $(seq 900); do worker=$(pgrep -f "$work/killed/cache" | head -1); [[ -n $worker ]] && break; sleep 0.1; done
  sleep 2; [[ -n $worker ]] && kill -9 "$worker"
  wait $sweep && [[ -n $worker ]]
}
two() { # two processes on one GPU
  local experiment=$short
  local pids=() folder
  for folder in one two; do sweep cuda:0 $folder & pids+=($!); done
  for pid in "${pids[@]}"; do wait "$pid" || return 1; done
}
missing() { sweep cuda:99 missing; [[ $? -eq 3 ]]; }
check "an allocation that fails is told with what would fit (exit 4)" too_large
check "two processes on one GPU" two
check "a device that is not there (exit 3)" missing
check "a killed worker" killed
say ""
say "## More times"
say ""
"$python" benches/gpu.py "$bench" --others ${QUICK:+--quick} 2>&1 | tee -a "$out"
[[ -z ${plain:-} ]] || "$python" benches/gpu.py "$plain" --plain ${QUICK:+--quick} 2>&1 | tail -n +3 | tee -a "$out"
# The stand-in is no GPU: what it shows is not kept.
if "$bin" doctor 2>/dev/null | grep -q 'stand-in'; then echo "run on the stand-in: benches/gpu.md stays as it is"; else cp "$out" benches/gpu.md; fi
exit $failed
