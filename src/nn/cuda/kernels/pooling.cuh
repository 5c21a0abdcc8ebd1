// Pooling; gradients are gathered pixel by pixel.

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

template <typename T, int N>
__device__ __forceinline__ void pool_of(unsigned count, int channels, int reduce, const Axis &down, const Axis &along,
                                        const T *x, T *y) {
    int across = channels / N, height = down.side, width = along.side, rows = down.outs, columns = along.outs;
    EACH(i, count / N) {
        int channel = int(i % across) * N, column = int(i / across % columns), row = int(i / across / columns % rows);
        unsigned image = i / across / columns / rows;
        int top, bottom, left, right, high, wide;
        span(down, row, top, bottom, high);
        span(along, column, left, right, wide);
        float found[N];
        EVERY(k) found[k] = reduce == 0 ? -INFINITY : 0.0f;
        for (int at = top; at < bottom; ++at)
            for (int pixel = left; pixel < right; ++pixel) {
                float value[N];
                take<T, N>(x + ((image * height + at) * width + pixel) * channels + channel, value);
                EVERY(k) {
                    if (reduce == 0)
                        found[k] = value[k] > found[k] || isnan(value[k]) ? value[k] : found[k];
                    else
                        found[k] += value[k];
                }
            }
        float by = divisor(reduce, bottom - top, right - left, high, wide);
        if (reduce != 0) {
            EVERY(k) found[k] /= by;
        }
        give<T, N>(y + i * N, found);
    }
}
template <typename T> __device__ void pool(unsigned count, int channels, int reduce, AXES, const T *x, T *y) {
    MAKE_AXES
    IN_LOTS(channels % LOT == 0 && level(x, y), pool, (count, channels, reduce, down, along, x, y))
}

// Of several equal maxima the first, row by row, receives all.
template <typename T, int N>
__device__ __forceinline__ void max_gradient_of(unsigned count, int channels, const Axis &down, const Axis &along,
                                                const T *x, const T *y, const T *dy, T *dx) {
    int across = channels / N, height = down.side, width = along.side, rows = down.outs, columns = along.outs;
    EACH(i, count / N) {
        int channel = int(i % across) * N, at_x = int(i / across % width), at_y = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float own[N], sum[N] = {};
        take<T, N>(x + i * N, own);
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
                float best[N], gradient[N];
                bool taken[N];
                take<T, N>(y + out, best);
                take<T, N>(dy + out, gradient);
                EVERY(k) taken[k] = !(own[k] == best[k] || isnan(own[k]));
                for (int v = top; v <= at_y; ++v)
                    for (int u = left; u < (v == at_y ? at_x : right); ++u) {
                        float other[N];
                        take<T, N>(x + ((image * height + v) * width + u) * channels + channel, other);
                        EVERY(k) taken[k] = taken[k] || other[k] == best[k] || isnan(other[k]);
                    }
                EVERY(k) sum[k] += taken[k] ? 0.0f : gradient[k];
            }
        give<T, N>(dx + i * N, sum);
    }
}
template <typename T>
__device__ void max_gradient(unsigned count, int channels, AXES, const T *x, const T *y, const T *dy, T *dx) {
    MAKE_AXES
    IN_LOTS(channels % LOT == 0 && level(x, y, dy, dx), max_gradient, (count, channels, down, along, x, y, dy, dx))
}

template <typename T, int N>
__device__ __forceinline__ void mean_gradient_of(unsigned count, int channels, int reduce, const Axis &down,
                                                 const Axis &along, const T *dy, T *dx) {
    int across = channels / N, height = down.side, width = along.side, rows = down.outs, columns = along.outs;
    EACH(i, count / N) {
        int channel = int(i % across) * N, at_x = int(i / across % width), at_y = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float sum[N] = {};
        int first_row, last_row, first_column, last_column;
        holders(down, at_y, first_row, last_row);
        holders(along, at_x, first_column, last_column);
        for (int row = first_row; row < last_row; ++row)
            for (int column = first_column; column < last_column; ++column) {
                int top, bottom, left, right, high, wide;
                span(down, row, top, bottom, high);
                span(along, column, left, right, wide);
                if (at_y < top || at_y >= bottom || at_x < left || at_x >= right) continue;
                float gradient[N], by = divisor(reduce, bottom - top, right - left, high, wide);
                take<T, N>(dy + ((image * rows + row) * columns + column) * channels + channel, gradient);
                EVERY(k) sum[k] += gradient[k] / by;
            }
        give<T, N>(dx + i * N, sum);
    }
}
template <typename T>
__device__ void mean_gradient(unsigned count, int channels, int reduce, AXES, const T *dy, T *dx) {
    MAKE_AXES
    IN_LOTS(channels % LOT == 0 && level(dy, dx), mean_gradient, (count, channels, reduce, down, along, dy, dx))
}
