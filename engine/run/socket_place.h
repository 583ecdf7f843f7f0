/* Where control sockets live: $XDG_RUNTIME_DIR/windrow, else /tmp/windrow-UID. */
#ifndef WINDROW_ENGINE_RUN_SOCKET_PLACE_H
#define WINDROW_ENGINE_RUN_SOCKET_PLACE_H

#include <stdbool.h>
#include <sys/un.h>

#include "engine/base/error.h"

/* A path for a new socket in a directory that belongs to this user alone (made if needed).
 * xmalloc'd, or NULL. */
char *socket_place(struct error *err);

/* Removes sockets beside `path` that processes killed in the middle left behind: ours, named after
 * a process that is gone, and with nobody listening (it may live in another container). */
void socket_remove_stale(const char *path);

/* Fills the address; false if the path is too long for one. */
bool socket_address(const char *path, struct sockaddr_un *out);

/* Whether the process at the other end belongs to this user. */
bool socket_peer_is_own(int fd);

#endif
