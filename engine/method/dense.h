/*
 * Parameters that train in full outside the linear layers, unless frozen: embedding, head, norms.
 */
#ifndef WINDROW_ENGINE_METHOD_DENSE_H
#define WINDROW_ENGINE_METHOD_DENSE_H

#include "engine/method/method.h"

struct dense {
    struct backend *be;
    struct model *model;
    const struct rule_ops *rule;
    double weight_decay;
    struct tensor *gradient;  /* by parameter number; without data for matrices and frozen ones */
    struct rule_state *state; /* likewise */
};

void dense_attach(struct dense *dense, struct backend *be, struct memory *memory,
                  struct model *model, const struct rule_ops *rule, enum dtype state_dtype);
void dense_detach(struct dense *dense);
void dense_zero_gradients(struct dense *dense);
void dense_each_gradient(struct dense *dense, const struct gradient_visitor *visitor);
void dense_add_squares(struct dense *dense, struct tensor *sum);
void dense_update(struct dense *dense, double lr, const struct rule_settings *settings);
void dense_visit(struct dense *dense, const struct state_visitor *visitor);
int dense_restore(struct dense *dense, const struct state_source *source, struct error *err);

#endif
