// Images and features on their way into a batch.

// byte * scale + shift for images [n, 3, pixels] of RGB bytes, each plane from a byte of its own; rounded twice, as on CPU.
extern "C" __global__ void normalise(unsigned count, int pixels, const unsigned char *bytes, int first, int second, int third,
                                     float scale, float scale_second, float scale_third, float shift, float shift_second,
                                     float shift_third, float *y) {
    EACH(i, count) {
        int plane = int(i / pixels % 3), byte = plane == 0 ? first : plane == 1 ? second : third;
        float times = plane == 0 ? scale : plane == 1 ? scale_second : scale_third;
        float plus = plane == 0 ? shift : plane == 1 ? shift_second : shift_third;
        unsigned image = i / pixels / 3, pixel = i % pixels;
        y[i] = __fadd_rn(__fmul_rn(float(bytes[(image * pixels + pixel) * 3 + byte]), times), plus);
    }
}

// Rows `which` of so many numbers each.
extern "C" __global__ void rows_of(unsigned n, int own, const unsigned *which, const float *from, float *y) {
    EACH(i, n) y[i] = from[size_t(which[i / own]) * own + i % own];
}
