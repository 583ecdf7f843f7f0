/*
 * Parameters that train in full outside the linear layers, unless frozen: embedding, head, norms.
 * Of the embedding's gradient only the rows that occur may be kept: token_rows.h. With several
 * ranks the states of embedding and head are split over them: owned_rows.h.
 */
#ifndef WINDROW_ENGINE_METHOD_DENSE_H
#define WINDROW_ENGINE_METHOD_DENSE_H

#include "engine/method/owned_rows.h"
#include "engine/method/token_rows.h"

struct dense {
    struct backend *be;
    struct memory *memory;
    struct model *model;
    const struct rule_ops *rule;
    double weight_decay;
    struct tensor *gradient;  /* by parameter number; without data for matrices and frozen ones */
    struct owned_rows *owned; /* likewise: their states */
    bool by_rows;             /* of the embedding, only rows that occur have a gradient */
    bool head_asked;          /* for the sum of this step's gradient of the head */
    struct token_rows rows;
};

/* For steps of up to `step_tokens` tokens, with the method's rule and settings. An error if the
 * recipe asks for rows of an embedding that is the head too. */
int dense_attach(struct dense *dense, const struct method *method, int64_t step_tokens,
                 struct error *err);
void dense_detach(struct dense *dense);

/* Before the first micro-batch: zeroed gradients. Where dense->by_rows, the ids of the step's
 * `tokens` tokens are `ids` on the host and have been uploaded into dense->rows.ids. */
void dense_begin_step(struct dense *dense, const int32_t *ids, int64_t tokens);
/* What takes the place of the ids in the embedding's backward, for tokens [first, first + count) of
 * the step; of rank 0: the ids do. */
struct tensor dense_slots(const struct dense *dense, int64_t first, int64_t count);

/* What follows is as in struct method_ops. */
void dense_each_gradient(struct dense *dense, const struct gradient_visitor *visitor);
void dense_ask_sums(struct dense *dense);
void dense_take_sums(struct dense *dense);
/* Asks for the sum of the head's gradient, which is complete before the others: once the loss of
 * the last micro-batch is computed. Nothing where it has none of its own. */
void dense_ask_head(struct dense *dense);
void dense_add_squares(struct dense *dense, struct tensor *sum);
bool dense_add_own_squares(struct dense *dense, struct tensor *sum);
void dense_update(struct dense *dense, double lr, const struct rule_settings *settings);
/* After the comm_wait that follows an update. */
void dense_take_weights(struct dense *dense);
void dense_visit(struct dense *dense, const struct state_visitor *visitor);
int dense_restore(struct dense *dense, const struct state_source *source, struct error *err);

#endif
