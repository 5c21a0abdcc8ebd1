// What is summed and scaled for every channel: batch norm, biases, their gradients.

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
