// SiLU, GELU in three ways, the sigmoid, their likes of straight lines, SwiGLU, and products of maps with numbers of channels and of
// images.

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The normal distribution below x.
__device__ __forceinline__ float below(float x) { return 0.5f * erfcf(-0.70710678f * x); }

#define SIGMOID 0
#define SILU 1
#define GELU 2
#define GELU_TANH 4
#define HARD_SIGMOID 5
#define HARD_SWISH 6
#define STEEPER 1.702f // of the sigmoid that is QuickGELU's

// Twice what the tanh in GELU is taken of, and how steep that is times x: 2 sqrt(2 / pi) = 1.5957691.
__device__ __forceinline__ float bent(float x) { return 1.5957691f * (x + 0.044715f * x * x * x); }
__device__ __forceinline__ float bent_slope(float x) {
    // Where the sigmoid is flat a cube may be beyond f32.
    return fabsf(x) > 12.0f ? 0.0f : 1.5957691f * (x + 3.0f * 0.044715f * x * x * x);
}

// Bounds let through what is no number.
__device__ __forceinline__ float hard_sigmoid(float x) {
    float at = x + 3.0f;
    at = at < 0.0f ? 0.0f : at;
    return (at > 6.0f ? 6.0f : at) / 6.0f;
}

__device__ __forceinline__ float curve_at(int which, float x) {
    if (which >= HARD_SIGMOID) return which == HARD_SWISH ? x * hard_sigmoid(x) : hard_sigmoid(x);
    if (which == GELU) return x * below(x);
    if (which > GELU) return x * sigmoid(which == GELU_TANH ? bent(x) : STEEPER * x);
    float part = sigmoid(x);
    return which == SILU ? x * part : part;
}

__device__ __forceinline__ float slope_at(int which, float x) {
    if (which == HARD_SIGMOID) return x <= -3.0f || x >= 3.0f ? 0.0f : 1.0f / 6.0f;
    if (which == HARD_SWISH) return x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : x / 3.0f + 0.5f;
    // The second term has the height of the bell, 1 / sqrt(2 pi).
    if (which == GELU) return below(x) + x * (0.39894228f * expf(-0.5f * x * x));
    if (which > GELU) {
        float steep = which == GELU_TANH ? bent_slope(x) : STEEPER * x;
        float part = sigmoid(which == GELU_TANH ? bent(x) : steep);
        return part * (1.0f + steep * (1.0f - part));
    }
    float part = sigmoid(x);
    return which == SILU ? part * (1.0f + x * (1.0f - part)) : part * (1.0f - part);
}

// The sigmoid, SiLU, one of the GELUs, or what is like them.
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

// silu(gate) * x.
template <typename T, int N> __device__ __forceinline__ void swiglu_of(unsigned count, const T *gate, const T *x, T *y) {
    EACH(i, count / N) {
        float at[N], value[N];
        take<T, N>(gate + i * N, at);
        take<T, N>(x + i * N, value);
        EVERY(k) value[k] *= curve_at(SILU, at[k]);
        give<T, N>(y + i * N, value);
    }
}
template <typename T> __device__ void swiglu(unsigned count, const T *gate, const T *x, T *y) {
    IN_LOTS(count % LOT == 0 && level(gate, x, y), swiglu, (count, gate, x, y))
}

template <typename T, int N>
__device__ __forceinline__ void swiglu_gradient_of(unsigned count, const T *gate, const T *x, const T *dy, T *dgate, T *dx) {
    EACH(i, count / N) {
        float at[N], value[N], slope[N];
        take<T, N>(gate + i * N, at);
        take<T, N>(x + i * N, value);
        take<T, N>(dy + i * N, slope);
        EVERY(k) value[k] *= slope[k] * slope_at(SILU, at[k]);
        give<T, N>(dgate + i * N, value);
        EVERY(k) slope[k] *= curve_at(SILU, at[k]);
        give<T, N>(dx + i * N, slope);
    }
}
template <typename T>
__device__ void swiglu_gradient(unsigned count, const T *gate, const T *x, const T *dy, T *dgate, T *dx) {
    IN_LOTS(count % LOT == 0 && level(gate, x, dy) && level(dgate, dx), swiglu_gradient, (count, gate, x, dy, dgate, dx))
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
