/* The schedule of offloading. */
#include "engine/activation/offload.h"

#include <string.h>

#include "engine/model/model.h"

enum { PREFETCHED = 2 }; /* spans that are on their way beside the one in use */

int64_t offload_spans(int64_t layers, int64_t resident)
{
    int64_t spans = layers - resident - OFFLOAD_SLOTS;
    return spans > 0 ? spans : 0;
}

/* Blocks that share the slots. */
static int64_t sharing(const struct offload *offload)
{
    return offload->layers - offload->resident;
}

static size_t slot_bytes(const struct offload *offload, int64_t slot)
{
    return offload->end[slot].bytes - offload->begin[slot].bytes;
}

size_t offload_span_bytes(const struct offload *offload)
{
    return slot_bytes(offload, 0);
}

/* What the store says ends the step: the backend carries it to the end of the pass. */
static void report(struct offload *offload, struct pass *pass, const struct error *err)
{
    if (offload->trouble.message[0] == '\0') {
        offload->trouble = *err;
    }
    backend_fail(pass->be, "%s", err->message);
}

static void before_forward(void *context, struct pass *pass, int64_t layer)
{
    struct offload *offload = context;
    if (layer == 0 && offload->store != NULL) {
        store_reset(offload->store);
    }
    if (layer >= OFFLOAD_SLOTS && layer < sharing(offload)) {
        if (offload->store != NULL) {
            store_join(offload->store, layer - OFFLOAD_SLOTS); /* it has left its place */
        }
        memory_window_open(pass->memory, MEMORY_ACTIVATIONS, offload->begin[layer % OFFLOAD_SLOTS]);
        offload->window = true;
    } else if (layer < OFFLOAD_SLOTS) {
        offload->begin[layer] = memory_mark(pass->memory, MEMORY_ACTIVATIONS);
    }
}

static void after_forward(void *context, struct pass *pass, int64_t layer)
{
    struct offload *offload = context;
    int64_t slot = layer % OFFLOAD_SLOTS;
    if (offload->window) {
        memory_window_close(pass->memory, MEMORY_ACTIVATIONS);
        offload->window = false;
    } else if (layer < OFFLOAD_SLOTS) {
        offload->end[layer] = memory_mark(pass->memory, MEMORY_ACTIVATIONS);
    }
    offload->present = offload_spans(offload->layers, offload->resident);
    struct error err = { 0 };
    if (layer < offload->present && offload->store != NULL && !pass->be->failed &&
        store_put(offload->store, layer,
                  memory_address(pass->memory, MEMORY_ACTIVATIONS, offload->begin[slot]),
                  slot_bytes(offload, slot), &err) != 0) {
        report(offload, pass, &err);
    }
}

static void take(struct offload *offload, struct pass *pass, int64_t layer)
{
    int64_t slot = layer % OFFLOAD_SLOTS;
    struct error err = { 0 };
    if (pass->be->failed ||
        store_take(offload->store, layer,
                   memory_address(pass->memory, MEMORY_ACTIVATIONS, offload->begin[slot]),
                   slot_bytes(offload, slot), &err) == 0) {
        store_join(offload->store, layer);
        return;
    }
    report(offload, pass, &err);
}

static void before_backward(void *context, struct pass *pass, int64_t layer)
{
    struct offload *offload = context;
    if (offload->store == NULL) {
        return;
    }
    int64_t lowest = layer > 0 ? layer - 1 : 0;
    while (offload->present > lowest) {
        take(offload, pass, --offload->present);
    }
    if (layer >= 2 && layer - 2 < offload->present) {
        store_mark(offload->store, layer - 2); /* the block after this one is done with its place */
    }
    struct error err = { 0 };
    for (int64_t i = offload->present - 1; i >= 0 && i >= offload->present - PREFETCHED; i--) {
        if (!pass->be->failed && store_fetch(offload->store, i, &err) != 0) {
            report(offload, pass, &err);
        }
    }
}

/* Places are given back in the order of a stack: those of blocks that share one, with the first. */
static bool shares_place(void *context, int64_t layer)
{
    const struct offload *offload = context;
    return layer >= OFFLOAD_SLOTS && layer < sharing(offload);
}

static bool train_alike(const struct linear *a, const struct linear *b)
{
    bool alike = a->idle == b->idle;
    for (int i = 0; i < a->part_count; i++) {
        alike = alike && a->part[i].parameter->idle == b->part[i].parameter->idle;
    }
    return alike;
}

int offload_check(const struct model *model, struct error *err)
{
    const struct block *first = &model->block[model->first_trained];
    for (int64_t i = model->first_trained; i < model->config.layers; i++) {
        const struct block *block = &model->block[i];
        if (!train_alike(block->qkv, first->qkv) || !train_alike(block->o, first->o) ||
            !train_alike(block->gate_up, first->gate_up) ||
            !train_alike(block->down, first->down)) {
            fail(err, ERROR_USAGE,
                 "activation.offload needs blocks that train alike: method.targets or "
                 "method.frozen leaves other matrices of layer %lld than of layer %lld",
                 (long long)i, (long long)model->first_trained);
            return hint(err, "use patterns without numbers of layers, or activation.offload=none");
        }
    }
    return 0;
}

void offload_init(struct offload *offload, int64_t layers, int64_t resident, struct store *store)
{
    memset(offload, 0, sizeof *offload);
    offload->layers = layers;
    offload->resident = resident < layers ? resident : layers;
    offload->store = store;
    offload->mover = (struct block_mover){ .before_forward = before_forward,
                                           .after_forward = after_forward,
                                           .before_backward = before_backward,
                                           .shares_place = shares_place,
                                           .context = offload };
}

int64_t offload_resident(int64_t layers, double layer_bytes, double layer_seconds,
                         double bytes_per_second)
{
    double forward = (double)layers * layer_seconds;
    for (int64_t j = 0; j < layers; j++) {
        double bytes = ((double)j + 2.0) * layer_bytes;
        double seconds = 3.0 * forward - 2.0 * (double)j * layer_seconds;
        if (bytes > bytes_per_second * seconds) {
            return layers - j;
        }
    }
    return 0;
}
