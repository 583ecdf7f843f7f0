/* Rows into batches. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/data/dataset_private.h"
#include "engine/data/order.h"

int batch_init(struct batch *batch, int64_t rows, int64_t sequence, struct error *err)
{
    *batch = (struct batch){ 0 };
    if (rows < 1 || sequence < 1 || rows > INT32_MAX / sequence) {
        return fail(err, ERROR_USAGE,
                    "a batch of %lld rows of %lld tokens (1 to %d in all allowed)", (long long)rows,
                    (long long)sequence, INT32_MAX);
    }
    size_t count = (size_t)(rows * sequence);
    int32_t *all = calloc(count, 4 * sizeof(*all));
    if (all == NULL) {
        return fail(err, ERROR_RUNTIME, "no memory for a batch of %lld rows of %lld tokens",
                    (long long)rows, (long long)sequence);
    }
    batch->rows = rows;
    batch->sequence = sequence;
    batch->ids = all;
    batch->targets = all + count;
    batch->positions = all + 2 * count;
    batch->starts = all + 3 * count;
    batch->trained_tokens = 0;
    batch->whole = false;
    return 0;
}

void batch_free(struct batch *batch)
{
    free(batch->ids);
    *batch = (struct batch){ 0 };
}

/* One row of each array. */
struct row_view {
    int32_t *ids;
    int32_t *targets;
    int32_t *positions;
    int32_t *starts;
};

static int64_t fill_window(const struct dataset *dataset, const struct split *split, int64_t row,
                           struct row_view *view)
{
    int64_t sequence = dataset->sequence;
    const int32_t *id = split->store->id + (split->first_window + row) * sequence;
    memcpy(view->ids, id, (size_t)sequence * sizeof(*id));
    memcpy(view->targets, id + 1, (size_t)sequence * sizeof(*id));
    for (int64_t i = 0; i < sequence; i++) {
        view->positions[i] = (int32_t)i;
        view->starts[i] = 0;
    }
    return sequence;
}

/* Places one record at `place`; its last token has nothing to predict. */
static int64_t fill_record(const struct store *store, size_t item, int64_t place,
                           struct row_view *view)
{
    size_t start = store_start(store, item);
    int64_t size = (int64_t)(store->end[item] - start);
    const int32_t *id = store->id + start;
    const uint8_t *trained = store->trained + start;
    int64_t targets = 0;
    for (int64_t i = 0; i < size; i++) {
        bool learns = i + 1 < size && trained[i + 1] != 0;
        view->ids[place + i] = id[i];
        view->targets[place + i] = learns ? id[i + 1] : -1;
        view->positions[place + i] = (int32_t)i;
        view->starts[place + i] = (int32_t)place;
        targets += learns;
    }
    return targets;
}

static int64_t fill_records(const struct dataset *dataset, const struct split *split, int64_t row,
                            struct row_view *view)
{
    const struct packing *packing = &split->packing;
    int64_t place = 0;
    int64_t targets = 0;
    for (size_t k = packing->first[row]; k < packing->first[row + 1]; k++) {
        size_t item = packing->item[k];
        targets += fill_record(split->store, item, place, view);
        place += (int64_t)(split->store->end[item] - store_start(split->store, item));
    }
    /* Padding is a record of its own: what comes before does not see it, nor it them. */
    for (int64_t i = place; i < dataset->sequence; i++) {
        view->ids[i] = dataset->padding;
        view->targets[i] = -1;
        view->positions[i] = (int32_t)(i - place);
        view->starts[i] = (int32_t)place;
    }
    return targets;
}

void dataset_fill(const struct dataset *dataset, enum data_split which, int64_t first,
                  struct batch *batch)
{
    const struct split *split = &dataset->split[which];
    if (batch->sequence != dataset->sequence || split->rows < 1 || first < 0) {
        BUG("rows from %lld of %lld rows, %lld tokens each, into a batch of %lld", (long long)first,
            (long long)split->rows, (long long)dataset->sequence, (long long)batch->sequence);
    }
    batch->trained_tokens = 0;
    batch->whole = split->packing.first == NULL;
    for (int64_t b = 0; b < batch->rows; b++) {
        int64_t epoch = (first + b) / split->rows;
        int64_t row = (first + b) % split->rows;
        if (dataset->shuffle && which == DATA_TRAIN) {
            row = order_of(dataset->seed, epoch, split->rows, row);
        }
        int64_t offset = b * batch->sequence;
        struct row_view view = { batch->ids + offset, batch->targets + offset,
                                 batch->positions + offset, batch->starts + offset };
        batch->trained_tokens += split->packing.first != NULL
                                     ? fill_records(dataset, split, row, &view)
                                     : fill_window(dataset, split, row, &view);
    }
}
