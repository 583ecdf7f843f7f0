/* Frequencies in double, rounded to fp32 once: angles of long sequences keep their precision. */
#include "engine/model/rope_table.h"

#include <math.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"

double rope_frequency(const struct model_config *config, int64_t i)
{
    const struct rope_scaling *scaling = &config->rope_scaling;
    const double pi = 3.14159265358979323846;
    double frequency = pow(config->rope_theta, -2.0 * (double)i / (double)config->head_size);
    if (scaling->kind == ROPE_SCALING_LINEAR) {
        return frequency / scaling->factor;
    }
    if (scaling->kind != ROPE_SCALING_LLAMA3) {
        return frequency;
    }
    double wavelength = 2.0 * pi / frequency;
    double original = (double)scaling->original_max_positions;
    if (wavelength < original / scaling->high_frequency_factor) {
        return frequency;
    }
    if (wavelength > original / scaling->low_frequency_factor) {
        return frequency / scaling->factor;
    }
    double smooth = (original / wavelength - scaling->low_frequency_factor) /
                    (scaling->high_frequency_factor - scaling->low_frequency_factor);
    return (1.0 - smooth) * frequency / scaling->factor + smooth * frequency;
}

void rope_table_upload(const struct model_config *config, struct backend *be, struct tensor *table)
{
    if (be->facts.imaginary) {
        return; /* a plan of long sequences need not wait for their angles */
    }
    int64_t half = config->head_size / 2;
    float *row = xmalloc((size_t)config->head_size * sizeof *row);
    double *frequency = xmalloc((size_t)half * sizeof *frequency);
    for (int64_t i = 0; i < half; i++) {
        frequency[i] = rope_frequency(config, i);
    }
    for (int64_t p = 0; p < table->dim[0]; p++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * frequency[i];
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
        struct tensor target = tensor_row_range(table, p, 1);
        backend_upload(be, target.data, row, (size_t)config->head_size * sizeof *row);
    }
    free(row);
    free(frequency);
}
