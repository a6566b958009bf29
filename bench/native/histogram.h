/* A latency histogram in microseconds with a relative error below 1/64, in fixed memory (HdrHistogram's layout).
 * Values up to 2^40 us are kept apart; beyond that they count as the last bucket. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

#define SUB_BITS 6
#define SUB_BUCKETS (1u << SUB_BITS)
#define BUCKETS ((40u - SUB_BITS + 1u) * SUB_BUCKETS)

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total, highest;
};

static inline unsigned bucket_of(uint64_t value) {
    if (value < SUB_BUCKETS) return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    unsigned index = (exponent + 1u) * SUB_BUCKETS + (unsigned)((value >> exponent) - SUB_BUCKETS);
    return index < BUCKETS ? index : BUCKETS - 1u;
}

/* The highest value that falls into the bucket, so that a percentile is never reported too low. */
static inline uint64_t bucket_top(unsigned index) {
    if (index < SUB_BUCKETS) return index;
    unsigned exponent = index / SUB_BUCKETS - 1u;
    return (((uint64_t)(index % SUB_BUCKETS) + SUB_BUCKETS + 1u) << exponent) - 1u;
}

static inline void record(struct histogram *histogram, uint64_t value) {
    histogram->counts[bucket_of(value)]++;
    histogram->total++;
    if (value > histogram->highest) histogram->highest = value;
}

/* `per_mille` of the recorded values are at most this; 0 if nothing was recorded. */
static inline uint64_t percentile(const struct histogram *histogram, unsigned per_mille) {
    uint64_t wanted = (histogram->total * per_mille + 999u) / 1000u, seen = 0;
    for (unsigned index = 0; index < BUCKETS; index++) {
        seen += histogram->counts[index];
        if (seen >= wanted && seen > 0) {
            uint64_t top = bucket_top(index);
            return top < histogram->highest ? top : histogram->highest;
        }
    }
    return 0;
}

#endif
