/* The dashboard's panes about speed. */
#ifndef WINDROW_APP_SCREEN_SPEED_H
#define WINDROW_APP_SCREEN_SPEED_H

#include "app/workbench.h"

void screen_speed(const struct workbench *workbench, struct canvas *canvas, struct rect area);
/* Norm of the gradient and learning rate, for wide screens. */
void screen_gradient(const struct workbench *workbench, struct canvas *canvas, struct rect area);
/* What a running run does now and what comes next; false if there is nothing to tell. */
bool screen_now(const struct workbench *workbench, char *out, size_t size);

#endif
