/*
 * The gradient of the embedding, kept only for the rows whose tokens occur in a step.
 *
 * A step of T tokens touches at most R = min(V, T) of the V rows of the embedding, so its gradient
 * (R, C) takes R / V of the dense one. The ids of all micro-batches are known before the first of
 * them: which row of the gradient belongs to which token (op_distinct) is settled once a step, and
 * micro-batches add to the same rows.
 *
 * The update is lazy: of a row that does not occur neither weight nor moments change, and it does
 * not decay; each row has an age of its own, which counts the steps that it occurred in and
 * corrects the bias of its moments. Dense AdamW in contrast goes on moving a row by its decaying
 * first moment and decays it in every step. Where every row occurs in every step both are the same
 * to the bit. States lie as (V, ...) as they would under a dense gradient; those that a step needs
 * pass through the workspace, a bounded number at a time.
 */
#ifndef WINDROW_ENGINE_METHOD_TOKEN_ROWS_H
#define WINDROW_ENGINE_METHOD_TOKEN_ROWS_H

#include "engine/method/method.h"

struct token_rows {
    struct tensor ids;   /* (T) int32: of all micro-batches of a step, one after the other */
    struct tensor slots; /* (T) int32: their rows in the gradient */
    struct tensor index; /* (R) int32: ids that occur, ascending, then -1 */
};

/* Places them for a vocabulary of `words`; the gradient has tensor_count(index) rows. */
void token_rows_place(struct token_rows *rows, struct memory *memory, int64_t words,
                      int64_t step_tokens);

/* Settles the rows of a step, whose first `tokens` ids have been uploaded into `ids`. */
void token_rows_settle(struct token_rows *rows, struct backend *be, struct memory *memory,
                       int64_t words, int64_t tokens);

/* What an update acts on. `state` holds all rows. */
struct token_rows_update {
    const struct token_rows *rows;
    struct backend *be;
    struct memory *memory;
    const struct rule_ops *rule;
    const struct rule_settings *settings;
    const struct rule_target *target; /* as of a dense update; gradient (R, C) */
};
void token_rows_apply(const struct token_rows_update *update, struct rule_state *state);

#endif
