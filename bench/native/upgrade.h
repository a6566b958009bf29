/* How loadgen asks for a WebSocket (RFC 6455, 4.1), how it reads and writes a frame's header (5.2): bytes, no sockets. */
#ifndef BENCH_UPGRADE_H
#define BENCH_UPGRADE_H

#include <arpa/inet.h>

#include "common.h"

/* Any client key will do; a constant one (the example of RFC 6455) has a constant answer. */
#define CLIENT_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define SERVER_ACCEPT "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define REQUEST_BYTES 2048
#define MAX_SENT 1024

/* Takes "ws://A.B.C.D:PORT/PATH" apart, in place; returns "/PATH". */
static inline const char *parse_url(char *url, struct sockaddr_in *address) {
    char *host = url + 5, *slash = strncmp(url, "ws://", 5) == 0 ? strchr(host, '/') : NULL;
    char *colon = slash == NULL ? NULL : memchr(host, ':', (size_t)(slash - host));
    if (colon == NULL) die("a URL must be ws://A.B.C.D:PORT/PATH");
    *colon = *slash = '\0';
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)number("port", colon + 1, 1, 65535));
    if (inet_pton(AF_INET, host, &address->sin_addr) != 1) die("the host of a URL must be an IPv4 address");
    *slash = '/';
    return slash;
}

/* The request for `path`, in `request`; returns its length. No extension is offered: nobody compresses. */
static inline size_t build_request(char *request, const char *path, const struct sockaddr_in *address, int envelope) {
    int length = snprintf(request, REQUEST_BYTES,
                          "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " CLIENT_KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          path, inet_ntoa(address->sin_addr), ntohs(address->sin_port),
                          envelope ? "Sec-WebSocket-Protocol: " SUBPROTOCOL "\r\n" : "");
    if (length >= REQUEST_BYTES) die("a URL is too long");
    return (size_t)length;
}

/* The bytes of a frame's header and, in `length`, those of its payload; 0 while the header is not whole. */
static inline size_t read_header(const uint8_t *head, size_t available, uint64_t *length) {
    uint8_t short_length = head[1] & 0x7Fu;
    size_t header = short_length < 126 ? 2 : short_length == 126 ? 4 : 10;
    if (available < header) return 0;
    *length = header == 2 ? short_length : 0;
    for (size_t i = 2; i < header; i++) *length = *length << 8 | head[i];
    return header;
}

/* A whole frame of a client in `frame`, which takes MAX_SENT + 8 bytes; returns its length. Clients must mask (RFC
 * 6455, 5.3); the mask of zeroes is legal and leaves the payload as it is. */
static inline size_t build_client_frame(uint8_t *frame, uint8_t opcode, const char *payload, size_t length) {
    size_t header = length < 126 ? 2 : 4;
    if (length > MAX_SENT) die("a greeting is longer than %d bytes", MAX_SENT);
    frame[0] = (uint8_t)(0x80u | opcode);
    frame[1] = (uint8_t)(0x80u | (header == 2 ? length : 126));
    if (header == 4) {
        frame[2] = (uint8_t)(length >> 8);
        frame[3] = (uint8_t)length;
    }
    memset(frame + header, 0, 4);
    memcpy(frame + header + 4, payload, length);
    return header + 4 + length;
}

#endif
