/* The protocols that loadgen speaks, and what a text of each means: ours plain and in envelopes, Centrifugo's JSON,
 * socket.io 4 over Engine.IO 4. Pure, and by looking at a text's first bytes, so that counting stays cheap. */
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H

#include <stddef.h>
#include <string.h>

#include "payload.h"

enum mode { PLAIN, ENVELOPE, CENTRIFUGO, SOCKETIO, MODES };
static const char *const mode_names[MODES] = {"plain", "envelope", "centrifugo", "socketio"};

/* READY: the server waits for the client's greeting; WELCOME: it took it; PING: it wants a pong of the protocol. */
enum meaning { OTHER, MESSAGE, READY, WELCOME, REFUSAL, PING };

static inline int begins(const char *text, size_t length, const char *with) {
    size_t expected = strlen(with);
    return length >= expected && memcmp(text, with, expected) == 0;
}

/* A client of the mode says who it is, and the socket is open once that was taken; else the 101 is all there is. */
static inline int greets(enum mode mode) { return mode == CENTRIFUGO || mode == SOCKETIO; }

static inline const char *pong_of(enum mode mode) { return mode == CENTRIFUGO ? "{}" : "3"; }

/* A WebSocket frame of Centrifugo holds one reply or push a line (centrifugal.dev, "Client protocol"), so that it may
 * hold many messages; the others have one a frame. Returns how much of `text` the first one takes. */
static inline size_t first_of(enum mode mode, const char *text, size_t length) {
    const char *newline = mode == CENTRIFUGO ? memchr(text, '\n', length) : NULL;
    return newline == NULL ? length : (size_t)(newline - text);
}

static inline enum meaning meaning_of(enum mode mode, const char *text, size_t length, const char **stamp) {
    if (mode == CENTRIFUGO && !begins(text, length, "{\"push\":")) {
        if (length == 2 && begins(text, length, "{}")) return PING;
        if (begins(text, length, "{\"id\":1,\"connect\":")) return WELCOME;
        return begins(text, length, "{\"id\":1,") ? REFUSAL : OTHER;
    }
    if (mode == SOCKETIO && !begins(text, length, "42")) {
        if (begins(text, length, "2")) return PING;
        if (begins(text, length, "0")) return READY;
        if (begins(text, length, "40")) return WELCOME;
        return begins(text, length, "44") ? REFUSAL : OTHER;
    }
    *stamp = find_stamp(mode != PLAIN, text, length);
    return *stamp == NULL ? OTHER : MESSAGE;
}

#endif
