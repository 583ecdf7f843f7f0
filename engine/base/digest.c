/* Checksums by xxHash: XXH3, 128 bits, in its canonical (big endian) order. */
#include "engine/base/digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"

struct digest {
    XXH3_state_t *state;
};

static void write_hexadecimal(XXH128_hash_t hash, char text[DIGEST_TEXT_SIZE])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    for (size_t i = 0; i < sizeof canonical.digest; i++) {
        snprintf(text + 2 * i, 3, "%02x", canonical.digest[i]);
    }
}

struct digest *digest_begin(void)
{
    struct digest *digest = xmalloc(sizeof *digest);
    digest->state = XXH3_createState();
    if (!digest->state || XXH3_128bits_reset(digest->state) != XXH_OK) {
        BUG("no state for a checksum");
    }
    return digest;
}

void digest_add(struct digest *digest, const void *bytes, size_t size)
{
    if (size > 0) {
        XXH3_128bits_update(digest->state, bytes, size);
    }
}

void digest_end(struct digest *digest, char text[DIGEST_TEXT_SIZE])
{
    write_hexadecimal(XXH3_128bits_digest(digest->state), text);
    XXH3_freeState(digest->state);
    free(digest);
}

void digest_of(const void *bytes, size_t size, char text[DIGEST_TEXT_SIZE])
{
    write_hexadecimal(XXH3_128bits(bytes, size), text);
}

int digest_of_file(const char *path, char text[DIGEST_TEXT_SIZE], struct error *err)
{
    enum { CHUNK = 1 << 18 };
    int64_t size = 0;
    int fd = file_open_read(path, &size, err);
    if (fd < 0) {
        return -1;
    }
    struct digest *digest = digest_begin();
    unsigned char *chunk = xmalloc(CHUNK);
    int result = 0;
    for (int64_t at = 0; at < size && result == 0;) {
        size_t part = size - at < CHUNK ? (size_t)(size - at) : (size_t)CHUNK;
        result = file_read_at(fd, path, chunk, part, at, err);
        if (result == 0) {
            digest_add(digest, chunk, part);
            at += (int64_t)part;
        }
    }
    char unused[DIGEST_TEXT_SIZE];
    digest_end(digest, result == 0 ? text : unused);
    free(chunk);
    file_ops()->close(fd);
    return result;
}
