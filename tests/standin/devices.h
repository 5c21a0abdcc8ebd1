// How many devices the stand-in has, and how each is called. STANDIN_DEVICES says how many (one without it). On the bus they
// stand the other way round than CUDA counts them, so that whoever takes one order for the other gets the wrong device.
// STANDIN_MIG says into how many instances each is divided, and STANDIN_SCREEN=1 makes the first on the bus another model.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A device's number, or that of one of its instances: so many more for each, counted from 1.
enum { MOST_DEVICES = 8, MOST_INSTANCES = 7, MOST_PLACES = MOST_DEVICES * (1 + MOST_INSTANCES) };

static int number_in(const char *name, int without, int most) {
    const char *text = getenv(name);
    int count = text ? atoi(text) : without;
    return count < without ? without : count > most ? most : count;
}
static int all_devices(void) { return number_in("STANDIN_DEVICES", 1, MOST_DEVICES); }
static int all_instances(void) { return number_in("STANDIN_MIG", 0, MOST_INSTANCES); }

static int device_of(int place) { return place % MOST_DEVICES; }
static int instance_of(int place) { return place / MOST_DEVICES; }
static int bus_of(int place) { return all_devices() - device_of(place); }

static void uuid_of(int place, unsigned char bytes[16]) {
    memset(bytes, 7, 16);
    bytes[9] += instance_of(place);
    bytes[15] += device_of(place);
}

static int name_of(int place, char *text, size_t size) {
    const char *kind = instance_of(place) ? "MIG" : "GPU";
    return snprintf(text, size, "%s-07070707-0707-0707-07%02x-0707070707%02x", kind, 7 + instance_of(place), 7 + device_of(place));
}
