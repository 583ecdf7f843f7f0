/* The command line: what can be said, completing it, and carrying it out. */
#include "app/command_line.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

const struct command_row command_rows[] = {
    { "set", "KEY=VALUE ...", "change live settings at once; in the launcher any setting" },
    { "open", "RUN", "show another run" },
    { "compare", "RUN", "put a run beside this one, or take it away" },
    { "fork", "RUN[@STEP] KEY=VALUE ...", "a new run from a checkpoint" },
    { "prune", "RUN", "remove a run from the disk (asks for its name)" },
    { "screen", "NAME", "run, layers, memory, tune, compare, samples or log" },
    { "goto", "STEP", "the run as it was after a step" },
    { "sample", "PROMPT", "let the model go on from a prompt" },
    { "filter", "TEXT", "lines of the log that contain it; without TEXT all of them" },
    { "search", "TEXT", "the next older line of the log that contains it" },
    { "snapshot", "FILE", "write this screen into a file: .svg a picture, else text" },
    { "quit", "", "leave; a run goes on" },
};
const size_t command_row_count = sizeof(command_rows) / sizeof(command_rows[0]);

/* ---- completing --------------------------------------------------------------------------------
 */

static void offer(struct command_candidates *out, const char *prefix, const char *word)
{
    if (out->count == COMMAND_CANDIDATES || strncmp(word, prefix, strlen(prefix)) != 0) {
        return;
    }
    for (int i = 0; i < out->count; i++) {
        if (strcmp(out->word[i], word) == 0) {
            return;
        }
    }
    snprintf(out->word[out->count++], COMMAND_WORD, "%s", word);
}

static void offer_names(const struct workbench *workbench, const char *prefix,
                        struct command_candidates *out)
{
    for (size_t i = 0; i < command_row_count; i++) {
        offer(out, prefix, command_rows[i].name);
    }
    unsigned context =
        workbench->mode == MODE_LAUNCHER ? (unsigned)IN_LAUNCHER : workbench_context(workbench);
    for (size_t i = 0; i < keymap_count; i++) {
        const struct action_row *row = &keymap_rows[i];
        if ((row->context & context) && (!row->engine || workbench_live(workbench))) {
            offer(out, prefix, row->name);
        }
    }
}

static void offer_runs(const struct workbench *workbench, const char *prefix,
                       struct command_candidates *out)
{
    for (int i = 0; i < workbench->launcher.run_count; i++) {
        offer(out, prefix, workbench->launcher.run[i].name);
    }
}

/* Keys, and after the equals sign the values that there are names for. */
static void offer_settings(const char *prefix, bool live, struct command_candidates *out)
{
    const char *equals = strchr(prefix, '=');
    for (const struct field *field = recipe_fields; field->key; field++) {
        char word[COMMAND_WORD];
        size_t length = strlen(field->key);
        if (live && !field->live) {
            continue;
        }
        if (!equals) {
            snprintf(word, sizeof(word), "%s=", field->key);
            offer(out, prefix, word);
        } else if ((size_t)(equals - prefix) == length &&
                   strncmp(prefix, field->key, length) == 0) {
            for (int i = 0; field->type == FIELD_CHOICE && field->choices[i]; i++) {
                snprintf(word, sizeof(word), "%s=%s", field->key, field->choices[i]);
                offer(out, prefix, word);
            }
            if (field->type == FIELD_BOOL) {
                snprintf(word, sizeof(word), "%s=true", field->key);
                offer(out, prefix, word);
                snprintf(word, sizeof(word), "%s=false", field->key);
                offer(out, prefix, word);
            }
        }
    }
}

static bool begins(const char *line, const char *command)
{
    size_t length = strlen(command);
    return strncmp(line, command, length) == 0 && line[length] == ' ';
}

void command_complete(const struct workbench *workbench, const char *line,
                      struct command_candidates *out)
{
    const char *space = strrchr(line, ' ');
    const char *prefix = space ? space + 1 : line;
    out->count = 0;
    out->begin = (size_t)(prefix - line);
    bool first = strchr(line, ' ') == space; /* the first word after the command */
    if (!space) {
        offer_names(workbench, prefix, out);
    } else if (begins(line, "set")) {
        offer_settings(prefix, workbench->mode == MODE_RUN, out);
    } else if (begins(line, "screen") && first) {
        for (int i = 0; i < SCREEN_COUNT; i++) {
            char name[32];
            snprintf(name, sizeof(name), "%s", screen_names[i]);
            name[0] = (char)tolower((unsigned char)name[0]);
            offer(out, prefix, name);
        }
    } else if (first && (begins(line, "open") || begins(line, "compare") || begins(line, "prune") ||
                         begins(line, "fork"))) {
        offer_runs(workbench, prefix, out);
    } else if (begins(line, "fork")) {
        offer_settings(prefix, false, out);
    }
}

/* As far as all candidates agree; a word that is alone is closed. */
static void complete(struct workbench *workbench)
{
    struct command_candidates *all = xcalloc(1, sizeof(*all));
    command_complete(workbench, workbench->field, all);
    if (all->count > 0) {
        size_t common = strlen(all->word[0]);
        for (int i = 1; i < all->count; i++) {
            size_t same = 0;
            while (same < common && all->word[i][same] == all->word[0][same]) {
                same++;
            }
            common = same;
        }
        bool whole = all->count == 1 && all->word[0][common - 1] != '=';
        snprintf(workbench->field + all->begin, sizeof(workbench->field) - all->begin, "%.*s%s",
                 (int)common, all->word[0], whole ? " " : "");
    }
    free(all);
}

/* ---- the line ----------------------------------------------------------------------------------
 */

void command_open(struct workbench *workbench, const char *text)
{
    workbench_ask(workbench, FIELD_FOR_COMMAND, text);
    workbench->line.recall = 0;
    workbench_push(workbench, EFFECT_LIST_RUNS); /* their names are completed */
}

bool command_key(struct workbench *workbench, uint32_t key)
{
    struct command_line *line = &workbench->line;
    if (key == INPUT_TAB) {
        complete(workbench);
        return true;
    }
    if (key != INPUT_UP && key != INPUT_DOWN) {
        return false;
    }
    line->recall += key == INPUT_UP ? 1 : -1;
    line->recall = line->recall < 0                  ? 0
                   : line->recall > line->past_count ? line->past_count
                                                     : line->recall;
    snprintf(workbench->field, sizeof(workbench->field), "%s",
             line->recall > 0 ? line->past[line->past_count - line->recall] : "");
    return true;
}

static void remember(struct command_line *line, const char *text)
{
    if (line->past_count > 0 && strcmp(line->past[line->past_count - 1], text) == 0) {
        return;
    }
    if (line->past_count == COMMAND_PAST) {
        memmove(line->past[0], line->past[1], (COMMAND_PAST - 1) * sizeof(line->past[0]));
        line->past_count--;
    }
    snprintf(line->past[line->past_count++], COMMAND_SIZE, "%s", text);
}

/* ---- carrying out ------------------------------------------------------------------------------
 */

static void set_one(struct workbench *workbench, const char *word)
{
    struct command_line *line = &workbench->line;
    const char *equals = strchr(word, '=');
    char key[64];
    if (!equals || equals == word || (size_t)(equals - word) >= sizeof(key) ||
        strlen(equals + 1) >= TUNE_VALUE_SIZE) {
        workbench_say(workbench, STYLE_BAD, "\"%.80s\" is not KEY=VALUE", word);
        return;
    }
    snprintf(key, sizeof(key), "%.*s", (int)(equals - word), word);
    if (workbench->mode == MODE_LAUNCHER) {
        struct effect *effect = workbench_push(workbench, EFFECT_OVERRIDE);
        snprintf(effect->text, sizeof(effect->text), "%s", word);
    } else if (!workbench_live(workbench)) {
        workbench_say(workbench, STYLE_WARN, "set: nothing is running here, this is a recording");
    } else {
        line->set_id = workbench_send(workbench, "set", key, equals + 1);
        snprintf(line->words, sizeof(line->words), "%.64s = %.48s", key, equals + 1);
        workbench_say(workbench, STYLE_STRONG, "sent %.100s", word);
    }
}

static void set_all(struct workbench *workbench, const char *words)
{
    char *copy = xstrdup(words);
    char *rest = copy;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        if (word[0] != '\0') {
            set_one(workbench, word);
        }
    }
    free(copy);
}

/* The run of a name, of the only name that begins so, or of a path. */
static bool find_run(struct workbench *workbench, const char *name, char *path, size_t size)
{
    const struct launcher *launcher = &workbench->launcher;
    int found = -1;
    int matches = 0;
    for (int i = 0; i < launcher->run_count; i++) {
        if (strcmp(launcher->run[i].name, name) == 0) {
            found = i;
            matches = 1;
            break;
        }
        if (name[0] && strncmp(launcher->run[i].name, name, strlen(name)) == 0) {
            found = i;
            matches++;
        }
    }
    if (matches == 1 || name[0] == '/') {
        snprintf(path, size, "%s", matches == 1 ? launcher->run[found].path : name);
        return true;
    }
    workbench_say(workbench, STYLE_BAD,
                  matches ? "%.80s is the beginning of several runs; R lists them"
                          : "there is no run %.80s; R lists them",
                  name[0] ? name : "\"\"");
    return false;
}

static void open_screen(struct workbench *workbench, const char *name)
{
    for (int i = 0; i < SCREEN_COUNT; i++) {
        if (strcasecmp(screen_names[i], name) == 0 && workbench->mode == MODE_RUN) {
            workbench->screen = (enum screen)i;
            workbench->scroll = 0;
            return;
        }
    }
    workbench_say(workbench, STYLE_BAD, "there is no screen \"%.40s\" here", name);
}

static void go_to(struct workbench *workbench, const char *text)
{
    int64_t step = 0;
    if (!text_to_integer(text, &step) || step < 1) {
        workbench_say(workbench, STYLE_BAD, "goto wants a step, found \"%.40s\"", text);
        return;
    }
    workbench_travel(workbench, step);
}

/* "rank 64": the only live setting whose key ends so. False if there is none. */
static bool set_short(struct workbench *workbench, const char *name, const char *value)
{
    for (const struct field *field = recipe_fields; field->key && value[0]; field++) {
        const char *dot = strrchr(field->key, '.');
        if (field->live && (strcmp(field->key, name) == 0 || (dot && strcmp(dot + 1, name) == 0))) {
            char word[COMMAND_SIZE];
            snprintf(word, sizeof(word), "%s=%s", field->key, value);
            set_one(workbench, word);
            return true;
        }
    }
    return false;
}

static bool with_arguments(struct workbench *workbench, const char *name, const char *rest)
{
    char path[COMPARE_PATH];
    bool in_run = workbench->mode == MODE_RUN;
    if (strcmp(name, "set") == 0) {
        set_all(workbench, rest);
    } else if (strcmp(name, "open") == 0) {
        if (find_run(workbench, rest, path, sizeof(path))) {
            struct effect *effect = workbench_push(workbench, EFFECT_OPEN);
            snprintf(effect->text, sizeof(effect->text), "%s", path);
        }
    } else if (strcmp(name, "snapshot") == 0) {
        struct effect *effect = workbench_push(workbench, EFFECT_SNAPSHOT);
        snprintf(effect->text, sizeof(effect->text), "%s", rest);
    } else if (strcmp(name, "screen") == 0) {
        open_screen(workbench, rest);
    } else if (strcmp(name, "fork") == 0 && rest[0]) {
        runs_forked(workbench, rest);
    } else if (strcmp(name, "prune") == 0) {
        if (find_run(workbench, rest, path, sizeof(path))) {
            runs_prune(workbench, path);
        }
    } else if (in_run && strcmp(name, "compare") == 0 && rest[0]) {
        if (find_run(workbench, rest, path, sizeof(path))) {
            workbench->screen = SCREEN_COMPARE;
            compare_toggle(workbench, path);
        }
    } else if (in_run && strcmp(name, "goto") == 0) {
        go_to(workbench, rest);
    } else if (in_run && strcmp(name, "sample") == 0 && rest[0]) {
        samples_ask(workbench, rest);
    } else if (in_run && strcmp(name, "filter") == 0) {
        log_filter(workbench, rest);
    } else if (in_run && strcmp(name, "search") == 0) {
        log_search(workbench, rest);
    } else {
        return false;
    }
    return true;
}

void command_run(struct workbench *workbench, const char *line)
{
    char name[64];
    while (*line == ' ') {
        line++;
    }
    size_t length = strcspn(line, " ");
    if (length == 0) {
        return;
    }
    remember(&workbench->line, line);
    snprintf(name, sizeof(name), "%.*s", (int)(length < 63 ? length : 63), line);
    const char *rest = line + length + strspn(line + length, " ");
    char *words = xstrdup(rest);
    for (size_t end = strlen(words); end > 0 && words[end - 1] == ' '; end--) {
        words[end - 1] = '\0';
    }
    if (strchr(name, '=')) {
        set_all(workbench, line);
    } else if (strcmp(name, "quit") == 0) {
        workbench_push(workbench, EFFECT_QUIT);
    } else if (!with_arguments(workbench, name, words)) {
        enum action action =
            words[0] ? ACTION_NONE : keymap_named(workbench_context(workbench), name);
        if (action != ACTION_NONE) {
            workbench_action(workbench, action);
        } else if (workbench->mode != MODE_RUN || !set_short(workbench, name, words)) {
            workbench_say(workbench, STYLE_BAD,
                          "there is no command \"%.40s\" here; Tab lists them", name);
        }
    }
    free(words);
}

bool command_reply(struct workbench *workbench, const struct control_reply *reply)
{
    struct command_line *line = &workbench->line;
    if (line->set_id == 0 || line->set_id != reply->id) {
        return false;
    }
    line->set_id = 0;
    if (reply->ok) {
        workbench_say(workbench, STYLE_GOOD, "%s holds from step %" PRId64, line->words,
                      reply->step);
    }
    return true;
}
