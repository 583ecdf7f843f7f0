/*
 * Relative errors against numbers computed in double (reference.h).
 *
 * Of each tensor that an operation writes: the Euclidean norm of the difference over that of the
 * exact numbers; of whole numbers, none may differ (codes of eight bits: by one, where a value lies
 * on the border). A line of the table keeps the largest of all its cases, of fp32 and of bf16
 * tensors, of the device and of the cpu.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gpu/cases.h"
#include "gpu/reference.h"

static const double bounds[ERROR_KINDS] = { [ERROR_F32] = 1e-5, [ERROR_BF16] = 1e-2 };

/* Error of `found` against `exact`; fails for good where one is no number and the other is. */
static double relative_error(const struct item *item, const double *exact, const void *found)
{
    double difference = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < item->rows * item->columns; i++) {
        double e = exact[i];
        double f = case_value(item, found, i);
        bool alike = (isnan(e) && isnan(f)) || (isinf(e) && isinf(f) && (e > 0.0) == (f > 0.0));
        if (alike) {
            continue;
        }
        difference += (f - e) * (f - e);
        norm += e * e;
    }
    double error = difference > 0.0 ? sqrt(difference / norm) : sqrt(difference);
    return isfinite(error) ? error : 1e9;
}

/* Whether whole numbers are right. What depends on a rounding is NaN in `exact`. */
static bool same_numbers(const struct item *item, const double *exact, const void *found)
{
    double most = item->dtype == DTYPE_U8 ? 1.0 : 0.0;
    for (int64_t i = 0; i < item->rows * item->columns; i++) {
        if (!isnan(exact[i]) && fabs(case_value(item, found, i) - exact[i]) > most) {
            return false;
        }
    }
    return true;
}

static void take_tensor(struct report *report, struct line *line, const struct tensor *t,
                        const struct item *item, void *const result[2])
{
    static const char *const names[] = { "the device", "the cpu" };
    bool real = item->dtype == DTYPE_F32 || item->dtype == DTYPE_BF16;
    enum error_kind kind = t->dtype == DTYPE_BF16 ? ERROR_BF16 : ERROR_F32;
    for (int who = 0; who < 2; who++) {
        double *most = &line->error[who][kind];
        if (real) {
            double error = relative_error(item, numbers_of(t), result[who]);
            *most = fmax(*most, error);
        } else {
            line->whole[who] = true;
        }
        bool good = real ? *most <= bounds[kind] : same_numbers(item, numbers_of(t), result[who]);
        if (!good) {
            snprintf(report->trouble, sizeof report->trouble, "%s is wrong in %s, case %d: %.3g",
                     names[who], line->op, line->cases, real ? *most : 0.0);
            line->exact = false;
        }
    }
}

void errors_take(struct report *report, struct line *line, const struct trial *trial,
                 void *const *start, void *const *device, void *const *cpu)
{
    struct backend *be = report->reference;
    struct tensor t[CASE_TENSORS];
    for (int i = 0; i < trial->count; i++) {
        const struct item *item = &trial->item[i];
        int64_t count = item->rows * item->columns;
        t[i] = (struct tensor){ .data = reference_room(count),
                                .dim = { item->rows, item->columns, 1, 1 },
                                .rank = 2,
                                .dtype = item->dtype,
                                .name = trial->op };
        for (int64_t e = 0; e < count; e++) {
            numbers_of(&t[i])[e] = case_value(item, start[i], e);
        }
    }
    trial->run(be, t, &trial->numbers);
    if (be->failed) {
        snprintf(report->trouble, sizeof report->trouble, "%.250s", be->error);
        line->exact = false;
    }
    for (int i = 0; i < trial->count; i++) {
        if (trial->item[i].written && !be->failed) {
            void *const result[2] = { device[i], cpu[i] };
            take_tensor(report, line, &t[i], &trial->item[i], result);
        }
        free(t[i].data);
    }
    be->failed = false;
    be->error[0] = '\0';
}

static void print_error(const struct line *line, int who)
{
    for (int kind = 0; kind < ERROR_KINDS; kind++) {
        double error = line->error[who][kind];
        if (error < 0.0) {
            printf(" %11s", line->whole[who] ? "whole" : "-");
        } else {
            printf(" %11.2e", error);
        }
    }
}

int errors_print(const struct report *report, bool table)
{
    int bad = 0;
    if (table) {
        printf("relative error against fp64 (bounds: fp32 %g, bf16 %g)\n", bounds[ERROR_F32],
               bounds[ERROR_BF16]);
        printf("%-20s %-6s %11s %11s %11s %11s\n", "operation", "dtype", "device fp32",
               "device bf16", "cpu fp32", "cpu bf16");
    }
    for (int i = 0; i < report->lines; i++) {
        const struct line *line = &report->line[i];
        if (table || !line->exact) {
            printf("%-20s %-6s", line->op, line->dtype);
            print_error(line, 0);
            print_error(line, 1);
            printf("%s\n", line->exact ? "" : "  TOO LARGE");
        }
        bad += line->exact ? 0 : 1;
    }
    printf("%d of %d lines are within the bounds of fp64\n", report->lines - bad, report->lines);
    return bad;
}
