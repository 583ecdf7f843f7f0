/*
 * The file that ranks meet by, where they share a file system and nobody knows an address before.
 *
 * Lines of a word and its value, in this order:
 *
 *     windrow-place 1
 *     job DIGEST         of the job's text, so that a file of another job is known
 *     key HEXADECIMAL    drawn anew each time, shown by those who come
 *     machine DIGEST     of rank 0
 *     port NUMBER
 *     address NUMERIC    up to eight
 *     end
 *
 * Rank 0 replaces what it finds and takes the file away when all are there.
 */
#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "engine/base/digest.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/comm/socket.h"
#include "engine/comm/tcp.h"

enum { FILE_LIMIT_BYTES = 4096, ADDRESSES = 8 };
#define MAGIC "windrow-place 1"

int tcp_post(const char *file, const char *job, const struct tcp_posted *posted, struct error *err)
{
    char digest[DIGEST_TEXT_SIZE];
    struct buffer text = { 0 };
    digest_of(job, strlen(job), digest);
    buffer_printf(&text, MAGIC "\njob %s\nkey %s\nmachine %s\nport %d\n", digest, posted->key,
                  posted->machine, posted->port);
    for (int i = 0; i < ADDRESSES && posted->address[i][0]; i++) {
        buffer_printf(&text, "address %s\n", posted->address[i]);
    }
    buffer_printf(&text, "end\n");
    int result = file_replace(file, text.text, text.size, err);
    buffer_free(&text);
    return result;
}

/* The value behind `word` on the line at *at, which goes on to the next one. */
static bool take(char **at, const char *word, char *value, size_t size)
{
    size_t length = strlen(word);
    char *end = strchr(*at, '\n');
    if (end == NULL || strncmp(*at, word, length) != 0 || (*at)[length] != ' ' ||
        (size_t)(end - *at) - length > size) {
        return false;
    }
    *end = '\0';
    snprintf(value, size, "%s", *at + length + 1);
    *at = end + 1;
    return true;
}

bool tcp_read_posted(const char *file, const char *job, struct tcp_posted *posted)
{
    struct error unused = { 0 };
    char wanted[DIGEST_TEXT_SIZE];
    char found[DIGEST_TEXT_SIZE];
    char version[16];
    char port[16];
    int64_t number = 0;
    size_t size = 0;
    char *text = file_exists(file) ? file_read_all(file, FILE_LIMIT_BYTES, &size, &unused) : NULL;
    char *at = text;
    digest_of(job, strlen(job), wanted);
    *posted = (struct tcp_posted){ 0 };
    bool right = text && take(&at, "windrow-place", version, sizeof version) &&
                 strcmp(version, "1") == 0 && take(&at, "job", found, sizeof found) &&
                 strcmp(found, wanted) == 0 && take(&at, "key", posted->key, sizeof posted->key) &&
                 take(&at, "machine", posted->machine, sizeof posted->machine) &&
                 take(&at, "port", port, sizeof port) && text_to_integer(port, &number) &&
                 number > 0 && number < 65536;
    posted->port = (int)number;
    for (int i = 0; right && i < ADDRESSES; i++) {
        if (!take(&at, "address", posted->address[i], sizeof posted->address[i])) {
            break;
        }
    }
    right = right && strcmp(at, "end\n") == 0;
    free(text);
    return right;
}

void tcp_unpost(const char *file)
{
    file_ops()->unlink(file);
}

void tcp_own_addresses(struct tcp_posted *posted)
{
    struct ifaddrs *list = NULL;
    int count = 0;
    if (getifaddrs(&list) != 0) {
        return;
    }
    for (struct ifaddrs *at = list; at && count < ADDRESSES; at = at->ifa_next) {
        char *out = posted->address[count];
        int family = at->ifa_addr ? at->ifa_addr->sa_family : AF_UNSPEC;
        socklen_t size =
            family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if ((family == AF_INET || family == AF_INET6) &&
            getnameinfo(at->ifa_addr, size, out, sizeof posted->address[0], NULL, 0,
                        NI_NUMERICHOST) == 0 &&
            !socket_is_loopback(out) && strncmp(out, "fe80:", 5) != 0) {
            count++;
        } else {
            out[0] = '\0';
        }
    }
    freeifaddrs(list);
}
