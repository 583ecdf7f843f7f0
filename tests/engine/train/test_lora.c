/* What LoRA promises: the base at the start, exact gradients, frozen weights, no byte for them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/lora.h"
#include "fixture.h"

#define LORA "method.name=lora", "method.rank=4", "method.alpha=8"

static struct method *method_of(struct fixture *f)
{
    return &f->trainer->method;
}

static int64_t adapter_count(struct fixture *f)
{
    return trainer_adapter_count(f->trainer);
}

static struct method_adapter adapter_at(struct fixture *f, int64_t index)
{
    struct method_adapter adapter;
    method_of(f)->ops->adapter(method_of(f), index, &adapter);
    return adapter;
}

static float *values(const struct tensor *t)
{
    return t->data; /* the cpu backend */
}

/* Random values for every B, so that the adapters do something. */
static void fill_b(struct fixture *f)
{
    for (int64_t i = 0; i < adapter_count(f); i++) {
        struct method_adapter adapter = adapter_at(f, i);
        struct random_key key = { .seed = 7, .purpose = RANDOM_TEST, .tensor = (uint32_t)i };
        for (int64_t k = 0; k < tensor_count(&adapter.b); k++) {
            values(&adapter.b)[k] = 0.2f * (random_uniform(&key, (uint64_t)k) - 0.5f);
        }
    }
    method_of(f)->ops->renew(method_of(f));
}

static double loss_sum(struct fixture *f)
{
    struct error err = { 0 };
    double sum = 0.0;
    int64_t tokens = 0;
    check(trainer_evaluate(f->trainer, &f->batch, &sum, &tokens, &err), &err);
    return sum;
}

/* Logits of the tokens of the first row, one by one (malloc'd). */
static float *logits(struct fixture *f)
{
    struct error err = { 0 };
    int64_t vocabulary = f->config.vocabulary;
    float *out = malloc((size_t)(16 * vocabulary) * sizeof *out);
    check(trainer_generate_begin(f->trainer, 16, &err), &err);
    for (int64_t i = 0; i < 16; i++) {
        check(trainer_generate_feed(f->trainer, f->batch.ids[i], out + i * vocabulary, &err), &err);
    }
    trainer_generate_end(f->trainer);
    return out;
}

#define LOOKS "data.validation=0.1", "train.eval_every=1", "train.sample_every=1"

/* At the start the model is the base, bit for bit, in fp32 and bf16. */
static void test_starts_as_the_base(void **state)
{
    (void)state;
    static const char *const formats[] = { "precision.weights=fp32", "precision.weights=bf16" };
    for (size_t i = 0; i < 2; i++) {
        struct fixture base;
        struct fixture lora;
        fixture_open(&base, "untied", WORDS("method.name=full", formats[i], LOOKS));
        fixture_open(&lora, "untied", WORDS(LORA, formats[i], LOOKS));
        assert_true(loss_sum(&base) == loss_sum(&lora));
        float *a = logits(&base);
        float *b = logits(&lora);
        for (int64_t k = 0; k < 16 * 96; k++) {
            assert_true(a[k] == b[k]);
        }
        free(a);
        free(b);
        fill_b(&lora); /* and adapters are used wherever the model is */
        assert_false(loss_sum(&base) == loss_sum(&lora));
        a = logits(&base);
        b = logits(&lora);
        assert_false(a[95] == b[95]);
        free(a);
        free(b);
        fixture_close(&base);
        fixture_close(&lora);
    }
}

static bool all_zero(const struct tensor *t)
{
    for (int64_t i = 0; i < tensor_count(t); i++) {
        if (values(t)[i] != 0.0f) {
            return false;
        }
    }
    return true;
}

struct gradients {
    int64_t a;
    int64_t b;
    bool first; /* of the first step */
};

static void look_at_gradient(void *context, const char *parameter, struct tensor *gradient)
{
    struct gradients *seen = context;
    bool is_a = strstr(parameter, "/lora_A") != NULL;
    seen->a += is_a;
    seen->b += !is_a;
    assert_int_equal(all_zero(gradient), seen->first && is_a);
}

/* With B zero nothing reaches A: in the first step only B moves. */
static void test_first_step_moves_b_alone(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    struct gradients seen = { .first = true };
    fixture_open(&f, "untied", WORDS(LORA, "optimizer.weight_decay=0"));
    assert_int_equal(adapter_count(&f), 14);
    struct method_adapter adapter = adapter_at(&f, 3);
    size_t bytes = tensor_bytes(&adapter.a);
    float *before = malloc(bytes);
    memcpy(before, adapter.a.data, bytes);
    float bound = 1.0f / sqrtf(32.0f);
    float largest = 0.0f;
    for (int64_t i = 0; i < tensor_count(&adapter.a); i++) {
        largest = fmaxf(largest, fabsf(before[i]));
    }
    assert_true(largest <= bound && largest > 0.9f * bound);
    fixture_step(&f, &step);
    method_of(&f)->ops->each_gradient(method_of(&f),
                                      &(struct gradient_visitor){ look_at_gradient, &seen });
    assert_memory_equal(before, adapter.a.data, bytes);
    assert_false(all_zero(&adapter.b));
    seen.first = false;
    fixture_step(&f, &step);
    method_of(&f)->ops->each_gradient(method_of(&f),
                                      &(struct gradient_visitor){ look_at_gradient, &seen });
    assert_int_not_equal(memcmp(before, adapter.a.data, bytes), 0);
    assert_int_equal(seen.a, 28);
    assert_int_equal(seen.b, 28);
    free(before);
    fixture_close(&f);
}

/* d (sum of losses) / d value, from four points. */
static double difference(struct fixture *f, float *value)
{
    const float old = *value;
    const float step = 0.01f;
    double d[4];
    static const float at[4] = { 1.0f, -1.0f, 2.0f, -2.0f };
    for (int i = 0; i < 4; i++) {
        *value = old + at[i] * step;
        method_of(f)->ops->renew(method_of(f));
        d[i] = loss_sum(f);
    }
    *value = old;
    method_of(f)->ops->renew(method_of(f));
    return (8.0 * (d[0] - d[1]) - (d[2] - d[3])) / (12.0 * (double)step);
}

struct compared {
    struct fixture *f;
    int64_t seen;
    int64_t telling;
};

static void compare_gradient(void *context, const char *parameter, struct tensor *gradient)
{
    struct compared *c = context;
    struct method_adapter adapter = adapter_at(c->f, c->seen / 2);
    struct tensor *value = c->seen % 2 == 0 ? &adapter.a : &adapter.b;
    int64_t largest = 0;
    for (int64_t i = 0; i < tensor_count(gradient); i++) {
        if (fabsf(values(gradient)[i]) > fabsf(values(gradient)[largest])) {
            largest = i;
        }
    }
    assert_memory_equal(gradient->dim, value->dim, sizeof value->dim);
    double tokens = (double)c->f->batch.trained_tokens;
    double found = (double)values(gradient)[largest] * tokens;
    double expected = difference(c->f, &values(value)[largest]);
    if (fabs(found - expected) > 2e-3 * fabs(expected) + 2e-4) {
        fail_msg("%s: %g, difference %g", parameter, found, expected);
    }
    c->telling += fabs(expected) > 0.05;
    c->seen++;
}

/* Gradients of A and B against differences of the loss, with ranks and scales that differ, packed
 * layers adapted in part, and two micro-batches. */
static void check_gradients(const char *const *words)
{
    struct fixture f;
    struct error err = { 0 };
    struct step_result result;
    fixture_open(&f, "untied", words);
    fill_b(&f);
    struct batch batches[] = { f.batch, f.batch };
    check(trainer_step(f.trainer, 1, batches, 2, &result, &err), &err);
    struct compared c = { .f = &f };
    method_of(&f)->ops->each_gradient(method_of(&f),
                                      &(struct gradient_visitor){ compare_gradient, &c });
    assert_int_equal(c.seen, 2 * adapter_count(&f));
    assert_true(c.telling * 2 > c.seen);
    fixture_close(&f);
}

static void test_gradients(void **state)
{
    (void)state;
#define STILL "optimizer.lr=0", "batch.accumulate=2", "data.validation=0.1"
    check_gradients(WORDS(LORA, STILL));
    check_gradients(WORDS(LORA, STILL, "method.targets=k_proj,v_proj,up_proj"));
    check_gradients(WORDS(LORA, STILL, "method.rank_pattern=q_proj=2,layers.1.*.gate_proj=7",
                          "method.alpha_pattern=layers.0=3"));
}

static void digest_weights(struct fixture *f, char text[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_begin();
    for (int64_t i = 0; i < f->trainer->model.parameter_count; i++) {
        const struct tensor *t = &f->trainer->model.parameter[i].value;
        digest_add(digest, t->data, tensor_bytes(t));
    }
    digest_end(digest, text);
}

/* No weight moves; the loss falls all the same. */
static void test_weights_stay(void **state)
{
    (void)state;
    struct fixture f;
    char before[DIGEST_TEXT_SIZE];
    char after[DIGEST_TEXT_SIZE];
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS(LORA, "optimizer.lr=0.02", "train.clip=1"));
    digest_weights(&f, before);
    float first = fixture_step(&f, &step).loss;
    float last = first;
    for (int i = 0; i < 40; i++) {
        last = fixture_step(&f, &step).loss;
    }
    digest_weights(&f, after);
    assert_string_equal(before, after);
    assert_true(last < 0.8f * first);
    fixture_close(&f);
}

/* Twice the scale is twice B. */
static void test_scale(void **state)
{
    (void)state;
    struct fixture one;
    struct fixture two;
    fixture_open(&one, "untied", WORDS(LORA, LOOKS));
    fixture_open(&two, "untied",
                 WORDS("method.name=lora", "method.rank=4", "method.alpha=4", LOOKS));
    fill_b(&one);
    for (int64_t i = 0; i < adapter_count(&two); i++) {
        struct method_adapter a = adapter_at(&one, i);
        struct method_adapter b = adapter_at(&two, i);
        assert_memory_equal(a.a.data, b.a.data, tensor_bytes(&a.a)); /* the same seed */
        for (int64_t k = 0; k < tensor_count(&a.b); k++) {
            values(&b.b)[k] = 2.0f * values(&a.b)[k];
        }
    }
    method_of(&two)->ops->renew(method_of(&two));
    assert_true(loss_sum(&one) == loss_sum(&two));
    fixture_close(&one);
    fixture_close(&two);
}

static size_t aligned(int64_t bytes)
{
    return ((size_t)bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

/* Gradients are those of the adapters to the byte, states twice that and counters; the trained
 * count is r (M + N) summed. */
static void test_memory(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS(LORA, "precision.weights=bf16", "method.frozen=layers.0"));
    fixture_step(&f, &step);
    size_t gradients = 0;
    size_t states = 0;
    int64_t trained = 0;
    assert_int_equal(adapter_count(&f), 7);
    for (int64_t i = 0; i < adapter_count(&f); i++) {
        struct method_adapter adapter = adapter_at(&f, i);
        size_t b = aligned((int64_t)tensor_bytes(&adapter.b));
        size_t a = aligned((int64_t)tensor_bytes(&adapter.a));
        gradients += a + b; /* 4 rows of 32 fp32 or more: A is aligned in its layer already */
        states += 2 * (a + b) + 3 * MEMORY_ALIGNMENT; /* two ages and the index */
        trained += 4 * (adapter.a.dim[1] + adapter.b.dim[0]);
    }
    assert_int_equal(f.plan.bytes[MEMORY_GRADIENTS], gradients);
    assert_int_equal(f.plan.bytes[MEMORY_OPTIMIZER], states);
    assert_int_equal(f.plan.trained, trained);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_int_equal(memory_peak(trainer_memory(f.trainer), (enum memory_category)c),
                         f.plan.bytes[c]);
    }
    assert_int_equal(f.trainer->model.first_trained, 1);
    fixture_close(&f);
}

/* Adapters where they are asked for, and nowhere else. */
static void test_query_and_value_alone(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS(LORA, "method.targets=q_proj,v_proj"));
    fixture_step(&f, &step);
    assert_int_equal(adapter_count(&f), 4);
    int64_t count = trainer_state_count(f.trainer);
    int64_t states = 0;
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(f.trainer, i, &entry);
        if (!entry.weight) {
            states++;
            assert_true(strstr(entry.name, "q_proj") || strstr(entry.name, "v_proj"));
        }
    }
    assert_int_equal(states, 4 * 8);
    fixture_close(&f);
}

/* Both of them, A's before B's. */
static void take_gradient(void *context, const char *name, struct tensor *gradient)
{
    float *found = context;
    memcpy(strstr(name, "lora_A") ? found : found + 2, gradient->data, 8);
}

/* By hand: W = I, A = [1 2], B = [3; 4], alpha 2, r 1, so s = 2, and x = [1 1], dy = [1 0]:
 * h = 3, y = [19 25], dB = [6; 0], dA = [6 6], dx = [7 12]. */
static void test_by_hand(void **state)
{
    (void)state;
    struct error err = { 0 };
    char why[256];
    static const size_t capacity[MEMORY_CATEGORY_COUNT] = { 4096, 4096, 4096, 4096, 4096 };
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    struct memory *memory = memory_open(be, capacity, &err);
    struct parameter parameter = {
        .name = "w", .role = PARAMETER_MATRIX, .rank = 2, .dim = { 2, 2 }
    };
    float identity[] = { 1, 0, 0, 1 };
    struct linear linear = { .part_count = 1, .part = { { &parameter, 0, 2 } } };
    linear.weight =
        (struct tensor){ .data = identity, .dim = { 2, 2, 1, 1 }, .rank = 2, .dtype = DTYPE_F32 };
    struct model model = { .linear = &linear, .linear_count = 1, .dtype = DTYPE_F32 };
    struct method method = { .ops = &lora_method,
                             .be = be,
                             .memory = memory,
                             .model = &model,
                             .rule = rule_find("adamw"),
                             .settings = { .rank = 1,
                                           .alpha = 2.0,
                                           .rank_pattern = "",
                                           .alpha_pattern = "",
                                           .state_dtype = DTYPE_F32 } };
    check(lora_method.attach(&method, &err), &err);
    struct method_adapter adapter;
    lora_method.adapter(&method, 0, &adapter);
    memcpy(adapter.a.data, (float[]){ 1, 2 }, 8);
    memcpy(adapter.b.data, (float[]){ 3, 4 }, 8);
    lora_method.renew(&method);
    float x_data[] = { 1, 1 };
    float y_data[] = { 1, 1 }; /* x W^T */
    float dy_data[] = { 1, 0 };
    float dx_data[] = { 1, 0 }; /* dy W */
    struct tensor row = { .dim = { 1, 2, 1, 1 }, .rank = 2, .dtype = DTYPE_F32 };
    struct tensor x = row;
    struct tensor y = row;
    struct tensor dy = row;
    struct tensor dx = row;
    x.data = x_data;
    y.data = y_data;
    dy.data = dy_data;
    dx.data = dx_data;
    struct pass pass = { .be = be, .memory = memory, .batch = 1, .sequence = 1 };
    lora_method.forward(&method, &pass, &linear, &y, &x);
    assert_memory_equal(y_data, ((float[]){ 19, 25 }), 8);
    lora_method.input_gradient(&method, &pass, &linear, &dx, &dy);
    assert_memory_equal(dx_data, ((float[]){ 7, 12 }), 8);
    lora_method.weight_gradient(&method, &pass, &linear, &dy, &x);
    float found[4];
    lora_method.each_gradient(&method, &(struct gradient_visitor){ take_gradient, found });
    assert_memory_equal(found, ((float[]){ 6, 6, 6, 0 }), 16);
    assert_int_equal(backend_sync(be), 0);
    lora_method.detach(&method);
    memory_close(memory);
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_starts_as_the_base),
        cmocka_unit_test(test_first_step_moves_b_alone),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_weights_stay),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_query_and_value_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
