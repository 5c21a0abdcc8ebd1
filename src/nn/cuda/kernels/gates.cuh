// SiLU, GELU in two ways, the sigmoid, and products of maps with numbers of channels and of images.

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The normal distribution below x.
__device__ __forceinline__ float below(float x) { return 0.5f * erfcf(-0.70710678f * x); }

#define SIGMOID 0
#define SILU 1
#define GELU 2
#define STEEPER 1.702f // of the sigmoid that is QuickGELU's

__device__ __forceinline__ float curve_at(int which, float x) {
    if (which == GELU) return x * below(x);
    if (which > GELU) return x * sigmoid(STEEPER * x);
    float part = sigmoid(x);
    return which == SILU ? x * part : part;
}

__device__ __forceinline__ float slope_at(int which, float x) {
    // The second term has the height of the bell, 1 / sqrt(2 pi).
    if (which == GELU) return below(x) + x * (0.39894228f * expf(-0.5f * x * x));
    if (which > GELU) {
        float steep = STEEPER * x, part = sigmoid(steep);
        return part * (1.0f + steep * (1.0f - part));
    }
    float part = sigmoid(x);
    return which == SILU ? part * (1.0f + x * (1.0f - part)) : part * (1.0f - part);
}

// The sigmoid, SiLU, GELU or QuickGELU.
template <typename T, int N> __device__ __forceinline__ void curve_of(unsigned count, int which, const T *x, T *y) {
    EACH(i, count / N) {
        float value[N];
        take<T, N>(x + i * N, value);
        EVERY(k) value[k] = curve_at(which, value[k]);
        give<T, N>(y + i * N, value);
    }
}
template <typename T> __device__ void curve(unsigned count, int which, const T *x, T *y) {
    IN_LOTS(count % LOT == 0 && level(x, y), curve, (count, which, x, y))
}

template <typename T, int N>
__device__ __forceinline__ void slope_of(unsigned count, int which, const T *x, const T *dy, T *dx) {
    EACH(i, count / N) {
        float at[N], value[N];
        take<T, N>(x + i * N, at);
        take<T, N>(dy + i * N, value);
        EVERY(k) value[k] *= slope_at(which, at[k]);
        give<T, N>(dx + i * N, value);
    }
}
template <typename T> __device__ void slope(unsigned count, int which, const T *x, const T *dy, T *dx) {
    IN_LOTS(count % LOT == 0 && level(x, dy, dx), slope, (count, which, x, dy, dx))
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
