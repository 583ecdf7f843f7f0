/*
 * The table of a backend: what it implements, in the order of kernels/ops.h, which says what each
 * operation means. Arguments have been checked. A failure is latched with backend_fail.
 */
#ifndef WINDROW_KERNELS_BACKEND_OPS_H
#define WINDROW_KERNELS_BACKEND_OPS_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is behind kernels/transfer.h; `state` is what open returned. */
struct transfer_ops {
    bool (*pin)(struct backend *be, void *host, size_t bytes);
    void (*unpin)(struct backend *be, void *host);
    void *(*open)(struct backend *be);
    void (*close)(struct backend *be, void *state);
    void (*mark)(struct backend *be, void *state);
    void (*move)(struct backend *be, void *state, void *to, const void *from, size_t bytes,
                 bool out);
    void (*join)(struct backend *be, void *state);
    int (*wait)(struct backend *be, void *state);
    bool (*idle)(struct backend *be);
    bool (*lane_begin)(struct backend *be, void **stream);
    void (*lane_end)(struct backend *be);
    bool (*lane_idle)(struct backend *be);
};

struct backend_ops {
    const char *name;
    void (*close)(struct backend *be);
    int (*configure)(struct backend *be, const struct backend_options *options, char *why,
                     size_t why_size);
    int (*sync)(struct backend *be);
    void *(*alloc)(struct backend *be, size_t bytes);
    void (*free)(struct backend *be, void *data, size_t bytes);
    void (*upload)(struct backend *be, void *device, const void *host, size_t bytes);
    void (*download)(struct backend *be, void *host, const void *device, size_t bytes);
    /* What follows up to `zero` may be missing: there is a plain way for each. */
    void (*feed)(struct backend *be, void *device, const void *host, size_t bytes);
    void (*join)(struct backend *be);
    void (*fetch)(struct backend *be, void *host, const void *device, size_t bytes);
    bool (*capture_begin)(struct backend *be, int slot);
    bool (*capture_end)(struct backend *be, int slot);
    void (*launch)(struct backend *be, int slot);
    void (*forget)(struct backend *be, int slot);
    void (*enter)(struct backend *be); /* before each operation */
    /* ms[] is zeroed before. All three, or none: then it is the host's clock that tells. */
    void (*time_begin)(struct backend *be);
    void (*time_part)(struct backend *be, int part);
    bool (*time_read)(struct backend *be, double ms[BACKEND_PARTS]);
    void (*drop_scratch)(struct backend *be);
    int (*memory)(struct backend *be, size_t *free_bytes, size_t *total_bytes);
    char *(*tuning_export)(struct backend *be);
    int (*tuning_import)(struct backend *be, const char *text, char *why, size_t why_size);
    void (*tuning_name)(struct backend *be, char *name, size_t size);
    const struct transfer_ops *transfers; /* NULL: copies are made at once */

    void (*zero)(struct backend *, struct tensor *);
    void (*copy)(struct backend *, struct tensor *, const struct tensor *);
    void (*add)(struct backend *, struct tensor *, const struct tensor *);
    void (*scale)(struct backend *, struct tensor *, float);
    void (*sum)(struct backend *, struct tensor *, const struct tensor *, bool);
    void (*sum_squares)(struct backend *, struct tensor *, const struct tensor *, bool);
    void (*clip)(struct backend *, struct tensor *, const struct tensor *, const struct tensor *,
                 float);
    void (*matmul)(struct backend *, const struct matmul *);
    void (*rmsnorm_forward)(struct backend *, const struct rmsnorm_forward *);
    void (*rmsnorm_backward)(struct backend *, const struct rmsnorm_backward *);
    void (*rope)(struct backend *, const struct rope *);
    void (*attention_forward)(struct backend *, const struct attention_forward *);
    void (*attention_backward)(struct backend *, const struct attention_backward *);
    void (*attention_decode)(struct backend *, const struct attention_decode *);
    void (*swiglu_forward)(struct backend *, struct tensor *, const struct tensor *);
    void (*swiglu_backward)(struct backend *, const struct swiglu_backward *);
    void (*embedding_forward)(struct backend *, struct tensor *, const struct tensor *,
                              const struct tensor *);
    void (*embedding_backward)(struct backend *, struct tensor *, const struct tensor *,
                               const struct tensor *);
    void (*distinct)(struct backend *, const struct distinct *);
    void (*cross_entropy)(struct backend *, const struct cross_entropy *);
    void (*squared_norms)(struct backend *, struct tensor *, const struct tensor *, enum side);
    void (*select)(struct backend *, const struct select *);
    void (*gather)(struct backend *, struct tensor *, const struct tensor *, const struct tensor *,
                   enum side);
    void (*scatter)(struct backend *, struct tensor *, const struct tensor *, const struct tensor *,
                    enum side);
    void (*scale_side)(struct backend *, struct tensor *, const struct tensor *, enum side);
    void (*adamw)(struct backend *, const struct adamw *);
    void (*settle)(struct backend *, const struct settle *);
    void (*adamw_int8)(struct backend *, const struct adamw *);
    void (*sgd)(struct backend *, const struct sgd *);
    void (*unit_factors)(struct backend *, const struct unit_factors *);
    void (*tradam)(struct backend *, const struct tradam *);
    void (*quantize)(struct backend *, const struct quantize *);
    void (*dequantize)(struct backend *, const struct dequantize *);
    void (*random_normal)(struct backend *, struct tensor *, float, struct random_key);
    void (*orthonormalize)(struct backend *, const struct orthonormalize *);
    void (*eigenvectors)(struct backend *, struct tensor *, const struct tensor *);
    void (*square)(struct backend *, struct tensor *);
    void (*descend)(struct backend *, const struct descend *);
    void (*random_sign)(struct backend *, struct tensor *, float, struct random_key);
};

#ifdef __cplusplus
}
#endif

#endif
