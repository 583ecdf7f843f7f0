/*
 * Optimizer states split over the ranks: ZeRO stage 1 (Rajbhandari, Rasley, Ruwase, He, "ZeRO:
 * memory optimizations toward training trillion parameter models", arXiv 1910.02054, section 5.1).
 *
 * Of P ranks each owns a P-th of the rows of a matrix: it holds their states, steps them, and gives
 * them to all. It needs the sum of the gradient in its own rows only, so a reduce-scatter of the
 * gradient and an all-gather of the weight take the place of an all-reduce of the gradient, with
 * the same bytes on the wire: there is nothing to choose, and it is always so with several ranks.
 *
 * Every rank makes room for the largest share (comm_share_rows), so that one plan holds for all.
 * Vectors stay whole on every rank, and so does a matrix with so few rows that a rank would own
 * none. What methods keep of a matrix beside (Grass, GaLore, LoRA) is small and whole as well.
 *
 * A parameter may be a part of a matrix that is packed with others: its rows are then those of the
 * matrix from some row on, and a rank may own none of them.
 */
#ifndef WINDROW_ENGINE_METHOD_OWNED_ROWS_H
#define WINDROW_ENGINE_METHOD_OWNED_ROWS_H

#include "engine/method/method.h"

struct owned_rows {
    struct backend *be;
    struct comm *comm;
    const struct exchange *exchange;
    bool split;    /* false: all rows are this rank's, and every other's */
    int64_t rows;  /* of the matrix; of a vector 1 */
    int64_t share; /* rows that every rank has room for */
    int64_t first; /* rows [first, first + count) are this rank's */
    int64_t count;
    struct rule_state state; /* of `share` rows, the first `count` of them in use */
};

/* Places the states of a matrix or vector like layout->like; layout->ages is 1, or one a row. */
void owned_rows_place(struct owned_rows *owned, const struct method *method,
                      const struct rule_layout *layout);

/* Asks for the sum of the gradient over the ranks, and takes it after a comm_wait: in the own rows,
 * where they are split; the others hold nothing of use afterwards. */
void owned_rows_ask_sum(struct owned_rows *owned, struct tensor *gradient);
void owned_rows_take_sum(struct owned_rows *owned, struct tensor *gradient);

/* Adds the squares of the gradient's own rows to sum (1). What is split has then to be added up
 * over the ranks, what is whole is the same on all of them. */
void owned_rows_add_squares(const struct owned_rows *owned, const struct tensor *gradient,
                            struct tensor *sum);

/* One step of the own rows. `target` is that of the whole matrix. Where rows are split the weight
 * is asked back from all ranks (comm_wait completes it). */
void owned_rows_step(struct owned_rows *owned, const struct rule_ops *rule,
                     const struct rule_settings *settings, const struct rule_target *target);

/* Rows [first, first + count) of the matrix: a parameter. */
struct owned_part {
    const char *parameter;
    int64_t first;
    int64_t count;
};
/* Shows the states of a parameter, but for the age. */
void owned_rows_show(const struct owned_rows *owned, const struct state_visitor *visitor,
                     const struct owned_part *part);
/* Shows the age, under the name of `parameter`. */
void owned_rows_show_age(const struct owned_rows *owned, const struct state_visitor *visitor,
                         const char *parameter);
/* Takes them back, of the set's whole tensors the own rows. */
int owned_rows_restore(struct owned_rows *owned, const struct state_source *source,
                       const struct owned_part *part, struct error *err);
int owned_rows_restore_age(struct owned_rows *owned, const struct state_source *source,
                           const char *parameter, struct error *err);

#endif
