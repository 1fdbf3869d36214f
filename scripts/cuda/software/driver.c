// libcuda.so.1: the driver's functions that candle and cudarc call, as far as they can be told from
// a GPU's by results and errors. What is asked of it is done before a call returns.
//
// It is harder to please than a GPU: new memory holds what is no number, its pointers mean nothing
// to the host, its last bytes have nothing behind them, and after an error nothing works any more.

#define SOFTWARE_GPU
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gpu.h"

enum { DEVICES = 16, PAGE = 4096, SHARED = 48 << 10, SHARED_MOST = 227 << 10 };
#define MEMORY (8ull << 30)

// A GPU and its primary context, which is all that it has.
struct CUctx_st {
    int number, retained;
    // The error that ended it.
    CUresult broken;
    size_t used;
};
static struct CUctx_st gpus[DEVICES];
static int count;
static bool ready;
static __thread CUcontext current;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const CUresult result_ = (call);                                                           \
        if (result_ != CUDA_SUCCESS) return result_;                                               \
    } while (0)

static CUresult here(void) {
    if (!ready) return CUDA_ERROR_NOT_INITIALIZED;
    return current ? current->broken : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult told(CUresult error, const char *why) {
    fprintf(stderr, "software GPU: %s\n", why);
    return error;
}

// ---- Devices and contexts.

CUresult cuInit(unsigned flags) {
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (!ready) {
        const char *many = getenv("SOFTWARE_GPUS"), *seen = getenv("CUDA_VISIBLE_DEVICES");
        const int there = many ? atoi(many) : 1;
        // As a driver does, up to the first that is not there.
        for (count = 0; count < DEVICES; count++) {
            char *end;
            const long at = seen ? strtol(seen, &end, 10) : count;
            if ((seen && end == seen) || at < 0 || at >= there) break;
            gpus[count].number = count;
            if (seen) seen = *end ? end + 1 : end;
        }
        ready = true;
    }
    pthread_mutex_unlock(&lock);
    return count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *to) {
    *to = count;
    return ready ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *to, int number) {
    *to = number;
    return number >= 0 && number < count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *to, int size, CUdevice device) {
    snprintf(to, size, "software GPU %d", device);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *to, CUdevice device) {
    *to = MEMORY;
    return device < count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetAttribute(int *to, CUdevice_attribute attribute, CUdevice device) {
    static const struct {
        CUdevice_attribute attribute;
        int value;
    } known[] = {
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, SHARED},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, SHARED_MOST},
        {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
        {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
    };
    for (size_t at = 0; at < sizeof known / sizeof *known; at++) {
        *to = known[at].value;
        if (known[at].attribute == attribute && device < count) return CUDA_SUCCESS;
    }
    return told(CUDA_ERROR_INVALID_VALUE, "an attribute that it does not know");
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *to, CUdevice device) {
    if (device < 0 || device >= count) return CUDA_ERROR_INVALID_DEVICE;
    __atomic_add_fetch(&gpus[device].retained, 1, __ATOMIC_SEQ_CST);
    *to = &gpus[device];
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    if (device < 0 || device >= count) return CUDA_ERROR_INVALID_DEVICE;
    const int left = __atomic_sub_fetch(&gpus[device].retained, 1, __ATOMIC_SEQ_CST);
    return left < 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    if (context && context->retained < 1) return CUDA_ERROR_INVALID_CONTEXT;
    current = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *to) {
    *to = current;
    return ready ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuCtxGetDevice(CUdevice *to) {
    TRY(here());
    *to = current->number;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **to) {
    static const struct {
        CUresult error;
        const char *name;
    } known[] = {
#define NAME(error) {error, #error}
        NAME(CUDA_SUCCESS), NAME(CUDA_ERROR_INVALID_VALUE), NAME(CUDA_ERROR_OUT_OF_MEMORY),
        NAME(CUDA_ERROR_NOT_INITIALIZED), NAME(CUDA_ERROR_NO_DEVICE),
        NAME(CUDA_ERROR_INVALID_DEVICE), NAME(CUDA_ERROR_INVALID_CONTEXT),
        NAME(CUDA_ERROR_INVALID_PTX), NAME(CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
        NAME(CUDA_ERROR_NO_BINARY_FOR_GPU), NAME(CUDA_ERROR_INVALID_HANDLE),
        NAME(CUDA_ERROR_NOT_FOUND), NAME(CUDA_ERROR_ILLEGAL_ADDRESS),
        NAME(CUDA_ERROR_LAUNCH_TIMEOUT), NAME(CUDA_ERROR_ASSERT),
        NAME(CUDA_ERROR_MISALIGNED_ADDRESS), NAME(CUDA_ERROR_LAUNCH_FAILED),
        NAME(CUDA_ERROR_NOT_SUPPORTED), NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), NAME(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_ISOLATION), NAME(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
        NAME(CUDA_ERROR_ILLEGAL_STATE),
    };
    for (size_t at = 0; at < sizeof known / sizeof *known; at++) {
        *to = known[at].name;
        if (known[at].error == error) return CUDA_SUCCESS;
    }
    *to = "CUDA_ERROR_UNKNOWN";
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **to) {
    (void)error;
    *to = "of the software GPU";
    return CUDA_SUCCESS;
}

// ---- Streams, events, and what is done in them.

typedef struct Node {
    const char *name;
    void (*work)(const void *);
    void *with;
    struct Node *next;
} Node;

// What was captured, in its order; whoever holds it keeps it.
struct CUgraph_st {
    CUcontext of;
    Node *first, **last;
    int held;
};

struct CUstream_st {
    bool there;
    CUcontext of;
    // While it is captured: by which thread, how strictly, and whether something went wrong.
    CUgraph graph;
    CUstreamCaptureMode mode;
    pthread_t by;
    bool invalid;
    struct CUstream_st *next;
};
static CUstream streams;

struct CUevent_st {
    bool there;
    CUcontext of;
    double at;
    bool recorded;
    CUgraph graph;
};

static bool is_default(CUstream stream) { return (uintptr_t)stream <= 2; }

static CUgraph captured(CUstream stream) { return is_default(stream) ? NULL : stream->graph; }

// Refuses, and ends the captures, where one is going on that is spoilt by a call of this kind.
static CUresult outside(CUstream stream, bool any, CUresult error, const char *why) {
    CUresult result = CUDA_SUCCESS;
    for (CUstream at = streams; at; at = at->next) {
        const bool other = at->mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
                           (at->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
                            !pthread_equal(at->by, pthread_self()));
        if (!at->graph || (at != stream && (!any || other))) continue;
        at->invalid = true;
        result = told(error, why);
    }
    return result;
}

#define UNSAFE(why) TRY(outside(NULL, true, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, why " in a capture"))

static CUresult usable(CUstream stream) {
    TRY(here());
    if (is_default(stream)) return CUDA_SUCCESS;
    if (!stream->there || stream->of != current) return CUDA_ERROR_INVALID_HANDLE;
    return stream->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

int submit(void *to, const char *name, void (*work)(const void *), const void *with, size_t size) {
    const CUstream stream = to;
    TRY(usable(stream));
    // The first default stream waits for all others.
    if ((uintptr_t)stream < 2) {
        for (CUstream at = streams; at; at = at->next) {
            if (at->graph && at->of == current) {
                at->invalid = true;
                return told(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream in a capture");
            }
        }
    }
    if (!captured(stream)) return current->broken = guarded(name, work, with);
    Node *node = calloc(1, sizeof *node);
    *node = (Node){name, work, memcpy(aligned_alloc(16, (size + 15) / 16 * 16), with, size), NULL};
    *stream->graph->last = node;
    stream->graph->last = &node->next;
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *to, unsigned flags) {
    (void)flags;
    TRY(here());
    *to = calloc(1, sizeof **to);
    pthread_mutex_lock(&lock);
    **to = (struct CUstream_st){.there = true, .of = current, .next = streams};
    streams = *to;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

// Is kept, so that who uses it later is found out.
CUresult cuStreamDestroy(CUstream stream) {
    if (is_default(stream) || !stream->there) return CUDA_ERROR_INVALID_HANDLE;
    stream->there = false;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    TRY(usable(stream));
    return outside(stream, false, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "to wait for a capture");
}

CUresult cuCtxSynchronize(void) {
    TRY(here());
    UNSAFE("to wait");
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *to, unsigned flags) {
    (void)flags;
    TRY(here());
    *to = calloc(1, sizeof **to);
    **to = (struct CUevent_st){.there = true, .of = current};
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    if (!event || !event->there) return CUDA_ERROR_INVALID_HANDLE;
    event->there = false;
    free(event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    TRY(usable(stream));
    if (!event || !event->there || event->of != current) return CUDA_ERROR_INVALID_HANDLE;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->at = 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
    event->recorded = true;
    event->graph = captured(stream);
    return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
    if (!event || !event->there) return CUDA_ERROR_INVALID_HANDLE;
    return event->graph ? CUDA_ERROR_CAPTURED_EVENT : here();
}

CUresult cuEventSynchronize(CUevent event) { return cuEventQuery(event); }

CUresult cuEventElapsedTime(float *to, CUevent from, CUevent until) {
    TRY(cuEventQuery(from));
    TRY(cuEventQuery(until));
    *to = until->at - from->at;
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    (void)flags;
    TRY(usable(stream));
    if (!event || !event->there) return CUDA_ERROR_INVALID_HANDLE;
    if (!event->recorded || event->graph == captured(stream)) return CUDA_SUCCESS;
    if (!captured(stream)) return told(CUDA_ERROR_NOT_SUPPORTED, "a capture of two streams");
    return outside(stream, false, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                   "a capture that waits for what is not in it");
}

// ---- Memory.

typedef struct {
    uint64_t start, size;
    CUcontext of;
    char *map;
    size_t mapped;
    // The graph that it was made in, which has it again at each launch.
    CUgraph graph;
    bool live;
} Memory;

static void *memories;

// Two that share a byte are the same.
static int order(const void *left, const void *right) {
    const Memory *a = left, *b = right;
    return a->start + a->size <= b->start ? -1 : b->start + b->size <= a->start;
}

// The memory that these bytes are in, or none.
static Memory *find(CUdeviceptr start, size_t size) {
    const Memory asked = {.start = start & ~DEVICE, .size = size ? size : 1};
    if (!(start & DEVICE)) return NULL;
    pthread_mutex_lock(&lock);
    // Another thread's may leave the tree, and take this place of it along.
    Memory **place = tfind(&asked, &memories, order), *found = place ? *place : NULL;
    pthread_mutex_unlock(&lock);
    if (!found || asked.start < found->start) return NULL;
    return asked.start + asked.size <= found->start + found->size ? found : NULL;
}

// Right up to a page that nobody may touch.
static CUresult new(CUdeviceptr *to, size_t size) {
    const size_t mapped = (size + PAGE - 1) / PAGE * PAGE;
    if (current->used + size > MEMORY) return CUDA_ERROR_OUT_OF_MEMORY;
    char *map = mmap(NULL, mapped + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Memory *memory = malloc(sizeof *memory);
    if (map == MAP_FAILED || !memory) return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect(map + mapped, PAGE, PROT_NONE);
    memset(map, 0xff, mapped);
    const uint64_t start = (uint64_t)map + mapped - (size + 15) / 16 * 16;
    *memory = (Memory){start, size, current, map, mapped, NULL, true};
    *to = memory->start | DEVICE;
    pthread_mutex_lock(&lock);
    current->used += size;
    tsearch(memory, &memories, order);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

static CUresult delete(CUdeviceptr start) {
    Memory *memory = find(start, 1);
    if (!memory || memory->start != (start & ~DEVICE)) return CUDA_ERROR_INVALID_VALUE;
    const unsigned char *byte = (unsigned char *)memory->map, *end = byte + memory->mapped;
    bool whole = true;
    for (; byte < end; byte++) {
        // What it was filled with is still before it and behind it.
        if ((uint64_t)byte == memory->start) byte += memory->size;
        whole &= byte == end || *byte == 0xff;
    }
    pthread_mutex_lock(&lock);
    tdelete(memory, &memories, order);
    memory->of->used -= memory->size;
    pthread_mutex_unlock(&lock);
    munmap(memory->map, memory->mapped + PAGE);
    free(memory);
    return whole ? CUDA_SUCCESS : told(CUDA_ERROR_ILLEGAL_ADDRESS, "what is beside a memory was written");
}

// Nobody may touch what is not live; and it comes to life with nothing in it.
static void live(const void *with) {
    Memory *memory = *(Memory *const *)with;
    mprotect(memory->map, memory->mapped, PROT_READ | PROT_WRITE);
    memset(memory->map, 0xff, memory->mapped);
    memory->live = true;
}

static void die(const void *with) {
    Memory *memory = *(Memory *const *)with;
    mprotect(memory->map, memory->mapped, PROT_NONE);
    memory->live = false;
}

CUresult cuMemAlloc(CUdeviceptr *to, size_t size) {
    TRY(here());
    UNSAFE("memory");
    return size ? new(to, size) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAllocAsync(CUdeviceptr *to, size_t size, CUstream stream) {
    TRY(usable(stream));
    *to = 0;
    if (!size) return CUDA_SUCCESS;
    TRY(new(to, size));
    Memory *memory = find(*to, size);
    if (!captured(stream)) return CUDA_SUCCESS;
    memory->graph = captured(stream);
    die(&memory);
    return submit(stream, "memory", live, &memory, sizeof memory);
}

CUresult cuMemFreeAsync(CUdeviceptr start, CUstream stream) {
    TRY(usable(stream));
    Memory *memory = find(start, 1);
    if (!start || (memory && memory->graph && memory->graph == captured(stream))) {
        return start ? submit(stream, "memory", die, &memory, sizeof memory) : CUDA_SUCCESS;
    }
    if (captured(stream)) {
        return outside(stream, false, CUDA_ERROR_INVALID_VALUE, "a capture frees what it did not make");
    }
    if (!memory || !memory->graph) return delete(start);
    die(&memory);
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr start) {
    TRY(here());
    UNSAFE("to free memory");
    return cuMemFreeAsync(start, (CUstream)2);
}

CUresult cuMemGetInfo(size_t *left, size_t *total) {
    TRY(here());
    *total = MEMORY;
    *left = MEMORY - current->used;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **to, size_t size, unsigned flags) {
    (void)flags;
    TRY(here());
    UNSAFE("memory of the host");
    *to = malloc(size);
    return *to ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *start) {
    free(start);
    return here();
}

typedef struct {
    void *to;
    const void *from;
    size_t size;
    int value;
} Copy;

static void copy(const void *with) {
    const Copy *copy = with;
    memcpy(copy->to, copy->from, copy->size);
}

static void set(const void *with) {
    const Copy *set = with;
    memset(set->to, set->value, set->size);
}

// Of these bytes on the GPU what the CPU finds them by.
static CUresult bytes(void **to, CUdeviceptr start, size_t size) {
    *to = (void *)(start & ~DEVICE);
    if (size == 0 || find(start, size)) return CUDA_SUCCESS;
    return told(CUDA_ERROR_INVALID_VALUE, "a copy beyond the memory");
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    Copy with = {.from = from, .size = size};
    TRY(bytes(&with.to, to, size));
    // A graph would read it at each launch, when it may be gone.
    TRY(outside(stream, false, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a copy to the GPU in a capture"));
    return submit(stream, "copy to the GPU", copy, &with, sizeof with);
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    Copy with = {.to = to, .size = size};
    TRY(outside(stream, false, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a copy from the GPU in a capture"));
    TRY(bytes((void **)&with.from, from, size));
    return submit(stream, "copy from the GPU", copy, &with, sizeof with);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    Copy with = {.size = size};
    TRY(bytes(&with.to, to, size));
    TRY(bytes((void **)&with.from, from, size));
    return submit(stream, "copy on the GPU", copy, &with, sizeof with);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
    Copy with = {.size = size, .value = value};
    TRY(bytes(&with.to, to, size));
    return submit(stream, "memset", set, &with, sizeof with);
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
    return cuMemcpyHtoDAsync(to, from, size, NULL);
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
    return cuMemcpyDtoHAsync(to, from, size, NULL);
}

CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) {
    return cuMemcpyDtoDAsync(to, from, size, NULL);
}

CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, size_t size) {
    return cuMemsetD8Async(to, value, size, NULL);
}

// ---- Modules, functions and launches.

struct CUmod_st {
    CUcontext of;
    char *text;
    uint64_t hash;
    struct CUfunc_st *functions;
};

struct CUfunc_st {
    CUmodule of;
    char *name;
    const Kernel *kernel;
    int most;
    struct CUfunc_st *next;
};

// FNV-1a.
static uint64_t hashed(uint64_t hash, const char *text) {
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
    return hash;
}

// Where this library lies, and the translator beside it.
static const char *folder(void) {
    static char path[PAGE];
    Dl_info about;
    if (!*path && dladdr((void *)folder, &about)) {
        snprintf(path, sizeof path, "%s", about.dli_fname);
        *strrchr(path, '/') = 0;
    }
    return path;
}

CUresult cuModuleLoadData(CUmodule *to, const void *image) {
    TRY(here());
    UNSAFE("a module");
    int version = 0, part = 0, capability = 0;
    char special = 0;
    const char *text = image, *says = strstr(text, "\n.version"), *target = strstr(text, "\n.target");
    if (!says || !target) return told(CUDA_ERROR_INVALID_PTX, "a module that is no PTX");
    sscanf(says, "\n.version %d.%d", &version, &part);
    sscanf(target, "\n.target sm_%d%c", &capability, &special);
    if (version * 10 + part > 90) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    if (capability > 90 || (special == 'a' && capability != 90)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *to = calloc(1, sizeof **to);
    **to = (struct CUmod_st){current, strdup(text), hashed(hashed(14695981039346656037ull, text), BUILD), NULL};
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
    free(module->text);
    module->text = NULL;
    return CUDA_SUCCESS;
}

// Translates a kernel and compiles it, unless that was done at another time.
static const Kernel *compiled(CUmodule module, const char *name) {
    char path[2 * PAGE], command[6 * PAGE];
    snprintf(path, sizeof path, "%s/cache/%016lx-%s.so", folder(), module->hash, name);
    if (access(path, R_OK)) {
        snprintf(command, sizeof command, "python3 '%s/ptx.py' '%s' '%s'", folder(), name, path);
        FILE *translator = popen(command, "w");
        if (!translator) return NULL;
        fputs(module->text, translator);
        if (pclose(translator)) return NULL;
    }
    void *made = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!made) fprintf(stderr, "software GPU: %s\n", dlerror());
    return made ? dlsym(made, "kernel") : NULL;
}

CUresult cuModuleGetFunction(CUfunction *to, CUmodule module, const char *name) {
    TRY(here());
    if (!module->text || module->of != current) return CUDA_ERROR_INVALID_HANDLE;
    char head[PAGE];
    snprintf(head, sizeof head, ".entry %s(", name);
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    CUfunction found = module->functions;
    while (found && strcmp(found->name, name)) found = found->next;
    if (!found && !strstr(module->text, head)) result = CUDA_ERROR_NOT_FOUND;
    if (!found && !result) {
        const Kernel *kernel = compiled(module, name);
        if (!kernel) result = told(CUDA_ERROR_INVALID_PTX, name);
        found = calloc(1, sizeof *found);
        *found = (struct CUfunc_st){module, strdup(name), kernel, SHARED, module->functions};
        if (kernel) module->functions = found;
    }
    pthread_mutex_unlock(&lock);
    *to = found;
    return result;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value > SHARED_MOST) {
        return told(CUDA_ERROR_INVALID_VALUE, "an attribute of a function that it does not know");
    }
    function->most = value;
    return here();
}

CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned bx,
                        unsigned by, unsigned bz, unsigned dynamic, CUstream stream, void **given,
                        void **extra) {
    TRY(usable(stream));
    const Kernel *kernel = function->kernel;
    if (function->of->of != current || !function->of->text) return CUDA_ERROR_INVALID_HANDLE;
    const bool fits = x && y && z && bx && by && bz && x <= INT32_MAX && y < 65536 && z < 65536;
    if (!fits || bx > 1024 || by > 1024 || bz > 64 || bx * by * bz > 1024 || extra) {
        return told(CUDA_ERROR_INVALID_VALUE, "a launch of a size that there is not");
    }
    if (kernel->shared + dynamic > (unsigned)function->most) return CUDA_ERROR_INVALID_VALUE;
    size_t size = sizeof(Launch);
    for (int at = 0; at < kernel->count; at++) size += (kernel->sizes[at] + 15) / 16 * 16;
    Launch *launch = aligned_alloc(16, size);
    *launch = (Launch){kernel, {x, y, z}, {bx, by, bz}, dynamic};
    char *next = (char *)(launch + 1);
    CUresult result = CUDA_SUCCESS;
    for (int at = 0; at < kernel->count; at++) {
        uint64_t value = 0;
        memcpy(next, given[at], kernel->sizes[at]);
        if (kernel->sizes[at] == sizeof value) memcpy(&value, next, sizeof value);
        const Memory *memory = find(value, 1);
        if (memory && memory->of != current) {
            result = told(CUDA_ERROR_ILLEGAL_ADDRESS, "a kernel on one GPU, memory on another");
        }
        next += (kernel->sizes[at] + 15) / 16 * 16;
    }
    if (!result) result = submit(stream, function->name, run_launch, launch, size);
    free(launch);
    return result;
}

// ---- Graphs: captured once, launched often.

struct CUgraphExec_st {
    CUgraph graph;
    bool frees;
};

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    TRY(usable(stream));
    if (is_default(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->graph) return CUDA_ERROR_ILLEGAL_STATE;
    CUgraph graph = calloc(1, sizeof *graph);
    *graph = (struct CUgraph_st){current, NULL, &graph->first, 1};
    stream->mode = mode, stream->by = pthread_self(), stream->graph = graph;
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *to) {
    TRY(here());
    *to = !captured(stream)   ? CU_STREAM_CAPTURE_STATUS_NONE
          : stream->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                            : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

// Of the memory that was made in a graph: whether any lives; and the end of all with the graph.
static __thread CUgraph asked;
static __thread int alive;
static __thread Memory *last;

static void each(const void *node, VISIT visit, int depth) {
    (void)depth;
    Memory *memory = *(Memory *const *)node;
    if ((visit != postorder && visit != leaf) || memory->graph != asked) return;
    alive += memory->live;
    last = memory;
}

static int living(CUgraph graph) {
    asked = graph, alive = 0, last = NULL;
    pthread_mutex_lock(&lock);
    twalk(memories, each);
    pthread_mutex_unlock(&lock);
    return alive;
}

static CUresult drop(CUgraph graph) {
    if (__atomic_sub_fetch(&graph->held, 1, __ATOMIC_SEQ_CST)) return CUDA_SUCCESS;
    while (living(graph), last) {
        live(&last);
        delete(last->start | DEVICE);
    }
    for (Node *node = graph->first, *next; node; node = next) {
        next = node->next;
        free(node->with);
        free(node);
    }
    free(graph);
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *to) {
    TRY(here());
    *to = NULL;
    if (!captured(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (stream->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(stream->by, pthread_self())) {
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    const bool invalid = stream->invalid;
    CUgraph graph = stream->graph;
    stream->graph = NULL, stream->invalid = false;
    if (invalid) return drop(graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *to = graph;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *to, CUgraph graph, unsigned long long flags) {
    TRY(here());
    *to = calloc(1, sizeof **to);
    **to = (struct CUgraphExec_st){graph, flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH};
    __atomic_add_fetch(&graph->held, 1, __ATOMIC_SEQ_CST);
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec graph, CUstream stream) {
    (void)graph;
    return usable(stream);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    TRY(usable(stream));
    if (captured(stream)) return told(CUDA_ERROR_NOT_SUPPORTED, "a graph in a graph");
    if (exec->graph->of != current) return CUDA_ERROR_INVALID_HANDLE;
    if (!exec->frees && living(exec->graph)) {
        return told(CUDA_ERROR_INVALID_VALUE, "a graph whose memory is still held is launched again");
    }
    for (const Node *node = exec->graph->first; node; node = node->next) {
        TRY(submit(stream, node->name, node->work, node->with, 0));
    }
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    drop(exec->graph);
    free(exec);
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) { return drop(graph); }
