/*
 * The configuration of the workbench: $XDG_CONFIG_HOME/windrow/config.json
 * (~/.config/windrow/config.json), a JSON object with the keys of settings_fields:
 *
 *     { "recipe": "my-preset", "theme": "light", "glyphs": "ascii", "axis": "linear" }
 *
 * It changes how the workbench looks and what it begins with, never a run. What is wrong in it is
 * told once, with the nearest key that exists, and the default is taken; the file is never written.
 */
#ifndef WINDROW_APP_SETTINGS_H
#define WINDROW_APP_SETTINGS_H

#include "engine/base/field.h"

enum settings_glyphs { SETTINGS_GLYPHS_AUTO }; /* then the glyph sets, from 1 */

struct settings {
    char *recipe;  /* a file or a preset; "": the embedded default */
    int glyphs;    /* 0: what the terminal can show; else 1 + enum glyph_set */
    int smoothing; /* of the loss, an index of workbench_smoothings */
    int64_t rate;  /* frames a second */
    int axis;      /* of the loss: 0 logarithmic, 1 linear */
    int theme;     /* enum theme_name */
    bool mouse;
};

/* The table; ends with a row whose key is NULL. */
extern const struct field settings_fields[];

void settings_init(struct settings *settings);
void settings_free(struct settings *settings);

/* Where the file is looked for (xmalloc'd); NULL without a home. */
char *settings_path(void);

/* Defaults, then the file at `path` (NULL: the usual place), as far as it can be used. `warning`
 * takes a sentence about what could not, "" if all is well or there is no file. Never fails. */
void settings_load(struct settings *settings, const char *path, char *warning, size_t size);

/* What the environment says goes before the file: WINDROW_THEME, which --theme sets. (NO_COLOR is
 * the terminal's to heed.) `warning` as in settings_load; what stands there stays. */
void settings_environment(struct settings *settings, char *warning, size_t size);

/* Sets the workbench up. */
struct workbench;
void settings_apply(const struct settings *settings, struct workbench *workbench);

#endif
