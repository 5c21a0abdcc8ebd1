// Streams, events and graphs. What is asked of a stream is done as late as a device may come to it: when somebody waits for
// it, or when too much is waiting. So whoever reads too early reads what was there before, and whoever changes or gives back
// memory of the host or of another stream too early spoils what has not run yet. STANDIN_LAG says how many things wait at
// most (0: everything is done at once).
//
// What may not be asked for while a stream captures is as in NVIDIA's CUDA C++ Programming Guide, "Creating a Graph Using
// Stream Capture": nothing waits for what is captured or asks how far it is, and nothing touches a whole device meanwhile.

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REFUSED = 900, INVALIDATED = 901, NOT_READY = 600 };

typedef struct { int (*run)(void *); void *arguments; size_t bytes; int kind; } Node;
typedef struct { Node *nodes; size_t count, room; } Nodes;

static void add(Nodes *to, int (*run)(void *), const void *arguments, size_t bytes, int kind) {
    if (to->count == to->room) to->nodes = realloc(to->nodes, sizeof(Node) * (to->room = 2 * to->room + 16));
    Node *node = &to->nodes[to->count++];
    *node = (Node){run, malloc(bytes + 1), bytes, kind};
    memcpy(node->arguments, arguments, bytes);
}

static void forget(Nodes *of) {
    for (size_t i = 0; i < of->count; ++i) free(of->nodes[i].arguments);
    free(of->nodes);
}

// ---- streams

// One thread runs what waits at a time, though it need not be the one that has asked.
typedef struct Stream {
    struct Stream *next;
    pthread_mutex_t busy;
    Nodes waiting;
    uint64_t asked, done;
} Stream;

static Stream *_Atomic streams;
static pthread_key_t at_end;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t most_waiting(void) {
    static int known = -1;
    if (known < 0) known = getenv("STANDIN_LAG") ? atoi(getenv("STANDIN_LAG")) : 1000;
    return known;
}

static Stream *make_stream(void) {
    Stream *stream = calloc(1, sizeof *stream);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind), pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&stream->busy, &kind);
    stream->next = streams;
    while (!atomic_compare_exchange_weak(&streams, &stream->next, stream)) {}
    return stream;
}

// Does what was asked for up to `until`, in order.
static void catch_up(Stream *stream, uint64_t until) {
    pthread_mutex_lock(&stream->busy);
    size_t at = 0;
    for (Nodes *waiting = &stream->waiting; stream->done < until && at < waiting->count; ++at, ++stream->done) {
        Node node = waiting->nodes[at];
        int status = node.run(node.arguments);
        if (status) fprintf(stderr, "stand-in: what a stream was asked for has failed: %d\n", status), abort();
        free(node.arguments);
    }
    stream->waiting.count -= at;
    memmove(stream->waiting.nodes, stream->waiting.nodes + at, sizeof(Node) * stream->waiting.count);
    pthread_mutex_unlock(&stream->busy);
}

static void ended(void *stream) { catch_up(stream, UINT64_MAX); }
static void make_key(void) { pthread_key_create(&at_end, ended); }

// The stream that each thread has of its own.
static Stream *own_stream(void) {
    static __thread Stream *own;
    if (!own) pthread_once(&once, make_key), pthread_setspecific(at_end, own = make_stream());
    return own;
}

// CUDA's number 2 is the stream of the thread that asks.
static Stream *stream_of(void *handle) { return handle == (void *)2 ? own_stream() : handle; }

static void put_off(Stream *stream, int (*run)(void *), const void *arguments, size_t bytes, int kind) {
    pthread_mutex_lock(&stream->busy);
    if (stream->waiting.count >= most_waiting()) catch_up(stream, stream->done + most_waiting() / 2);
    add(&stream->waiting, run, arguments, bytes, kind);
    ++stream->asked;
    pthread_mutex_unlock(&stream->busy);
}

static void catch_up_all(void) {
    for (Stream *stream = streams; stream; stream = stream->next) catch_up(stream, UINT64_MAX);
}

// ---- what is captured

typedef Nodes Graph;
static __thread Graph *captured;
static __thread int broken, begun;
static atomic_int capturing, disturbed;

int standin_asked(int (*run)(void *), const void *arguments, size_t bytes, int kind) {
    if (captured) return add(captured, run, arguments, bytes, kind), 1;
    if (idle() || !most_waiting()) return 0;
    return put_off(own_stream(), run, arguments, bytes, kind), 1;
}

int standin_disturbs(const char *what) {
    if (!capturing) return 0;
    fprintf(stderr, "stand-in: %s while a stream captures\n", what);
    return ++disturbed;
}

static int nothing(void *arguments) { return OK; }

// What may not be asked of what captures: the recording is lost.
static int refused(const char *what) {
    if (!captured) return 0;
    fprintf(stderr, "stand-in: %s in what is captured\n", what);
    return broken = 1;
}

int cuStreamBeginCapture_v2(void *stream, int mode) {
    // CU_STREAM_CAPTURE_MODE_RELAXED: the other kinds keep other threads from making and giving back memory.
    if (captured || !stream || mode != 2) return REFUSED;
    broken = 0, begun = disturbed, ++capturing;
    return captured = calloc(1, sizeof(Graph)), OK;
}
int cuStreamEndCapture(void *stream, Graph **graph) {
    if (!captured) return REFUSED;
    --capturing, broken |= begun != disturbed;
    *graph = broken ? NULL : captured;
    if (broken) forget(captured), free(captured);
    captured = NULL;
    return broken ? INVALIDATED : OK;
}
int cuStreamIsCapturing(void *stream, int *status) { return *status = captured != NULL, OK; }

// ---- graphs

int cuGraphInstantiateWithFlags(void **exec, Graph *graph, uint64_t flags) { return *exec = graph, OK; }
int cuGraphGetNodes(Graph *graph, Node **nodes, size_t *count) {
    for (size_t i = 0; nodes && i < graph->count; ++i) nodes[i] = &graph->nodes[i];
    return *count = graph->count, OK;
}
int cuGraphNodeGetType(Node *node, int *kind) { return *kind = node->kind, OK; }
// A copy, or numbers that are set.
typedef struct { uint64_t to, from; unsigned char value; size_t bytes; } Move;

typedef struct { size_t x, y, z, lod; int kind; void *host; uint64_t device; void *array, *reserved; size_t pitch, height; } Side;
int cuGraphMemcpyNodeGetParams(Node *node, Side sides[2]) {
    // From a device's memory (2) to a device's: nothing else is captured. A driver may as well leave it to whoever asks to find
    // out of which kind a place is (4).
    Move *move = node->arguments;
    sides[0].kind = 2, sides[1].kind = 4;
    return sides[0].device = move->from, sides[1].device = move->to, OK;
}
int cuPointerGetAttribute(int *kind, int what, uint64_t place) { return what == 2 ? (*kind = 2, OK) : INVALID; }
int cuGraphLaunch(Graph *graph, void *stream) {
    counted("cuGraphLaunch");
    if (refused("cuGraphLaunch")) return REFUSED;
    for (size_t i = 0; i < graph->count; ++i) {
        Node *node = &graph->nodes[i];
        if (standin_asked(node->run, node->arguments, node->bytes, node->kind)) continue;
        int status = node->run(node->arguments);
        if (status) return status;
    }
    return OK;
}
int cuGraphExecDestroy(Graph *exec) { return OK; }
int cuGraphDestroy(Graph *graph) { return forget(graph), free(graph), OK; }

// ---- events, and who waits

// A place in what a stream was asked for.
typedef struct { Stream *stream; uint64_t at; int captured; } Event;

static int wait_for(void *event) { Event *own = event; return catch_up(own->stream, own->at), OK; }

int cuStreamCreate(void **stream, unsigned flags) { return *stream = make_stream(), OK; }
int cuStreamDestroy_v2(void *stream) { return OK; }
int cuStreamSynchronize(void *stream) {
    counted("cuStreamSynchronize");
    if (refused("cuStreamSynchronize")) return REFUSED;
    return catch_up(stream_of(stream), UINT64_MAX), OK;
}
int cuCtxSynchronize(void) {
    if (standin_disturbs("cuCtxSynchronize")) return REFUSED;
    return catch_up_all(), OK;
}
int cuEventCreate(void **event, unsigned flags) { counted("cuEventCreate"); return *event = calloc(1, sizeof(Event)), OK; }
int cuEventDestroy_v2(void *event) { return free(event), OK; }
int cuEventRecord(Event *event, void *stream) {
    counted("cuEventRecord");
    Stream *own = stream_of(stream);
    return *event = (Event){own, own->asked, captured != NULL}, OK;
}
int cuStreamWaitEvent(void *stream, Event *event, unsigned flags) {
    counted("cuStreamWaitEvent");
    if (captured && !event->captured && refused("waiting for an event from before")) return REFUSED;
    if (captured || !event->stream || event->stream == stream_of(stream)) return OK;
    if (!standin_asked(wait_for, event, sizeof *event, NODE_EMPTY)) wait_for(event);
    return OK;
}
int cuEventSynchronize(Event *event) {
    if (refused("cuEventSynchronize")) return REFUSED;
    return event->stream ? wait_for(event) : OK;
}
int cuEventQuery(Event *event) {
    if (refused("cuEventQuery")) return REFUSED;
    if (!event->stream || event->stream->done >= event->at) return OK;
    // Who asks again and again gets there.
    return catch_up(event->stream, event->stream->done + 1), NOT_READY;
}
