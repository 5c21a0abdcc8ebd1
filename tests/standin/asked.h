// What is asked of a stream, shared by the stand-in's libraries.

#include <stddef.h>

// Has work run when its turn comes on this thread's stream, or notes it where the stream captures; its arguments are copied.
// 0 where nothing is put off: then the work is to be done at once.
int standin_asked(int (*run)(void *), const void *arguments, size_t bytes, int kind);

// Whether something that touches a whole device may not be done now, because a stream of it captures: that recording is lost.
int standin_disturbs(const char *what);

enum { NODE_KERNEL = 0, NODE_MEMCPY = 1, NODE_MEMSET = 2, NODE_EMPTY = 5, NODE_ALLOC = 10, NODE_FREE = 11 };
