/* A pointer chase over 256 MiB in 4 KiB pages, as multichase does it: one random cycle through all lines, laid out
 * beforehand. Prints seconds per load. gcc -O2 */
#include <stdint.h>
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
    double span = atof(argv[1]);
    size_t lines = (256u << 20) / 64;
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    char *base = mmap(0, 256u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    uint32_t *order = malloc(lines * sizeof *order);
    for (size_t i = 0; i < lines; i++) order[i] = i;
    uint64_t state = 88172645463325252u;
    for (size_t i = lines - 1; 0 < i; i--) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        size_t j = state % i;
        uint32_t swap = order[i];
        order[i] = order[j], order[j] = swap;
    }
    for (size_t i = 0; i < lines; i++) *(void **)(base + 64ul * order[i]) = base + 64ul * order[(i + 1) % lines];
    free(order);
    double start = now(), loads = 0;
    void **at = (void **)base;
    while (now() - start < span) {
        for (int i = 0; i < 1000; i++) at = *at;
        __asm__ volatile("" : : "r"(at) : "memory");
        loads += 1000;
    }
    printf("%.12f\n", (now() - start) / loads);
}
