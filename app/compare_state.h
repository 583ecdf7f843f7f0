/*
 * Several runs side by side on one screen, and the list that runs are chosen from.
 *
 * The shown run is folded from its events as they come; the others are read elsewhere
 * (EFFECT_READ_RUN) and come in whole. Which of them are shown stays as it is when another run is
 * opened.
 */
#ifndef WINDROW_APP_COMPARE_STATE_H
#define WINDROW_APP_COMPARE_STATE_H

#include "app/comparison.h"
#include "app/keymap.h"

struct workbench;

enum { COMPARE_OTHERS = 5, COMPARE_PATH = 512 };
enum compare_pane { COMPARE_NUMBERS, COMPARE_SETTINGS, COMPARE_PANES };

struct compare_other {
    char path[COMPARE_PATH];
    bool loaded; /* else it is being read */
    bool failed; /* and `trouble` says why */
    char trouble[160];
    double asked; /* time of the last reading, Unix seconds */
    struct comparison_run run;
};

struct compare {
    struct comparison_run own; /* the run that is shown */
    struct compare_other other[COMPARE_OTHERS];
    int count;     /* of others */
    int cursor;    /* row of the table: 0 own, then the others */
    unsigned hide; /* bit i: row i is not drawn */
    enum comparison_axis axis;
    enum comparison_metric metric;
    bool linear;
    enum compare_pane pane; /* below the chart where both have no room */
};

/* Forgets the shown run; the others stay. */
void compare_show_run(struct compare *compare, const char *name);
void compare_free(struct compare *compare);

void compare_key(struct workbench *workbench, enum action action);
/* Puts a run beside the shown one, or takes it away. */
void compare_toggle(struct workbench *workbench, const char *path);
bool compare_has(const struct compare *compare, const char *path);
/* A run was read: taken over. `trouble` NULL: it is there. */
void compare_read(struct workbench *workbench, const char *path, struct comparison_run *run,
                  const char *trouble);
/* Asks for those again that are still running. */
void compare_tick(struct workbench *workbench);

/* The shown run and the loaded others, as copies that own nothing but themselves; rows[i] is the
 * row of the table. Release with compare_view_free. */
struct compare_view {
    struct comparison all;
    int row[COMPARE_OTHERS + 1];
};
void compare_view_open(const struct compare *compare, struct compare_view *view);
void compare_view_free(struct compare_view *view);

/* The letter of a row in the chart and in the table. */
char compare_letter(int row);

#endif
