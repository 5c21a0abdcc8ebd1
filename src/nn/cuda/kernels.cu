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

// ---- activations

template <typename T> __device__ void hold_all(unsigned count, const T *x, T *y, float low, float high) {
    EACH(i, count) y[i] = put<T>(hold(get(x[i]), low, high));
}

// dy where y lies between the bounds, zero elsewhere.
template <typename T> __device__ void pass(unsigned count, const T *y, const T *dy, T *dx, float low, float high) {
    EACH(i, count) {
        float at = get(y[i]);
        dx[i] = at > low && at < high ? dy[i] : put<T>(0.0f);
    }
}

template <typename T>
__device__ void add_hold(unsigned count, const T *left, const T *right, T *sum, float low, float high) {
    EACH(i, count) sum[i] = put<T>(hold(get(left[i]) + get(right[i]), low, high));
}

template <typename T> __device__ void masked(unsigned count, const T *x, const float *mask, T *y) {
    EACH(i, count) y[i] = put<T>(get(x[i]) * mask[i]);
}

// ---- per channel

// hold(x * scale + shift); without scale, hold(x + shift). x and y may be the same.
template <typename T>
__device__ void affine(unsigned count, int channels, const T *x, const float *scale, const float *shift, T *y, float low,
                       float high) {
    EACH(i, count) {
        int channel = int(i % channels);
        float value = get(x[i]);
        value = scale ? fmaf(value, scale[channel], shift[channel]) : value + shift[channel];
        y[i] = put<T>(hold(value, low, high));
    }
}

// Sums over rows of [rows, channels] run in blocks of `strip` rows: 32 channels and 8 lanes of rows in a block, the lanes
// added in their order. What the strips give is added by `sum_strips`.
#define LANES 8

template <typename T>
__device__ void column_sums(unsigned rows, int channels, unsigned strip, const T *x, float *parts) {
    __shared__ float lanes[LANES][33];
    int channel = blockIdx.x * 32 + threadIdx.x;
    unsigned first = blockIdx.y * strip, last = min(first + strip, rows);
    float sum = 0.0f;
    if (channel < channels)
        for (unsigned row = first + threadIdx.y; row < last; row += LANES) sum += get(x[row * channels + channel]);
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && channel < channels) {
        for (int lane = 1; lane < LANES; ++lane) sum += lanes[lane][threadIdx.x];
        parts[blockIdx.y * channels + channel] = sum;
    }
}

extern "C" __global__ void sum_strips(int strips, int channels, const float *parts, const float *factor, float *sums) {
    EACH(channel, channels) {
        double sum = 0.0;
        for (int strip = 0; strip < strips; ++strip) sum += parts[strip * channels + channel];
        sums[channel] = float(factor ? sum * factor[channel] : sum);
    }
}

// Mean and sum of squared distances from it of each strip (Welford, 1962), the lanes joined as Chan et al. (1979) do.
template <typename T>
__device__ void strip_moments(unsigned rows, int channels, unsigned strip, const T *x, float *means, float *squares) {
    __shared__ float lane_means[LANES][33], lane_squares[LANES][33];
    int channel = blockIdx.x * 32 + threadIdx.x;
    unsigned first = blockIdx.y * strip, last = min(first + strip, rows);
    float mean = 0.0f, square = 0.0f;
    int seen = 0;
    if (channel < channels)
        for (unsigned row = first + threadIdx.y; row < last; row += LANES) {
            float value = get(x[row * channels + channel]), away = value - mean;
            mean += away / float(++seen);
            square += away * (value - mean);
        }
    lane_means[threadIdx.y][threadIdx.x] = mean;
    lane_squares[threadIdx.y][threadIdx.x] = square;
    __syncthreads();
    if (threadIdx.y == 0 && channel < channels) {
        for (int lane = 1; lane < LANES; ++lane) {
            int more = max(0, (int(last - first) - lane + LANES - 1) / LANES);
            if (more == 0) continue;
            float away = lane_means[lane][threadIdx.x] - mean;
            float share = float(more) / float(seen + more);
            mean += away * share;
            square += lane_squares[lane][threadIdx.x] + away * away * float(seen) * share;
            seen += more;
        }
        means[blockIdx.y * channels + channel] = mean;
        squares[blockIdx.y * channels + channel] = square;
    }
}

// The mean and the biased variance of all strips.
extern "C" __global__ void join_moments(unsigned rows, int channels, unsigned strip, int strips, const float *means,
                                        const float *squares, float *mean, float *variance) {
    EACH(channel, channels) {
        double middle = 0.0, square = 0.0, seen = 0.0;
        for (int index = 0; index < strips; ++index) {
            double more = double(min(strip, rows - index * strip));
            double away = means[index * channels + channel] - middle;
            middle += away * more / (seen + more);
            square += squares[index * channels + channel] + away * away * seen * more / (seen + more);
            seen += more;
        }
        mean[channel] = float(middle);
        variance[channel] = float(square / rows);
    }
}

// dy where the activation behind x * scale + shift let it pass.
template <typename T>
__device__ __forceinline__ float passed(float x, T dy, float scale, float shift, float low, float high) {
    float y = fmaf(x, scale, shift);
    return y > low && y < high ? get(dy) : 0.0f;
}

// Sums of dy * (x - mean) and of dy, as far as dy passes.
template <typename T>
__device__ void norm_sums(unsigned rows, int channels, unsigned strip, const T *x, const T *dy, const float *scale,
                          const float *shift, const float *mean, float low, float high, float *products, float *plain) {
    __shared__ float lane_products[LANES][33], lane_plain[LANES][33];
    int c = blockIdx.x * 32 + threadIdx.x;
    unsigned first = blockIdx.y * strip, last = min(first + strip, rows);
    float product = 0.0f, sum = 0.0f;
    if (c < channels) {
        float own_scale = scale[c], own_shift = shift[c], own_mean = mean[c];
        for (unsigned row = first + threadIdx.y; row < last; row += LANES) {
            float value = get(x[row * channels + c]);
            float rest = passed(value, dy[row * channels + c], own_scale, own_shift, low, high);
            product = fmaf(rest, value - own_mean, product);
            sum += rest;
        }
    }
    lane_products[threadIdx.y][threadIdx.x] = product;
    lane_plain[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < channels) {
        for (int lane = 1; lane < LANES; ++lane) {
            product += lane_products[lane][threadIdx.x];
            sum += lane_plain[lane][threadIdx.x];
        }
        products[blockIdx.y * channels + c] = product;
        plain[blockIdx.y * channels + c] = sum;
    }
}

// scale * (dy - back - (x - mean) * slope), as far as dy passes.
template <typename T>
__device__ void norm_gradient(unsigned count, int channels, const T *x, const T *dy, const float *scale,
                              const float *shift, const float *mean, const float *slope, const float *back, float low,
                              float high, T *dx) {
    EACH(i, count) {
        int c = int(i % channels);
        float value = get(x[i]), rest = passed(value, dy[i], scale[c], shift[c], low, high);
        dx[i] = put<T>(scale[c] * (rest - back[c] - (value - mean[c]) * slope[c]));
    }
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

template <typename T> __device__ void pool(unsigned count, int channels, int reduce, AXES, const T *x, T *y) {
    MAKE_AXES
    EACH(i, count) {
        int channel = int(i % channels), column = int(i / channels % columns), row = int(i / channels / columns % rows);
        unsigned image = i / channels / columns / rows;
        int top, bottom, left, right, high, wide;
        span(down, row, top, bottom, high);
        span(along, column, left, right, wide);
        float found = reduce == 0 ? -INFINITY : 0.0f;
        for (int at = top; at < bottom; ++at)
            for (int pixel = left; pixel < right; ++pixel) {
                float value = get(x[((image * height + at) * width + pixel) * channels + channel]);
                if (reduce == 0)
                    found = value > found || isnan(value) ? value : found;
                else
                    found += value;
            }
        y[i] = put<T>(reduce == 0 ? found : found / divisor(reduce, bottom - top, right - left, high, wide));
    }
}

// Of several equal maxima the first, row by row, receives all.
template <typename T>
__device__ void max_gradient(unsigned count, int channels, AXES, const T *x, const T *y, const T *dy, T *dx) {
    MAKE_AXES
    EACH(i, count) {
        int channel = int(i % channels), at_x = int(i / channels % width), at_y = int(i / channels / width % height);
        unsigned image = i / channels / width / height;
        float own = get(x[i]), sum = 0.0f;
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
                float best = get(y[out]);
                if (!(own == best || isnan(own))) continue;
                bool earlier = false;
                for (int v = top; v <= at_y && !earlier; ++v)
                    for (int u = left; u < (v == at_y ? at_x : right) && !earlier; ++u) {
                        float other = get(x[((image * height + v) * width + u) * channels + channel]);
                        earlier = other == best || isnan(other);
                    }
                if (!earlier) sum += get(dy[out]);
            }
        dx[i] = put<T>(sum);
    }
}

template <typename T>
__device__ void mean_gradient(unsigned count, int channels, int reduce, AXES, const T *dy, T *dx) {
    MAKE_AXES
    EACH(i, count) {
        int channel = int(i % channels), at_x = int(i / channels % width), at_y = int(i / channels / width % height);
        unsigned image = i / channels / width / height;
        float sum = 0.0f;
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
                sum += get(dy[out]) / divisor(reduce, bottom - top, right - left, high, wide);
            }
        dx[i] = put<T>(sum);
    }
}

// ---- moving numbers

// Channels from `from_first` of one image to channels from `to_first` of another; `count` numbers, `channels` a pixel.
template <typename T>
__device__ void channels_of(unsigned count, int channels, int from_all, int from_first, int to_all, int to_first,
                            const T *from, T *to) {
    EACH(i, count) {
        unsigned pixel = i / channels, channel = i % channels;
        to[pixel * to_all + to_first + channel] = from[pixel * from_all + from_first + channel];
    }
}

// y [n, rows, columns, channels] from x [n, height, width, inner]: pixel (row * stride - top, column * stride - left),
// channel - before, zero where that is outside. Padding, cropping (negative top and left) and the parameter-free shortcut.
template <typename T>
__device__ void placed(unsigned count, int rows, int columns, int channels, int height, int width, int inner, int stride,
                       int top, int left, int before, const T *x, T *y) {
    EACH(i, count) {
        int channel = int(i % channels) - before, u = int(i / channels % columns) * stride - left;
        int v = int(i / channels / columns % rows) * stride - top;
        unsigned image = i / channels / columns / rows;
        bool inside = channel >= 0 && channel < inner && u >= 0 && u < width && v >= 0 && v < height;
        y[i] = inside ? x[((image * height + v) * width + u) * inner + channel] : put<T>(0.0f);
    }
}

// The gradient of the shortcut's input [n, height, width, inner].
template <typename T>
__device__ void shortcut_gradient(unsigned count, int height, int width, int inner, int rows, int columns, int channels,
                                  int stride, int before, const T *dy, T *dx) {
    EACH(i, count) {
        int channel = int(i % inner), u = int(i / inner % width), v = int(i / inner / width % height);
        unsigned image = i / inner / width / height;
        bool read = u % stride == 0 && v % stride == 0;
        unsigned from = ((image * rows + v / stride) * columns + u / stride) * channels + before + channel;
        dx[i] = read ? dy[from] : put<T>(0.0f);
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
template <typename T>
__device__ void depthwise(unsigned count, int rows, int columns, int channels, int taps_across, int taps, int height,
                          int width, int stride, int dilation, int top, int left, const T *x, const T *w,
                          const float *bias, T *y, float low, float high) {
    EACH(i, count) {
        int channel = int(i % channels), column = int(i / channels % columns), row = int(i / channels / columns % rows);
        unsigned image = i / channels / columns / rows;
        float sum = 0.0f;
        for (int tap = 0; tap < taps; ++tap) {
            int v = row * stride + tap / taps_across * dilation - top;
            int u = column * stride + tap % taps_across * dilation - left;
            if (u < 0 || u >= width || v < 0 || v >= height) continue;
            sum = fmaf(get(x[((image * height + v) * width + u) * channels + channel]), get(w[channel * taps + tap]), sum);
        }
        y[i] = put<T>(hold(bias ? sum + bias[channel] : sum, low, high));
    }
}

template <typename T>
__device__ void depthwise_input(unsigned count, int rows, int columns, int channels, int taps_across, int taps, int height,
                                int width, int stride, int dilation, int top, int left, const T *dy, const T *w, T *dx) {
    EACH(i, count) {
        int channel = int(i % channels), u = int(i / channels % width), v = int(i / channels / width % height);
        unsigned image = i / channels / width / height;
        float sum = 0.0f;
        for (int tap = 0; tap < taps; ++tap) {
            int row = reader(v + top - tap / taps_across * dilation, stride, rows);
            int column = reader(u + left - tap % taps_across * dilation, stride, columns);
            if (row < 0 || column < 0) continue;
            unsigned at = ((image * rows + row) * columns + column) * channels + channel;
            sum = fmaf(get(dy[at]), get(w[channel * taps + tap]), sum);
        }
        dx[i] = put<T>(sum);
    }
}

// Strips of output pixels in blockIdx.y, the taps in blockIdx.z: parts [strips, taps, channels].
template <typename T>
__device__ void depthwise_weights(unsigned pixels, int rows, int columns, int channels, int taps_across, int taps,
                                  int height, int width, int stride, int dilation, int top, int left, unsigned strip,
                                  const T *x, const T *dy, float *parts) {
    __shared__ float lanes[LANES][33];
    int tap = blockIdx.z, channel = blockIdx.x * 32 + threadIdx.x;
    unsigned first = blockIdx.y * strip, last = min(first + strip, pixels);
    float sum = 0.0f;
    if (channel < channels)
        for (unsigned pixel = first + threadIdx.y; pixel < last; pixel += LANES) {
            int column = int(pixel % columns), row = int(pixel / columns % rows);
            unsigned image = pixel / columns / rows;
            int v = row * stride + tap / taps_across * dilation - top;
            int u = column * stride + tap % taps_across * dilation - left;
            if (u < 0 || u >= width || v < 0 || v >= height) continue;
            float value = get(x[((image * height + v) * width + u) * channels + channel]);
            sum = fmaf(value, get(dy[pixel * channels + channel]), sum);
        }
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && channel < channels) {
        for (int lane = 1; lane < LANES; ++lane) sum += lanes[lane][threadIdx.x];
        parts[(blockIdx.y * taps + tap) * channels + channel] = sum;
    }
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

// ---- optimisers

extern "C" __global__ void sgd(unsigned count, float *w, float *velocity, const float *gradient, float decay, float shrink,
                               float lr, float momentum, int nesterov) {
    EACH(i, count) {
        float g = gradient[i] + decay * w[i];
        float v = momentum * velocity[i] + g;
        velocity[i] = v;
        w[i] = shrink * w[i] - lr * (nesterov ? g + momentum * v : v);
    }
}

extern "C" __global__ void adam(unsigned count, float *w, float *first, float *second, const float *gradient, float decay,
                                float shrink, float rate, float second_scale, float beta, float beta_second, float epsilon) {
    EACH(i, count) {
        float g = gradient[i] + decay * w[i];
        float m = beta * first[i] + (1.0f - beta) * g;
        float v = beta_second * second[i] + (1.0f - beta_second) * g * g;
        first[i] = m;
        second[i] = v;
        w[i] = shrink * w[i] - rate * m / (sqrtf(v * second_scale) + epsilon);
    }
}

// One step of many heads, `own` numbers each: by SGD (kind 0) or AdamW (kind 1), each with its own six numbers (kind, decay,
// shrink, rate, momentum or scale of the second moment, nesterov) and its own memories; kind -1 stands still.
extern "C" __global__ void step_heads(unsigned count, int own, const float *numbers, const long long *memories, float *w,
                                      const float *gradient, float beta, float beta_second, float epsilon) {
    EACH(i, count) {
        int head = int(i / own), place = int(i % own);
        const float *n = numbers + 6 * head;
        if (n[0] < 0.0f) continue;
        float *first = (float *)memories[2 * head], *second = (float *)memories[2 * head + 1];
        float g = gradient[i] + n[1] * w[i];
        if (n[0] == 0.0f) {
            float v = n[4] * first[place] + g;
            first[place] = v;
            w[i] = n[2] * w[i] - n[3] * (n[5] != 0.0f ? g + n[4] * v : v);
        } else {
            float m = beta * first[place] + (1.0f - beta) * g;
            float v = beta_second * second[place] + (1.0f - beta_second) * g * g;
            first[place] = m;
            second[place] = v;
            w[i] = n[2] * w[i] - n[3] * m / (sqrtf(v * n[4]) + epsilon);
        }
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
extern "C" __global__ void normalise(unsigned count, int pixels, const unsigned char *bytes, const float *scale,
                                     const float *shift, int first, int second, int third, float *y) {
    EACH(i, count) {
        int plane = int(i / pixels % 3), byte = plane == 0 ? first : plane == 1 ? second : third;
        unsigned image = i / pixels / 3, pixel = i % pixels;
        y[i] = __fadd_rn(__fmul_rn(float(bytes[(image * pixels + pixel) * 3 + byte]), scale[plane]), shift[plane]);
    }
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
#define COLUMN_SUMS(T) (unsigned rows, int c, unsigned strip, const T *x, float *parts)
BOTH(column_sums, COLUMN_SUMS, (rows, c, strip, x, parts))
#define STRIP_MOMENTS(T) (unsigned rows, int c, unsigned strip, const T *x, float *means, float *squares)
BOTH(strip_moments, STRIP_MOMENTS, (rows, c, strip, x, means, squares))
#define NORM_SUMS(T)                                                                                                 \
    (unsigned rows, int c, unsigned strip, const T *x, const T *dy, const float *scale, const float *shift,             \
     const float *mean, float low, float high, float *products, float *plain)
BOTH(norm_sums, NORM_SUMS, (rows, c, strip, x, dy, scale, shift, mean, low, high, products, plain))
#define NORM_GRADIENT(T)                                                                                             \
    (unsigned n, int c, const T *x, const T *dy, const float *scale, const float *shift, const float *mean,            \
     const float *slope, const float *back, float low, float high, T *dx)
BOTH(norm_gradient, NORM_GRADIENT, (n, c, x, dy, scale, shift, mean, slope, back, low, high, dx))

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
     int dilation, int top, int left, unsigned strip, const T *x, const T *dy, float *parts)
BOTH(depthwise_weights, DEPTHWISE_WEIGHTS,
     (pixels, rows, columns, channels, across, taps, height, width, stride, dilation, top, left, strip, x, dy, parts))
