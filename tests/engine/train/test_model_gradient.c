/* The backward of whole models against central differences of their evaluated loss: grouped
 * queries, tied and untied heads, records that share rows, sizes from 1 up. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "small.h"

enum { CASES = 30, RANDOM_ELEMENTS = 3 };

struct checked {
    struct trainer *trainer;
    const struct batch *batch;
    struct dice dice;
    int number;
    int64_t parameters;
    int64_t telling; /* differences large enough to tell right from wrong */
};

static double loss_sum(const struct checked *c)
{
    struct error err = { 0 };
    double sum = 0.0;
    int64_t tokens = 0;
    check(trainer_evaluate(c->trainer, c->batch, &sum, &tokens, &err), &err);
    return sum;
}

/* d (sum of losses) / d value, from four points: the error of the step is O(step^4), so that steps
 * can be large enough for losses in fp32. */
static double difference(const struct checked *c, float *value, float step)
{
    const float old = *value;
    double far[2];
    double near[2];
    for (int i = 0; i < 2; i++) {
        float sign = i == 0 ? 1.0f : -1.0f;
        *value = old + sign * step;
        near[i] = loss_sum(c);
        *value = old + sign * 2.0f * step;
        far[i] = loss_sum(c);
    }
    *value = old;
    return (8.0 * (near[0] - near[1]) - (far[0] - far[1])) / (12.0 * (double)step);
}

static struct parameter *find_parameter(struct model *model, const char *name)
{
    for (int64_t i = 0; i < model->parameter_count; i++) {
        if (strcmp(model->parameter[i].name, name) == 0) {
            return &model->parameter[i];
        }
    }
    return NULL;
}

static int64_t largest_element(const float *x, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++) {
        best = fabsf(x[i]) > fabsf(x[best]) ? i : best;
    }
    return best;
}

/* A function as curved as the norm of a very short row needs small steps, a flat one large steps.
 */
static double closest_difference(const struct checked *c, float *value, double got)
{
    double best = difference(c, value, 0x1p-6f);
    for (float step = 0x1p-8f; fabs(best - got) > 1e-3 * fabs(got) && step > 0x1p-13f; step /= 4) {
        double other = difference(c, value, step);
        best = fabs(other - got) < fabs(best - got) ? other : best;
    }
    return best;
}

/* The largest element of every gradient and a few others. */
static void check_gradient(void *context, const char *name, struct tensor *gradient)
{
    struct checked *c = context;
    struct parameter *p = find_parameter(&c->trainer->model, name);
    const float *g = gradient->data;
    int64_t count = tensor_count(gradient);
    assert_non_null(p);
    assert_int_equal(count, parameter_count(p));
    c->parameters++;
    /* The norm of a row of one element is a step but for eps: small steps see its slope, and there
     * losses in fp32 resolve no more than this. */
    double blur = c->trainer->model.config.hidden_size == 1 ? 8e-3 : 2e-3;
    for (int i = 0; i <= RANDOM_ELEMENTS; i++) {
        int64_t at = i == 0 ? largest_element(g, count) : dice_roll(&c->dice, count);
        double got = (double)g[at] * (double)c->batch->trained_tokens;
        double want = closest_difference(c, (float *)p->value.data + at, got);
        if (!(fabs(got - want) <= blur + 1e-2 * fabs(want))) {
            fail_msg("case %d: %s, element %d: gradient %.6g, difference %.6g", c->number, name,
                     (int)at, got, want);
        }
        c->telling += fabs(want) > 2e-2;
    }
}

static void make_recipe(struct recipe *recipe, struct dice *dice)
{
    char length[64];
    char rows[64];
    snprintf(length, sizeof length, "data.sequence_length=%d", (int)DICE_PICK(dice, 1, 3, 9, 12));
    snprintf(rows, sizeof rows, "batch.micro=%d", (int)(1 + dice_roll(dice, 3)));
    const char *const words[] = { "model.init=random",
                                  "method.name=full",
                                  "optimizer.lr=0",
                                  "train.clip=0",
                                  "precision.weights=fp32",
                                  "data.validation=0.1",
                                  "train.steps=1",
                                  length,
                                  rows,
                                  NULL };
    recipe_init(recipe);
    lay_words(recipe, words);
}

static void check_case(int number, struct backend *be, int64_t *telling)
{
    struct error err = { 0 };
    struct checked c = { .number = number, .dice = { (uint64_t)(number + 1) << 40 } };
    struct model_config config;
    struct recipe recipe;
    struct plan plan;
    struct batch batch;
    struct step_result result;
    small_config(&c.dice, &config);
    make_recipe(&recipe, &c.dice);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    c.trainer = small_trainer(&recipe, &config, &plan, be);
    check(batch_init(&batch, recipe.batch_micro, recipe.data_sequence_length, &err), &err);
    small_batch(&c.dice, config.vocabulary, &batch);
    c.batch = &batch;
    check(trainer_step(c.trainer, 1, &batch, 1, &result, &err), &err);
    struct gradient_visitor visitor = { .visit = check_gradient, .context = &c };
    dense_each_gradient(&c.trainer->dense, &visitor);
    c.trainer->method.ops->each_gradient(&c.trainer->method, &visitor);
    assert_int_equal(c.parameters, c.trainer->model.parameter_count);
    *telling += c.telling;
    trainer_close(c.trainer);
    batch_free(&batch);
    recipe_free(&recipe);
}

static void test_central_differences(void **state)
{
    (void)state;
    int64_t telling = 0;
    struct backend *be = small_backend();
    for (int number = 0; number < CASES; number++) {
        check_case(number, be, &telling);
    }
    assert_true(telling > 10 * CASES);
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
