/* The reducer's part for Samples and Log: prompts, searching, filtering. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "app/workbench.h"

/* ---- the log -----------------------------------------------------------------------------------
 */

const char *log_match(const char *text, const char *wanted)
{
    size_t length = strlen(wanted);
    for (; length > 0 && *text; text++) {
        size_t same = 0;
        while (same < length && text[same] &&
               tolower((unsigned char)text[same]) == tolower((unsigned char)wanted[same])) {
            same++;
        }
        if (same == length) {
            return text;
        }
    }
    return NULL;
}

bool log_shows(const struct workbench *workbench, const struct history_line *line)
{
    bool serious =
        line->kind == EVENT_WARNING || line->kind == EVENT_ERROR || line->kind == EVENT_STEP;
    if (workbench->serious && !serious) {
        return false;
    }
    if (workbench->filter[0] == '\0') {
        return true;
    }
    struct history_text said = history_line_text(&workbench->history, line, false);
    return log_match(said.text, workbench->filter) != NULL;
}

void log_filter(struct workbench *workbench, const char *text)
{
    snprintf(workbench->filter, sizeof(workbench->filter), "%s", text);
    workbench->screen = SCREEN_LOG;
    workbench->scroll = 0;
}

/* Scrolls to the next match: older ones lie further down. */
static void find(struct workbench *workbench, bool older)
{
    const struct history_line *line;
    int shown = 0;
    int found = -1;
    for (size_t i = 0; (line = history_line_at(&workbench->history, i)) != NULL; i++) {
        if (!log_shows(workbench, line)) {
            continue;
        }
        struct history_text said = history_line_text(&workbench->history, line, false);
        bool beyond =
            older ? shown > workbench->scroll - workbench->fresh : shown < workbench->scroll;
        if (beyond && log_match(said.text, workbench->search)) {
            found = shown;
            if (older) {
                break;
            }
        }
        shown++;
    }
    workbench->fresh = false;
    if (found < 0) {
        workbench_say(workbench, STYLE_WARN, "no %s line with \"%.80s\"", older ? "older" : "newer",
                      workbench->search);
    } else {
        workbench->scroll = found;
    }
}

void log_search(struct workbench *workbench, const char *text)
{
    if (text[0]) {
        snprintf(workbench->search, sizeof(workbench->search), "%s", text);
    }
    workbench->screen = SCREEN_LOG;
    workbench->fresh = true; /* the first line that is shown counts, too */
    if (workbench->search[0]) {
        find(workbench, true);
    }
}

void log_key(struct workbench *workbench, enum action action)
{
    if (action == ACTION_SEARCH) {
        workbench_ask(workbench, FIELD_FOR_SEARCH, "");
    } else if (action == ACTION_ONLY) {
        workbench_ask(workbench, FIELD_FOR_ONLY, workbench->filter);
    } else if (workbench->search[0] == '\0') {
        workbench_say(workbench, STYLE_TEXT, "nothing was searched for yet: / does");
    } else {
        find(workbench, action == ACTION_NEXT_MATCH);
    }
}

/* ---- samples -----------------------------------------------------------------------------------
 */

int samples_prompts(const struct history *history, int out[SAMPLES_PROMPTS])
{
    int count = 0;
    for (size_t i = history->sample_count; i > 0 && count < SAMPLES_PROMPTS; i--) {
        bool known = false;
        for (int k = 0; k < count; k++) {
            known |= strcmp(history->sample[out[k]].prompt, history->sample[i - 1].prompt) == 0;
        }
        if (!known) {
            out[count++] = (int)i - 1;
        }
    }
    return count;
}

/* The prompt under the cursor; NULL: there is none. */
static const char *chosen(const struct workbench *workbench)
{
    int prompts[SAMPLES_PROMPTS];
    int count = samples_prompts(&workbench->history, prompts);
    int at = workbench->prompt < count ? workbench->prompt : count - 1;
    return at >= 0 ? workbench->history.sample[prompts[at]].prompt : NULL;
}

void samples_ask(struct workbench *workbench, const char *prompt)
{
    if (!workbench_live(workbench)) {
        workbench_say(workbench, STYLE_WARN, "nothing is running here, this is a recording");
        return;
    }
    workbench_send(workbench, "sample", NULL, NULL);
    struct effect *effect = &workbench->effect[workbench->effect_count - 1];
    snprintf(effect->text, sizeof(effect->text), "%s", prompt);
    workbench->screen = SCREEN_SAMPLES;
    workbench->prompt = 0; /* the answer will be the newest */
    workbench_say(workbench, STYLE_STRONG, "asked for a sample");
}

void samples_key(struct workbench *workbench, enum action action)
{
    int prompts[SAMPLES_PROMPTS];
    int count = samples_prompts(&workbench->history, prompts);
    const char *prompt = chosen(workbench);
    int page = workbench->height > 16 ? workbench->height - 16 : 1;
    switch (action) {
    case ACTION_SAMPLE:
        samples_ask(workbench, prompt ? prompt : "");
        break;
    case ACTION_PROMPT:
        workbench_ask(workbench, FIELD_FOR_PROMPT, prompt ? prompt : "");
        break;
    case ACTION_UP:
    case ACTION_DOWN:
        workbench->prompt += action == ACTION_UP ? -1 : 1;
        workbench->prompt = workbench->prompt >= count ? count - 1 : workbench->prompt;
        workbench->prompt = workbench->prompt < 0 ? 0 : workbench->prompt;
        workbench->scroll = workbench->generation = 0;
        break;
    case ACTION_LEFT:
        workbench->generation += workbench->generation < HISTORY_SAMPLES;
        break;
    case ACTION_RIGHT:
        workbench->generation -= workbench->generation > 0;
        break;
    case ACTION_PAGE_DOWN:
        workbench->scroll += workbench->scroll < 1000 ? page : 0;
        break;
    case ACTION_PAGE_UP:
        workbench->scroll = workbench->scroll > page ? workbench->scroll - page : 0;
        break;
    case ACTION_FIRST:
        workbench->scroll = 0;
        break;
    default:
        break;
    }
}
