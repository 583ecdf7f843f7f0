/* Plans are made by a thread of their own, one at a time, so that the screen never waits: a model
 * of billions of parameters takes a second or two. */
#ifndef WINDROW_APP_PLANNER_H
#define WINDROW_APP_PLANNER_H

#include "app/workbench.h"

struct planner;

struct planner *planner_open(void);
/* Ends the thread; one that is in the middle of a plan is left to the end of the process. */
void planner_close(struct planner *planner);

/* Readable when a plan is finished. */
int planner_fd(const struct planner *planner);

/* Starts one for so many ranks; the recipe is copied. Only while none is under way. `detailed`:
 * with the cheapest changes that fit, if it does not. */
void planner_ask(struct planner *planner, const struct recipe *recipe,
                 const int choice[LAUNCHER_LISTS], int ranks, bool detailed);

/* Takes the finished plan; false if there is none. */
bool planner_take(struct planner *planner, struct launcher_plan *plan);

/* A plan that says only why there is none. */
void planner_refusal(const struct error *err, const int choice[LAUNCHER_LISTS],
                     struct launcher_plan *plan);

#endif
