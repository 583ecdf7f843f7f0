/* One gradient and one rule state a dense parameter. See dense.h. */
#include "engine/method/dense.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

/* The first dense parameter at `index` or behind it that trains here: neither frozen, nor a head
 * that the method has. NULL past the last. Moves `index` behind it. */
static struct parameter *next_trained(const struct model *model, int64_t *index)
{
    struct parameter *p;
    do {
        p = model_dense_parameter(model, (*index)++);
    } while (p != NULL && (p->frozen || (model->head_linear != NULL && p == model->head)));
    return p;
}

/* Whether only rows of this parameter's gradient are kept. */
static bool is_by_rows(const struct dense *dense, const struct parameter *p)
{
    return dense->by_rows && p == dense->model->embedding;
}

static void place(struct dense *dense, const struct method *method, struct parameter *p)
{
    char name[MEMORY_NAME_SIZE];
    bool by_rows = is_by_rows(dense, p);
    snprintf(name, sizeof name, "%.80s gradient", p->name);
    struct memory_shape shape = { .dtype = dense->model->dtype,
                                  .rank = p->rank,
                                  .dim = { by_rows ? tensor_count(&dense->rows.index) : p->dim[0],
                                           p->dim[1] } };
    dense->gradient[p->id] = memory_tensor(dense->memory, MEMORY_GRADIENTS, name, shape);
    struct tensor like = p->value;
    like.rank = p->rank;
    owned_rows_place(&dense->owned[p->id], method,
                     &(struct rule_layout){ .name = p->name,
                                            .like = &like,
                                            .whole = parameter_count(p),
                                            .dtype = method->settings.state_dtype,
                                            .ages = by_rows ? p->dim[0] : 1 });
    if (by_rows && dense->owned[p->id].split) {
        token_rows_split(&dense->rows, method->comm, dense->memory, p->dim[0]);
    }
}

int dense_attach(struct dense *dense, const struct method *method, int64_t step_tokens,
                 struct error *err)
{
    struct model *model = method->model;
    *dense = (struct dense){ .be = method->be,
                             .memory = method->memory,
                             .model = model,
                             .rule = method->rule,
                             .weight_decay = method->settings.weight_decay };
    dense->gradient = xcalloc((size_t)model->parameter_count, sizeof *dense->gradient);
    dense->owned = xcalloc((size_t)model->parameter_count, sizeof *dense->owned);
    dense->by_rows = method->settings.embedding_rows && !model->embedding->frozen;
    if (dense->by_rows && model->head == model->embedding) {
        fail(err, ERROR_USAGE,
             "method.embedding=rows does not go with this model: its head is its embedding, and "
             "the head's gradient has all rows");
        return hint(err, "use method.embedding=dense");
    }
    if (dense->by_rows) {
        token_rows_place(&dense->rows, dense->memory, model->config.vocabulary, step_tokens);
    }
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(model, &i)) != NULL;) {
        place(dense, method, p);
    }
    return 0;
}

void dense_detach(struct dense *dense)
{
    free(dense->gradient);
    free(dense->owned);
    token_rows_free(&dense->rows);
    memset(dense, 0, sizeof *dense);
}

void dense_begin_step(struct dense *dense, const int32_t *ids, int64_t tokens)
{
    struct parameter *p;
    dense->head_asked = false;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        op_zero(dense->be, &dense->gradient[p->id]);
    }
    if (dense->by_rows) {
        int64_t words = dense->model->config.vocabulary;
        token_rows_settle(&dense->rows, dense->be, dense->memory, words, tokens);
        token_rows_share_out(&dense->rows, dense->be, ids, tokens, words);
    }
}

struct tensor dense_slots(const struct dense *dense, int64_t first, int64_t count)
{
    if (!dense->by_rows) {
        return (struct tensor){ .rank = 0 };
    }
    const struct tensor *slots = &dense->rows.slots;
    struct tensor column = tensor_as_matrix(slots, tensor_count(slots), 1);
    struct tensor range = tensor_row_range(&column, first, count);
    range.rank = 1;
    return range;
}

void dense_each_gradient(struct dense *dense, const struct gradient_visitor *visitor)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        visitor->visit(visitor->context, p->name, &dense->gradient[p->id]);
    }
}

/* Which rows of the sum of its gradient a rank needs. */
static struct exchange_rows rows_of(const struct dense *dense, const struct parameter *p)
{
    return (struct exchange_rows){ .split = dense->owned[p->id].split,
                                   .bound = is_by_rows(dense, p) ? dense->rows.bound : NULL };
}

static void ask_sum(struct dense *dense, const struct parameter *p)
{
    dense->gradient[p->id].name = p->name;
    exchange_ask(dense->owned[p->id].exchange, &dense->gradient[p->id], rows_of(dense, p));
}

void dense_ask_sums(struct dense *dense)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        if (p != dense->model->head || !dense->head_asked) {
            ask_sum(dense, p);
        }
    }
}

void dense_take_sums(struct dense *dense)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        exchange_take(dense->owned[p->id].exchange, &dense->gradient[p->id], rows_of(dense, p));
    }
}

void dense_ask_head(struct dense *dense)
{
    const struct model *model = dense->model;
    const struct parameter *head = model->head;
    if (head != model->embedding && !head->frozen && model->head_linear == NULL) {
        dense->head_asked = true;
        ask_sum(dense, head);
    }
}

void dense_add_squares(struct dense *dense, struct tensor *sum)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        if (!dense->owned[p->id].split) {
            owned_rows_add_squares(&dense->owned[p->id], &dense->gradient[p->id], sum);
        }
    }
}

static void add_own_squares(struct dense *dense, const struct parameter *p, struct tensor *sum)
{
    const struct tensor *gradient = &dense->gradient[p->id];
    if (!is_by_rows(dense, p)) {
        owned_rows_add_squares(&dense->owned[p->id], gradient, sum);
        return;
    }
    struct token_range own = token_rows_own(&dense->rows);
    if (own.count > 0) {
        struct tensor rows = tensor_row_range(gradient, own.first, own.count);
        op_sum_squares(dense->be, sum, &rows, true);
    }
}

bool dense_add_own_squares(struct dense *dense, struct tensor *sum)
{
    struct parameter *p;
    bool any = false;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        if (dense->owned[p->id].split) {
            any = true;
            add_own_squares(dense, p, sum);
        }
    }
    return any;
}

void dense_update(struct dense *dense, double lr, const struct rule_settings *settings)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        double decay = parameter_decays(p) ? dense->weight_decay : 0.0;
        struct rule_target target = { .weight = &p->value,
                                      .gradient = &dense->gradient[p->id],
                                      .lr = (float)lr,
                                      .weight_decay = (float)decay,
                                      .scale = 1.0f,
                                      .id = p->id };
        if (is_by_rows(dense, p)) {
            token_rows_apply(&(struct token_rows_update){ .rows = &dense->rows,
                                                          .be = dense->be,
                                                          .memory = dense->memory,
                                                          .rule = dense->rule,
                                                          .settings = settings,
                                                          .target = &target },
                             &dense->owned[p->id].state);
            token_rows_ask_weight(&dense->rows, dense->be, &p->value, &dense->gradient[p->id]);
        } else {
            owned_rows_step(&dense->owned[p->id], dense->rule, settings, &target);
        }
    }
}

void dense_take_weights(struct dense *dense)
{
    struct parameter *p = dense->model->embedding;
    if (dense->by_rows) {
        token_rows_take_weight(&dense->rows, dense->be, &p->value, &dense->gradient[p->id]);
    }
}

static struct owned_part part_of(const struct dense *dense, const struct parameter *p)
{
    return (struct owned_part){ .parameter = p->name, .count = dense->owned[p->id].rows };
}

void dense_visit(struct dense *dense, const struct state_visitor *visitor)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        struct owned_part part = part_of(dense, p);
        owned_rows_show(&dense->owned[p->id], visitor, &part);
        owned_rows_show_age(&dense->owned[p->id], visitor, p->name);
    }
}

int dense_restore(struct dense *dense, const struct state_source *source, struct error *err)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        struct owned_part part = part_of(dense, p);
        if (owned_rows_restore(&dense->owned[p->id], source, &part, err) != 0 ||
            owned_rows_restore_age(&dense->owned[p->id], source, p->name, err) != 0) {
            return -1;
        }
    }
    return 0;
}
