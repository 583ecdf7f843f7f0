/* Cases of the update: selection, gather and scatter, AdamW, random numbers. */
#include "gpu/cases.h"

#include <math.h>
#include <stdlib.h>

static const enum dtype types[] = { DTYPE_F32, DTYPE_BF16 };

static struct item uniform(int64_t rows, int64_t columns, enum dtype dtype, float low, float high)
{
    return (struct item){ rows, columns, dtype, FILL_UNIFORM, low, high, NULL, false };
}

static struct item changed(int64_t rows, int64_t columns, enum dtype dtype, float low)
{
    return (struct item){ rows, columns, dtype, FILL_UNIFORM, low, 1.0f, NULL, true };
}

static struct item output(int64_t rows, int64_t columns, enum dtype dtype)
{
    return (struct item){ rows, columns, dtype, FILL_POISON, 0.0f, 0.0f, NULL, true };
}

/* Distinct candidates of `limit` in ascending order, with an unused slot here and there. */
static int32_t *slots_of(struct report *r, int64_t slots, int64_t limit)
{
    int32_t *index = malloc((size_t)slots * sizeof *index);
    if (index == NULL) {
        abort();
    }
    int64_t stride = limit / slots;
    for (int64_t j = 0; j < slots; j++) {
        int64_t chosen = j * stride + case_random(r, 0, stride - 1);
        index[j] = case_random(r, 0, 6) == 0 ? -1 : (int32_t)chosen;
    }
    return index;
}

static struct item given(const int32_t *index, int64_t slots)
{
    return (struct item){ 1, slots, DTYPE_I32, FILL_GIVEN, 0.0f, 0.0f, index, false };
}

/* ---- norms and choice ----------------------------------------------------------------------- */

static void run_squared_norms(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_squared_norms(be, &t[0], &t[1], n->yes ? SIDE_COLUMNS : SIDE_ROWS);
}

static void cases_norms(struct report *r)
{
    for (int i = 0; i < 8; i++) {
        int64_t rows = case_random(r, 1, 9) * (i % 3 == 0 ? 20 : 1);
        int64_t columns = i < 4 ? case_random(r, 1, 40) : 8 * case_random(r, 30, 300);
        bool yes = (i & 2) != 0;
        struct trial t = { "squared_norms",
                           { output(1, yes ? columns : rows, DTYPE_F32) },
                           2,
                           { .yes = yes },
                           run_squared_norms };
        t.item[1] = uniform(rows, columns, types[i & 1], -2, 2);
        case_run(r, &t);
    }
}

static void run_select(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_select(be, &(struct select){ .index = &t[0],
                                    .scale = &t[1],
                                    .norms = &t[2],
                                    .offset = 5,
                                    .rule = (enum select_rule)n->a,
                                    .replacement = n->yes,
                                    .unbiased = n->other,
                                    .key = { 31, RANDOM_SELECT, 3, (uint32_t)n->b } });
}

/* Norms far apart, with zeros and equals among them; `odd`: one of them is not finite. */
static float *uneven_norms(struct report *r, int64_t count, bool odd)
{
    float *norms = malloc((size_t)count * sizeof *norms);
    if (norms == NULL) {
        abort();
    }
    for (int64_t i = 0; i < count; i++) {
        float norm = exp2f((float)case_random(r, -80, 80) / 10.0f);
        norms[i] = case_random(r, 0, 9) == 0 ? 0.0f : norm;
    }
    if (odd) {
        norms[count / 2] = NAN;
        norms[count / 3] = INFINITY;
    }
    return norms;
}

static void cases_select(struct report *r)
{
    for (int i = 0; i < 40; i++) {
        int64_t candidates = i < 16   ? case_random(r, 1, 60)
                             : i < 28 ? case_random(r, 500, 700) * r->size
                                      : case_random(r, 2100, 5000);
        int64_t slots = i % 5 == 0 ? candidates : case_slots(r, i / 5, candidates);
        float *norms = uneven_norms(r, candidates, i % 7 == 6);
        struct numbers n = { .a = i % 5, .b = i, .yes = (i & 4) != 0, .other = (i & 8) != 0 };
        struct trial t = { "select", { output(1, slots, DTYPE_I32) }, 3, n, run_select };
        t.item[1] = output(1, slots, DTYPE_F32);
        t.item[2] = (struct item){ 1, candidates, DTYPE_F32, FILL_GIVEN, 0, 0, norms, false };
        case_run(r, &t);
        free(norms);
    }
}

/* ---- gather and scatter --------------------------------------------------------------------- */

static void run_gather(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_gather(be, &t[0], &t[1], &t[2], n->yes ? SIDE_COLUMNS : SIDE_ROWS);
}

static void run_scatter(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_scatter(be, &t[0], &t[1], &t[2], n->yes ? SIDE_COLUMNS : SIDE_ROWS);
}

static void run_scale_side(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_scale_side(be, &t[0], &t[1], n->yes ? SIDE_COLUMNS : SIDE_ROWS);
}

static void cases_project(struct report *r)
{
    for (int i = 0; i < 16; i++) {
        int64_t rows = case_random(r, 3, 30);
        int64_t columns = i < 8 ? case_random(r, 3, 40) : 8 * case_random(r, 1, 300);
        bool yes = (i & 4) != 0;
        int64_t along = yes ? columns : rows;
        int64_t slots = case_slots(r, i, along);
        int32_t *index = slots_of(r, slots, along);
        int64_t part_rows = yes ? rows : slots;
        int64_t part_columns = yes ? slots : columns;
        enum dtype x = types[i & 1];
        enum dtype y = types[i >> 1 & 1];
        struct numbers n = { .yes = yes };
        struct trial g = { "gather", { output(part_rows, part_columns, y) }, 3, n, run_gather };
        g.item[1] = uniform(rows, columns, x, -1, 1);
        g.item[2] = given(index, slots);
        case_run(r, &g);
        struct trial s = { "scatter", { changed(rows, columns, x, -1) }, 3, n, run_scatter };
        s.item[1] = uniform(part_rows, part_columns, y, -1, 1);
        s.item[2] = given(index, slots);
        case_run(r, &s);
        struct trial c = { "scale_side", { changed(rows, columns, x, -1) }, 2, n, run_scale_side };
        c.item[1] = uniform(1, along, DTYPE_F32, -2, 2);
        case_run(r, &c);
        free(index);
    }
}

/* Elements of 16 bits that are no numbers: every pattern must arrive. */
static void cases_gather_bits(struct report *r)
{
    for (int i = 0; i < 6; i++) {
        int64_t rows = case_random(r, 3, 20);
        int64_t columns = i < 3 ? case_random(r, 3, 40) : 8 * case_random(r, 1, 40);
        bool yes = i % 2 != 0;
        int64_t along = yes ? columns : rows;
        int64_t slots = case_slots(r, i, along);
        int32_t *index = slots_of(r, slots, along);
        struct trial t = { "gather", { output(1, 1, DTYPE_I16) }, 3, { .yes = yes }, run_gather };
        t.item[0] = output(yes ? rows : slots, yes ? slots : columns, DTYPE_I16);
        t.item[1] = uniform(rows, columns, DTYPE_I16, -32768, 32767);
        t.item[2] = given(index, slots);
        case_run(r, &t);
        free(index);
    }
}

/* ---- optimizer ------------------------------------------------------------------------------ */

/* weight, m, v, age, gradient, control, index, rho */
static void run_adamw(struct backend *be, struct tensor *t, const struct numbers *n)
{
    struct adamw args = { .weight = &t[0],
                          .m = &t[1],
                          .v = &t[2],
                          .age = &t[3],
                          .gradient = &t[4],
                          .control = &t[5],
                          .residue = n->b > 0 ? &t[8] : NULL,
                          .index = n->a > 0 ? &t[6] : NULL,
                          .rho = n->a > 0 && n->other ? &t[7] : NULL,
                          .side = n->a == 2 ? SIDE_COLUMNS : SIDE_ROWS,
                          .lr = 0.01f,
                          .beta1 = 0.9f,
                          .beta2 = 0.999f,
                          .eps = 1e-8f,
                          .weight_decay = 0.1f,
                          .scale = 0.7f,
                          .rounding = n->yes ? ROUNDING_STOCHASTIC : ROUNDING_NEAREST,
                          .key = { 17, RANDOM_INIT, 9, 3 } };
    op_adamw(be, &args);
}

static void cases_adamw(struct report *r)
{
    static const float controls[2][3] = { { 0.5f, 0.0f, 2.0f }, { 0.5f, 1.0f, 2.0f } };
    for (int i = 0; i < 36; i++) {
        int64_t rows = case_random(r, 3, 20);
        int64_t columns = i % 2 == 0 ? case_random(r, 3, 50) : 8 * case_random(r, 1, 60);
        int64_t way = i % 3; /* dense, rows, columns */
        int64_t along = way == 2 ? columns : rows;
        int64_t slots = way == 0 ? 1 : case_slots(r, i, along);
        int32_t *index = slots_of(r, slots, along);
        int64_t g_rows = way == 1 ? slots : rows;
        int64_t g_columns = way == 2 ? slots : columns;
        enum dtype w = types[i / 3 & 1];
        enum dtype moments = types[i / 6 & 1];
        struct numbers n = { .a = way, .yes = i / 12 != 1, .other = i % 4 < 2 };
        struct trial t = { "adamw", { changed(rows, columns, w, -1) }, 8, n, run_adamw };
        t.item[1] = changed(g_rows, g_columns, moments, -1);
        t.item[2] = changed(g_rows, g_columns, moments, 0);
        t.item[3] = (struct item){ 1, slots, DTYPE_I32, FILL_BELOW, 0, 50, NULL, true };
        t.item[4] = uniform(g_rows, g_columns, types[i / 2 & 1], -1, 1);
        t.item[5] = (struct item){ 1, 3, DTYPE_F32, FILL_GIVEN, 0, 0, controls[i % 11 == 10], 0 };
        t.item[6] = given(index, slots);
        t.item[7] = uniform(1, slots, DTYPE_F32, 0.5f, 2);
        if (w == DTYPE_BF16 && i / 12 == 2) {
            t.numbers.b = 1;
            t.item[t.count++] = changed(g_rows, g_columns, DTYPE_I16, -32768);
        }
        case_run(r, &t);
        free(index);
    }
}

static void run_settle(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_settle(be, &(struct settle){ .weight = &t[0],
                                    .residue = &t[1],
                                    .index = &t[2],
                                    .side = n->yes ? SIDE_COLUMNS : SIDE_ROWS,
                                    .key = { 19, RANDOM_INIT, 4, 6 } });
}

static void cases_settle(struct report *r)
{
    for (int i = 0; i < 6; i++) {
        int64_t rows = case_random(r, 3, 20);
        int64_t columns = case_random(r, 3, 300);
        bool yes = i % 2 != 0;
        int64_t along = yes ? columns : rows;
        int64_t slots = case_slots(r, i, along);
        int32_t *index = slots_of(r, slots, along);
        struct trial t = {
            "settle", { changed(rows, columns, DTYPE_BF16, -1) }, 3, { 0 }, run_settle
        };
        t.numbers.yes = yes;
        t.item[1] = uniform(yes ? rows : slots, yes ? slots : columns, DTYPE_I16, -32768, 32767);
        t.item[2] = given(index, slots);
        case_run(r, &t);
        free(index);
    }
}

/* ---- eight bits and other rules ------------------------------------------------------------- */

static int64_t blocks_of(int64_t count)
{
    return (count + 255) / 256;
}

/* weight, m, v, age, gradient, control, index, rho, m_absmax, v_absmax, residue */
static void run_adamw_int8(struct backend *be, struct tensor *t, const struct numbers *n)
{
    struct adamw args = { .weight = &t[0],
                          .m = &t[1],
                          .v = &t[2],
                          .m_absmax = &t[8],
                          .v_absmax = &t[9],
                          .residue = n->c > 0 ? &t[10] : NULL,
                          .age = &t[3],
                          .gradient = &t[4],
                          .control = &t[5],
                          .index = n->b > 0 ? &t[6] : NULL,
                          .rho = n->b > 0 && n->other ? &t[7] : NULL,
                          .side = n->a == 1 ? SIDE_COLUMNS : SIDE_ROWS,
                          .lr = 0.01f,
                          .beta1 = 0.9f,
                          .beta2 = 0.999f,
                          .eps = 1e-8f,
                          .weight_decay = 0.1f,
                          .scale = 0.7f,
                          .rounding = n->yes ? ROUNDING_STOCHASTIC : ROUNDING_NEAREST,
                          .key = { 17, RANDOM_INIT, 9, 3 } };
    op_adamw(be, &args);
}

static const float step_controls[2][3] = { { 0.5f, 0.0f, 2.0f }, { 0.5f, 1.0f, 2.0f } };

static struct item control_item(int which)
{
    return (struct item){ 1, 3, DTYPE_F32, FILL_GIVEN, 0, 0, step_controls[which], false };
}

static void cases_adamw_int8(struct report *r)
{
    for (int i = 0; i < 24; i++) {
        int64_t side = i % 2;
        int64_t chosen = i / 2 % 2;
        int64_t rows = side == 1 ? case_random(r, 200, 600) : case_random(r, 3, 9);
        int64_t columns = side == 1 ? case_random(r, 3, 50) : case_random(r, 200, 600);
        int64_t along = side == 1 ? columns : rows;
        int64_t slots = chosen == 0 ? 1 : case_slots(r, i, along);
        int32_t *index = slots_of(r, slots, along);
        int64_t g_rows = chosen == 1 && side == 0 ? slots : rows;
        int64_t g_columns = chosen == 1 && side == 1 ? slots : columns;
        int64_t down = side == 1 ? blocks_of(g_rows) : g_rows;
        int64_t across = side == 1 ? g_columns : blocks_of(g_columns);
        struct numbers n = { .a = side, .b = chosen, .yes = i % 3 == 0, .other = i % 5 < 2 };
        struct trial t = {
            "adamw_int8", { changed(rows, columns, types[i / 4 & 1], -1) }, 10, n, run_adamw_int8
        };
        t.item[1] = (struct item){ g_rows, g_columns, DTYPE_U8, FILL_UNIFORM, 0, 256, NULL, true };
        t.item[2] = t.item[1];
        t.item[3] = (struct item){ 1, slots, DTYPE_I32, FILL_BELOW, 0, 50, NULL, true };
        t.item[4] = uniform(g_rows, g_columns, types[i / 2 & 1], -1, 1);
        t.item[5] = control_item(i % 11 == 10);
        t.item[6] = given(index, slots);
        t.item[7] = uniform(1, slots, DTYPE_F32, 0.5f, 2);
        t.item[8] = changed(down, across, DTYPE_F32, 0.1f);
        t.item[9] = changed(down, across, DTYPE_F32, 0.1f);
        if (i >= 12 && t.item[0].dtype == DTYPE_BF16) {
            t.numbers.c = 1;
            t.item[t.count++] = changed(g_rows, g_columns, DTYPE_I16, -32768);
        }
        case_run(r, &t);
        free(index);
    }
}

static void run_quantize(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_quantize(be, &(struct quantize){ &t[0], &t[1], &t[2], (enum quantize_map)n->a,
                                        n->yes ? SIDE_COLUMNS : SIDE_ROWS });
}

static void run_dequantize(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_dequantize(be, &(struct dequantize){ &t[0], &t[1], &t[2], (enum quantize_map)n->a,
                                            n->yes ? SIDE_COLUMNS : SIDE_ROWS });
}

static void cases_quantize(struct report *r)
{
    for (int i = 0; i < 8; i++) {
        bool yes = (i & 1) != 0;
        int64_t rows = yes ? case_random(r, 200, 600) : case_random(r, 1, 9);
        int64_t columns = yes ? case_random(r, 1, 50) : case_random(r, 200, 600);
        int64_t down = yes ? blocks_of(rows) : rows;
        int64_t across = yes ? columns : blocks_of(columns);
        struct numbers n = { .a = i / 2 % 2, .yes = yes };
        struct trial q = { "quantize", { output(rows, columns, DTYPE_U8) }, 3, n, run_quantize };
        q.item[1] = output(down, across, DTYPE_F32);
        q.item[2] = uniform(rows, columns, types[i / 4], n.a == 0 ? -1 : 0, 1);
        case_run(r, &q);
        struct trial d = {
            "dequantize", { output(rows, columns, types[i / 4]) }, 3, n, run_dequantize
        };
        d.item[1] = (struct item){ rows, columns, DTYPE_U8, FILL_UNIFORM, 0, 256, NULL, false };
        d.item[2] = uniform(down, across, DTYPE_F32, 0, 2);
        case_run(r, &d);
        int32_t *index = slots_of(r, 3, yes ? columns + 2 : rows + 2);
        index[2] = 0;
        struct trial g = {
            "gather", { output(yes ? rows : 1, yes ? 1 : columns, DTYPE_U8) }, 3, n, run_gather
        };
        g.item[1] = d.item[1];
        g.item[2] = given(index + 2, 1);
        case_run(r, &g);
        struct trial s = { "scatter",
                           { { rows, columns, DTYPE_U8, FILL_UNIFORM, 0, 256, NULL, true } },
                           3,
                           n,
                           run_scatter };
        s.item[1] = g.item[0];
        s.item[1].fill = FILL_UNIFORM;
        s.item[1].high = 256;
        s.item[1].written = false;
        s.item[2] = g.item[2];
        case_run(r, &s);
        free(index);
    }
}

/* weight, age, gradient, control, index, rho */
static void run_sgd(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_sgd(be, &(struct sgd){ .weight = &t[0],
                              .age = &t[1],
                              .gradient = &t[2],
                              .control = &t[3],
                              .index = n->a > 0 ? &t[4] : NULL,
                              .rho = n->other ? &t[5] : NULL,
                              .side = n->a == 2 || n->b > 0 ? SIDE_COLUMNS : SIDE_ROWS,
                              .lr = 0.01f,
                              .weight_decay = 0.1f,
                              .scale = 0.7f,
                              .rounding = n->yes ? ROUNDING_STOCHASTIC : ROUNDING_NEAREST,
                              .key = { 17, RANDOM_INIT, 9, 3 } });
}

static void cases_sgd(struct report *r)
{
    for (int i = 0; i < 18; i++) {
        int64_t rows = case_random(r, 3, 20);
        int64_t columns = case_random(r, 3, 500);
        int64_t way = i % 3;
        int64_t along = way == 2 ? columns : rows;
        int64_t slots = way == 0 ? 1 : case_slots(r, i, along);
        int32_t *index = slots_of(r, slots, along);
        struct numbers n = { .a = way, .yes = i / 3 % 2 == 0, .other = i / 6 % 2 == 0 };
        struct trial t = { "sgd", { changed(rows, columns, types[i / 9], -1) }, 6, n, run_sgd };
        t.item[1] = (struct item){ 1, slots, DTYPE_I32, FILL_BELOW, 0, 50, NULL, true };
        t.item[2] =
            uniform(way == 1 ? slots : rows, way == 2 ? slots : columns, types[i / 2 & 1], -1, 1);
        t.item[3] = control_item(i % 11 == 10);
        t.item[4] = given(index, slots);
        t.item[5] = uniform(1, way == 0 ? rows : slots, DTYPE_F32, 0.5f, 2);
        case_run(r, &t);
        if (way == 0 && n.other) {
            t.numbers.b = 1;
            t.item[5] = uniform(1, columns, DTYPE_F32, 0.5f, 2);
            case_run(r, &t);
        }
        free(index);
    }
}

static void run_unit_factors(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_unit_factors(be, &(struct unit_factors){ &t[0], &t[1], &t[2], n->a, n->b });
}

static void run_random_sign(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_random_sign(be, &t[0], n->f, (struct random_key){ 8, RANDOM_SKETCH, 7, (uint32_t)n->a });
}

static void cases_unselected(struct report *r)
{
    for (int i = 0; i < 6; i++) {
        int64_t count = i < 3 ? case_random(r, 2, 9) : case_random(r, 300, 900);
        int64_t slots = case_slots(r, i, count);
        int32_t *index = slots_of(r, slots, count);
        float *norms = uneven_norms(r, count, i % 2 == 1);
        struct trial u = { "unit_factors",
                           { output(1, count, DTYPE_F32) },
                           3,
                           { .a = 0, .b = 17 },
                           run_unit_factors };
        u.item[1] = (struct item){ 1, count, DTYPE_F32, FILL_GIVEN, 0, 0, norms, false };
        u.item[2] = given(index, slots);
        case_run(r, &u);
        struct trial s = { "random_sign",
                           { output(1, count, types[i & 1]) },
                           1,
                           { .a = i, .f = 0.125f },
                           run_random_sign };
        case_run(r, &s);
        free(norms);
        free(index);
    }
}

/* weight, m, v, anchor, age, gradient, control */
static void run_tradam(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_tradam(be, &(struct tradam){ .weight = &t[0],
                                    .m = &t[1],
                                    .v = &t[2],
                                    .anchor = &t[3],
                                    .age = &t[4],
                                    .gradient = &t[5],
                                    .control = &t[6],
                                    .interval = n->a,
                                    .pull = 0.3f,
                                    .harmonic = n->other,
                                    .lr = 0.01f,
                                    .beta1 = 0.9f,
                                    .beta2 = 0.999f,
                                    .eps = 1e-8f,
                                    .weight_decay = 0.1f,
                                    .scale = 0.7f,
                                    .rounding = n->yes ? ROUNDING_STOCHASTIC : ROUNDING_NEAREST,
                                    .key = { 17, RANDOM_INIT, 9, 3 } });
}

static void cases_tradam(struct report *r)
{
    for (int i = 0; i < 16; i++) {
        int64_t count = case_random(r, 1, 900);
        enum dtype w = types[i & 1];
        enum dtype moments = types[i / 2 & 1];
        struct numbers n = { .a = i % 5 == 0 ? 1 : 4, .yes = i / 4 % 2 == 0, .other = i % 3 == 0 };
        struct trial t = { "tradam", { changed(1, count, w, -1) }, 7, n, run_tradam };
        t.item[1] = changed(1, count, moments, -1);
        t.item[2] = changed(1, count, moments, 0);
        t.item[3] = changed(1, count, w, -1);
        t.item[4] = (struct item){ 1, 1, DTYPE_I32, FILL_BELOW, 0, 50, NULL, true };
        t.item[5] = uniform(1, count, types[i / 8], -1, 1);
        t.item[6] = control_item(i % 11 == 10);
        case_run(r, &t);
    }
}

static void run_random_normal(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_random_normal(be, &t[0], n->f, (struct random_key){ 8, RANDOM_INIT, 7, (uint32_t)n->a });
}

static void cases_random(struct report *r)
{
    for (int i = 0; i < 6; i++) {
        int64_t count = i < 3 ? case_random(r, 1, 9) : case_random(r, 1000, 5000) * r->size;
        struct trial t = { "random_normal",
                           { output(1, count, types[i & 1]) },
                           1,
                           { .a = i, .f = 0.02f },
                           run_random_normal };
        case_run(r, &t);
    }
}

void cases_update(struct report *report)
{
    cases_norms(report);
    cases_select(report);
    cases_project(report);
    cases_gather_bits(report);
    cases_adamw(report);
    cases_settle(report);
    cases_adamw_int8(report);
    cases_quantize(report);
    cases_sgd(report);
    cases_unselected(report);
    cases_tradam(report);
    cases_random(report);
}
