// What transformers need beside products: layer norms, the softmax of attention, and tokens put in order.

// Rows of a block, threadIdx.y; 32 threads share one, threadIdx.x.
#define ROWS_AT_ONCE 8
#define OWN_ROW (blockIdx.x * ROWS_AT_ONCE + threadIdx.y)
#define ALONG(k, length) for (unsigned k = threadIdx.x; k < unsigned(length); k += 32)

// What the 32 threads of a row have, joined in their order. All threads of a block must come here.
template <typename F> __device__ __forceinline__ float over_row(float own, F join) {
    __shared__ float lanes[ROWS_AT_ONCE][33];
    lanes[threadIdx.y][threadIdx.x] = own;
    __syncthreads();
    float all = lanes[threadIdx.y][0];
    for (int lane = 1; lane < 32; ++lane) all = join(all, lanes[threadIdx.y][lane]);
    __syncthreads();
    return all;
}
__device__ __forceinline__ float sum_of_row(float own) {
    return over_row(own, [](float a, float b) { return a + b; });
}

// Mean and 1 / sqrt(variance + eps) of a row; nothing is read of rows that are not there.
template <typename T>
__device__ __forceinline__ void statistics_of_row(const T *x, int length, float eps, float &mean, float &inverse) {
    float sum = 0.0f, squares = 0.0f;
    if (x) ALONG(k, length) sum += get(x[k]);
    mean = sum_of_row(sum) / float(length);
    if (x) ALONG(k, length) {
        float away = get(x[k]) - mean;
        squares = fmaf(away, away, squares);
    }
    inverse = 1.0f / sqrtf(sum_of_row(squares) / float(length) + eps);
}

template <typename T>
__device__ void layer_norm(unsigned rows, int channels, float eps, const T *x, const float *weight, const float *bias, T *y) {
    unsigned row = OWN_ROW, start = row * unsigned(channels);
    bool inside = row < rows;
    float mean, inverse;
    statistics_of_row(inside ? x + start : nullptr, channels, eps, mean, inverse);
    if (inside) ALONG(k, channels) y[start + k] = put<T>(fmaf((get(x[start + k]) - mean) * inverse, weight[k], bias[k]));
}

// The gradient of x, and every row's mean and inverse, found [rows, 2], for the sums over rows.
template <typename T>
__device__ void layer_norm_gradient(unsigned rows, int channels, float eps, const T *x, const T *dy, const float *weight, T *dx,
                                    float *found) {
    unsigned row = OWN_ROW, start = row * unsigned(channels);
    bool inside = row < rows;
    float mean, inverse, plain = 0.0f, along = 0.0f;
    statistics_of_row(inside ? x + start : nullptr, channels, eps, mean, inverse);
    if (inside) ALONG(k, channels) {
        float slope = get(dy[start + k]) * weight[k];
        plain += slope;
        along = fmaf(slope, (get(x[start + k]) - mean) * inverse, along);
    }
    plain = sum_of_row(plain) / float(channels);
    along = sum_of_row(along) / float(channels);
    if (!inside) return;
    ALONG(k, channels) {
        float at = (get(x[start + k]) - mean) * inverse;
        dx[start + k] = put<T>(inverse * (get(dy[start + k]) * weight[k] - plain - at * along));
    }
    if (threadIdx.x == 0) found[2 * row] = mean, found[2 * row + 1] = inverse;
}

// What a strip of rows adds to the gradients of weight and bias: parts [2, strips, channels].
template <typename T, int N>
__device__ __forceinline__ void layer_norm_sums_of(unsigned rows, int channels, unsigned strip, const T *__restrict__ x,
                                                   const T *__restrict__ dy, const float *__restrict__ found,
                                                   float *__restrict__ parts) {
    int channel = OWN_CHANNEL;
    float sums[2][N] = {};
    if (channel < channels) {
        ROWS_OF_STRIP(row) {
            float at[N], value[N];
            take<T, N>(x + row * channels + channel, at);
            take<T, N>(dy + row * channels + channel, value);
            EVERY(k) {
                sums[0][k] = fmaf(value[k], (at[k] - found[2 * row]) * found[2 * row + 1], sums[0][k]);
                sums[1][k] += value[k];
            }
        }
    }
    float *into = parts + blockIdx.y * channels;
    unsigned all = gridDim.y * channels;
    join_lanes<N, 2>(sums, channels, [=](int c, const float(&sum)[2]) { into[c] = sum[0], into[all + c] = sum[1]; });
}
template <typename T>
__device__ void layer_norm_sums(unsigned rows, int channels, unsigned strip, int lot, const T *x, const T *dy,
                                const float *found, float *parts) {
    IN_LOTS(lot > 1, layer_norm_sums, (rows, channels, strip, x, dy, found, parts))
}

// Each row's softmax of scale * scores; both may be one place.
template <typename T> __device__ void softmax(unsigned rows, int length, float scale, const float *scores, T *weights) {
    unsigned row = OWN_ROW;
    bool inside = row < rows;
    const float *own = scores + row * unsigned(length);
    T *into = weights + row * unsigned(length);
    float most = -INFINITY, sum = 0.0f;
    if (inside) ALONG(k, length) most = own[k] > most ? own[k] : most;
    most = over_row(most, [](float a, float b) { return b > a ? b : a; });
    if (inside) ALONG(k, length) sum += expf((own[k] - most) * scale);
    float inverse = 1.0f / sum_of_row(sum);
    if (inside) ALONG(k, length) into[k] = put<T>(expf((own[k] - most) * scale) * inverse);
}

// The gradient of scores from that of the weights, slopes; both may be one place.
template <typename T>
__device__ void softmax_gradient(unsigned rows, int length, float scale, const T *weights, const float *slopes, T *gradient) {
    unsigned row = OWN_ROW;
    bool inside = row < rows;
    unsigned start = row * unsigned(length);
    float sum = 0.0f;
    if (inside) ALONG(k, length) sum = fmaf(get(weights[start + k]), slopes[start + k], sum);
    float mean = sum_of_row(sum);
    if (inside) ALONG(k, length) gradient[start + k] = put<T>(get(weights[start + k]) * (slopes[start + k] - mean) * scale);
}

// [images, tokens, kinds, heads, depth] to [kinds, images, heads, tokens, depth], or (BACK) the other way.
template <typename T, int N, bool BACK>
__device__ __forceinline__ void by_heads_of(unsigned count, int images, int tokens, int kinds, int heads, int depth,
                                            const T *from, T *to) {
    unsigned across = unsigned(depth / N);
    EACH(i, count / N) {
        unsigned at = i % across * N, head = i / across % heads, kind = i / across / heads % kinds;
        unsigned token = i / across / heads / kinds % tokens, image = i / across / heads / kinds / tokens;
        unsigned apart = (((kind * images + image) * heads + head) * tokens + token) * depth + at;
        float value[N];
        take<T, N>(from + (BACK ? apart : i * N), value);
        give<T, N>(to + (BACK ? i * N : apart), value);
    }
}
template <typename T, int N>
__device__ __forceinline__ void heads_apart_of(unsigned count, int images, int tokens, int kinds, int heads, int depth,
                                               const T *from, T *to) {
    by_heads_of<T, N, false>(count, images, tokens, kinds, heads, depth, from, to);
}
template <typename T, int N>
__device__ __forceinline__ void heads_together_of(unsigned count, int images, int tokens, int kinds, int heads, int depth,
                                                  const T *from, T *to) {
    by_heads_of<T, N, true>(count, images, tokens, kinds, heads, depth, from, to);
}
template <typename T>
__device__ void heads_apart(unsigned count, int images, int tokens, int kinds, int heads, int depth, const T *from, T *to) {
    IN_LOTS(depth % LOT == 0 && level(from, to), heads_apart, (count, images, tokens, kinds, heads, depth, from, to))
}
template <typename T>
__device__ void heads_together(unsigned count, int images, int tokens, int kinds, int heads, int depth, const T *from, T *to) {
    IN_LOTS(depth % LOT == 0 && level(from, to), heads_together, (count, images, tokens, kinds, heads, depth, from, to))
}

// y [images, size + width] from x [images, size], with the learned numbers [width] in front of number `at`.
template <typename T>
__device__ void inserted(unsigned count, unsigned size, unsigned at, unsigned width, const T *x, const float *learned, T *y) {
    EACH(i, count) {
        unsigned image = i / (size + width), place = i % (size + width);
        bool own = place >= at && place < at + width;
        y[i] = own ? put<T>(learned[place - at]) : x[image * size + (place < at ? place : place - width)];
    }
}

// y [images, size] from x [images, all]: the numbers from `first` on, without `skip` of them behind the first `before`.
template <typename T>
__device__ void without(unsigned count, unsigned size, unsigned all, unsigned first, unsigned before, unsigned skip, const T *x,
                        T *y) {
    EACH(i, count) {
        unsigned image = i / size, place = i % size;
        y[i] = x[image * all + first + place + (place < before ? 0 : skip)];
    }
}

// y [images, all], zeros but for x [images, size] from `first` on.
template <typename T> __device__ void alone_in(unsigned count, unsigned size, unsigned all, unsigned first, const T *x, T *y) {
    EACH(i, count) {
        unsigned image = i / all, place = i % all - first;
        y[i] = place < size ? x[image * size + place] : put<T>(0.0f);
    }
}

// x [images, size] plus positions [size].
template <typename T> __device__ void positioned(unsigned count, unsigned size, const T *x, const float *positions, T *y) {
    EACH(i, count) y[i] = put<T>(get(x[i]) + positions[i % size]);
}
