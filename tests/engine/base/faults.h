/* A file system that fails when told: call number `at` of one kind goes wrong. */
#ifndef WINDROW_TESTS_ENGINE_BASE_FAULTS_H
#define WINDROW_TESTS_ENGINE_BASE_FAULTS_H

#include <stdbool.h>

enum fault {
    FAULT_NONE,
    FAULT_ERROR,       /* the call fails with `number` */
    FAULT_SHORT_WRITE, /* a write takes one byte; nothing for other calls */
    FAULT_POWER,       /* the call and all after it fail: nothing more reaches the disk */
};

struct faults {
    enum fault kind;
    int number; /* errno */
    long at;    /* counting all calls from 1 */
    long calls; /* so far */
    bool hit;
    char log[256]; /* the calls as letters: o w p f c r m u d; p is pread, d rmdir */
};

/* Installs the failing table and clears the counters. faults_end restores the real one. */
void faults_begin(enum fault kind, int number, long at);
struct faults faults_end(void);

#endif
