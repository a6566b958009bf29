/* What loadgen looks for in the payload of a data frame: the stamp of a message, the position of an envelope.
 * Both are found by searching, not by parsing, so that counting stays cheaper than what is measured. */
#ifndef BENCH_PAYLOAD_H
#define BENCH_PAYLOAD_H

#include <stddef.h>
#include <string.h>

#define POSITION_BYTES 48
#define SEARCHED_BYTES 1024

/* The stamp "@ts=" or "@tc=" of a message, or NULL: at the start of a plain frame, anywhere in an envelope's head. */
static inline const char *find_stamp(int envelope, const char *payload, size_t length) {
    if (!envelope) {
        int stamped = length > 5 && (memcmp(payload, "@ts=", 4) == 0 || memcmp(payload, "@tc=", 4) == 0);
        return stamped ? payload : NULL;
    }
    size_t searched = length < SEARCHED_BYTES ? length : SEARCHED_BYTES;
    const char *stamp = memmem(payload, searched, "@ts=", 4);
    return stamp != NULL ? stamp : memmem(payload, searched, "@tc=", 4);
}

/* Keeps the position that an envelope carries; one without a position leaves the last one. */
static inline void keep_position(char *kept, const char *payload, size_t length) {
    static const char key[] = "\"pos\":\"";
    const char *at = memmem(payload, length < SEARCHED_BYTES ? length : SEARCHED_BYTES, key, sizeof key - 1);
    if (at == NULL) return;
    at += sizeof key - 1;
    const char *quote = memchr(at, '"', (size_t)(payload + length - at));
    if (quote == NULL || quote - at >= POSITION_BYTES) return;
    memcpy(kept, at, (size_t)(quote - at));
    kept[quote - at] = '\0';
}

#endif
