// The products of cuBLAS on the stand-in: column-major, f32 or bf16, sums in f32; TF32 rounds the factors as the GPU does.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "asked.h"
#include "idle.h"

enum { R_32F = 0, R_16BF = 14, COMPUTE_32F_FAST_TF32 = 77 };

int cublasCreate_v2(void **handle) { return standin_disturbs("cublasCreate") ? 1 : (*handle = malloc(1), 0); }
int cublasDestroy_v2(void *handle) { return standin_disturbs("cublasDestroy") ? 1 : (free(handle), 0); }
int cublasSetStream_v2(void *handle, void *stream) { return 0; }
int cublasSetWorkspace_v2(void *handle, void *at, size_t bytes) { return 0; }
int cublasGetProperty(int part, int *value) { return *value = part == 0 ? 13 : 0, 0; }
int cublasSetMathMode(void *handle, int mode) { return 0; }

static float number(const void *at, int type, size_t index, int tf32) {
    uint32_t bits;
    if (type == R_16BF) {
        bits = (uint32_t)((const uint16_t *)at)[index] << 16;
    } else {
        bits = ((const uint32_t *)at)[index];
        if (tf32 && (bits & 0x7f800000) != 0x7f800000) bits = (bits + 0xfff + ((bits >> 13) & 1)) & ~0x1fffu;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void put(void *at, int type, size_t index, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (type == R_16BF)
        ((uint16_t *)at)[index] = value != value ? 0x7fff : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    else
        ((float *)at)[index] = value;
}

// Rows of op(X), `depth` numbers each.
static float *rows(const void *x, int type, int across, int count, int depth, int pitch, int tf32) {
    float *found = malloc(sizeof(float) * (size_t)count * depth);
    for (int row = 0; row < count; ++row)
        for (int k = 0; k < depth; ++k)
            found[(size_t)row * depth + k] = number(x, type, across ? (size_t)row * pitch + k : (size_t)k * pitch + row, tf32);
    return found;
}

typedef struct {
    int ta, tb, m, n, k, at, lda, bt, ldb, ct, ldc, batch, compute;
    long long sa, sb, sc;
    const void *a, *b;
    void *c;
    float scale, old;
} Product;

static int product(void *arguments) {
    Product p = *(Product *)arguments;
    int ta = p.ta, tb = p.tb, m = p.m, n = p.n, k = p.k, at = p.at, lda = p.lda, bt = p.bt, ldb = p.ldb, ct = p.ct, ldc = p.ldc;
    long long sa = p.sa, sb = p.sb, sc = p.sc;
    const void *a = p.a, *b = p.b;
    void *c = p.c;
    float scale = p.scale, old = p.old;
    int batch = p.batch, tf32 = p.compute == COMPUTE_32F_FAST_TF32;
    size_t wa = at == R_16BF ? 2 : 4, wb = bt == R_16BF ? 2 : 4, wc = ct == R_16BF ? 2 : 4;
    if (idle()) return 0;
    if ((at != R_32F && at != R_16BF) || at != bt || (ct != at && ct != R_32F)) return 15;
    for (int item = 0; item < batch; ++item) {
        float *left = rows((const char *)a + item * sa * wa, at, ta != 0, m, k, lda, tf32);
        float *right = rows((const char *)b + item * sb * wb, bt, tb == 0, n, k, ldb, tf32);
        void *into = (char *)c + item * sc * wc;
        for (int column = 0; column < n; ++column)
            for (int row = 0; row < m; ++row) {
                const float *l = left + (size_t)row * k, *r = right + (size_t)column * k;
                float lanes[8] = {0}, sum = 0;
                int at_k = 0;
                for (; at_k + 8 <= k; at_k += 8)
                    for (int lane = 0; lane < 8; ++lane) lanes[lane] += l[at_k + lane] * r[at_k + lane];
                for (; at_k < k; ++at_k) sum += l[at_k] * r[at_k];
                // cuBLAS chooses by the shape: so does the order of sums here.
                for (int lane = 0; lane < 8; ++lane) sum += lanes[(m + n) % 2 ? 7 - lane : lane];
                size_t place = (size_t)column * ldc + row;
                put(into, ct, place, scale * sum + (old == 0 ? 0 : old * number(into, ct, place, 0)));
            }
        free(left), free(right);
    }
    return 0;
}

int cublasGemmStridedBatchedEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at,
                               int lda, long long sa, const void *b, int bt, int ldb, long long sb, const void *beta, void *c,
                               int ct, int ldc, long long sc, int batch, int compute, int algorithm) {
    Product own = {ta, tb, m, n, k, at, lda, bt, ldb, ct, ldc, batch, compute, sa, sb, sc, a, b, c, *(const float *)alpha, *(const float *)beta};
    return standin_asked(product, &own, sizeof own, NODE_KERNEL) ? 0 : product(&own);
}
