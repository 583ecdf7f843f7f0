/* An adapter written by peft: read, merged, trained on, and described again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/generate.h"
#include "fixture.h"

#define LOOKS "data.validation=0.1", "train.eval_every=1", "train.sample_every=1"

struct peft {
    struct adapter *adapter;
    struct adapter_settings settings;
    cJSON *golden;
    int32_t ids[16];
};

static void peft_open(struct peft *p)
{
    struct error err = { 0 };
    struct model_config config;
    check(config_read(TEST_DATA "/model/untied/config.json", &config, &err), &err);
    p->adapter = adapter_open(TEST_DATA "/model/adapter", &config, &err);
    check(p->adapter == NULL ? -1 : 0, &err);
    adapter_settings(p->adapter, &config, &p->settings);
    p->golden = json_read(TEST_DATA "/model/adapter/golden.json", &err);
    check(p->golden == NULL ? -1 : 0, &err);
    for (int i = 0; i < 16; i++) {
        p->ids[i] = (int32_t)cJSON_GetArrayItem(json_get(p->golden, "ids"), i)->valuedouble;
    }
}

static void peft_close(struct peft *p)
{
    adapter_settings_free(&p->settings);
    adapter_close(p->adapter);
    cJSON_Delete(p->golden);
}

/* (16, 96), malloc'd. */
static float *logits_of(struct trainer *trainer, const int32_t *ids)
{
    struct error err = { 0 };
    float *out = malloc(16 * 96 * sizeof *out);
    check(trainer_generate_begin(trainer, 16, &err), &err);
    for (int64_t i = 0; i < 16; i++) {
        check(trainer_generate_feed(trainer, ids[i], out + i * 96, &err), &err);
    }
    trainer_generate_end(trainer);
    return out;
}

static void compare(const float *found, const cJSON *golden, double tolerance)
{
    const cJSON *item;
    int64_t i = 0;
    cJSON_ArrayForEach (item, golden) {
        if (fabs((double)found[i] - item->valuedouble) > tolerance) {
            fail_msg("logit %d: %g, peft has %g", (int)i, (double)found[i], item->valuedouble);
        }
        i++;
    }
    assert_int_equal(i, 16 * 96);
}

/* A trainer that only looks, with the adapter merged (NULL: without). */
static struct trainer *looker(struct fixture *f, const struct adapter *adapter)
{
    struct error err = { 0 };
    struct weights_source *source = weights_open(TEST_DATA "/model/untied", &err);
    check(source == NULL ? -1 : 0, &err);
    if (adapter != NULL) {
        weights_lay_adapter(source, adapter);
    }
    struct trainer *trainer = inference_open(&(struct inference_options){ .recipe = &f->recipe,
                                                                          .config = &f->config,
                                                                          .be = f->be,
                                                                          .source = source,
                                                                          .positions = 16 },
                                             &err);
    check(trainer == NULL ? -1 : 0, &err);
    weights_close(source);
    return trainer;
}

static void test_read(void **state)
{
    (void)state;
    struct peft p;
    peft_open(&p);
    assert_int_equal(p.adapter->count, 8);
    const struct adapter_entry *q0 =
        adapter_find(p.adapter, "model.layers.0.self_attn.q_proj.weight");
    const struct adapter_entry *q1 =
        adapter_find(p.adapter, "model.layers.1.self_attn.q_proj.weight");
    const struct adapter_entry *k1 =
        adapter_find(p.adapter, "model.layers.1.self_attn.k_proj.weight");
    const struct adapter_entry *down =
        adapter_find(p.adapter, "model.layers.0.mlp.down_proj.weight");
    assert_null(adapter_find(p.adapter, "model.layers.0.self_attn.o_proj.weight"));
    assert_true(q0->rank == 4 && q0->scale == 6.0 / 4.0);
    assert_true(q1->rank == 2 && q1->scale == 6.0 / 2.0);
    assert_true(k1->rank == 4 && k1->scale == 5.0 / 4.0 && k1->rows == 16);
    assert_true(down->rank == 3 && down->scale == 2.0 && down->columns == 88);
    assert_string_equal(p.settings.rank, "4");
    assert_string_equal(p.settings.alpha, "6");
    assert_string_equal(p.settings.targets, "q_proj,k_proj,v_proj,down_proj");
    assert_non_null(strstr(p.settings.rank_pattern, "model.layers.1.self_attn.q_proj=2"));
    assert_non_null(strstr(p.settings.alpha_pattern, "model.layers.0.self_attn.k_proj=5"));
    peft_close(&p);
}

static void test_merged(void **state)
{
    (void)state;
    struct peft p;
    struct fixture f;
    peft_open(&p);
    fixture_open(&f, "untied", WORDS("method.name=full"));
    for (int with = 0; with < 2; with++) {
        struct trainer *trainer = looker(&f, with ? p.adapter : NULL);
        float *logits = logits_of(trainer, p.ids);
        compare(logits, json_get(p.golden, with ? "logits" : "base"), 1e-4);
        free(logits);
        trainer_close(trainer);
    }
    fixture_close(&f);
    peft_close(&p);
}

/* A fixture that trains the adapter, with the settings read from it. */
static void open_trained(struct fixture *f, struct peft *p, const char *precision)
{
    struct error err = { 0 };
    const struct adapter_settings *s = &p->settings;
    char *words[] = { xstrdup("method.name=lora"),
                      xasprintf("method.rank=%s", s->rank),
                      xasprintf("method.alpha=%s", s->alpha),
                      xasprintf("method.targets=%s", s->targets),
                      xasprintf("method.rank_pattern=%s", s->rank_pattern),
                      xasprintf("method.alpha_pattern=%s", s->alpha_pattern) };
    fixture_open(
        f, "untied",
        WORDS(words[0], words[1], words[2], words[3], words[4], words[5], LOOKS, precision));
    for (size_t i = 0; i < 6; i++) {
        free(words[i]);
    }
    check(trainer_load_adapter(f->trainer, p->adapter, &err), &err);
}

/* Beside the weights as merged: 1e-5 in fp32, and within bf16's rounding there. */
static void test_unmerged(void **state)
{
    (void)state;
    struct peft p;
    struct fixture f;
    peft_open(&p);
    open_trained(&f, &p, "precision.weights=fp32");
    float *beside = logits_of(f.trainer, p.ids);
    compare(beside, json_get(p.golden, "logits"), 1e-4);
    struct trainer *trainer = looker(&f, p.adapter);
    float *merged = logits_of(trainer, p.ids);
    for (int i = 0; i < 16 * 96; i++) {
        assert_true(fabsf(beside[i] - merged[i]) <= 1e-5f * (1.0f + fabsf(merged[i])));
    }
    trainer_close(trainer);
    fixture_close(&f);
    free(beside);
    free(merged);
    open_trained(&f, &p, "precision.weights=bf16");
    beside = logits_of(f.trainer, p.ids);
    compare(beside, json_get(p.golden, "logits"), 0.1);
    free(beside);
    fixture_close(&f);
    peft_close(&p);
}

/* What is written for the trainer's adapters says the same as what was read. */
static void test_described_again(void **state)
{
    (void)state;
    struct peft p;
    struct fixture f;
    struct adapter_entry entry[8];
    peft_open(&p);
    open_trained(&f, &p, "precision.weights=fp32");
    assert_int_equal(trainer_adapter_count(f.trainer), 8);
    for (int64_t i = 0; i < 8; i++) {
        trainer_adapter(f.trainer, i, &entry[i]);
        const struct adapter_entry *read = adapter_find(p.adapter, entry[i].parameter);
        assert_true(entry[i].rank == read->rank && entry[i].rows == read->rows);
        assert_true(fabs(entry[i].scale - read->scale) < 1e-6);
    }
    cJSON *json = adapter_config(entry, 8, "some/base");
    assert_string_equal(json_get(json, "peft_type")->valuestring, "LORA");
    assert_string_equal(json_get(json, "base_model_name_or_path")->valuestring, "some/base");
    assert_true(json_get(json, "r")->valuedouble == 4.0);
    assert_true(json_get(json, "lora_alpha")->valuedouble == 6.0);
    assert_int_equal(cJSON_GetArraySize(json_get(json, "target_modules")), 4);
    assert_int_equal(cJSON_GetArraySize(json_get(json, "rank_pattern")), 3);
    assert_int_equal(cJSON_GetArraySize(json_get(json, "alpha_pattern")), 2);
    const cJSON *five =
        json_get(json_get(json, "alpha_pattern"), "model.layers.1.self_attn.k_proj");
    assert_true(five->valuedouble == 5.0);
    assert_null(json_get(json, "use_dora")); /* peft before 0.9 refuses the key */
    cJSON_Delete(json);
    char *name = adapter_tensor_name(entry[0].parameter, 'A');
    assert_string_equal(name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    free(name);
    fixture_close(&f);
    peft_close(&p);
}

/* Another rank than the file's is refused, not cut. */
static void test_other_rank(void **state)
{
    (void)state;
    struct peft p;
    struct fixture f;
    struct error err = { 0 };
    peft_open(&p);
    fixture_open(&f, "untied", WORDS("method.name=lora", "method.rank=5", "method.targets=q_proj"));
    assert_int_equal(trainer_load_adapter(f.trainer, p.adapter, &err), -1);
    assert_non_null(strstr(err.message, "has rank 4, the recipe asks 5"));
    fixture_close(&f);
    peft_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),       cmocka_unit_test(test_merged),
        cmocka_unit_test(test_unmerged),   cmocka_unit_test(test_described_again),
        cmocka_unit_test(test_other_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
