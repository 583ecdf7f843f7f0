/* Patterns over names of parameters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/model/pattern.h"

static const char q3[] = "model.layers.3.self_attn.q_proj.weight";
static const char down12[] = "model.layers.12.mlp.down_proj.weight";
static const char norm[] = "model.norm.weight";
static const char norm1[] = "model.layers.0.input_layernorm.weight";
static const char head[] = "lm_head.weight";

static void test_fits(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        const char *name;
        bool fits;
    } rows[] = {
        { "all", head, true },
        { "", q3, false },
        { "q_proj", q3, true },
        { "q_pro", q3, false },
        { "k_proj, q_proj", q3, true },
        { "self_attn", q3, true },
        { "layers.3", q3, true },
        { "layers.0-3", q3, true },
        { "layers.0-2", q3, false },
        { "layers.0-3.*", q3, true },
        { "layers.4-20.*.down_proj", down12, true },
        { "layers.*.down_proj", down12, true },
        { "layers.*.weight", down12, true },
        { "layers.*.mlp.*.down_proj", down12, false },
        { "*.down_proj", down12, true },
        { "layers.1", down12, false },
        { "layers.3-", q3, false },
        { "layers.-3", q3, false },
        { "layers.99999999999999999999-1", q3, false },
        { "norm", norm, true },
        { "norm", norm1, false },
        { "*_layernorm", norm1, true },
        { "*norm", norm1, true },
        { "*norm", norm, true },
        { "*a*b*", norm, false },
        { "lm_head", head, true },
        { "lm_head.weight.more", head, false },
        { "*", head, true },
        { "..", q3, false },
        { ",", q3, false },
        { "model.layers.3.self_attn.q_proj.weight", q3, true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (pattern_list_fits(rows[i].list, rows[i].name) != rows[i].fits) {
            fail_msg("\"%s\" on %s", rows[i].list, rows[i].name);
        }
    }
}

static void test_numbers(void **state)
{
    (void)state;
    const char *list = "q_proj=16 , layers.0-3.*=4,layers.12 = 2.5,norm=x,lm_head";
    assert_true(pattern_list_number(list, q3, 8) == 16.0);
    assert_true(pattern_list_number(list, down12, 8) == 2.5);
    assert_true(pattern_list_number(list, norm1, 8) == 4.0);
    assert_true(pattern_list_number(list, "model.layers.7.mlp.up_proj.weight", 8) == 8.0);
    assert_true(pattern_list_number(list, norm, 8) == 8.0);
    assert_true(pattern_list_number(list, head, 8) == 8.0);
    assert_true(pattern_list_number("", q3, 8) == 8.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
