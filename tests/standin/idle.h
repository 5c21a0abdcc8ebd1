#include <stdlib.h>

// STANDIN_IDLE=1: nothing is computed, so that what is left is what the host costs.
static int idle(void) {
    static int known = -1;
    if (known < 0) known = getenv("STANDIN_IDLE") != NULL;
    return known;
}
