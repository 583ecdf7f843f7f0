/* Operations of a model's forward and backward pass in double (attention apart). */
#include <math.h>

#include "gpu/reference.h"

void reference_matmul(struct backend *be, const struct matmul *args)
{
    (void)be;
    int64_t m = tensor_rows(args->c);
    int64_t n = tensor_columns(args->c);
    int64_t k = args->transpose_b ? tensor_columns(args->b) : tensor_rows(args->b);
    int64_t wide = tensor_columns(args->a);
    const double *a = numbers_of(args->a) + (args->a_columns > 0 ? args->a_first : 0);
    const double *b = numbers_of(args->b);
    for (int64_t at = 0; at < m * n; at++) {
        int64_t i = at / n;
        int64_t j = at % n;
        double sum = args->beta != 0.0f     ? numbers_of(args->c)[at]
                     : args->addend != NULL ? numbers_of(args->addend)[at]
                                            : 0.0;
        for (int64_t l = 0; l < k; l++) {
            double x = args->transpose_a ? a[l * wide + i] : a[i * wide + l];
            sum += x * (args->transpose_b ? b[j * k + l] : b[l * n + j]);
        }
        numbers_of(args->c)[at] = sum;
    }
}

/* Columns of `result` that an operation stores a second time: no more exact than the result is. */
static void capture(const struct capture *capture, const struct tensor *result)
{
    if (capture == NULL) {
        return;
    }
    int64_t slots = tensor_count(capture->index);
    capture->out->dtype = result->dtype == DTYPE_BF16 ? DTYPE_BF16 : capture->out->dtype;
    for (int64_t row = 0; row < tensor_rows(result); row++) {
        for (int64_t j = 0; j < slots; j++) {
            int64_t chosen = (int64_t)numbers_of(capture->index)[j];
            const double *from = numbers_of(result) + row * tensor_columns(result);
            numbers_of(capture->out)[row * slots + j] = chosen < 0 ? 0.0 : from[chosen];
        }
    }
}

/* ---- norms and rope -------------------------------------------------------------------------- */

void reference_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args)
{
    (void)be;
    int64_t columns = tensor_columns(args->x);
    for (int64_t row = 0; row < tensor_rows(args->x); row++) {
        const double *x = numbers_of(args->x) + row * columns;
        double sum = 0.0;
        for (int64_t i = 0; i < columns; i++) {
            sum += x[i] * x[i];
        }
        double rstd = 1.0 / sqrt(sum / (double)columns + (double)args->eps);
        numbers_of(args->rstd)[row] = rstd;
        for (int64_t i = 0; i < columns; i++) {
            numbers_of(args->y)[row * columns + i] = x[i] * rstd * numbers_of(args->weight)[i];
        }
    }
}

void reference_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args)
{
    (void)be;
    int64_t columns = tensor_columns(args->x);
    const double *weight = numbers_of(args->weight);
    for (int64_t row = 0; row < tensor_rows(args->x); row++) {
        const double *x = numbers_of(args->x) + row * columns;
        const double *dy = numbers_of(args->dy) + row * columns;
        double *dx = numbers_of(args->dx) + row * columns;
        double rstd = numbers_of(args->rstd)[row];
        double mean = 0.0;
        for (int64_t i = 0; i < columns; i++) {
            mean += dy[i] * weight[i] * x[i] / (double)columns;
        }
        for (int64_t i = 0; i < columns; i++) {
            dx[i] += rstd * (dy[i] * weight[i] - x[i] * rstd * rstd * mean);
            if (args->dweight != NULL) {
                numbers_of(args->dweight)[i] += dy[i] * x[i] * rstd;
            }
        }
    }
    capture(args->capture, args->dx);
}

void reference_rope(struct backend *be, const struct rope *args)
{
    (void)be;
    int64_t half = args->head_size / 2;
    int64_t width = tensor_columns(args->x);
    for (int64_t row = 0; row < tensor_rows(args->x); row++) {
        int64_t position = (int64_t)numbers_of(args->positions)[row];
        const double *cosines = numbers_of(args->table) + position * args->head_size;
        for (int64_t pair = 0; pair < args->heads * half; pair++) {
            int64_t i = pair % half;
            double *x = numbers_of(args->x) + row * width + pair / half * args->head_size + i;
            double c = cosines[i];
            double s = args->inverse ? -cosines[half + i] : cosines[half + i];
            double a = x[0];
            double b = x[half];
            x[0] = a * c - b * s;
            x[half] = b * c + a * s;
        }
    }
    capture(args->capture, args->x);
}

/* ---- feed-forward, embedding, loss ----------------------------------------------------------- */

void reference_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up)
{
    (void)be;
    int64_t size = tensor_columns(y);
    for (int64_t at = 0; at < tensor_count(y); at++) {
        const double *row = numbers_of(gate_up) + at / size * 2 * size;
        double gate = row[at % size];
        numbers_of(y)[at] = gate / (1.0 + exp(-gate)) * row[size + at % size];
    }
}

void reference_swiglu_backward(struct backend *be, const struct swiglu_backward *args)
{
    (void)be;
    int64_t size = tensor_columns(args->dy);
    for (int64_t at = 0; at < tensor_count(args->dy); at++) {
        int64_t i = at / size * 2 * size + at % size;
        double dy = numbers_of(args->dy)[at];
        double gate = numbers_of(args->gate_up)[i];
        double up = numbers_of(args->gate_up)[i + size];
        double s = 1.0 / (1.0 + exp(-gate));
        numbers_of(args->dgate_up)[i] = dy * up * s * (1.0 + gate * (1.0 - s));
        numbers_of(args->dgate_up)[i + size] = dy * gate * s;
    }
    capture(args->capture, args->dgate_up);
}

void reference_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                                 const struct tensor *ids)
{
    (void)be;
    int64_t columns = tensor_columns(y);
    for (int64_t at = 0; at < tensor_count(y); at++) {
        int64_t row = (int64_t)numbers_of(ids)[at / columns];
        numbers_of(y)[at] = numbers_of(table)[row * columns + at % columns];
    }
}

void reference_embedding_backward(struct backend *be, struct tensor *dtable,
                                  const struct tensor *dy, const struct tensor *ids)
{
    (void)be;
    int64_t columns = tensor_columns(dy);
    for (int64_t at = 0; at < tensor_count(dy); at++) {
        int64_t row = (int64_t)numbers_of(ids)[at / columns];
        numbers_of(dtable)[row * columns + at % columns] += numbers_of(dy)[at];
    }
}

void reference_distinct(struct backend *be, const struct distinct *args)
{
    (void)be;
    int64_t tokens = tensor_count(args->ids);
    int64_t slot = 0;
    for (int64_t word = 0; word < tensor_count(args->room); word++) {
        numbers_of(args->room)[word] = -1.0;
        for (int64_t t = 0; t < tokens; t++) {
            if ((int64_t)numbers_of(args->ids)[t] == word) {
                numbers_of(args->room)[word] = (double)slot;
                numbers_of(args->slots)[t] = (double)slot;
            }
        }
        if (numbers_of(args->room)[word] >= 0.0) {
            numbers_of(args->index)[slot++] = (double)word;
        }
    }
    for (; slot < tensor_count(args->index); slot++) {
        numbers_of(args->index)[slot] = -1.0;
    }
}

void reference_cross_entropy(struct backend *be, const struct cross_entropy *args)
{
    (void)be;
    int64_t words = tensor_columns(args->logits);
    double factor = (double)args->scale * (args->factor != NULL ? numbers_of(args->factor)[0] : 1);
    for (int64_t row = 0; row < tensor_rows(args->logits); row++) {
        double *x = numbers_of(args->logits) + row * words;
        int64_t target = (int64_t)numbers_of(args->targets)[row];
        double most = x[0];
        double sum = 0.0;
        for (int64_t i = 1; i < words; i++) {
            most = fmax(most, x[i]);
        }
        for (int64_t i = 0; i < words; i++) {
            sum += exp(x[i] - most);
        }
        numbers_of(args->losses)[row] = target < 0 ? 0.0 : log(sum) + most - x[target];
        for (int64_t i = 0; i < words && args->gradient; i++) {
            double p = exp(x[i] - most) / sum - (i == target ? 1.0 : 0.0);
            x[i] = target < 0 ? 0.0 : factor * p;
        }
    }
}
