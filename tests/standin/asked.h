// Work that a stream captures instead of running it, as CUDA graphs do: shared by the stand-in's libraries.

#include <stddef.h>

// Adds work to what this thread captures, with a copy of its arguments; 0 where nothing is captured and the work is to be done.
int standin_capture(int (*run)(void *), const void *arguments, size_t bytes, int kind);

enum { NODE_KERNEL = 0, NODE_MEMCPY = 1, NODE_MEMSET = 2, NODE_ALLOC = 10, NODE_FREE = 11 };
