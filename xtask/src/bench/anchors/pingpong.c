/* 64 bytes there and back over TCP, as netperf's TCP_RR does it, both ends on the processor this is started on. Prints the
 * median seconds of one. gcc -O2 -pthread */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *echo(void *socket) {
    char message[64];
    int at = *(int *)socket, one = 1;
    int peer = accept(at, 0, 0);
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (read(peer, message, 64) == 64)
        if (write(peer, message, 64) != 64) break;
    return 0;
}

static int compare(const void *a, const void *b) { return *(double *)a < *(double *)b ? -1 : 1; }

int main(int argc, char **argv) {
    (void)argc;
    double span = atof(argv[1]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), stream = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    bind(listener, (void *)&address, length), listen(listener, 1);
    getsockname(listener, (void *)&address, &length);
    pthread_t thread;
    pthread_create(&thread, 0, echo, &listener);
    connect(stream, (void *)&address, length);
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char message[64] = {0};
    static double took[1 << 18];
    size_t n = 0;
    double start = now();
    while (n < 1 << 18) {
        double before = now();
        if (span < before - start) break;
        if (write(stream, message, 64) != 64 || read(stream, message, 64) != 64) return 1;
        took[n++] = now() - before;
    }
    qsort(took, n, sizeof *took, compare);
    printf("%.12f\n", took[n / 2]);
}
