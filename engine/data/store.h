/*
 * Token ids of documents or records, one after the other, in host memory; and the rows made of
 * them.
 *
 * Text has no mask: every token is trained. Rows of text are windows of the stream of ids: window w
 * holds ids w * S .. w * S + S. Rows of records are lists of records (struct packing).
 */
#ifndef WINDROW_ENGINE_DATA_STORE_H
#define WINDROW_ENGINE_DATA_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

struct store {
    int32_t *id;
    uint8_t *trained; /* NULL for text */
    size_t count;
    size_t capacity;
    size_t *end; /* by item (document or record): where its ids end */
    size_t items;
    size_t items_capacity;
};

/* Adds one item; `trained` is NULL for text (in all items or in none). */
int store_add(struct store *store, const int32_t *id, const uint8_t *trained, size_t count,
              struct error *err);
void store_free(struct store *store);

static inline size_t store_start(const struct store *store, size_t item)
{
    return item == 0 ? 0 : store->end[item - 1];
}

/* Which records share a row: row r holds records item[first[r]] .. item[first[r + 1] - 1], in
 * order. */
struct packing {
    size_t *first; /* rows + 1 */
    size_t *item;
    size_t rows;
};

/* Puts the items [from, to) of the store into rows of `sequence` tokens: each, in order, into the
 * first row with room for it (first fit); with `single`, one a row. No item may be longer than a
 * row. */
int packing_make(struct packing *packing, const struct store *store, size_t from, size_t to,
                 int64_t sequence, int single, struct error *err);
void packing_free(struct packing *packing);

#endif
