/* Checksums: XXH3 with 128 bits (xxHash), as 32 lower-case hexadecimal digits. They find damage,
 * not malice. */
#ifndef WINDROW_ENGINE_BASE_DIGEST_H
#define WINDROW_ENGINE_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

enum { DIGEST_TEXT_SIZE = 33 };

struct digest;
struct digest *digest_begin(void);
void digest_add(struct digest *digest, const void *bytes, size_t size);
/* Writes the text and frees the digest. */
void digest_end(struct digest *digest, char text[DIGEST_TEXT_SIZE]);

void digest_of(const void *bytes, size_t size, char text[DIGEST_TEXT_SIZE]);
/* Of a whole file. */
int digest_of_file(const char *path, char text[DIGEST_TEXT_SIZE], struct error *err);

#endif
