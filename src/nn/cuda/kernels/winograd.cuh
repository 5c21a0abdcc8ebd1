// Convolutions of 3x3 and stride 1 with 36 multiplications for 144: Winograd's F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms
// for Convolutional Neural Networks", 2016, section 4.1), whose matrices are named as there. One thread transforms one
// channel of one tile; neighbours have neighbouring channels. Transformed numbers are [36 places, all of them].

// B^T d of one row or column.
struct Inputs {
    static __device__ __forceinline__ void of(const float (&d)[6], float (&v)[6]) {
        v[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
        v[1] = (d[3] + d[4]) - 4.0f * (d[1] + d[2]);
        v[2] = (d[4] - d[3]) + 4.0f * (d[1] - d[2]);
        v[3] = (d[4] - d[2]) + 2.0f * (d[3] - d[1]);
        v[4] = (d[4] - d[2]) - 2.0f * (d[3] - d[1]);
        v[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
    }
};

// G g.
struct Weights {
    static __device__ __forceinline__ void of(const float (&g)[3], float (&u)[6]) {
        float even = g[0] + g[2], some = g[0] * (1.0f / 24.0f) + g[2] * (1.0f / 6.0f), twelfth = g[1] * (1.0f / 12.0f);
        u[0] = 0.25f * g[0];
        u[1] = (even + g[1]) * (-1.0f / 6.0f);
        u[2] = (even - g[1]) * (-1.0f / 6.0f);
        u[3] = some + twelfth;
        u[4] = some - twelfth;
        u[5] = g[2];
    }
};

// A^T m.
struct Outputs {
    static __device__ __forceinline__ void of(const float (&m)[6], float (&y)[4]) {
        float sum = m[1] + m[2], difference = m[1] - m[2], far = m[3] + m[4], beyond = m[3] - m[4];
        y[0] = m[0] + sum + far;
        y[1] = difference + 2.0f * beyond;
        y[2] = sum + 4.0f * far;
        y[3] = difference + 8.0f * beyond + m[5];
    }
};

// A dy.
struct Gradients {
    static __device__ __forceinline__ void of(const float (&dy)[4], float (&d)[6]) {
        float even = dy[0] + dy[2], odd = dy[1] + dy[3], far = dy[0] + 4.0f * dy[2], beyond = 2.0f * dy[1] + 8.0f * dy[3];
        d[0] = dy[0];
        d[1] = even + odd;
        d[2] = even - odd;
        d[3] = far + beyond;
        d[4] = far - beyond;
        d[5] = dy[3];
    }
};

// G^T s.
struct Taps {
    static __device__ __forceinline__ void of(const float (&s)[6], float (&g)[3]) {
        float sum = s[1] + s[2], far = s[3] + s[4];
        g[0] = 0.25f * s[0] - sum * (1.0f / 6.0f) + far * (1.0f / 24.0f);
        g[1] = (s[2] - s[1]) * (1.0f / 6.0f) + (s[3] - s[4]) * (1.0f / 12.0f);
        g[2] = (far - sum) * (1.0f / 6.0f) + s[5];
    }
};

// A step along the rows of a square of FROM x FROM numbers, then along its columns: TO x TO numbers.
template <typename Step, int FROM, int TO>
__device__ __forceinline__ void both_ways(const float (&from)[FROM][FROM], float (&to)[TO][TO]) {
    float half[FROM][TO];
#pragma unroll
    for (int row = 0; row < FROM; ++row) Step::of(from[row], half[row]);
#pragma unroll
    for (int column = 0; column < TO; ++column) {
        float line[FROM], done[TO];
#pragma unroll
        for (int row = 0; row < FROM; ++row) line[row] = half[row][column];
        Step::of(line, done);
#pragma unroll
        for (int row = 0; row < TO; ++row) to[row][column] = done[row];
    }
}

// The square of SIDE x SIDE pixels of one channel from pixel (top, left) of an image, zeros where there are none.
template <int SIDE>
__device__ __forceinline__ void square(const float *image, int top, int left, int height, int width, int channels,
                                       float (&into)[SIDE][SIDE]) {
#pragma unroll
    for (int row = 0; row < SIDE; ++row)
#pragma unroll
        for (int column = 0; column < SIDE; ++column) {
            int v = top + row, u = left + column;
            bool inside = v >= 0 && v < height && u >= 0 && u < width;
            into[row][column] = inside ? image[(v * width + u) * channels] : 0.0f;
        }
}

template <int SIDE>
__device__ __forceinline__ void spread(const float (&from)[SIDE][SIDE], float *to, unsigned count) {
#pragma unroll
    for (int row = 0; row < SIDE; ++row)
#pragma unroll
        for (int column = 0; column < SIDE; ++column) to[size_t(row * SIDE + column) * count] = from[row][column];
}

template <int SIDE>
__device__ __forceinline__ void gather(const float *from, unsigned count, float (&to)[SIDE][SIDE]) {
#pragma unroll
    for (int row = 0; row < SIDE; ++row)
#pragma unroll
        for (int column = 0; column < SIDE; ++column) to[row][column] = from[size_t(row * SIDE + column) * count];
}

// The tile of a thread's number: its image, and the first of its outputs.
struct Tile {
    unsigned image;
    int row, column;
};
__device__ __forceinline__ Tile tile_of(unsigned i, int channels, int down, int across) {
    unsigned tile = i / channels;
    return {tile / across / down, 4 * int(tile / across % down), 4 * int(tile % across)};
}

// v [36, tiles, channels] of x [n, height, width, channels], whose tiles begin `top` and `left` of the image.
extern "C" __global__ void winograd_inputs(unsigned count, int down, int across, int channels, int height, int width,
                                           int top, int left, const float *__restrict__ x, float *__restrict__ v) {
    EACH(i, count) {
        Tile tile = tile_of(i, channels, down, across);
        const float *own = x + tile.image * height * width * channels + i % channels;
        float pixels[6][6], places[6][6];
        square<6>(own, tile.row - top, tile.column - left, height, width, channels, pixels);
        both_ways<Inputs>(pixels, places);
        spread<6>(places, v + i, count);
    }
}

// u [36, out, channels] of w [out, channels, 9], whose taps are turned around where the input's gradient is wanted.
extern "C" __global__ void winograd_weights(unsigned count, int turned, const float *__restrict__ w, float *__restrict__ u) {
    EACH(i, count) {
        float taps[3][3], places[6][6];
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3] = w[i * 9 + (turned ? 8 - tap : tap)];
        both_ways<Weights>(taps, places);
        spread<6>(places, u + i, count);
    }
}

// y [n, height, width, out] of m [36, tiles, out].
extern "C" __global__ void winograd_outputs(unsigned count, int down, int across, int out, int height, int width,
                                            const float *__restrict__ m, float *__restrict__ y) {
    EACH(i, count) {
        Tile tile = tile_of(i, out, down, across);
        float places[6][6], pixels[4][4];
        gather<6>(m + i, count, places);
        both_ways<Outputs>(places, pixels);
        float *own = y + tile.image * height * width * out + i % out;
#pragma unroll
        for (int row = 0; row < 4; ++row)
#pragma unroll
            for (int column = 0; column < 4; ++column) {
                int v = tile.row + row, u = tile.column + column;
                if (v < height && u < width) own[(v * width + u) * out] = pixels[row][column];
            }
    }
}

// d [36, tiles, out] of dy [n, height, width, out].
extern "C" __global__ void winograd_gradients(unsigned count, int down, int across, int out, int height, int width,
                                              const float *__restrict__ dy, float *__restrict__ d) {
    EACH(i, count) {
        Tile tile = tile_of(i, out, down, across);
        const float *own = dy + tile.image * height * width * out + i % out;
        float pixels[4][4], places[6][6];
        square<4>(own, tile.row, tile.column, height, width, out, pixels);
        both_ways<Gradients>(pixels, places);
        spread<6>(places, d + i, count);
    }
}

// dw [out, channels, 9] of s [36, parts, out, channels]; parts are added in their order.
extern "C" __global__ void winograd_taps(unsigned count, int parts, const float *__restrict__ s, float *__restrict__ dw) {
    EACH(i, count) {
        float places[6][6], sums[6][6] = {}, taps[3][3];
        for (int part = 0; part < parts; ++part) {
            gather<6>(s + size_t(part) * count + i, count * parts, places);
#pragma unroll
            for (int place = 0; place < 36; ++place) sums[place / 6][place % 6] += places[place / 6][place % 6];
        }
        both_ways<Taps>(sums, taps);
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) dw[i * 9 + tap] = taps[tap / 3][tap % 3];
    }
}
