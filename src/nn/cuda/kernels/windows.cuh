// Windows of maps, what is added to their scores, and patches that are merged.

// The pixel of a map that is a pixel of one of its windows.
__device__ __forceinline__ unsigned pixel_of_window(unsigned window, unsigned pixel, int height, int width, int side, int down,
                                                    int right) {
    unsigned across = unsigned(width / side);
    unsigned row = (window / across * side + pixel / side + down) % height;
    unsigned column = (window % across * side + pixel % side + right) % width;
    return row * width + column;
}

// Maps [images, height, width, channels] to their windows [images, windows, side * side, channels], or (BACK) the other way.
template <typename T, int N, bool BACK>
__device__ __forceinline__ void by_windows_of(unsigned count, int height, int width, int channels, int side, int down, int right,
                                              const T *from, T *to) {
    unsigned across = unsigned(channels / N), pixels = unsigned(side * side), all = unsigned(height * width);
    EACH(i, count / N) {
        unsigned at = i % across * N, pixel = i / across % pixels, window = i / across / pixels % (all / pixels);
        unsigned image = i / across / all;
        unsigned source = (image * all + pixel_of_window(window, pixel, height, width, side, down, right)) * channels + at;
        float value[N];
        take<T, N>(from + (BACK ? i * N : source), value);
        give<T, N>(to + (BACK ? source : i * N), value);
    }
}
template <typename T, int N>
__device__ __forceinline__ void windows_apart_of(unsigned count, int height, int width, int channels, int side, int down,
                                                 int right, const T *from, T *to) {
    by_windows_of<T, N, false>(count, height, width, channels, side, down, right, from, to);
}
template <typename T, int N>
__device__ __forceinline__ void windows_together_of(unsigned count, int height, int width, int channels, int side, int down,
                                                    int right, const T *from, T *to) {
    by_windows_of<T, N, true>(count, height, width, channels, side, down, right, from, to);
}
template <typename T>
__device__ void windows_apart(unsigned count, int height, int width, int channels, int side, int down, int right, const T *from,
                              T *to) {
    IN_LOTS(channels % LOT == 0 && level(from, to), windows_apart, (count, height, width, channels, side, down, right, from, to))
}
template <typename T>
__device__ void windows_together(unsigned count, int height, int width, int channels, int side, int down, int right,
                                 const T *from, T *to) {
    IN_LOTS(channels % LOT == 0 && level(from, to), windows_together,
            (count, height, width, channels, side, down, right, from, to))
}

// What is added to scores, over their scale, rows [kinds, heads, side * side, side * side], from what is learned for every way that
// pixels lie to each other, table [(2 * side - 1)^2, heads]; pixels that meet around a border get `apart`.
__device__ void window_biases(unsigned count, int side, int heads, int down, int right, float apart, float scale,
                              const float *table, float *rows) {
    unsigned pixels = unsigned(side * side);
    EACH(i, count) {
        unsigned to = i % pixels, from = i / pixels % pixels, head = i / pixels / pixels % heads, kind = i / pixels / pixels / heads;
        int row = int(from / side), column = int(from % side), other_row = int(to / side), other_column = int(to % side);
        int place = (row - other_row + side - 1) * (2 * side - 1) + column - other_column + side - 1;
        bool parted = kind / 2 == 1 && (row >= side - down) != (other_row >= side - down);
        parted = parted || (kind % 2 == 1 && (column >= side - right) != (other_column >= side - right));
        rows[i] = (table[place * heads + int(head)] + (parted ? apart : 0.0f)) / scale;
    }
}

// Of the slopes of scores [images, heads, side * side, side * side] the sum over all pairs of pixels that lie to each other in one
// way, over the scale: parts [images, (2 * side - 1)^2, heads].
template <typename T>
__device__ void window_slopes(unsigned count, int side, int heads, float scale, const T *slopes, float *parts) {
    int wide = 2 * side - 1, pixels = side * side;
    EACH(i, count) {
        int head = int(i % heads), place = int(i / heads % unsigned(wide * wide));
        unsigned image = i / heads / unsigned(wide * wide);
        int down = place / wide - (side - 1), right = place % wide - (side - 1);
        const T *own = slopes + (image * heads + head) * unsigned(pixels * pixels);
        float sum = 0.0f;
        for (int row = max(down, 0); row < min(side, side + down); ++row)
            for (int column = max(right, 0); column < min(side, side + right); ++column) {
                int from = row * side + column, to = (row - down) * side + column - right;
                sum += get(own[from * pixels + to]);
            }
        parts[i] = sum / scale;
    }
}

// Maps [rows of two, 2, width, channels] with the pixels of every square of two side by side, the left ones first, or (`back`) such
// pixels as a map.
template <typename T, int N>
__device__ __forceinline__ void merged_of(unsigned count, int width, int channels, int back, const T *from, T *to) {
    unsigned across = unsigned(channels / N);
    EACH(i, count / N) {
        unsigned at = i % across * N, pixel = i / across % unsigned(2 * width), rows = i / across / unsigned(2 * width);
        unsigned source = pixel % 2 * width + pixel / 4 * 2 + pixel / 2 % 2;
        unsigned apart = (rows * unsigned(2 * width) + source) * channels + at;
        float value[N];
        take<T, N>(from + (back ? i * N : apart), value);
        give<T, N>(to + (back ? apart : i * N), value);
    }
}
template <typename T> __device__ void merged(unsigned count, int width, int channels, int back, const T *from, T *to) {
    IN_LOTS(channels % LOT == 0 && level(from, to), merged, (count, width, channels, back, from, to))
}
