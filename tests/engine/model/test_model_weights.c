/* Weights and configuration must belong together, and that is known before memory is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/model/model_weights.h"

static int compare(const char *model, void (*change)(struct model_config *), struct error *err)
{
    struct model_config config;
    char directory[512];
    char path[600];
    snprintf(directory, sizeof directory, "%s/model/%s", TEST_DATA, model);
    snprintf(path, sizeof path, "%s/config.json", directory);
    struct weights_source *source = weights_open(directory, err);
    assert_non_null(source);
    assert_int_equal(config_read(path, &config, err), 0);
    change(&config);
    int result = model_check_weights(&config, source, err);
    weights_close(source);
    return result;
}

static void nothing(struct model_config *config)
{
    (void)config;
}

static void wider(struct model_config *config)
{
    config->intermediate_size = 1 << 20;
}

static void deeper(struct model_config *config)
{
    config->layers++;
}

static void shallower(struct model_config *config)
{
    config->layers--;
}

static void tie(struct model_config *config)
{
    config->tied = true;
}

static void untie(struct model_config *config)
{
    config->tied = false;
}

static void test_belong_together(void **state)
{
    (void)state;
    struct error err = { 0 };
    assert_int_equal(compare("untied", nothing, &err), 0);
    assert_int_equal(compare("tied", nothing, &err), 0);
    assert_int_equal(compare("untied", tie, &err), 0); /* the stored head is the embedding again */
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        void (*change)(struct model_config *);
        const char *needle;
    } cases[] = {
        { "untied", wider, "model.layers.0.mlp.gate_proj.weight" },
        { "untied", deeper, "model.layers.2.input_layernorm.weight" },
        { "untied", shallower, "model.layers.1." },
        { "tied", untie, "lm_head.weight" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = { 0 };
        assert_int_equal(compare(cases[i].model, cases[i].change, &err), -1);
        assert_int_equal(err.code, ERROR_DATA);
        assert_non_null(strstr(err.message, cases[i].needle));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_belong_together),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
