#include "saved.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"

const struct safetensors_entry weight_entries[2] = {
    { "model.embed_tokens.weight", DTYPE_F32, 2, { 7, 5 } },
    { "model.norm.weight", DTYPE_BF16, 1, { 5 } },
};
const struct safetensors_entry state_entries[2] = {
    { "optimizer/model.norm.weight.m", DTYPE_F32, 1, { 5 } },
    { "method/index", DTYPE_I32, 1, { 3 } },
};

unsigned char byte_of(int64_t step, size_t index, int64_t position)
{
    return (unsigned char)(step * 31 + (int64_t)index * 7 + position * 3 + 1);
}

int read_source(void *context, size_t index, int64_t first, int64_t count, void *out,
                struct error *err)
{
    const struct source *source = context;
    int64_t size = (int64_t)dtype_size(source->entry[index].dtype);
    if (source->fails) {
        return (fail)(err, ERROR_RUNTIME,
                      "the device is gone"); /* cmocka has a macro of this name */
    }
    for (int64_t i = 0; i < count * size; i++) {
        ((unsigned char *)out)[i] = byte_of(source->step, index, first * size + i);
    }
    return 0;
}

int save_step(const char *run, int64_t step, bool fails, struct error *err)
{
    struct source weights = { step, weight_entries, false };
    struct source state = { step, state_entries, fails };
    struct checkpoint_blob blob[] = { { "state.json", "{\"step\": 1}\n", 12 },
                                      { "config.json", "{}\n", 3 } };
    struct checkpoint_save save = { .run = run,
                                    .step = step,
                                    .weights = { weight_entries, 2, read_source, &weights },
                                    .state = { state_entries, 2, read_source, &state },
                                    .blob = blob,
                                    .blob_count = 2 };
    char *path = NULL;
    int64_t bytes = 0;
    int result = checkpoint_save(&save, &path, &bytes, err);
    if (result == 0) {
        int64_t predicted = checkpoint_size(&save);
        assert_true(bytes <= predicted && predicted - bytes <= 1024);
        free(path);
    }
    return result;
}

char *step_path(const char *run, int64_t step)
{
    return xasprintf("%s/checkpoints/step-%06lld", run, (long long)step);
}

bool is_whole(const char *run, int64_t step)
{
    struct error err = { 0 };
    char *path = step_path(run, step);
    bool whole = checkpoint_verify(path, true, &err) == 0;
    free(path);
    return whole;
}

int make_run(void **state)
{
    char *path = xstrdup("/tmp/windrow-checkpoint-XXXXXX");
    assert_non_null(mkdtemp(path));
    *state = path;
    return 0;
}

int remove_run(void **state)
{
    struct error err = { 0 };
    file_install_ops(NULL);
    assert_int_equal(file_remove_tree(*state, &err), 0);
    free(*state);
    return 0;
}

void change_file(const char *path, int how, size_t at)
{
    struct error err = { 0 };
    size_t size = 0;
    char *text = file_read_all(path, 1 << 20, &size, &err);
    assert_non_null(text);
    char *longer = xcalloc(size + 1, 1);
    memcpy(longer, text, size);
    free(text);
    if (how == 0) {
        longer[at % size] ^= (char)(1 << (at % 8));
    }
    size_t kept = how == 0 ? size : how == 1 ? at % size : size + 1;
    assert_int_equal(unlink(path), 0);
    if (how != 3) { /* 3: gone */
        assert_int_equal(file_replace(path, longer, kept, &err), 0);
    }
    free(longer);
}
