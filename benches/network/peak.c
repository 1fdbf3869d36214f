// How many multiply-adds a second one core does at most: as many sums as hide an addition's latency,
// in registers, and nothing else. cc -O3 -march=native. Prints billions of operations (two each).

#include <stdio.h>
#include <time.h>

enum { SUMS = 12 };
typedef float Vector __attribute__((vector_size(LANES * 4)));

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + 1e-9 * at.tv_nsec;
}

int main(void) {
    Vector sums[SUMS], factor, term;
    for (int i = 0; i < LANES; i++) factor[i] = 0.999f, term[i] = 1e-3f * (i + 1);
    for (int s = 0; s < SUMS; s++) sums[s] = term + (float)s;
    double best = 0.0;
    for (int round = 0; round < 7; round++) {
        const long turns = 10000000;
        const double begun = now();
        for (long turn = 0; turn < turns; turn++) {
#pragma GCC unroll 12
            for (int s = 0; s < SUMS; s++) sums[s] = sums[s] * factor + term;
            // Not to be reckoned in advance.
            __asm__ volatile("" : "+v"(factor));
        }
        const double rate = 2.0 * LANES * SUMS * turns / (now() - begun);
        if (rate > best) best = rate;
    }
    float all = 0.0f;
    for (int s = 0; s < SUMS; s++) all += sums[s][s % LANES];
    printf("%.2f\n", 1e-9 * best);
    return all == 12345.0f;
}
