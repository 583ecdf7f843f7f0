/* Runs of lora: what their checkpoints hold, resuming, exporting both ways, going on with an
 * adapter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/digest.h"
#include "engine/base/xalloc.h"
#include "engine/inspect.h"
#include "engine/model/adapter.h"
#include "engine/run/fixture.h"

static void train_lora(struct fixture *fixture, const char *name)
{
    fixture_set(fixture, "method.name=lora");
    fixture_set(fixture, "method.rank=2");
    fixture_set(fixture, "method.rank_pattern=v_proj=3");
    fixture_set(fixture, "optimizer.lr=0.01");
    fixture_train(fixture, name);
}

static void digest_file(const char *directory, const char *name, char text[DIGEST_TEXT_SIZE])
{
    struct error err = { 0 };
    char *path = path_join(directory, name);
    if (digest_of_file(path, text, &err) != 0) {
        fail_msg("%s", err.message);
    }
    free(path);
}

static bool same_file(const char *a, const char *b, const char *name)
{
    char one[DIGEST_TEXT_SIZE];
    char two[DIGEST_TEXT_SIZE];
    digest_file(a, name, one);
    digest_file(b, name, two);
    return strcmp(one, two) == 0;
}

static struct adapter *open_adapter(const char *directory, const char *model)
{
    struct error err = { 0 };
    struct model_config config;
    char *path = path_join(model, "config.json");
    assert_int_equal(config_read(path, &config, &err), 0);
    struct adapter *adapter = adapter_open(directory, &config, &err);
    if (adapter == NULL) {
        fail_msg("%s", err.message);
    }
    free(path);
    return adapter;
}

/* The checkpoint is the base and the adapter; its size was planned. The export at the end of the
 * run is the one from its checkpoint, and the adapter comes out as it lies there. */
static void a_checkpoint_is_base_and_adapter(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    struct event event;
    struct event plan;
    char *run = fixture_path(fixture, "one");
    char *first = path_join(run, "checkpoints/step-000006");
    char *last = path_join(run, "checkpoints/step-000008");
    char *model = path_join(run, "model");
    char *merged = fixture_path(fixture, "merged");
    char *alone = fixture_path(fixture, "alone");
    fixture_set(fixture, "train.export=true");
    fixture_set(fixture, "train.sample_every=4");
    train_lora(fixture, "one");
    assert_int_equal(fixture_events(run, EVENT_CHECKPOINT, &event), 3);
    assert_int_equal(fixture_events(run, EVENT_PLAN, &plan), 1);
    double off = fabs((double)(plan.plan.checkpoint_bytes - event.checkpoint.bytes));
    assert_true(off < 0.02 * (double)event.checkpoint.bytes);
    event_free(&plan);
    event_free(&event);
    assert_true(same_file(first, last, "model.safetensors"));
    assert_false(same_file(first, last, "adapter_model.safetensors"));
    assert_int_equal(run_export(run, 0, false, merged, &err), 0);
    assert_int_equal(run_export(run, 0, true, alone, &err), 0);
    assert_true(same_file(model, merged, "model.safetensors"));
    assert_false(same_file(last, merged, "model.safetensors"));
    assert_true(same_file(last, alone, "adapter_model.safetensors"));
    assert_true(adapter_is_directory(alone) && !adapter_is_directory(merged));
    struct adapter *adapter = open_adapter(alone, last);
    assert_int_equal(adapter->count, 14);
    assert_int_equal(adapter->entry[2].rank, 3);
    adapter_close(adapter);
    free(alone);
    free(merged);
    free(model);
    free(last);
    free(first);
    free(run);
}

static void a_resumed_run_is_the_same(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    char *run = fixture_path(fixture, "one");
    char *last = path_join(run, "checkpoints/step-000008");
    char before[2][DIGEST_TEXT_SIZE];
    char after[2][DIGEST_TEXT_SIZE];
    train_lora(fixture, "one");
    digest_file(last, "adapter_model.safetensors", before[0]);
    digest_file(last, "state.safetensors", before[1]);
    assert_int_equal(file_remove_tree(last, &err), 0);
    assert_int_equal(fixture_run(&(struct run_options){ .resume = run }, NULL), 0);
    digest_file(last, "adapter_model.safetensors", after[0]);
    digest_file(last, "state.safetensors", after[1]);
    assert_string_equal(before[0], after[0]);
    assert_string_equal(before[1], after[1]);
    free(last);
    free(run);
}

/* One still step of `method` from the run's base with its adapter; the loss of that step. */
static double loss_with(struct fixture *fixture, const char *method, const char *name)
{
    struct event event;
    char *word = xasprintf("method.name=%s", method);
    char *run = fixture_path(fixture, name);
    fixture_set(fixture, word);
    fixture_set(fixture, "optimizer.lr=0");
    fixture_set(fixture, "train.steps=1");
    fixture_set(fixture, "train.save_every=1");
    fixture_set(fixture, "method.rank=1"); /* the adapter knows better */
    fixture_set(fixture, "method.rank_pattern=");
    fixture_train(fixture, name);
    assert_int_equal(fixture_events(run, EVENT_STEP, &event), 1);
    double loss = (double)event.step_done.loss;
    event_free(&event);
    free(run);
    free(word);
    return loss;
}

/* An exported adapter goes on under lora, and is merged under another method, or where it lies with
 * its base: the same loss. */
static void an_adapter_goes_on(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    char *run = fixture_path(fixture, "one");
    char *last = path_join(run, "checkpoints/step-000008");
    char *alone = fixture_path(fixture, "alone");
    train_lora(fixture, "one");
    assert_int_equal(run_export(run, 0, true, alone, &err), 0);
    char *path = xasprintf("model.path=%s", last);
    char *adapter = xasprintf("model.adapter=%s", alone);
    fixture_set(fixture, path);
    fixture_set(fixture, adapter);
    double on = loss_with(fixture, "lora", "two");
    double merged = loss_with(fixture, "full", "three");
    fixture_set(fixture, "model.adapter=");
    double beside = loss_with(fixture, "full", "four");
    assert_true(fabs(on - merged) < 1e-5 * on);
    assert_true(merged == beside);
    char *two = fixture_path(fixture, "two/checkpoints/step-000001");
    struct adapter *was = open_adapter(last, last);
    struct adapter *is = open_adapter(two, two);
    assert_int_equal(was->count, is->count);
    for (size_t i = 0; i < was->count; i++) {
        const struct adapter_entry *a = &was->entry[i];
        const struct adapter_entry *b = &is->entry[i];
        assert_true(a->rank == b->rank && fabs(a->scale - b->scale) < 1e-6);
        assert_memory_equal(a->a, b->a, (size_t)(a->rank * a->columns) * sizeof(float));
        assert_memory_equal(a->b, b->b, (size_t)(a->rank * a->rows) * sizeof(float));
    }
    adapter_close(was);
    adapter_close(is);
    free(two);
    free(adapter);
    free(path);
    free(alone);
    free(last);
    free(run);
}

static void what_makes_no_sense_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    char *report = NULL;
    char *run = fixture_path(fixture, "one");
    char *target = fixture_path(fixture, "alone");
    fixture_set(fixture, "model.adapter=/nowhere");
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    assert_int_not_equal(fixture_run(&options, &report), 0);
    assert_non_null(strstr(report, "model.adapter does not go with random weights"));
    fixture_set(fixture, "model.adapter=");
    fixture_train(fixture, "one"); /* grass */
    assert_int_equal(run_export(run, 0, true, target, &err), -1);
    assert_non_null(strstr(err.message, "holds no adapter"));
    free(report);
    free(target);
    free(run);
}

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_checkpoint_is_base_and_adapter, fixture_make,
                                        fixture_remove),
        cmocka_unit_test_setup_teardown(a_resumed_run_is_the_same, fixture_make, fixture_remove),
        cmocka_unit_test_setup_teardown(an_adapter_goes_on, fixture_make, fixture_remove),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, fixture_make,
                                        fixture_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
