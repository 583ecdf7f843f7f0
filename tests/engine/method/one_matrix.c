#include "one_matrix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/optimizer/adamw.h"

void one_open(struct one_matrix *o, int64_t m, int64_t n, int64_t tokens, int64_t rank)
{
    static const size_t capacity[MEMORY_CATEGORY_COUNT] = { 16 << 20, 16 << 20, 16 << 20, 16 << 20,
                                                            64 << 20 };
    struct error err = { 0 };
    char why[256];
    *o = (struct one_matrix){ .lr = 0.01 };
    o->be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(o->be);
    o->memory = memory_open(o->be, capacity, &err);
    assert_non_null(o->memory);
    const int64_t weight[2] = { m, n };
    const int64_t dy[2] = { tokens, m };
    const int64_t x[2] = { tokens, n };
    o->linear.weight = memory_matrix(o->memory, MEMORY_WEIGHTS, "weight", DTYPE_F32, weight);
    o->dy = memory_matrix(o->memory, MEMORY_ACTIVATIONS, "dy", DTYPE_F32, dy);
    o->x = memory_matrix(o->memory, MEMORY_ACTIVATIONS, "x", DTYPE_F32, x);
    o->control = memory_vector(o->memory, MEMORY_ACTIVATIONS, "control", DTYPE_F32, CONTROL_COUNT);
    op_zero(o->be, &o->linear.weight);
    op_zero(o->be, &o->control);
    ((float *)o->control.data)[CONTROL_FACTOR] = 1.0f;
    o->parameter.value = o->linear.weight;
    o->parameter.id = 3;
    o->parameter.rank = 2;
    o->parameter.dim[0] = m;
    o->parameter.dim[1] = n;
    snprintf(o->parameter.name, sizeof o->parameter.name, "matrix");
    o->linear.part_count = 1;
    o->linear.part[0] = (struct linear_part){ &o->parameter, 0, m };
    o->model.linear = &o->linear;
    o->model.linear_count = 1;
    o->model.dtype = DTYPE_F32;
    o->settings = (struct rule_settings){
        .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-12f, .seed = 5, .control = &o->control
    };
    o->comm = comm_open_single();
    o->method = (struct method){ .ops = &galore_method,
                                 .be = o->be,
                                 .memory = o->memory,
                                 .model = &o->model,
                                 .comm = o->comm,
                                 .rule = &adamw_rule };
    o->method.settings = (struct method_settings){ .rank = rank,
                                                   .interval = 1000,
                                                   .scale = 1.0,
                                                   .moments = MOMENTS_ROTATE,
                                                   .state_dtype = DTYPE_F32,
                                                   .seed = 5 };
    assert_int_equal(galore_method.attach(&o->method, &err), 0);
}

void one_close(struct one_matrix *o)
{
    galore_method.detach(&o->method);
    assert_int_equal(backend_sync(o->be), 0);
    memory_close(o->memory);
    comm_close(o->comm);
    backend_close(o->be);
}

void one_use(struct one_matrix *o, const struct rule_ops *rule, enum dtype state_dtype)
{
    struct error err = { 0 };
    galore_method.detach(&o->method);
    o->method.rule = rule;
    o->method.settings.state_dtype = state_dtype;
    assert_int_equal(galore_method.attach(&o->method, &err), 0);
}

void one_set_gradient(struct one_matrix *o, const float *left, const float *right)
{
    int64_t tokens = o->dy.dim[0];
    int64_t m = o->dy.dim[1];
    float *dy = o->dy.data;
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < m; i++) {
            dy[t * m + i] = left[i * tokens + t];
        }
    }
    backend_upload(o->be, o->x.data, right, tensor_bytes(&o->x));
}

void one_step(struct one_matrix *o, int micros)
{
    struct pass pass = { .be = o->be, .memory = o->memory, .training = true };
    int64_t rows = o->dy.dim[0] / micros;
    galore_method.begin_step(&o->method, ++o->step);
    for (int i = 0; i < micros; i++) {
        struct tensor dy = tensor_row_range(&o->dy, i * rows, rows);
        struct tensor x = tensor_row_range(&o->x, i * rows, rows);
        o->method.micro = i;
        galore_method.weight_gradient(&o->method, &pass, &o->linear, &dy, &x);
    }
    o->settings.step = (uint32_t)o->step;
    galore_method.update(&o->method, o->lr, &o->settings);
    assert_int_equal(backend_sync(o->be), 0);
}

const struct galore_part *one_part(const struct one_matrix *o)
{
    return &((const struct galore *)o->method.state)->part[0];
}

double one_defect(const struct one_matrix *o)
{
    const struct tensor *basis = &one_part(o)->basis;
    const float *q = basis->data;
    int64_t r = tensor_columns(basis);
    double worst = 0.0;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j < r; j++) {
            double sum = i == j ? -1.0 : 0.0;
            for (int64_t t = 0; t < tensor_rows(basis); t++) {
                sum += (double)q[t * r + i] * (double)q[t * r + j];
            }
            worst = isfinite(sum) ? fmax(worst, fabs(sum)) : 1e9;
        }
    }
    return worst;
}

double *one_gradient(const struct one_matrix *o)
{
    int64_t m = o->dy.dim[1];
    int64_t n = o->x.dim[1];
    const float *dy = o->dy.data;
    const float *x = o->x.data;
    double *g = calloc((size_t)(m * n), sizeof *g);
    assert_non_null(g);
    for (int64_t t = 0; t < o->dy.dim[0]; t++) {
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) {
                g[i * n + j] += (double)dy[t * m + i] * (double)x[t * n + j];
            }
        }
    }
    return g;
}

double one_captured(const struct one_matrix *o)
{
    const struct galore_part *part = one_part(o);
    const float *q = part->basis.data;
    int64_t n = o->x.dim[1];
    double *g = one_gradient(o);
    double total = 0.0;
    for (int64_t l = 0; l < part->large; l++) {
        for (int64_t r = 0; r < part->rank; r++) {
            double sum = 0.0;
            for (int64_t s = 0; s < part->small; s++) {
                sum += g[part->right ? l * n + s : s * n + l] * (double)q[s * part->rank + r];
            }
            total += sum * sum;
        }
    }
    free(g);
    return total;
}
