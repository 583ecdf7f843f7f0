/*
 * Grass, exact rows: what bf16 weights cannot hold of the rows that train.
 *
 * While a row is selected, its weights have full precision: bf16 in the model, where everybody
 * reads them, and a residue of 16 bits beside the moments (bf16_split in kernels/dtype.h): 2 R N
 * bytes a matrix. A row that is selected anew starts without one; a row that leaves is rounded at
 * random, once, so that on the average nothing of its small steps is lost. Rows that stay keep
 * theirs, in their new slots, whether or not the moments are carried.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/grass_parts.h"

bool grass_exact(const struct method *method)
{
    return method->settings.exact_rows && method->model->dtype == DTYPE_BF16;
}

void grass_residue_place(struct method *method, struct grass_group *group, const char *name)
{
    if (!grass_exact(method)) {
        return;
    }
    char label[MEMORY_NAME_SIZE];
    snprintf(label, sizeof label, "%.76s residue", name);
    group->residue =
        memory_matrix(method->memory, MEMORY_OPTIMIZER, label, DTYPE_I16, group->gradient.dim);
    op_zero(method->be, &group->residue);
}

static struct random_key settle_key(const struct method *method, const struct grass_part *part)
{
    return (struct random_key){ .seed = method->settings.seed,
                                .purpose = RANDOM_ROUND_W,
                                .tensor = part->part->parameter->id,
                                .step = (uint32_t)method->step };
}

/* leaving[j] = old[j] if the new selection does not have it, otherwise -1. */
static void list_leaving(const struct grass_part *part, const int32_t *old, int64_t old_count,
                         int32_t *leaving)
{
    int64_t used = grass_used(part->next, part->count);
    int64_t i = 0;
    for (int64_t j = 0; j < old_count; j++) {
        while (old[j] >= 0 && i < used && part->next[i] < old[j]) {
            i++;
        }
        leaving[j] = i < used && part->next[i] == old[j] ? -1 : old[j];
    }
}

static void settle_on_device(struct method *method, struct grass_part *part)
{
    struct memory_position mark = memory_mark(method->memory, MEMORY_WORKSPACE);
    struct tensor index =
        memory_vector(method->memory, MEMORY_WORKSPACE, "leaving rows", DTYPE_I32, part->count);
    int32_t *leaving = part->scratch + 3 * part->count;
    list_leaving(part, part->chosen, part->count, leaving);
    backend_upload(method->be, index.data, leaving, (size_t)part->count * sizeof *leaving);
    op_settle(method->be, &(struct settle){ .weight = &part->part->parameter->value,
                                            .residue = &part->residue,
                                            .index = &index,
                                            .side = part->side,
                                            .key = settle_key(method, part) });
    memory_release(method->memory, MEMORY_WORKSPACE, mark);
}

/* Settles elements of one row of the weight, which is on the device: element i with residue[i] if
 * `index` is NULL, otherwise element index[i] (-1: none). */
static void settle_row(struct method *method, const struct grass_part *part, int64_t row,
                       const int32_t *index, const int16_t *residue, int64_t count)
{
    const struct tensor *weight = &part->part->parameter->value;
    struct random_key key = settle_key(method, part);
    int64_t columns = tensor_columns(weight);
    size_t bytes = (size_t)columns * sizeof(uint16_t);
    char *at = (char *)weight->data + (size_t)row * bytes;
    uint16_t *host = xmalloc(bytes);
    backend_download(method->be, host, at, bytes);
    for (int64_t i = 0; i < count; i++) {
        int64_t column = index != NULL ? index[i] : i;
        if (column >= 0) {
            uint32_t word = random_u32(&key, (uint64_t)(row * columns + column));
            host[column] = bf16_from_float_stochastic(bf16_join(host[column], residue[i]), word);
        }
    }
    backend_upload(method->be, at, host, bytes);
    free(host);
}

/* After a change of rank: the old residues are on the host, and so rare that rows may travel. */
static void settle_from_host(struct method *method, struct grass_part *part)
{
    const struct grass_waiting *waiting = part->waiting;
    int64_t count = waiting->count;
    int32_t *leaving = xmalloc((size_t)count * sizeof *leaving);
    list_leaving(part, waiting->index, count, leaving);
    int64_t rows = part->side == SIDE_ROWS ? count : part->part->parameter->value.dim[0];
    int64_t columns = part->side == SIDE_ROWS ? part->residue.dim[1] : count;
    for (int64_t i = 0; i < rows; i++) {
        const int16_t *residue = waiting->residue + i * columns;
        if (part->side == SIDE_COLUMNS) {
            settle_row(method, part, i, leaving, residue, columns);
        } else if (leaving[i] >= 0) {
            settle_row(method, part, leaving[i], NULL, residue, columns);
        }
    }
    free(leaving);
}

void grass_residue_commit(struct method *method, struct grass_part *part)
{
    if (!grass_exact(method)) {
        return;
    }
    const struct grass_waiting *waiting = part->waiting;
    int32_t *map = part->scratch;
    int64_t used = grass_used(part->next, part->count);
    const int32_t *old = waiting != NULL ? waiting->index : part->chosen;
    int64_t old_used = grass_used(old, waiting != NULL ? waiting->count : part->count);
    memset(map, 0xff, (size_t)part->count * sizeof *map);
    grass_match_slots(part->next, used, old, old_used, map);
    if (waiting == NULL) {
        settle_on_device(method, part);
        grass_carry_on_device(method, part, &part->residue, map);
    } else if (waiting->residue != NULL) {
        settle_from_host(method, part);
        grass_carry_from_host(method, part, &part->residue, waiting->residue, map);
    } else {
        grass_carry_room(method, part, &part->residue);
        op_zero(method->be, &part->residue);
    }
}
