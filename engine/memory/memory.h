/*
 * Device memory: one region per category, taken once, of exactly the planned size.
 *
 * Tensors are placed in a region like a stack: memory_mark remembers the top, memory_release goes
 * back to it. Every tensor is a record with a name, so that "what was alive at the peak" has an
 * answer. On the null backend capacities are unlimited, and the peaks reached there are the plan;
 * on a real one the plan's peaks are the capacities, and placing one byte more is an error. What a
 * kernel takes for its inside comes from the top of the workspace, so the backend of a trainer has
 * no memory of its own.
 */
#ifndef WINDROW_ENGINE_MEMORY_MEMORY_H
#define WINDROW_ENGINE_MEMORY_MEMORY_H

#include "engine/base/error.h"
#include "kernels/backend.h"

enum memory_category {
    MEMORY_WEIGHTS,
    MEMORY_GRADIENTS,
    MEMORY_OPTIMIZER,
    MEMORY_ACTIVATIONS,
    MEMORY_WORKSPACE,
    MEMORY_CATEGORY_COUNT
};

/* "weights", "gradients", "optimizer", "activations", "workspace". */
extern const char *const memory_category_names[MEMORY_CATEGORY_COUNT];

/* Every tensor starts at a multiple of this many bytes, which therefore count as used. */
enum { MEMORY_ALIGNMENT = 256, MEMORY_NAME_SIZE = 96 };

struct memory_record {
    char name[MEMORY_NAME_SIZE];
    enum memory_category category;
    enum dtype dtype;
    int rank;
    int64_t dim[TENSOR_RANK_MAX];
    size_t bytes; /* aligned */
};

struct memory;

/* Takes the regions. capacity NULL: unlimited (null backend only). NULL if the device has not
 * enough, naming the category and the bytes. */
struct memory *memory_open(struct backend *be, const size_t capacity[MEMORY_CATEGORY_COUNT],
                           struct error *err);
void memory_close(struct memory *memory);

/* Gives one category's region back and takes one of another size; what was placed there is lost. */
int memory_resize(struct memory *memory, enum memory_category category, size_t capacity,
                  struct error *err);

/* Places a tensor. If it does not fit, the backend's error is latched with the tensor and the
 * category named, and a tensor without data is returned. The name is copied. */
struct memory_shape {
    enum dtype dtype;
    int rank;
    int64_t dim[TENSOR_RANK_MAX];
};
struct tensor memory_tensor(struct memory *memory, enum memory_category category, const char *name,
                            struct memory_shape shape);

/* The same for one- and two-dimensional shapes. */
struct tensor memory_vector(struct memory *memory, enum memory_category category, const char *name,
                            enum dtype dtype, int64_t count);
struct tensor memory_matrix(struct memory *memory, enum memory_category category, const char *name,
                            enum dtype dtype, const int64_t dim[2]);

struct memory_position {
    size_t bytes;
    size_t records;
};
struct memory_position memory_mark(const struct memory *memory, enum memory_category category);
void memory_release(struct memory *memory, enum memory_category category,
                    struct memory_position mark);

/* A window: what is placed while it is open lies from an older position on, over tensors whose
 * contents have gone elsewhere. Their records stay, no byte counts twice, and nothing can be placed
 * past what was live when it was opened. One at a time a category. */
void memory_window_open(struct memory *memory, enum memory_category category,
                        struct memory_position from);
void memory_window_close(struct memory *memory, enum memory_category category);

/* Where a position lies on the device. */
void *memory_address(const struct memory *memory, enum memory_category category,
                     struct memory_position position);

/* Bytes of live records now, and their high-water mark since memory_reset_peak. */
size_t memory_live(const struct memory *memory, enum memory_category category);
size_t memory_peak(const struct memory *memory, enum memory_category category);
size_t memory_capacity(const struct memory *memory, enum memory_category category);
/* High-water mark of the sum over categories. */
size_t memory_peak_total(const struct memory *memory);
void memory_reset_peak(struct memory *memory);

/* The records that were alive when the sum over categories was highest, largest first; at most
 * `limit`. Returns how many were written. Kept only on the null backend (it costs time). */
size_t memory_peak_records(const struct memory *memory, struct memory_record *out, size_t limit);

#endif
