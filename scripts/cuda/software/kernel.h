// What a kernel, translated to C by ptx.py, is written in; and what it is to those that run it.

#include <fenv.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// What a pointer of the GPU has, so that the host, which must not, cannot read through it: it is no
// address of the CPU at all.
#define DEVICE (1ull << 60)

typedef struct {
    uint32_t x, y, z;
} Dim;

// Threads that share memory and barriers.
typedef struct {
    Dim ntid, nctaid, ctaid;
    // The bytes of `shared`, and how many of them the launch asked for.
    uint32_t size, dynamic;
    char *shared;
} Block;

typedef struct {
    const Block *block;
    uint32_t x, y, z, number;
} Thread;

typedef struct {
    // Whether threads wait for one another, and so need stacks of their own.
    int together;
    uint32_t shared;
    int count;
    uint32_t sizes[64];
    void (*run)(const Thread *, char *const *);
} Kernel;

// Ends the launch with an error of the driver. These are in run.c.
_Noreturn void fail(const Thread *t, int code, const char *why);
void barrier(const Thread *t);
// What the threads of a warp that are members gave, as soon as all have.
const uint32_t *exchange(const Thread *t, uint32_t members, uint32_t value);

#ifndef SOFTWARE_GPU
static inline char *aligned(const Thread *t, uint64_t at, uint64_t size) {
    if (at % size) fail(t, 716, "a misaligned address");
    return (char *)at;
}

static inline void *in_global(const Thread *t, uint64_t at, uint64_t size) {
    if (!(at & DEVICE)) fail(t, 700, "an address that is not of the GPU's memory");
    return aligned(t, at & ~DEVICE, size);
}

static inline void *in_shared(const Thread *t, uint64_t at, uint64_t size) {
    if (at + size > t->block->size) fail(t, 700, "an address outside shared memory");
    return aligned(t, (uint64_t)t->block->shared + at, size);
}

static inline void *in_generic(const Thread *t, uint64_t at, uint64_t size) {
    return aligned(t, at & ~DEVICE, size);
}

#define in_local(t, at, size) ((void *)aligned(t, at, size))
#define in_const(t, at, size) ((void *)aligned(t, at, size))
#define in_param(t, at, size) ((void *)(at))

#define BITS(name, type, bits)                                                                     \
    static inline type to_##name(bits from) {                                                      \
        type to;                                                                                   \
        memcpy(&to, &from, sizeof to);                                                             \
        return to;                                                                                 \
    }                                                                                              \
    static inline bits from_##name(type from) {                                                    \
        bits to;                                                                                   \
        memcpy(&to, &from, sizeof to);                                                             \
        return to;                                                                                 \
    }
BITS(f16, _Float16, uint16_t)
BITS(f32, float, uint32_t)
BITS(f64, double, uint64_t)

static inline float to_bf16(uint16_t from) { return to_f32((uint32_t)from << 16); }

// To the nearest, of two as near to the even one.
static inline uint16_t from_bf16(float from) {
    const uint32_t bits = from_f32(from);
    return from != from ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

#define unordered(a, b) ((a) != (a) || (b) != (b))
static inline float ftz(float a) { return fabsf(a) < 0x1p-126f ? copysignf(0, a) : a; }
static inline double saturated(double a) { return a > 0 ? a < 1 ? a : 1 : 0; }

// Where one is not a number it is the other, or so is the result; and -0 is less than 0.
static inline double fmin_(double a, double b, bool nan) {
    if (unordered(a, b)) return nan ? NAN : a != a ? b : a;
    return a < b || (a == b && signbit(a)) ? a : b;
}
static inline double fmax_(double a, double b, bool nan) {
    if (unordered(a, b)) return nan ? NAN : a != a ? b : a;
    return a > b || (a == b && signbit(b)) ? a : b;
}

// `volatile` keeps the compiler from rounding in its own way.
#define ROUNDED(size, type, fma)                                                                   \
    static __attribute__((noinline, unused)) type rounded_##size(int way, char op, type x, type y, \
                                                                 type z) {                         \
        volatile type a = x, b = y, c = z, made;                                                   \
        fesetround(way);                                                                           \
        made = op == 'a' ? a + b : op == 's' ? a - b : op == 'm' ? a * b : op == 'd' ? a / b       \
                                                                         : fma(a, b, c);           \
        fesetround(FE_TONEAREST);                                                                  \
        return made;                                                                               \
    }
ROUNDED(4, float, fmaf)
ROUNDED(8, double, fma)
static __attribute__((noinline, unused)) float rounded_from(int way, __int128 from) {
    volatile int64_t whole = from;
    volatile float made;
    fesetround(way);
    made = whole;
    fesetround(FE_TONEAREST);
    return made;
}

// A GPU divides by zero without a trap: all bits are set.
#define DIVIDE(name, type, least)                                                                  \
    static inline type div_##name(type a, type b) {                                                \
        return b == 0 ? (type)-1 : least && b == (type)-1 ? (type)(0 - (uint64_t)a) : a / b;       \
    }                                                                                              \
    static inline type rem_##name(type a, type b) {                                                \
        return b == 0 ? a : least && b == (type)-1 ? 0 : a % b;                                    \
    }
DIVIDE(s16, int16_t, 1)
DIVIDE(s32, int32_t, 1)
DIVIDE(s64, int64_t, 1)
DIVIDE(u16, uint16_t, 0)
DIVIDE(u32, uint32_t, 0)
DIVIDE(u64, uint64_t, 0)

// A whole number of a float that has no fraction: the nearest there is, 0 of what is no number.
#define NEAREST(name, type, least, most)                                                           \
    static inline type whole_##name(double a) {                                                    \
        return a != a ? 0 : a <= (double)least ? least : a >= (double)most ? most : (type)a;       \
    }
NEAREST(s8, int8_t, INT8_MIN, INT8_MAX)
NEAREST(s16, int16_t, INT16_MIN, INT16_MAX)
NEAREST(s32, int32_t, INT32_MIN, INT32_MAX)
NEAREST(s64, int64_t, INT64_MIN, INT64_MAX)
NEAREST(u8, uint8_t, 0, UINT8_MAX)
NEAREST(u16, uint16_t, 0, UINT16_MAX)
NEAREST(u32, uint32_t, 0, UINT32_MAX)
NEAREST(u64, uint64_t, 0, UINT64_MAX)

#define clz32(a) ((a) ? __builtin_clz(a) : 32)
#define clz64(a) ((a) ? __builtin_clzll(a) : 64)
#define popc32 __builtin_popcount
#define popc64 __builtin_popcountll
static inline uint64_t brev64(uint64_t a) {
    uint64_t back = 0;
    for (int bit = 0; bit < 64; bit++) back |= (a >> bit & 1) << (63 - bit);
    return back;
}
#define brev32(a) (uint32_t)(brev64(a) >> 32)

static inline uint32_t shf(uint32_t low, uint32_t high, uint32_t by, bool left, bool wrap) {
    const uint64_t both = (uint64_t)high << 32 | low;
    by = wrap ? by & 31 : by > 32 ? 32 : by;
    return left ? by == 32 ? low : both << by >> 32 : both >> by;
}

static inline uint64_t bfi(uint64_t a, uint64_t into, uint32_t at, uint32_t count, uint32_t size) {
    at &= 255, count &= 255;
    const uint64_t ones = count >= 64 ? ~0ull : (1ull << count) - 1;
    return at >= size ? into : (into & ~(ones << at)) | (a & ones) << at;
}

static inline uint64_t bfe(uint64_t a, uint32_t at, uint32_t count, uint32_t size, bool sign) {
    at &= 255, count &= 255;
    uint64_t made = 0;
    const uint32_t last = at + count - 1 < size ? at + count - 1 : size - 1;
    const uint64_t above = sign && count ? a >> last & 1 : 0;
    for (uint32_t bit = 0; bit < size; bit++) {
        made |= (bit < count && at + bit < size ? a >> (at + bit) & 1 : above) << bit;
    }
    return made;
}

static inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t which) {
    const uint64_t both = (uint64_t)b << 32 | a;
    uint32_t made = 0;
    for (int byte = 0; byte < 4; byte++) {
        const uint32_t way = which >> 4 * byte, taken = both >> 8 * (way & 7) & 255;
        made |= (way & 8 ? taken & 128 ? 255 : 0 : taken) << 8 * byte;
    }
    return made;
}

static inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t made = 0;
    for (int row = 0; row < 8; row++) {
        if (table >> row & 1) made |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    }
    return made;
}

// Whose value a thread takes.
static inline uint32_t shfl(char way, uint32_t own, uint32_t b, uint32_t c, bool *inside) {
    const uint32_t segment = c >> 8 & 31, last = (own & segment) | (c & 31 & ~segment);
    b &= 31;
    int32_t from = way == 'u' ? (int32_t)(own - b) : way == 'd' ? own + b : way == 'b' ? own ^ b
                                                   : (own & segment) | (b & ~segment);
    *inside = way == 'u' ? from >= (int32_t)last : from <= (int32_t)last;
    return *inside ? (uint32_t)from : own;
}

static inline void only_from(const Thread *t, uint32_t members, uint32_t lane) {
    if (!(members >> lane & 1)) fail(t, 719, "a value of a thread that does not take part");
}

static inline uint32_t voted(const uint32_t *all, uint32_t members) {
    uint32_t ballot = 0;
    for (int lane = 0; lane < 32; lane++) ballot |= (members >> lane & 1 && all[lane]) << lane;
    return ballot;
}

static inline void failed_assertion(const Thread *t, char *what, char *file, char *line, char *in,
                                    char *size) {
    (void)file, (void)line, (void)in, (void)size;
    uint64_t text;
    memcpy(&text, what, sizeof text);
    fail(t, 710, (const char *)(text & ~DEVICE));
}
#endif
