/* Where ids live, and first-fit packing. */
#include "engine/data/store.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(struct error *err, size_t bytes)
{
    fail(err, ERROR_RUNTIME, "the data set does not fit into memory: no %zu bytes more", bytes);
    return hint(err, "train on a part of it");
}

/* Makes room for `count` more elements. */
static int grow(void **array, size_t element, size_t used, size_t count, size_t *capacity,
                struct error *err)
{
    if (used + count <= *capacity) {
        return 0;
    }
    size_t wanted = (used + count) + (used + count) / 2 + 1024;
    void *grown = realloc(*array, wanted * element);
    if (grown == NULL) {
        return no_memory(err, wanted * element);
    }
    *array = grown;
    *capacity = wanted;
    return 0;
}

int store_add(struct store *store, const int32_t *id, const uint8_t *trained, size_t count,
              struct error *err)
{
    size_t mask_capacity = store->capacity;
    if (trained != NULL &&
        grow((void **)&store->trained, 1, store->count, count, &mask_capacity, err) != 0) {
        return -1;
    }
    if (grow((void **)&store->id, sizeof(*id), store->count, count, &store->capacity, err) != 0 ||
        grow((void **)&store->end, sizeof(*store->end), store->items, 1, &store->items_capacity,
             err) != 0) {
        return -1;
    }
    memcpy(store->id + store->count, id, count * sizeof(*id));
    if (trained != NULL) {
        memcpy(store->trained + store->count, trained, count);
    }
    store->count += count;
    store->end[store->items++] = store->count;
    return 0;
}

void store_free(struct store *store)
{
    free(store->id);
    free(store->trained);
    free(store->end);
    *store = (struct store){ 0 };
}

/*
 * Room left in each row, and above it in a binary tree the most room of any row below: the first
 * row with enough room is found by going down from the root, left before right. Rows not begun yet
 * have all their room, so there is always one.
 */
struct room {
    int64_t *most; /* node 1 is the root; rows are the nodes leaves .. 2 * leaves - 1 */
    size_t leaves;
};

static size_t room_take(struct room *room, int64_t size)
{
    size_t node = 1;
    while (node < room->leaves) {
        node *= 2;
        node += room->most[node] < size;
    }
    size_t row = node - room->leaves;
    room->most[node] -= size;
    for (node /= 2; node >= 1; node /= 2) {
        int64_t left = room->most[2 * node];
        int64_t right = room->most[2 * node + 1];
        room->most[node] = left > right ? left : right;
    }
    return row;
}

/* Row of each item; returns the number of rows. */
static size_t first_fit(struct room *room, const struct store *store, size_t from, size_t to,
                        size_t *row_of)
{
    size_t rows = 0;
    for (size_t i = from; i < to; i++) {
        size_t size = store->end[i] - store_start(store, i);
        size_t row = room_take(room, (int64_t)size);
        row_of[i - from] = row;
        rows = row + 1 > rows ? row + 1 : rows;
    }
    return rows;
}

int packing_make(struct packing *packing, const struct store *store, size_t from, size_t to,
                 int64_t sequence, int single, struct error *err)
{
    size_t items = to - from;
    struct room room = { .leaves = 1 };
    while (room.leaves < items) {
        room.leaves *= 2;
    }
    *packing = (struct packing){ 0 };
    size_t *row_of = malloc((items + 1) * sizeof(*row_of));
    room.most = malloc(2 * room.leaves * sizeof(*room.most));
    packing->first = calloc(items + 2, sizeof(*packing->first));
    packing->item = malloc((items + 1) * sizeof(*packing->item));
    if (row_of == NULL || room.most == NULL || packing->first == NULL || packing->item == NULL) {
        free(row_of);
        free(room.most);
        packing_free(packing);
        return no_memory(err, (items + 1) * sizeof(*row_of));
    }
    if (single) {
        for (size_t i = 0; i < items; i++) {
            row_of[i] = i;
        }
        packing->rows = items;
    } else {
        for (size_t i = 0; i < 2 * room.leaves; i++) {
            room.most[i] = sequence;
        }
        packing->rows = first_fit(&room, store, from, to, row_of);
    }
    /* Sorted by row, keeping their order: counts, then sums, then places. */
    for (size_t i = 0; i < items; i++) {
        packing->first[row_of[i] + 2]++;
    }
    for (size_t r = 2; r < packing->rows + 2; r++) {
        packing->first[r] += packing->first[r - 1];
    }
    for (size_t i = 0; i < items; i++) {
        packing->item[packing->first[row_of[i] + 1]++] = from + i;
    }
    free(row_of);
    free(room.most);
    return 0;
}

void packing_free(struct packing *packing)
{
    free(packing->first);
    free(packing->item);
    *packing = (struct packing){ 0 };
}
