/* STREAM's triad over 256 MiB in 4 KiB pages: prints bytes per second. gcc -O3 -mno-avx */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv) {
    (void)argc;
    double span = atof(argv[1]), bytes = 0;
    size_t n = (256u << 20) / 3 / sizeof(double) - 136;
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    double *a = mmap(0, 256u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    double *b = a + n + 136, *c = b + n + 136;
    double start = now();
    while (now() - start < span) {
        for (size_t i = 0; i < n; i++) a[i] = b[i] + 3.0 * c[i];
        __asm__ volatile("" : : "r"(a) : "memory");
        bytes += 24.0 * n;
    }
    printf("%f\n", bytes / (now() - start));
}
