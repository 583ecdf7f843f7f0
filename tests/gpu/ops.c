/*
 * Compares every operation of the cuda backend with the cpu backend, on random shapes, and both
 * with fp64.
 *
 *   ops [--errors] [FILE]    prints a table (--errors: that of errors against fp64 too), writes it
 *                            to FILE as JSON; exit 1 if an operation differs, 77 if there is no
 *                            device
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gpu/cases.h"
#include "gpu/reference.h"

static const double bound_f32 = 1e-5;
static const double bound_bf16 = 1e-2;

int64_t case_random(struct report *report, int64_t low, int64_t high)
{
    struct random_key key = { .seed = 4711, .purpose = RANDOM_TEST, .tensor = 1 };
    uint32_t word = random_u32(&key, report->stream++);
    return low + (int64_t)(word % (uint64_t)(high - low + 1));
}

int64_t case_slots(struct report *report, int round, int64_t limit)
{
    int64_t any = case_random(report, 1, limit);
    return round % 7 == 4 ? 1 : round % 7 == 6 ? limit : any;
}

double case_value(const struct item *item, const void *data, int64_t at)
{
    switch (item->dtype) {
    case DTYPE_F32:
        return (double)((const float *)data)[at];
    case DTYPE_BF16:
        return (double)bf16_to_float(((const uint16_t *)data)[at]);
    case DTYPE_I16:
        return (double)((const int16_t *)data)[at];
    case DTYPE_U8:
        return (double)((const uint8_t *)data)[at];
    default:
        return (double)((const int32_t *)data)[at];
    }
}

static size_t item_bytes(const struct item *item)
{
    return (size_t)(item->rows * item->columns) * dtype_size(item->dtype);
}

static void *item_fill(struct report *report, const struct item *item)
{
    size_t bytes = item_bytes(item);
    int64_t count = item->rows * item->columns;
    void *data = malloc(bytes > 0 ? bytes : 1);
    struct random_key key = { .seed = 12, .purpose = RANDOM_TEST, .tensor = report->stream++ };
    if (data == NULL) {
        abort();
    }
    if (item->fill == FILL_GIVEN) {
        memcpy(data, item->contents, bytes);
    } else if (item->fill == FILL_POISON) {
        memset(data, 0xff, bytes);
    }
    for (int64_t i = 0; i < count && item->fill != FILL_GIVEN && item->fill != FILL_POISON; i++) {
        float x = item->low + (item->high - item->low) * random_uniform(&key, (uint64_t)i);
        if (item->dtype == DTYPE_F32) {
            ((float *)data)[i] = x;
        } else if (item->dtype == DTYPE_BF16) {
            ((uint16_t *)data)[i] = bf16_from_float(x);
        } else if (item->dtype == DTYPE_I16) {
            ((int16_t *)data)[i] = (int16_t)floorf(x);
        } else if (item->dtype == DTYPE_U8) {
            ((uint8_t *)data)[i] = (uint8_t)x;
        } else {
            ((int32_t *)data)[i] = (int32_t)floorf(x);
        }
    }
    return data;
}

/* Scratch for the device, and how much was asked for at most. */
struct room {
    struct backend *be; /* NULL: nothing is given, only asked */
    void *data;
    size_t bytes;
    size_t asked;
};

static void *take_room(void *context, size_t bytes)
{
    struct room *room = context;
    room->asked = bytes > room->asked ? bytes : room->asked;
    if (room->be != NULL && bytes > room->bytes) {
        backend_free(room->be, room->data, room->bytes);
        room->data = backend_alloc(room->be, bytes);
        room->bytes = bytes;
    }
    return room->be != NULL ? room->data : room;
}

/* Asks the operation of the planner's stand-in for the device: it must know the scratch. */
static bool scratch_is_planned(struct report *report, const struct trial *trial)
{
    struct tensor t[CASE_TENSORS];
    struct room planned = { .be = NULL };
    backend_set_scratch(report->planned, take_room, &planned);
    for (int i = 0; i < trial->count; i++) {
        const struct item *item = &trial->item[i];
        t[i] = (struct tensor){ .dim = { item->rows, item->columns, 1, 1 },
                                .rank = 2,
                                .dtype = item->dtype,
                                .name = trial->op,
                                .data = backend_alloc(report->planned, item_bytes(item)) };
    }
    trial->run(report->planned, t, &trial->numbers);
    /* Whether cuDNN does the attention, and takes scratch for it, is known on a device only. */
    bool at_most = strncmp(trial->op, "attention", 9) == 0;
    bool good =
        at_most ? planned.asked >= report->room->asked : planned.asked == report->room->asked;
    if (!good) {
        snprintf(report->trouble, sizeof report->trouble,
                 "%s takes %zu bytes of scratch, the plan knows of %zu", trial->op,
                 report->room->asked, planned.asked);
    }
    report->room->asked = 0;
    return good;
}

/* Runs the operation on one backend; result[i] are the contents of the tensors afterwards. */
static bool run_on(struct report *report, struct backend *be, const struct trial *trial,
                   void *const *start, void **result)
{
    struct tensor t[CASE_TENSORS];
    for (int i = 0; i < trial->count; i++) {
        const struct item *item = &trial->item[i];
        t[i] = (struct tensor){ .dim = { item->rows, item->columns, 1, 1 },
                                .rank = 2,
                                .dtype = item->dtype,
                                .name = trial->op };
        t[i].data = backend_alloc(be, item_bytes(item));
        result[i] = malloc(item_bytes(item) + 1);
        if (t[i].data == NULL || result[i] == NULL) {
            abort();
        }
        backend_upload(be, t[i].data, start[i], item_bytes(item));
    }
    trial->run(be, t, &trial->numbers);
    bool good = backend_sync(be) == 0;
    for (int i = 0; i < trial->count; i++) {
        backend_download(be, result[i], t[i].data, item_bytes(&trial->item[i]));
        backend_free(be, t[i].data, item_bytes(&trial->item[i]));
    }
    if (!good) {
        snprintf(report->trouble, sizeof report->trouble, "%.250s", be->error);
        be->failed = false;
        be->error[0] = '\0';
    }
    return good;
}

/* The largest error of a tensor, as a fraction of what is allowed. */
static double item_error(const struct item *item, const void *expected, const void *found)
{
    int64_t count = item->rows * item->columns;
    double largest = 0.0;
    double worst = 0.0;
    double bound = item->dtype == DTYPE_BF16  ? bound_bf16
                   : item->dtype == DTYPE_F32 ? bound_f32
                                              : 0.0;
    bool codes = item->dtype == DTYPE_U8;
    for (int64_t i = 0; i < count; i++) {
        double e = case_value(item, expected, i);
        largest = isfinite(e) ? fmax(largest, fabs(e)) : largest;
    }
    for (int64_t i = 0; i < count; i++) {
        double e = case_value(item, expected, i);
        double f = case_value(item, found, i);
        double d = fabs(f - e);
        bool both = (isnan(e) && isnan(f)) || (isinf(e) && isinf(f) && (e > 0.0) == (f > 0.0));
        if (both || d <= 0.0) {
            continue;
        }
        /* Where a value lies on the border of two codes, either is right. */
        double fraction = codes ? d : d / (bound * fmax(largest, 1e-30));
        worst = fraction <= worst ? worst : isfinite(fraction) ? fraction : 1e9;
    }
    return worst;
}

static struct line *line_of(struct report *report, const struct trial *trial)
{
    const char *dtype = "fp32";
    for (int i = 0; i < trial->count; i++) {
        dtype = trial->item[i].dtype == DTYPE_BF16 ? "bf16" : dtype;
    }
    for (int i = 0; i < report->lines; i++) {
        struct line *line = &report->line[i];
        if (strcmp(line->op, trial->op) == 0 && strcmp(line->dtype, dtype) == 0) {
            return line;
        }
    }
    if (report->lines == CASE_ROWS_MAX) {
        abort();
    }
    struct line *line = &report->line[report->lines++];
    *line = (struct line){ .dtype = dtype, .repeats = true, .good = true, .exact = true };
    for (int who = 0; who < 2; who++) {
        line->error[who][ERROR_F32] = -1.0;
        line->error[who][ERROR_BF16] = -1.0;
    }
    snprintf(line->op, sizeof line->op, "%s", trial->op);
    return line;
}

void case_run(struct report *report, const struct trial *trial)
{
    void *start[CASE_TENSORS];
    void *result[3][CASE_TENSORS];
    struct line *line = line_of(report, trial);
    for (int i = 0; i < trial->count; i++) {
        start[i] = item_fill(report, &trial->item[i]);
    }
    bool good = run_on(report, report->cpu, trial, start, result[0]);
    device_order(false);
    good = run_on(report, report->device, trial, start, result[1]) && good;
    device_order(true);
    good = run_on(report, report->device, trial, start, result[2]) && good;
    good = scratch_is_planned(report, trial) && good;
    errors_take(report, line, trial, start, result[1], result[0]);
    for (int i = 0; i < trial->count; i++) {
        const struct item *item = &trial->item[i];
        size_t bytes = item_bytes(item);
        double error = item_error(item, result[0][i], result[1][i]);
        line->worst = fmax(line->worst, error);
        bool same = report->varies || memcmp(result[1][i], result[2][i], bytes) == 0;
        line->repeats = line->repeats && same;
        good = good && error <= 1.0;
        if (!item->written && memcmp(start[i], result[1][i], bytes) != 0) {
            snprintf(report->trouble, sizeof report->trouble, "%s changed tensor %d", trial->op, i);
            good = false;
        }
        free(start[i]);
        for (int r = 0; r < 3; r++) {
            free(result[r][i]);
        }
    }
    line->cases++;
    line->good = line->good && good && line->repeats;
}

/* "name": error, null where there is none. */
static void write_error(FILE *file, const char *name, double error)
{
    if (error < 0.0) {
        fprintf(file, ", \"%s\": null", name);
    } else {
        fprintf(file, ", \"%s\": %.3e", name, error);
    }
}

static void write_json(const struct report *report, FILE *file)
{
    fprintf(file, "{\"device\": \"%s\", \"operations\": [\n", report->device->facts.device);
    for (int i = 0; i < report->lines; i++) {
        const struct line *l = &report->line[i];
        fprintf(file,
                "  {\"operation\": \"%s\", \"dtype\": \"%s\", \"cases\": %d, "
                "\"worst_of_bound\": %.4g, \"repeats\": %s, \"good\": %s, \"exact\": %s",
                l->op, l->dtype, l->cases, l->worst, l->repeats ? "true" : "false",
                l->good ? "true" : "false", l->exact ? "true" : "false");
        write_error(file, "error_fp32", l->error[0][ERROR_F32]);
        write_error(file, "error_bf16", l->error[0][ERROR_BF16]);
        write_error(file, "cpu_error_fp32", l->error[1][ERROR_F32]);
        write_error(file, "cpu_error_bf16", l->error[1][ERROR_BF16]);
        fprintf(file, "}%s\n", i + 1 < report->lines ? "," : "");
    }
    fprintf(file, "]}\n");
}

static int print_table(const struct report *report)
{
    int bad = 0;
    printf("%-20s %-5s %6s %12s  %s\n", "operation", "dtype", "cases", "error/bound", "result");
    for (int i = 0; i < report->lines; i++) {
        const struct line *l = &report->line[i];
        printf("%-20s %-5s %6d %12.3g  %s\n", l->op, l->dtype, l->cases, l->worst,
               l->good      ? "as the cpu, twice the same"
               : l->repeats ? "DIFFERS"
                            : "DOES NOT REPEAT");
        bad += l->good ? 0 : 1;
    }
    if (report->trouble[0] != '\0') {
        printf("last trouble: %s\n", report->trouble);
    }
    printf("%d of %d lines are good\n", report->lines - bad, report->lines);
    return bad;
}

int main(int count, char **arguments)
{
    static struct report report;
    char why[256];
    bool errors = count > 1 && strcmp(arguments[1], "--errors") == 0;
    const char *path = count > 1 + errors ? arguments[1 + errors] : NULL;
    report.cpu = backend_open("cpu", 0, why, sizeof why);
    if (report.cpu == NULL) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    report.device = backend_open("cuda", 0, why, sizeof why);
    if (report.device == NULL) {
        printf("no device: %s\n", why);
        backend_close(report.cpu);
        return 77;
    }
    struct room room = { .be = report.device };
    report.room = &room;
    report.planned = backend_open("null-cuda", 0, why, sizeof why);
    if (report.planned == NULL) {
        abort();
    }
    report.reference = reference_open();
    backend_set_scratch(report.device, take_room, &room);
    report.size = device_size();
    cases_model(&report);
    cases_attention(&report);
    cases_update(&report);
    cases_subspace(&report);
    cases_cudnn(&report);
    int bad = print_table(&report) + errors_print(&report, errors) + coverage_gaps(&report);
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file != NULL) {
        write_json(&report, file);
        bad += fclose(file) == 0 ? 0 : 1;
    } else if (path != NULL) {
        fprintf(stderr, "%s cannot be written\n", path);
        bad++;
    }
    backend_free(report.device, room.data, room.bytes);
    backend_close(report.reference);
    backend_close(report.planned);
    backend_close(report.device);
    backend_close(report.cpu);
    return bad > 0 ? 1 : 0;
}
