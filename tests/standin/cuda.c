// A CUDA device made of this machine's processor: the driver's functions over host memory, kernels turned from PTX into C
// (ptx.py) and compiled when they are first asked for. It shows that what is asked of a GPU is asked rightly. Of speed it
// shows nothing, and of a GPU's own rounding neither.
//
// STANDIN_MEMORY: bytes of each device (default 4 GiB). STANDIN_FOLDER: where compiled kernels are kept.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices.h"
#include "asked.h"
#include "idle.h"
#include <sys/stat.h>
#include <unistd.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500 };

typedef struct { uint32_t tid[3], ntid[3], ctaid[3], nctaid[3]; uint8_t *shared; } Thread;
typedef void Kernel(void **params, Thread *thread);
typedef struct { char *path; } Module;
typedef struct { Kernel *run; int waits, shared; const int *params; const char *name; } Function;

// One thing at a time: the device is one thread, whoever asks.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define LOCKED(work) ({ pthread_mutex_lock(&lock); int found = (work); pthread_mutex_unlock(&lock); found; })

// STANDIN_COUNT=1: says at the end what was asked for how many times.
static struct { const char *name; long count; } counts[512];
static void counted(const char *name) {
    static int wanted = -1;
    if (wanted < 0) wanted = getenv("STANDIN_COUNT") != NULL;
    if (!wanted) return;
    int i = 0;
    while (counts[i].name && strcmp(counts[i].name, name)) ++i;
    counts[i].name = name, ++counts[i].count;
}
__attribute__((destructor)) static void say_counts(void) {
    for (int i = 0; counts[i].name; ++i) fprintf(stderr, "%8ld %s\n", counts[i].count, counts[i].name);
}

#include "streams.h"

// ---- memory

typedef struct Block { struct Block *next; void *at; size_t bytes; int captured; } Block;
static Block *blocks;
static size_t used, high, all = (size_t)4 << 30;

static size_t capacity(void) {
    const char *text = getenv("STANDIN_MEMORY");
    return text ? strtoull(text, NULL, 10) : all;
}

// Bytes behind each tensor that nobody may write.
enum { EDGE = 256 };

static int take(uint64_t *at, size_t bytes) {
    if (used + bytes > capacity()) return OUT_OF_MEMORY;
    Block *block = malloc(sizeof *block);
    // What nobody has written is no number: reading it must show. Where nothing is written at all, it is zero.
    block->at = idle() ? calloc(bytes + EDGE, 1) : malloc(bytes + EDGE);
    if (!idle()) memset(block->at, 0xff, bytes + EDGE);
    block->bytes = bytes, block->captured = captured != NULL, block->next = blocks, blocks = block;
    used += bytes;
    if (used > high) high = used;
    *at = (uint64_t)(uintptr_t)block->at;
    return OK;
}

// The driver counts memory as free once that was asked for; it is when what was asked for before has run.
static int release(void *block) {
    Block *gone = *(Block **)block;
    for (size_t i = 0; !idle() && i < EDGE; ++i)
        if (((uint8_t *)gone->at)[gone->bytes + i] != 0xff) fprintf(stderr, "stand-in: something was written behind a tensor\n"), abort();
    if (!idle()) memset(gone->at, 0xff, gone->bytes);
    return free(gone->at), free(gone), OK;
}

static int give(uint64_t at, Block **found) {
    for (Block **link = &blocks; *link; link = &(*link)->next)
        if ((uintptr_t)(*link)->at == at) {
            Block *gone = *link;
            // Memory of a graph lives in that graph alone, and a graph gives back no other.
            if (gone->captured != (captured != NULL)) return broken = 1, INVALID;
            if (captured) return OK;
            *link = gone->next;
            used -= gone->bytes;
            return *found = gone, OK;
        }
    fprintf(stderr, "stand-in: memory freed twice\n");
    abort();
}

static int give_back(uint64_t at, int waits) {
    Block *gone = NULL;
    int status = LOCKED(give(at, &gone));
    if (status) return status;
    if (captured) return standin_asked(nothing, "", 0, NODE_FREE), OK;
    if (waits) catch_up_all();
    return !waits && standin_asked(release, &gone, sizeof gone, NODE_FREE) ? OK : release(&gone);
}

int cuMemAlloc_v2(uint64_t *at, size_t bytes) { return LOCKED(take(at, bytes)); }
int cuMemAllocAsync(uint64_t *at, size_t bytes, void *stream) {
    counted("cuMemAllocAsync");
    if (captured) standin_asked(nothing, "", 0, NODE_ALLOC);
    return LOCKED(take(at, bytes));
}
int cuMemFree_v2(uint64_t at) { return give_back(at, 1); }
int cuMemFreeAsync(uint64_t at, void *stream) { counted("cuMemFreeAsync"); return give_back(at, 0); }

// ---- copies

// Memory of the host that a device reads and writes by itself, and when its turn comes; of other memory it has a copy made.
typedef struct Pinned { struct Pinned *next; char *at; size_t bytes; } Pinned;
static Pinned *pinned;

static int is_pinned(const void *at) {
    for (Pinned *own = pinned; own; own = own->next)
        if ((char *)at >= own->at && (char *)at < own->at + own->bytes) return 1;
    return 0;
}
static int pin(void **at, size_t bytes) {
    Pinned *own = malloc(sizeof *own);
    *own = (Pinned){pinned, *at = malloc(bytes + 1), bytes};
    return pinned = own, OK;
}
static int unpin(void *at) {
    for (Pinned **link = &pinned; *link; link = &(*link)->next)
        if ((*link)->at == at) {
            Pinned *gone = *link;
            memset(gone->at, 0xff, gone->bytes);
            return *link = gone->next, free(gone->at), free(gone), OK;
        }
    return INVALID;
}
int cuMemHostAlloc(void **at, size_t bytes, unsigned flags) { return LOCKED(pin(at, bytes)); }
int cuMemFreeHost(void *at) { return LOCKED(unpin(at)); }

static int set(void *move) { Move *own = move; return memset((void *)own->to, own->value, own->bytes), OK; }
static int copy(void *move) { Move *own = move; return memmove((void *)own->to, (void *)own->from, own->bytes), OK; }
static int copy_once(void *move) { copy(move); return free((void *)((Move *)move)->from), OK; }
static int asked(int (*run)(void *), Move move, int kind) {
    return standin_asked(run, &move, sizeof move, kind) ? OK : run(&move);
}
int cuMemsetD8Async(uint64_t at, unsigned char value, size_t count, void *stream) {
    counted("cuMemsetD8Async");
    return asked(set, (Move){at, 0, value, count}, NODE_MEMSET);
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    counted("cuMemcpyDtoDAsync_v2");
    return asked(copy, (Move){to, from, 0, bytes}, NODE_MEMCPY);
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    counted("cuMemcpyHtoDAsync_v2");
    if (refused("a copy from the host")) return REFUSED;
    if (LOCKED(is_pinned(from))) return asked(copy, (Move){to, (uint64_t)from, 0, bytes}, NODE_MEMCPY);
    void *own = memcpy(malloc(bytes + 1), from, bytes);
    return asked(copy_once, (Move){to, (uint64_t)own, 0, bytes}, NODE_MEMCPY);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    counted("cuMemcpyDtoHAsync_v2");
    if (refused("a copy to the host")) return REFUSED;
    Move move = {(uint64_t)to, from, 0, bytes};
    if (LOCKED(is_pinned(to))) return asked(copy, move, NODE_MEMCPY);
    return catch_up(stream_of(stream), UINT64_MAX), copy(&move);
}

int cuMemGetInfo_v2(size_t *left, size_t *total) { return *total = capacity(), *left = *total - used, OK; }
int cuDeviceGetDefaultMemPool(void **pool, int device) { return *pool = &used, OK; }
int cuMemPoolSetAttribute(void *pool, int what, void *value) {
    if (what == 8) high = used;
    return OK;
}
int cuMemPoolGetAttribute(void *pool, int what, void *value) {
    *(uint64_t *)value = what == 8 || what == 6 ? high : used;
    return OK;
}
int cuMemPoolTrimTo(void *pool, size_t left) { return OK; }

// ---- device, context, stream, event

// As CUDA does, only what CUDA_VISIBLE_DEVICES names is there: indices in the order of CUDA_DEVICE_ORDER, or beginnings of
// UUIDs, up to the first that is none; of divided devices one instance, the first that is named. Returns how many there are.
static int visible_devices(int found[MOST_DEVICES]) {
    const char *order = getenv("CUDA_DEVICE_ORDER"), *named = getenv("CUDA_VISIBLE_DEVICES");
    int all = all_devices(), divided = all_instances(), count = 0, ordered[MOST_DEVICES];
    int along_bus = order && !strcmp(order, "PCI_BUS_ID");
    for (int i = 0; i < all; ++i) ordered[i] = (along_bus ? all - 1 - i : i) + (divided ? MOST_DEVICES : 0);
    if (!named) return memcpy(found, ordered, sizeof ordered), divided ? 1 : all;
    char list[1024], *rest = NULL;
    snprintf(list, sizeof list, "%s", named);
    for (char *name = strtok_r(list, ",", &rest); name && count < all; name = strtok_r(NULL, ",", &rest)) {
        char *end, own[64];
        long index = strtol(name, &end, 10);
        int device = *end || end == name || index < 0 || index >= all ? -1 : ordered[index];
        for (int place = 0; place < MOST_PLACES && strlen(name) > 4; ++place)
            if (device_of(place) < all && (divided ? instance_of(place) && instance_of(place) <= divided : !instance_of(place)))
                if (name_of(place, own, sizeof own), !strncmp(name, own, strlen(name))) device = place;
        if (device < 0) break;
        found[count++] = device;
    }
    return divided && count > 1 ? 1 : count;
}
static int device_at(int index) {
    int found[MOST_DEVICES], count = visible_devices(found);
    return index < count ? found[index] : -1;
}
// A context is the device that it is of; STANDIN_LOG is a file in which each process notes the devices that it takes.
static int contexts[MOST_PLACES];
static __thread void *at_hand;
static int opened(int device) {
    const char *path = getenv("STANDIN_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (log) fprintf(log, "%d\n", device), fclose(log);
    return OK;
}

int cuInit(unsigned flags) { return device_at(0) < 0 ? NO_DEVICE : OK; }
int cuDriverGetVersion(int *version) { return *version = 13000, OK; }
int cuDeviceGetCount(int *count) { int found[MOST_DEVICES]; return *count = visible_devices(found), OK; }
int cuDeviceGet(int *device, int index) { return (*device = device_at(index)) < 0 ? 101 : OK; }
int cuDeviceGetUuid(void *uuid, int device) { return uuid_of(device, uuid), OK; }
int cuDeviceGetUuid_v2(void *uuid, int device) { return uuid_of(device, uuid), OK; }
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "stand-in"), OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = capacity(), OK; }
int cuDeviceGetAttribute(int *value, int what, int device) {
    *value = what == 75 ? 9 : what == 76 ? 0 : what == 115 ? 1 : what == 1 ? 1024 : what == 16 ? 132 : 0;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &contexts[device], opened(device); }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxSetCurrent(void *context) { counted("cuCtxSetCurrent"); return at_hand = context, OK; }
int cuCtxGetCurrent(void **context) { counted("cuCtxGetCurrent"); return *context = at_hand, OK; }
int cuCtxGetDevice(int *device) { return at_hand ? (*device = (int *)at_hand - contexts, OK) : 201; }

static const char *meaning(int status) {
    switch (status) {
    case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
    case 101: return "CUDA_ERROR_INVALID_DEVICE";
    case NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
    case REFUSED: return "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
    case INVALIDATED: return "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED";
    default: return "CUDA_ERROR_UNKNOWN";
    }
}
int cuGetErrorName(int status, const char **text) { return *text = meaning(status), OK; }
int cuGetErrorString(int status, const char **text) {
    return *text = status == OUT_OF_MEMORY ? "out of memory" : status == NO_DEVICE ? "no CUDA-capable device is detected" : meaning(status), OK;
}

// ---- modules and kernels

static const char *folder(void) {
    const char *named = getenv("STANDIN_FOLDER");
    return named ? named : "/tmp";
}

int cuModuleLoadData(void **module, const void *image) {
    const char *text = image;
    uint64_t hash = 1469598103934665603u;
    for (const char *c = text; *c; ++c) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    Module *found = malloc(sizeof *found);
    if (asprintf(&found->path, "%s/standin-%016lx", folder(), hash) < 0) return INVALID;
    mkdir(found->path, 0755);
    char *path;
    if (asprintf(&path, "%s/module.ptx", found->path) < 0) return INVALID;
    FILE *file = fopen(path, "w");
    if (!file) return INVALID;
    fputs(text, file), fclose(file), free(path);
    *module = found;
    return OK;
}
int cuModuleLoadDataEx(void **module, const void *image, unsigned n, void *options, void *values) { return cuModuleLoadData(module, image); }
int cuModuleUnload(void *module) { return OK; }

typedef struct Known { struct Known *next; char *name; Function *function; } Known;
static Known *known;

static int find_kernel(void **function, void *module, const char *name) {
    char *library, *command, *key;
    Module *own = module;
    if (asprintf(&key, "%s/%s", own->path, name) < 0) return INVALID;
    for (Known *entry = known; entry; entry = entry->next)
        if (!strcmp(entry->name, key)) return *function = entry->function, OK;
    if (asprintf(&library, "%s.so", key) < 0) return INVALID;
    if (access(library, R_OK)) {
        int made = asprintf(&command,
                            "python3 '%s' %s/module.ptx %s > %s.%d.c && cc -O2 -w -fno-strict-aliasing -ffp-contract=off -shared -fPIC "
                            "-o %s.%d %s.%d.c -lm && mv %s.%d %s",
                            getenv("STANDIN_PTX"), own->path, name, key, getpid(), library, getpid(), key, getpid(),
                            library, getpid(), library);
        if (made < 0 || system(command)) {
            fprintf(stderr, "stand-in: the kernel %s cannot be run\n", name);
            return NOT_FOUND;
        }
    }
    // Kernels call back: what was loaded for its caller alone is made known to them.
    dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
    void *handle = dlopen(library, RTLD_NOW);
    if (!handle) return fprintf(stderr, "stand-in: %s\n", dlerror()), NOT_FOUND;
    Function *found = malloc(sizeof *found);
    found->name = strrchr(key, '/') + 1;
    found->run = (Kernel *)dlsym(handle, name);
    found->waits = *(int *)dlsym(handle, "standin_waits");
    found->shared = *(int *)dlsym(handle, "standin_shared");
    found->params = dlsym(handle, "standin_params");
    Known *entry = malloc(sizeof *entry);
    entry->next = known, entry->name = key, entry->function = found, known = entry;
    return *function = found, OK;
}
int cuModuleGetFunction(void **function, void *module, const char *name) { return LOCKED(find_kernel(function, module, name)); }
int cuFuncGetAttribute(int *value, int what, void *function) { return *value = 0, OK; }
int cuFuncSetAttribute(void *function, int what, int value) { return OK; }

// Threads of a block that wait for each other run as fibres, in turn: `standin_switch` leaves one stack for another.
#ifndef __x86_64__
#error "the stand-in switches between fibres on x86-64 only"
#endif
void standin_switch(void **leave, void *enter);
__asm__(".text\n.globl standin_switch\nstandin_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

enum { MOST = 1024, STACK = 64 << 10 };
static void *fibres[MOST], *main_fibre;
static uint8_t *stacks[MOST];
static Thread threads[MOST];
static int alive[MOST], barriers[MOST], shuffles[MOST], current, count;
static uint32_t slots[MOST][2];
static Kernel *running;
static void **arguments;

static void fibre(void) {
    running(arguments, &threads[current]);
    alive[current] = 0;
    standin_switch(&fibres[current], main_fibre);
    abort();
}

static void pause_here(void) { standin_switch(&fibres[current], main_fibre); }

// A stack on which `fibre` is about to begin.
static void *fresh(int index) {
    if (!stacks[index]) stacks[index] = aligned_alloc(64, STACK);
    void **top = (void **)(stacks[index] + STACK);
    // The address to return to, where a call would have put it, above six registers.
    top[-2] = (void *)fibre;
    return top - 8;
}

// All fibres run in turn: whoever comes back from a pause has been passed by all others, each up to its own next wait.
void standin_barrier(void) {
    int mine = ++barriers[current];
    for (;;) {
        int waiting = 0;
        for (int i = 0; i < count && !waiting; ++i) waiting = alive[i] && barriers[i] < mine;
        if (!waiting) return;
        pause_here();
    }
}

uint32_t standin_shuffle(uint32_t value, uint32_t from) {
    int own = current, mine = ++shuffles[own], first = own / 32 * 32;
    slots[own][mine & 1] = value;
    for (;;) {
        int waiting = 0;
        for (int i = first; i < first + 32 && i < count; ++i) waiting |= alive[i] && shuffles[i] < mine;
        if (!waiting) break;
        pause_here();
    }
    return slots[first + from % 32][mine & 1];
}

// Every other launch begins with the last block and the last thread: no result may rest on who comes first.
static unsigned launches;
static uint32_t turn(uint32_t index, uint32_t of) { return launches % 2 ? of - 1 - index : index; }

static void run_block(Function *function, uint32_t *block, uint8_t *shared, void **params, const uint32_t *ids, const uint32_t *grid) {
    count = block[0] * block[1] * block[2];
    for (int i = 0; i < count; ++i) {
        uint32_t at = turn(i, count), x = at % block[0], y = at / block[0] % block[1], z = at / block[0] / block[1];
        threads[at] = (Thread){{x, y, z}, {block[0], block[1], block[2]}, {ids[0], ids[1], ids[2]}, {grid[0], grid[1], grid[2]}, shared};
        if (!function->waits) {
            function->run(params, &threads[at]);
            continue;
        }
        alive[at] = 1, barriers[at] = 0, shuffles[at] = 0;
        fibres[at] = fresh(at);
    }
    if (!function->waits) return;
    running = function->run, arguments = params;
    for (int left = count; left > 0;) {
        left = 0;
        for (int i = 0; i < count; ++i) {
            current = turn(i, count);
            if (!alive[current]) continue;
            standin_switch(&main_fibre, fibres[current]);
            left += alive[current];
        }
    }
}

static int launch(Function *function, const unsigned grid[3], const unsigned by[3], unsigned shared, void **params) {
    uint32_t block[3] = {by[0], by[1], by[2]};
    uint8_t *memory = malloc(function->shared + shared + 16);
    ++launches;
    memset(memory, 0xff, function->shared + shared + 16);
    for (uint32_t i = 0; i < grid[0] * grid[1] * grid[2]; ++i) {
        uint32_t at = turn(i, grid[0] * grid[1] * grid[2]);
        uint32_t ids[3] = {at % grid[0], at / grid[0] % grid[1], at / grid[0] / grid[1]};
        run_block(function, block, memory, params, ids, grid);
    }
    free(memory);
    return OK;
}

// A launch that waits: its parameters are copied one behind the other.
typedef struct { Function *function; unsigned grid[3], block[3], shared; uint64_t values[]; } Launch;

static int launch_now(void *arguments) {
    Launch *own = arguments;
    void *params[64];
    uint64_t *at = own->values;
    for (int i = 0; own->function->params[i]; ++i) params[i] = at, at += (own->function->params[i] + 7) / 8;
    return LOCKED(launch(own->function, own->grid, own->block, own->shared, params));
}

int cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **params, void **extra) {
    counted(captured ? "launches captured" : function->name);
    if (idle() && !captured) return OK;
    if ((uint64_t)bx * by * bz > MOST || gy > 65535 || gz > 65535) return INVALID;
    size_t words = 0, at = 0;
    for (int i = 0; function->params[i]; ++i) words += (function->params[i] + 7) / 8;
    size_t bytes = sizeof(Launch) + 8 * words;
    Launch *own = calloc(1, bytes);
    *own = (Launch){function, {gx, gy, gz}, {bx, by, bz}, shared};
    for (int i = 0; function->params[i]; at += (function->params[i] + 7) / 8, ++i) memcpy(own->values + at, params[i], function->params[i]);
    int status = standin_asked(idle() ? nothing : launch_now, own, bytes, NODE_KERNEL) ? OK : launch_now(own);
    return free(own), status;
}
