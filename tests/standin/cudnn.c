// cuDNN's convolutions on the stand-in, by their definition. Its tables prefer the algorithms that do not repeat bit for
// bit, as the real ones may: whoever takes those as they come is found out, for their results are spoilt here.

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "asked.h"
#include "idle.h"

enum { OK = 0, BAD = 2000, FLOAT = 0, BF16 = 9, NCHW = 0, NHWC = 1, WORKSPACE = 96 };

typedef struct { int format, type, dims[4]; } Shape;
typedef struct { int pad[2], stride[2], dilation[2], groups, math; } Conv;
typedef struct { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; } Found;

size_t cudnnGetVersion(void) { return 91000; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return status ? "CUDNN_STATUS_BAD_PARAM" : "CUDNN_STATUS_SUCCESS"; }
int cudnnGetProperty(int what, int *value) { return *value = what == 0 ? 9 : 10, OK; }
int cudnnVersionCheck(void) { return OK; }
int cudnnCreate(void **handle) { return standin_disturbs("cudnnCreate") ? BAD : (*handle = malloc(1), OK); }
int cudnnDestroy(void *handle) { return standin_disturbs("cudnnDestroy") ? BAD : (free(handle), OK); }
int cudnnSetStream(void *handle, void *stream) { return OK; }

int cudnnCreateTensorDescriptor(Shape **shape) { return *shape = calloc(1, sizeof(Shape)), OK; }
int cudnnDestroyTensorDescriptor(Shape *shape) { return free(shape), OK; }
int cudnnSetTensor4dDescriptor(Shape *shape, int format, int type, int n, int c, int h, int w) {
    return *shape = (Shape){format, type, {n, c, h, w}}, OK;
}
int cudnnCreateFilterDescriptor(Shape **shape) { return *shape = calloc(1, sizeof(Shape)), OK; }
int cudnnDestroyFilterDescriptor(Shape *shape) { return free(shape), OK; }
int cudnnSetFilter4dDescriptor(Shape *shape, int type, int format, int k, int c, int h, int w) {
    return *shape = (Shape){format, type, {k, c, h, w}}, OK;
}
int cudnnCreateConvolutionDescriptor(Conv **conv) { return *conv = calloc(1, sizeof(Conv)), OK; }
int cudnnDestroyConvolutionDescriptor(Conv *conv) { return free(conv), OK; }
int cudnnSetConvolution2dDescriptor(Conv *conv, int ph, int pw, int u, int v, int dh, int dw, int mode, int type) {
    if (mode != 1 || type != FLOAT) return BAD;
    return *conv = (Conv){{ph, pw}, {u, v}, {dh, dw}, 1, 0}, OK;
}
int cudnnSetConvolutionMathType(Conv *conv, int math) { return conv->math = math, OK; }
int cudnnSetConvolutionGroupCount(Conv *conv, int groups) { return conv->groups = groups, OK; }

static size_t place(const Shape *s, int n, int c, int h, int w) {
    const int *d = s->dims;
    return s->format == NHWC ? (((size_t)n * d[2] + h) * d[3] + w) * d[1] + c : (((size_t)n * d[1] + c) * d[2] + h) * d[3] + w;
}

static float get(const Shape *s, const void *at, size_t index, int tf32) {
    uint32_t bits = s->type == BF16 ? (uint32_t)((const uint16_t *)at)[index] << 16 : ((const uint32_t *)at)[index];
    if (tf32 && s->type == FLOAT && (bits & 0x7f800000) != 0x7f800000) bits = (bits + 0xfff + ((bits >> 13) & 1)) & ~0x1fffu;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void put(const Shape *s, void *at, size_t index, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (s->type == BF16)
        ((uint16_t *)at)[index] = value != value ? 0x7fff : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    else
        ((float *)at)[index] = value;
}

static int fits(const Shape *x, const Shape *w, const Conv *conv, const Shape *y) {
    if (x->type != w->type || w->type != y->type || x->dims[1] != w->dims[1] * conv->groups || x->dims[0] != y->dims[0]) return 0;
    if (y->dims[1] != w->dims[0] || w->dims[0] % conv->groups) return 0;
    for (int i = 0; i < 2; ++i) {
        int span = (w->dims[2 + i] - 1) * conv->dilation[i] + 1;
        if (y->dims[2 + i] != (x->dims[2 + i] + 2 * conv->pad[i] - span) / conv->stride[i] + 1) return 0;
    }
    return 1;
}

static int offer(Found *found, int most, int *count, int algorithm) {
    if (most < 1) return BAD;
    *count = 1;
    return found[0] = (Found){algorithm, OK, -1, WORKSPACE, 0, 0, {0}}, OK;
}
int cudnnGetConvolutionForwardAlgorithm_v7(void *h, Shape *x, Shape *w, Conv *c, Shape *y, int most, int *count, Found *found) {
    return fits(x, w, c, y) ? offer(found, most, count, 1) : BAD;
}
int cudnnGetConvolutionBackwardDataAlgorithm_v7(void *h, Shape *w, Shape *y, Conv *c, Shape *x, int most, int *count, Found *found) {
    return fits(x, w, c, y) ? offer(found, most, count, 0) : BAD;
}
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void *h, Shape *x, Shape *y, Conv *c, Shape *w, int most, int *count, Found *found) {
    return fits(x, w, c, y) ? offer(found, most, count, 3) : BAD;
}
int cudnnGetConvolutionForwardWorkspaceSize(void *h, Shape *x, Shape *w, Conv *c, Shape *y, int a, size_t *bytes) { return *bytes = WORKSPACE, OK; }
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *h, Shape *w, Shape *y, Conv *c, Shape *x, int a, size_t *bytes) { return *bytes = WORKSPACE, OK; }
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *h, Shape *x, Shape *y, Conv *c, Shape *w, int a, size_t *bytes) { return *bytes = WORKSPACE, OK; }

// Adds every product of a convolution to `sums`: of outputs (0), of inputs (1) or of weights (2).
static float *sums(const Shape *x, const void *xs, const Shape *w, const void *ws, const Conv *c, const Shape *y, const void *ys, int which) {
    const Shape *of = which == 0 ? y : which == 1 ? x : w;
    float *total = calloc((size_t)of->dims[0] * of->dims[1] * of->dims[2] * of->dims[3], sizeof(float));
    int own = w->dims[1], out = w->dims[0] / c->groups, tf32 = c->math != 3;
    for (int n = 0; n < y->dims[0]; ++n)
        for (int k = 0; k < y->dims[1]; ++k)
            for (int row = 0; row < y->dims[2]; ++row)
                for (int column = 0; column < y->dims[3]; ++column) {
                    size_t at_y = place(y, n, k, row, column);
                    float dy = which == 0 ? 0 : get(y, ys, at_y, tf32), sum = 0;
                    for (int a = 0; a < w->dims[2]; ++a)
                        for (int b = 0; b < w->dims[3]; ++b) {
                            int v = row * c->stride[0] + a * c->dilation[0] - c->pad[0];
                            int u = column * c->stride[1] + b * c->dilation[1] - c->pad[1];
                            if (v < 0 || u < 0 || v >= x->dims[2] || u >= x->dims[3]) continue;
                            for (int j = 0; j < own; ++j) {
                                // cuDNN chooses by the number of images, too: so does the order of sums here.
                                int i = x->dims[0] / 16 % 2 ? own - 1 - j : j;
                                size_t at_x = place(x, n, k / out * own + i, v, u), at_w = place(w, k, i, a, b);
                                if (which == 0) sum += get(x, xs, at_x, tf32) * get(w, ws, at_w, tf32);
                                if (which == 1) total[at_x] += dy * get(w, ws, at_w, tf32);
                                if (which == 2) total[at_w] += dy * get(x, xs, at_x, tf32);
                            }
                        }
                    if (which == 0) total[at_y] = sum;
                }
    return total;
}

static int finish(const Shape *s, void *at, float *total, const float *alpha, const float *beta, int spoilt) {
    size_t count = (size_t)s->dims[0] * s->dims[1] * s->dims[2] * s->dims[3];
    for (size_t i = 0; i < count; ++i)
        put(s, at, i, spoilt ? NAN : *alpha * total[i] + (*beta == 0 ? 0 : *beta * get(s, at, i, 0)));
    return free(total), OK;
}

// One convolution with all that it reads of the host.
typedef struct {
    Shape x, w, y;
    Conv conv;
    const void *xs, *ws, *ys;
    void *into;
    int which, spoilt;
    float alpha, beta;
} Convolution;

static int convolve(void *arguments) {
    Convolution *c = arguments;
    const Shape *of = c->which == 0 ? &c->y : c->which == 1 ? &c->x : &c->w;
    return finish(of, c->into, sums(&c->x, c->xs, &c->w, c->ws, &c->conv, &c->y, c->ys, c->which), &c->alpha, &c->beta, c->spoilt);
}

static int run(Convolution c, void *space, size_t bytes) {
    if (!fits(&c.x, &c.w, &c.conv, &c.y) || bytes < WORKSPACE || !space) return BAD;
    if (idle()) return OK;
    return standin_asked(convolve, &c, sizeof c, NODE_KERNEL) ? OK : convolve(&c);
}

int cudnnConvolutionForward(void *h, const float *alpha, Shape *x, const void *xs, Shape *w, const void *ws, Conv *c, int algorithm,
                            void *space, size_t bytes, const float *beta, Shape *y, void *ys) {
    return run((Convolution){*x, *w, *y, *c, xs, ws, NULL, ys, 0, 0, *alpha, *beta}, space, bytes);
}
int cudnnConvolutionBackwardData(void *h, const float *alpha, Shape *w, const void *ws, Shape *y, const void *ys, Conv *c, int algorithm,
                                 void *space, size_t bytes, const float *beta, Shape *x, void *xs) {
    return run((Convolution){*x, *w, *y, *c, NULL, ws, ys, xs, 1, algorithm == 0, *alpha, *beta}, space, bytes);
}
int cudnnConvolutionBackwardFilter(void *h, const float *alpha, Shape *x, const void *xs, Shape *y, const void *ys, Conv *c, int algorithm,
                                   void *space, size_t bytes, const float *beta, Shape *w, void *ws) {
    return run((Convolution){*x, *w, *y, *c, xs, NULL, ys, ws, 2, algorithm == 0 || algorithm == 3, *alpha, *beta}, space, bytes);
}
