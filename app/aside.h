/* What is written to stderr while a screen is shown: kept aside, and told afterwards. Libraries
 * print; on a drawn screen that would stay as dirt. */
#ifndef WINDROW_APP_ASIDE_H
#define WINDROW_APP_ASIDE_H

struct aside {
    int before; /* stderr as it was */
    int kept;   /* memory file; -1: it could not be made */
};

void aside_begin(struct aside *aside);
/* Prints what was kept, made harmless. */
void aside_end(struct aside *aside);

#endif
