/* Running the built program from a test: its words in, its exit code and both streams out. */
#ifndef TESTS_APP_PROGRAM_H
#define TESTS_APP_PROGRAM_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <sys/types.h>

struct result {
    int code;     /* exit code, or 128 + the signal */
    char *output; /* stdout, NUL-terminated */
    char *error;  /* stderr */
};

/* A new folder for the state directory and files of a test program; XDG_STATE_HOME points into it,
 * the caches of the user are out of reach. Path of the folder, owned here. */
const char *program_sandbox(void);
void program_sandbox_remove(void);

/* Runs `windrow WORDS...`; the list ends with NULL. Free with result_free. */
struct result program_run(const char *const *words);
#define RUN(...) program_run((const char *const[]){ __VA_ARGS__, NULL })

/* Starts it in the background with all streams at /dev/null; the process is the caller's to wait
 * for. */
pid_t program_start(const char *const *words);
#define START(...) program_start((const char *const[]){ __VA_ARGS__, NULL })

void result_free(struct result *result);

/* Runs, checks the exit code and returns stdout as JSON (the whole is one value). */
cJSON *program_json(int code, const char *const *words);
#define RUN_JSON(code, ...) program_json(code, (const char *const[]){ __VA_ARGS__, NULL })

/* Runs, checks the exit code and that stderr holds the words; stdout must be empty. */
void program_refuses(int code, const char *needle, const char *const *words);
#define REFUSES(code, needle, ...)                                                                 \
    program_refuses(code, needle, (const char *const[]){ __VA_ARGS__, NULL })

/* Writes a small file into the sandbox; its path, to be freed. */
char *program_file(const char *name, const char *text);

#endif
