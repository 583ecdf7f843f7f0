/* The directory of sockets is checked before every use: who owns it can take the place of a run. */
#include "engine/run/socket_place.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

/* Made if it is not there; then it must be a directory of ours that nobody else can enter. */
static int check_folder(const char *path, struct error *err)
{
    struct stat facts;
    if (file_ops()->mkdir(path, 0700) != 0 && errno != EEXIST) {
        return fail(err, ERROR_RUNTIME, "cannot make %s: %s", text_show(path).text,
                    strerror(errno));
    }
    if (lstat(path, &facts) != 0 || !S_ISDIR(facts.st_mode) || facts.st_uid != getuid() ||
        (facts.st_mode & 077) != 0) {
        fail(err, ERROR_RUNTIME, "%s is not a directory of this user alone", text_show(path).text);
        return hint(err, "remove it, or set its mode to 700");
    }
    return 0;
}

char *socket_place(struct error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct error why = { .code = ERROR_RUNTIME, .message = "no place for a control socket" };
    for (int attempt = 0; attempt < 2; attempt++) {
        bool own = attempt == 0;
        if (own && (!runtime || runtime[0] != '/' || !file_is_directory(runtime))) {
            continue;
        }
        char *folder =
            own ? path_join(runtime, "windrow") : xasprintf("/tmp/windrow-%ld", (long)getuid());
        char *path = xasprintf("%s/%ld.sock", folder, (long)getpid());
        struct sockaddr_un address;
        bool good = socket_address(path, &address) && check_folder(folder, &why) == 0;
        free(folder);
        if (good) {
            return path;
        }
        free(path);
    }
    *err = why;
    return NULL;
}

bool socket_address(const char *path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof out->sun_path) {
        return false;
    }
    memcpy(out->sun_path, path, strlen(path) + 1);
    return true;
}

static bool nobody_listens(const char *path)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 && socket_address(path, &address) &&
                   connect(fd, (struct sockaddr *)&address, sizeof address) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    return refused;
}

/* "123.sock" and nothing else: 123, else 0. */
static pid_t pid_of_name(const char *name)
{
    int64_t pid = 0;
    size_t digits = strspn(name, "0123456789");
    char *number = xstrndup(name, digits);
    bool good = digits > 0 && strcmp(name + digits, ".sock") == 0 &&
                text_to_integer(number, &pid) && pid <= INT32_MAX;
    free(number);
    return good ? (pid_t)pid : 0;
}

void socket_remove_stale(const char *path)
{
    const char *base = path_base(path);
    char *folder = xstrndup(path, (size_t)(base - path));
    DIR *directory = opendir(folder);
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        pid_t pid = pid_of_name(entry->d_name);
        if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH) {
            continue;
        }
        char *name = path_join(folder, entry->d_name);
        struct stat facts;
        if (lstat(name, &facts) == 0 && S_ISSOCK(facts.st_mode) && facts.st_uid == getuid() &&
            nobody_listens(name)) {
            file_ops()->unlink(name);
        }
        free(name);
    }
    if (directory) {
        closedir(directory);
    }
    free(folder);
}

bool socket_peer_is_own(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid();
}
