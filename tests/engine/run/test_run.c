/* Runs from start to end: what is written, what is refused, resuming, exporting, listing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/xalloc.h"
#include "engine/inspect.h"
#include "engine/run/checkpoint.h"
#include "engine/run/fixture.h"

/* Runs with these options and expects the exit code and the parts in message and hint. */
static void expect(const struct run_options *options, int code, const char *part)
{
    char *report = NULL;
    int found = fixture_run(options, &report);
    if (found != code || !strstr(report, part)) {
        fail_msg("exit %d (wanted %d): \"%s\" (wanted %s)", found, code, report, part);
    }
    free(report);
}

static char *checkpoint_path(const char *run, int step, const char *name)
{
    return xasprintf("%s/checkpoints/step-%06d/%s", run, step, name);
}

static void a_run_leaves_what_it_should(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "one");
    struct event event;
    fixture_set(fixture, "train.export=true");
    fixture_set(fixture, "train.sample_every=4");
    fixture_train(fixture, "one");
    assert_int_equal(fixture_events(run, EVENT_START, NULL), 1);
    assert_int_equal(fixture_events(run, EVENT_STEP, &event), 8);
    assert_int_equal(event.step, 8);
    assert_true(isfinite(event.step_done.loss) && event.step_done.rank == 8);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_CHECKPOINT, &event), 3); /* 3, 6, 8 */
    struct event plan;
    assert_int_equal(fixture_events(run, EVENT_PLAN, &plan), 1);
    double off = fabs((double)(plan.plan.checkpoint_bytes - event.checkpoint.bytes));
    assert_true(off < 0.01 * (double)event.checkpoint.bytes);
    event_free(&plan);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_EVALUATION, NULL), 2);
    assert_int_equal(fixture_events(run, EVENT_SAMPLE, NULL), 2);
    assert_int_equal(fixture_events(run, EVENT_SELECTION, NULL), 3 * 14); /* steps 1, 4, 7 */
    assert_int_equal(fixture_events(run, EVENT_STOP, &event), 1);
    assert_string_equal(event.stop.reason, "done");
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_MEMORY, &event), 5); /* 1, 2, 4, 7, 8 */
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_true(event.memory.peak_bytes[c] <= event.memory.planned_bytes[c]);
    }
    event_free(&event);
    static const char *const names[] = { "recipe.json",
                                         "latest",
                                         "best",
                                         "model/config.json",
                                         "model/model.safetensors",
                                         "model/tokenizer.model",
                                         "checkpoints/step-000008/manifest.json" };
    struct stat facts;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = path_join(run, names[i]);
        assert_int_equal(stat(path, &facts), 0);
        assert_int_equal(facts.st_mode & 077, 0);
        free(path);
    }
    char *control = path_join(run, "control");
    assert_false(file_exists(control));
    free(control);
    free(run);
}

static void the_same_recipe_gives_the_same_bytes(void **state)
{
    struct fixture *fixture = *state;
    fixture_train(fixture, "one");
    fixture_train(fixture, "two");
    struct error err = { 0 };
    char digest[2][DIGEST_TEXT_SIZE];
    for (int i = 0; i < 2; i++) {
        char *run = fixture_path(fixture, i ? "two" : "one");
        char *path = checkpoint_path(run, 8, CHECKPOINT_WEIGHTS);
        assert_int_equal(digest_of_file(path, digest[i], &err), 0);
        free(path);
        free(run);
    }
    assert_string_equal(digest[0], digest[1]);
}

static void what_cannot_be_is_refused_before_it_starts(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "refused");
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    fixture_set(fixture, "memory.limit=64KiB");
    expect(&options, ERROR_FIT, "");
    fixture_set(fixture, "memory.limit=0");
    fixture_set(fixture, "method.rank=17");
    expect(&options, ERROR_USAGE, "hidden size of 16");
    fixture_set(fixture, "method.rank=8");
    fixture_set(fixture, "data.train=/nowhere/at/all");
    expect(&options, ERROR_DATA, "/nowhere/at/all");
    fixture_set(fixture, "data.train=");
    expect(&options, ERROR_USAGE, "data.train");
    assert_false(file_exists(run));
    free(run);
}

static void a_full_directory_is_not_used(void **state)
{
    struct fixture *fixture = *state;
    struct run_options options = { .recipe = &fixture->recipe, .directory = fixture->path };
    expect(&options, ERROR_USAGE, "not empty");
}

/* ---- resuming ------------------------------------------------------------------------------- */

/* A disk with room for two checkpoints of the run at this path, and nothing more. */
static const char *crowded;

static int64_t room_for_two(const char *path)
{
    (void)path;
    struct error err = { 0 };
    struct checkpoint_list list = { 0 };
    int64_t count = checkpoint_list_read(crowded, &list, &err) == 0 ? (int64_t)list.count : 0;
    checkpoint_list_free(&list);
    return CHECKPOINT_SPARE_BYTES + (count < 2 ? 2 - count : 0) * (4 << 20);
}

/* The disk holds the run's two checkpoints: a resumed run gives up the older one for its next, a
 * new run has no room. */
static void a_full_disk_does_not_stop_a_resume(void **state)
{
    struct fixture *f = *state;
    char *run = fixture_path(f, "run");
    char *other = fixture_path(f, "other");
    fixture_train(f, "run");
    crowded = run;
    struct file_ops ops = *file_ops();
    ops.free_bytes = room_for_two;
    const char *more[] = { "train.steps=9" };
    struct run_options resumed = { .resume = run, .changes = more, .change_count = 1 };
    struct child child = fixture_start(&resumed, &ops);
    char *report = NULL;
    assert_int_equal(fixture_finish(&child, &report), 0);
    free(report);
    int64_t step = 0;
    struct error err = { 0 };
    char *latest = run_latest_checkpoint(run, &step, NULL, NULL, &err);
    assert_int_equal(step, 9);
    free(latest);
    struct run_options fresh = { .recipe = &f->recipe, .directory = other };
    child = fixture_start(&fresh, &ops);
    assert_int_equal(fixture_finish(&child, &report), 4);
    assert_non_null(strstr(report, "checkpoints and events take"));
    free(report);
    free(other);
    free(run);
}

static void a_finished_run_can_go_on(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "one");
    struct event event;
    fixture_train(fixture, "one");
    int64_t before = fixture_events(run, EVENT_STATE, NULL);
    struct run_options options = { .resume = run };
    expect(&options, 0, "");
    assert_int_equal(fixture_events(run, EVENT_STATE, NULL), before); /* nothing was touched */
    const char *change = "train.steps=11";
    options.changes = &change;
    options.change_count = 1;
    expect(&options, 0, "");
    assert_int_equal(fixture_events(run, EVENT_STEP, &event), 11);
    assert_int_equal(event.step, 11);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_RESUME, &event), 1);
    assert_int_equal(event.resume.from_step, 8);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_STOP, NULL), 1);
    free(run);
}

static void a_fork_begins_from_a_checkpoint(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "one");
    char *forked = fixture_path(fixture, "two");
    char *at = xasprintf("%s@6", run);
    const char *changes[] = { "optimizer.lr=0.001", "optimizer.beta1=0.8" };
    struct run_options options = {
        .fork = at, .directory = forked, .changes = changes, .change_count = 2
    };
    struct event event;
    fixture_train(fixture, "one");
    int64_t before = fixture_events(run, EVENT_STEP, NULL);
    expect(&options, 0, "");
    assert_int_equal(fixture_events(run, EVENT_STEP, NULL), before);
    assert_int_equal(fixture_events(forked, EVENT_STEP, &event), 2); /* 7 and 8 */
    assert_int_equal(event.step, 8);
    assert_true(event.step_done.learning_rate == 0.001);
    event_free(&event);
    assert_int_equal(fixture_events(forked, EVENT_RESUME, &event), 1);
    assert_int_equal(event.resume.from_step, 6);
    event_free(&event);
    char *missing = xasprintf("%s@7", run);
    options.fork = missing;
    expect(&options, ERROR_USAGE, "steps 6, 8");
    free(missing);
    options.fork = "nothing@6";
    expect(&options, ERROR_USAGE, "nothing");
    free(at);
    free(forked);
    free(run);
}

static void a_changed_world_is_refused_by_name(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    char *run = fixture_path(fixture, "one");
    char *data = fixture_path(fixture, "data.txt");
    fixture_train(fixture, "one");
    static const struct {
        const char *change;
        const char *key;
    } changes[] = {
        { "batch.micro=4", "batch.micro" },    { "optimizer.beta1=0.5", "optimizer.beta1" },
        { "train.seed=9", "train.seed" },      { "data.sequence_length=8", "data.sequence_length" },
        { "method.name=full", "method.name" }, { "precision.weights=bf16", "precision.weights" },
    };
    struct run_options options = { .resume = run, .change_count = 1 };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        options.changes = &changes[i].change;
        expect(&options, ERROR_USAGE, changes[i].key);
    }
    const char *more[] = { "train.steps=10", "batch.micro=4" };
    const char *accepted[] = { "batch.micro", "data.train" };
    options = (struct run_options){
        .resume = run, .changes = more, .change_count = 2, .accepted = accepted, .accepted_count = 1
    };
    expect(&options, 0, "");
    assert_int_equal(file_replace(data,
                                  "other words altogether, again and again and again, until "
                                  "there are enough of them for a row or two of this model",
                                  110, &err),
                     0);
    more[0] = "train.steps=12";
    options.change_count = 1;
    expect(&options, ERROR_DATA, "data.train");
    /* With the tokenizer of the checkpoint: this text is too short to train one on. */
    options.accepted_count = 2;
    expect(&options, 0, "");
    free(data);
    free(run);
}

static void a_damaged_checkpoint_is_passed_over(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    struct event event;
    char *run = fixture_path(fixture, "one");
    fixture_train(fixture, "one");
    char *first = checkpoint_path(run, 8, CHECKPOINT_STATE);
    char before[DIGEST_TEXT_SIZE];
    char after[DIGEST_TEXT_SIZE];
    char *weights = checkpoint_path(run, 8, CHECKPOINT_WEIGHTS);
    assert_int_equal(digest_of_file(weights, before, &err), 0);
    assert_int_equal(truncate(first, 100), 0);
    struct run_options options = { .resume = run };
    expect(&options, 0, "");
    assert_int_equal(fixture_events(run, EVENT_RESUME, &event), 1);
    assert_int_equal(event.resume.from_step, 6);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_STEP, NULL), 8);
    assert_int_equal(digest_of_file(weights, after, &err), 0);
    assert_string_equal(before, after); /* steps 7 and 8 came out the same */
    free(weights);
    free(first);
    free(run);
}

/* ---- what fails on the way ------------------------------------------------------------------ */

static int fail_publishing(const char *from, const char *to)
{
    if (strstr(to, "checkpoints/step-")) {
        errno = ENOSPC;
        return -1;
    }
    return rename(from, to);
}

static int fail_first_publishing(const char *from, const char *to)
{
    return strstr(to, "checkpoints/step-000003") ? fail_publishing(from, to) : rename(from, to);
}

static void a_failed_save_does_not_stop_training(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "one");
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    struct file_ops ops = *file_ops();
    struct error err = { 0 };
    char *report = NULL;
    ops.rename = fail_publishing;
    struct child child = fixture_start(&options, &ops);
    assert_int_equal(fixture_finish(&child, &report), 1);
    assert_non_null(strstr(report, "last save failed"));
    assert_int_equal(fixture_events(run, EVENT_STEP, NULL), 8);
    assert_int_equal(fixture_events(run, EVENT_WARNING, NULL), 3);
    assert_int_equal(fixture_events(run, EVENT_CHECKPOINT, NULL), 0);
    assert_int_equal(file_remove_tree(run, &err), 0);
    ops.rename = fail_first_publishing; /* the last one is what counts */
    child = fixture_start(&options, &ops);
    assert_int_equal(fixture_finish(&child, NULL), 0);
    assert_int_equal(fixture_events(run, EVENT_WARNING, NULL), 1);
    assert_int_equal(fixture_events(run, EVENT_CHECKPOINT, NULL), 2);
    free(report);
    free(run);
}

static int64_t writes; /* in the child */

static ssize_t fail_some_writes(int fd, const void *bytes, size_t size)
{
    writes++;
    if (writes > 30 && writes < 45) {
        errno = ENOSPC;
        return writes % 2 == 0 || size < 2 ? -1 : write(fd, bytes, size / 2);
    }
    return write(fd, bytes, size);
}

static void events_survive_a_full_disk(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "one");
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    struct file_ops ops = *file_ops();
    struct event event;
    fixture_set(fixture, "train.save_every=8");
    ops.write = fail_some_writes;
    struct child child = fixture_start(&options, &ops);
    assert_int_equal(fixture_finish(&child, NULL), 0);
    assert_int_equal(fixture_events(run, EVENT_STEP, &event), 8);
    assert_int_equal(event.step, 8);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_STOP, NULL), 1);
    free(run);
}

static void a_run_that_diverges_ends_with_five(void **state)
{
    struct fixture *fixture = *state;
    char *run = fixture_path(fixture, "one");
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    struct event event;
    fixture_set(fixture, "optimizer.lr=1000");
    fixture_set(fixture, "optimizer.weight_decay=1000");
    fixture_set(fixture, "train.clip=0");
    fixture_set(fixture, "train.steps=60");
    fixture_set(fixture, "train.save_every=0");
    expect(&options, ERROR_DIVERGED, "diverged");
    assert_int_equal(fixture_events(run, EVENT_RESUME, NULL), 2);
    assert_int_equal(fixture_events(run, EVENT_STOP, &event), 1);
    assert_int_equal(event.stop.status, 5);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_STEP, &event), event.step);
    assert_true(event.step_done.skipped && isnan(event.step_done.loss));
    assert_non_null(event.step_done.reason);
    event_free(&event);
    free(run);
}

/* ---- afterwards ----------------------------------------------------------------------------- */

static void a_run_can_be_exported_and_opened(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    char *run = fixture_path(fixture, "one");
    char *target = fixture_path(fixture, "exported");
    fixture_train(fixture, "one");
    assert_int_equal(run_export(run, 0, false, target, &err), 0);
    assert_int_equal(run_export(run, 5, false, "/tmp/never-made", &err), -1);
    const char *const models[] = { target, run, fixture->recipe.model_preset };
    for (size_t i = 0; i < 3; i++) {
        struct recipe recipe;
        struct material material;
        recipe_init(&recipe);
        if (material_model(&recipe, models[i], &err) != 0) {
            fail_msg("%s: %s", models[i], err.message);
        }
        int parts = i < 2 ? MATERIAL_TOKENIZER : MATERIAL_CONFIG;
        assert_int_equal(recipe_set(&recipe, "data.sequence_length=16", &err), 0);
        if (material_open(&recipe, parts, NULL, &material, &err) != 0) {
            fail_msg("%s: %s", models[i], err.message);
        }
        assert_int_equal(material.config.hidden_size, 16);
        assert_int_equal(material.config.vocabulary, 290);
        material_close(&material);
        recipe_free(&recipe);
    }
    free(target);
    free(run);
}

static void assert_same_file(const char *a, const char *b, const char *name)
{
    struct error err = { 0 };
    size_t size[2];
    char *path[] = { path_join(a, name), path_join(b, name) };
    char *text[] = { file_read_all(path[0], 1 << 20, &size[0], &err),
                     file_read_all(path[1], 1 << 20, &size[1], &err) };
    assert_non_null(text[0]);
    assert_non_null(text[1]);
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(text[0], text[1], size[0]);
    for (int i = 0; i < 2; i++) {
        free(path[i]);
        free(text[i]);
    }
}

/* The model at the end and a later export tell other programs the same about the tokenizer; what
 * lies beside a tokenizer file of another name is not taken for its own. */
static void exports_carry_their_own_tokenizer(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    fixture_train(fixture, "first");
    char *from = fixture_path(fixture, "first/checkpoints/step-000008/tokenizer.model");
    char *alone = fixture_path(fixture, "alone.model");
    char *stranger = fixture_path(fixture, "tokenizer.model");
    assert_int_equal(file_copy(from, alone, &err), 0);
    assert_int_equal(file_replace(stranger, "another", 7, &err), 0);
    fixture_set(fixture, "tokenizer.vocab=0");
    char *word = xasprintf("tokenizer.path=%s", alone);
    fixture_set(fixture, word);
    fixture_set(fixture, "train.export=true");
    fixture_train(fixture, "second");
    char *first = fixture_path(fixture, "first/checkpoints/step-000008");
    char *run = fixture_path(fixture, "second");
    char *model = fixture_path(fixture, "second/model");
    char *target = fixture_path(fixture, "exported");
    assert_int_equal(run_export(run, 0, false, target, &err), 0);
    assert_same_file(first, model, "tokenizer.model");
    assert_same_file(model, target, "tokenizer.model");
    assert_same_file(model, target, "tokenizer_config.json");
    assert_same_file(model, target, "config.json");
    char *all[] = { from, alone, stranger, word, first, run, model, target };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
}

static void runs_are_listed_and_found(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    struct run_list list;
    struct run_options options = { .recipe = &fixture->recipe };
    assert_int_equal(run_list_read(&list, &err), 0);
    assert_int_equal(list.count, 0);
    assert_null(run_resolve(NULL, &err));
    free(fixture->recipe.name);
    fixture->recipe.name = xstrdup("a name; with $(odd) things");
    expect(&options, 0, "");
    expect(&options, 0, "");
    assert_int_equal(run_list_read(&list, &err), 0);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.item[0].status, RUN_DONE);
    assert_int_equal(list.item[0].step, 8);
    assert_int_equal(list.item[0].total_steps, 8);
    assert_true(list.item[0].started >= list.item[1].started);
    assert_string_equal(list.item[0].method, "grass");
    assert_string_equal(list.item[0].data, "data.txt");
    assert_true(list.item[0].peak_bytes > 0);
    assert_null(strpbrk(list.item[0].name, "$(); "));
    char *newest = run_resolve(NULL, &err);
    assert_string_equal(newest, list.item[0].path);
    char *named = run_resolve(list.item[1].name, &err);
    assert_string_equal(named, list.item[1].path);
    assert_null(run_resolve("zzz", &err));
    assert_null(run_resolve("", &err)); /* not the newest */
    assert_non_null(strstr(err.message, "empty name"));
    assert_null(run_resolve("2", &err)); /* both begin so */
    assert_non_null(strstr(err.message, "several"));
    assert_int_equal(run_prune(named, &err), 0);
    assert_false(file_exists(named));
    assert_int_equal(run_prune(fixture->path, &err), -1); /* not a run */
    free(newest);
    free(named);
    run_list_free(&list);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_make, fixture_remove)

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        TEST(a_full_disk_does_not_stop_a_resume),
        TEST(a_run_leaves_what_it_should),
        TEST(the_same_recipe_gives_the_same_bytes),
        TEST(what_cannot_be_is_refused_before_it_starts),
        TEST(a_full_directory_is_not_used),
        TEST(a_finished_run_can_go_on),
        TEST(a_fork_begins_from_a_checkpoint),
        TEST(a_changed_world_is_refused_by_name),
        TEST(a_damaged_checkpoint_is_passed_over),
        TEST(a_failed_save_does_not_stop_training),
        TEST(events_survive_a_full_disk),
        TEST(a_run_that_diverges_ends_with_five),
        TEST(a_run_can_be_exported_and_opened),
        TEST(exports_carry_their_own_tokenizer),
        TEST(runs_are_listed_and_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
