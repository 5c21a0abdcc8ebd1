// Numbers of f32 and bf16, one by one and by lots of 16 bytes, which one instruction reads or writes.

#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

template <typename T> __device__ __forceinline__ float get(T value) { return float(value); }
template <> __device__ __forceinline__ float get<bf16>(bf16 value) { return __bfloat162float(value); }
template <typename T> __device__ __forceinline__ T put(float value) { return T(value); }
template <> __device__ __forceinline__ bf16 put<bf16>(float value) { return __float2bfloat16(value); }

// `value` held between the bounds; NaN passes.
__device__ __forceinline__ float hold(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

// Tensors of these kernels have fewer than 2^31 numbers, which the host checks: 32-bit divisions are several times faster.
#define EACH(index, count)                                                            \
    for (unsigned index = blockIdx.x * blockDim.x + threadIdx.x; index < unsigned(count); \
         index += gridDim.x * blockDim.x)

#define LOT int(16 / sizeof(T))
#define EVERY(k) _Pragma("unroll") for (int k = 0; k < N; ++k)

// N numbers as f32: a lot of them, or (N = 1) a single one.
template <typename T, int N> __device__ __forceinline__ void take(const T *from, float (&into)[N]) {
    if constexpr (N == 1) {
        into[0] = get(*from);
    } else {
        uint4 bits = *reinterpret_cast<const uint4 *>(from);
        const T *own = reinterpret_cast<const T *>(&bits);
        EVERY(k) into[k] = get(own[k]);
    }
}

template <typename T, int N> __device__ __forceinline__ void give(T *to, const float (&from)[N]) {
    if constexpr (N == 1) {
        *to = put<T>(from[0]);
    } else {
        uint4 bits;
        T *own = reinterpret_cast<T *>(&bits);
        EVERY(k) own[k] = put<T>(from[k]);
        *reinterpret_cast<uint4 *>(to) = bits;
    }
}

// N numbers of channels, which are f32 always.
template <int N> __device__ __forceinline__ void of_channels(const float *from, float (&into)[N]) {
    if constexpr (N == 1) {
        into[0] = *from;
    } else {
#pragma unroll
        for (int k = 0; k < N; k += 4) {
            float4 four = *reinterpret_cast<const float4 *>(from + k);
            into[k] = four.x, into[k + 1] = four.y, into[k + 2] = four.z, into[k + 3] = four.w;
        }
    }
}

// Whether lots can be read and written at all of these places.
__device__ __forceinline__ bool level(const void *a, const void *b = 0, const void *c = 0, const void *d = 0) {
    return (uintptr_t(a) | uintptr_t(b) | uintptr_t(c) | uintptr_t(d)) % 16 == 0;
}

// Calls `name##_of` with lots where `condition` holds, and number by number elsewhere.
#define IN_LOTS(condition, name, arguments) \
    if (condition)                          \
        name##_of<T, LOT> arguments;        \
    else                                    \
        name##_of<T, 1> arguments;
