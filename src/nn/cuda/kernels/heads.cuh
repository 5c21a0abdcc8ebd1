// Products of linear heads, in one order of sums wherever a head stands.

// Products of f32 whose sums run along the depth in its order, however many rows and columns there are: a head among many has
// the numbers that it has alone. Tiles of 64 x 64 results, 4 x 4 of each thread.
#define TILE 64
#define DEPTH 16

// Results [rows, columns] of a [rows, depth] and b [columns, depth], or (ALONG) of a [depth, rows] and b [depth, columns].
template <bool ALONG>
__device__ __forceinline__ void ordered_product(int rows, int columns, int depth, const float *a, const float *b, float *y) {
    __shared__ float left[DEPTH][TILE + 4], right[DEPTH][TILE + 4];
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    int down = threadIdx.x / 16 * 4, across = threadIdx.x % 16 * 4;
    float sums[4][4] = {};
    for (int start = 0; start < depth; start += DEPTH) {
        for (int i = threadIdx.x; i < TILE * DEPTH; i += 256) {
            int k = ALONG ? i / TILE : i % DEPTH, at = ALONG ? i % TILE : i / DEPTH;
            int row = first_row + at, column = first_column + at, inner = start + k;
            long long a_at = ALONG ? (long long)inner * rows + row : (long long)row * depth + inner;
            long long b_at = ALONG ? (long long)inner * columns + column : (long long)column * depth + inner;
            left[k][at] = row < rows && inner < depth ? a[a_at] : 0.0f;
            right[k][at] = column < columns && inner < depth ? b[b_at] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(left[k][down + i], right[k][across + j], sums[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            int row = first_row + down + i, column = first_column + across + j;
            if (row < rows && column < columns) y[(long long)row * columns + column] = sums[i][j];
        }
}
extern "C" __global__ void heads_forward(int rows, int columns, int depth, const float *x, const float *w, float *y) {
    ordered_product<false>(rows, columns, depth, x, w, y);
}
extern "C" __global__ void heads_weights(int rows, int columns, int depth, const float *dy, const float *x, float *dw) {
    ordered_product<true>(rows, columns, depth, dy, x, dw);
}
