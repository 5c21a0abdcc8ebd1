// What moves numbers without computing much.

// Channels from `from_first` of one image to channels from `to_first` of another; `count` numbers, `channels` a pixel.
template <typename T, int N>
__device__ __forceinline__ void channels_of_of(unsigned count, int channels, int from_all, int from_first, int to_all,
                                               int to_first, const T *from, T *to) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        unsigned pixel = i / across, channel = i % across * N;
        float value[N];
        take<T, N>(from + pixel * from_all + from_first + channel, value);
        give<T, N>(to + pixel * to_all + to_first + channel, value);
    }
}
template <typename T>
__device__ void channels_of(unsigned count, int channels, int from_all, int from_first, int to_all, int to_first,
                            const T *from, T *to) {
    bool even = (channels | from_all | from_first | to_all | to_first) % LOT == 0;
    IN_LOTS(even && level(from, to), channels_of, (count, channels, from_all, from_first, to_all, to_first, from, to))
}

// y [n, rows, columns, channels] from x [n, height, width, inner]: pixel (row * stride - top, column * stride - left),
// channel - before, zero where that is outside. Padding, cropping (negative top and left) and the parameter-free shortcut.
template <typename T, int N>
__device__ __forceinline__ void placed_of(unsigned count, int rows, int columns, int channels, int height, int width,
                                          int inner, int stride, int top, int left, int before, const T *x, T *y) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N - before, u = int(i / across % columns) * stride - left;
        int v = int(i / across / columns % rows) * stride - top;
        unsigned image = i / across / columns / rows;
        bool inside = channel >= 0 && channel < inner && u >= 0 && u < width && v >= 0 && v < height;
        float value[N] = {};
        if (inside) take<T, N>(x + ((image * height + v) * width + u) * inner + channel, value);
        give<T, N>(y + i * N, value);
    }
}
template <typename T>
__device__ void placed(unsigned count, int rows, int columns, int channels, int height, int width, int inner, int stride,
                       int top, int left, int before, const T *x, T *y) {
    IN_LOTS((channels | inner | before) % LOT == 0 && level(x, y), placed,
            (count, rows, columns, channels, height, width, inner, stride, top, left, before, x, y))
}

// The gradient of the shortcut's input [n, height, width, inner].
template <typename T, int N>
__device__ __forceinline__ void shortcut_gradient_of(unsigned count, int height, int width, int inner, int rows,
                                                     int columns, int channels, int stride, int before, const T *dy, T *dx) {
    unsigned across = unsigned(inner / N);
    EACH(i, count / N) {
        int channel = int(i % across) * N, u = int(i / across % width), v = int(i / across / width % height);
        unsigned image = i / across / width / height;
        float value[N] = {};
        if (u % stride == 0 && v % stride == 0)
            take<T, N>(dy + ((image * rows + v / stride) * columns + u / stride) * channels + before + channel, value);
        give<T, N>(dx + i * N, value);
    }
}
template <typename T>
__device__ void shortcut_gradient(unsigned count, int height, int width, int inner, int rows, int columns, int channels,
                                  int stride, int before, const T *dy, T *dx) {
    IN_LOTS((channels | inner | before) % LOT == 0 && level(dy, dx), shortcut_gradient,
            (count, height, width, inner, rows, columns, channels, stride, before, dy, dx))
}

// x [n, rows, columns] as y [n, columns, rows]: planes and pixels, and weights' channels and taps.
template <typename From, typename To>
__device__ void turn(unsigned count, int rows, int columns, const From *x, To *y) {
    EACH(i, count) {
        unsigned row = i % rows, column = i / rows % columns, image = i / rows / columns;
        y[i] = put<To>(get(x[(image * rows + row) * columns + column]));
    }
}

extern "C" __global__ void copy_words(unsigned n, const unsigned *from, unsigned *to) { EACH(i, n) to[i] = from[i]; }

// Copies of one launch: blockIdx.y is the place of one among them.
struct Copies {
    struct {
        const float *from;
        float *to;
        unsigned count, unused;
    } of[64];
};

extern "C" __global__ void copy_several(const __grid_constant__ Copies copies) {
    const auto &own = copies.of[blockIdx.y];
    EACH(i, own.count) own.to[i] = own.from[i];
}
