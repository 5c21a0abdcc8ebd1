// Candle makes a generator for every device; nothing of ours draws from it.

#include <stdlib.h>

int curandCreateGenerator(void **generator, int kind) { return *generator = malloc(1), 0; }
int curandDestroyGenerator(void *generator) { return free(generator), 0; }
int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) { return 0; }
int curandSetStream(void *generator, void *stream) { return 0; }
