/* A load generator light enough not to be what is measured: up to 19,000 WebSockets in one epoll loop.
 * Opens minted URLs, answers pings, counts frames and measures latency; commands on stdin, JSON lines on stdout.
 *
 *   loadgen [FIRST_SOURCE [SOURCES]]       sockets leave from 127.0.0.FIRST_SOURCE onwards, in turn
 *   connect FILE RATE CONCURRENCY MODE     opens each URL of FILE; RATE a second (0: unbounded); MODE: plain, envelope,
 *                                          centrifugo or socketio, whose URLs are followed by what the client says first
 *   expect MESSAGES TIMEOUT_MS             answers once that many messages came since `reset`, or not
 *   positions FILE                         writes each envelope socket's last position there, a line a URL in their order
 *   reset | stats | close | abort | quit   close says 1000 and waits for the peer, abort resets the connections
 *
 * A message is a data frame (of Centrifugo: a line of one) with a stamp "@ts=<microseconds of CLOCK_MONOTONIC>@": at the start of the frame in plain
 * mode, so that a receipt that quotes it is not counted, anywhere in it in the others. Those to a channel may say
 * "@tc=" instead: they are messages all the same, and their latency is kept apart.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "counters.h"
#include "protocol.h"
#include "upgrade.h"

#define BUFFER_BYTES (1u << 20)
#define STDIN_MARK UINT32_MAX
#define HANDSHAKE_TIMEOUT_US 20000000u
#define CLOSE_TIMEOUT_US 10000000u
#define MAX_ATTEMPTS 20
#define MAX_RETRY_AFTER_S 5

/* GREETING: there is a WebSocket, and the protocol on it has not said yes. */
enum state { WAITING, CONNECTING, HANDSHAKE, GREETING, OPEN, CLOSING, GONE };

struct conn {
    char *path, *greeting, *rest; /* rest: bytes of a frame or response that is not whole yet */
    uint64_t started_us, retry_at_us;
    struct sockaddr_in address;
    int fd;
    uint32_t rest_bytes, messages;
    uint8_t state, attempts, mode;
    char position[POSITION_BYTES];
};

static struct conn conns[MAX_SOCKETS];
static uint32_t total, next_unopened, open_count, in_flight;
static uint32_t retry_ring[MAX_SOCKETS], retry_head, retry_count;
static int epoll_fd, connecting, closing, expecting;
static unsigned first_source = 1, sources = 8;
static uint32_t batch_first, concurrency;
static uint64_t rate, batch_started_us, batch_starts, closing_since_us, last_sweep_us;
static uint64_t expect_messages, expect_since_us, expect_timeout_us;
static struct counters count;
static struct lines commands;
static char buffer[BUFFER_BYTES];

static void print_stats(void) {
    uint32_t fewest = UINT32_MAX, most = 0;
    for (uint32_t i = 0; i < total; i++)
        if (conns[i].state == OPEN) {
            if (conns[i].messages < fewest) fewest = conns[i].messages;
            if (conns[i].messages > most) most = conns[i].messages;
        }
    print_counters(&count, open_count, fewest == UINT32_MAX ? 0 : fewest, most);
}

static int is_opening(const struct conn *conn) {
    return conn->state == CONNECTING || conn->state == HANDSHAKE || conn->state == GREETING;
}

static void leave(struct conn *conn, enum state state) {
    if (conn->state == OPEN || conn->state == CLOSING) open_count--;
    if (is_opening(conn)) in_flight--;
    if (conn->fd >= 0) close(conn->fd);
    free(conn->rest);
    conn->rest = NULL;
    conn->rest_bytes = 0;
    conn->fd = -1;
    conn->state = (uint8_t)state;
}

static void retry_later(struct conn *conn, uint64_t seconds) {
    leave(conn, GONE);
    if (conn->attempts >= MAX_ATTEMPTS) return;
    conn->state = WAITING;
    conn->retry_at_us = now_us() + seconds * 1000000u;
    retry_ring[(retry_head + retry_count++) % MAX_SOCKETS] = (uint32_t)(conn - conns);
    count.retries++;
}

static void begin(struct conn *conn) {
    uint32_t index = (uint32_t)(conn - conns);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7F000000u + first_source + index % sources);
    int one = 1;
    batch_starts++;
    in_flight++;
    conn->state = CONNECTING;
    conn->attempts++;
    conn->started_us = now_us();
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Without it the kernel takes a port at bind, unique over all destinations, and runs out far sooner. */
    setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
    if (bind(conn->fd, (struct sockaddr *)&source, sizeof source) < 0 ||
        (connect(conn->fd, (struct sockaddr *)&conn->address, sizeof conn->address) < 0 && errno != EINPROGRESS)) {
        count.connect_errors++;
        leave(conn, GONE);
    } else if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) < 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

/* Opens what rate and concurrency allow now; the retries come first when they are due. */
static void begin_more(void) {
    uint64_t now = now_us();
    while (in_flight < concurrency) {
        if (rate > 0 && batch_starts * 1000000u >= (now - batch_started_us) * rate) return;
        if (retry_count > 0 && conns[retry_ring[retry_head]].retry_at_us <= now) {
            uint32_t index = retry_ring[retry_head];
            retry_head = (retry_head + 1) % MAX_SOCKETS;
            retry_count--;
            begin(&conns[index]);
        } else if (next_unopened < total) {
            begin(&conns[next_unopened++]);
        } else {
            return;
        }
    }
}

static int send_frame(struct conn *conn, uint8_t opcode, const char *payload, size_t length) {
    uint8_t frame[MAX_SENT + 8];
    size_t bytes = build_client_frame(frame, opcode, payload, length);
    return send(conn->fd, frame, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static void is_open(struct conn *conn) {
    in_flight--;
    open_count++;
    conn->state = OPEN;
}

static void message(struct conn *conn, const char *stamp, const char *end) {
    struct histogram *latency = stamp[2] == 'c' ? &count.channel_latency : &count.latency;
    uint64_t sent_us = 0, now = now_us();
    for (stamp += 4; stamp < end && *stamp >= '0' && *stamp <= '9'; stamp++)
        sent_us = sent_us * 10 + (uint64_t)(*stamp - '0');
    count.messages++;
    conn->messages++;
    record(latency, now > sent_us ? now - sent_us : 0);
}

/* Returns whether the connection is still there. */
static int data_frame(struct conn *conn, const char *payload, size_t length) {
    const char *stamp = NULL;
    count.frames++;
    count.bytes += length;
    if (conn->mode == ENVELOPE) keep_position(conn->position, payload, length);
    for (const char *at = payload, *end = payload + length; at < end;) {
        size_t part = first_of(conn->mode, at, (size_t)(end - at));
        int sent = 1, refused = 0;
        switch (meaning_of(conn->mode, at, part, &stamp)) {
        case MESSAGE: message(conn, stamp, at + part); break;
        case PING:
            count.pings++;
            count.unsent_pongs += !send_frame(conn, 1, pong_of(conn->mode), strlen(pong_of(conn->mode)));
            break;
        case READY: sent = send_frame(conn, 1, conn->greeting, strlen(conn->greeting)); break;
        case WELCOME:
            if (conn->state == GREETING) is_open(conn);
            break;
        case REFUSAL: refused = 1; break;
        case OTHER: break;
        }
        if (refused || !sent) {
            count.protocol_errors++;
            leave(conn, GONE);
            return 0;
        }
        at += part + 1; /* the newline between two, or just beyond the end */
    }
    return 1;
}

/* Takes the whole frames from [at, end) and returns where the first one that is not whole begins; NULL: conn left. */
static const char *take_frames(struct conn *conn, const char *at, const char *end) {
    while (end - at >= 2) {
        const uint8_t *head = (const uint8_t *)at;
        uint64_t length = 0;
        size_t header = read_header(head, (size_t)(end - at), &length);
        if (header == 0) break;
        if ((head[0] & 0x70u) || (head[1] & 0x80u) || length > BUFFER_BYTES - 10) {
            count.protocol_errors++;
            leave(conn, GONE);
            return NULL;
        }
        if ((uint64_t)(end - at) < header + length) break;
        const char *payload = at + header;
        uint8_t opcode = head[0] & 0x0Fu;
        if (opcode <= 2) {
            if (!data_frame(conn, payload, (size_t)length)) return NULL;
        } else if (opcode == 9) {
            count.pings++;
            count.unsent_pongs += !send_frame(conn, 0xA, payload, (size_t)length & 0x7Fu);
        } else if (opcode == 8) {
            unsigned code = length >= 2 ? (unsigned)(uint8_t)payload[0] << 8 | (uint8_t)payload[1] : 1005;
            count.closes[code < CLOSE_CODES ? code : CLOSE_CODES - 1]++;
            if (conn->state == OPEN) send_frame(conn, 8, payload, length >= 2 ? 2 : 0);
            leave(conn, GONE);
            return NULL;
        }
        at = payload + length;
    }
    return at;
}

/* Returns where the frames begin, `at` while the response is not whole, NULL when there is no WebSocket. */
static const char *take_response(struct conn *conn, const char *at, const char *end) {
    char *blank = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
    if (blank == NULL) return at;
    *blank = '\0'; /* `at` is our own buffer, so the header can be searched as a string */
    unsigned status = strncmp(at, "HTTP/1.1 ", 9) == 0 ? (unsigned)atoi(at + 9) : 0;
    count.http[status < STATUS_CODES ? status : 0]++;
    if (status == 101 && strcasestr(at, SERVER_ACCEPT) != NULL &&
        (conn->mode != ENVELOPE || strcasestr(at, "sec-websocket-protocol: " SUBPROTOCOL) != NULL)) {
        conn->state = GREETING;
        if (!greets(conn->mode)) is_open(conn);
        if (conn->mode != CENTRIFUGO || send_frame(conn, 1, conn->greeting, strlen(conn->greeting))) return blank + 4;
    }
    if (status == 503) {
        const char *after = strcasestr(at, "\r\nretry-after:");
        int seconds = after == NULL ? 1 : atoi(after + 14);
        retry_later(conn, (uint64_t)(seconds < 0 ? 0 : seconds > MAX_RETRY_AFTER_S ? MAX_RETRY_AFTER_S : seconds));
        return NULL;
    }
    count.protocol_errors += status == 101;
    leave(conn, GONE);
    return NULL;
}

static void readable(struct conn *conn) {
    if (conn->rest_bytes > 0) memcpy(buffer, conn->rest, conn->rest_bytes);
    ssize_t got = recv(conn->fd, buffer + conn->rest_bytes, BUFFER_BYTES - conn->rest_bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        count.eofs++;
        leave(conn, GONE);
        return;
    }
    const char *end = buffer + conn->rest_bytes + got, *at = buffer;
    if (conn->state == HANDSHAKE) at = take_response(conn, at, end);
    if (at != NULL && conn->state != HANDSHAKE) at = take_frames(conn, at, end);
    if (at == NULL) return;
    conn->rest_bytes = (uint32_t)(end - at);
    if (conn->rest_bytes == 0) {
        free(conn->rest);
        conn->rest = NULL;
        return;
    }
    char *rest = realloc(conn->rest, conn->rest_bytes);
    if (rest == NULL) die("out of memory");
    memcpy(rest, at, conn->rest_bytes);
    conn->rest = rest;
}

static void writable(struct conn *conn) {
    char request[REQUEST_BYTES];
    size_t length = build_request(request, conn->path, &conn->address, conn->mode == ENVELOPE);
    if (send(conn->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) {
        count.connect_errors++;
        leave(conn, GONE);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(conn - conns)};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    conn->state = HANDSHAKE;
}

static void add_url(char *url, enum mode mode) {
    char *greeting = strchr(url, ' ');
    if (greeting != NULL) *greeting++ = '\0';
    else if (greets(mode)) die("a URL must be followed by what the client says");
    if (total == MAX_SOCKETS) die("more than %d sockets; start another loadgen", MAX_SOCKETS);
    struct conn *conn = &conns[total];
    *conn = (struct conn){.fd = -1, .mode = (uint8_t)mode};
    conn->path = strdup(parse_url(url, &conn->address));
    conn->greeting = greeting == NULL ? NULL : strdup(greeting);
    if (conn->path == NULL || (greeting != NULL && conn->greeting == NULL)) die("out of memory");
    total++;
}

static void connect_file(const char *file, const char *name) {
    char line[2048];
    int mode = 0;
    while (mode < MODES && (name == NULL || strcmp(name, mode_names[mode]) != 0)) mode++;
    if (mode == MODES) die("there is no such MODE");
    if (connecting) die("a connect is under way");
    if (open_count == 0) {
        for (uint32_t i = 0; i < total; i++) {
            free(conns[i].path);
            free(conns[i].greeting);
        }
        total = next_unopened = 0;
    }
    FILE *urls = fopen(file, "r");
    if (urls == NULL) die("%s: %s", file, strerror(errno));
    batch_first = total;
    while (fgets(line, sizeof line, urls) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0') add_url(line, (enum mode)mode);
    }
    fclose(urls);
    connecting = 1;
    batch_starts = 0;
    batch_started_us = now_us();
}

static void write_positions(const char *file) {
    FILE *positions = file == NULL ? NULL : fopen(file, "w");
    if (positions == NULL) die("%s: %s", file == NULL ? "FILE" : file, strerror(errno));
    for (uint32_t i = 0; i < total; i++) fprintf(positions, "%s\n", conns[i].position);
    if (fclose(positions) != 0) die("%s: %s", file, strerror(errno));
    answer("{\"event\":\"positions\",\"sockets\":%u}", total);
}

static void reset(void) {
    reset_traffic(&count);
    for (uint32_t i = 0; i < total; i++) conns[i].messages = 0;
}

static void close_all(int politely) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    closing = 1;
    closing_since_us = now_us();
    for (uint32_t i = 0; i < total; i++) {
        if (conns[i].state != OPEN) continue;
        if (politely) {
            conns[i].state = CLOSING;
            send_frame(&conns[i], 8, "\x03\xe8", 2);
        } else {
            setsockopt(conns[i].fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
            leave(&conns[i], GONE);
        }
    }
}

static void command(char *line) {
    char *word = strtok(line, " ");
    if (word == NULL) return;
    if (strcmp(word, "quit") == 0) exit(0);
    if (strcmp(word, "stats") == 0) print_stats();
    else if (strcmp(word, "reset") == 0) reset();
    else if (strcmp(word, "positions") == 0) write_positions(strtok(NULL, " "));
    else if (strcmp(word, "close") == 0 || strcmp(word, "abort") == 0) close_all(word[0] == 'c');
    else if (strcmp(word, "expect") == 0) {
        expect_messages = (uint64_t)number("MESSAGES", strtok(NULL, " "), 0, 1000000000);
        expect_timeout_us = 1000u * (uint64_t)number("TIMEOUT_MS", strtok(NULL, " "), 1, 3600000);
        expect_since_us = now_us();
        expecting = 1;
    } else if (strcmp(word, "connect") == 0) {
        char *file = strtok(NULL, " ");
        rate = (uint64_t)number("RATE", strtok(NULL, " "), 0, 1000000);
        concurrency = (uint32_t)number("CONCURRENCY", strtok(NULL, " "), 1, MAX_SOCKETS);
        connect_file(file, strtok(NULL, " "));
    } else die("unknown command %s", word);
}

/* Handshakes and goodbyes that the peer leaves hanging must not hang the run. */
static void sweep(uint64_t now) {
    last_sweep_us = now;
    for (uint32_t i = 0; i < total; i++) {
        struct conn *conn = &conns[i];
        if (is_opening(conn) && now - conn->started_us > HANDSHAKE_TIMEOUT_US) {
            count.timeouts++;
            leave(conn, GONE);
        } else if (conn->state == CLOSING && now - closing_since_us > CLOSE_TIMEOUT_US) {
            count.timeouts++;
            leave(conn, GONE);
        }
    }
}

static void answer_what_is_due(void) {
    uint64_t now = now_us();
    if (now - last_sweep_us > 1000000u) sweep(now);
    if (connecting && in_flight == 0 && retry_count == 0 && next_unopened == total) {
        uint32_t opened = 0;
        for (uint32_t i = batch_first; i < total; i++) opened += conns[i].state == OPEN;
        double seconds = (double)(now - batch_started_us) / 1e6;
        connecting = 0;
        answer("{\"event\":\"connected\",\"opened\":%u,\"failed\":%u,\"seconds\":%.6f,\"handshakes_per_second\":%.1f}",
               opened, total - batch_first - opened, seconds, seconds > 0 ? opened / seconds : 0.0);
    }
    if (expecting && (count.messages >= expect_messages || now - expect_since_us >= expect_timeout_us)) {
        expecting = 0;
        answer("{\"event\":\"expect\",\"reached\":%s,\"messages\":%llu,\"elapsed_us\":%llu}",
               count.messages >= expect_messages ? "true" : "false", (unsigned long long)count.messages,
               (unsigned long long)(now - expect_since_us));
    }
    if (closing && open_count == 0) {
        closing = 0;
        answer("{\"event\":\"closed\",\"elapsed_us\":%llu}", (unsigned long long)(now - closing_since_us));
    }
}

int main(int argc, char **argv) {
    if (argc > 1) first_source = (unsigned)number("FIRST_SOURCE", argv[1], 1, 254);
    if (argc > 2) sources = (unsigned)number("SOURCES", argv[2], 1, 255 - (long)first_source);
    raise_descriptor_limit();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN_MARK};
    set_nonblocking(STDIN_FILENO);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) die("stdin must be a pipe");
    answer("{\"event\":\"ready\"}");
    for (;;) {
        struct epoll_event events[512];
        int ready = epoll_wait(epoll_fd, events, 512, connecting ? 1 : expecting || closing ? 10 : 1000);
        if (ready < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u32 == STDIN_MARK) {
                if (!read_lines(&commands, command)) return 0;
                continue;
            }
            struct conn *conn = &conns[events[i].data.u32];
            if (conn->state == CONNECTING) writable(conn);
            else if (conn->fd >= 0) readable(conn);
        }
        if (connecting) begin_more();
        answer_what_is_due();
    }
}
