/* The mouse's part of the reducer. */
#include "app/workbench.h"

enum { WHEEL_ROWS = 3 };

static void scroll(struct workbench *workbench, uint32_t key, struct spot spot)
{
    if (workbench->mode == MODE_LAUNCHER && workbench->overlay == OVERLAY_NONE) {
        if (spot.target >= TARGET_MODEL && spot.target <= TARGET_RUN) {
            launcher_point(workbench, (int)spot.target - TARGET_MODEL, -1);
        } else if (spot.target == TARGET_PANE) {
            launcher_point(workbench, spot.index, -1);
        }
    }
    /* Where rows are chosen the choice moves, one at a time: the wheel is not precise. */
    bool rows = workbench->mode == MODE_LAUNCHER || workbench->screen == SCREEN_TUNE ||
                workbench->screen == SCREEN_LAYERS || workbench->screen == SCREEN_SAMPLES ||
                workbench->overlay == OVERLAY_RUNS;
    rows = rows && workbench->overlay != OVERLAY_HELP;
    for (int i = 0; i < (rows ? 1 : WHEEL_ROWS); i++) {
        workbench_key(workbench, key);
    }
}

static void point(struct workbench *workbench, struct spot spot)
{
    switch (spot.target) {
    case TARGET_KEY:
        workbench_key(workbench, (uint32_t)spot.index);
        break;
    case TARGET_PANE:
        launcher_point(workbench, spot.index, -1);
        break;
    case TARGET_MODEL:
    case TARGET_DATA:
    case TARGET_METHOD:
    case TARGET_RUN:
        launcher_point(workbench, (int)spot.target - TARGET_MODEL, spot.index);
        break;
    case TARGET_OPEN:
        if (spot.index < workbench->launcher.run_count) {
            workbench->runs.cursor = spot.index;
        }
        break;
    case TARGET_FORM:
        if (spot.index < form_shown(&workbench->launcher.form, 0, NULL)) {
            workbench->launcher.form.cursor = spot.index;
        }
        break;
    case TARGET_TUNE:
        workbench->tune.cursor = spot.index;
        break;
    case TARGET_MATRIX:
        if ((size_t)spot.index < workbench->history.matrix_count) {
            workbench->cursor = spot.index;
        }
        break;
    case TARGET_PROMPT:
        workbench->prompt = spot.index;
        workbench->generation = 0;
        break;
    case TARGET_NONE:
        break;
    }
}

void workbench_mouse(struct workbench *workbench, enum mouse_button button, struct spot spot)
{
    workbench->dirty = true;
    /* Fields and questions are answered with keys. */
    if (workbench->overlay != OVERLAY_NONE && workbench->overlay != OVERLAY_HELP &&
        workbench->overlay != OVERLAY_RUNS) {
        return;
    }
    if (button == MOUSE_WHEEL_UP || button == MOUSE_WHEEL_DOWN) {
        scroll(workbench, button == MOUSE_WHEEL_UP ? INPUT_UP : INPUT_DOWN, spot);
    } else if (button == MOUSE_CLICK) {
        point(workbench, spot);
    }
}
