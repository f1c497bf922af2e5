/* A PostgreSQL server that costs nothing: answers every statement at once with the row "1".
 *
 *     stub PORT
 *
 * Says "ready" when it listens on 127.0.0.1, and ends with its standard input. One thread, epoll.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 65536, BUFFER = 65536 };

struct peer {
    int started;
    size_t have;
    char in[BUFFER];
};

static struct peer *peers[MAX_FD];
static char out[4 * BUFFER];
static size_t said;

#define SAY(literal) (memcpy(out + said, literal, sizeof(literal) - 1), said += sizeof(literal) - 1)
#define READY "Z\0\0\0\5I"
#define ONE "D\0\0\0\13\0\1\0\0\0\1" "1"
#define DONE "C\0\0\0\15SELECT 1\0"
#define COLUMN "T\0\0\0\32\0\1a\0\0\0\0\0\0\0\0\0\0\27\0\4\377\377\377\377\0\0"
#define PARAMETER(length, pair) "S\0\0\0" length pair "\0"

static uint32_t number(const char *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

static void greet(void) {
    SAY("R\0\0\0\10\0\0\0\0");
    SAY(PARAMETER("\30", "server_version\0" "18.0"));
    SAY(PARAMETER("\31", "server_encoding\0" "UTF8"));
    SAY(PARAMETER("\31", "client_encoding\0" "UTF8"));
    SAY(PARAMETER("\27", "DateStyle\0" "ISO, MDY"));
    SAY(PARAMETER("\21", "TimeZone\0" "UTC"));
    SAY(PARAMETER("\31", "integer_datetimes\0" "on"));
    SAY(PARAMETER("\43", "standard_conforming_strings\0" "on"));
    SAY("K\0\0\0\14\0\0\0\1\0\0\0\1");
    SAY(READY);
}

/* 0 when the peer is to be closed. */
static int answer(char kind) {
    switch (kind) {
    case 'Q': SAY(COLUMN); SAY(ONE); SAY(DONE); SAY(READY); break;
    case 'P': SAY("1\0\0\0\4"); break;
    case 'B': SAY("2\0\0\0\4"); break;
    case 'C': SAY("3\0\0\0\4"); break;
    case 'D': SAY("n\0\0\0\4"); break;
    case 'E': SAY(ONE); SAY(DONE); break;
    case 'S': SAY(READY); break;
    case 'H': break;
    default: return 0;
    }
    return 1;
}

/* The whole messages of what has come in; 0 when the peer is to be closed. */
static int converse(struct peer *peer) {
    size_t at = 0;
    for (;;) {
        size_t left = peer->have - at;
        const char *message = peer->in + at;
        if (said > sizeof(out) - 1024) return 0;
        if (!peer->started) {
            if (left < 8 || left < number(message)) break;
            uint32_t code = number(message + 4);
            if (code == 80877103 || code == 80877104) SAY("N");
            else if (code == 80877102) return 0;
            else { peer->started = 1; greet(); }
            at += number(message);
        } else {
            if (left < 5 || left < 1 + (size_t)number(message + 1)) break;
            if (!answer(message[0])) return 0;
            at += 1 + number(message + 1);
        }
    }
    memmove(peer->in, peer->in + at, peer->have - at);
    peer->have -= at;
    return peer->have < BUFFER;
}

static int serve(int fd) {
    struct peer *peer = peers[fd];
    ssize_t got = recv(fd, peer->in + peer->have, BUFFER - peer->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (got <= 0) return 0;
    peer->have += (size_t)got;
    said = 0;
    if (!converse(peer)) return 0;
    return !said || send(fd, out, said, MSG_NOSIGNAL) == (ssize_t)said;
}

int main(int count, char **words) {
    if (count != 2) return 2;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, poll = epoll_create1(0);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[1]))};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 1024)) {
        perror("stub");
        return 1;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int found = epoll_wait(poll, events, 256, -1);
        for (int n = 0; n < found; n++) {
            int fd = events[n].data.fd;
            if (fd == 0) return 0;
            if (fd != listener) {
                if (!serve(fd)) {
                    free(peers[fd]);
                    close(fd);
                }
                continue;
            }
            int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (accepted < 0) continue;
            if (accepted >= MAX_FD || !(peers[accepted] = calloc(1, sizeof(struct peer)))) {
                close(accepted);
                continue;
            }
            setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.fd = accepted;
            epoll_ctl(poll, EPOLL_CTL_ADD, accepted, &event);
        }
    }
}
