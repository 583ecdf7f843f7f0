/*
 * Which algorithm of the library a matrix product takes: keys, the choice among timed candidates,
 * and the text in which choices go from one process to the next. Nothing here needs a device.
 *
 * The text (tuning_text, tuning_parse), one item a line:
 *
 *     windrow products 1
 *     on DEVICE                       name, number of multiprocessors, version of the library
 *     p K1 .. K13 A1 .. A8            a key in the order of struct product_key, decimal; the
 *                                     library's 64 bytes for its algorithm as hexadecimal words
 *     end COUNT SUM                   number of p lines; FNV-1a of all bytes above, hexadecimal
 */
#ifndef WINDROW_KERNELS_CUDA_TUNING_H
#define WINDROW_KERNELS_CUDA_TUNING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TUNING_WORDS = 8, TUNING_CANDIDATES = 16, TUNING_KEY_NUMBERS = 13 };

/* What a product's algorithm depends on. All fields are 64 bits wide: there is no padding, and two
 * keys are compared as bytes. Alignments are those of the addresses, in bytes. */
struct product_key {
    int64_t m, n, k;
    int64_t a_stride, b_stride, c_stride;
    int64_t transpose_a, transpose_b;
    int64_t factor_type, result_type;
    int64_t a_alignment, b_alignment, c_alignment;
};

struct tuning_entry {
    struct product_key key;
    uint64_t algorithm[TUNING_WORDS];
};

struct tuning {
    char device[192]; /* what the choices hold for */
    struct tuning_entry *entry;
    int count;
    int capacity;
};

void tuning_init(struct tuning *t, const char *device, int multiprocessors, size_t version);
void tuning_free(struct tuning *t);

/* The entry of a key, or NULL. */
const struct tuning_entry *tuning_find(const struct tuning *t, const struct product_key *key);
/* Adds or replaces. -1 if there is no memory. */
int tuning_put(struct tuning *t, const struct tuning_entry *entry);

/* The candidate to take: the library's own favourite, which comes first, unless another one is
 * faster by more than the noise of a few timings. A time of 0 or less means that it failed; -1 if
 * all did. */
int tuning_choose(const double *seconds, int count);

/* All entries as text (malloc'd), or NULL if there are none or there is no memory. */
char *tuning_text(const struct tuning *t);
/* Adds the entries of a text. -1 with a sentence in `why`, and nothing added, if it is damaged or
 * holds for something else. */
int tuning_parse(struct tuning *t, const char *text, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
