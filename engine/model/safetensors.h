/*
 * safetensors files.
 *
 * Format: u64 little-endian length of the header, the header (JSON, starts with '{', may end in
 * blanks), then the data. The header maps each name to {"dtype", "shape", "data_offsets": [begin,
 * end)} counted from the start of the data; the key "__metadata__" maps texts to texts. The tensors
 * cover the data without holes, overlaps or a rest. Little endian, C order.
 *
 * Reading is strict: anything else is refused with a sentence, before more memory is taken than the
 * header needs. Files are read with pread through engine/base/file.h and never mapped: a file that
 * shrinks while it is read is an error and not a signal.
 */
#ifndef WINDROW_ENGINE_MODEL_SAFETENSORS_H
#define WINDROW_ENGINE_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "kernels/dtype.h"

enum { SAFETENSORS_RANK_MAX = 4, SAFETENSORS_HEADER_MAX = 25000000 };

struct weights_source; /* engine/model/weights.h: all tensors of a model directory */

struct safetensors_tensor {
    char *name;
    const char *type; /* as the file says: "F32", "BF16", "F8_E4M3" ... */
    bool readable;    /* its values can be read here: dtype is set, rank <= 4 */
    enum dtype dtype;
    int rank;                          /* 0: one value */
    int64_t dim[SAFETENSORS_RANK_MAX]; /* the first four */
    int64_t elements;
    int64_t offset; /* in the file */
    int64_t bytes;
};

struct safetensors {
    char *path;
    int fd;
    size_t count;
    struct safetensors_tensor *tensor; /* in the order of the data */
    struct safetensors_tensor **by_name;
};

/* Opens and checks a file; NULL on failure. Values are read later, from the open file. */
struct safetensors *safetensors_open(const char *path, struct error *err);
void safetensors_close(struct safetensors *file);

/* NULL if there is none of this name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* Elements [first, first + count) as `want`: floats (F32, BF16, F16) become F32 or BF16 (to
 * nearest, ties to even); any dtype is read as itself. `out` holds count values. Takes at most 256
 * KiB. */
int safetensors_read_range(const struct safetensors *file, const struct safetensors_tensor *tensor,
                           int64_t first, int64_t count, void *out, enum dtype want,
                           struct error *err);
/* All of them. */
int safetensors_read(const struct safetensors *file, const struct safetensors_tensor *tensor,
                     void *out, enum dtype want, struct error *err);

/* The exact value of an IEEE half. */
float float_from_half(uint16_t half);

/* ---- writing ------------------------------------------------------------------------------- */

struct safetensors_entry {
    const char *name;
    enum dtype dtype;
    int rank;
    int64_t dim[SAFETENSORS_RANK_MAX];
};

/* Bytes of the values of one entry, and of a whole file (for asking whether it fits a disk). */
int64_t safetensors_entry_bytes(const struct safetensors_entry *entry);
int64_t safetensors_file_bytes(const struct safetensors_entry *entries, size_t count);

struct safetensors_writer;

/* Creates `path` (which must not exist) and writes the header, with {"format": "pt"} as metadata
 * and padded so that the data start at a multiple of 8. The entries are not kept. */
struct safetensors_writer *safetensors_writer_begin(const char *path,
                                                    const struct safetensors_entry *entries,
                                                    size_t count, struct error *err);
/* The next bytes of the data: all values of all entries in order, in pieces of any size. */
int safetensors_writer_write(struct safetensors_writer *writer, const void *bytes, size_t size,
                             struct error *err);
/* Flushes, syncs, closes and frees, also on failure (then the file is removed). `digest` of the
 * whole file and its size in `bytes` may be NULL. */
int safetensors_writer_finish(struct safetensors_writer *writer, char digest[DIGEST_TEXT_SIZE],
                              int64_t *bytes, struct error *err);
/* Closes, removes the file and frees. NULL is fine. */
void safetensors_writer_abort(struct safetensors_writer *writer);

#endif
