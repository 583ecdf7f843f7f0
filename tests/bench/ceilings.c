/* A large product and a large copy, ten times each; the first prepares itself. */
#include "tests/bench/ceilings.h"

#include "engine/base/clock.h"
#include "kernels/ops.h"

static double time_once(struct backend *be, struct tensor *t, bool product)
{
    double began = clock_monotonic();
    if (product) {
        op_matmul(be, &(struct matmul){ .c = &t[0], .a = &t[1], .b = &t[2], .transpose_b = true });
    } else {
        op_copy(be, &t[0], &t[1]);
    }
    backend_sync(be);
    return clock_monotonic() - began;
}

double measure_ceiling(struct backend *be, int64_t side, bool product)
{
    struct tensor t[3];
    size_t bytes = (size_t)(side * side) * 2;
    bool room = true;
    double best = 0.0;
    for (int i = 0; i < 3; i++) {
        t[i] = (struct tensor){ .data = backend_alloc(be, bytes),
                                .dim = { side, side, 1, 1 },
                                .rank = 2,
                                .dtype = DTYPE_BF16,
                                .name = "ceiling" };
        room = room && t[i].data != NULL;
    }
    for (int i = 1; room && i < 3; i++) {
        op_random_normal(be, &t[i], 1.0f, (struct random_key){ .purpose = RANDOM_TEST });
    }
    for (int i = 0; room && i < 10; i++) {
        double took = time_once(be, t, product);
        best = i > 0 && (best <= 0.0 || took < best) ? took : best;
    }
    for (int i = 0; i < 3; i++) {
        if (t[i].data != NULL) {
            backend_free(be, t[i].data, bytes);
        }
    }
    double cells = (double)side * (double)side;
    return best > 0.0 ? (product ? 2.0 * cells * (double)side : 4.0 * cells) / best : 0.0;
}
