/*
 * Eight-bit moments: the tables against their definition, the nearest entry against a search, and
 * AdamW on them against AdamW in fp32.
 */
#include "kernels/adam_problem.h"

#include "kernels/quantize.h"

/* ---- the tables ------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return d < 0.0 ? -1 : d > 0.0;
}

/* From the definition: middles of equal intervals of [0.1, 1] in seven decades, 0 and 1. */
static void define_table(enum quantize_map map, double table[QUANTIZE_CODES])
{
    int count = 0;
    for (int e = 0; e < 7; e++) {
        int n = map == QUANTIZE_SIGNED ? 1 << e : 2 << e;
        for (int i = 0; i < n; i++) {
            double low = 0.1 + 0.9 * i / n;
            double high = 0.1 + 0.9 * (i + 1) / n;
            double middle = (low + high) / 2.0 * pow(10.0, e - 6);
            table[count++] = middle;
            if (map == QUANTIZE_SIGNED) {
                table[count++] = -middle;
            }
        }
    }
    table[count++] = 0.0;
    table[count++] = 1.0;
    assert_int_equal(count, QUANTIZE_CODES);
    qsort(table, QUANTIZE_CODES, sizeof *table, ascending);
}

static void test_tables(void **state)
{
    (void)state;
    const struct {
        enum quantize_map map;
        int code;
        double value;
    } known[] = {
        { QUANTIZE_SIGNED, 0, -0.99296875 },
        { QUANTIZE_SIGNED, 64, -0.09859375 },
        { QUANTIZE_SIGNED, 127, 0.0 },
        { QUANTIZE_SIGNED, 128, 5.5e-7 },
        { QUANTIZE_SIGNED, 129, 3.25e-6 },
        { QUANTIZE_SIGNED, 192, 0.12109375 },
        { QUANTIZE_SIGNED, 254, 0.99296875 },
        { QUANTIZE_SIGNED, 255, 1.0 },
        { QUANTIZE_ROOT, 0, 0.0 },
        { QUANTIZE_ROOT, 1, 3.25e-7 },
        { QUANTIZE_ROOT, 2, 7.75e-7 },
        { QUANTIZE_ROOT, 128, 0.110546875 },
        { QUANTIZE_ROOT, 254, 0.996484375 },
        { QUANTIZE_ROOT, 255, 1.0 },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        float entry = quantize_entry(known[i].map, known[i].code);
        assert_true(entry == (float)known[i].value);
    }
    static const double sums[] = { 1.0, 75.105263100 };
    for (int map = 0; map < 2; map++) {
        double table[QUANTIZE_CODES];
        double sum = 0.0;
        define_table((enum quantize_map)map, table);
        for (int i = 0; i < QUANTIZE_CODES; i++) {
            float entry = quantize_entry((enum quantize_map)map, i);
            assert_true(fabs((double)entry - table[i]) <= 1e-7 * fabs(table[i]));
            assert_true(i == 0 || entry > quantize_entry((enum quantize_map)map, i - 1));
            sum += (double)entry;
        }
        assert_true(fabs(sum - sums[map]) < 1e-6);
    }
}

/* The nearest entry by search. A positive root is never 0. */
static void check_nearest(enum quantize_map map, const double table[QUANTIZE_CODES], float y)
{
    int first = map == QUANTIZE_ROOT && y > 0.0f ? 1 : 0;
    double best = 2.0;
    for (int i = first; i < QUANTIZE_CODES; i++) {
        best = fmin(best, fabs(table[i] - (double)y));
    }
    int code = quantize_code(map, y);
    double error = fabs(table[code] - (double)y);
    /* On a border either neighbour will do: within two roundings of fp32. */
    if (code < first || error > best + 3e-7 * fabs((double)y)) {
        fail_msg("%.9g became %.9g, %.9g away; the nearest is %.9g away", (double)y, table[code],
                 error, best);
    }
}

static void test_nearest(void **state)
{
    (void)state;
    struct random_key key = { .seed = 5, .purpose = RANDOM_TEST };
    for (int map = 0; map < 2; map++) {
        double table[QUANTIZE_CODES];
        define_table((enum quantize_map)map, table);
        for (int i = 0; i < QUANTIZE_CODES; i++) {
            assert_int_equal(quantize_code((enum quantize_map)map, (float)table[i]), i);
            double next = i + 1 < QUANTIZE_CODES ? table[i + 1] : 1.0;
            check_nearest((enum quantize_map)map, table, (float)((table[i] + next) / 2.0));
        }
        for (uint64_t i = 0; i < 100000; i++) {
            float y = powf(10.0f, -9.0f * random_uniform(&key, 2 * i));
            bool minus = map == QUANTIZE_SIGNED && random_u32(&key, 2 * i + 1) % 2 == 0;
            check_nearest((enum quantize_map)map, table, minus ? -y : y);
        }
    }
    /* The lower end of the signed table: -1 has no entry of its own. */
    assert_int_equal(quantize_code(QUANTIZE_SIGNED, -1.0f), 0);
    assert_int_equal(quantize_code(QUANTIZE_ROOT, 1e-30f), 1);
    assert_int_equal(quantize_code(QUANTIZE_ROOT, 0.0f), 0);
}

/* ---- the conversion -------------------------------------------------------------------------- */

/* Blocks never straddle rows (columns), the last ones are shorter, zeros stay zeros. */
static void check_conversion(struct backend *be, enum quantize_map map, enum side side)
{
    enum { ROWS = 300, COLUMNS = 520 };
    int64_t down = side == SIDE_ROWS ? ROWS : 2;
    int64_t across = side == SIDE_ROWS ? 3 : COLUMNS;
    struct tensor x = host_matrix(be, DTYPE_F32, ROWS, COLUMNS);
    struct tensor back = host_matrix(be, DTYPE_F32, ROWS, COLUMNS);
    struct tensor codes = host_matrix(be, DTYPE_U8, ROWS, COLUMNS);
    struct tensor absmax = host_matrix(be, DTYPE_F32, down, across);
    host_randomize(&x, 6, map == QUANTIZE_ROOT ? 0.0f : -1.0f, 1.0f);
    for (int64_t i = 0; i < ROWS * COLUMNS; i++) {
        int64_t line = side == SIDE_ROWS ? i / COLUMNS : i % COLUMNS;
        /* Neighbouring rows (columns) seven decades apart; one holds zeros only. */
        float scale = line == 9 ? 0.0f : line % 2 == 0 ? 1e-7f : 1.0f;
        host_set(&x, i, scale * host_get(&x, i));
    }
    op_quantize(be, &(struct quantize){ &codes, &absmax, &x, map, side });
    op_dequantize(be, &(struct dequantize){ &back, &codes, &absmax, map, side });
    /* Half of the widest gap: 0.9 / 128 or 0.9 / 64 of the magnitude. */
    double half = map == QUANTIZE_ROOT ? 0.00352 : 0.00704;
    for (int64_t i = 0; i < ROWS * COLUMNS; i++) {
        int64_t row = i / COLUMNS;
        int64_t column = i % COLUMNS;
        int64_t block = side == SIDE_ROWS ? row * 3 + column / 256 : row / 256 * COLUMNS + column;
        double most = (double)host_get(&absmax, block);
        double value = (double)host_get(&x, i);
        double y = map == QUANTIZE_ROOT ? sqrt(value) : fabs(value);
        assert_true(y <= most * (1.0 + 1e-6));
        double error = fabs((double)host_get(&back, i) - value);
        double step = half * most;
        double bound = map == QUANTIZE_ROOT ? step * (2.0 * y + step) : step;
        assert_true(error <= bound + 1e-12 * most);
        if ((side == SIDE_ROWS ? row : column) == 9) {
            assert_true(most == 0.0 && host_get(&back, i) == 0.0f);
        }
    }
    host_free(be, &x);
    host_free(be, &back);
    host_free(be, &codes);
    host_free(be, &absmax);
}

static void test_conversion(void **state)
{
    for (int map = 0; map < 2; map++) {
        check_conversion(*state, (enum quantize_map)map, SIDE_ROWS);
        check_conversion(*state, (enum quantize_map)map, SIDE_COLUMNS);
    }
}

/* ---- the update ------------------------------------------------------------------------------ */

/* A problem whose moments have eight bits, and start at 0. */
struct bytes {
    struct problem p;
    struct tensor m, v, m_absmax, v_absmax;
};

static void bytes_open(struct bytes *b, struct backend *be, const int64_t shape[4], int64_t ages,
                       enum side side)
{
    problem_open(&b->p, be, shape, ages);
    int64_t down = side == SIDE_ROWS ? shape[2] : (shape[2] + 255) / 256;
    int64_t across = side == SIDE_ROWS ? (shape[3] + 255) / 256 : shape[3];
    b->m = host_matrix(be, DTYPE_U8, shape[2], shape[3]);
    b->v = host_matrix(be, DTYPE_U8, shape[2], shape[3]);
    b->m_absmax = host_matrix(be, DTYPE_F32, down, across);
    b->v_absmax = host_matrix(be, DTYPE_F32, down, across);
    b->p.args.m = &b->m;
    b->p.args.v = &b->v;
    b->p.args.m_absmax = &b->m_absmax;
    b->p.args.v_absmax = &b->v_absmax;
    b->p.args.side = side;
    struct tensor *all[] = { &b->m, &b->v, &b->m_absmax, &b->v_absmax };
    for (int i = 0; i < 4; i++) {
        op_zero(be, all[i]);
    }
}

static void bytes_close(struct bytes *b)
{
    struct tensor *all[] = { &b->m, &b->v, &b->m_absmax, &b->v_absmax };
    for (int i = 0; i < 4; i++) {
        host_free(b->p.be, all[i]);
    }
    problem_close(&b->p);
}

/* From zero states nothing has been rounded yet: the step of fp32, bit for bit. */
static void test_first_step_is_fp32(void **state)
{
    struct bytes b;
    struct problem p;
    bytes_open(&b, *state, (const int64_t[]){ 7, 700, 7, 700 }, 1, SIDE_ROWS);
    problem_open(&p, *state, (const int64_t[]){ 7, 700, 7, 700 }, 1);
    op_zero(*state, &p.m);
    op_zero(*state, &p.v);
    op_adamw(*state, &b.p.args);
    op_adamw(*state, &p.args);
    host_assert_same_bits(&b.p.weight, &p.weight);
    assert_int_equal(host_ints(&b.p.age)[0], 1);
    bytes_close(&b);
    problem_close(&p);
}

/* Standard normal numbers by Box-Muller. */
static double normal(uint32_t stream, uint64_t i)
{
    struct random_key key = { .seed = 77, .purpose = RANDOM_TEST, .tensor = stream };
    double u = (double)random_uniform(&key, 2 * i);
    double v = (double)random_uniform(&key, 2 * i + 1);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

struct drift {
    double largest;  /* single update, in learning rates */
    double relative; /* L2 distance of the accumulated update from that of fp32 */
};

/* 200 steps without decay, of gradients that are noise; their scale differs from element to element
 * by a lognormal factor. */
static struct drift follow(struct backend *be, double deviation)
{
    enum { COUNT = 1024, STEPS = 200 };
    static float before[COUNT];
    struct bytes b;
    struct problem p;
    struct drift drift = { 0 };
    bytes_open(&b, be, (const int64_t[]){ 2, COUNT / 2, 2, COUNT / 2 }, 1, SIDE_ROWS);
    problem_open(&p, be, (const int64_t[]){ 2, COUNT / 2, 2, COUNT / 2 }, 1);
    struct adamw *both[] = { &b.p.args, &p.args };
    for (int k = 0; k < 2; k++) {
        both[k]->weight_decay = 0.0f;
        both[k]->lr = 1e-3f;
        host_fill(both[k]->weight, 0.0f);
    }
    host_fill(&p.m, 0.0f);
    host_fill(&p.v, 0.0f);
    for (uint32_t step = 0; step < STEPS; step++) {
        for (uint64_t i = 0; i < COUNT; i++) {
            double scale = exp(deviation * normal(1, i));
            float g = (float)(scale * normal(2 + step, i));
            host_set(&p.gradient, (int64_t)i, g);
            host_set(&b.p.gradient, (int64_t)i, g);
        }
        memcpy(before, b.p.weight.data, sizeof before);
        op_adamw(be, &p.args);
        op_adamw(be, &b.p.args);
        for (int64_t i = 0; i < COUNT; i++) {
            double update = fabs((double)host_get(&b.p.weight, i) - (double)before[i]);
            drift.largest = fmax(drift.largest, update / 1e-3);
        }
    }
    double distance = 0.0;
    double length = 0.0;
    for (int64_t i = 0; i < COUNT; i++) {
        double w = (double)host_get(&p.weight, i);
        distance += pow((double)host_get(&b.p.weight, i) - w, 2.0);
        length += w * w;
    }
    drift.relative = sqrt(distance / length);
    bytes_close(&b);
    problem_close(&p);
    return drift;
}

/* Gradients of one scale: within 3 % of fp32. Scales that differ: worse, but bounded. Without the
 * root and the floor the last line would be updates of thousands of learning rates. */
static void test_follows_fp32(void **state)
{
    struct drift even = follow(*state, 0.0);
    struct drift uneven = follow(*state, 1.0);
    struct drift wild = follow(*state, 2.5);
    print_message(
        "relative distance after 200 steps: %.4f, %.4f, %.4f; largest update: %.2f, %.2f, "
        "%.2f lr\n",
        even.relative, uneven.relative, wild.relative, even.largest, uneven.largest, wild.largest);
    assert_true(even.relative < 0.03);
    assert_true(uneven.relative < 0.125);
    assert_true(wild.relative < 0.35);
    assert_true(wild.largest < 4.0);
}

/* ---- selections ------------------------------------------------------------------------------ */

enum { SLOTS = PROBLEM_SLOTS };

static void transpose(const struct tensor *y, const struct tensor *x)
{
    for (int64_t i = 0; i < tensor_rows(x); i++) {
        for (int64_t j = 0; j < tensor_columns(x); j++) {
            host_set(y, j * tensor_columns(y) + i, host_get(x, i * tensor_columns(x) + j));
        }
    }
}

static void assert_transposed_bytes(const struct tensor *y, const struct tensor *x)
{
    size_t width = dtype_size(x->dtype);
    for (int64_t i = 0; i < tensor_rows(x); i++) {
        for (int64_t j = 0; j < tensor_columns(x); j++) {
            const char *a = (const char *)y->data + (size_t)(j * tensor_columns(y) + i) * width;
            const char *b = (const char *)x->data + (size_t)(i * tensor_columns(x) + j) * width;
            assert_memory_equal(a, b, width);
        }
    }
}

/* Selected rows: each as a dense step on that row alone; unused slots and other rows untouched.
 * Selected columns: the same of the transpose. */
static void test_selected(void **state)
{
    enum { ROWS = 37, COLUMNS = 700 };
    struct bytes r;
    struct bytes c;
    bytes_open(&r, *state, (const int64_t[]){ ROWS, COLUMNS, SLOTS, COLUMNS }, SLOTS, SIDE_ROWS);
    bytes_open(&c, *state, (const int64_t[]){ COLUMNS, ROWS, COLUMNS, SLOTS }, SLOTS, SIDE_COLUMNS);
    choose_slots(&r.p);
    choose_slots(&c.p);
    memset(r.m.data, 200, tensor_bytes(&r.m));
    memset(c.m.data, 200, tensor_bytes(&c.m));
    host_fill(&r.m_absmax, 0.1f);
    host_fill(&c.m_absmax, 0.1f);
    host_fill(&r.v_absmax, 0.3f);
    host_fill(&c.v_absmax, 0.3f);
    transpose(&c.p.weight, &r.p.weight);
    transpose(&c.p.gradient, &r.p.gradient);
    for (int step = 0; step < 3; step++) {
        struct bytes one[SLOTS];
        float before[ROWS][COLUMNS];
        memcpy(before, r.p.weight.data, sizeof before);
        for (int64_t j = 0; j < SLOTS; j++) {
            int32_t row = host_ints(&r.p.index)[j];
            if (row < 0) {
                continue;
            }
            bytes_open(&one[j], *state, (const int64_t[]){ 1, COLUMNS, 1, COLUMNS }, 1, SIDE_ROWS);
            memcpy(one[j].p.weight.data, before[row], sizeof before[row]);
            memcpy(one[j].p.gradient.data, host_floats(&r.p.gradient) + j * COLUMNS,
                   sizeof before[row]);
            memcpy(one[j].m.data, (uint8_t *)r.m.data + j * COLUMNS, COLUMNS);
            memcpy(one[j].v.data, (uint8_t *)r.v.data + j * COLUMNS, COLUMNS);
            memcpy(one[j].m_absmax.data, host_floats(&r.m_absmax) + 3 * j, 3 * sizeof(float));
            memcpy(one[j].v_absmax.data, host_floats(&r.v_absmax) + 3 * j, 3 * sizeof(float));
            host_ints(&one[j].p.age)[0] = host_ints(&r.p.age)[j];
            one[j].p.args.scale = r.p.args.scale * host_get(&r.p.rho, j);
            op_adamw(*state, &one[j].p.args);
            memcpy(before[row], one[j].p.weight.data, sizeof before[row]);
        }
        op_adamw(*state, &r.p.args);
        op_adamw(*state, &c.p.args);
        assert_memory_equal(r.p.weight.data, before, sizeof before);
        for (int64_t j = 0; j < SLOTS; j++) {
            const uint8_t *m = (const uint8_t *)r.m.data + j * COLUMNS;
            if (host_ints(&r.p.index)[j] < 0) {
                assert_int_equal(m[5], 200);
                assert_true(host_get(&r.m_absmax, 3 * j) == 0.1f);
                continue;
            }
            assert_memory_equal(m, one[j].m.data, COLUMNS);
            assert_memory_equal((const uint8_t *)r.v.data + j * COLUMNS, one[j].v.data, COLUMNS);
            assert_memory_equal(host_floats(&r.v_absmax) + 3 * j, one[j].v_absmax.data,
                                3 * sizeof(float));
            bytes_close(&one[j]);
        }
    }
    assert_transposed_bytes(&c.p.weight, &r.p.weight);
    assert_transposed_bytes(&c.m, &r.m);
    assert_transposed_bytes(&c.v, &r.v);
    assert_transposed_bytes(&c.m_absmax, &r.m_absmax);
    assert_transposed_bytes(&c.v_absmax, &r.v_absmax);
    bytes_close(&r);
    bytes_close(&c);
}

/* No gradient ever: nothing moves, nothing divides by 0. A skipped step: not a byte. */
static void test_zero_and_skip(void **state)
{
    struct bytes b;
    bytes_open(&b, *state, (const int64_t[]){ 3, 300, 3, 300 }, 1, SIDE_ROWS);
    struct problem same;
    problem_open(&same, *state, (const int64_t[]){ 3, 300, 3, 300 }, 1);
    b.p.args.weight_decay = 0.0f;
    host_fill(&b.p.gradient, 0.0f);
    for (int i = 0; i < 5; i++) {
        op_adamw(*state, &b.p.args);
    }
    host_assert_same_bits(&b.p.weight, &same.weight);
    host_fill(&b.p.gradient, NAN);
    set_control(&b.p, NAN, 1.0f);
    op_adamw(*state, &b.p.args);
    host_assert_same_bits(&b.p.weight, &same.weight);
    assert_int_equal(host_ints(&b.p.age)[0], 5);
    for (int64_t i = 0; i < 6; i++) {
        assert_true(host_get(&b.m_absmax, i) == 0.0f && host_get(&b.v_absmax, i) == 0.0f);
    }
    bytes_close(&b);
    problem_close(&same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_conversion),    cmocka_unit_test(test_first_step_is_fp32),
        cmocka_unit_test(test_follows_fp32),  cmocka_unit_test(test_selected),
        cmocka_unit_test(test_zero_and_skip),
    };
    return cmocka_run_group_tests_name("int8", tests, host_setup, host_teardown);
}
