/*
 * Regions as stacks of named records.
 *
 * A region on a real backend is one allocation; on the null backend it is a range of addresses that
 * nothing is mapped to, so tensors of a plan have distinct data pointers that fault when touched.
 */
#include "engine/memory/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

const char *const memory_category_names[MEMORY_CATEGORY_COUNT] = {
    "weights", "gradients", "optimizer", "activations", "workspace",
};

/* Records live in chunks that never move: tensors point to their names. */
enum { CHUNK_RECORDS = 256 };

struct region {
    void *base;
    size_t capacity;
    size_t top;
    size_t peak;
    struct memory_record **chunk;
    size_t chunk_count;
    size_t record_count;
    /* Copies of the records that were alive at the peak of the sum over regions (null backend); the
     * first `kept_same` of them are still what lies in the region. */
    struct memory_record *kept;
    size_t kept_count;
    size_t kept_capacity;
    size_t kept_same;
    bool window; /* an older stretch is being placed anew, below: */
    size_t window_top;
    size_t window_records;
};

struct memory {
    struct backend *be;
    bool unlimited;
    struct region region[MEMORY_CATEGORY_COUNT];
    size_t live_total;
    size_t peak_total;
    bool peak_stale; /* live_total rose above peak_total since the records were copied */
    bool peak_kept;  /* they were copied since the peak was reset */
};

/* The null backend's address space is large enough for any model that a shape can name. */
static const size_t UNLIMITED_BYTES = (size_t)1 << 56;

static struct memory_record *record_at(const struct region *region, size_t index)
{
    return &region->chunk[index / CHUNK_RECORDS][index % CHUNK_RECORDS];
}

static struct memory_record *record_push(struct region *region)
{
    size_t chunk = region->record_count / CHUNK_RECORDS;
    if (chunk == region->chunk_count) {
        region->chunk = xrealloc(region->chunk, (chunk + 1) * sizeof *region->chunk);
        region->chunk[chunk] = xcalloc(CHUNK_RECORDS, sizeof **region->chunk);
        region->chunk_count++;
    }
    return record_at(region, region->record_count++);
}

static int region_open(struct memory *memory, enum memory_category category, size_t capacity,
                       struct error *err)
{
    struct region *region = &memory->region[category];
    region->capacity = capacity;
    region->base = capacity == 0 ? NULL : backend_alloc(memory->be, capacity);
    if (capacity > 0 && region->base == NULL) {
        region->capacity = 0;
        fail(err, ERROR_FIT, "%s: cannot take %zu bytes for %s", memory->be->facts.device, capacity,
             memory_category_names[category]);
        return hint(err, "lower batch.micro, data.sequence_length or method.rank, or free memory "
                         "used by other programs");
    }
    return 0;
}

/* Only `count` records are left: what comes next is not what was copied. */
static void cut_records(struct region *region, size_t count)
{
    region->record_count = count;
    region->kept_same = region->kept_same < count ? region->kept_same : count;
}

static void region_close(struct memory *memory, enum memory_category category)
{
    struct region *region = &memory->region[category];
    if (region->base != NULL) {
        backend_free(memory->be, region->base, region->capacity);
    }
    memory->live_total -= region->top;
    region->base = NULL;
    region->top = 0;
    cut_records(region, 0);
}

/* Scratch of one operation: on top of the workspace, and free again at once, since the next
 * operation runs after it. */
static void *take_scratch(void *context, size_t bytes)
{
    struct memory *memory = context;
    struct memory_position mark = memory_mark(memory, MEMORY_WORKSPACE);
    struct tensor room = memory_vector(memory, MEMORY_WORKSPACE, "kernel scratch", DTYPE_F32,
                                       (int64_t)((bytes + sizeof(float) - 1) / sizeof(float)));
    if (room.data != NULL) {
        memory_release(memory, MEMORY_WORKSPACE, mark);
    }
    return room.data;
}

struct memory *memory_open(struct backend *be, const size_t capacity[MEMORY_CATEGORY_COUNT],
                           struct error *err)
{
    struct memory *memory = xcalloc(1, sizeof *memory);
    memory->be = be;
    memory->unlimited = capacity == NULL;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        size_t bytes = capacity == NULL ? UNLIMITED_BYTES : capacity[c];
        if (region_open(memory, (enum memory_category)c, bytes, err) != 0) {
            memory_close(memory);
            return NULL;
        }
    }
    backend_set_scratch(be, take_scratch, memory);
    return memory;
}

void memory_close(struct memory *memory)
{
    if (memory == NULL) {
        return;
    }
    if (memory->be->scratch.context == memory) {
        backend_set_scratch(memory->be, NULL, NULL);
    }
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        struct region *region = &memory->region[c];
        region_close(memory, (enum memory_category)c);
        for (size_t i = 0; i < region->chunk_count; i++) {
            free(region->chunk[i]);
        }
        free(region->chunk);
        free(region->kept);
    }
    free(memory);
}

int memory_resize(struct memory *memory, enum memory_category category, size_t capacity,
                  struct error *err)
{
    region_close(memory, category);
    memory->region[category].peak = 0;
    return region_open(memory, category, memory->unlimited ? UNLIMITED_BYTES : capacity, err);
}

/* Copies the live records of a region, but for those that are there from the last time. */
static void keep_records(struct region *region)
{
    if (region->record_count > region->kept_capacity) {
        region->kept_capacity = 2 * region->record_count;
        region->kept = xrealloc(region->kept, region->kept_capacity * sizeof *region->kept);
    }
    for (size_t i = region->kept_same; i < region->record_count; i++) {
        region->kept[i] = *record_at(region, i);
    }
    region->kept_count = region->record_count;
    region->kept_same = region->record_count;
}

/* Called when the total is about to fall from a new peak, so that a long climb copies once. */
static void remember_peak(struct memory *memory)
{
    if (!memory->peak_stale || !memory->unlimited) {
        return;
    }
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        keep_records(&memory->region[c]);
    }
    memory->peak_stale = false;
    memory->peak_kept = true;
}

static struct tensor shaped(const char *name, struct memory_shape shape)
{
    struct tensor t = { .rank = shape.rank, .dtype = shape.dtype, .name = name };
    for (int d = 0; d < TENSOR_RANK_MAX; d++) {
        t.dim[d] = d < shape.rank ? shape.dim[d] : 1;
    }
    return t;
}

struct tensor memory_tensor(struct memory *memory, enum memory_category category, const char *name,
                            struct memory_shape shape)
{
    struct region *region = &memory->region[category];
    struct tensor t = shaped(name, shape);
    size_t bytes = (tensor_bytes(&t) + MEMORY_ALIGNMENT - 1) & ~(size_t)(MEMORY_ALIGNMENT - 1);
    size_t limit = region->window ? region->window_top : region->capacity;
    if (bytes > limit - region->top) {
        backend_fail(memory->be,
                     "%s: %s does not fit: %zu bytes wanted, %zu of %zu planned bytes left",
                     memory_category_names[category], name, bytes, limit - region->top, limit);
        return t;
    }
    struct memory_record *record = record_push(region);
    memset(record, 0, sizeof *record);
    snprintf(record->name, sizeof record->name, "%s", name);
    record->category = category;
    record->dtype = shape.dtype;
    record->rank = shape.rank;
    memcpy(record->dim, t.dim, sizeof t.dim);
    record->bytes = bytes;
    t.name = record->name;
    t.data = (void *)((uintptr_t)region->base + region->top);
    region->top += bytes;
    memory->live_total += region->window ? 0 : bytes;
    if (region->top > region->peak) {
        region->peak = region->top;
    }
    if (memory->live_total > memory->peak_total) {
        memory->peak_total = memory->live_total;
        memory->peak_stale = true;
    }
    return t;
}

struct tensor memory_vector(struct memory *memory, enum memory_category category, const char *name,
                            enum dtype dtype, int64_t count)
{
    struct memory_shape shape = { .dtype = dtype, .rank = 1, .dim = { count } };
    return memory_tensor(memory, category, name, shape);
}

struct tensor memory_matrix(struct memory *memory, enum memory_category category, const char *name,
                            enum dtype dtype, const int64_t dim[2])
{
    struct memory_shape shape = { .dtype = dtype, .rank = 2, .dim = { dim[0], dim[1] } };
    return memory_tensor(memory, category, name, shape);
}

struct memory_position memory_mark(const struct memory *memory, enum memory_category category)
{
    const struct region *region = &memory->region[category];
    return (struct memory_position){ .bytes = region->top, .records = region->record_count };
}

void memory_release(struct memory *memory, enum memory_category category,
                    struct memory_position mark)
{
    struct region *region = &memory->region[category];
    if (mark.bytes > region->top || mark.records > region->record_count) {
        BUG("release of %s to %zu bytes, but only %zu are live", memory_category_names[category],
            mark.bytes, region->top);
    }
    remember_peak(memory);
    memory->live_total -= region->window ? 0 : region->top - mark.bytes;
    region->top = mark.bytes;
    cut_records(region, mark.records);
}

void memory_window_open(struct memory *memory, enum memory_category category,
                        struct memory_position from)
{
    struct region *region = &memory->region[category];
    if (region->window || from.bytes > region->top) {
        BUG("window of %s at %zu bytes, %zu are live", memory_category_names[category], from.bytes,
            region->top);
    }
    region->window = true;
    region->window_top = region->top;
    region->window_records = region->record_count;
    region->top = from.bytes;
}

void memory_window_close(struct memory *memory, enum memory_category category)
{
    struct region *region = &memory->region[category];
    if (!region->window) {
        BUG("no window of %s is open", memory_category_names[category]);
    }
    region->window = false;
    region->top = region->window_top;
    cut_records(region, region->window_records);
}

/* Live bytes, whatever a window shows. */
static size_t region_live(const struct region *region)
{
    return region->window ? region->window_top : region->top;
}

size_t memory_live(const struct memory *memory, enum memory_category category)
{
    return region_live(&memory->region[category]);
}

size_t memory_peak(const struct memory *memory, enum memory_category category)
{
    return memory->region[category].peak;
}

size_t memory_capacity(const struct memory *memory, enum memory_category category)
{
    return memory->region[category].capacity;
}

size_t memory_peak_total(const struct memory *memory)
{
    return memory->peak_total;
}

void memory_reset_peak(struct memory *memory)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        memory->region[c].peak = region_live(&memory->region[c]);
    }
    memory->peak_total = memory->live_total;
    memory->peak_stale = true;
    memory->peak_kept = false;
}

static int by_bytes(const void *a, const void *b)
{
    const struct memory_record *left = a;
    const struct memory_record *right = b;
    if (left->bytes != right->bytes) {
        return left->bytes < right->bytes ? 1 : -1;
    }
    return strcmp(left->name, right->name);
}

size_t memory_peak_records(const struct memory *memory, struct memory_record *out, size_t limit)
{
    size_t count = 0;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT && memory->peak_kept; c++) {
        count += memory->region[c].kept_count;
    }
    if (count == 0) {
        return 0;
    }
    struct memory_record *sorted = xcalloc(count, sizeof *sorted);
    size_t at = 0;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        const struct region *region = &memory->region[c];
        if (region->kept_count > 0) {
            memcpy(sorted + at, region->kept, region->kept_count * sizeof *sorted);
            at += region->kept_count;
        }
    }
    qsort(sorted, count, sizeof *sorted, by_bytes);
    count = count < limit ? count : limit;
    memcpy(out, sorted, count * sizeof *sorted);
    free(sorted);
    return count;
}

void *memory_address(const struct memory *memory, enum memory_category category,
                     struct memory_position position)
{
    return (void *)((uintptr_t)memory->region[category].base + position.bytes);
}
