#!/usr/bin/env bash
# Runs a command that was built with CUDA on the stand-in: a CUDA device made of this machine's processor.
#   run.sh DIR -- COMMAND...
# DIR is the folder of .ci/cuda-build.sh; the libraries go into DIR/standin. What the program looks for in NVIDIA's libraries
# (src/nn/cuda/loading.rs) and the stand-in has not got says its name and ends the process. STANDIN_MEMORY is its memory in
# bytes, STANDIN_DEVICES how many there are, STANDIN_CAPABILITY their compute capability (9.0), STANDIN_MIG into how many
# instances each is divided, STANDIN_SCREEN=1 makes the first another model, STANDIN_LOG a file in which each process notes
# those that it takes, STANDIN_LAG how many things wait for their turn at most, STANDIN_IDLE=1 computes nothing, STANDIN_COUNT=1
# says at the end what was asked for.
set -euo pipefail
dir=$(cd "$1" && pwd); shift
[[ ${1:-} == -- ]] && shift
here=$(cd "$(dirname "$0")" && pwd)
out=$dir/standin
wanted=$here/../../src/nn/cuda/loading.rs
mkdir -p "$out"

# Our source, and an end with its name for every symbol that it has not got; they use the first.
library() { # name soname pattern exclusion
  { grep -E "$3" "$out/symbols" | grep -vE "${4:-^$}" || true; } > "$out/$1.symbols"
  cp "$here/$1.c" "$out/$1.own.c" 2>/dev/null || : > "$out/$1.own.c"
  { echo '#include <stdio.h>'; echo '#include <stdlib.h>'
    while read -r symbol; do
      echo "__attribute__((weak)) int $symbol(void) { fprintf(stderr, \"stand-in: $symbol is not there\\n\"); abort(); }"
    done < "$out/$1.symbols"; } > "$out/$1.rest.c"
  local first=; [[ $1 == cuda ]] || first=$out/libcuda.so.1
  cc -O3 -march=native -w -I"$here" -shared -fPIC -Wl,-soname,"$2" -o "$out/$2" "$out/$1.own.c" "$out/$1.rest.c" $first -ldl -lm -lpthread
}

if [[ ! -f $out/libcudnn.so.9 || -n $(find "$here" "$wanted" -newer "$out/libcudnn.so.9" -print -quit) ]]; then
  rm -rf "$out/kernels"
  sed -n '/^functions! {/,/^}/p' "$wanted" | sed 's/"[a-z]*"//' | grep -oE '\bcu[A-Za-z0-9_]+' | sort -u > "$out/symbols"
  library cuda libcuda.so.1 '^cu[A-Z]'
  library blas libcublas.so.13 '^cublas' '^cublasLt'
  library blaslt libcublasLt.so.13 '^cublasLt'
  library rand libcurand.so.10 '^curand'
  library nvml libnvidia-ml.so.1 '^nvml'
  library cudnn libcudnn.so.9 '^cudnn'
fi
mkdir -p "$out/kernels"
export STANDIN_PTX=$here/ptx.py STANDIN_FOLDER=$out/kernels
cuda=$(echo "$dir"/venv/lib/python3*/site-packages/nvidia/cu13/lib)
LD_LIBRARY_PATH=$out:$cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$@"
