/* What loadgen.c and floor.c share: the monotonic clock, command lines from stdin, sockets, bounded parsing.
 * Header-only, so that each program is one translation unit and needs nothing beyond libc. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_SOCKETS 19000
#define SUBPROTOCOL "imcluster.v1.json"

/* CLOCK_MONOTONIC is one clock for all processes of a machine and never steps, so a stamp taken in the sender can be
 * subtracted in the receiver. Python's time.monotonic_ns() reads the same clock. */
static inline uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static inline uint64_t cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* One JSON object a line; flushed at once because the harness waits for it. */
__attribute__((format(printf, 1, 2))) static inline void answer(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static inline void set_nonblocking(int fd) {
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) die("fcntl: %s", strerror(errno));
}

static inline void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) die("setrlimit: %s", strerror(errno));
}

/* A whole decimal number within [low, high], or death with the name of what was wrong. */
static inline long number(const char *name, const char *text, long low, long high) {
    char *end = NULL;
    errno = 0;
    long value = text == NULL ? 0 : strtol(text, &end, 10);
    if (text == NULL || end == text || *end != '\0' || errno != 0 || value < low || value > high)
        die("%s must be a number from %ld to %ld, not %s", name, low, high, text == NULL ? "missing" : text);
    return value;
}

struct lines {
    char buffer[4096];
    size_t used;
};

/* Reads what stdin holds and calls `handle` for each whole line; returns 0 once stdin is at its end. */
static inline int read_lines(struct lines *lines, void (*handle)(char *line)) {
    ssize_t got = read(STDIN_FILENO, lines->buffer + lines->used, sizeof lines->buffer - lines->used);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return 0;
    lines->used += (size_t)got;
    char *start = lines->buffer, *newline;
    while ((newline = memchr(start, '\n', lines->used - (size_t)(start - lines->buffer))) != NULL) {
        *newline = '\0';
        handle(start);
        start = newline + 1;
    }
    lines->used -= (size_t)(start - lines->buffer);
    memmove(lines->buffer, start, lines->used);
    if (lines->used == sizeof lines->buffer) die("a command line is longer than %zu bytes", sizeof lines->buffer);
    return 1;
}

#endif
