/*
 * Attention: forward against the plain formula in double, backward against central differences,
 * packed records against separate sequences, decoding against the forward, bf16 storage, threads.
 */
#include "kernels/gradient.h"

#include <omp.h>
#include <string.h>

/* All tensors of one attention. */
struct scene {
    struct backend *be;
    struct attention_shape shape;
    struct tensor qkv, dqkv, out, dout, lse, delta, starts;
    bool records;
};

static struct scene scene_make(struct backend *be, enum dtype dtype, struct attention_shape shape)
{
    int64_t tokens = shape.batch * shape.sequence;
    int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_size;
    struct scene s = { .be = be, .shape = shape };
    s.shape.scale = (float)(1.0 / sqrt((double)shape.head_size));
    s.qkv = host_matrix(be, dtype, tokens, width);
    s.dqkv = host_matrix(be, dtype, tokens, width);
    s.out = host_matrix(be, dtype, tokens, shape.heads * shape.head_size);
    s.dout = host_matrix(be, dtype, tokens, shape.heads * shape.head_size);
    s.lse = host_vector(be, DTYPE_F32, tokens * shape.heads);
    s.delta = host_vector(be, DTYPE_F32, tokens * shape.heads);
    s.starts = host_vector(be, DTYPE_I32, tokens);
    memset(s.starts.data, 0, tensor_bytes(&s.starts));
    host_randomize(&s.qkv, 1, -1.5f, 1.5f);
    host_randomize(&s.dout, 2, -1.0f, 1.0f);
    host_fill(&s.out, NAN);
    host_fill(&s.dqkv, NAN);
    host_fill(&s.lse, NAN);
    return s;
}

static void scene_free(struct scene *s)
{
    struct tensor *all[] = { &s->qkv, &s->dqkv, &s->out, &s->dout, &s->lse, &s->delta, &s->starts };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(s->be, all[i]);
    }
}

/* Records of `length` tokens, one after the other. */
static void scene_pack(struct scene *s, int32_t length)
{
    s->records = true;
    for (int64_t t = 0; t < tensor_count(&s->starts); t++) {
        int32_t position = (int32_t)(t % s->shape.sequence);
        host_ints(&s->starts)[t] = position / length * length;
    }
}

static void forward(void *state)
{
    struct scene *s = state;
    op_attention_forward(s->be,
                         &(struct attention_forward){ .out = &s->out,
                                                      .lse = &s->lse,
                                                      .qkv = &s->qkv,
                                                      .starts = s->records ? &s->starts : NULL,
                                                      .shape = s->shape });
}

static void backward(struct scene *s)
{
    op_attention_backward(s->be,
                          &(struct attention_backward){ .dqkv = &s->dqkv,
                                                        .delta = &s->delta,
                                                        .dout = &s->dout,
                                                        .out = &s->out,
                                                        .lse = &s->lse,
                                                        .qkv = &s->qkv,
                                                        .starts = s->records ? &s->starts : NULL,
                                                        .shape = s->shape });
    assert_int_equal(backend_sync(s->be), 0);
}

/* Element d of head `column` (queries, then keys, then values) of a token. */
static double packed(const struct scene *s, int64_t token, int64_t column, int64_t d)
{
    int64_t width = tensor_columns(&s->qkv);
    return (double)host_get(&s->qkv, token * width + column * s->shape.head_size + d);
}

/* Compares one query of one head with the formula. */
static void check_query(const struct scene *s, int64_t batch, int64_t head, int64_t position)
{
    const struct attention_shape *shape = &s->shape;
    int64_t first = batch * shape->sequence;
    int64_t group = head / (shape->heads / shape->kv_heads);
    int64_t start = host_ints(&s->starts)[first + position];
    double score[512];
    double most = -INFINITY;
    double sum = 0.0;
    assert_true(shape->sequence <= 512);
    for (int64_t k = start; k <= position; k++) {
        score[k] = 0.0;
        for (int64_t d = 0; d < shape->head_size; d++) {
            score[k] += packed(s, first + position, head, d) *
                        packed(s, first + k, shape->heads + group, d);
        }
        score[k] *= (double)shape->scale;
        most = fmax(most, score[k]);
    }
    for (int64_t k = start; k <= position; k++) {
        sum += exp(score[k] - most);
    }
    int64_t at = (batch * shape->heads + head) * shape->sequence + position;
    host_assert_near((double)host_get(&s->lse, at), most + log(sum), 3e-6, "lse", at);
    for (int64_t d = 0; d < shape->head_size; d++) {
        double expected = 0.0;
        for (int64_t k = start; k <= position; k++) {
            expected += exp(score[k] - most) / sum *
                        packed(s, first + k, shape->heads + shape->kv_heads + group, d);
        }
        at = ((first + position) * shape->heads + head) * shape->head_size + d;
        double tolerance = s->out.dtype == DTYPE_BF16 ? fabs(expected) / 250.0 + 1e-6 : 3e-6;
        host_assert_near((double)host_get(&s->out, at), expected, tolerance, "out", at);
    }
}

static void check_forward(struct scene *s)
{
    forward(s);
    assert_int_equal(backend_sync(s->be), 0);
    for (int64_t b = 0; b < s->shape.batch; b++) {
        for (int64_t h = 0; h < s->shape.heads; h++) {
            for (int64_t t = 0; t < s->shape.sequence; t++) {
                check_query(s, b, h, t);
            }
        }
    }
}

/* batch, sequence, heads, kv_heads, head_size */
static const struct attention_shape shapes[] = {
    { 1, 1, 1, 1, 2, 0.0f },   { 2, 5, 2, 1, 4, 0.0f },   { 1, 63, 1, 1, 16, 0.0f },
    { 1, 64, 2, 2, 8, 0.0f },  { 1, 65, 3, 1, 20, 0.0f }, { 2, 130, 4, 2, 64, 0.0f },
    { 1, 200, 1, 1, 80, 0.0f }
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void test_forward(void **state)
{
    for (int i = 0; i < SHAPES; i++) {
        struct scene s = scene_make(*state, i % 2 == 0 ? DTYPE_F32 : DTYPE_BF16, shapes[i]);
        check_forward(&s);
        scene_free(&s);
    }
}

static void test_forward_records(void **state)
{
    for (int i = 0; i < SHAPES; i++) {
        struct scene s = scene_make(*state, DTYPE_F32, shapes[i]);
        scene_pack(&s, i % 2 == 0 ? 7 : 66);
        check_forward(&s);
        scene_free(&s);
    }
}

/* Huge scores stay finite; the largest wins. */
static void test_large_scores(void **state)
{
    struct scene s =
        scene_make(*state, DTYPE_F32, (struct attention_shape){ 1, 70, 1, 1, 4, 0.0f });
    for (int64_t i = 0; i < tensor_count(&s.qkv); i++) {
        host_set(&s.qkv, i, 2000.0f * host_get(&s.qkv, i));
    }
    forward(&s);
    backward(&s);
    for (int64_t i = 0; i < tensor_count(&s.out); i++) {
        assert_true(isfinite(host_get(&s.out, i)));
    }
    for (int64_t i = 0; i < tensor_count(&s.dqkv); i++) {
        assert_true(isfinite(host_get(&s.dqkv, i)));
    }
    /* A NaN in one key reaches exactly the queries that see it. */
    host_set(&s.qkv, 66 * 12 + 4, NAN);
    forward(&s);
    assert_true(isfinite(host_get(&s.out, 65 * 4)));
    assert_true(isnan(host_get(&s.out, 66 * 4)));
    assert_true(isnan(host_get(&s.out, 69 * 4)));
    scene_free(&s);
}

static void test_backward(void **state)
{
    static const struct attention_shape small[] = { { 2, 5, 2, 1, 4, 0.0f },
                                                    { 1, 9, 4, 2, 2, 0.0f },
                                                    { 1, 67, 2, 1, 2, 0.0f },
                                                    { 1, 66, 1, 1, 18, 0.0f } };
    for (int i = 0; i < 8; i++) {
        struct scene s = scene_make(*state, DTYPE_F32, small[i / 2]);
        if (i % 2 == 1) {
            scene_pack(&s, i < 4 ? 3 : 33);
        }
        forward(&s);
        backward(&s);
        gradient_assert(
            &(struct gradient_check){ forward, &s, &s.out, &s.dout, &s.qkv, &s.dqkv, "dqkv" });
        for (int64_t row = 0; row < tensor_count(&s.delta); row++) {
            int64_t head = row / s.shape.sequence % s.shape.heads;
            int64_t batch = row / s.shape.sequence / s.shape.heads;
            int64_t token = batch * s.shape.sequence + row % s.shape.sequence;
            double sum = 0.0;
            for (int64_t d = 0; d < s.shape.head_size; d++) {
                int64_t at = (token * s.shape.heads + head) * s.shape.head_size + d;
                sum += (double)host_get(&s.out, at) * (double)host_get(&s.dout, at);
            }
            host_assert_near((double)host_get(&s.delta, row), sum, 1e-5, "delta", row);
        }
        scene_free(&s);
    }
}

/* Copies `count` tokens of all heads from one scene to another. */
static void copy_tokens(const struct tensor *to, int64_t to_token, const struct tensor *from,
                        int64_t from_token, int64_t count)
{
    size_t row = (size_t)tensor_columns(from) * dtype_size(from->dtype);
    memcpy((char *)to->data + (size_t)to_token * row,
           (const char *)from->data + (size_t)from_token * row, (size_t)count * row);
}

/* Three records packed in a row against each of them alone: the same numbers up to rounding. */
static void test_records_are_separate(void **state)
{
    struct backend *be = *state;
    static const int64_t lengths[] = { 50, 100, 13 };
    struct scene whole =
        scene_make(be, DTYPE_F32, (struct attention_shape){ 1, 163, 4, 2, 16, 0.0f });
    whole.records = true;
    int64_t first = 0;
    for (int r = 0; r < 3; r++) {
        for (int64_t t = first; t < first + lengths[r]; t++) {
            host_ints(&whole.starts)[t] = (int32_t)first;
        }
        first += lengths[r];
    }
    forward(&whole);
    backward(&whole);
    first = 0;
    for (int r = 0; r < 3; r++) {
        struct attention_shape shape = { 1, lengths[r], 4, 2, 16, 0.0f };
        struct scene alone = scene_make(be, DTYPE_F32, shape);
        copy_tokens(&alone.qkv, 0, &whole.qkv, first, lengths[r]);
        copy_tokens(&alone.dout, 0, &whole.dout, first, lengths[r]);
        forward(&alone);
        backward(&alone);
        for (int64_t i = 0; i < tensor_count(&alone.out); i++) {
            host_assert_near((double)host_get(&whole.out, first * 64 + i),
                             (double)host_get(&alone.out, i), 2e-6, "out", i);
        }
        for (int64_t i = 0; i < tensor_count(&alone.dqkv); i++) {
            host_assert_near((double)host_get(&whole.dqkv, first * 128 + i),
                             (double)host_get(&alone.dqkv, i), 5e-6, "dqkv", i);
        }
        scene_free(&alone);
        first += lengths[r];
    }
    scene_free(&whole);
}

/* Every token decoded in turn against the forward of the whole sequence. */
static void check_decode(struct backend *be, enum dtype dtype)
{
    struct attention_shape shape = { 2, 140, 4, 2, 24, 0.0f };
    enum { HELD = 150 };
    struct scene s = scene_make(be, dtype, shape);
    forward(&s);
    struct tensor keys = host_matrix(be, dtype, 2 * HELD, 48);
    struct tensor values = host_matrix(be, dtype, 2 * HELD, 48);
    struct tensor qkv = host_matrix(be, dtype, 2, 192);
    struct tensor out = host_matrix(be, dtype, 2, 96);
    host_fill(&keys, NAN);
    host_fill(&values, NAN);
    shape.sequence = 1;
    shape.scale = s.shape.scale;
    for (int64_t t = 0; t < s.shape.sequence; t++) {
        copy_tokens(&qkv, 0, &s.qkv, t, 1);
        copy_tokens(&qkv, 1, &s.qkv, s.shape.sequence + t, 1);
        op_attention_decode(be, &(struct attention_decode){ &out, &keys, &values, &qkv, t, shape });
        for (int64_t i = 0; i < 192; i++) {
            int64_t token = (i / 96) * s.shape.sequence + t;
            double expected = (double)host_get(&s.out, token * 96 + i % 96);
            double tolerance = dtype == DTYPE_BF16 ? fabs(expected) / 120.0 + 1e-6 : 2e-6;
            host_assert_near((double)host_get(&out, i), expected, tolerance, "out", i);
        }
    }
    host_free(be, &keys);
    host_free(be, &values);
    host_free(be, &qkv);
    host_free(be, &out);
    scene_free(&s);
}

static void test_decode(void **state)
{
    check_decode(*state, DTYPE_F32);
    check_decode(*state, DTYPE_BF16);
}

/* From the same inputs, a bf16 result is exactly the fp32 result rounded to nearest. */
static void test_bf16_is_only_storage(void **state)
{
    struct backend *be = *state;
    struct attention_shape shape = { 2, 90, 4, 2, 20, 0.0f };
    struct scene half = scene_make(be, DTYPE_BF16, shape);
    struct scene single = scene_make(be, DTYPE_F32, shape);
    for (int64_t i = 0; i < tensor_count(&half.qkv); i++) {
        host_set(&single.qkv, i, host_get(&half.qkv, i));
    }
    for (int64_t i = 0; i < tensor_count(&half.dout); i++) {
        host_set(&single.dout, i, host_get(&half.dout, i));
    }
    forward(&half);
    forward(&single);
    host_assert_same_bits(&half.lse, &single.lse);
    for (int64_t i = 0; i < tensor_count(&half.out); i++) {
        float rounded = bf16_to_float(bf16_from_float(host_get(&single.out, i)));
        assert_true(host_get(&half.out, i) == rounded);
        host_set(&single.out, i, rounded); /* the backward reads what is stored */
    }
    backward(&half);
    backward(&single);
    for (int64_t i = 0; i < tensor_count(&half.dqkv); i++) {
        float rounded = bf16_to_float(bf16_from_float(host_get(&single.dqkv, i)));
        assert_true(host_get(&half.dqkv, i) == rounded);
    }
    scene_free(&half);
    scene_free(&single);
}

static void test_same_bits(void **state)
{
    struct backend *be = *state;
    struct attention_shape shape = { 2, 150, 4, 2, 20, 0.0f };
    int threads = omp_get_max_threads();
    struct scene first = scene_make(be, DTYPE_F32, shape);
    scene_pack(&first, 40);
    forward(&first);
    backward(&first);
    for (int run = 0; run < 10; run++) {
        omp_set_num_threads(run % 4 + 1);
        struct scene again = scene_make(be, DTYPE_F32, shape);
        scene_pack(&again, 40);
        forward(&again);
        backward(&again);
        host_assert_same_bits(&first.out, &again.out);
        host_assert_same_bits(&first.lse, &again.lse);
        host_assert_same_bits(&first.dqkv, &again.dqkv);
        scene_free(&again);
    }
    omp_set_num_threads(threads);
    scene_free(&first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_forward, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_forward_records, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_large_scores, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_backward, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_records_are_separate, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_decode, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_bf16_is_only_storage, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_same_bits, host_setup, host_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
