// SiLU, the sigmoid, and products of maps with numbers of channels and of images.

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// x * sigmoid(x) for SiLU, sigmoid(x) otherwise.
template <typename T, int N> __device__ __forceinline__ void curve_of(unsigned count, int silu, const T *x, T *y) {
    EACH(i, count / N) {
        float value[N];
        take<T, N>(x + i * N, value);
        EVERY(k) {
            float part = sigmoid(value[k]);
            value[k] = silu ? value[k] * part : part;
        }
        give<T, N>(y + i * N, value);
    }
}
template <typename T> __device__ void curve(unsigned count, int silu, const T *x, T *y) {
    IN_LOTS(count % LOT == 0 && level(x, y), curve, (count, silu, x, y))
}

template <typename T, int N>
__device__ __forceinline__ void slope_of(unsigned count, int silu, const T *x, const T *dy, T *dx) {
    EACH(i, count / N) {
        float at[N], value[N];
        take<T, N>(x + i * N, at);
        take<T, N>(dy + i * N, value);
        EVERY(k) {
            float part = sigmoid(at[k]);
            value[k] *= silu ? part * (1.0f + at[k] * (1.0f - part)) : part * (1.0f - part);
        }
        give<T, N>(dx + i * N, value);
    }
}
template <typename T> __device__ void slope(unsigned count, int silu, const T *x, const T *dy, T *dx) {
    IN_LOTS(count % LOT == 0 && level(x, dy, dx), slope, (count, silu, x, dy, dx))
}

// x [n, pixels, channels] times gate [n, channels].
template <typename T, int N>
__device__ __forceinline__ void gated_of(unsigned count, int channels, int pixels, const T *x, const T *gate, T *y) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        unsigned channel = i % across * N, image = i / across / unsigned(pixels);
        float value[N], factor[N];
        take<T, N>(x + i * N, value);
        take<T, N>(gate + image * channels + channel, factor);
        EVERY(k) value[k] *= factor[k];
        give<T, N>(y + i * N, value);
    }
}
template <typename T>
__device__ void gated(unsigned count, int channels, int pixels, const T *x, const T *gate, T *y) {
    IN_LOTS(channels % LOT == 0 && level(x, gate, y), gated, (count, channels, pixels, x, gate, y))
}

// Sums over an image's pixels of x * dy: blockIdx.y is the image, a block has 32 channels and 8 threads for each.
template <typename T>
__device__ void gate_gradient(int channels, int pixels, const T *x, const T *dy, T *sums) {
    __shared__ float parts[8][32];
    int channel = int(blockIdx.x * 32 + threadIdx.x);
    float sum = 0;
    if (channel < channels)
        for (int pixel = int(threadIdx.y); pixel < pixels; pixel += 8) {
            unsigned at = (blockIdx.y * unsigned(pixels) + unsigned(pixel)) * unsigned(channels) + unsigned(channel);
            sum += get(x[at]) * get(dy[at]);
        }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && channel < channels) {
        for (int lane = 1; lane < 8; ++lane) sum += parts[lane][threadIdx.x];
        sums[blockIdx.y * unsigned(channels) + unsigned(channel)] = put<T>(sum);
    }
}

// x [n, size] times mask [n].
template <typename T> __device__ void kept_images(unsigned count, int size, const T *x, const float *mask, T *y) {
    EACH(i, count) y[i] = put<T>(get(x[i]) * mask[i / unsigned(size)]);
}
