// How many devices the stand-in has, and how each is called. STANDIN_DEVICES says how many (one without it). On the bus they
// stand the other way round than CUDA counts them, so that whoever takes one order for the other gets the wrong device.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEVICES = 8 };

static int all_devices(void) {
    const char *text = getenv("STANDIN_DEVICES");
    int count = text ? atoi(text) : 1;
    return count < 1 ? 1 : count > MOST_DEVICES ? MOST_DEVICES : count;
}

static int bus_of(int device) { return all_devices() - device; }

static void uuid_of(int device, unsigned char bytes[16]) {
    memset(bytes, 7, 16);
    bytes[15] += device;
}

static int name_of(int device, char *text, size_t size) {
    return snprintf(text, size, "GPU-07070707-0707-0707-0707-0707070707%02x", 7 + device);
}
