#!/usr/bin/env bash
# Runs a cargo command with CUDA on a machine that has neither a GPU nor the CUDA toolkit.
#   cuda-build.sh DIR -- cargo build --release --features cudnn
# DIR is a folder to keep (compiler and stubs, about 400 MB). NVIDIA's compiler comes from the Python registry; what is built
# is linked against stub libraries for the driver, cuBLAS, cuRAND and cuDNN, made of the symbols that the build itself wants:
# enough to link, not to run. It runs where the real libraries are, or tests/standin. Set CARGO_TARGET_DIR to a folder of
# its own, and CUDA_COMPUTE_CAP for another GPU than 9.0. The first build takes about 15 minutes of two cores.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd); shift
[[ ${1:-} == -- ]] && shift
if [[ ! -x $dir/venv/bin/python ]]; then
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install -q --no-deps nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-curand
fi
cuda=$(echo "$dir"/venv/lib/python3*/site-packages/nvidia/cu13)
ln -sfn lib "$cuda/lib64"
for lib in libcudart.so.13 libnvrtc.so.13 libcurand.so.10; do ln -sf "$lib" "$cuda/lib/${lib%%.so*}.so"; done
export CUDA_HOME=$cuda CUDA_PATH=$cuda CUDA_ROOT=$cuda CUDA_TOOLKIT_ROOT_DIR=$cuda
export PATH=$cuda/bin:$PATH CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
export LIBRARY_PATH=$dir/stubs:$cuda/lib${LIBRARY_PATH:+:$LIBRARY_PATH}
target=${CARGO_TARGET_DIR:-target}

stubs() { # one shared library for each real one, with every symbol that the build wants of it
  mkdir -p "$dir/stubs"
  { find "$target" \( -name '*.rlib' -o -name '*.a' -o -name '*.rcgu.o' \) -print0 2>/dev/null \
      | xargs -0 -r nm -u 2>/dev/null || true; } \
    | { grep -oE ' U (cu[A-Za-z0-9_]+)' || true; } | awk '{print $2}' | sort -u > "$dir/stubs/symbols"
  stub() { # name soname pattern exclusion
    { grep -E "$3" "$dir/stubs/symbols" | grep -vE "${4:-^$}" || true; } | sed 's/.*/void &(void) {}/' > "$dir/stubs/$1.c"
    cc -shared -fPIC -Wl,-soname,"$2" -o "$dir/stubs/lib$1.so" "$dir/stubs/$1.c"
  }
  stub cuda libcuda.so.1 '^cu[A-Z]'
  stub cublas libcublas.so.13 '^cublas' '^cublasLt'
  stub cublasLt libcublasLt.so.13 '^cublasLt'
  stub cudnn libcudnn.so.9 '^cudnn'
}

[[ -f $dir/stubs/libcuda.so ]] || stubs
"$@" && exit 0
stubs            # the first link fails for want of the stubs' symbols: make them from what is built, link again
exec "$@"
