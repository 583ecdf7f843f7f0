/* Offloaded activations: the same bits as without, in memory that does not grow with depth. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/activation/store.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "small.h"

enum { STEPS = 4 };

struct outcome {
    char digest[DIGEST_TEXT_SIZE];
    float loss[STEPS];
    size_t activations; /* peak of the steps */
    struct store_counts counts;
};

static void recipe_from(struct recipe *recipe, const char *const *words)
{
    static const char *const base[] = { "batch.micro=2",        "data.sequence_length=12",
                                        "optimizer.lr=0.01",    "schedule.name=constant",
                                        "model.init=random",    "method.interval=2",
                                        "method.rank=4",        "batch.accumulate=2",
                                        "train.sample_every=0", NULL };
    struct error err = { 0 };
    recipe_init(recipe);
    for (int i = 0; base[i] != NULL; i++) {
        check(recipe_set(recipe, base[i], &err), &err);
    }
    for (; *words != NULL; words++) {
        check(recipe_set(recipe, *words, &err), &err);
    }
}

static void deep_config(struct model_config *config, int64_t layers)
{
    struct dice dice = { 7 };
    small_config(&dice, config);
    config->layers = layers;
}

static void train(int64_t layers, const char *const *words, struct outcome *out)
{
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct error err = { 0 };
    memset(out, 0, sizeof *out);
    recipe_from(&recipe, words);
    deep_config(&config, layers);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    struct backend *be = small_backend();
    struct store *store = small_store(&recipe, &plan, be);
    struct trainer *trainer = trainer_open(&(struct trainer_options){ .recipe = &recipe,
                                                                      .config = &config,
                                                                      .be = be,
                                                                      .capacity = plan.bytes,
                                                                      .store = store },
                                           &err);
    check(trainer == NULL ? -1 : 0, &err);
    struct batch batch[2];
    struct dice dice = { 3 };
    for (int i = 0; i < 2; i++) {
        check(batch_init(&batch[i], 2, 12, &err), &err);
    }
    for (int step = 1; step <= STEPS; step++) {
        struct step_result result;
        small_batch(&dice, config.vocabulary, &batch[0]);
        small_batch(&dice, config.vocabulary, &batch[1]);
        check(trainer_step(trainer, step, batch, 2, &result, &err), &err);
        out->loss[step - 1] = result.loss;
    }
    out->activations = memory_peak(trainer_memory(trainer), MEMORY_ACTIVATIONS);
    assert_int_equal(out->activations, plan.bytes[MEMORY_ACTIVATIONS]);
    assert_int_equal(trainer_offload_spans(trainer), plan.offload_spans);
    small_digest(trainer, out->digest);
    if (store != NULL) {
        store_count(store, &out->counts);
    }
    trainer_close(trainer);
    store_close(store);
    backend_close(be);
    for (int i = 0; i < 2; i++) {
        batch_free(&batch[i]);
    }
    recipe_free(&recipe);
}

/* One choice of each kind, as words. */
static void same_bits(int64_t layers, const char *method, const char *weights, const char *more)
{
    struct outcome whole;
    struct outcome host;
    struct outcome ssd;
    struct outcome some;
    train(layers, WORDS(method, weights, more), &whole);
    train(layers, WORDS(method, weights, more, "activation.offload=host"), &host);
    train(layers, WORDS(method, weights, more, "activation.offload=ssd"), &ssd);
    train(layers, WORDS(method, weights, more, "activation.offload=ssd", "activation.resident=2"),
          &some);
    assert_string_equal(whole.digest, host.digest);
    assert_string_equal(whole.digest, ssd.digest);
    assert_string_equal(whole.digest, some.digest);
    assert_memory_equal(whole.loss, ssd.loss, sizeof whole.loss);
    assert_true(host.activations < whole.activations);
    assert_int_equal(host.activations, ssd.activations);
    assert_true(some.activations > ssd.activations && some.activations < whole.activations);
    assert_int_equal(host.counts.written_bytes, 0);
    assert_true(ssd.counts.written_bytes > 0 || ssd.counts.forwarded_spans > 0);
}

static void gradients_are_the_same_bits(void **state)
{
    (void)state;
    static const char *const methods[] = { "method.name=full", "method.name=grass" };
    static const char *const weights[] = { "precision.weights=fp32", "precision.weights=bf16" };
    for (int m = 0; m < 2; m++) {
        for (int w = 0; w < 2; w++) {
            static const char *const recomputes[] = { "none", "norms", "ffn", "block" };
            char *recompute = xasprintf("activation.recompute=%s", recomputes[2 * m + w]);
            same_bits(9, methods[m], weights[w], recompute);
            free(recompute);
        }
    }
}

static void memory_does_not_grow_with_depth(void **state)
{
    (void)state;
    struct outcome shallow;
    struct outcome deep;
    train(6, WORDS("activation.offload=ssd"), &shallow);
    train(14, WORDS("activation.offload=ssd"), &deep);
    assert_int_equal(shallow.activations, deep.activations);
    train(6, WORDS("activation.offload=none"), &shallow);
    train(14, WORDS("activation.offload=none"), &deep);
    assert_true(deep.activations > 2 * shallow.activations);
}

/* Each span goes out and comes back at most once a micro-batch, whatever reads it twice. */
static void nothing_is_stored_twice(void **state)
{
    (void)state;
    struct outcome ssd;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct error err = { 0 };
    recipe_from(&recipe, WORDS("activation.offload=ssd"));
    deep_config(&config, 9);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    assert_int_equal(plan.offload_spans, 6);
    train(9, WORDS("activation.offload=ssd"), &ssd);
    int64_t room = ((int64_t)plan.offload_span_bytes + 4095) / 4096 * 4096;
    int64_t spans = plan.offload_spans * 2 * STEPS;
    assert_true(ssd.counts.written_bytes <= spans * room);
    /* What was not handed back from memory was read. */
    assert_int_equal(ssd.counts.read_bytes, (spans - ssd.counts.forwarded_spans) * room);
    recipe_free(&recipe);
}

/* Models as shallow as the places on the device have nothing to move. */
static void shallow_models_keep_everything(void **state)
{
    (void)state;
    struct outcome whole;
    struct outcome ssd;
    train(3, WORDS("activation.offload=none"), &whole);
    train(3, WORDS("activation.offload=ssd"), &ssd);
    assert_int_equal(whole.activations, ssd.activations);
    assert_string_equal(whole.digest, ssd.digest);
    assert_int_equal(ssd.counts.written_bytes, 0);
}

/* ---- a disk that fails -------------------------------------------------------------------------
 */

static int writes_left;

static ssize_t failing_write(int fd, const void *bytes, size_t size, off_t offset)
{
    if (writes_left-- <= 0) {
        errno = ENOSPC;
        return -1;
    }
    return pwrite(fd, bytes, size, offset);
}

static void a_full_disk_ends_the_step(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct error err = { 0 };
    struct file_ops ops = *file_ops();
    ops.pwrite = failing_write;
    writes_left = 4;
    recipe_from(&recipe, WORDS("activation.offload=ssd"));
    deep_config(&config, 12);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    file_install_ops(&ops);
    struct backend *be = small_backend();
    struct store *store = small_store(&recipe, &plan, be);
    struct trainer *trainer = trainer_open(&(struct trainer_options){ .recipe = &recipe,
                                                                      .config = &config,
                                                                      .be = be,
                                                                      .capacity = plan.bytes,
                                                                      .store = store },
                                           &err);
    struct batch batch[2];
    struct dice dice = { 3 };
    struct step_result result;
    for (int i = 0; i < 2; i++) {
        check(batch_init(&batch[i], 2, 12, &err), &err);
        small_batch(&dice, config.vocabulary, &batch[i]);
    }
    assert_int_equal(trainer_step(trainer, 1, batch, 2, &result, &err), -1);
    assert_non_null(strstr(err.message, "No space left"));
    assert_non_null(strstr(err.message, "/tmp"));
    assert_non_null(strstr(err.hint, "activation.offload_dir"));
    trainer_close(trainer);
    store_close(store);
    backend_close(be);
    file_install_ops(NULL);
    for (int i = 0; i < 2; i++) {
        batch_free(&batch[i]);
    }
    recipe_free(&recipe);
}

/* Walking the layers: the numbers of a hand calculation (bytes 10, seconds 1, four layers: ratios
 * 20/12, 30/10, 40/8, 50/6). */
static void what_stays_follows_the_bandwidth(void **state)
{
    (void)state;
    assert_int_equal(offload_resident(4, 10, 1, 4), 2);
    assert_int_equal(offload_resident(4, 10, 1, 9), 0);
    assert_int_equal(offload_resident(4, 10, 1, 1), 4);
    int64_t before = 4;
    for (double bandwidth = 0.5; bandwidth < 12; bandwidth += 0.25) {
        int64_t stay = offload_resident(4, 10, 1, bandwidth);
        assert_true(stay <= before);
        before = stay;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_the_same_bits),
        cmocka_unit_test(memory_does_not_grow_with_depth),
        cmocka_unit_test(nothing_is_stored_twice),
        cmocka_unit_test(shallow_models_keep_everything),
        cmocka_unit_test(a_full_disk_ends_the_step),
        cmocka_unit_test(what_stays_follows_the_bandwidth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
