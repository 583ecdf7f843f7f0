/* See socket.h. */
#include "engine/comm/socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"

/* Connections that may wait to be taken: all ranks come at once. */
enum { BACKLOG = 1024, POLL_MS = 20 };
/* One address of several is not waited for longer than this. */
#define CONNECT_S 3.0

bool patience_left(const struct patience *patience)
{
    return clock_monotonic() < patience->until_s &&
           (patience->waiting == NULL || patience->waiting(patience->context));
}

bool socket_is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)address;
        return ntohl(four->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

static struct addrinfo *look_up(const char *host, int port, int family, bool listen, char *why)
{
    char service[16];
    struct addrinfo *found = NULL;
    struct addrinfo wanted = { .ai_family = family,
                               .ai_socktype = SOCK_STREAM,
                               .ai_flags = AI_NUMERICSERV | (listen ? AI_PASSIVE : 0) };
    snprintf(service, sizeof service, "%d", port);
    int code = getaddrinfo(host, service, &wanted, &found);
    if (code != 0) {
        snprintf(why, SOCKET_WHY_SIZE, "%.100s has no address: %s", host ? host : "this machine",
                 code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
        return NULL;
    }
    return found;
}

static void set_up(int fd)
{
    int on = 1; /* what fails here only makes it slower */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static int new_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* ---- listening ------------------------------------------------------------------------------ */

static int listen_at(const struct addrinfo *at)
{
    int on = 1;
    int off = 0;
    int fd = new_socket(at->ai_family);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* connections that are over */
    if (at->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
        return fd;
    }
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* One socket for both families where there are both. */
static int listen_anywhere(int port, int family, char *why)
{
    struct addrinfo *any = look_up(NULL, port, family == AF_INET ? AF_INET : AF_INET6, true, why);
    int fd = any ? listen_at(any) : -1;
    if (any) {
        freeaddrinfo(any);
    }
    if (fd < 0 && family != AF_INET && errno != EADDRINUSE) {
        return listen_anywhere(port, AF_INET, why);
    }
    if (fd < 0) {
        snprintf(why, SOCKET_WHY_SIZE, "cannot listen at port %d: %s", port, strerror(errno));
    }
    return fd;
}

/* A name may stand for this machine in two ways: many systems write their own name beside 127.0.1.1
 * into /etc/hosts, where nobody else reaches it; and behind an address translation the address that
 * others use is not here. Both mean everywhere. */
int socket_listen(const char *host, int port, char why[SOCKET_WHY_SIZE])
{
    if (host == NULL) {
        return listen_anywhere(port, AF_UNSPEC, why);
    }
    struct addrinfo *list = look_up(host, port, AF_UNSPEC, true, why);
    int fd = -1;
    bool elsewhere = false;
    for (struct addrinfo *at = list; at && fd < 0 && !elsewhere; at = at->ai_next) {
        elsewhere = is_loopback(at->ai_addr) && !socket_is_loopback(host);
        fd = elsewhere ? -1 : listen_at(at);
        if (fd < 0) {
            snprintf(why, SOCKET_WHY_SIZE, "cannot listen at %.100s, port %d: %s", host, port,
                     strerror(errno));
            elsewhere = elsewhere || errno == EADDRNOTAVAIL;
        }
    }
    if (list) {
        freeaddrinfo(list);
    }
    return fd < 0 && elsewhere ? listen_anywhere(port, AF_UNSPEC, why) : fd;
}

int socket_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int listens = 0;
    socklen_t listens_size = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_size) != 0 || !listens ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        return -1;
    }
    return ntohs(address.ss_family == AF_INET6
                     ? ((struct sockaddr_in6 *)(void *)&address)->sin6_port
                     : ((struct sockaddr_in *)(void *)&address)->sin_port);
}

int socket_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        set_up(fd);
    }
    return fd;
}

/* ---- connecting ----------------------------------------------------------------------------- */

/* Until the socket is ready for `events`; false: given up. */
static bool wait_ready(int fd, short events, const struct patience *patience)
{
    struct pollfd polled = { .fd = fd, .events = events };
    while (poll(&polled, 1, POLL_MS) <= 0) {
        if (!patience_left(patience)) {
            return false;
        }
    }
    return true;
}

static int connect_to(const struct addrinfo *to, const struct patience *patience)
{
    double limit_s = clock_monotonic() + CONNECT_S;
    struct patience short_one = *patience;
    short_one.until_s = limit_s < patience->until_s ? limit_s : patience->until_s;
    int error = 0;
    socklen_t size = sizeof error;
    int fd = new_socket(to->ai_family);
    if (fd < 0) {
        return -1;
    }
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0) {
        error = errno;
        if (error == EINPROGRESS || error == EINTR) {
            error = wait_ready(fd, POLLOUT, &short_one) ? 0 : ETIMEDOUT;
            if (error == 0) {
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
            }
        }
    }
    if (error != 0) {
        close(fd);
        errno = error;
        return -1;
    }
    set_up(fd);
    return fd;
}

int socket_connect(const char *host, int port, const struct patience *patience,
                   char why[SOCKET_WHY_SIZE])
{
    struct addrinfo *list = look_up(host, port, AF_UNSPEC, false, why);
    int fd = -1;
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        fd = connect_to(at, patience);
    }
    if (list && fd < 0) {
        snprintf(why, SOCKET_WHY_SIZE, "%s", strerror(errno));
    }
    if (list) {
        freeaddrinfo(list);
    }
    return fd;
}

/* ---- moving --------------------------------------------------------------------------------- */

int socket_send(int fd, const void *bytes, size_t size, const struct patience *patience,
                char why[SOCKET_WHY_SIZE])
{
    for (size_t done = 0; done < size;) {
        ssize_t put = send(fd, (const char *)bytes + done, size - done, MSG_NOSIGNAL);
        if (put > 0) {
            done += (size_t)put;
        } else if (put < 0 && errno != EAGAIN && errno != EINTR) {
            snprintf(why, SOCKET_WHY_SIZE, "%s", strerror(errno));
            return -1;
        } else if (!wait_ready(fd, POLLOUT, patience)) {
            snprintf(why, SOCKET_WHY_SIZE, "it takes nothing");
            return -1;
        }
    }
    return 0;
}

int socket_receive(int fd, void *bytes, size_t size, const struct patience *patience,
                   char why[SOCKET_WHY_SIZE])
{
    for (size_t done = 0; done < size;) {
        ssize_t got = recv(fd, (char *)bytes + done, size - done, 0);
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            snprintf(why, SOCKET_WHY_SIZE, "it closed the connection");
            return -1;
        } else if (errno != EAGAIN && errno != EINTR) {
            snprintf(why, SOCKET_WHY_SIZE, "%s", strerror(errno));
            return -1;
        } else if (!wait_ready(fd, POLLIN, patience)) {
            snprintf(why, SOCKET_WHY_SIZE, "it does not answer");
            return -1;
        }
    }
    return 0;
}

/* ---- addresses ------------------------------------------------------------------------------ */

static void write_address(struct sockaddr_storage *storage, socklen_t size, char *address)
{
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)storage;
    if (storage->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        struct sockaddr_in four = { .sin_family = AF_INET };
        memcpy(&four.sin_addr, &six->sin6_addr.s6_addr[12], 4);
        memcpy(storage, &four, sizeof four);
        size = sizeof four;
    }
    if (getnameinfo((struct sockaddr *)storage, size, address, SOCKET_ADDRESS_SIZE, NULL, 0,
                    NI_NUMERICHOST) != 0) {
        address[0] = '\0';
    }
}

void socket_peer_address(int fd, char address[SOCKET_ADDRESS_SIZE])
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof storage;
    address[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&storage, &size) == 0) {
        write_address(&storage, size, address);
    }
}

void socket_own_address(int fd, char address[SOCKET_ADDRESS_SIZE])
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof storage;
    address[0] = '\0';
    if (getsockname(fd, (struct sockaddr *)&storage, &size) == 0) {
        write_address(&storage, size, address);
    }
}

int socket_family(int fd)
{
    struct sockaddr_storage storage = { .ss_family = AF_INET };
    socklen_t size = sizeof storage;
    getsockname(fd, (struct sockaddr *)&storage, &size);
    return storage.ss_family;
}
