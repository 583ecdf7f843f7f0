/*
 * The lane for others' libraries on the emulated device: what is asked of it comes after the
 * operations before and before those after, whether streams run as early or as late as they may;
 * and nothing is recorded with it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/ops.h"
#include "kernels/transfer.h"

void simt_queue(void *stream, void (*run)(void *), const void *state, size_t bytes);

enum { COUNT = 3 };

static int wrong;

static void expect(bool good, const char *what)
{
    if (!good) {
        printf("%s\n", what);
        wrong = 1;
    }
}

/* The work of the library: adds ten. */
static void add_ten(void *state)
{
    float *data = *(float **)state;
    for (int i = 0; i < COUNT; i++) {
        data[i] += 10.0f;
    }
}

struct part {
    struct backend *be;
    struct tensor *x;
    int refused;
};

static void ask(struct backend *be, struct tensor *x)
{
    void *stream = NULL;
    expect(backend_lane_begin(be, &stream), "the lane was refused");
    simt_queue(stream, add_ten, &x->data, sizeof x->data);
    backend_lane_end(be);
}

static void record(void *context)
{
    struct part *part = context;
    void *stream = NULL;
    if (backend_lane_begin(part->be, &stream)) {
        simt_queue(stream, add_ten, &part->x->data, sizeof part->x->data);
        backend_lane_end(part->be);
    } else {
        part->refused++;
    }
    op_scale(part->be, part->x, 2.0f);
}

static void check_order(const char *feeds)
{
    char why[256];
    float numbers[COUNT] = { 1.0f, 2.0f, 3.0f };
    setenv("SIMT_FEEDS", feeds, 1);
    struct backend *be = backend_open("cuda", 0, why, sizeof why);
    if (be == NULL) {
        printf("%s\n", why);
        exit(1);
    }
    struct tensor x = { .data = backend_alloc(be, sizeof numbers),
                        .rank = 1,
                        .dim = { COUNT, 1, 1, 1 } };
    backend_upload(be, x.data, numbers, sizeof numbers);
    expect(backend_lane_idle(be), "an unused lane is not idle");
    op_scale(be, &x, 2.0f);
    ask(be, &x);
    ask(be, &x);
    op_scale(be, &x, 3.0f);
    backend_download(be, numbers, x.data, sizeof numbers);
    for (int i = 0; i < COUNT; i++) {
        expect(numbers[i] == (2.0f * (float)(i + 1) + 20.0f) * 3.0f, "not in the order asked");
    }
    expect(backend_lane_idle(be), "a lane that is done is not idle");
    struct part part = { .be = be, .x = &x };
    for (int i = 0; i < 3; i++) { /* of which one is tried to be recorded */
        backend_replay(be, 0, 1, record, &part);
    }
    backend_download(be, numbers, x.data, sizeof numbers);
    expect(part.refused > 0, "a lane was recorded");
    float y = 66.0f;
    for (int i = 0; i < 3; i++) {
        y = (y + 10.0f) * 2.0f;
    }
    expect(numbers[0] == y, "a part with a lane is not what it was");
    backend_free(be, x.data, sizeof numbers);
    backend_close(be);
}

int main(void)
{
    check_order("late");
    check_order("eager");
    return wrong;
}
