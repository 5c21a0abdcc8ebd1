// Activations, and what they let back.

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
