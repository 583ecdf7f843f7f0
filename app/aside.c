/* stderr kept aside. */
#include "app/aside.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

void aside_begin(struct aside *aside)
{
    aside->before = -1;
    aside->kept = memfd_create("stderr", MFD_CLOEXEC);
    if (aside->kept >= 0) {
        fflush(stderr);
        aside->before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        dup2(aside->kept, STDERR_FILENO);
    }
}

void aside_end(struct aside *aside)
{
    char bytes[4096];
    if (aside->kept < 0) {
        return;
    }
    fflush(stderr);
    dup2(aside->before, STDERR_FILENO);
    close(aside->before);
    lseek(aside->kept, 0, SEEK_SET);
    ssize_t size;
    while ((size = read(aside->kept, bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < size; i++) {
            unsigned char byte = (unsigned char)bytes[i];
            bytes[i] =
                (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f ? '?' : (char)byte;
        }
        ssize_t written = write(STDERR_FILENO, bytes, (size_t)size);
        if (written < 0) {
            break;
        }
    }
    close(aside->kept);
}
