/* set, pause, resume, save and stop: a word to a running run, and its answer. */
#include <stdlib.h>
#include <string.h>

#include "app/commands/command.h"
#include "app/commands/output.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/control.h"
#include "engine/recipe.h"
#include "engine/run.h"

/* A run answers at the end of a step, which may be long; a save is answered when it is on disk. */
static const double answer_seconds = 120;

static void print_reply(const struct arguments *arguments, const char *path,
                        const struct control_reply *reply)
{
    const char *command = arguments->command->name;
    if (arguments->json) {
        cJSON *root = cJSON_CreateObject();
        json_add_text(root, "run", path_base(path));
        json_add_text(root, "command", command);
        json_add_bool(root, "ok", reply->ok);
        if (reply->step >= 0) {
            json_add_number(root, "step", (double)reply->step);
        }
        if (!reply->ok) {
            json_add_text(root, "error", reply->error);
            json_add_text(root, "hint", reply->hint);
        }
        output_json(root);
    } else if (reply->ok && reply->step >= 0) {
        output_say("%s: %s holds from step %lld", path_base(path), command, (long long)reply->step);
    } else if (reply->ok) {
        output_say("%s: %s done", path_base(path), command);
    }
}

static int send_one(const struct arguments *arguments, const char *path, const char *key,
                    const char *value, struct error *err)
{
    struct control_reply reply = { 0 };
    if (control_request(path, arguments->command->name, key, value, answer_seconds, &reply, err) ==
        -1) {
        return -1;
    }
    print_reply(arguments, path, &reply);
    if (reply.ok) {
        return 0;
    }
    fail(err, key == NULL ? ERROR_RUNTIME : ERROR_USAGE, "%s: %s", path_base(path), reply.error);
    return hint(err, "%s", reply.hint);
}

static int refuse_word(const struct arguments *arguments, struct error *err)
{
    if (strcmp(arguments->command->name, "set") == 0 && arguments->setting_count == 0) {
        fail(err, ERROR_USAGE, "windrow set needs a setting: windrow set RUN key=value");
        return hint(err, "windrow help recipe marks the live ones");
    }
    return 0;
}

/* Each key=value word in turn; the first that is refused ends it. */
static int send_settings(const struct arguments *arguments, const char *path, struct error *err)
{
    for (size_t i = 0; i < arguments->setting_count; i++) {
        const char *word = arguments->setting[i];
        const char *equals = strchr(word, '=');
        char *key = xstrndup(word, (size_t)(equals - word));
        int result = send_one(arguments, path, key, equals + 1, err);
        free(key);
        if (result == -1) {
            return -1;
        }
    }
    return 0;
}

/* Keys and values are judged here too, so that a slip is told even if the run is not running. */
static int check_settings(const struct arguments *arguments, struct error *err)
{
    struct recipe scratch;
    int result = 0;
    recipe_init(&scratch);
    for (size_t i = 0; i < arguments->setting_count && result == 0; i++) {
        const char *word = arguments->setting[i];
        result = recipe_set(&scratch, word, err);
        char *key = xstrndup(word, (size_t)(strchr(word, '=') - word));
        const struct field *field = recipe_field(key);
        if (result == 0 && field != NULL && !field->live) {
            result = fail(err, ERROR_USAGE, "%s cannot change while a run trains", key);
            hint(err,
                 "Live keys are marked in windrow help recipe; others need a new run, or "
                 "windrow train --resume RUN %s=VALUE after it has stopped",
                 key);
        }
        free(key);
    }
    recipe_free(&scratch);
    return result;
}

int command_control(const struct arguments *arguments)
{
    struct error err = { 0 };
    int code = 0;
    char *path = NULL;
    if (refuse_word(arguments, &err) == 0 && check_settings(arguments, &err) == 0) {
        path = run_resolve(arguments->word[0], &err);
    }
    bool settings = arguments->setting_count > 0;
    if (path == NULL || (settings ? send_settings(arguments, path, &err)
                                  : send_one(arguments, path, NULL, NULL, &err)) == -1) {
        code = output_error(&err);
    }
    free(path);
    return code;
}
