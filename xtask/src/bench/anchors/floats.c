/* x = 0.5 x + 0.5 for 16 doubles side by side: prints operations per second. gcc -O3 -ffp-contract=off */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv) {
    (void)argc;
    double span = atof(argv[1]), done = 0;
    typedef double lanes __attribute__((vector_size(16)));
    volatile double half = 0.5;
    double start = now();
    while (now() - start < span) {
        double h = half;
        lanes x0 = {1, 1}, x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0, x6 = x0, x7 = x0, a = {h, h};
        for (int i = 0; i < 100000; i++) {
            x0 = x0 * a + a, x1 = x1 * a + a, x2 = x2 * a + a, x3 = x3 * a + a;
            x4 = x4 * a + a, x5 = x5 * a + a, x6 = x6 * a + a, x7 = x7 * a + a;
        }
        volatile lanes keep = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7;
        (void)keep;
        done += 2.0 * 16 * 100000;
    }
    printf("%f\n", done / (now() - start));
}
