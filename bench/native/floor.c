/* The floor that imserver is compared with: holds the same WebSockets and calls send(2) once a socket and message.
 * Nothing that a push server does is left but the kernel's own work; commands on stdin, JSON lines on stdout.
 *
 *   floor            listens on 127.0.0.1 and prints {"event":"listening","port":P}
 *   send BYTES K     K messages of BYTES to every socket, message after message
 *   one BYTES K      K messages of BYTES, each to one socket drawn at random
 *   stats | quit
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common.h"
#include "sha1.h"

#define REQUEST_BYTES 4096
#define MAX_PAYLOAD (1 << 19)
#define STALL_MS 10000
#define STDIN_MARK UINT32_MAX
#define LISTEN_MARK (UINT32_MAX - 1)

struct conn {
    int fd;
    char *request; /* what came of the request so far; NULL once it is answered */
    size_t used;
};

static struct conn conns[MAX_SOCKETS];
static uint32_t free_slots[MAX_SOCKETS], free_count, slots_used;
static uint32_t open_count;
static uint64_t handshakes, refused, stalls, resets;
static int epoll_fd, listen_fd;
static struct lines commands;

static void drop(uint32_t slot) {
    struct conn *conn = &conns[slot];
    if (conn->request == NULL) open_count--;
    free(conn->request);
    close(conn->fd);
    *conn = (struct conn){.fd = -1};
    free_slots[free_count++] = slot;
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
            die("accept: %s", strerror(errno));
        }
        if (free_count == 0 && slots_used == MAX_SOCKETS) {
            close(fd);
            refused++;
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        uint32_t slot = free_count > 0 ? free_slots[--free_count] : slots_used++;
        conns[slot] = (struct conn){.fd = fd, .request = malloc(REQUEST_BYTES)};
        if (conns[slot].request == NULL) die("out of memory");
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = slot};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    }
}

static int answer_handshake(struct conn *conn) {
    static const char header[] = "\r\nsec-websocket-key:";
    char *key = strcasestr(conn->request, header);
    if (key == NULL) return 0;
    key += sizeof header - 1;
    key += strspn(key, " \t");
    size_t length = strcspn(key, " \t\r\n");
    char accept_source[128], accept[29], response[512];
    uint8_t digest[20];
    if (length != 24) return 0;
    int total = snprintf(accept_source, sizeof accept_source, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)length, key);
    sha1((const uint8_t *)accept_source, (size_t)total, digest);
    base64_digest(digest, accept);
    const char *protocol = strstr(conn->request, SUBPROTOCOL) ? "Sec-WebSocket-Protocol: " SUBPROTOCOL "\r\n" : "";
    total = snprintf(response, sizeof response,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n%s\r\n", accept, protocol);
    return send(conn->fd, response, (size_t)total, MSG_NOSIGNAL) == total;
}

static void readable(uint32_t slot) {
    struct conn *conn = &conns[slot];
    if (conn->request == NULL) {
        /* Pongs and closes of clients are of no interest here, only that the socket is still there. */
        char sink[4096];
        ssize_t got = recv(conn->fd, sink, sizeof sink, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) drop(slot);
        return;
    }
    ssize_t got = recv(conn->fd, conn->request + conn->used, REQUEST_BYTES - 1 - conn->used, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    int broken = got <= 0;
    if (!broken) {
        conn->used += (size_t)got;
        conn->request[conn->used] = '\0';
        if (strstr(conn->request, "\r\n\r\n") != NULL) {
            broken = !answer_handshake(conn);
            if (!broken) {
                free(conn->request);
                conn->request = NULL;
                open_count++;
                handshakes++;
            }
        } else {
            broken = conn->used == REQUEST_BYTES - 1;
        }
    }
    if (broken) {
        refused++;
        drop(slot);
    }
}

/* The text starts with the stamp that loadgen looks for and is filled up to exactly `bytes`. */
static size_t build_frame(uint8_t *frame, size_t bytes) {
    size_t header = bytes < 126 ? 2 : bytes < 65536 ? 4 : 10;
    frame[0] = 0x81;
    frame[1] = (uint8_t)(header == 2 ? bytes : header == 4 ? 126 : 127);
    for (size_t i = 2; i < header; i++) frame[i] = (uint8_t)((uint64_t)bytes >> (8 * (header - 1 - i)));
    int stamp = snprintf((char *)frame + header, 64, "@ts=%llu@", (unsigned long long)now_us());
    memset(frame + header + stamp, 'x', bytes - (size_t)stamp);
    return header + bytes;
}

static int send_frame(uint32_t slot, const uint8_t *frame, size_t length) {
    size_t sent = 0;
    while (sent < length) {
        ssize_t wrote = send(conns[slot].fd, frame + sent, length - sent, MSG_NOSIGNAL);
        if (wrote >= 0) {
            sent += (size_t)wrote;
        } else if (errno == EAGAIN) {
            struct pollfd waiting = {.fd = conns[slot].fd, .events = POLLOUT};
            stalls++;
            if (poll(&waiting, 1, STALL_MS) == 0) die("a socket took nothing for %d ms", STALL_MS);
        } else if (errno != EINTR) {
            resets++;
            return 0;
        }
    }
    return 1;
}

static void send_messages(size_t bytes, long messages, int to_all) {
    static uint8_t frame[MAX_PAYLOAD + 128];
    uint32_t live[MAX_SOCKETS], count = 0;
    uint64_t sends = 0, before = cpu_us(), start = now_us();
    unsigned seed = 1;
    stalls = resets = 0;
    for (uint32_t slot = 0; slot < slots_used; slot++)
        if (conns[slot].fd >= 0 && conns[slot].request == NULL) live[count++] = slot;
    for (long message = 0; message < messages && count > 0; message++) {
        size_t length = build_frame(frame, bytes);
        if (to_all)
            for (uint32_t i = 0; i < count; i++) sends += (uint64_t)send_frame(live[i], frame, length);
        else
            sends += (uint64_t)send_frame(live[(unsigned)rand_r(&seed) % count], frame, length);
    }
    answer("{\"event\":\"sent\",\"sockets\":%u,\"messages\":%ld,\"sends\":%llu,\"stalls\":%llu,\"resets\":%llu,"
           "\"cpu_us\":%llu,\"wall_us\":%llu}", count, messages, (unsigned long long)sends, (unsigned long long)stalls,
           (unsigned long long)resets, (unsigned long long)(cpu_us() - before),
           (unsigned long long)(now_us() - start));
}

static void command(char *line) {
    char *word = strtok(line, " ");
    if (word == NULL) return;
    if (strcmp(word, "quit") == 0) exit(0);
    if (strcmp(word, "stats") == 0) {
        answer("{\"event\":\"stats\",\"sockets\":%u,\"handshakes\":%llu,\"refused\":%llu,\"cpu_us\":%llu}", open_count,
               (unsigned long long)handshakes, (unsigned long long)refused, (unsigned long long)cpu_us());
    } else if (strcmp(word, "send") == 0 || strcmp(word, "one") == 0) {
        size_t bytes = (size_t)number("BYTES", strtok(NULL, " "), 32, MAX_PAYLOAD);
        send_messages(bytes, number("K", strtok(NULL, " "), 1, 10000000), word[0] == 's');
    } else {
        die("unknown command %s", word);
    }
}

int main(void) {
    raise_descriptor_limit();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&address, size) < 0 || listen(listen_fd, 4096) < 0 ||
        getsockname(listen_fd, (struct sockaddr *)&address, &size) < 0)
        die("listen: %s", strerror(errno));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTEN_MARK};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    event.data.u32 = STDIN_MARK;
    set_nonblocking(STDIN_FILENO);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) die("stdin must be a pipe");
    answer("{\"event\":\"listening\",\"port\":%d}", ntohs(address.sin_port));
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll_fd, events, 256, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 == LISTEN_MARK) accept_all();
            else if (events[i].data.u32 != STDIN_MARK) readable(events[i].data.u32);
            else if (!read_lines(&commands, command)) return 0;
        }
    }
}
