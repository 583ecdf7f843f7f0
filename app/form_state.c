/* The form's part of the reducer: all settings of what is chosen, and changing them. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "app/workbench.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

const char *const form_source_names[FORM_SOURCE_COUNT] = { "default", "recipe", "model",
                                                           "data",    "preset", "you" };

void form_facts_free(struct form_facts *facts)
{
    for (int i = 0; i < facts->count; i++) {
        free(facts->row[i].value);
    }
    free(facts->row);
    free(facts->command);
    memset(facts, 0, sizeof(*facts));
}

/* Every word of the filter is in the key, the value or the help. */
static bool passes(const struct form *form, const struct form_row *row)
{
    char words[sizeof(form->filter)];
    char *rest = NULL;
    if (form->changed_only && row->source == FORM_DEFAULT) {
        return false;
    }
    snprintf(words, sizeof(words), "%s", form->filter);
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (!strcasestr(row->field->key, word) && !strcasestr(row->value, word) &&
            !strcasestr(row->field->help, word)) {
            return false;
        }
    }
    return true;
}

int form_shown(const struct form *form, int n, const struct form_row **row)
{
    int count = 0;
    if (row) {
        *row = NULL;
    }
    for (int i = 0; i < form->facts.count; i++) {
        if (passes(form, &form->facts.row[i])) {
            if (row && count == n) {
                *row = &form->facts.row[i];
            }
            count++;
        }
    }
    return count;
}

static void clamp(struct form *form)
{
    int count = form_shown(form, 0, NULL);
    form->cursor = form->cursor >= count ? count - 1 : form->cursor;
    form->cursor = form->cursor < 0 ? 0 : form->cursor;
}

void form_take(struct workbench *workbench, struct form_facts *facts)
{
    struct form *form = &workbench->launcher.form;
    form_facts_free(&form->facts);
    form->facts = *facts;
    clamp(form);
}

void form_filter(struct workbench *workbench, const char *text)
{
    struct form *form = &workbench->launcher.form;
    snprintf(form->filter, sizeof(form->filter), "%s", text);
    form->cursor = 0;
    clamp(form);
    /* The words of a name are more often meant than words of its help. */
    int count = form->filter[0] ? form_shown(form, 0, NULL) : 0;
    for (int i = 0; i < count; i++) {
        const struct form_row *row;
        form_shown(form, i, &row);
        if (strcasestr(row->field->key, form->filter)) {
            form->cursor = i;
            break;
        }
    }
}

/* ---- values -----------------------------------------------------------------------------------
 */

bool form_typed(struct workbench *workbench, const char *text)
{
    struct form *form = &workbench->launcher.form;
    const struct form_row *row;
    struct error err = { 0 };
    struct recipe scratch;
    form_shown(form, form->cursor, &row);
    form->error[0] = '\0';
    if (!row) {
        return true;
    }
    recipe_init(&scratch);
    int result = field_set(row->field, &scratch, text, &err);
    recipe_free(&scratch);
    if (result == 0 &&
        strlen(text) + strlen(row->field->key) + 2 > sizeof(((struct effect *)0)->text)) {
        result = fail(&err, ERROR_USAGE, "that is too long to be typed here: write a recipe file");
    }
    if (result != 0) {
        snprintf(form->error, sizeof(form->error), "%.160s%s%.80s", err.message,
                 err.hint[0] ? " - " : "", err.hint);
        return false;
    }
    if (strcmp(text, row->value) != 0) {
        struct effect *effect = workbench_push(workbench, EFFECT_OVERRIDE);
        snprintf(effect->text, sizeof(effect->text), "%s=%s", row->field->key, text);
        memcpy(effect->choice, workbench->launcher.cursor, sizeof(effect->choice));
    }
    return true;
}

/* The place of `value` among the words of a choice; -1: none. `count` takes how many there are. */
static int place_in(const char *const *choices, const char *value, int *count)
{
    int place = -1;
    *count = 0;
    for (; choices && choices[*count]; (*count)++) {
        place = strcmp(choices[*count], value) == 0 ? *count : place;
    }
    return place;
}

/* The next of words such as "none|norms|ffn|block", with which texts say what they take. */
static bool step_words(const char *words, const char *value, int by, char *out, size_t size)
{
    const char *begin[16];
    int length[16];
    int count = 0;
    int place = 0;
    if (!strchr(words, '|') || strchr(words, ' ')) {
        return false;
    }
    for (const char *at = words; count < 16; at++) {
        begin[count] = at;
        length[count] = (int)strcspn(at, "|");
        if (strlen(value) == (size_t)length[count] &&
            strncmp(at, value, (size_t)length[count]) == 0) {
            place = count;
        }
        at += length[count++];
        if (*at == '\0') {
            break;
        }
    }
    place = (place + by + count) % count;
    snprintf(out, size, "%.*s", length[place], begin[place]);
    return true;
}

static bool step_number(const struct field *field, const char *value, int by, char *out,
                        size_t size)
{
    double number = 0;
    char text[TEXT_NUMBER_SIZE];
    if (!text_to_double(value, &number)) {
        return false;
    }
    bool whole = field->type == FIELD_INTEGER;
    double to = by > 0 ? number * 2 : number / 2;
    if (whole) {
        to = by > 0 ? (number < 1 ? number + 1 : number * 2) : (double)(int64_t)(number / 2);
    } else if (number == 0 && by > 0) {
        to = field->maximum <= 1 ? 0.1 : 1e-4;
    }
    to = to < field->minimum ? field->minimum : to > field->maximum ? field->maximum : to;
    text_from_double(text, to);
    snprintf(out, size, "%s", text);
    return true;
}

/* Left and Right: the choice beside it, half or twice the number. */
static void step(struct workbench *workbench, int by)
{
    struct form *form = &workbench->launcher.form;
    const struct form_row *row;
    char to[128] = "";
    int count = 0;
    form_shown(form, form->cursor, &row);
    if (!row) {
        return;
    }
    const struct field *field = row->field;
    if (field->type == FIELD_BOOL) {
        snprintf(to, sizeof(to), "%s", strcmp(row->value, "true") == 0 ? "false" : "true");
    } else if (field->type == FIELD_CHOICE) {
        int place = place_in(field->choices, row->value, &count);
        snprintf(to, sizeof(to), "%s", field->choices[(place + by + count) % count]);
    } else if (field->type == FIELD_STRING
                   ? !step_words(field->unit, row->value, by, to, sizeof(to))
                   : !step_number(field, row->value, by, to, sizeof(to))) {
        workbench_say(workbench, STYLE_TEXT, "%s: Enter types another value", field->key);
        return;
    }
    if (!form_typed(workbench, to)) {
        workbench_say(workbench, STYLE_BAD, "%s", form->error);
    }
}

/* ---- keys -------------------------------------------------------------------------------------
 */

static void edit(struct workbench *workbench)
{
    struct form *form = &workbench->launcher.form;
    const struct form_row *row;
    form_shown(form, form->cursor, &row);
    if (row) {
        form->error[0] = '\0';
        workbench->overlay = OVERLAY_FIELD;
        workbench->field_use = FIELD_FOR_FORM;
        snprintf(workbench->field, sizeof(workbench->field), "%s", row->value);
    }
}

static void reset(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    const struct form_row *row;
    form_shown(&launcher->form, launcher->form.cursor, &row);
    if (row && row->source == FORM_YOU) {
        struct effect *effect = workbench_push(workbench, EFFECT_RESET);
        snprintf(effect->text, sizeof(effect->text), "%s", row->field->key);
        memcpy(effect->choice, launcher->cursor, sizeof(effect->choice));
    } else if (row) {
        workbench_say(workbench, STYLE_WARN, "%s is not set by you: it comes from the %s",
                      row->field->key, form_source_names[row->source]);
    }
}

static void close_form(struct workbench *workbench)
{
    struct form *form = &workbench->launcher.form;
    if (form->filter[0]) {
        form_filter(workbench, "");
    } else {
        form->open = false;
    }
}

static void move(struct workbench *workbench, enum action action)
{
    struct form *form = &workbench->launcher.form;
    int page = workbench->height > 12 ? workbench->height - 12 : 1;
    switch (action) {
    case ACTION_UP:
        form->cursor--;
        break;
    case ACTION_DOWN:
        form->cursor++;
        break;
    case ACTION_PAGE_UP:
        form->cursor -= page;
        break;
    case ACTION_PAGE_DOWN:
        form->cursor += page;
        break;
    case ACTION_FIRST:
        form->cursor = 0;
        break;
    case ACTION_LAST:
        form->cursor = form->facts.count;
        break;
    default:
        break;
    }
    clamp(form);
}

void form_key(struct workbench *workbench, enum action action)
{
    struct form *form = &workbench->launcher.form;
    switch (action) {
    case ACTION_BACK:
        close_form(workbench);
        break;
    case ACTION_CLOSE:
        form->open = false;
        break;
    case ACTION_ENTER:
        edit(workbench);
        break;
    case ACTION_LEFT:
        step(workbench, -1);
        break;
    case ACTION_RIGHT:
        step(workbench, 1);
        break;
    case ACTION_RESET:
        reset(workbench);
        break;
    case ACTION_CHANGED:
        form->changed_only = !form->changed_only;
        form->cursor = 0;
        break;
    case ACTION_INTERRUPT:
        workbench_push(workbench, EFFECT_QUIT);
        break;
    default:
        move(workbench, action);
        break;
    }
}
