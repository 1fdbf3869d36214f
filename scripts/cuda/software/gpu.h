// What the parts of the software GPU know of one another.

#include <pthread.h>
#include <stddef.h>

#include "kernel.h"

// A launch; each argument follows it, at a multiple of 16 bytes.
typedef struct {
    const Kernel *kernel;
    Dim grid, block;
    uint32_t dynamic;
} __attribute__((aligned(16))) Launch;

// Does the work of a launch, the blocks one after the other (run.c).
void run_launch(const void *launch);

// Does work of this name so that its failure, or its touching what is no memory, ends it alone;
// says with what error of the driver.
int guarded(const char *name, void (*work)(const void *), const void *with);

// The same in a stream: at once, or, where the stream is being captured, whenever the graph is
// launched; `with` is copied (driver.c).
int submit(void *stream, const char *name, void (*work)(const void *), const void *with,
           size_t size);
