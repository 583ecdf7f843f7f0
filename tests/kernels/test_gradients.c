/*
 * Backward operations against central differences, forward ones against their formulas in double;
 * bf16 storage against fp32 storage; special cases of each.
 */
#include "kernels/gradient.h"

#include <omp.h>
#include <string.h>

/* ---- normalisation ----------------------------------------------------------------------- */

struct norm_case {
    struct backend *be;
    struct rmsnorm_forward args;
};

static void norm_forward(void *state)
{
    struct norm_case *c = state;
    op_rmsnorm_forward(c->be, &c->args);
}

static void check_norm(struct backend *be, int64_t rows, int64_t columns)
{
    struct tensor x = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor y = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor dy = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor dx = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor weight = host_vector(be, DTYPE_F32, columns);
    struct tensor dweight = host_vector(be, DTYPE_F32, columns);
    struct tensor rstd = host_vector(be, DTYPE_F32, rows);
    host_randomize(&x, 1, -2.0f, 2.0f);
    host_randomize(&dy, 2, -1.0f, 1.0f);
    host_randomize(&weight, 3, 0.5f, 1.5f);
    struct norm_case c = { be, { &y, &rstd, &x, &weight, 0.125f } };
    norm_forward(&c);
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0.0;
        for (int64_t i = 0; i < columns; i++) {
            mean += pow((double)host_get(&x, r * columns + i), 2.0) / (double)columns;
        }
        double expected = 1.0 / sqrt(mean + 0.125);
        host_assert_near((double)host_get(&rstd, r), expected, 1e-6, "rstd", r);
        for (int64_t i = 0; i < columns; i++) {
            double v = (double)host_get(&x, r * columns + i) * expected;
            host_assert_near((double)host_get(&y, r * columns + i),
                             v * (double)host_get(&weight, i), 2e-6, "y", r * columns + i);
        }
    }
    host_fill(&dx, 0.0f);
    host_fill(&dweight, 0.0f);
    struct rmsnorm_backward back = { &dx, &dweight, &dy, &x, &weight, &rstd, NULL };
    op_rmsnorm_backward(be, &back);
    gradient_assert(&(struct gradient_check){ norm_forward, &c, &y, &dy, &x, &dx, "dx" });
    gradient_assert(
        &(struct gradient_check){ norm_forward, &c, &y, &dy, &weight, &dweight, "dweight" });

    /* Both add to what is there, and a frozen weight changes nothing for dx. */
    struct tensor twice = host_matrix(be, DTYPE_F32, rows, columns);
    host_fill(&twice, 10.0f);
    back.dx = &twice;
    op_rmsnorm_backward(be, &back);
    for (int64_t i = 0; i < rows * columns; i++) {
        host_assert_near((double)host_get(&twice, i), 10.0 + (double)host_get(&dx, i), 2e-6,
                         "dx that adds", i);
    }
    float once = host_get(&dweight, columns / 2);
    back.dweight = NULL;
    op_rmsnorm_backward(be, &back);
    assert_true(host_get(&dweight, columns / 2) == once);
    struct tensor *all[] = { &x, &y, &dy, &dx, &weight, &dweight, &rstd, &twice };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

static void test_norm(void **state)
{
    check_norm(*state, 3, 1);
    check_norm(*state, 2, 17);
    check_norm(*state, 5, 64);
    check_norm(*state, 2, 600);
}

/* Equal rows at every alignment give equal bits: no sum depends on an address. */
static void test_alignment(void **state)
{
    struct backend *be = *state;
    const int64_t rows = 40;
    const int64_t columns = 1031;
    struct tensor x = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor y = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor weight = host_vector(be, DTYPE_F32, columns);
    struct tensor rstd = host_vector(be, DTYPE_F32, rows);
    struct tensor losses = host_vector(be, DTYPE_F32, rows);
    struct tensor targets = host_vector(be, DTYPE_I32, rows);
    struct tensor one = host_matrix(be, DTYPE_F32, 1, columns);
    host_randomize(&one, 1, -2.0f, 2.0f);
    host_randomize(&weight, 2, -2.0f, 2.0f);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(host_floats(&x) + r * columns, one.data, tensor_bytes(&one));
        host_ints(&targets)[r] = 7;
    }
    op_rmsnorm_forward(be, &(struct rmsnorm_forward){ &y, &rstd, &x, &weight, 1e-5f });
    op_cross_entropy(be, &(struct cross_entropy){ &losses, &x, &targets, 1.0f, false, NULL });
    for (int64_t r = 1; r < rows; r++) {
        assert_true(host_get(&rstd, r) == host_get(&rstd, 0));
        assert_true(host_get(&losses, r) == host_get(&losses, 0));
    }
    struct tensor *all[] = { &x, &y, &weight, &rstd, &losses, &targets, &one };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

/* ---- rotary position embedding ------------------------------------------------------------ */

static void test_rope(void **state)
{
    struct backend *be = *state;
    enum { TOKENS = 5, HEADS = 2, SIZE = 6, WIDTH = HEADS * SIZE + 3, PLACES = 9 };
    struct tensor x = host_matrix(be, DTYPE_F32, TOKENS, WIDTH);
    struct tensor y = host_matrix(be, DTYPE_F32, TOKENS, WIDTH);
    struct tensor table = host_matrix(be, DTYPE_F32, PLACES, SIZE);
    struct tensor positions = host_vector(be, DTYPE_I32, TOKENS);
    host_randomize(&x, 1, -2.0f, 2.0f);
    for (int p = 0; p < PLACES; p++) {
        for (int i = 0; i < SIZE / 2; i++) {
            double angle = p * pow(10000.0, -2.0 * i / SIZE);
            host_set(&table, p * SIZE + i, (float)cos(angle));
            host_set(&table, p * SIZE + SIZE / 2 + i, (float)sin(angle));
        }
    }
    static const int32_t place[TOKENS] = { 0, 8, 3, 3, 1 };
    memcpy(positions.data, place, sizeof place);
    memcpy(y.data, x.data, tensor_bytes(&x));
    struct rope args = { &y, &table, &positions, HEADS, SIZE, false, NULL };
    op_rope(be, &args);
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < WIDTH; i++) {
            int head = i / SIZE;
            int within = i % SIZE;
            double expected = (double)host_get(&x, t * WIDTH + i);
            if (head < HEADS) {
                int pair = within % (SIZE / 2);
                double angle = place[t] * pow(10000.0, -2.0 * pair / SIZE);
                double a = (double)host_get(&x, t * WIDTH + head * SIZE + pair);
                double b = (double)host_get(&x, t * WIDTH + head * SIZE + pair + SIZE / 2);
                expected = within < SIZE / 2 ? a * cos(angle) - b * sin(angle)
                                             : b * cos(angle) + a * sin(angle);
            }
            host_assert_near((double)host_get(&y, t * WIDTH + i), expected, 1e-6, "rope",
                             t * WIDTH + i);
        }
    }
    /* The backward is the transposed map: <rope(x), z> = <x, rope_inverse(z)>. */
    struct tensor z = host_matrix(be, DTYPE_F32, TOKENS, WIDTH);
    host_randomize(&z, 2, -1.0f, 1.0f);
    double left = 0.0;
    double right = 0.0;
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        left += (double)host_get(&y, i) * (double)host_get(&z, i);
    }
    args.x = &z;
    args.inverse = true;
    op_rope(be, &args);
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        right += (double)host_get(&x, i) * (double)host_get(&z, i);
    }
    host_assert_near(left, right, 1e-5, "inner product", 0);
    struct tensor *all[] = { &x, &y, &z, &table, &positions };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

/* ---- feed-forward activation ----------------------------------------------------------------- */

struct swiglu_case {
    struct backend *be;
    struct tensor *y;
    const struct tensor *gate_up;
};

static void swiglu_forward(void *state)
{
    struct swiglu_case *c = state;
    op_swiglu_forward(c->be, c->y, c->gate_up);
}

static void test_swiglu(void **state)
{
    struct backend *be = *state;
    enum { ROWS = 3, SIZE = 37 };
    struct tensor gate_up = host_matrix(be, DTYPE_F32, ROWS, 2 * SIZE);
    struct tensor dgate_up = host_matrix(be, DTYPE_F32, ROWS, 2 * SIZE);
    struct tensor y = host_matrix(be, DTYPE_F32, ROWS, SIZE);
    struct tensor dy = host_matrix(be, DTYPE_F32, ROWS, SIZE);
    host_randomize(&gate_up, 1, -4.0f, 4.0f);
    host_randomize(&dy, 2, -1.0f, 1.0f);
    struct swiglu_case c = { be, &y, &gate_up };
    swiglu_forward(&c);
    for (int i = 0; i < ROWS * SIZE; i++) {
        double g = (double)host_get(&gate_up, i / SIZE * 2 * SIZE + i % SIZE);
        double u = (double)host_get(&gate_up, i / SIZE * 2 * SIZE + SIZE + i % SIZE);
        host_assert_near((double)host_get(&y, i), g / (1.0 + exp(-g)) * u, 4e-6, "y", i);
    }
    op_swiglu_backward(
        be, &(struct swiglu_backward){ .dgate_up = &dgate_up, .dy = &dy, .gate_up = &gate_up });
    gradient_assert(
        &(struct gradient_check){ swiglu_forward, &c, &y, &dy, &gate_up, &dgate_up, "dgate_up" });
    /* In place over its own input. */
    op_swiglu_backward(
        be, &(struct swiglu_backward){ .dgate_up = &gate_up, .dy = &dy, .gate_up = &gate_up });
    host_assert_same_bits(&gate_up, &dgate_up);
    /* Large gates neither overflow nor become NaN. */
    host_fill(&gate_up, 1e4f);
    host_set(&gate_up, 0, -1e4f);
    op_swiglu_forward(be, &y, &gate_up);
    op_swiglu_backward(
        be, &(struct swiglu_backward){ .dgate_up = &dgate_up, .dy = &dy, .gate_up = &gate_up });
    assert_true(host_get(&y, 0) == 0.0f);
    for (int i = 0; i < ROWS * SIZE * 2; i++) {
        assert_true(isfinite(host_get(&dgate_up, i)));
    }
    struct tensor *all[] = { &gate_up, &dgate_up, &y, &dy };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

/* ---- embedding
 * ----------------------------------------------------------------------------------- */

static void test_embedding(void **state)
{
    struct backend *be = *state;
    enum { TOKENS = 50, VOCABULARY = 7, SIZE = 130 };
    struct tensor table = host_matrix(be, DTYPE_F32, VOCABULARY, SIZE);
    struct tensor dtable = host_matrix(be, DTYPE_F32, VOCABULARY, SIZE);
    struct tensor y = host_matrix(be, DTYPE_F32, TOKENS, SIZE);
    struct tensor ids = host_vector(be, DTYPE_I32, TOKENS);
    host_randomize(&table, 1, -1.0f, 1.0f);
    for (int t = 0; t < TOKENS; t++) {
        host_ints(&ids)[t] = (t * t) % (VOCABULARY - 1);
    }
    op_embedding_forward(be, &y, &table, &ids);
    for (int i = 0; i < TOKENS * SIZE; i++) {
        int id = host_ints(&ids)[i / SIZE];
        assert_true(host_get(&y, i) == host_get(&table, id * SIZE + i % SIZE));
    }
    host_randomize(&y, 2, -1.0f, 1.0f);
    host_fill(&dtable, 3.0f);
    op_embedding_backward(be, &dtable, &y, &ids);
    for (int i = 0; i < VOCABULARY * SIZE; i++) {
        float sum = 3.0f;
        for (int t = 0; t < TOKENS; t++) {
            if (host_ints(&ids)[t] == i / SIZE) {
                sum += host_get(&y, t * SIZE + i % SIZE);
            }
        }
        assert_true(host_get(&dtable, i) == sum); /* the very same order of additions */
    }
    struct tensor *all[] = { &table, &dtable, &y, &ids };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

/* A frequent token: terms that are too small for bf16 one by one still count in their sum. */
static void test_embedding_frequent(void **state)
{
    struct backend *be = *state;
    enum { TOKENS = 999, VOCABULARY = 5000, SIZE = 3 };
    const int32_t used[3] = { 4999, 0, 2048 };
    struct tensor dtable = host_matrix(be, DTYPE_BF16, VOCABULARY, SIZE);
    struct tensor dy = host_matrix(be, DTYPE_BF16, TOKENS, SIZE);
    struct tensor ids = host_vector(be, DTYPE_I32, TOKENS);
    for (int t = 0; t < TOKENS; t++) {
        host_ints(&ids)[t] = used[t % 3];
    }
    host_fill(&dtable, 4.0f);
    host_fill(&dy, 0.0078125f);
    op_embedding_backward(be, &dtable, &dy, &ids);
    for (int i = 0; i < VOCABULARY * SIZE; i++) {
        bool hit = i / SIZE == used[0] || i / SIZE == used[1] || i / SIZE == used[2];
        float want = hit ? bf16_to_float(bf16_from_float(4.0f + 333.0f * 0.0078125f)) : 4.0f;
        assert_true(host_get(&dtable, i) == want);
    }
    host_free(be, &dtable);
    host_free(be, &dy);
    host_free(be, &ids);
}

/* ---- loss
 * ------------------------------------------------------------------------------------------ */

static double entropy(const struct tensor *logits, int64_t row, int32_t target)
{
    int64_t columns = tensor_columns(logits);
    double most = -INFINITY;
    double sum = 0.0;
    for (int64_t i = 0; i < columns; i++) {
        most = fmax(most, (double)host_get(logits, row * columns + i));
    }
    for (int64_t i = 0; i < columns; i++) {
        sum += exp((double)host_get(logits, row * columns + i) - most);
    }
    return log(sum) + most - (double)host_get(logits, row * columns + target);
}

static void test_cross_entropy(void **state)
{
    struct backend *be = *state;
    enum { ROWS = 4, CLASSES = 1100 };
    const float scale = 0.25f;
    struct tensor logits = host_matrix(be, DTYPE_F32, ROWS, CLASSES);
    struct tensor gradient = host_matrix(be, DTYPE_F32, ROWS, CLASSES);
    struct tensor losses = host_vector(be, DTYPE_F32, ROWS);
    struct tensor targets = host_vector(be, DTYPE_I32, ROWS);
    static const int32_t target[ROWS] = { 0, -1, 1099, 700 };
    memcpy(targets.data, target, sizeof target);
    host_randomize(&logits, 1, -3.0f, 8.0f);
    host_set(&logits, 3 * CLASSES + 700, 200.0f); /* certain: loss and gradient vanish */
    struct cross_entropy args = { &losses, &logits, &targets, scale, false, NULL };
    op_cross_entropy(be, &args);
    memcpy(gradient.data, logits.data, tensor_bytes(&logits));
    args.logits = &gradient;
    args.gradient = true;
    op_cross_entropy(be, &args);
    for (int r = 0; r < ROWS; r++) {
        double expected = target[r] < 0 ? 0.0 : entropy(&logits, r, target[r]);
        host_assert_near((double)host_get(&losses, r), expected, 2e-6, "loss", r);
        double sum = 0.0;
        for (int i = 0; i < CLASSES; i++) {
            double p = 0.0;
            if (target[r] >= 0) {
                p = exp(-entropy(&logits, r, i)) - (i == target[r] ? 1.0 : 0.0);
            }
            double g = (double)host_get(&gradient, r * CLASSES + i);
            host_assert_near(g, (double)scale * p, 1e-6 * fabs(p) + 1e-9, "gradient",
                             r * CLASSES + i);
            sum += g;
        }
        host_assert_near(sum, 0.0, 1e-6, "sum of the gradient", r);
    }
    struct tensor *all[] = { &logits, &gradient, &losses, &targets };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

static void test_cross_entropy_extremes(void **state)
{
    struct backend *be = *state;
    enum { ROWS = 5, CLASSES = 600 };
    struct tensor logits = host_matrix(be, DTYPE_F32, ROWS, CLASSES);
    struct tensor losses = host_vector(be, DTYPE_F32, ROWS);
    struct tensor targets = host_vector(be, DTYPE_I32, ROWS);
    host_fill(&logits, 0.0f);
    memset(targets.data, 0, tensor_bytes(&targets));
    host_set(&logits, 0 * CLASSES + 550, NAN);
    host_set(&logits, 1 * CLASSES + 3, INFINITY);
    for (int i = 0; i < CLASSES; i++) {
        host_set(&logits, 2 * CLASSES + i, 3e38f);
        host_set(&logits, 3 * CLASSES + i, i == 0 ? 0.0f : -INFINITY);
    }
    host_set(&logits, 4 * CLASSES + 1, NAN);
    host_ints(&targets)[4] = -1;
    op_cross_entropy(be, &(struct cross_entropy){ &losses, &logits, &targets, 1.0f, true, NULL });
    assert_true(isnan(host_get(&losses, 0)));
    assert_true(isnan(host_get(&losses, 1)));
    host_assert_near((double)host_get(&losses, 2), log((double)CLASSES), 1e-5, "loss", 2);
    host_assert_near((double)host_get(&losses, 3), 0.0, 1e-6, "loss", 3);
    assert_true(host_get(&losses, 4) == 0.0f);
    assert_true(host_get(&logits, 4 * CLASSES + 1) == 0.0f);
    host_free(be, &logits);
    host_free(be, &losses);
    host_free(be, &targets);
}

/* ---- storage
 * --------------------------------------------------------------------------------------- */

/* Tensors of one dtype for the operations that only convert at their ends: T = 9, C = 70. */
enum { TOKENS = 9, WIDTH = 70, INPUTS = 5, OUTPUTS = 6 };
struct storage {
    struct tensor in[INPUTS];   /* x, dy, weight, gate_up, table */
    struct tensor out[OUTPUTS]; /* norm, dx, swiglu, dgate_up, embedding, logits */
    struct tensor rstd, losses, ids, angles;
};

static void storage_run(struct backend *be, struct storage *s, enum dtype dtype)
{
    static const int64_t in_rows[INPUTS] = { TOKENS, TOKENS, 1, TOKENS, 20 };
    static const int64_t in_columns[INPUTS] = { WIDTH, WIDTH, WIDTH, 2 * WIDTH, WIDTH };
    static const int64_t out_columns[OUTPUTS] = { WIDTH, WIDTH, WIDTH, 2 * WIDTH, WIDTH, WIDTH };
    for (uint32_t i = 0; i < INPUTS; i++) {
        struct tensor rounded = host_matrix(be, DTYPE_BF16, in_rows[i], in_columns[i]);
        s->in[i] = host_matrix(be, dtype, in_rows[i], in_columns[i]);
        host_randomize(&rounded, i, -2.0f, 2.0f);
        for (int64_t at = 0; at < tensor_count(&rounded); at++) {
            host_set(&s->in[i], at, host_get(&rounded, at));
        }
        host_free(be, &rounded);
    }
    for (int i = 0; i < OUTPUTS; i++) {
        s->out[i] = host_matrix(be, dtype, TOKENS, out_columns[i]);
        host_fill(&s->out[i], 0.5f);
    }
    s->rstd = host_vector(be, DTYPE_F32, TOKENS);
    s->losses = host_vector(be, DTYPE_F32, TOKENS);
    s->ids = host_vector(be, DTYPE_I32, TOKENS);
    s->angles = host_matrix(be, DTYPE_F32, TOKENS, 10);
    host_randomize(&s->angles, 9, -1.0f, 1.0f);
    for (int t = 0; t < TOKENS; t++) {
        host_ints(&s->ids)[t] = t;
    }
    memcpy(s->out[5].data, s->in[0].data, tensor_bytes(&s->out[5]));
    op_rmsnorm_forward(
        be, &(struct rmsnorm_forward){ &s->out[0], &s->rstd, &s->in[0], &s->in[2], 1e-5f });
    op_rmsnorm_backward(be, &(struct rmsnorm_backward){ &s->out[1], NULL, &s->in[1], &s->in[0],
                                                        &s->in[2], &s->rstd, NULL });
    op_swiglu_forward(be, &s->out[2], &s->in[3]);
    op_swiglu_backward(be, &(struct swiglu_backward){
                               .dgate_up = &s->out[3], .dy = &s->in[1], .gate_up = &s->in[3] });
    op_embedding_forward(be, &s->out[4], &s->in[4], &s->ids);
    op_rope(be, &(struct rope){ &s->out[4], &s->angles, &s->ids, 7, 10, false, NULL });
    op_cross_entropy(be,
                     &(struct cross_entropy){ &s->losses, &s->out[5], &s->ids, 0.5f, true, NULL });
    assert_int_equal(backend_sync(be), 0);
}

static void storage_free(struct backend *be, struct storage *s)
{
    for (int i = 0; i < INPUTS; i++) {
        host_free(be, &s->in[i]);
    }
    for (int i = 0; i < OUTPUTS; i++) {
        host_free(be, &s->out[i]);
    }
    host_free(be, &s->rstd);
    host_free(be, &s->losses);
    host_free(be, &s->ids);
    host_free(be, &s->angles);
}

/* From the same inputs, a bf16 result is exactly the fp32 result rounded to nearest. */
static void test_bf16_is_only_storage(void **state)
{
    struct backend *be = *state;
    struct storage single;
    struct storage half;
    storage_run(be, &single, DTYPE_F32);
    storage_run(be, &half, DTYPE_BF16);
    host_assert_same_bits(&single.rstd, &half.rstd);
    host_assert_same_bits(&single.losses, &half.losses);
    for (int i = 0; i < OUTPUTS; i++) {
        if (i == 4) {
            continue; /* two operations: the first result was rounded before the second */
        }
        for (int64_t at = 0; at < tensor_count(&single.out[i]); at++) {
            float expected = bf16_to_float(bf16_from_float(host_get(&single.out[i], at)));
            float value = host_get(&half.out[i], at);
            if (value != expected) {
                fail_msg("result %d[%lld] is %.9g, expected %.9g", i, (long long)at, (double)value,
                         (double)expected);
            }
        }
    }
    storage_free(be, &single);
    storage_free(be, &half);
}

/* ---- threads
 * --------------------------------------------------------------------------------------- */

/* A size that is cut into several chunks: 300 tokens of 200 columns, for each number of threads. */
static void test_same_bits(void **state)
{
    struct backend *be = *state;
    enum { ROWS = 300, COLUMNS = 200, RESULTS = 6 };
    int threads = omp_get_max_threads();
    struct tensor x = host_matrix(be, DTYPE_F32, ROWS, COLUMNS);
    struct tensor dy = host_matrix(be, DTYPE_F32, ROWS, COLUMNS);
    struct tensor weight = host_vector(be, DTYPE_F32, COLUMNS);
    struct tensor ids = host_vector(be, DTYPE_I32, ROWS);
    host_randomize(&x, 1, -2.0f, 2.0f);
    host_randomize(&dy, 2, -2.0f, 2.0f);
    host_randomize(&weight, 3, -2.0f, 2.0f);
    for (int t = 0; t < ROWS; t++) {
        host_ints(&ids)[t] = t % 13;
    }
    struct tensor first[RESULTS];
    for (int run = 0; run < 10; run++) {
        omp_set_num_threads(run % 4 + 1);
        struct tensor r[RESULTS] = {
            host_matrix(be, DTYPE_F32, ROWS, COLUMNS), host_vector(be, DTYPE_F32, ROWS),
            host_matrix(be, DTYPE_F32, ROWS, COLUMNS), host_vector(be, DTYPE_F32, COLUMNS),
            host_matrix(be, DTYPE_F32, 13, COLUMNS),   host_vector(be, DTYPE_F32, ROWS),
        };
        for (int i = 0; i < RESULTS; i++) {
            host_fill(&r[i], 0.0f);
        }
        op_rmsnorm_forward(be, &(struct rmsnorm_forward){ &r[0], &r[1], &x, &weight, 1e-5f });
        op_rmsnorm_backward(
            be, &(struct rmsnorm_backward){ &r[2], &r[3], &dy, &x, &weight, &r[1], NULL });
        op_embedding_backward(be, &r[4], &dy, &ids);
        op_cross_entropy(be, &(struct cross_entropy){ &r[5], &r[0], &ids, 1.0f, true, NULL });
        for (int i = 0; i < RESULTS; i++) {
            if (run == 0) {
                first[i] = r[i];
            } else {
                host_assert_same_bits(&first[i], &r[i]);
                host_free(be, &r[i]);
            }
        }
    }
    omp_set_num_threads(threads);
    for (int i = 0; i < RESULTS; i++) {
        host_free(be, &first[i]);
    }
    host_free(be, &x);
    host_free(be, &dy);
    host_free(be, &weight);
    host_free(be, &ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_norm, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_alignment, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_rope, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_swiglu, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_embedding, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_embedding_frequent, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_cross_entropy, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_cross_entropy_extremes, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_bf16_is_only_storage, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_same_bits, host_setup, host_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
