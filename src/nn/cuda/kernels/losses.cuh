// Cross-entropy, and the answers of an evaluation.

__device__ __forceinline__ float warp_max(float value) {
    for (int away = 16; away > 0; away /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, away));
    return value;
}

__device__ __forceinline__ double warp_sum(double value) {
    for (int away = 16; away > 0; away /= 2) value += __shfl_xor_sync(0xffffffffu, value, away);
    return value;
}

// Cross-entropy of logits [rows, heads * classes]: one warp for each row of a head. weights [heads, classes], smoothing
// and whole (the sum of the labels' weights) [heads]; gradient like the logits, losses [rows, heads] not yet divided.
extern "C" __global__ void cross_entropy(int rows, int heads, int classes, const float *logits, const unsigned *labels,
                                         const unsigned *others, const double *share, const double *weights,
                                         const double *smoothing, const double *whole, float *gradient,
                                         double *losses) {
    int warp = int(blockIdx.x * blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (warp >= rows * heads) return;
    int row = warp / heads, head = warp % heads;
    const float *own = logits + (row * heads + head) * classes;
    float *into = gradient + (row * heads + head) * classes;
    const double *weight = weights + head * classes;
    int label = int(labels[row]), other = int(others[row]);
    double even = smoothing[head] / classes, certain = 1.0 - smoothing[head], first = share[0], second = 1.0 - first;
    float top = -INFINITY, odd = 0.0f;
    for (int c = lane; c < classes; c += 32) {
        top = fmaxf(top, own[c]);
        odd += isfinite(own[c]) ? 0.0f : own[c] - own[c];
    }
    top = warp_max(top);
    double exponentials = 0.0, targets = 0.0;
    for (int c = lane; c < classes; c += 32) {
        exponentials += exp(double(own[c]) - double(top));
        double own = (c == label ? first : 0.0) + (c == other ? second : 0.0);
        targets += weight[c] * (even + own * certain);
    }
    exponentials = warp_sum(exponentials);
    targets = warp_sum(targets);
    double log_sum = log(exponentials), loss = 0.0;
    for (int c = lane; c < classes; c += 32) {
        double log_probability = double(own[c]) - double(top) - log_sum;
        double own_target = (c == label ? first : 0.0) + (c == other ? second : 0.0);
        double target = weight[c] * (even + own_target * certain);
        loss -= target > 0.0 ? target * log_probability : 0.0;
        into[c] = float((exp(log_probability) * targets - target) / whole[head]);
    }
    // A logit that is not finite makes the loss that too.
    loss = warp_sum(loss + double(odd));
    if (lane == 0) losses[warp] = loss;
}

// The means [heads], the rows added in their order.
extern "C" __global__ void mean_losses(int rows, int heads, const double *losses, const double *whole, double *means) {
    EACH(head, heads) {
        double sum = 0.0;
        for (int row = 0; row < rows; ++row) sum += losses[row * heads + head];
        means[head] = sum / whole[head];
    }
}

// Answers for logits [rows, heads * classes]: the first largest class, and the logarithms of the probabilities of the label and
// of that class.
extern "C" __global__ void answers(int rows, int heads, int classes, const float *logits, const unsigned *labels,
                                   unsigned *predicted, double *of_labels, double *of_answers) {
    EACH(i, rows * heads) {
        const float *own = logits + i * classes;
        unsigned best = 0;
        float top = -INFINITY;
        for (int c = 0; c < classes; ++c) {
            if (own[c] > own[best]) best = unsigned(c);
            top = fmaxf(top, own[c]);
        }
        double sum = 0.0;
        for (int c = 0; c < classes; ++c) sum += exp(double(own[c]) - double(top));
        predicted[i] = best;
        double log_sum = log(sum);
        of_labels[i] = double(own[labels[i / heads]]) - double(top) - log_sum;
        of_answers[i] = double(own[best]) - double(top) - log_sum;
    }
}
