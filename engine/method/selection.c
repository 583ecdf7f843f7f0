/* Counting what a refresh chose. */
#include "engine/method/selection.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t selection_share(int64_t rank, int64_t dimension, int64_t hidden_size)
{
    int64_t share = (2 * rank * dimension + hidden_size) / (2 * hidden_size);
    if (share < 1) {
        return 1;
    }
    return share > dimension ? dimension : share;
}

static double overlap(const struct selection_input *in)
{
    if (in->before_count == 0) {
        return (double)NAN;
    }
    int64_t common = 0;
    int64_t i = 0;
    int64_t j = 0;
    while (i < in->chosen_count && j < in->before_count) {
        if (in->chosen[i] == in->before[j]) {
            common++;
            i++;
            j++;
        } else if (in->chosen[i] < in->before[j]) {
            i++;
        } else {
            j++;
        }
    }
    return (double)common / (double)(in->chosen_count + in->before_count - common);
}

static double entropy(const struct selection_input *in, double total)
{
    double sum = 0.0;
    for (int64_t i = 0; i < in->candidates; i++) {
        double p = (double)in->squared_norms[i] / total;
        if (p > 0.0) {
            sum -= p * log(p);
        }
    }
    return sum;
}

static int descending(const void *a, const void *b)
{
    float left = *(const float *)a;
    float right = *(const float *)b;
    return left > right ? -1 : left < right;
}

static void curve(const struct selection_input *in, double total, double out[SELECTION_CURVE])
{
    for (int i = 0; i < SELECTION_CURVE; i++) {
        out[i] = (double)NAN;
    }
    if (in->sorted == NULL || !(total > 0.0)) {
        return;
    }
    memcpy(in->sorted, in->squared_norms, (size_t)in->candidates * sizeof *in->sorted);
    qsort(in->sorted, (size_t)in->candidates, sizeof *in->sorted, descending);
    double sum = 0.0;
    int64_t taken = 0;
    for (int i = 0; i < SELECTION_CURVE; i++) {
        int64_t parts = (int64_t)1 << (SELECTION_CURVE - 1 - i);
        int64_t count = (in->candidates + parts - 1) / parts;
        for (; taken < count; taken++) {
            sum += (double)in->sorted[taken];
        }
        out[i] = sum / total;
    }
}

void selection_measure(const struct selection_input *in, struct selection_report *report)
{
    double total = 0.0;
    for (int64_t i = 0; i < in->candidates; i++) {
        total += (double)in->squared_norms[i];
    }
    double captured = 0.0;
    memset(report->histogram, 0, sizeof report->histogram);
    for (int64_t j = 0; j < in->chosen_count; j++) {
        int32_t row = in->chosen[j];
        captured += (double)in->squared_norms[row];
        report->histogram[(int64_t)row * SELECTION_BINS / in->candidates]++;
        in->seen[row] = 1;
    }
    int64_t seen = 0;
    for (int64_t i = 0; i < in->candidates; i++) {
        seen += in->seen[i] != 0;
    }
    report->candidates = in->candidates;
    report->selected = in->chosen_count;
    report->overlap = overlap(in);
    report->captured_energy = total > 0.0 ? captured / total : (double)NAN;
    curve(in, total, report->curve);
    report->entropy = total > 0.0 ? entropy(in, total) : (double)NAN;
    report->coverage = (double)seen / (double)in->candidates;
}
