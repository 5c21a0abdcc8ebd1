// The driver's management library on the stand-in.

#include <stdint.h>
#include "devices.h"

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;

static unsigned long long capacity(void) {
    const char *text = getenv("STANDIN_MEMORY");
    return text ? strtoull(text, NULL, 10) : 4ull << 30;
}

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int status) { return status ? "an error of the stand-in" : "fine"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "580.0"), 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { return *version = 13000, 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = 13000, 0; }
// A device is named by its place and one more.
static int place_of(void *device) { return (int)(intptr_t)device - 1; }
static int screen(void *device) { return getenv("STANDIN_SCREEN") && bus_of(place_of(device)) == 1; }
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = all_devices(), 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    return *device = (void *)(intptr_t)(index + 1), index < (unsigned)all_devices() ? 0 : 2;
}
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    // As a GPU says that cannot be divided.
    if (!all_instances()) return 3;
    return *current = *pending = 1, 0;
}
// One place more than there are instances: the first stays empty.
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { return *count = all_instances() + 1, 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    if (index == 0) return 6;
    return *instance = (void *)(intptr_t)(place_of(device) + index * MOST_DEVICES + 1), 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    int divided = instance_of(place_of(device));
    return snprintf(text, size, divided ? "stand-in MIG 1g.1gb" : screen(device) ? "for the screen" : "stand-in"), 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { return name_of(place_of(device), text, size), 0; }
int nvmlDeviceGetPciInfo_v3(void *device, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    return snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02x:00.0", bus_of(place_of(device))), 0;
}
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    // What all instances have together is for administrators.
    if (all_instances() && !instance_of(place_of(device))) return 4;
    unsigned long long bytes = capacity() / (screen(device) ? 2 : 1);
    return *memory = (Memory){bytes, bytes, 0}, 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, Memory2 *memory) {
    Memory own;
    int status = nvmlDeviceGetMemoryInfo(device, &own);
    memory->total = memory->free = own.total, memory->reserved = memory->used = 0;
    return status;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    const char *named = getenv("STANDIN_CAPABILITY");
    return *major = 9, *minor = 0, named && sscanf(named, "%d.%d", major, minor), 0;
}
int nvmlDeviceGetNumGpuCores(void *device, unsigned *cores) { return *cores = screen(device) ? 64 : 128, 0; }
int nvmlDeviceGetAttributes_v2(void *device, unsigned *numbers) {
    memset(numbers, 0, 8 * sizeof *numbers + 8);
    return *numbers = 16, 0;
}
