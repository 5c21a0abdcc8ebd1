// Candle makes a generator for every device; nothing of ours draws from it.

#include <stdlib.h>
#include "asked.h"

int curandCreateGenerator(void **generator, int kind) { return standin_disturbs("curandCreateGenerator") ? 102 : (*generator = malloc(1), 0); }
int curandDestroyGenerator(void *generator) { return standin_disturbs("curandDestroyGenerator") ? 102 : (free(generator), 0); }
int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) { return 0; }
int curandSetStream(void *generator, void *stream) { return 0; }
