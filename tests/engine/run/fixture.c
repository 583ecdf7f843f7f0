#include "engine/run/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/xalloc.h"
#include "kernels/random.h"

static const char model_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
    " \"hidden_act\": \"silu\", \"hidden_size\": 16, \"intermediate_size\": 40,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"vocab_size\": 290, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05,"
    " \"tie_word_embeddings\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}";

static const char *const words[] = {
    "model.preset=model.json", "tokenizer.vocab=290", "data.train=data.txt",
    "data.validation=0.1",     "method.rank=8",       "data.sequence_length=16",
    "method.interval=3",       "optimizer.lr=0.003",  "batch.micro=2",
    "train.steps=8",           "train.save_every=3",  "train.eval_every=4",
    "train.sample_every=0",    "device=cpu",
};

static void write_file(const struct fixture *fixture, const char *name, const char *text)
{
    struct error err = { 0 };
    char *path = fixture_path(fixture, name);
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
    free(path);
}

static void write_data(const struct fixture *fixture)
{
    static const char *const parts[] = { "the ", "cat ", "sat ", "on ",
                                         "a ",   "mat ", "and ", "slept.\n" };
    struct random_key key = { .seed = 3, .purpose = RANDOM_TEST };
    struct buffer text = { 0 };
    for (uint64_t i = 0; i < 3000; i++) {
        const char *part = parts[random_u32(&key, i) % 8];
        buffer_append(&text, part, strlen(part));
    }
    write_file(fixture, "data.txt", text.text);
    buffer_free(&text);
}

char *fixture_path(const struct fixture *fixture, const char *name)
{
    return path_join(fixture->path, name);
}

void fixture_set(struct fixture *fixture, const char *word)
{
    struct error err = { 0 };
    if (recipe_set(&fixture->recipe, word, &err) != 0) {
        fail_msg("%s: %s", word, err.message);
    }
}

void fixture_single_thread(char **argv)
{
    const char *threads = getenv("OMP_NUM_THREADS");
    if (!threads || strcmp(threads, "1") != 0) {
        setenv("OMP_NUM_THREADS", "1", 1);
        execv("/proc/self/exe", argv);
    }
}

int fixture_make(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof *fixture);
    memcpy(fixture->path, "/tmp/windrow-run-XXXXXX", 24);
    assert_non_null(mkdtemp(fixture->path));
    setenv("XDG_STATE_HOME", fixture->path, 1);
    setenv("XDG_RUNTIME_DIR", fixture->path, 1);
    write_data(fixture);
    write_file(fixture, "model.json", model_text);
    recipe_init(&fixture->recipe);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const char *equals = strchr(words[i], '=');
        char *path = fixture_path(fixture, equals + 1);
        char *word = file_exists(path)
                         ? xasprintf("%.*s=%s", (int)(equals - words[i]), words[i], path)
                         : xstrdup(words[i]);
        fixture_set(fixture, word);
        free(word);
        free(path);
    }
    *state = fixture;
    return 0;
}

int fixture_remove(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    assert_int_equal(file_remove_tree(fixture->path, &err), 0);
    recipe_free(&fixture->recipe);
    free(fixture);
    return 0;
}

/* ---- children ------------------------------------------------------------------------------- */

struct child fixture_start(const struct run_options *options, const struct file_ops *ops)
{
    struct child child = { .report = xstrdup("/tmp/windrow-report-XXXXXX") };
    int fd = mkstemp(child.report);
    assert_true(fd >= 0);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        struct error err = { 0 };
        file_install_ops(ops);
        int code = run_train(options, &err);
        dprintf(fd, "%s | %s", err.message, err.hint);
        _exit(code);
    }
    close(fd);
    return child;
}

int fixture_finish(struct child *child, char **report)
{
    struct error err = { 0 };
    size_t size = 0;
    int status = 0;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    char *text = file_read_all(child->report, 1 << 16, &size, &err);
    assert_non_null(text);
    unlink(child->report);
    free(child->report);
    child->report = NULL;
    if (report) {
        *report = text;
    } else {
        free(text);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int fixture_run(const struct run_options *options, char **report)
{
    struct child child = fixture_start(options, NULL);
    return fixture_finish(&child, report);
}

void fixture_train(struct fixture *fixture, const char *name)
{
    char *run = fixture_path(fixture, name);
    char *report = NULL;
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    int code = fixture_run(&options, &report);
    if (code != 0) {
        fail_msg("the run ends with %d: %s", code, report);
    }
    free(report);
    free(run);
}

int64_t fixture_events(const char *run, enum event_kind kind, struct event *last)
{
    struct error err = { 0 };
    size_t size = 0;
    int64_t count = 0;
    char *path = path_join(run, "events.jsonl");
    char *text = file_exists(path) ? file_read_all(path, 1 << 28, &size, &err) : NULL;
    for (char *line = text; line && line < text + size;) {
        char *end = memchr(line, '\n', size - (size_t)(line - text));
        struct event event;
        if (!end) {
            break; /* being written */
        }
        assert_int_equal(event_read(line, (size_t)(end - line), &event, &err), 0);
        bool wanted = event.kind == kind;
        if (wanted && last) {
            if (count > 0) {
                event_free(last);
            }
            *last = event;
        } else {
            event_free(&event);
        }
        count += wanted ? 1 : 0;
        line = end + 1;
    }
    free(text);
    free(path);
    return count;
}
