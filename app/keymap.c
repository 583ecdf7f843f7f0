/* The table of actions. Its order is the order of footer and help. */
#include "app/keymap.h"

#include <stdio.h>

#define CONTROL(letter) ((letter)&0x1f)

const struct action_row keymap_rows[] = {
    { ACTION_ENTER,
      "start",
      { INPUT_ENTER },
      IN_LAUNCHER,
      false,
      "start training",
      "start training what is chosen (on a run: open it)" },
    { ACTION_ENTER,
      "edit",
      { INPUT_ENTER },
      IN_TUNE,
      false,
      "type a value",
      "type a value for the chosen setting" },
    { ACTION_NEXT_PANE, "next", { INPUT_TAB }, IN_LAUNCHER, false, "next pane", "next pane" },
    { ACTION_PREVIOUS_PANE,
      "previous",
      { INPUT_BACK_TAB },
      IN_LAUNCHER,
      false,
      NULL,
      "previous pane" },
    { ACTION_ADD,
      "add",
      { 'a' },
      IN_LAUNCHER,
      false,
      "add path",
      "add a model directory or data file to the pane" },
    { ACTION_OVERRIDE,
      "override",
      { 'e' },
      IN_LAUNCHER,
      false,
      "set key=value",
      "change any setting of the recipe, as key=value" },
    { ACTION_APPLY,
      "apply",
      { 'a' },
      IN_TUNE,
      true,
      "apply",
      "send the staged changes to the run" },
    { ACTION_UNDO,
      "undo",
      { 'u' },
      IN_TUNE,
      true,
      "undo",
      "put the latest change of the run back" },
    { ACTION_PAUSE,
      "pause",
      { 'p' },
      IN_RUN,
      true,
      "pause",
      "pause after the current step, or go on" },
    { ACTION_SAVE, "save", { 'c' }, IN_RUN, true, "checkpoint", "save a checkpoint now" },
    { ACTION_STOP, "stop", { 'S' }, IN_RUN, true, "stop", "stop the run (asks first)" },
    { ACTION_DETACH,
      "detach",
      { 'q', 'Q' },
      IN_RUN,
      false,
      "leave",
      "leave this screen; the run goes on" },
    { ACTION_LEAVE, "leave", { 'q', 'Q' }, IN_LAUNCHER, false, "leave", "leave" },
    { ACTION_SCALE,
      "scale",
      { 'y' },
      IN_DASHBOARD,
      false,
      "log y",
      "loss axis: logarithmic or linear" },
    { ACTION_SMOOTH,
      "smooth",
      { 'e' },
      IN_DASHBOARD,
      false,
      "smoothing",
      "smoothing of the loss: .94, .98, none, .9" },
    { ACTION_ZOOM_IN,
      "zoom-in",
      { '+', '=' },
      IN_DASHBOARD,
      false,
      NULL,
      "show fewer steps, the newest" },
    { ACTION_ZOOM_OUT, "zoom-out", { '-' }, IN_DASHBOARD, false, NULL, "show more steps" },
    { ACTION_ENTER,
      "matrix",
      { INPUT_ENTER },
      IN_LAYERS,
      false,
      "one matrix",
      "the page of this matrix, or back to the map" },
    { ACTION_EARLIER,
      "earlier",
      { '[' },
      IN_RUN,
      false,
      "back in time",
      "look at an earlier step; in Layers: the refresh before" },
    { ACTION_LATER, "later", { ']' }, IN_RUN, false, NULL, "look at a later step or refresh" },
    { ACTION_MUCH_EARLIER, "much-earlier", { '{' }, IN_RUN, false, NULL, "ten times as far back" },
    { ACTION_MUCH_LATER, "much-later", { '}' }, IN_RUN, false, NULL, "ten times as far on" },
    { ACTION_FOLLOW, "follow", { 'f' }, IN_RUN, false, NULL, "back to the newest step" },
    { ACTION_VIEW,
      "view",
      { 'v' },
      IN_LAYERS,
      false,
      "what is shown",
      "energy, overlap, coverage, evenness, or where the rows lie" },
    { ACTION_WORST,
      "worst",
      { 'o' },
      IN_LAYERS,
      false,
      "next worst",
      "the matrix with the next larger value, from the worst on" },
    { ACTION_WHAT_IF,
      "what-if",
      { 'w' },
      IN_MEMORY,
      true,
      "what if",
      "ask the run what each live change would take" },
    { ACTION_SAMPLE,
      "sample",
      { 'r' },
      IN_SAMPLES,
      true,
      "generate now",
      "let the model write a sample now" },
    { ACTION_LEVEL,
      "level",
      { 'v' },
      IN_LOG,
      false,
      "what is shown",
      "all lines, or warnings and errors only" },
    { ACTION_SCREEN_1, "run", { '1' }, IN_RUN, false, NULL, "Run: loss, memory, speed" },
    { ACTION_SCREEN_2, "layers", { '2' }, IN_RUN, false, NULL, "Layers: selected rows" },
    { ACTION_SCREEN_3, "memory", { '3' }, IN_RUN, false, NULL, "Memory: plan and measured" },
    { ACTION_SCREEN_4, "tune", { '4' }, IN_RUN, false, NULL, "Tune: change live settings" },
    { ACTION_SCREEN_5, "samples", { '5' }, IN_RUN, false, NULL, "Samples: texts of the model" },
    { ACTION_SCREEN_6, "log", { '6' }, IN_RUN, false, NULL, "Log: everything that happened" },
    { ACTION_HOME, "home", { '0' }, IN_RUN, false, NULL, "Home: the launcher" },
    { ACTION_UP, "up", { INPUT_UP, 'k' }, IN_ALL, false, NULL, "up" },
    { ACTION_DOWN, "down", { INPUT_DOWN, 'j' }, IN_ALL, false, NULL, "down" },
    { ACTION_LEFT, "left", { INPUT_LEFT, 'h' }, IN_ALL, false, NULL, "left, or a smaller value" },
    { ACTION_RIGHT,
      "right",
      { INPUT_RIGHT, 'l' },
      IN_ALL,
      false,
      NULL,
      "right, or a larger value" },
    { ACTION_PAGE_UP, "page-up", { INPUT_PAGE_UP }, IN_ALL, false, NULL, "a page up" },
    { ACTION_PAGE_DOWN, "page-down", { INPUT_PAGE_DOWN }, IN_ALL, false, NULL, "a page down" },
    { ACTION_FIRST, "first", { INPUT_HOME, 'g' }, IN_ALL, false, NULL, "to the top" },
    { ACTION_LAST, "last", { INPUT_END, 'G' }, IN_ALL, false, NULL, "to the end" },
    { ACTION_BACK, "back", { INPUT_ESCAPE }, IN_ALL, false, NULL, "close, or drop what is staged" },
    { ACTION_INTERRUPT,
      "interrupt",
      { CONTROL('c') },
      IN_ALL,
      false,
      NULL,
      "asks: leave, stop or go on" },
    { ACTION_GLYPHS, "glyphs", { 'U' }, IN_ALL, false, NULL, "charts of ASCII, blocks or braille" },
    { ACTION_REPAINT, "repaint", { CONTROL('l') }, IN_ALL, false, NULL, "draw everything anew" },
    { ACTION_SUSPEND,
      "suspend",
      { CONTROL('z') },
      IN_ALL,
      false,
      NULL,
      "back to the shell (fg returns)" },
    { ACTION_HELP, "help", { '?', INPUT_F1 }, IN_ALL, false, "help", "this page" },
};
const size_t keymap_count = sizeof(keymap_rows) / sizeof(keymap_rows[0]);

enum action keymap_find(unsigned context, uint32_t key)
{
    for (size_t i = 0; i < keymap_count; i++) {
        const struct action_row *row = &keymap_rows[i];
        for (size_t k = 0; k < 3 && row->key[k] != 0; k++) {
            if (row->key[k] == key && (row->context & context)) {
                return row->action;
            }
        }
    }
    return ACTION_NONE;
}

const struct action_row *keymap_row(enum action action)
{
    for (size_t i = 0; i < keymap_count; i++) {
        if (keymap_rows[i].action == action) {
            return &keymap_rows[i];
        }
    }
    return NULL;
}

void keymap_key_name(uint32_t key, char *out, size_t size)
{
    static const struct {
        uint32_t key;
        const char *name;
    } names[] = {
        { INPUT_ENTER, "Enter" },
        { INPUT_ESCAPE, "Esc" },
        { INPUT_TAB, "Tab" },
        { INPUT_BACK_TAB, "S-Tab" },
        { INPUT_UP, "Up" },
        { INPUT_DOWN, "Down" },
        { INPUT_LEFT, "Left" },
        { INPUT_RIGHT, "Right" },
        { INPUT_HOME, "Home" },
        { INPUT_PAGE_UP, "PageUp" },
        { INPUT_PAGE_DOWN, "PageDown" },
        { INPUT_END, "End" },
        { INPUT_F1, "F1" },
        { INPUT_DELETE, "Del" },
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].key == key) {
            snprintf(out, size, "%s", names[i].name);
            return;
        }
    }
    if (key < 32) {
        snprintf(out, size, "^%c", (char)(key + '@'));
    } else {
        snprintf(out, size, "%c", key < 127 ? (char)key : '?');
    }
}
