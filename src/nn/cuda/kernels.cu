// What candle and cuDNN's wrappers have not got: pooling, batch norm, activations, losses and optimiser steps on images
// [n, height, width, channels]. Every sum runs in an order that follows from the shapes alone, so that a run repeats bit
// for bit on one kind of GPU: nothing is added atomically.

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

// ---- lots: the numbers of 16 bytes, which one instruction reads or writes

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

// ---- activations

template <typename T, int N>
__device__ __forceinline__ void hold_all_of(unsigned count, const T *x, T *y, float low, float high) {
    EACH(i, count / N) {
        float value[N];
        take<T, N>(x + i * N, value);
        EVERY(k) value[k] = hold(value[k], low, high);
        give<T, N>(y + i * N, value);
    }
}
template <typename T> __device__ void hold_all(unsigned count, const T *x, T *y, float low, float high) {
    IN_LOTS(count % LOT == 0 && level(x, y), hold_all, (count, x, y, low, high))
}

// dy where y lies between the bounds, zero elsewhere.
template <typename T, int N>
__device__ __forceinline__ void pass_of(unsigned count, const T *y, const T *dy, T *dx, float low, float high) {
    EACH(i, count / N) {
        float at[N], value[N];
        take<T, N>(y + i * N, at);
        take<T, N>(dy + i * N, value);
        EVERY(k) value[k] = at[k] > low && at[k] < high ? value[k] : 0.0f;
        give<T, N>(dx + i * N, value);
    }
}
template <typename T> __device__ void pass(unsigned count, const T *y, const T *dy, T *dx, float low, float high) {
    IN_LOTS(count % LOT == 0 && level(y, dy, dx), pass, (count, y, dy, dx, low, high))
}

template <typename T, int N>
__device__ __forceinline__ void add_hold_of(unsigned count, const T *left, const T *right, T *sum, float low, float high) {
    EACH(i, count / N) {
        float value[N], other[N];
        take<T, N>(left + i * N, value);
        take<T, N>(right + i * N, other);
        EVERY(k) value[k] = hold(value[k] + other[k], low, high);
        give<T, N>(sum + i * N, value);
    }
}
template <typename T>
__device__ void add_hold(unsigned count, const T *left, const T *right, T *sum, float low, float high) {
    IN_LOTS(count % LOT == 0 && level(left, right, sum), add_hold, (count, left, right, sum, low, high))
}

template <typename T> __device__ void masked(unsigned count, const T *x, const float *mask, T *y) {
    EACH(i, count) y[i] = put<T>(get(x[i]) * mask[i]);
}

// ---- per channel

// hold(x * scale + shift); without scale, hold(x + shift). x and y may be the same.
template <typename T, int N>
__device__ __forceinline__ void affine_of(unsigned count, int channels, const T *x, const float *scale, const float *shift,
                                          T *y, float low, float high) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N;
        float value[N], factor[N], term[N];
        take<T, N>(x + i * N, value);
        of_channels<N>(shift + channel, term);
        if (scale) {
            of_channels<N>(scale + channel, factor);
            EVERY(k) value[k] = fmaf(value[k], factor[k], term[k]);
        } else {
            EVERY(k) value[k] += term[k];
        }
        EVERY(k) value[k] = hold(value[k], low, high);
        give<T, N>(y + i * N, value);
    }
}
template <typename T>
__device__ void affine(unsigned count, int channels, const T *x, const float *scale, const float *shift, T *y, float low,
                       float high) {
    IN_LOTS(channels % LOT == 0 && level(x, y, scale, shift), affine, (count, channels, x, scale, shift, y, low, high))
}

// Sums over rows of [rows, channels] run in strips of rows, blockIdx.y, and the lanes of a block, threadIdx.y, which are added
// in their order; a thread sums the channels of a lot. What the strips give is added by `sum_strips` and its like.

// Channels of a block times lanes, at most.
#define LANE_NUMBERS 2048

// Adds what the lanes have of each channel, and calls `then` with the channel and its sums.
template <int N, int SUMS, typename F>
__device__ __forceinline__ void join_lanes(const float (&own)[SUMS][N], int channels, F then) {
    __shared__ float all[SUMS][LANE_NUMBERS];
    int across = blockDim.x * N, first = blockIdx.x * across;
#pragma unroll
    for (int s = 0; s < SUMS; ++s) {
        EVERY(k) all[s][threadIdx.y * across + threadIdx.x * N + k] = own[s][k];
    }
    __syncthreads();
    for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < across && first + c < channels; c += blockDim.x * blockDim.y) {
        float sums[SUMS];
#pragma unroll
        for (int s = 0; s < SUMS; ++s) {
            sums[s] = 0.0f;
            for (int lane = 0; lane < int(blockDim.y); ++lane) sums[s] += all[s][lane * across + c];
        }
        then(first + c, sums);
    }
}

// The rows of a strip that a thread sums, and the first channel of its lot.
#define ROWS_OF_STRIP(row) \
    for (unsigned row = blockIdx.y * strip + threadIdx.y; row < min((blockIdx.y + 1) * strip, rows); row += blockDim.y)
#define OWN_CHANNEL int(blockIdx.x * blockDim.x + threadIdx.x) * N

template <typename T, int N>
__device__ __forceinline__ void column_sums_of(unsigned rows, int channels, unsigned strip, const T *__restrict__ x,
                                               float *__restrict__ parts) {
    int channel = OWN_CHANNEL;
    float sums[1][N] = {};
    if (channel < channels) {
#pragma unroll 4
        ROWS_OF_STRIP(row) {
            float value[N];
            take<T, N>(x + row * channels + channel, value);
            EVERY(k) sums[0][k] += value[k];
        }
    }
    float *into = parts + blockIdx.y * channels;
    join_lanes<N, 1>(sums, channels, [=](int c, const float(&sum)[1]) { into[c] = sum[0]; });
}
template <typename T>
__device__ void column_sums(unsigned rows, int channels, unsigned strip, int lot, const T *x, float *parts) {
    IN_LOTS(lot > 1, column_sums, (rows, channels, strip, x, parts))
}

// `pass`, and the sums of what passes.
template <typename T, int N>
__device__ __forceinline__ void pass_sums_of(unsigned rows, int channels, unsigned strip, const T *__restrict__ y,
                                             const T *__restrict__ dy, T *__restrict__ dx, float low, float high,
                                             float *__restrict__ parts) {
    int channel = OWN_CHANNEL;
    float sums[1][N] = {};
    if (channel < channels) {
#pragma unroll 2
        ROWS_OF_STRIP(row) {
            float at[N], value[N];
            take<T, N>(y + row * channels + channel, at);
            take<T, N>(dy + row * channels + channel, value);
            EVERY(k) {
                value[k] = at[k] > low && at[k] < high ? value[k] : 0.0f;
                sums[0][k] += value[k];
            }
            give<T, N>(dx + row * channels + channel, value);
        }
    }
    float *into = parts + blockIdx.y * channels;
    join_lanes<N, 1>(sums, channels, [=](int c, const float(&sum)[1]) { into[c] = sum[0]; });
}
template <typename T>
__device__ void pass_sums(unsigned rows, int channels, unsigned strip, int lot, const T *y, const T *dy, T *dx, float low,
                          float high, float *parts) {
    IN_LOTS(lot > 1, pass_sums, (rows, channels, strip, y, dy, dx, low, high, parts))
}

// Each strip's mean and sum of squared distances from it: parts [2, strips, channels]. Distances are summed from a number of
// the strip, so that a mean that is far from zero costs no digits.
template <typename T, int N>
__device__ __forceinline__ void strip_moments_of(unsigned rows, int channels, unsigned strip, const T *__restrict__ x,
                                                 float *__restrict__ parts) {
    int channel = OWN_CHANNEL;
    const T *first = x + blockIdx.y * strip * channels;
    float sums[2][N] = {};
    if (channel < channels) {
        float middle[N];
        take<T, N>(first + channel, middle);
#pragma unroll 4
        ROWS_OF_STRIP(row) {
            float value[N];
            take<T, N>(x + row * channels + channel, value);
            EVERY(k) {
                float away = value[k] - middle[k];
                sums[0][k] += away;
                sums[1][k] = fmaf(away, away, sums[1][k]);
            }
        }
    }
    float seen = float(min(strip, rows - blockIdx.y * strip));
    float *into = parts + blockIdx.y * channels;
    unsigned all = gridDim.y * channels;
    join_lanes<N, 2>(sums, channels, [=](int c, const float(&sum)[2]) {
        float away = sum[0] / seen;
        into[c] = get(first[c]) + away;
        into[all + c] = fmaxf(sum[1] - away * sum[0], 0.0f);
    });
}
template <typename T>
__device__ void strip_moments(unsigned rows, int channels, unsigned strip, int lot, const T *x, float *parts) {
    IN_LOTS(lot > 1, strip_moments, (rows, channels, strip, x, parts))
}

// dy where the activation behind x * scale + shift let it pass.
__device__ __forceinline__ float passed(float x, float dy, float scale, float shift, float low, float high) {
    float y = fmaf(x, scale, shift);
    return y > low && y < high ? dy : 0.0f;
}

// Sums of dy * (x - mean) and of dy, as far as dy passes: parts [2, strips, channels].
template <typename T, int N>
__device__ __forceinline__ void norm_sums_of(unsigned rows, int channels, unsigned strip, const T *__restrict__ x,
                                             const T *__restrict__ dy, const float *__restrict__ scale,
                                             const float *__restrict__ shift, const float *__restrict__ mean, float low,
                                             float high, float *__restrict__ parts) {
    int channel = OWN_CHANNEL;
    float sums[2][N] = {};
    if (channel < channels) {
        float own_scale[N], own_shift[N], own_mean[N];
        EVERY(k) {
            own_scale[k] = scale[channel + k];
            own_shift[k] = shift[channel + k];
            own_mean[k] = mean[channel + k];
        }
#pragma unroll 2
        ROWS_OF_STRIP(row) {
            float value[N], gradient[N];
            take<T, N>(x + row * channels + channel, value);
            take<T, N>(dy + row * channels + channel, gradient);
            EVERY(k) {
                float rest = passed(value[k], gradient[k], own_scale[k], own_shift[k], low, high);
                sums[0][k] = fmaf(rest, value[k] - own_mean[k], sums[0][k]);
                sums[1][k] += rest;
            }
        }
    }
    float *into = parts + blockIdx.y * channels;
    unsigned all = gridDim.y * channels;
    join_lanes<N, 2>(sums, channels, [=](int c, const float(&sum)[2]) { into[c] = sum[0], into[all + c] = sum[1]; });
}
template <typename T>
__device__ void norm_sums(unsigned rows, int channels, unsigned strip, int lot, const T *x, const T *dy, const float *scale,
                          const float *shift, const float *mean, float low, float high, float *parts) {
    IN_LOTS(lot > 1, norm_sums, (rows, channels, strip, x, dy, scale, shift, mean, low, high, parts))
}

// Blocks of 32 channels, threadIdx.x, and 32 lanes of strips, threadIdx.y, which are added in their order: `of` gives what a
// strip adds. All threads receive the sum.
template <typename F> __device__ __forceinline__ double over_strips(int strips, bool inside, F of) {
    __shared__ double lanes[32][33];
    double sum = 0.0;
    if (inside)
        for (int strip = threadIdx.y; strip < strips; strip += 32) sum += of(strip);
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    double all = 0.0;
    for (int lane = 0; lane < 32; ++lane) all += lanes[lane][threadIdx.x];
    __syncthreads();
    return all;
}

// parts [strips, channels]
extern "C" __global__ void sum_strips(int strips, int channels, const float *parts, float *sums) {
    int channel = int(blockIdx.x * 32 + threadIdx.x);
    double sum = over_strips(strips, channel < channels, [=](int strip) { return double(parts[strip * channels + channel]); });
    if (threadIdx.y == 0 && channel < channels) sums[channel] = float(sum);
}

// What a batch norm makes of the strips' moments, parts [2, strips, channels]: mean, 1 / sqrt(variance + eps), the scale and
// the shift that normalise, found [4, channels], and the statistics that follow the batches (with the variance times
// `correction`).
extern "C" __global__ void batch_norm(unsigned rows, int channels, unsigned strip, int strips, const float *parts,
                                      const float *weight, const float *bias, const float *running_mean,
                                      const float *running_var, float eps, float momentum, float correction, float *found,
                                      float *moved_mean, float *moved_var) {
    int channel = int(blockIdx.x * 32 + threadIdx.x);
    bool inside = channel < channels;
    auto seen = [=](int index) { return double(min(strip, rows - index * strip)); };
    double mean = over_strips(strips, inside, [=](int index) { return parts[index * channels + channel] * seen(index); }) / rows;
    double variance = over_strips(strips, inside, [=](int index) {
        double away = parts[index * channels + channel] - mean;
        return parts[(strips + index) * channels + channel] + away * away * seen(index);
    }) / rows;
    if (threadIdx.y > 0 || !inside) return;
    float middle = float(mean), inverse = 1.0f / sqrtf(float(variance) + eps), scale = weight[channel] * inverse;
    float *into = found + channel;
    into[0] = middle;
    into[channels] = inverse;
    into[2 * channels] = scale;
    into[3 * channels] = fmaf(-middle, scale, bias[channel]);
    moved_mean[channel] = (1.0f - momentum) * running_mean[channel] + momentum * middle;
    moved_var[channel] = (1.0f - momentum) * running_var[channel] + momentum * (float(variance) * correction);
}

// Weights [out, per] of a convolution times the scale of the batch norm behind it.
extern "C" __global__ void fold_weights(unsigned n, int per, const float *w, const float *scale, float *folded) {
    EACH(i, n) folded[i] = w[i] * scale[i / per];
}

// Its bias, where it has one, through the same batch norm.
extern "C" __global__ void fold_bias(int channels, const float *bias, const float *scale, const float *shift, float *folded) {
    EACH(channel, channels) folded[channel] = bias ? shift[channel] + bias[channel] * scale[channel] : shift[channel];
}

// The same for statistics that stand still: scale, shift and 1 / sqrt(variance + eps), found [3, channels].
extern "C" __global__ void stored_norm(int channels, const float *weight, const float *bias, const float *mean,
                                       const float *variance, float eps, float *found) {
    EACH(channel, channels) {
        float inverse = 1.0f / sqrtf(variance[channel] + eps), scale = weight[channel] * inverse;
        found[channel] = scale;
        found[channels + channel] = fmaf(-mean[channel], scale, bias[channel]);
        found[2 * channels + channel] = inverse;
    }
}

// The gradients of weight and bias from `norm_sums`, and what of the gradient of x goes back through the batch's statistics:
// through [2, channels], the slope and the constant, times the scale.
extern "C" __global__ void norm_parameters(unsigned rows, int channels, int strips, const float *parts, const float *scale,
                                           const float *inverse, float *dweight, float *dbias, float *through) {
    int channel = int(blockIdx.x * 32 + threadIdx.x);
    bool inside = channel < channels;
    double product = over_strips(strips, inside, [=](int index) { return double(parts[index * channels + channel]); });
    double plain =
        over_strips(strips, inside, [=](int index) { return double(parts[(strips + index) * channels + channel]); });
    if (threadIdx.y > 0 || !inside) return;
    float own = inverse[channel], weight = float(product * own), bias = float(plain);
    dweight[channel] = weight;
    dbias[channel] = bias;
    through[channel] = scale[channel] * (own * weight / float(rows));
    through[channels + channel] = scale[channel] * (bias / float(rows));
}

// scale * dy - back - (x - mean) * slope, as far as dy passes; without slope, scale * dy.
template <typename T, int N>
__device__ __forceinline__ void norm_gradient_of(unsigned count, int channels, const T *x, const T *dy, const float *scale,
                                                 const float *shift, const float *mean, const float *slope,
                                                 const float *back, float low, float high, T *dx) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N;
        float value[N], gradient[N], factor[N], term[N];
        take<T, N>(x + i * N, value);
        take<T, N>(dy + i * N, gradient);
        of_channels<N>(scale + channel, factor);
        of_channels<N>(shift + channel, term);
        EVERY(k) gradient[k] = factor[k] * passed(value[k], gradient[k], factor[k], term[k], low, high);
        if (slope) {
            of_channels<N>(mean + channel, factor);
            EVERY(k) value[k] -= factor[k];
            of_channels<N>(slope + channel, factor);
            of_channels<N>(back + channel, term);
            EVERY(k) gradient[k] -= fmaf(value[k], factor[k], term[k]);
        }
        give<T, N>(dx + i * N, gradient);
    }
}
template <typename T>
__device__ void norm_gradient(unsigned count, int channels, const T *x, const T *dy, const float *scale,
                              const float *shift, const float *mean, const float *slope, const float *back, float low,
                              float high, T *dx) {
    IN_LOTS(channels % LOT == 0 && level(x, dy, dx) && level(scale, shift, mean) && level(slope, back), norm_gradient,
            (count, channels, x, dy, scale, shift, mean, slope, back, low, high, dx))
}

// ---- pooling

// Windows along one axis: moved in steps, or (grid > 0) a grid that covers the side.
struct Axis {
    int side, outs, kernel, stride, before, after, grid;
};

__device__ __forceinline__ void span(const Axis &axis, int index, int &start, int &end, int &padded) {
    if (axis.grid > 0) {
        start = index * axis.side / axis.grid;
        end = ((index + 1) * axis.side + axis.grid - 1) / axis.grid;
        padded = end - start;
        return;
    }
    int from = index * axis.stride, to = min(from + axis.kernel, axis.side + axis.before + axis.after);
    padded = max(to - from, 0);
    start = max(from - axis.before, 0);
    end = min(max(to - axis.before, 0), axis.side);
}

// The windows that may hold a pixel: from `first`, before `last`.
__device__ __forceinline__ void holders(const Axis &axis, int at, int &first, int &last) {
    if (axis.grid > 0) {
        first = max(at * axis.grid / axis.side - 1, 0);
        last = min(at * axis.grid / axis.side + 2, axis.grid);
        return;
    }
    int behind = at + axis.before - axis.kernel + 1;
    first = behind <= 0 ? 0 : (behind + axis.stride - 1) / axis.stride;
    last = min((at + axis.before) / axis.stride + 1, axis.outs);
}

#define AXES                                                                                                       \
    int height, int rows, int row_kernel, int row_stride, int row_before, int row_after, int row_grid, int width,  \
        int columns, int column_kernel, int column_stride, int column_before, int column_after, int column_grid
#define MAKE_AXES                                                                               \
    Axis down = {height, rows, row_kernel, row_stride, row_before, row_after, row_grid};        \
    Axis along = {width, columns, column_kernel, column_stride, column_before, column_after, column_grid};

// 0: the largest; 1: the mean of the image's pixels; 2: the mean with padding counted.
__device__ __forceinline__ float divisor(int reduce, int rows, int columns, int padded_rows, int padded_columns) {
    return reduce == 2 ? float(padded_rows * padded_columns) : float(rows * columns);
}

template <typename T, int N>
__device__ __forceinline__ void pool_of(unsigned count, int channels, int reduce, const Axis &down, const Axis &along,
                                        const T *x, T *y) {
    int across = channels / N, height = down.side, width = along.side, rows = down.outs, columns = along.outs;
    EACH(i, count / N) {
        int channel = int(i % across) * N, column = int(i / across % columns), row = int(i / across / columns % rows);
        unsigned image = i / across / columns / rows;
        int top, bottom, left, right, high, wide;
        span(down, row, top, bottom, high);
        span(along, column, left, right, wide);
        float found[N];
        EVERY(k) found[k] = reduce == 0 ? -INFINITY : 0.0f;
        for (int at = top; at < bottom; ++at)
            for (int pixel = left; pixel < right; ++pixel) {
                float value[N];
                take<T, N>(x + ((image * height + at) * width + pixel) * channels + channel, value);
                EVERY(k) {
                    if (reduce == 0)
                        found[k] = value[k] > found[k] || isnan(value[k]) ? value[k] : found[k];
                    else
                        found[k] += value[k];
                }
            }
        float by = divisor(reduce, bottom - top, right - left, high, wide);
        if (reduce != 0) {
            EVERY(k) found[k] /= by;
        }
        give<T, N>(y + i * N, found);
    }
}
template <typename T> __device__ void pool(unsigned count, int channels, int reduce, AXES, const T *x, T *y) {
    MAKE_AXES
    IN_LOTS(channels % LOT == 0 && level(x, y), pool, (count, channels, reduce, down, along, x, y))
}

// Of several equal maxima the first, row by row, receives all.
template <typename T, int N>
__device__ __forceinline__ void max_gradient_of(unsigned count, int channels, const Axis &down, const Axis &along,
                                                const T *x, const T *y, const T *dy, T *dx) {
    int across = channels / N, height = down.side, width = along.side, rows = down.outs, columns = along.outs;
    EACH(i, count / N) {
        int channel = int(i % across) * N, at_x = int(i / across % width), at_y = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float own[N], sum[N] = {};
        take<T, N>(x + i * N, own);
        int first_row, last_row, first_column, last_column;
        holders(down, at_y, first_row, last_row);
        holders(along, at_x, first_column, last_column);
        for (int row = first_row; row < last_row; ++row)
            for (int column = first_column; column < last_column; ++column) {
                int top, bottom, left, right, high, wide;
                span(down, row, top, bottom, high);
                span(along, column, left, right, wide);
                if (at_y < top || at_y >= bottom || at_x < left || at_x >= right) continue;
                unsigned out = ((image * rows + row) * columns + column) * channels + channel;
                float best[N], gradient[N];
                bool taken[N];
                take<T, N>(y + out, best);
                take<T, N>(dy + out, gradient);
                EVERY(k) taken[k] = !(own[k] == best[k] || isnan(own[k]));
                for (int v = top; v <= at_y; ++v)
                    for (int u = left; u < (v == at_y ? at_x : right); ++u) {
                        float other[N];
                        take<T, N>(x + ((image * height + v) * width + u) * channels + channel, other);
                        EVERY(k) taken[k] = taken[k] || other[k] == best[k] || isnan(other[k]);
                    }
                EVERY(k) sum[k] += taken[k] ? 0.0f : gradient[k];
            }
        give<T, N>(dx + i * N, sum);
    }
}
template <typename T>
__device__ void max_gradient(unsigned count, int channels, AXES, const T *x, const T *y, const T *dy, T *dx) {
    MAKE_AXES
    IN_LOTS(channels % LOT == 0 && level(x, y, dy, dx), max_gradient, (count, channels, down, along, x, y, dy, dx))
}

template <typename T, int N>
__device__ __forceinline__ void mean_gradient_of(unsigned count, int channels, int reduce, const Axis &down,
                                                 const Axis &along, const T *dy, T *dx) {
    int across = channels / N, height = down.side, width = along.side, rows = down.outs, columns = along.outs;
    EACH(i, count / N) {
        int channel = int(i % across) * N, at_x = int(i / across % width), at_y = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float sum[N] = {};
        int first_row, last_row, first_column, last_column;
        holders(down, at_y, first_row, last_row);
        holders(along, at_x, first_column, last_column);
        for (int row = first_row; row < last_row; ++row)
            for (int column = first_column; column < last_column; ++column) {
                int top, bottom, left, right, high, wide;
                span(down, row, top, bottom, high);
                span(along, column, left, right, wide);
                if (at_y < top || at_y >= bottom || at_x < left || at_x >= right) continue;
                float gradient[N], by = divisor(reduce, bottom - top, right - left, high, wide);
                take<T, N>(dy + ((image * rows + row) * columns + column) * channels + channel, gradient);
                EVERY(k) sum[k] += gradient[k] / by;
            }
        give<T, N>(dx + i * N, sum);
    }
}
template <typename T>
__device__ void mean_gradient(unsigned count, int channels, int reduce, AXES, const T *dy, T *dx) {
    MAKE_AXES
    IN_LOTS(channels % LOT == 0 && level(dy, dx), mean_gradient, (count, channels, reduce, down, along, dy, dx))
}

// ---- moving numbers

// Channels from `from_first` of one image to channels from `to_first` of another; `count` numbers, `channels` a pixel.
template <typename T, int N>
__device__ __forceinline__ void channels_of_of(unsigned count, int channels, int from_all, int from_first, int to_all,
                                               int to_first, const T *from, T *to) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        unsigned pixel = i / across, channel = i % across * N;
        float value[N];
        take<T, N>(from + pixel * from_all + from_first + channel, value);
        give<T, N>(to + pixel * to_all + to_first + channel, value);
    }
}
template <typename T>
__device__ void channels_of(unsigned count, int channels, int from_all, int from_first, int to_all, int to_first,
                            const T *from, T *to) {
    bool even = (channels | from_all | from_first | to_all | to_first) % LOT == 0;
    IN_LOTS(even && level(from, to), channels_of, (count, channels, from_all, from_first, to_all, to_first, from, to))
}

// y [n, rows, columns, channels] from x [n, height, width, inner]: pixel (row * stride - top, column * stride - left),
// channel - before, zero where that is outside. Padding, cropping (negative top and left) and the parameter-free shortcut.
template <typename T, int N>
__device__ __forceinline__ void placed_of(unsigned count, int rows, int columns, int channels, int height, int width,
                                          int inner, int stride, int top, int left, int before, const T *x, T *y) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N - before, u = int(i / across % columns) * stride - left;
        int v = int(i / across / columns % rows) * stride - top;
        unsigned image = i / across / columns / rows;
        bool inside = channel >= 0 && channel < inner && u >= 0 && u < width && v >= 0 && v < height;
        float value[N] = {};
        if (inside) take<T, N>(x + ((image * height + v) * width + u) * inner + channel, value);
        give<T, N>(y + i * N, value);
    }
}
template <typename T>
__device__ void placed(unsigned count, int rows, int columns, int channels, int height, int width, int inner, int stride,
                       int top, int left, int before, const T *x, T *y) {
    IN_LOTS((channels | inner | before) % LOT == 0 && level(x, y), placed,
            (count, rows, columns, channels, height, width, inner, stride, top, left, before, x, y))
}

// The gradient of the shortcut's input [n, height, width, inner].
template <typename T, int N>
__device__ __forceinline__ void shortcut_gradient_of(unsigned count, int height, int width, int inner, int rows,
                                                     int columns, int channels, int stride, int before, const T *dy, T *dx) {
    unsigned across = unsigned(inner / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N, u = int(i / across % width), v = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float value[N] = {};
        if (u % stride == 0 && v % stride == 0)
            take<T, N>(dy + ((image * rows + v / stride) * columns + u / stride) * channels + before + channel, value);
        give<T, N>(dx + i * N, value);
    }
}
template <typename T>
__device__ void shortcut_gradient(unsigned count, int height, int width, int inner, int rows, int columns, int channels,
                                  int stride, int before, const T *dy, T *dx) {
    IN_LOTS((channels | inner | before) % LOT == 0 && level(dy, dx), shortcut_gradient,
            (count, height, width, inner, rows, columns, channels, stride, before, dy, dx))
}

// x [n, rows, columns] as y [n, columns, rows]: planes and pixels, and weights' channels and taps.
template <typename From, typename To>
__device__ void turn(unsigned count, int rows, int columns, const From *x, To *y) {
    EACH(i, count) {
        unsigned row = i % rows, column = i / rows % columns, image = i / rows / columns;
        y[i] = put<To>(get(x[(image * rows + row) * columns + column]));
    }
}

// ---- convolutions without cuDNN, and those that it does slowly

// The output along one axis whose tap lies `from` the first pixel of the padded side, or -1.
__device__ __forceinline__ int reader(int from, int stride, int outs) {
    return from < 0 || from % stride || from / stride >= outs ? -1 : from / stride;
}

// Patches [n, rows, columns, taps, group channels] of x [n, height, width, channels], for one group from channel `first`.
template <typename T>
__device__ void patches(unsigned count, int rows, int columns, int taps_across, int taps, int own, int height, int width,
                        int channels, int first, int stride, int dilation, int top, int left, const T *x, T *y) {
    EACH(i, count) {
        int channel = int(i % own), tap = int(i / own % taps), column = int(i / own / taps % columns);
        int row = int(i / own / taps / columns % rows);
        unsigned image = i / own / taps / columns / rows;
        int v = row * stride + tap / taps_across * dilation - top;
        int u = column * stride + tap % taps_across * dilation - left;
        bool inside = u >= 0 && u < width && v >= 0 && v < height;
        y[i] = inside ? x[((image * height + v) * width + u) * channels + first + channel] : put<T>(0.0f);
    }
}

// The gradient of x from that of the patches: each pixel gathers what its patches got, tap by tap.
template <typename T>
__device__ void patches_gradient(unsigned count, int rows, int columns, int taps_across, int taps, int own, int height,
                                 int width, int channels, int first, int stride, int dilation, int top, int left,
                                 const T *dy, T *dx) {
    EACH(i, count) {
        int channel = int(i % own), u = int(i / own % width), v = int(i / own / width % height);
        unsigned image = i / own / width / height;
        float sum = 0.0f;
        for (int tap = 0; tap < taps; ++tap) {
            int row = reader(v + top - tap / taps_across * dilation, stride, rows);
            int column = reader(u + left - tap % taps_across * dilation, stride, columns);
            if (row < 0 || column < 0) continue;
            sum += get(dy[(((image * rows + row) * columns + column) * taps + tap) * own + channel]);
        }
        dx[((image * height + v) * width + u) * channels + first + channel] = put<T>(sum);
    }
}

// One kernel for each channel; w [channels, taps].
template <typename T, int N>
__device__ __forceinline__ void depthwise_of(unsigned count, int rows, int columns, int channels, int taps_across, int taps,
                                             int height, int width, int stride, int dilation, int top, int left,
                                             const T *x, const T *w, const float *bias, T *y, float low, float high) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N, column = int(i / across % columns), row = int(i / across / columns % rows);
        unsigned image = i / across / columns / rows;
        float sum[N] = {};
        for (int tap = 0; tap < taps; ++tap) {
            int v = row * stride + tap / taps_across * dilation - top;
            int u = column * stride + tap % taps_across * dilation - left;
            if (u < 0 || u >= width || v < 0 || v >= height) continue;
            float value[N];
            take<T, N>(x + ((image * height + v) * width + u) * channels + channel, value);
            EVERY(k) sum[k] = fmaf(value[k], get(w[(channel + k) * taps + tap]), sum[k]);
        }
        EVERY(k) sum[k] = hold(bias ? sum[k] + bias[channel + k] : sum[k], low, high);
        give<T, N>(y + i * N, sum);
    }
}
template <typename T>
__device__ void depthwise(unsigned count, int rows, int columns, int channels, int taps_across, int taps, int height,
                          int width, int stride, int dilation, int top, int left, const T *x, const T *w,
                          const float *bias, T *y, float low, float high) {
    IN_LOTS(channels % LOT == 0 && level(x, y), depthwise,
            (count, rows, columns, channels, taps_across, taps, height, width, stride, dilation, top, left, x, w, bias, y,
             low, high))
}

template <typename T, int N>
__device__ __forceinline__ void depthwise_input_of(unsigned count, int rows, int columns, int channels, int taps_across,
                                                   int taps, int height, int width, int stride, int dilation, int top,
                                                   int left, const T *dy, const T *w, T *dx) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N, u = int(i / across % width), v = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float sum[N] = {};
        for (int tap = 0; tap < taps; ++tap) {
            int row = reader(v + top - tap / taps_across * dilation, stride, rows);
            int column = reader(u + left - tap % taps_across * dilation, stride, columns);
            if (row < 0 || column < 0) continue;
            float value[N];
            take<T, N>(dy + ((image * rows + row) * columns + column) * channels + channel, value);
            EVERY(k) sum[k] = fmaf(value[k], get(w[(channel + k) * taps + tap]), sum[k]);
        }
        give<T, N>(dx + i * N, sum);
    }
}
template <typename T>
__device__ void depthwise_input(unsigned count, int rows, int columns, int channels, int taps_across, int taps, int height,
                                int width, int stride, int dilation, int top, int left, const T *dy, const T *w, T *dx) {
    IN_LOTS(channels % LOT == 0 && level(dy, dx), depthwise_input,
            (count, rows, columns, channels, taps_across, taps, height, width, stride, dilation, top, left, dy, w, dx))
}

// Strips of output pixels in blockIdx.y, the taps in blockIdx.z: parts [strips, taps, channels].
template <typename T, int N>
__device__ __forceinline__ void depthwise_weights_of(unsigned rows, int down, int columns, int channels, int taps_across,
                                                     int height, int width, int stride, int dilation, int top, int left,
                                                     unsigned strip, const T *__restrict__ x, const T *__restrict__ dy,
                                                     float *__restrict__ parts) {
    int channel = OWN_CHANNEL, tap = blockIdx.z;
    float sums[1][N] = {};
    if (channel < channels)
        ROWS_OF_STRIP(pixel) {
            int column = int(pixel % columns), row = int(pixel / columns % down);
            unsigned image = pixel / columns / down;
            int v = row * stride + tap / taps_across * dilation - top;
            int u = column * stride + tap % taps_across * dilation - left;
            if (u < 0 || u >= width || v < 0 || v >= height) continue;
            float value[N], gradient[N];
            take<T, N>(x + ((image * height + v) * width + u) * channels + channel, value);
            take<T, N>(dy + pixel * channels + channel, gradient);
            EVERY(k) sums[0][k] = fmaf(value[k], gradient[k], sums[0][k]);
        }
    float *into = parts + (blockIdx.y * gridDim.z + tap) * channels;
    join_lanes<N, 1>(sums, channels, [=](int c, const float(&sum)[1]) { into[c] = sum[0]; });
}
template <typename T>
__device__ void depthwise_weights(unsigned pixels, int rows, int columns, int channels, int taps_across, int taps,
                                  int height, int width, int stride, int dilation, int top, int left, unsigned strip,
                                  int lot, const T *x, const T *dy, float *parts) {
    IN_LOTS(lot > 1, depthwise_weights,
            (pixels, rows, columns, channels, taps_across, height, width, stride, dilation, top, left, strip, x, dy, parts))
}

// ---- heads

// Products of f32 whose sums run along the depth in its order, however many rows and columns there are: a head among many has
// the numbers that it has alone. Tiles of 64 x 64 results, 4 x 4 of each thread.
#define TILE 64
#define DEPTH 16

// Results [rows, columns] of a [rows, depth] and b [columns, depth], or (ALONG) of a [depth, rows] and b [depth, columns].
template <bool ALONG>
__device__ __forceinline__ void ordered_product(int rows, int columns, int depth, const float *a, const float *b, float *y) {
    __shared__ float left[DEPTH][TILE + 4], right[DEPTH][TILE + 4];
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    int down = threadIdx.x / 16 * 4, across = threadIdx.x % 16 * 4;
    float sums[4][4] = {};
    for (int start = 0; start < depth; start += DEPTH) {
        for (int i = threadIdx.x; i < TILE * DEPTH; i += 256) {
            int k = ALONG ? i / TILE : i % DEPTH, at = ALONG ? i % TILE : i / DEPTH;
            int row = first_row + at, column = first_column + at, inner = start + k;
            long long a_at = ALONG ? (long long)inner * rows + row : (long long)row * depth + inner;
            long long b_at = ALONG ? (long long)inner * columns + column : (long long)column * depth + inner;
            left[k][at] = row < rows && inner < depth ? a[a_at] : 0.0f;
            right[k][at] = column < columns && inner < depth ? b[b_at] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(left[k][down + i], right[k][across + j], sums[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            int row = first_row + down + i, column = first_column + across + j;
            if (row < rows && column < columns) y[(long long)row * columns + column] = sums[i][j];
        }
}
extern "C" __global__ void heads_forward(int rows, int columns, int depth, const float *x, const float *w, float *y) {
    ordered_product<false>(rows, columns, depth, x, w, y);
}
extern "C" __global__ void heads_weights(int rows, int columns, int depth, const float *dy, const float *x, float *dw) {
    ordered_product<true>(rows, columns, depth, dy, x, dw);
}

// ---- losses

__device__ __forceinline__ float warp_max(float value) {
    for (int away = 16; away > 0; away /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, away));
    return value;
}

__device__ __forceinline__ double warp_sum(double value) {
    for (int away = 16; away > 0; away /= 2) value += __shfl_xor_sync(0xffffffffu, value, away);
    return value;
}

// Cross-entropy of logits [rows, heads * classes]: one warp for each row of a head. weights [heads, classes], smoothing
// and whole (the sum of the labels' weights) [heads]; gradient like the logits, losses [rows, heads] not yet divided.
extern "C" __global__ void cross_entropy(int rows, int heads, int classes, const float *logits, const unsigned *labels,
                                         const double *weights, const double *smoothing, const double *whole,
                                         float *gradient, double *losses) {
    int warp = int(blockIdx.x * blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (warp >= rows * heads) return;
    int row = warp / heads, head = warp % heads;
    const float *own = logits + (row * heads + head) * classes;
    float *into = gradient + (row * heads + head) * classes;
    const double *weight = weights + head * classes;
    int label = int(labels[row]);
    float top = -INFINITY, odd = 0.0f;
    for (int c = lane; c < classes; c += 32) {
        top = fmaxf(top, own[c]);
        odd += isfinite(own[c]) ? 0.0f : own[c] - own[c];
    }
    top = warp_max(top);
    double exponentials = 0.0, targets = 0.0;
    for (int c = lane; c < classes; c += 32) {
        exponentials += exp(double(own[c]) - double(top));
        targets += weight[c] * (smoothing[head] / classes + (c == label ? 1.0 - smoothing[head] : 0.0));
    }
    exponentials = warp_sum(exponentials);
    targets = warp_sum(targets);
    double log_sum = log(exponentials), loss = 0.0;
    for (int c = lane; c < classes; c += 32) {
        double log_probability = double(own[c]) - double(top) - log_sum;
        double target = weight[c] * (smoothing[head] / classes + (c == label ? 1.0 - smoothing[head] : 0.0));
        loss -= target > 0.0 ? target * log_probability : 0.0;
        into[c] = float((exp(log_probability) * targets - target) / whole[head]);
    }
    // A logit that is not finite makes the loss that too.
    loss = warp_sum(loss + double(odd));
    if (lane == 0) losses[warp] = loss;
}

// The means [heads], the rows added in their order.
extern "C" __global__ void mean_losses(int rows, int heads, const double *losses, const double *whole, double *means) {
    EACH(head, heads) {
        double sum = 0.0;
        for (int row = 0; row < rows; ++row) sum += losses[row * heads + head];
        means[head] = sum / whole[head];
    }
}

// Answers for logits [rows, heads * classes]: the first largest class, and the logarithm of the label's probability.
extern "C" __global__ void answers(int rows, int heads, int classes, const float *logits, const unsigned *labels,
                                   unsigned *predicted, double *log_probabilities) {
    EACH(i, rows * heads) {
        const float *own = logits + i * classes;
        unsigned best = 0;
        float top = -INFINITY;
        for (int c = 0; c < classes; ++c) {
            if (own[c] > own[best]) best = unsigned(c);
            top = fmaxf(top, own[c]);
        }
        double sum = 0.0;
        for (int c = 0; c < classes; ++c) sum += exp(double(own[c]) - double(top));
        predicted[i] = best;
        log_probabilities[i] = double(own[labels[i / heads]]) - double(top) - log(sum);
    }
}

// ---- copies

extern "C" __global__ void copy_words(unsigned n, const unsigned *from, unsigned *to) { EACH(i, n) to[i] = from[i]; }

// Copies of one launch: blockIdx.y is the place of one among them.
struct Copies {
    struct {
        const float *from;
        float *to;
        unsigned count, unused;
    } of[64];
};

extern "C" __global__ void copy_several(const __grid_constant__ Copies copies) {
    const auto &own = copies.of[blockIdx.y];
    EACH(i, own.count) own.to[i] = own.from[i];
}

// ---- optimisers

// One step of a number by SGD (kind 0) or AdamW (kind 1). n: kind, decay that is coupled, shrink, rate, momentum or the scale
// of the second moment, nesterov.
__device__ __forceinline__ void step_number(const float *n, float *w, float *first, float *second, float gradient,
                                            float beta, float beta_second, float epsilon) {
    float g = gradient + n[1] * *w;
    if (n[0] == 0.0f) {
        float v = n[4] * *first + g;
        *first = v;
        *w = n[2] * *w - n[3] * (n[5] != 0.0f ? g + n[4] * v : v);
    } else {
        float m = beta * *first + (1.0f - beta) * g;
        float v = beta_second * *second + (1.0f - beta_second) * g * g;
        *first = m;
        *second = v;
        *w = n[2] * *w - n[3] * m / (sqrtf(v * n[4]) + epsilon);
    }
}

// Parameters that step in one launch: blockIdx.y is the place of one among them. Its numbers come along, or were told to the
// device.
struct Steps {
    struct {
        float *w, *first, *second;
        const float *gradient, *told;
        float numbers[6];
        unsigned count, unused;
    } of[32];
};

extern "C" __global__ void step_several(const __grid_constant__ Steps steps, float beta, float beta_second, float epsilon) {
    const auto &own = steps.of[blockIdx.y];
    const float *numbers = own.told ? own.told : own.numbers;
    EACH(i, own.count)
        step_number(numbers, own.w + i, own.first + i, own.second + i, own.gradient[i], beta, beta_second, epsilon);
}

// One step of many heads, `own` numbers each, each with its own six numbers and memories; kind -1 stands still.
extern "C" __global__ void step_heads(unsigned count, int own, const float *numbers, const long long *memories, float *w,
                                      const float *gradient, float beta, float beta_second, float epsilon) {
    EACH(i, count) {
        int head = int(i / own), place = int(i % own);
        const float *n = numbers + 6 * head;
        if (n[0] < 0.0f) continue;
        float *first = (float *)memories[2 * head], *second = (float *)memories[2 * head + 1];
        step_number(n, w + i, first + place, second + place, gradient[i], beta, beta_second, epsilon);
    }
}

// The sum of squares of each of 256 threads' numbers in one block, added in the order of the threads.
extern "C" __global__ void squares(unsigned count, const float *x, double *sum) {
    __shared__ double lanes[256];
    double own = 0.0;
    for (unsigned i = threadIdx.x; i < count; i += 256) own += double(x[i]) * double(x[i]);
    lanes[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x == 0) {
        double all = 0.0;
        for (int lane = 0; lane < 256; ++lane) all += lanes[lane];
        *sum = all;
    }
}

// x times limit / (norm + 1e-6) where that is less than 1 (PyTorch's clip_grad_norm_).
extern "C" __global__ void clip(unsigned count, float *x, int parts, const double *sums, double limit) {
    double all = 0.0;
    for (int part = 0; part < parts; ++part) all += sums[part];
    double factor = limit / (sqrt(all) + 1e-6);
    if (factor < 1.0) EACH(i, count) x[i] = float(x[i] * factor);
}

// Sets the flag where some number is not finite.
extern "C" __global__ void not_finite(unsigned count, const float *x, unsigned *flag) {
    EACH(i, count) if (!isfinite(x[i])) *flag = 1;
}

// ---- pixels

// byte * scale + shift for images [n, 3, pixels] of RGB bytes, each plane from a byte of its own; rounded twice, as on CPU.
extern "C" __global__ void normalise(unsigned count, int pixels, const unsigned char *bytes, int first, int second, int third,
                                     float scale, float scale_second, float scale_third, float shift, float shift_second,
                                     float shift_third, float *y) {
    EACH(i, count) {
        int plane = int(i / pixels % 3), byte = plane == 0 ? first : plane == 1 ? second : third;
        float times = plane == 0 ? scale : plane == 1 ? scale_second : scale_third;
        float plus = plane == 0 ? shift : plane == 1 ? shift_second : shift_third;
        unsigned image = i / pixels / 3, pixel = i % pixels;
        y[i] = __fadd_rn(__fmul_rn(float(bytes[(image * pixels + pixel) * 3 + byte]), times), plus);
    }
}

// Rows `which` of so many numbers each.
extern "C" __global__ void rows_of(unsigned n, int own, const unsigned *which, const float *from, float *y) {
    EACH(i, n) y[i] = from[size_t(which[i / own]) * own + i % own];
}

// ---- entry points: each template as f32 and as bf16

#define BOTH(name, parameters, arguments)                                            \
    extern "C" __global__ void name##_f32 parameters(float) { name<float> arguments; } \
    extern "C" __global__ void name##_bf16 parameters(bf16) { name<bf16> arguments; }

#define HOLD_ALL(T) (unsigned n, const T *x, T *y, float low, float high)
BOTH(hold_all, HOLD_ALL, (n, x, y, low, high))
#define PASS(T) (unsigned n, const T *y, const T *dy, T *dx, float low, float high)
BOTH(pass, PASS, (n, y, dy, dx, low, high))
#define ADD_HOLD(T) (unsigned n, const T *a, const T *b, T *y, float low, float high)
BOTH(add_hold, ADD_HOLD, (n, a, b, y, low, high))
#define MASKED(T) (unsigned n, const T *x, const float *mask, T *y)
BOTH(masked, MASKED, (n, x, mask, y))
#define AFFINE(T) (unsigned n, int c, const T *x, const float *scale, const float *shift, T *y, float low, float high)
BOTH(affine, AFFINE, (n, c, x, scale, shift, y, low, high))
#define COLUMN_SUMS(T) (unsigned rows, int c, unsigned strip, int lot, const T *x, float *parts)
BOTH(column_sums, COLUMN_SUMS, (rows, c, strip, lot, x, parts))
#define PASS_SUMS(T)                                                                                                 \
    (unsigned rows, int c, unsigned strip, int lot, const T *y, const T *dy, T *dx, float low, float high, float *parts)
BOTH(pass_sums, PASS_SUMS, (rows, c, strip, lot, y, dy, dx, low, high, parts))
BOTH(strip_moments, COLUMN_SUMS, (rows, c, strip, lot, x, parts))
#define NORM_SUMS(T)                                                                                                 \
    (unsigned rows, int c, unsigned strip, int lot, const T *x, const T *dy, const float *scale, const float *shift,    \
     const float *mean, float low, float high, float *parts)
BOTH(norm_sums, NORM_SUMS, (rows, c, strip, lot, x, dy, scale, shift, mean, low, high, parts))
#define NORM_GRADIENT(T)                                                                                             \
    (unsigned n, int c, const T *x, const T *dy, const float *scale, const float *shift, const float *mean,            \
     const float *slope, const float *back, float low, float high, T *dx)
BOTH(norm_gradient, NORM_GRADIENT, (n, c, x, dy, scale, shift, mean, slope, back, low, high, dx))

extern "C" __global__ void turn_f32_f32(unsigned n, int rows, int columns, const float *x, float *y) {
    turn(n, rows, columns, x, y);
}
extern "C" __global__ void turn_f32_bf16(unsigned n, int rows, int columns, const float *x, bf16 *y) {
    turn(n, rows, columns, x, y);
}
extern "C" __global__ void turn_bf16_f32(unsigned n, int rows, int columns, const bf16 *x, float *y) {
    turn(n, rows, columns, x, y);
}
extern "C" __global__ void turn_bf16_bf16(unsigned n, int rows, int columns, const bf16 *x, bf16 *y) {
    turn(n, rows, columns, x, y);
}

#define AXES_PASSED                                                                                                  \
    height, rows, row_kernel, row_stride, row_before, row_after, row_grid, width, columns, column_kernel,             \
        column_stride, column_before, column_after, column_grid
#define POOL(T) (unsigned n, int c, int reduce, AXES, const T *x, T *y)
BOTH(pool, POOL, (n, c, reduce, AXES_PASSED, x, y))
#define MAX_GRADIENT(T) (unsigned n, int c, AXES, const T *x, const T *y, const T *dy, T *dx)
BOTH(max_gradient, MAX_GRADIENT, (n, c, AXES_PASSED, x, y, dy, dx))
#define MEAN_GRADIENT(T) (unsigned n, int c, int reduce, AXES, const T *dy, T *dx)
BOTH(mean_gradient, MEAN_GRADIENT, (n, c, reduce, AXES_PASSED, dy, dx))

#define CHANNELS_OF(T)                                                                                               \
    (unsigned n, int channels, int from_all, int from_first, int to_all, int to_first, const T *from, T *to)
BOTH(channels_of, CHANNELS_OF, (n, channels, from_all, from_first, to_all, to_first, from, to))
#define PLACED(T)                                                                                                    \
    (unsigned n, int rows, int columns, int channels, int height, int width, int inner, int stride, int top, int left, \
     int before, const T *x, T *y)
BOTH(placed, PLACED, (n, rows, columns, channels, height, width, inner, stride, top, left, before, x, y))
#define SHORTCUT_GRADIENT(T)                                                                                         \
    (unsigned n, int height, int width, int inner, int rows, int columns, int channels, int stride, int before,        \
     const T *dy, T *dx)
BOTH(shortcut_gradient, SHORTCUT_GRADIENT, (n, height, width, inner, rows, columns, channels, stride, before, dy, dx))

#define PATCHES(T)                                                                                                   \
    (unsigned n, int rows, int columns, int across, int taps, int own, int height, int width, int channels, int first, \
     int stride, int dilation, int top, int left, const T *x, T *y)
BOTH(patches, PATCHES, (n, rows, columns, across, taps, own, height, width, channels, first, stride, dilation, top, left, x, y))
BOTH(patches_gradient, PATCHES,
     (n, rows, columns, across, taps, own, height, width, channels, first, stride, dilation, top, left, x, y))
#define DEPTHWISE(T)                                                                                                 \
    (unsigned n, int rows, int columns, int channels, int across, int taps, int height, int width, int stride,         \
     int dilation, int top, int left, const T *x, const T *w, const float *bias, T *y, float low, float high)
BOTH(depthwise, DEPTHWISE,
     (n, rows, columns, channels, across, taps, height, width, stride, dilation, top, left, x, w, bias, y, low, high))
#define DEPTHWISE_INPUT(T)                                                                                           \
    (unsigned n, int rows, int columns, int channels, int across, int taps, int height, int width, int stride,         \
     int dilation, int top, int left, const T *dy, const T *w, T *dx)
BOTH(depthwise_input, DEPTHWISE_INPUT,
     (n, rows, columns, channels, across, taps, height, width, stride, dilation, top, left, dy, w, dx))
#define DEPTHWISE_WEIGHTS(T)                                                                                         \
    (unsigned pixels, int rows, int columns, int channels, int across, int taps, int height, int width, int stride,    \
     int dilation, int top, int left, unsigned strip, int lot, const T *x, const T *dy, float *parts)
BOTH(depthwise_weights, DEPTHWISE_WEIGHTS,
     (pixels, rows, columns, channels, across, taps, height, width, stride, dilation, top, left, strip, lot, x, dy, parts))
