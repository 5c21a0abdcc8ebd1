// What transformers need beside products: layer norms, the softmax of attention, rotary positions, the attention of one token, and
// tokens put in order.

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

// Of sums of squares [images, channels], a row of each image: what global response normalisation multiplies channels with.
template <typename T>
__device__ void response_factors(unsigned rows, int channels, float eps, const T *squares, const float *weight, T *factors) {
    unsigned row = OWN_ROW, start = row * unsigned(channels);
    bool inside = row < rows;
    float lengths = 0.0f;
    if (inside) ALONG(k, channels) lengths += sqrtf(get(squares[start + k]));
    float mean = sum_of_row(lengths) / float(channels) + eps;
    if (inside) ALONG(k, channels) factors[start + k] = put<T>(fmaf(weight[k], sqrtf(get(squares[start + k])) / mean, 1.0f));
}

// The same for the backward pass, with what comes to x through the lengths, and what the weights get of each image; `along` are
// the sums of x * dy.
template <typename T>
__device__ void response_slopes(unsigned rows, int channels, float eps, const T *squares, const T *along, const float *weight,
                                T *factors, T *pulls, float *toward) {
    unsigned row = OWN_ROW, start = row * unsigned(channels);
    bool inside = row < rows;
    float lengths = 0.0f, all = 0.0f;
    if (inside) ALONG(k, channels) {
        float length = sqrtf(get(squares[start + k]));
        lengths += length;
        all = fmaf(weight[k] * get(along[start + k]), length, all);
    }
    float mean = sum_of_row(lengths) / float(channels) + eps;
    float common = sum_of_row(all) / (mean * mean * float(channels));
    if (!inside) return;
    ALONG(k, channels) {
        float length = sqrtf(get(squares[start + k])), share = length / mean, slope = weight[k] * get(along[start + k]);
        factors[start + k] = put<T>(fmaf(weight[k], share, 1.0f));
        pulls[start + k] = put<T>(length > 0.0f ? (slope / mean - common) / length : 0.0f);
        toward[start + k] = share * get(along[start + k]);
    }
}

template <typename T>
__device__ void response_norm(unsigned count, int channels, int pixels, const T *x, const T *factors, const float *bias, T *y) {
    EACH(i, count) {
        unsigned channel = i % unsigned(channels), image = i / unsigned(channels) / unsigned(pixels);
        y[i] = put<T>(fmaf(get(x[i]), get(factors[image * channels + channel]), bias[channel]));
    }
}

template <typename T>
__device__ void response_norm_gradient(unsigned count, int channels, int pixels, const T *x, const T *dy, const T *factors,
                                       const T *pulls, T *dx) {
    EACH(i, count) {
        unsigned at = i / unsigned(channels) / unsigned(pixels) * channels + i % unsigned(channels);
        dx[i] = put<T>(fmaf(get(x[i]), get(pulls[at]), get(dy[i]) * get(factors[at])));
    }
}

// Each row over its length.
template <typename T> __device__ void unit_norm(unsigned rows, int channels, float least, const T *x, T *y) {
    unsigned row = OWN_ROW, start = row * unsigned(channels);
    bool inside = row < rows;
    float squares = 0.0f;
    if (inside) ALONG(k, channels) squares = fmaf(get(x[start + k]), get(x[start + k]), squares);
    float inverse = 1.0f / fmaxf(sqrtf(sum_of_row(squares)), least);
    if (inside) ALONG(k, channels) y[start + k] = put<T>(get(x[start + k]) * inverse);
}

// The gradient of x; what has no length has no direction that could turn.
template <typename T>
__device__ void unit_norm_gradient(unsigned rows, int channels, float least, const T *x, const T *dy, T *dx) {
    unsigned row = OWN_ROW, start = row * unsigned(channels);
    bool inside = row < rows;
    float squares = 0.0f, along = 0.0f;
    if (inside) ALONG(k, channels) {
        float at = get(x[start + k]);
        squares = fmaf(at, at, squares);
        along = fmaf(at, get(dy[start + k]), along);
    }
    float length = sqrtf(sum_of_row(squares));
    float inverse = 1.0f / fmaxf(length, least);
    along = sum_of_row(along);
    along = length > least ? along * inverse * inverse : 0.0f;
    if (inside) ALONG(k, channels) dx[start + k] = put<T>((get(dy[start + k]) - get(x[start + k]) * along) * inverse);
}

// Each row's softmax of scale * scores; both may be one place.
template <typename T, typename F>
__device__ __forceinline__ void softmax_of(unsigned row, bool inside, int length, float scale, F score, T *weights) {
    T *into = weights + row * unsigned(length);
    float most = -INFINITY, sum = 0.0f;
    if (inside) ALONG(k, length) most = score(k) > most ? score(k) : most;
    most = over_row(most, [](float a, float b) { return b > a ? b : a; });
    if (inside) ALONG(k, length) sum += expf((score(k) - most) * scale);
    float inverse = 1.0f / sum_of_row(sum);
    if (inside) ALONG(k, length) into[k] = put<T>(expf((score(k) - most) * scale) * inverse);
}
template <typename T> __device__ void softmax(unsigned rows, int length, float scale, const float *scores, T *weights) {
    unsigned row = OWN_ROW;
    const float *own = scores + row * unsigned(length);
    softmax_of<T>(row, row < rows, length, scale, [=](unsigned k) { return own[k]; }, weights);
}

// The same of scores [windows, heads, length, length] with biases [kinds, heads, length, length]: windows lie in a grid of `down`
// x `across`, and of four kinds those of the last column, of the last row, and of both have their own.
template <typename T>
__device__ void softmax_biased(unsigned rows, int length, float scale, int heads, int down, int across, int kinds,
                               const float *scores, const float *biases, T *weights) {
    unsigned row = OWN_ROW, unit = row / unsigned(length), window = unit / unsigned(heads);
    unsigned kind = kinds == 1 ? 0 : 2 * (window / across % down + 1 == unsigned(down)) + (window % across + 1 == unsigned(across));
    const float *own = scores + row * unsigned(length);
    const float *more = biases + ((kind * heads + unit % unsigned(heads)) * length + row % unsigned(length)) * unsigned(length);
    softmax_of<T>(row, row < rows, length, scale, [=](unsigned k) { return own[k] + more[k]; }, weights);
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

// Queries, keys and values x [images, tokens, 3, heads, 2 x half], with biases of queries and of values where there are any; queries
// and keys behind `skip` tokens are turned by angles whose cosines and sines are table [tokens - skip, half, 2].
template <typename T>
__device__ void rotary(unsigned pairs, int tokens, int skip, int heads, int half, float sign, const float *table,
                       const float *of_queries, const float *of_values, const T *x, T *y) {
    EACH(i, pairs) {
        unsigned at = i % half, head = i / half, first = head * 2 * half + at;
        unsigned own = head % heads, kind = head / heads % 3, token = head / heads / 3 % tokens;
        float a = get(x[first]), b = get(x[first + half]);
        const float *bias = kind == 0 ? of_queries : kind == 2 ? of_values : nullptr;
        if (bias) a += bias[own * 2 * half + at], b += bias[own * 2 * half + half + at];
        if (kind < 2 && token >= unsigned(skip)) {
            const float *angle = table + ((token - skip) * half + at) * 2;
            float cosine = angle[0], sine = angle[1] * sign, turned = a * cosine - b * sine;
            b = b * cosine + a * sine;
            a = turned;
        }
        y[first] = put<T>(a);
        y[first + half] = put<T>(b);
    }
}

// found [images, heads, tokens]: vectors [images, heads, depth] times keys (kind 0) or values (1) of rows [images, tokens, 2, heads, depth].
template <typename T>
__device__ void pool_dots(unsigned count, int tokens, int heads, int depth, int kind, const T *vectors, const T *rows,
                          float *found) {
    EACH(i, count) {
        unsigned token = i % tokens, head = i / tokens % heads, image = i / tokens / heads;
        const T *vector = vectors + (image * heads + head) * depth;
        const T *row = rows + (((image * tokens + token) * 2 + kind) * heads + head) * depth;
        float sum = 0.0f;
        for (int k = 0; k < depth; ++k) sum = fmaf(get(vector[k]), get(row[k]), sum);
        found[i] = sum;
    }
}

// y [images, heads, depth]: keys or values times weights [images, heads, tokens], summed over tokens.
template <typename T>
__device__ void pool_sums(unsigned count, int tokens, int heads, int depth, int kind, const float *weights, const T *rows, T *y) {
    EACH(i, count) {
        unsigned at = i % (heads * depth), image = i / (heads * depth), head = at / depth;
        const float *weight = weights + (image * heads + head) * tokens;
        float sum = 0.0f;
        for (int token = 0; token < tokens; ++token)
            sum = fmaf(weight[token], get(rows[((image * tokens + token) * 2 + kind) * heads * depth + at]), sum);
        y[i] = put<T>(sum);
    }
}

// The gradients of keys, slopes times queries, and of values, weights times dy: y [images, tokens, 2, heads, depth].
template <typename T>
__device__ void pool_spread(unsigned count, int tokens, int heads, int depth, const float *slopes, const float *weights,
                            const T *queries, const T *dy, T *y) {
    EACH(i, count) {
        unsigned channels = heads * depth, at = i % channels, kind = i / channels % 2, token = i / channels / 2 % tokens;
        unsigned image = i / channels / 2 / tokens, head = at / depth;
        float by = (kind ? weights : slopes)[(image * heads + head) * tokens + token];
        y[i] = put<T>(by * get((kind ? dy : queries)[image * channels + at]));
    }
}
