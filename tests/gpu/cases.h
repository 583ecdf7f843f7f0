/*
 * An operation on random tensors, asked of two backends.
 *
 * A case is a list of tensors with their contents, the ones that the operation writes being marked,
 * and a function that calls the operation on such a list. case_run lets the cpu backend and the
 * device do it, the device twice. The results must be near those of the cpu, the same both times,
 * and nothing else may have changed; and near the exact ones (errors.c).
 */
#ifndef WINDROW_TESTS_GPU_CASES_H
#define WINDROW_TESTS_GPU_CASES_H

#include "kernels/ops.h"

enum { CASE_TENSORS = 12, CASE_ROWS_MAX = 128 };

/* How a tensor is filled. */
enum fill {
    FILL_UNIFORM, /* in (low, high) */
    FILL_POISON,  /* bytes of 0xff: NaN, -1 */
    FILL_BELOW,   /* int32 in [low, high) */
    FILL_GIVEN,   /* from `contents` */
};

struct item {
    int64_t rows, columns;
    enum dtype dtype;
    enum fill fill;
    float low, high;
    const void *contents;
    bool written;
};

/* Numbers that a case passes on to its operation. */
struct numbers {
    int64_t a, b, c;
    float f;
    bool yes, other;
    struct attention_shape attention;
};

struct trial {
    const char *op;
    struct item item[CASE_TENSORS];
    int count;
    struct numbers numbers;
    void (*run)(struct backend *be, struct tensor *t, const struct numbers *n);
};

enum error_kind { ERROR_F32, ERROR_BF16, ERROR_KINDS };

/* A line of the table: an operation with fp32 or bf16 tensors. */
struct line {
    char op[32];
    const char *dtype;
    int cases;
    double worst; /* error, as a fraction of the bound */
    bool repeats;
    bool good;
    double error[2][ERROR_KINDS]; /* of the device and the cpu; -1: no such tensor */
    bool whole[2];                /* whole numbers were compared */
    bool exact;                   /* within the bounds */
};

struct report {
    struct backend *cpu;
    struct backend *device;
    struct backend *planned; /* "null-cuda": asks for the device's scratch and computes nothing */
    struct backend *reference;
    struct room *room; /* where the device's scratch comes from */
    struct line line[CASE_ROWS_MAX];
    int lines;
    uint32_t stream; /* of random numbers */
    int64_t size;    /* shapes grow with it */
    bool varies;     /* what runs now adds in any order: the last bits may differ */
    char trouble[256];
};

/* The bound is relative to the largest expected element of a tensor. */
void case_run(struct report *report, const struct trial *trial);

/* A random whole number in [low, high]. */
int64_t case_random(struct report *report, int64_t low, int64_t high);

/* Element `at` of a tensor's contents. */
double case_value(const struct item *item, const void *data, int64_t at);

/* Compares what a case gave with the exact numbers, from the same contents `start`. */
void errors_take(struct report *report, struct line *line, const struct trial *trial,
                 void *const *start, void *const *device, void *const *cpu);
/* How many lines are beyond their bounds; those, or the whole table, are printed. */
int errors_print(const struct report *report, bool table);

/* How many of `limit` rows or columns round `round` of a case selects: one, all, or any number. */
int64_t case_slots(struct report *report, int round, int64_t limit);

/* Operations of the model (attention apart), of the update, and of subspaces. */
void cases_model(struct report *report);
void cases_attention(struct report *report);
/* Attention by cuDNN, where the device has it. */
void cases_cudnn(struct report *report);
void cases_update(struct report *report);
void cases_subspace(struct report *report);

/* Entries of the table of operations that the device or the reference lacks or that no case
 * compared; each is printed. */
int coverage_gaps(const struct report *report);

/* What differs between the emulated and the real device. */
int64_t device_size(void);
void device_order(bool reverse);

#endif
