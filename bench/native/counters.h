/* What loadgen counts, and how it prints it: one JSON line of everything since the start or the last reset.
 * Handshake and close counters are never reset, so that a socket lost between two resets is not forgotten. */
#ifndef BENCH_COUNTERS_H
#define BENCH_COUNTERS_H

#include "common.h"
#include "histogram.h"

#define CLOSE_CODES 5000
#define STATUS_CODES 600

struct counters {
    uint64_t http[STATUS_CODES], closes[CLOSE_CODES];
    uint64_t eofs, timeouts, connect_errors, protocol_errors, retries, unsent_pongs;
    uint64_t frames, messages, bytes, pings;
    struct histogram latency, channel_latency;
};

static inline void reset_traffic(struct counters *count) {
    count->frames = count->messages = count->bytes = count->pings = 0;
    memset(&count->latency, 0, sizeof count->latency);
    memset(&count->channel_latency, 0, sizeof count->channel_latency);
}

static inline void print_map(const char *name, const uint64_t *counts, unsigned size) {
    const char *comma = "";
    printf("\"%s\":{", name);
    for (unsigned i = 0; i < size; i++)
        if (counts[i] > 0) {
            printf("%s\"%u\":%llu", comma, i, (unsigned long long)counts[i]);
            comma = ",";
        }
    printf("},");
}

static inline void print_number(const char *name, uint64_t value) {
    printf("\"%s\":%llu,", name, (unsigned long long)value);
}

static inline void print_latency(const char *name, const struct histogram *latency) {
    printf("\"%s\":{\"count\":%llu,\"p50\":%llu,\"p99\":%llu,\"p999\":%llu,\"max\":%llu}", name,
           (unsigned long long)latency->total, (unsigned long long)percentile(latency, 500),
           (unsigned long long)percentile(latency, 990), (unsigned long long)percentile(latency, 999),
           (unsigned long long)latency->highest);
}

/* `fewest` and `most`: messages on the open socket that got the fewest and the most of them. */
static inline void print_counters(const struct counters *count, uint32_t sockets, uint32_t fewest, uint32_t most) {
    printf("{\"event\":\"stats\",");
    print_map("http", count->http, STATUS_CODES);
    print_map("closes", count->closes, CLOSE_CODES);
    print_number("sockets", sockets);
    print_number("frames", count->frames);
    print_number("messages", count->messages);
    print_number("bytes", count->bytes);
    print_number("min_per_socket", fewest);
    print_number("max_per_socket", most);
    print_number("pings", count->pings);
    print_number("unsent_pongs", count->unsent_pongs);
    print_number("eofs", count->eofs);
    print_number("timeouts", count->timeouts);
    print_number("connect_errors", count->connect_errors);
    print_number("protocol_errors", count->protocol_errors);
    print_number("retries", count->retries);
    print_latency("channel_latency_us", &count->channel_latency);
    printf(",");
    print_latency("latency_us", &count->latency);
    answer("}");
}

#endif
