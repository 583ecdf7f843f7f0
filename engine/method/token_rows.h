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
 *
 * With several ranks the states are split by words (owned_rows.h). Slots ascend by words, so those
 * of a rank's words are neighbours: each gets the sum of its own slots, updates their words, and
 * puts the new rows of the weight into the gradient's memory, from which all take what others
 * updated. Which slots are whose depends on the data, which the host knows; room is taken for the
 * most that there can be.
 */
#ifndef WINDROW_ENGINE_METHOD_TOKEN_ROWS_H
#define WINDROW_ENGINE_METHOD_TOKEN_ROWS_H

#include "engine/method/method.h"

struct token_rows {
    struct tensor ids;   /* (T) int32: of all micro-batches of a step, one after the other */
    struct tensor slots; /* (T) int32: their rows in the gradient */
    struct tensor index; /* (R) int32: ids that occur, ascending, then -1 */

    /* Where states are split. */
    struct comm *comm;  /* NULL: they are not */
    int64_t *bound;     /* slots [bound[p], bound[p + 1]) are rank p's; ranks + 1 numbers */
    int64_t used;       /* slots that have a word */
    struct tensor own;  /* words of this rank's slots, counted from the rank's first */
    int32_t *own_words; /* the same on the host */
    uint8_t *seen;      /* by word: whether it occurs */
};

/* Places them for a vocabulary of `words`; the gradient has tensor_count(index) rows. */
void token_rows_place(struct token_rows *rows, struct memory *memory, int64_t words,
                      int64_t step_tokens);
/* Of states that are split over these ranks. */
void token_rows_split(struct token_rows *rows, struct comm *comm, struct memory *memory,
                      int64_t words);
void token_rows_free(struct token_rows *rows);

/* Settles the rows of a step, whose first `tokens` ids have been uploaded into `ids`. */
void token_rows_settle(struct token_rows *rows, struct backend *be, struct memory *memory,
                       int64_t words, int64_t tokens);
/* Where states are split: which slots are whose. `ids`: the same on the host. */
void token_rows_share_out(struct token_rows *rows, struct backend *be, const int32_t *ids,
                          int64_t tokens, int64_t words);

/* The slots that this rank updates; where nothing is split all of them. */
struct token_range {
    int64_t first;
    int64_t count;
};
struct token_range token_rows_own(const struct token_rows *rows);

/* What an update acts on. `state` holds all rows, or those of this rank's words. */
struct token_rows_update {
    const struct token_rows *rows;
    struct backend *be;
    struct memory *memory;
    const struct rule_ops *rule;
    const struct rule_settings *settings;
    const struct rule_target *target; /* as of a dense update; gradient (R, C) */
};
void token_rows_apply(const struct token_rows_update *update, struct rule_state *state);

/* Where states are split, after the update: puts the own rows of the weight into the gradient's
 * memory and asks all ranks for theirs; after a comm_wait the weight takes them. */
void token_rows_ask_weight(const struct token_rows *rows, struct backend *be,
                           const struct tensor *weight, struct tensor *gradient);
void token_rows_take_weight(const struct token_rows *rows, struct backend *be,
                            struct tensor *weight, const struct tensor *gradient);

#endif
