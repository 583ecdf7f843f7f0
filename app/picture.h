/*
 * The current screen in a file, for documents: the key P and :snapshot FILE.
 *
 * A name that ends in .svg gives a picture, any other name text. Without a name one is made of the
 * run, the screen and the step, windrow-RUN-SCREEN-STEP.svg in the working directory, with a
 * number behind it if that is taken. A file that exists is never written over.
 */
#ifndef WINDROW_APP_PICTURE_H
#define WINDROW_APP_PICTURE_H

#include "app/workbench.h"

/* Draws what the workbench shows and writes it; `name` "" makes one. The path it was written to
 * (xmalloc'd), or NULL with an error that says what to do. */
char *picture_save(const struct workbench *workbench, const char *name, struct error *err);

#endif
