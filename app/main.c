/* The program: prepares the process, then hands the words to the table of commands. */
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/commands/command.h"
#include "engine/base/file.h"

/* libgomp reads its settings before main. Threads that wait for work must not spin away the
 * processor that the screen and other runs need, so the program starts itself once more with the
 * setting in its environment; whoever has chosen one keeps it. */
static void restart_with_quiet_threads(char **arguments)
{
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL) {
        return;
    }
    setenv("GOMP_SPINCOUNT", "20000", 1);
    execv("/proc/self/exe", arguments);
    /* No /proc: go on as it is. */
}

/* Descriptors 0 to 2 exist, so that no file of ours is ever taken for the standard output. */
static void open_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && file_ops()->open("/dev/null", O_RDWR, 0) == -1) {
            exit(ERROR_RUNTIME);
        }
    }
}

int main(int count, char **arguments)
{
    restart_with_quiet_threads(arguments);
    prctl(PR_SET_NAME, "windrow");
    open_standard_descriptors();
    umask(077);
    setlocale(LC_ALL, "");
    setlocale(LC_NUMERIC, "C"); /* numbers are written with a point everywhere */
    signal(SIGPIPE, SIG_IGN);   /* a closed pipe is an error of one write, not the end of a run */
    signal(SIGXFSZ, SIG_IGN);   /* so is a limit of file sizes */
    return command_main(count, arguments);
}
