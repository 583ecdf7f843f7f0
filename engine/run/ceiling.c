/*
 * The fastest matrix product that this device does: what model FLOPs utilisation is measured
 * against. A peak from a data sheet would need a table of processors and would flatter none of
 * them.
 */
#include "engine/base/clock.h"
#include "engine/run/parts.h"
#include "kernels/ops.h"

enum { SIDE_FIRST = 64, SIDE_HOST = 512, SIDE_DEVICE = 8192, REPEATS = 4 };
/* A product that takes this long has no beginning or end to speak of. */
static const double long_s = 1.5e-3;

/* Seconds of the fastest product of two (side, side) matrices; 0: there was no room. */
static double time_product(struct backend *be, int64_t side, enum dtype dtype)
{
    size_t bytes = (size_t)(side * side) * dtype_size(dtype);
    struct tensor t[3];
    double best_s = 0.0;
    for (int i = 0; i < 3; i++) {
        t[i] = (struct tensor){ .data = backend_alloc(be, bytes),
                                .dim = { side, side, 1, 1 },
                                .rank = 2,
                                .dtype = dtype,
                                .name = "ceiling" };
    }
    bool room = t[0].data != NULL && t[1].data != NULL && t[2].data != NULL;
    for (int i = 1; room && i < 3; i++) {
        op_random_normal(be, &t[i], 1.0f, (struct random_key){ .purpose = RANDOM_TEST });
    }
    for (int i = 0; room && i < REPEATS; i++) {
        double began = clock_monotonic();
        op_matmul(be, &(struct matmul){ .c = &t[0], .a = &t[1], .b = &t[2], .transpose_b = true });
        backend_sync(be);
        double took = clock_monotonic() - began;
        /* The first product prepares itself. */
        best_s = i > 0 && took > 0.0 && (best_s <= 0.0 || took < best_s) ? took : best_s;
    }
    for (int i = 0; i < 3; i++) {
        if (t[i].data != NULL) {
            backend_free(be, t[i].data, bytes);
        }
    }
    return best_s;
}

double run_measure_ceiling(struct backend *be, enum dtype dtype)
{
    double best = 0.0;
    double took = 0.0;
    int64_t limit = be->facts.host_accessible ? SIDE_HOST : SIDE_DEVICE;
    for (int64_t side = SIDE_FIRST; side <= limit && took < long_s; side *= 2) {
        took = time_product(be, side, dtype);
        double cube = (double)side * (double)side * (double)side;
        double flops = took > 0.0 ? 2.0 * cube / took : 0.0;
        best = flops > best ? flops : best;
        if (took <= 0.0) {
            break;
        }
    }
    backend_set_scratch(be, NULL, NULL); /* what the products worked in goes back */
    return best;
}
