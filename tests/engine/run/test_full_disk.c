/* A disk that has no room for one more checkpoint gives up the oldest, and never the last. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "saved.h"

/* A disk with room for `places` checkpoints in the run `path`. */
static struct {
    const char *run;
    int64_t places;
} disk;

static int64_t room_for_places(const char *path)
{
    (void)path;
    struct error err = { 0 };
    struct checkpoint_list list;
    assert_int_equal(checkpoint_list_read(disk.run, &list, &err), 0);
    int64_t left = disk.places - (int64_t)list.count;
    checkpoint_list_free(&list);
    return left > 0 ? left * (16 << 10) + CHECKPOINT_SPARE_BYTES : 0;
}

static int save_pinned(const char *run, int64_t step, const int64_t *pinned, struct error *err)
{
    struct source weights = { step, weight_entries, false };
    struct checkpoint_blob blob = { "state.json", "{\"step\": 1}\n", 12 };
    struct checkpoint_save save = { .run = run,
                                    .step = step,
                                    .weights = { weight_entries, 2, read_source, &weights },
                                    .blob = &blob,
                                    .blob_count = 1,
                                    .pinned = pinned,
                                    .pinned_count = 2 };
    char *path = NULL;
    int64_t bytes = 0;
    int result = checkpoint_save(&save, &path, &bytes, err);
    free(result == 0 ? path : NULL);
    return result;
}

static void a_full_disk_gives_up_the_oldest(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    struct file_ops ops = *file_ops();
    const int64_t pinned[] = { 10, 0 };
    ops.free_bytes = room_for_places;
    disk.run = run;
    disk.places = 3;
    file_install_ops(&ops);
    for (int64_t step = 10; step <= 60; step += 10) { /* 10 is pinned: 20, 30, 40 make room */
        assert_int_equal(save_pinned(run, step, pinned, &err), 0);
        assert_true(is_whole(run, step) && is_whole(run, 10));
        assert_true(step == 20 || step == 10 || is_whole(run, step - 10));
    }
    assert_false(is_whole(run, 40));
    /* The newest is damaged: the one before it must stay, and nothing else is there to remove. */
    char *path = step_path(run, 60);
    char *weights = path_join(path, CHECKPOINT_WEIGHTS);
    change_file(weights, 0, 100);
    assert_int_equal(save_pinned(run, 70, pinned, &err), -1);
    assert_non_null(strstr(err.message, "0 bytes free"));
    assert_true(is_whole(run, 10) && is_whole(run, 50));
    assert_true(file_exists(path));
    free(weights);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_disk_gives_up_the_oldest, make_run, remove_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
