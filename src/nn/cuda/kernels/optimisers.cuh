// Steps of parameters, and clipping.

// One step of a number by SGD (kind 0) or AdamW (kind 1). n: kind, decay that is coupled, shrink, rate, momentum or the scale
// of the second moment, nesterov.
__device__ __forceinline__ void step_number(const float *n, float *w, float *first, float *second, float gradient,
                                            float beta, float beta_second, float epsilon) {
    float g = gradient + n[1] * *w;
    if (n[0] == 0.0f) {
        float v = n[4] * *first + g;
        *first = v;
        *w = n[2] * *w - n[3] * (n[5] != 0.0f ? g + n[4] * v : v);
    } else {
        float m = beta * *first + (1.0f - beta) * g;
        float v = beta_second * *second + (1.0f - beta_second) * g * g;
        *first = m;
        *second = v;
        *w = n[2] * *w - n[3] * m / (sqrtf(v * n[4]) + epsilon);
    }
}

// Parameters that step in one launch: blockIdx.y is the place of one among them. Its numbers come along, or were told to the
// device.
struct Steps {
    struct {
        float *w, *first, *second;
        const float *gradient, *told;
        float numbers[6];
        unsigned count, unused;
    } of[32];
};

extern "C" __global__ void step_several(const __grid_constant__ Steps steps, float beta, float beta_second, float epsilon) {
    const auto &own = steps.of[blockIdx.y];
    const float *numbers = own.told ? own.told : own.numbers;
    EACH(i, own.count)
        step_number(numbers, own.w + i, own.first + i, own.second + i, own.gradient[i], beta, beta_second, epsilon);
}

// One step of many heads, `own` numbers each, each with its own six numbers and memories; kind -1 stands still.
extern "C" __global__ void step_heads(unsigned count, int own, const float *numbers, const long long *memories, float *w,
                                      const float *gradient, float beta, float beta_second, float epsilon) {
    EACH(i, count) {
        int head = int(i / own), place = int(i % own);
        const float *n = numbers + 6 * head;
        if (n[0] < 0.0f) continue;
        float *first = (float *)memories[2 * head], *second = (float *)memories[2 * head + 1];
        step_number(n, w + i, first + place, second + place, gradient[i], beta, beta_second, epsilon);
    }
}

// The sum of squares of each of 256 threads' numbers in one block, added in the order of the threads.
extern "C" __global__ void squares(unsigned count, const float *x, double *sum) {
    __shared__ double lanes[256];
    double own = 0.0;
    for (unsigned i = threadIdx.x; i < count; i += 256) own += double(x[i]) * double(x[i]);
    lanes[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x == 0) {
        double all = 0.0;
        for (int lane = 0; lane < 256; ++lane) all += lanes[lane];
        *sum = all;
    }
}

// x times limit / (norm + 1e-6) where that is less than 1 (PyTorch's clip_grad_norm_).
extern "C" __global__ void clip(unsigned count, float *x, int parts, const double *sums, double limit) {
    double all = 0.0;
    for (int part = 0; part < parts; ++part) all += sums[part];
    double factor = limit / (sqrt(all) + 1e-6);
    if (factor < 1.0) EACH(i, count) x[i] = float(x[i] * factor);
}

// The gradient of strength / 2 times the squared distance from where a parameter started, added to its own.
extern "C" __global__ void pull(unsigned count, float *gradient, const float *w, const float *start, float strength) {
    EACH(i, count) gradient[i] += strength * (w[i] - start[i]);
}

// Sets the flag where some number is not finite.
extern "C" __global__ void not_finite(unsigned count, const float *x, unsigned *flag) {
    EACH(i, count) if (!isfinite(x[i])) *flag = 1;
}
