// Runs the kernels on the CPU for the tests: reads calls, answers each with its result.
//
// A call: the length of the kernel's name and the name, the threads, six numbers, three inputs each
// as a length and its values, the length of the result. All are of 32 bits in the machine's order.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.cu"

typedef void Kernel(int, int, int, int, int, int, int, const float *, const float *, const float *,
                    float *);

static const struct {
    const char *name;
    Kernel *kernel;
} kernels[] = {
    {"patches", patches},   {"patches_back", patches_back},   {"rim", rim},
    {"biased", biased},     {"biased_back", biased_back},     {"upsample", upsample},
    {"warp", warp},         {"upsample_back", upsample_back}, {"warp_flow", warp_flow},
    {"nearest", nearest},   {"warp_image", warp_image},
};

// Ends with what is told: there is nobody who could go on.
static void take(void *to, size_t size) {
    if (fread(to, 1, size, stdin) != size) exit(0);
}

static int whole(void) {
    int value;
    take(&value, sizeof value);
    return value;
}

static float *values(int count) {
    // Exactly as many as there are, so that a sanitizer sees who reads or writes past the end.
    float *all = calloc(count ? count : 1, sizeof *all);
    if (!all) exit(1);
    return all;
}

int main(void) {
    for (;;) {
        char name[32] = {0};
        const int length = whole();
        if (length >= (int)sizeof name) return 1;
        take(name, length);
        int number[7];
        for (int i = 0; i < 7; i++) number[i] = whole();
        float *input[3];
        for (int i = 0; i < 3; i++) {
            const int count = whole();
            input[i] = values(count);
            take(input[i], count * sizeof(float));
        }
        const int count = whole();
        float *out = values(count);
        Kernel *kernel = NULL;
        for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
            if (!strcmp(kernels[i].name, name)) kernel = kernels[i].kernel;
        }
        if (!kernel) return 1;
        for (int at = 0; at < number[0]; at++) {
            kernel(at, number[1], number[2], number[3], number[4], number[5], number[6], input[0],
                   input[1], input[2], out);
        }
        fwrite(out, sizeof *out, count, stdout);
        fflush(stdout);
        for (int i = 0; i < 3; i++) free(input[i]);
        free(out);
    }
}
