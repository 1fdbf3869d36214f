// Runs the blocks of a launch, one after the other, and the threads of each: one after the other,
// or, where they wait for one another, each on a stack of its own until it waits.

#define SOFTWARE_GPU
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "gpu.h"

enum { MOST = 1024, STACK = 64 << 10, LANES = 32 };

typedef struct {
    void *stack;
    Thread thread;
    // What it gave its warp and who else gives, and what all gave; `waits` until that is there, or
    // all threads are at the barrier.
    bool ended, waits, at_barrier;
    uint32_t members, given, told[LANES];
} Fiber;

static __thread struct {
    bool running;
    const char *name;
    sigjmp_buf out;
    int code;
    // The threads of a block that wait for one another.
    Fiber *fibers;
    char *stacks;
    uint32_t now, count, live, arrived;
    void *home;
    const Kernel *kernel;
    char *const *args;
    const Thread *at;
} gpu;

// Keeps where the caller is on its stack, and goes on where another was kept.
void go(void **from, void *to);
__asm__(".text\n"
        "go: push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, (%rdi); mov %rsi, %rsp\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret\n");

_Noreturn void fail(const Thread *t, int code, const char *why) {
    fprintf(stderr, "software GPU: %s: %s", gpu.name, why);
    if (t) {
        const Dim at = t->block->ctaid;
        fprintf(stderr, ", block %u %u %u, thread %u %u %u", at.x, at.y, at.z, t->x, t->y, t->z);
    }
    fputc('\n', stderr);
    gpu.code = code;
    siglongjmp(gpu.out, 1);
}

static void leave(void) {
    Fiber *fiber = &gpu.fibers[gpu.now];
    go(&fiber->stack, gpu.home);
}

void barrier(const Thread *t) {
    Fiber *fiber = &gpu.fibers[t->number];
    fiber->waits = fiber->at_barrier = true;
    gpu.arrived++;
    leave();
}

const uint32_t *exchange(const Thread *t, uint32_t members, uint32_t value) {
    Fiber *own = &gpu.fibers[t->number], *warp = own - t->number % LANES;
    if (!(members >> t->number % LANES & 1)) fail(t, 719, "a thread outside its own mask");
    own->members = members, own->given = value, own->waits = true;
    for (uint32_t lane = 0; lane < LANES; lane++) {
        const Fiber *other = &warp[lane];
        if (!(members >> lane & 1)) continue;
        if (warp - gpu.fibers + lane >= gpu.count || other->ended) {
            fail(t, 719, "a warp's exchange with a thread that is not there");
        }
        if (!other->waits || other->at_barrier || other->members != members) {
            leave();
            return own->told;
        }
    }
    for (uint32_t to = 0; to < LANES; to++) {
        if (!(members >> to & 1)) continue;
        for (uint32_t lane = 0; lane < LANES; lane++) {
            warp[to].told[lane] = members >> lane & 1 ? warp[lane].given : UINT32_MAX;
        }
        warp[to].waits = false;
    }
    return own->told;
}

static Dim split(uint32_t at, Dim sizes) {
    return (Dim){at % sizes.x, at / sizes.x % sizes.y, at / sizes.x / sizes.y};
}

// From the first to the last, or where that is asked for from the last to the first, so that a
// result that depends on the order is another one.
static uint32_t turn(uint32_t at, uint32_t count) {
    static int backwards = -1;
    if (backwards < 0) backwards = getenv("SOFTWARE_GPU_BACKWARDS") != NULL;
    return backwards ? count - 1 - at : at;
}

static void first(void) {
    Fiber *fiber = &gpu.fibers[gpu.now];
    gpu.kernel->run(&fiber->thread, gpu.args);
    fiber->ended = true;
    gpu.live--;
    leave();
}

static void together(const Thread *threads) {
    if (!gpu.fibers) {
        gpu.fibers = calloc(MOST, sizeof *gpu.fibers);
        gpu.stacks = mmap(NULL, (size_t)MOST * STACK, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (!gpu.fibers || gpu.stacks == MAP_FAILED) fail(NULL, 2, "no memory for its threads");
    }
    gpu.live = gpu.count, gpu.arrived = 0;
    for (uint32_t at = 0; at < gpu.count; at++) {
        // Six registers that `go` takes and where it returns to, so that there the stack is as
        // after a call.
        void **stack = (void **)(gpu.stacks + (size_t)(at + 1) * STACK) - 8;
        stack[6] = (void *)first;
        gpu.fibers[at] = (Fiber){.stack = stack, .thread = threads[at]};
    }
    while (gpu.live) {
        bool moved = false;
        for (uint32_t at = 0; at < gpu.count; at++) {
            Fiber *fiber = &gpu.fibers[gpu.now = turn(at, gpu.count)];
            if (fiber->ended || fiber->waits) continue;
            moved = true;
            gpu.at = &fiber->thread;
            go(&gpu.home, fiber->stack);
        }
        if (gpu.arrived == gpu.live && gpu.live) {
            gpu.arrived = 0;
            for (uint32_t at = 0; at < gpu.count; at++) {
                Fiber *fiber = &gpu.fibers[at];
                if (fiber->at_barrier) fiber->waits = fiber->at_barrier = false;
            }
        } else if (!moved) {
            fail(NULL, 702, "its threads wait for one another for ever");
        }
    }
}

static void blocks(const Launch *launch, char *const *args) {
    const Dim in = launch->block, of = launch->grid;
    Block block = {in, of, {0}, launch->kernel->shared + launch->dynamic, launch->dynamic, NULL};
    char shared[block.size + 16] __attribute__((aligned(16)));
    block.shared = shared;
    static __thread Thread threads[MOST];
    gpu.count = in.x * in.y * in.z;
    for (uint32_t at = 0; at < gpu.count; at++) {
        const Dim place = split(at, in);
        threads[at] = (Thread){&block, place.x, place.y, place.z, at};
    }
    const uint32_t count = of.x * of.y * of.z;
    for (uint32_t one = 0; one < count; one++) {
        block.ctaid = split(turn(one, count), of);
        // What nobody wrote is no number.
        memset(shared, 0xff, block.size);
        if (launch->kernel->together) {
            together(threads);
            continue;
        }
        for (uint32_t at = 0; at < gpu.count; at++) {
            gpu.at = &threads[turn(at, gpu.count)];
            launch->kernel->run(gpu.at, args);
        }
    }
}

static struct sigaction before;

// An access to no memory ends the launch; any other is not ours.
static void segment(int number, siginfo_t *about, void *context) {
    if (gpu.running) fail(gpu.at, 700, "an address outside what was allocated");
    (void)about, (void)context;
    sigaction(number, &before, NULL);
}

static void watch(void) {
    const struct sigaction action = {.sa_sigaction = segment, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, &before);
}

int guarded(const char *name, void (*work)(const void *), const void *with) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
    gpu.name = name, gpu.at = NULL, gpu.code = 0;
    if (!sigsetjmp(gpu.out, 0)) {
        gpu.running = true;
        work(with);
    }
    gpu.running = false;
    return gpu.code;
}

void run_launch(const void *with) {
    const Launch *launch = with;
    char *args[64], *next = (char *)(launch + 1);
    for (int at = 0; at < launch->kernel->count; at++) {
        args[at] = next;
        next += (launch->kernel->sizes[at] + 15) / 16 * 16;
    }
    gpu.kernel = launch->kernel, gpu.args = args;
    blocks(launch, args);
}
