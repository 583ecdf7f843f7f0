/* The configuration file: a table of fields, as the recipe is. */
#include "app/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

enum { FIELD_LIMIT = 64 };

static const char *const glyph_names[] = { "auto", "ascii", "blocks", "braille", NULL };
/* In the order of workbench_smoothings. */
static const char *const smoothing_names[] = { "0.94", "0.98", "none", "0.9", NULL };
static const char *const axis_names[] = { "log", "linear", NULL };

const struct field settings_fields[] = {
    { .key = "recipe",
      .type = FIELD_STRING,
      .offset = offsetof(struct settings, recipe),
      .unit = "a recipe file or the name of a preset",
      .help = "What the launcher begins with; empty: the embedded default.",
      .default_text = "" },
    { .key = "glyphs",
      .type = FIELD_CHOICE,
      .offset = offsetof(struct settings, glyphs),
      .unit = "",
      .help = "What charts are made of; auto looks at the terminal and its locale. The key U "
              "changes it.",
      .choices = glyph_names,
      .default_text = "auto" },
    { .key = "smoothing",
      .type = FIELD_CHOICE,
      .offset = offsetof(struct settings, smoothing),
      .unit = "",
      .help = "How much of the smoothed loss is its past.",
      .choices = smoothing_names,
      .default_text = "0.94" },
    { .key = "axis",
      .type = FIELD_CHOICE,
      .offset = offsetof(struct settings, axis),
      .unit = "",
      .help = "The loss axis of the dashboard.",
      .choices = axis_names,
      .default_text = "log" },
    { .key = "rate",
      .type = FIELD_INTEGER,
      .offset = offsetof(struct settings, rate),
      .unit = "frames a second",
      .help = "How often the screen follows a run at most; a key is answered at once.",
      .minimum = 1,
      .maximum = 10,
      .default_text = "4" },
    { .key = "theme",
      .type = FIELD_CHOICE,
      .offset = offsetof(struct settings, theme),
      .unit = "",
      .help = "Colours; auto asks the terminal for its background, safe is for colour-blind eyes. "
              "WINDROW_THEME and --theme go before it, NO_COLOR before all; the key T changes it.",
      .choices = theme_names,
      .default_text = "auto" },
    { .key = "mouse",
      .type = FIELD_BOOL,
      .offset = offsetof(struct settings, mouse),
      .unit = "",
      .help = "Whether the mouse chooses tabs and rows and scrolls; then the terminal selects text "
              "only with Shift held. The key M changes it.",
      .default_text = "false" },
    { .key = NULL },
};

void settings_init(struct settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    for (const struct field *field = settings_fields; field->key; field++) {
        struct error err = { 0 };
        if (field_set(field, settings, field->default_text, &err) != 0) {
            BUG("%s", err.message);
        }
    }
}

void settings_free(struct settings *settings)
{
    for (const struct field *field = settings_fields; field->key; field++) {
        field_release(field, settings);
    }
    memset(settings, 0, sizeof(*settings));
}

char *settings_path(void)
{
    const char *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    if (config && config[0] == '/') {
        return path_join(config, "windrow/config.json");
    }
    return home && home[0] ? path_join(home, ".config/windrow/config.json") : NULL;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Keeps the first complaint and counts the others. */
struct complaints {
    char *text;
    size_t size;
    int count;
};

static void complain(struct complaints *to, const char *path, const struct error *err)
{
    if (to->count++ == 0) {
        snprintf(to->text, to->size, "%s: %.150s%s%.60s", path_base(path), err->message,
                 err->hint[0] ? " - " : "", err->hint);
    }
}

static void unknown_key(const char *key, struct error *err)
{
    const char *names[FIELD_LIMIT];
    size_t count = 0;
    for (const struct field *field = settings_fields; field->key && count < FIELD_LIMIT; field++) {
        names[count++] = field->key;
    }
    fail(err, ERROR_USAGE, "unknown key \"%s\"", text_show(key).text);
    const char *near = nearest_name(key, names, count);
    if (near) {
        hint(err, "did you mean %s?", near);
    } else {
        hint(err, "`windrow help config` lists them");
    }
}

static const struct field *find(const char *key)
{
    for (const struct field *field = settings_fields; field->key; field++) {
        if (strcmp(field->key, key) == 0) {
            return field;
        }
    }
    return NULL;
}

static int take(struct settings *settings, const cJSON *value, struct error *err)
{
    const struct field *field = find(value->string);
    if (!field) {
        unknown_key(value->string, err);
        return -1;
    }
    char *text = cJSON_IsString(value) ? xstrdup(value->valuestring) : json_print(value);
    int result = field_set(field, settings, text, err);
    free(text);
    return result;
}

void settings_load(struct settings *settings, const char *path, char *warning, size_t size)
{
    struct complaints complaints = { warning, size, 0 };
    struct error err = { 0 };
    char *usual = path ? NULL : settings_path();
    path = path ? path : usual;
    warning[0] = '\0';
    settings_init(settings);
    cJSON *root = path && file_exists(path) ? json_read(path, &err) : NULL;
    if (root && !cJSON_IsObject(root)) {
        fail(&err, ERROR_USAGE, "must be a JSON object");
    }
    if (err.message[0]) {
        complain(&complaints, path, &err);
    }
    const cJSON *object = cJSON_IsObject(root) ? root : NULL;
    const cJSON *value;
    cJSON_ArrayForEach (value, object) {
        struct error wrong = { 0 };
        if (take(settings, value, &wrong) != 0) {
            complain(&complaints, path, &wrong);
        }
    }
    if (complaints.count > 1) {
        size_t used = strlen(warning);
        snprintf(warning + used, size - used, " (and %d more)", complaints.count - 1);
    }
    text_clean(warning, size);
    cJSON_Delete(root);
    free(usual);
}

void settings_environment(struct settings *settings, char *warning, size_t size)
{
    struct error err = { 0 };
    const char *theme = getenv("WINDROW_THEME");
    if (theme && theme[0] && field_set(find("theme"), settings, theme, &err) != 0 && !warning[0]) {
        snprintf(warning, size, "WINDROW_THEME: %.200s", err.message);
        text_clean(warning, size);
    }
}

void settings_apply(const struct settings *settings, struct workbench *workbench)
{
    if (settings->glyphs != SETTINGS_GLYPHS_AUTO) {
        workbench->glyphs = (enum glyph_set)(settings->glyphs - 1);
    }
    workbench->theme = (enum theme_name)settings->theme;
    workbench->mouse = settings->mouse;
    workbench->smoothing = settings->smoothing;
    workbench->linear = settings->axis == 1;
}
