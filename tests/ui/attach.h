/* A recorded run in a directory, and the real loop on it in a child process. */
#ifndef WINDROW_TESTS_UI_ATTACH_H
#define WINDROW_TESTS_UI_ATTACH_H

/* Set-up and tear-down of a group: a folder of its own with a run of 300 steps that has ended. The
 * user's configuration and runs are out of reach. */
int attach_begin(void **state);
int attach_end(void **state);
/* The folder, and the run in it. */
const char *attach_folder(void);
const char *attach_run(void);

/* In the child: sets the environment (name, value, ..., NULL) and shows the run. */
int attach_child(void *environment);

#endif
