/* Sockets that never block: what is not there yet is waited for with a limit, and can be given up.
 * TCP over IPv4 and IPv6. */
#ifndef WINDROW_ENGINE_COMM_SOCKET_H
#define WINDROW_ENGINE_COMM_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

/* How long to wait, and for whom. */
struct patience {
    double until_s; /* clock_monotonic */
    /* Called again and again while waiting; false gives up. May be NULL. */
    bool (*waiting)(void *context);
    void *context;
};
bool patience_left(const struct patience *patience);

enum { SOCKET_ADDRESS_SIZE = 64, SOCKET_WHY_SIZE = 256 };

/* Listens at a port (0: any that is free), and only there where `host` is reached: a name or a
 * numeric address. NULL: wherever this machine can be reached. The socket, or -1 with a sentence in
 * `why`. */
int socket_listen(const char *host, int port, char why[SOCKET_WHY_SIZE]);
/* The port that a socket listens at; -1: it does not listen. */
int socket_port(int fd);

/* Connects, trying all addresses of a name. The socket, or -1 with a sentence. */
int socket_connect(const char *host, int port, const struct patience *patience,
                   char why[SOCKET_WHY_SIZE]);
/* Takes a connection that has come: the socket, or -1 where there is none. */
int socket_accept(int listener);

/* The whole of it. 0, or -1 with a sentence. */
int socket_send(int fd, const void *bytes, size_t size, const struct patience *patience,
                char why[SOCKET_WHY_SIZE]);
int socket_receive(int fd, void *bytes, size_t size, const struct patience *patience,
                   char why[SOCKET_WHY_SIZE]);

/* The numeric address of the other end and of the own one, without a port. */
void socket_peer_address(int fd, char address[SOCKET_ADDRESS_SIZE]);
void socket_own_address(int fd, char address[SOCKET_ADDRESS_SIZE]);
int socket_family(int fd);

/* Whether an address is written so that it means this machine alone: 127.*, ::1, localhost. */
bool socket_is_loopback(const char *host);

#endif
