/* A cheap load: so many connections, each asks the next query when it has the answer to the last one.
 *
 *     load PORT CONNECTIONS SECONDS DATABASE TENANT TENANTS QUERY [USER]
 *
 * Logs in as USER ("app") by trust. TENANTS 0: all are of TENANT; else connection n is of TENANT with the
 * number n % TENANTS in five digits behind it. Says "started" when all are connected, then the transactions
 * done, the seconds they took, and the CPU seconds of its own. SECONDS 0: until its standard input ends; each
 * line there asks for the transactions done so far. One thread, epoll.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char READY[] = "Z\0\0\0\5I";
static char buffer[65536];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds_of(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void stop(const char *what, size_t length) {
    fprintf(stderr, "load: ");
    for (size_t n = 0; n < length; n++) fputc(what[n] < ' ' ? ' ' : what[n], stderr);
    fputc('\n', stderr);
    exit(1);
}

/* 1 when the answer is whole: what came ends with ReadyForQuery. */
static int answered(int fd) {
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) stop("a connection was lost", 21);
    if (buffer[0] == 'E') stop(buffer + 5, (size_t)got - 5);
    return got >= 6 && !memcmp(buffer + got - 6, READY, 6);
}

static char *put(char *at, const char *text) {
    size_t length = strlen(text) + 1;
    memcpy(at, text, length);
    return at + length;
}

static int connected(int port, const char *user, const char *database, const char *tenant) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&where, sizeof where)) stop("cannot connect", 14);
    char options[300], startup[1024], *at = startup + 8;
    snprintf(options, sizeof options, "-c app.tenant_id=%s", tenant);
    at = put(put(at, "user"), user);
    at = put(put(at, "database"), database);
    at = put(put(at, "options"), options);
    *at++ = 0;
    uint32_t length = htonl((uint32_t)(at - startup)), version = htonl(196608);
    memcpy(startup, &length, 4);
    memcpy(startup + 4, &version, 4);
    send(fd, startup, (size_t)(at - startup), MSG_NOSIGNAL);
    while (!answered(fd)) {}
    return fd;
}

int main(int count, char **words) {
    if (count != 8 && count != 9) return 2;
    const char *user = count == 9 ? words[8] : "app";
    int port = atoi(words[1]), connections = atoi(words[2]), tenants = atoi(words[6]);
    double seconds = atof(words[3]);
    size_t length = strlen(words[7]) + 1;
    char *query = malloc(length + 5), tenant[256];
    uint32_t framed = htonl((uint32_t)length + 4);
    query[0] = 'Q';
    memcpy(query + 1, &framed, 4);
    memcpy(query + 5, words[7], length);
    length += 5;

    int poll = epoll_create1(0), *fds = calloc((size_t)connections, sizeof(int));
    for (int n = 0; n < connections; n++) {
        if (tenants) snprintf(tenant, sizeof tenant, "%.200s%05d", words[5], n % tenants);
        else snprintf(tenant, sizeof tenant, "%.200s", words[5]);
        fds[n] = connected(port, user, words[4], tenant);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fds[n]};
        epoll_ctl(poll, EPOLL_CTL_ADD, fds[n], &event);
    }
    puts("started");
    fflush(stdout);
    double began = now(), until = seconds ? began + seconds : INFINITY;
    if (!seconds) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
        epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    }
    for (int n = 0; n < connections; n++)
        if (send(fds[n], query, length, MSG_NOSIGNAL) < 0) stop("a connection was lost", 21);
    long done = 0;
    struct epoll_event events[256];
    while (now() < until) {
        int found = epoll_wait(poll, events, 256, 1000);
        for (int n = 0; n < found; n++) {
            int fd = events[n].data.fd;
            if (fd == STDIN_FILENO) {
                ssize_t asked = read(fd, buffer, sizeof buffer);
                if (asked <= 0) until = 0;
                while (asked-- > 0)
                    if (buffer[asked] == '\n') printf("%ld\n", done);
                fflush(stdout);
                continue;
            }
            if (!answered(fd)) continue;
            done++;
            if (send(fd, query, length, MSG_NOSIGNAL) < 0) stop("a connection was lost", 21);
        }
    }
    double took = now() - began;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%ld %.6f %.6f\n", done, took, seconds_of(used.ru_utime) + seconds_of(used.ru_stime));
    return 0;
}
