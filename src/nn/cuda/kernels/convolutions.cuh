// Convolutions without cuDNN, and those that it does slowly.

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
