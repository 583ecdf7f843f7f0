/* Running the built program from a test: its words in, its exit code and both streams out. */
#include "app/program.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"

static char sandbox[PATH_MAX];

const char *program_sandbox(void)
{
    if (sandbox[0] != '\0') {
        return sandbox;
    }
    const char *base = getenv("TMPDIR");
    snprintf(sandbox, sizeof sandbox, "%s/windrow-app-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(sandbox));
    char *cache = path_join(sandbox, "cache");
    setenv("XDG_STATE_HOME", sandbox, 1);
    setenv("XDG_RUNTIME_DIR", sandbox, 1);
    setenv("HF_HUB_CACHE", cache, 1);
    unsetenv("NO_COLOR");
    unsetenv("CLICOLOR_FORCE");
    free(cache);
    return sandbox;
}

void program_sandbox_remove(void)
{
    struct error err = { 0 };
    if (sandbox[0] != '\0' && file_remove_tree(sandbox, &err) == -1) {
        fprintf(stderr, "%s\n", err.message);
    }
    sandbox[0] = '\0';
}

static pid_t start(const char *const *words, int output, int error)
{
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    const char *line[64] = { WINDROW_PROGRAM };
    for (int i = 0; words[i] != NULL && i < 62; i++) {
        line[i + 1] = words[i];
    }
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    execv(WINDROW_PROGRAM, (char *const *)line);
    _exit(127);
}

pid_t program_start(const char *const *words)
{
    program_sandbox();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t pid = start(words, null, null);
    assert_true(pid > 0);
    close(null);
    return pid;
}

struct result program_run(const char *const *words)
{
    int output[2];
    int error[2];
    program_sandbox();
    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    assert_int_equal(pipe2(error, O_CLOEXEC), 0);
    pid_t pid = start(words, output[1], error[1]);
    assert_true(pid > 0);
    close(output[1]);
    close(error[1]);
    struct buffer text[2] = { { 0 }, { 0 } };
    struct pollfd wait[2] = { { output[0], POLLIN, 0 }, { error[0], POLLIN, 0 } };
    while (wait[0].fd >= 0 || wait[1].fd >= 0) {
        assert_true(poll(wait, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            char bytes[4096];
            if (wait[i].fd < 0 || wait[i].revents == 0) {
                continue;
            }
            ssize_t got = read(wait[i].fd, bytes, sizeof bytes);
            if (got <= 0) {
                close(wait[i].fd);
                wait[i].fd = -1;
            } else {
                buffer_append(&text[i], bytes, (size_t)got);
            }
        }
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    buffer_append(&text[0], "", 0);
    buffer_append(&text[1], "", 0);
    return (struct result){ WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                            text[0].text, text[1].text };
}

void result_free(struct result *result)
{
    free(result->output);
    free(result->error);
    *result = (struct result){ 0 };
}

static void show(const char *const *words, const struct result *result)
{
    fprintf(stderr, "windrow");
    for (int i = 0; words[i] != NULL; i++) {
        fprintf(stderr, " %s", words[i]);
    }
    fprintf(stderr, "\nexit code %d\nstdout: %s\nstderr: %s\n", result->code, result->output,
            result->error);
}

cJSON *program_json(int code, const char *const *words)
{
    struct result result = program_run(words);
    struct error err = { 0 };
    cJSON *value = json_parse(result.output, strlen(result.output), "standard output", 1, &err);
    if (result.code != code || value == NULL) {
        show(words, &result);
        fprintf(stderr, "%s\n", err.message);
    }
    assert_int_equal(result.code, code);
    assert_non_null(value);
    result_free(&result);
    return value;
}

void program_refuses(int code, const char *needle, const char *const *words)
{
    struct result result = program_run(words);
    if (result.code != code || strstr(result.error, needle) == NULL || result.output[0] != '\0') {
        show(words, &result);
        fprintf(stderr, "expected %d and: %s\n", code, needle);
    }
    assert_int_equal(result.code, code);
    assert_non_null(strstr(result.error, needle));
    assert_string_equal(result.output, "");
    result_free(&result);
}

char *program_file(const char *name, const char *text)
{
    struct error err = { 0 };
    char *path = path_join(program_sandbox(), name);
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
    return path;
}
