/* GaLore on a single matrix with a gradient that the test chooses: dW = dy^T x. */
#ifndef WINDROW_TESTS_ENGINE_METHOD_ONE_MATRIX_H
#define WINDROW_TESTS_ENGINE_METHOD_ONE_MATRIX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/method/galore.h"
#include "engine/method/galore_parts.h"

struct one_matrix {
    struct backend *be;
    struct comm *comm;
    struct memory *memory;
    struct parameter parameter;
    struct linear linear;
    struct model model;
    struct method method;
    struct rule_settings settings;
    struct tensor control;
    struct tensor dy, x; /* (tokens, m), (tokens, n) */
    double lr;
    int64_t step;
};

/* W (m, n) is zero; rank 4, interval 1000, scale 1, rotate, subspace: change method.settings before
 * the first step. */
void one_open(struct one_matrix *o, int64_t m, int64_t n, int64_t tokens, int64_t rank);
void one_close(struct one_matrix *o);

/* The same with another rule and other states, before the first step. */
void one_use(struct one_matrix *o, const struct rule_ops *rule, enum dtype state_dtype);

/* dy and x become the transposed factors of G (m, n) = left (m, k) right (k, n), k = tokens. */
void one_set_gradient(struct one_matrix *o, const float *left, const float *right);

/* A whole step with this gradient in `micros` equal micro-batches. */
void one_step(struct one_matrix *o, int micros);

const struct galore_part *one_part(const struct one_matrix *o);

/* Largest |Q^T Q - I|. */
double one_defect(const struct one_matrix *o);

/* G in double, (m, n), and ||G Q||^2 or ||P^T G||^2 of the basis in use. */
double *one_gradient(const struct one_matrix *o);
double one_captured(const struct one_matrix *o);

#endif
