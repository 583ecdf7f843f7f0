/* A device that computes something else is found out before it trains. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/device.h"
#include "kernels/backend_ops.h"

static const struct backend_ops *good;

static void wrong_norm(struct backend *be, const struct rmsnorm_forward *args)
{
    good->rmsnorm_forward(be, args);
    good->scale(be, args->y, 1.05f);
}

static void no_number(struct backend *be, const struct adamw *args)
{
    good->adamw(be, args);
    if (args->weight->dtype == DTYPE_BF16) {
        ((uint16_t *)args->weight->data)[7] = 0x7fc0;
    }
}

static void failing_attention(struct backend *be, const struct attention_forward *args)
{
    (void)args;
    backend_fail(be, "the launch failed");
}

static void check(const struct backend_ops *ops, const char *const *says)
{
    char why[384] = "";
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(be);
    be->ops = ops != NULL ? ops : be->ops;
    int result = device_check(be, why, sizeof why);
    assert_int_equal(result, says != NULL ? -1 : 0);
    for (; says != NULL && *says != NULL; says++) {
        if (strstr(why, *says) == NULL) {
            fail_msg("\"%s\" does not say %s", why, *says);
        }
    }
    be->ops = good;
    backend_close(be);
}

static void wrong_results_are_named(void **state)
{
    (void)state;
    char why[128];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    good = be->ops;
    backend_close(be);
    check(NULL, NULL);
    struct backend_ops ops = *good;
    ops.rmsnorm_forward = wrong_norm;
    check(&ops, (const char *[]){ "norm in fp32", "away from the processor's", NULL });
    ops = *good;
    ops.adamw = no_number;
    check(&ops, (const char *[]){ "update in bf16", "nan", NULL });
    ops = *good;
    ops.attention_forward = failing_attention;
    check(&ops, (const char *[]){ "attention in fp32", "the launch failed", NULL });
}

static void auto_is_the_processor_where_there_is_no_gpu(void **state)
{
    (void)state;
    struct recipe recipe;
    struct error err = { 0 };
    recipe_init(&recipe);
    struct backend *be = device_open(&recipe, NULL, &err);
    assert_non_null(be);
    if (backend_device_count("cuda") == 0) {
        assert_false(device_is_cuda(be));
    }
    device_close(be);
    assert_int_equal(recipe_set(&recipe, "device=cuda:77", &err), 0);
    assert_null(device_open(&recipe, NULL, &err));
    assert_non_null(strstr(err.message, "cuda:77"));
    assert_non_null(strstr(err.hint, "windrow doctor"));
    recipe_free(&recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_results_are_named),
        cmocka_unit_test(auto_is_the_processor_where_there_is_no_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
