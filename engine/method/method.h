/*
 * Training methods: what becomes of the weight gradient of a linear layer.
 *
 * A method is attached to the linear layers of a model. In every backward it is handed dy and x of
 * each (model/linear.h); after the last micro-batch it adds its share to the gradient norm, and
 * then it applies the step. The dense parameters (embedding, head, norms) train in full under every
 * method but lora; dense.h does that. A method leaves parts of a layer alone whose parameter is
 * idle (targets.h); a layer whose parts are all idle is not shown to it.
 */
#ifndef WINDROW_ENGINE_METHOD_METHOD_H
#define WINDROW_ENGINE_METHOD_METHOD_H

#include "engine/comm/comm.h"
#include "engine/method/exchange.h"
#include "engine/method/selection.h"
#include "engine/method/state.h"
#include "engine/model/model.h"
#include "engine/optimizer/rule.h"

/* Which side of a matrix (M outputs, N inputs) is thinned out. SHORT: the shorter one (equal: out),
 * and then rank counts rows of that side rather than of the hidden size. */
enum selection_side { SELECTION_OUT, SELECTION_IN, SELECTION_SHORT };

/* How GaLore finds its basis, and what becomes of its moments when that changes (galore.h). */
enum projection { PROJECTION_SUBSPACE, PROJECTION_SVD };
enum moments { MOMENTS_KEEP, MOMENTS_ROTATE, MOMENTS_RESET };

/* The settings that methods read; the live ones may differ from step to step. */
struct method_settings {
    int64_t rank;
    int64_t interval;
    enum select_rule selection;
    bool replacement;
    bool unbiased;
    enum selection_side side;
    bool embedding_rows; /* the embedding has a gradient only in rows that occur: token_rows.h */
    bool head_rows; /* of an untied model the method has the head, as if it were a block's matrix */
    double scale;
    bool carry;
    int64_t refresh_warmup;
    int64_t sketch; /* columns of the sketch that norms are taken from; 0: of the gradient itself */
    int64_t unselected_every; /* 0: never */
    double unselected_scale;
    bool exact_rows;
    const char *targets; /* patterns: targets.h */
    const char *frozen;
    const char *rank_pattern;
    const char *alpha_pattern;
    double alpha;
    enum projection projection;
    enum moments moments;
    bool stagger;
    double weight_decay;
    enum dtype state_dtype;
    uint64_t seed;
};

struct method;

struct gradient_visitor {
    void (*visit)(void *context, const char *parameter, struct tensor *gradient);
    void *context;
};

/* Steps are step numbers; 0: none yet. */
struct method_counters {
    int64_t last_refresh;
    int64_t refresh_count;
};

/* A pair of matrices that stands beside a frozen one: y = x W^T + scale (x a^T) b^T. */
struct method_adapter {
    const struct parameter *parameter;
    int64_t rank;
    double scale;
    struct tensor a; /* (rank, N) fp32 */
    struct tensor b; /* (M, rank) fp32 */
};

struct method_ops {
    const char *name;        /* "grass" */
    const char *title;       /* "Grass: structured sparse gradients" */
    const char *reference;   /* "Muhamed et al., arXiv 2406.17660" */
    bool adapters;           /* weights stay as they are, what trains stands beside them */
    const char *const *keys; /* recipe keys "method..." that it reads; ends with NULL */
    /* Places gradients and states for all linear layers; method->state is the method's own. */
    int (*attach)(struct method *method, struct error *err);
    void (*detach)(struct method *method);
    /* Before the first micro-batch of step `step`. */
    void (*begin_step)(struct method *method, int64_t step);
    /* As in struct linear_hooks; NULL: it adds nothing. */
    void (*forward)(struct method *method, struct pass *pass, const struct linear *linear,
                    struct tensor *y, const struct tensor *x);
    void (*input_gradient)(struct method *method, struct pass *pass, const struct linear *linear,
                           struct tensor *dx, const struct tensor *dy);
    /* Whether weight_gradient asks for the same operations on the same memory in every step like
     * this one, and does nothing else: then a step may be replayed without calling it
     * (backend_replay). Asked after begin_step; NULL: never. What differs between steps must lie in
     * device memory. */
    bool (*replayable)(const struct method *method);
    /* In the backward; `method->micro` counts micro-batches of the step from 0. */
    void (*weight_gradient)(struct method *method, struct pass *pass, const struct linear *linear,
                            const struct tensor *dy, const struct tensor *x);
    /* As in struct linear_hooks; of methods that read method.head. */
    void (*head)(struct method *method, struct pass *pass, const struct linear *linear, bool begin);
    /* The columns of dy that weight_gradient will want of a layer in this micro-batch, NULL for all
     * (model/linear.h). The entry may be NULL. */
    const struct tensor *(*columns)(struct method *method, const struct linear *linear,
                                    bool *known);
    /* Keeps of the inputs what its weight gradients will want, if the recipe asks for that
     * (method.inputs); its context is the method. */
    const struct sampler_ops *inputs;
    /* Shows every gradient that it keeps, for sums over ranks and for tests. Until they are summed
     * each rank keeps that of its own tokens; what a choice of rows or a basis rests on is summed
     * by the method as it comes (method->comm), so that all ranks choose the same. */
    void (*each_gradient)(struct method *method, const struct gradient_visitor *visitor);
    /* Asks for the sums over the ranks of its gradients, after the last micro-batch; NULL: an
     * all-reduce of each. take_sums follows when they are there. */
    void (*ask_sums)(struct method *method);
    void (*take_sums)(struct method *method);
    /* Where method->early is set, weight_gradient asks for the sum of what it has completed, and
     * the rest is computed beside the exchange. A micro-batch in which it does is not replayed. */
    bool asks_early;
    /* Adds the squares of what it keeps to sum (1), after the last micro-batch; without those of
     * matrices whose states are split. */
    void (*add_squares)(struct method *method, struct tensor *sum);
    /* Adds the squares of this rank's rows of matrices whose states are split (owned_rows.h).
     * Whether there are any, which is the same on all ranks. NULL: there are none. */
    bool (*add_own_squares)(struct method *method, struct tensor *sum);
    /* Applies the step with learning rate `lr`, obeying settings->control. What it asks of other
     * ranks is complete after a comm_wait. */
    void (*update)(struct method *method, double lr, const struct rule_settings *settings);
    void (*visit)(struct method *method, const struct state_visitor *visitor);
    /* Takes its states back from a saved set, of another rank too. */
    int (*restore)(struct method *method, const struct state_source *source, struct error *err);
    /* Reports of the latest refresh. */
    int64_t (*selection_count)(const struct method *method);
    void (*selection)(const struct method *method, int64_t index, struct selection_report *report);
    /* Bytes of host memory that hold copies of tensors of the device all the time; NULL: none. */
    size_t (*host_bytes)(const struct method *method);
    /* Adapters, by number; NULL: it has none. `renew` follows a change of their values. */
    int64_t (*adapter_count)(const struct method *method);
    void (*adapter)(const struct method *method, int64_t index, struct method_adapter *out);
    void (*renew)(struct method *method);
};

struct method {
    const struct method_ops *ops;
    struct backend *be;
    struct memory *memory;
    struct model *model;
    struct comm *comm;               /* the ranks that train with this one */
    const struct exchange *exchange; /* of gradients with them */
    const struct rule_ops *rule;
    struct method_settings settings;
    struct method_counters counters;
    int64_t step;
    int64_t micro;
    int64_t micro_count; /* of this step */
    bool early;          /* this is the last one, and there are ranks to exchange with */
    /* Of this step, for methods that update in the backward: the learning rate, what rules need
     * beside it (control is not decided yet), and the sum of the losses so far. */
    double lr;
    const struct rule_settings *rule_settings;
    const struct tensor *loss;
    bool refreshed; /* this step chose rows anew, and was not skipped */
    void (*on_refresh)(void *context, bool begin); /* around the refresh of each matrix, or NULL */
    void *context;
    void *state;
};

const struct method_ops *method_find(const char *name);
/* Whether it reads the recipe key; true for keys that are not of the section "method". */
bool method_reads(const struct method_ops *ops, const char *key);
/* The names of the table, one by one; NULL past the last. */
const char *method_name(size_t index);

/* Called by restore of the methods: reads `name` of the saved set into a placed tensor of the same
 * shape and dtype. An error names the tensor and both shapes. */
int method_restore_tensor(struct backend *be, const struct state_source *source, const char *name,
                          struct tensor *tensor, struct error *err);

/* Likewise rows [first, ...) of a matrix `name` of `rows` rows, into one that has only these. */
struct method_rows {
    const char *name;
    struct tensor *tensor;
    int64_t rows;
    int64_t first;
};
int method_restore_rows(struct backend *be, const struct state_source *source,
                        const struct method_rows *rows, struct error *err);

#endif
