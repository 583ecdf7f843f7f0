/* Looks at the beginning of data in a thread of its own, one at a time, so that the screen never
 * waits for a disk or a tokenizer. */
#ifndef WINDROW_APP_PREVIEW_H
#define WINDROW_APP_PREVIEW_H

#include "app/launcher.h"

/* Reads the data of the recipe and renders its first record. Never fails: what went wrong is told
 * in `out`. With a tokenizer that cannot be had yet, the one that comes along stands in. */
void preview_make(const struct recipe *recipe, struct launcher_preview *out);

/* Why there is none. */
void preview_refuse(const struct error *err, struct launcher_preview *out);

struct previewer;

struct previewer *previewer_open(void);
/* Ends the thread; one that is reading is left to the end of the process. */
void previewer_close(struct previewer *previewer);

/* Readable when a preview is finished. */
int previewer_fd(const struct previewer *previewer);

/* Starts one; the recipe is copied. Only while none is under way. */
void previewer_ask(struct previewer *previewer, const struct recipe *recipe,
                   const int choice[LAUNCHER_LISTS]);

/* The finished one (xmalloc'd), or NULL. */
struct launcher_preview *previewer_take(struct previewer *previewer);

#endif
