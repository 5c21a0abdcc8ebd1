// What candle and cuDNN's wrappers have not got: pooling, batch norm, activations, losses and optimiser steps on images
// [n, height, width, channels]. Every sum runs in an order that follows from the shapes alone, so that a run repeats bit
// for bit on one kind of GPU: nothing is added atomically.

#include "kernels/numbers.cuh"
#include "kernels/activations.cuh"
#include "kernels/gates.cuh"
#include "kernels/channels.cuh"
#include "kernels/pooling.cuh"
#include "kernels/moving.cuh"
#include "kernels/convolutions.cuh"
#include "kernels/winograd.cuh"
#include "kernels/heads.cuh"
#include "kernels/losses.cuh"
#include "kernels/optimisers.cuh"
#include "kernels/pixels.cuh"
#include "kernels/transformers.cuh"
#include "kernels/windows.cuh"

// Entry points: each template as f32 and as bf16.

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
#define CURVE(T) (unsigned n, int which, const T *x, T *y)
BOTH(curve, CURVE, (n, which, x, y))
#define SLOPE(T) (unsigned n, int which, const T *x, const T *dy, T *dx)
BOTH(slope, SLOPE, (n, which, x, dy, dx))
#define GATED(T) (unsigned n, int c, int pixels, const T *x, const T *gate, T *y)
BOTH(gated, GATED, (n, c, pixels, x, gate, y))
#define GATE_GRADIENT(T) (int c, int pixels, const T *x, const T *dy, T *sums)
BOTH(gate_gradient, GATE_GRADIENT, (c, pixels, x, dy, sums))
#define KEPT_IMAGES(T) (unsigned n, int size, const T *x, const float *mask, T *y)
BOTH(kept_images, KEPT_IMAGES, (n, size, x, mask, y))
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

#define LAYER_NORM(T) (unsigned rows, int c, float eps, const T *x, const float *weight, const float *bias, T *y)
BOTH(layer_norm, LAYER_NORM, (rows, c, eps, x, weight, bias, y))
#define LAYER_NORM_GRADIENT(T)                                                                                       \
    (unsigned rows, int c, float eps, const T *x, const T *dy, const float *weight, T *dx, float *found)
BOTH(layer_norm_gradient, LAYER_NORM_GRADIENT, (rows, c, eps, x, dy, weight, dx, found))
#define LAYER_NORM_SUMS(T)                                                                                           \
    (unsigned rows, int c, unsigned strip, int lot, const T *x, const T *dy, const float *found, float *parts)
BOTH(layer_norm_sums, LAYER_NORM_SUMS, (rows, c, strip, lot, x, dy, found, parts))
#define RESPONSE_FACTORS(T) (unsigned rows, int c, float eps, const T *squares, const float *weight, T *factors)
BOTH(response_factors, RESPONSE_FACTORS, (rows, c, eps, squares, weight, factors))
#define RESPONSE_SLOPES(T)                                                                                           \
    (unsigned rows, int c, float eps, const T *squares, const T *along, const float *weight, T *factors, T *pulls,   \
     float *toward)
BOTH(response_slopes, RESPONSE_SLOPES, (rows, c, eps, squares, along, weight, factors, pulls, toward))
#define RESPONSE_NORM(T) (unsigned n, int c, int pixels, const T *x, const T *factors, const float *bias, T *y)
BOTH(response_norm, RESPONSE_NORM, (n, c, pixels, x, factors, bias, y))
#define RESPONSE_NORM_GRADIENT(T)                                                                                    \
    (unsigned n, int c, int pixels, const T *x, const T *dy, const T *factors, const T *pulls, T *dx)
BOTH(response_norm_gradient, RESPONSE_NORM_GRADIENT, (n, c, pixels, x, dy, factors, pulls, dx))
#define UNIT_NORM(T) (unsigned rows, int c, float least, const T *x, T *y)
BOTH(unit_norm, UNIT_NORM, (rows, c, least, x, y))
#define UNIT_NORM_GRADIENT(T) (unsigned rows, int c, float least, const T *x, const T *dy, T *dx)
BOTH(unit_norm_gradient, UNIT_NORM_GRADIENT, (rows, c, least, x, dy, dx))
#define SOFTMAX(T) (unsigned rows, int length, float scale, const float *scores, T *weights)
BOTH(softmax, SOFTMAX, (rows, length, scale, scores, weights))
#define SOFTMAX_BIASED(T)                                                                                            \
    (unsigned rows, int length, float scale, int heads, int down, int across, int kinds, const float *scores,         \
     const float *biases, T *weights)
BOTH(softmax_biased, SOFTMAX_BIASED, (rows, length, scale, heads, down, across, kinds, scores, biases, weights))
#define SOFTMAX_GRADIENT(T) (unsigned rows, int length, float scale, const T *weights, const float *slopes, T *gradient)
BOTH(softmax_gradient, SOFTMAX_GRADIENT, (rows, length, scale, weights, slopes, gradient))
#define BY_HEADS(T) (unsigned n, int images, int tokens, int kinds, int heads, int depth, const T *from, T *to)
BOTH(heads_apart, BY_HEADS, (n, images, tokens, kinds, heads, depth, from, to))
BOTH(heads_together, BY_HEADS, (n, images, tokens, kinds, heads, depth, from, to))
#define BY_WINDOWS(T)                                                                                                \
    (unsigned n, int height, int width, int channels, int side, int down, int right, const T *from, T *to)
BOTH(windows_apart, BY_WINDOWS, (n, height, width, channels, side, down, right, from, to))
BOTH(windows_together, BY_WINDOWS, (n, height, width, channels, side, down, right, from, to))
#define WINDOW_SLOPES(T) (unsigned n, int side, int heads, float scale, const T *slopes, float *parts)
BOTH(window_slopes, WINDOW_SLOPES, (n, side, heads, scale, slopes, parts))
extern "C" __global__ void window_biases_f32(unsigned n, int side, int heads, int down, int right, float apart, float scale,
                                             const float *table, float *rows) {
    window_biases(n, side, heads, down, right, apart, scale, table, rows);
}
#define MERGED(T) (unsigned n, int width, int channels, int back, const T *from, T *to)
BOTH(merged, MERGED, (n, width, channels, back, from, to))
#define INSERTED(T) (unsigned n, unsigned size, unsigned at, unsigned width, const T *x, const float *learned, T *y)
BOTH(inserted, INSERTED, (n, size, at, width, x, learned, y))
#define WITHOUT(T)                                                                                                   \
    (unsigned n, unsigned size, unsigned all, unsigned first, unsigned before, unsigned skip, const T *x, T *y)
BOTH(without, WITHOUT, (n, size, all, first, before, skip, x, y))
#define ALONE_IN(T) (unsigned n, unsigned size, unsigned all, unsigned first, const T *x, T *y)
BOTH(alone_in, ALONE_IN, (n, size, all, first, x, y))
#define POSITIONED(T) (unsigned n, unsigned size, const T *x, const float *positions, T *y)
BOTH(positioned, POSITIONED, (n, size, x, positions, y))

#define ROTARY(T)                                                                                                    \
    (unsigned pairs, int tokens, int skip, int heads, int half, float sign, const float *table, const float *of_queries, \
     const float *of_values, const T *x, T *y)
BOTH(rotary, ROTARY, (pairs, tokens, skip, heads, half, sign, table, of_queries, of_values, x, y))
#define POOL_DOTS(T)                                                                                                 \
    (unsigned n, int tokens, int heads, int depth, int kind, const T *vectors, const T *rows, float *found)
BOTH(pool_dots, POOL_DOTS, (n, tokens, heads, depth, kind, vectors, rows, found))
#define POOL_SUMS(T) (unsigned n, int tokens, int heads, int depth, int kind, const float *weights, const T *rows, T *y)
BOTH(pool_sums, POOL_SUMS, (n, tokens, heads, depth, kind, weights, rows, y))
#define POOL_SPREAD(T)                                                                                               \
    (unsigned n, int tokens, int heads, int depth, const float *slopes, const float *weights, const T *queries,          \
     const T *dy, T *y)
BOTH(pool_spread, POOL_SPREAD, (n, tokens, heads, depth, slopes, weights, queries, dy, y))
#define SWIGLU(T) (unsigned n, const T *gate, const T *x, T *y)
BOTH(swiglu, SWIGLU, (n, gate, x, y))
#define SWIGLU_GRADIENT(T) (unsigned n, const T *gate, const T *x, const T *dy, T *dgate, T *dx)
BOTH(swiglu_gradient, SWIGLU_GRADIENT, (n, gate, x, dy, dgate, dx))
