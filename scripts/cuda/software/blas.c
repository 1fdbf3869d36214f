// libcublas.so.13: products of matrices, column by column as cuBLAS's documentation has them, with
// sums in f32; and libcurand.so.10, whose numbers are as random as a network's first weights need.

#define SOFTWARE_GPU
#include <stdlib.h>

#include "gpu.h"

enum { OK = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14, BY_F32 = 68 };

typedef struct {
    bool there, device;
    void *stream;
} *Handle;

int cublasCreate_v2(Handle *to) {
    *to = calloc(1, sizeof **to);
    (*to)->there = true;
    return OK;
}

int cublasDestroy_v2(Handle handle) {
    if (!handle || !handle->there) return NOT_INITIALIZED;
    free(handle);
    return OK;
}

int cublasSetStream_v2(Handle handle, void *stream) {
    handle->stream = stream;
    return OK;
}

int cublasSetWorkspace_v2(Handle handle, void *space, size_t size) {
    (void)handle, (void)space, (void)size;
    return OK;
}

int cublasSetMathMode(Handle handle, int mode) {
    (void)handle;
    return mode == 0 ? OK : NOT_SUPPORTED;
}

int cublasGetPointerMode_v2(Handle handle, int *mode) {
    *mode = handle->device;
    return OK;
}

int cublasSetPointerMode_v2(Handle handle, int mode) {
    handle->device = mode;
    return OK;
}

typedef struct {
    int transposed[2], m, n, k, count, type, ld[3];
    long long stride[3];
    uint64_t at[3];
    float alpha, beta;
} Product;

static float value(const Product *p, uint64_t at, long long index) {
    if (!(at & DEVICE)) fail(NULL, 700, "an address that is not of the GPU's memory");
    const void *all = (const void *)(at & ~DEVICE);
    if (p->type == F32) return ((const float *)all)[index];
    const uint16_t half = ((const uint16_t *)all)[index];
    uint32_t bits = (uint32_t)half << 16;
    _Float16 small;
    float wide;
    memcpy(&small, &half, sizeof half);
    memcpy(&wide, &bits, sizeof bits);
    return p->type == F16 ? (float)small : wide;
}

static void keep(const Product *p, uint64_t at, long long index, float value) {
    void *all = (void *)(at & ~DEVICE);
    uint32_t bits;
    const _Float16 small = value;
    memcpy(&bits, &value, sizeof bits);
    if (p->type == F32) ((float *)all)[index] = value;
    else if (p->type == F16) ((_Float16 *)all)[index] = small;
    else ((uint16_t *)all)[index] = value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

__attribute__((target_clones("default", "arch=haswell"))) static void
add(float *restrict to, const float *restrict from, float times, int count) {
    for (int at = 0; at < count; at++) to[at] += from[at] * times;
}

// A and a column of C are in f32, A with its columns as the product has them.
static void multiply(const void *with) {
    const Product *p = with;
    float *a = malloc(sizeof *a * ((size_t)p->m * p->k + p->m)), *column = a + (size_t)p->m * p->k;
    if (!a) fail(NULL, 2, "no memory");
    for (int one = 0; one < p->count; one++) {
        const long long from[3] = {one * p->stride[0], one * p->stride[1], one * p->stride[2]};
        for (int l = 0; l < p->k; l++) {
            for (int i = 0; i < p->m; i++) {
                const long long at = p->transposed[0] ? (long long)i * p->ld[0] + l : (long long)l * p->ld[0] + i;
                a[(size_t)l * p->m + i] = value(p, p->at[0], from[0] + at);
            }
        }
        for (int j = 0; j < p->n; j++) {
            memset(column, 0, sizeof *column * p->m);
            for (int l = 0; l < p->k; l++) {
                const long long at = p->transposed[1] ? (long long)l * p->ld[1] + j : (long long)j * p->ld[1] + l;
                add(column, a + (size_t)l * p->m, value(p, p->at[1], from[1] + at), p->m);
            }
            for (int i = 0; i < p->m; i++) {
                const long long at = from[2] + (long long)j * p->ld[2] + i;
                // What is there is not looked at where it does not count: it may be no number.
                const float old = p->beta == 0 ? 0 : p->beta * value(p, p->at[2], at);
                keep(p, p->at[2], at, p->alpha * column[i] + old);
            }
        }
    }
    free(a);
}

int cublasGemmStridedBatchedEx(Handle handle, int ta, int tb, int m, int n, int k,
                               const void *alpha, const void *a, int type_a, int lda,
                               long long stride_a, const void *b, int type_b, int ldb,
                               long long stride_b, const void *beta, void *c, int type_c, int ldc,
                               long long stride_c, int count, int compute, int algorithm) {
    (void)algorithm;
    if (!handle || !handle->there) return NOT_INITIALIZED;
    const int rows_a = ta ? k : m, rows_b = tb ? n : k;
    if (m < 0 || n < 0 || k < 0 || count < 0 || ta < 0 || ta > 1 || tb < 0 || tb > 1) return INVALID_VALUE;
    if (lda < (rows_a > 1 ? rows_a : 1) || ldb < (rows_b > 1 ? rows_b : 1)) return INVALID_VALUE;
    if (ldc < (m > 1 ? m : 1)) return INVALID_VALUE;
    const bool known = type_a == F32 || type_a == F16 || type_a == BF16;
    if (!known || type_b != type_a || type_c != type_a || compute != BY_F32 || handle->device) return NOT_SUPPORTED;
    if (m == 0 || n == 0 || count == 0) return OK;
    const Product product = {
        {ta, tb}, m, n, k, count, type_a, {lda, ldb, ldc}, {stride_a, stride_b, stride_c},
        {(uint64_t)a, (uint64_t)b, (uint64_t)c}, *(const float *)alpha, *(const float *)beta,
    };
    return submit(handle->stream, "a product of matrices", multiply, &product, sizeof product) ? FAILED : OK;
}

int cublasGemmEx(Handle handle, int ta, int tb, int m, int n, int k, const void *alpha,
                 const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                 const void *beta, void *c, int type_c, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, 0, b, type_b,
                                      ldb, 0, beta, c, type_c, ldc, 0, 1, compute, algorithm);
}

int cublasSgemm_v2(Handle handle, int ta, int tb, int m, int n, int k, const float *alpha,
                   const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                   int ldc) {
    return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, F32, lda, b, F32, ldb, beta, c, F32, ldc,
                        BY_F32, 0);
}

typedef struct {
    uint64_t state;
    void *stream;
} *Generator;

// What a generator is asked for.
typedef struct {
    Generator from;
    uint64_t to;
    size_t count;
    float mean, deviation;
} Draw;

// SplitMix64, of which the upper bits are above 0 and up to 1.
static double draw(Generator from) {
    uint64_t z = from->state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (((z ^ (z >> 31)) >> 11) + 1) * 0x1p-53;
}

static void normal(const void *with) {
    const Draw *all = with;
    float *to = (float *)(all->to & ~DEVICE);
    for (size_t at = 0; at < all->count; at++) {
        const double far = sqrt(-2 * log(draw(all->from)));
        to[at] = all->mean + all->deviation * far * cos(6.283185307179586 * draw(all->from));
    }
}

int curandCreateGenerator(Generator *to, int kind) {
    (void)kind;
    *to = calloc(1, sizeof **to);
    return OK;
}

int curandSetPseudoRandomGeneratorSeed(Generator generator, unsigned long long seed) {
    generator->state = seed;
    return OK;
}

int curandSetStream(Generator generator, void *stream) {
    generator->stream = stream;
    return OK;
}

// In pairs only, as cuRAND.
int curandGenerateNormal(Generator generator, float *to, size_t count, float mean, float deviation) {
    const Draw all = {generator, (uint64_t)to, count, mean, deviation};
    if (count % 2) return 105;
    return submit(generator->stream, "random numbers", normal, &all, sizeof all) ? 201 : OK;
}

int curandDestroyGenerator(Generator generator) {
    free(generator);
    return OK;
}
