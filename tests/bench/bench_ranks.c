/*
 * The model of what ranks exchange against ranks that do: windrow plan --gpus N --link asks for a
 * latency and bytes a second, here both are measured, and then steps are.
 *
 *     mpirun -np 2 bench_ranks [STEPS]        timed steps of each kind (12)
 *     WINDROW_RENDEZVOUS=... WINDROW_RANKS=2 WINDROW_RANK=0 (and 1) bench_ranks [STEPS]
 *
 * The link is that of the processor's ranks: sums of 4 bytes tell the latency of a hop, sums of
 * 16 MiB the bytes a second (both the median of many). Then every rank trains alone, all at the
 * same time, and with the others, by turns; a step together is predicted to take the step alone and
 * what plan_exchange_seconds says of the link, less what plan_hidden_seconds says of the backward
 * that was measured. A rank that trains alone updates all weights, together each updates its share
 * of those whose states are split. No refresh is among the timed steps. Exit 77: there are no ranks
 * (one was started alone, or mpirun did and there is no module for MPI).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/comm/comm.h"
#include "engine/comm/world.h"
#include "engine/dataset.h"
#include "engine/plan.h"
#include "tests/llama.h"

enum { WARMUP = 2, STEPS_MAX = 200, ROWS = 1, LENGTH = 64, SMALL_SUMS = 400, LARGE_SUMS = 15 };
enum { LARGE_COUNT = 4 << 20 }; /* floats */

static const struct model_config config = { LLAMA_REST,
                                            .hidden_size = 512,
                                            .intermediate_size = 1376,
                                            .layers = 4,
                                            .heads = 8,
                                            .kv_heads = 8,
                                            .head_size = 64,
                                            .vocabulary = 4096,
                                            .max_positions = LENGTH,
                                            .initializer_range = 0.02 };

static void check(int rc, const struct error *err)
{
    if (rc != 0) {
        fprintf(stderr, "bench_ranks: %s\n", err->message);
        exit(1);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *seconds, size_t count)
{
    qsort(seconds, count, sizeof *seconds, ascending);
    return seconds[count / 2];
}

static double time_sums(struct comm *comm, struct backend *be, struct tensor *tensor, int count)
{
    double seconds[SMALL_SUMS];
    struct error err = { 0 };
    for (int i = 0; i < count; i++) {
        double began = clock_monotonic();
        comm_all_reduce(comm, be, tensor);
        seconds[i] = clock_monotonic() - began;
    }
    check(comm_check(comm, &err), &err);
    return median(seconds, (size_t)count);
}

static struct link measure_link(struct comm *comm, struct backend *be)
{
    float *data = calloc(LARGE_COUNT, sizeof *data);
    struct tensor tensor = {
        .data = data, .dim = { 1, 1, 1, 1 }, .rank = 1, .dtype = DTYPE_F32, .name = "numbers"
    };
    double ranks = comm->ranks;
    struct link link = { .name = "measured", .words = "ranks of this processor" };
    time_sums(comm, be, &tensor, SMALL_SUMS / 4);
    link.latency_seconds = time_sums(comm, be, &tensor, SMALL_SUMS) / (2.0 * (ranks - 1.0));
    tensor.dim[0] = LARGE_COUNT;
    time_sums(comm, be, &tensor, 2);
    double wire = 2.0 * (ranks - 1.0) / ranks * (double)tensor_bytes(&tensor);
    link.bytes = wire / time_sums(comm, be, &tensor, LARGE_SUMS);
    free(data);
    return link;
}

static void make_recipe(struct recipe *recipe, const char *const *more)
{
    static const char *const words[] = {
        "model.init=random", "precision.weights=fp32", "data.sequence_length=64",
        "batch.micro=1",     "batch.accumulate=1",     "method.interval=100000",
        "device=cpu"
    };
    struct error err = { 0 };
    recipe_init(recipe);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        check(recipe_set(recipe, words[i], &err), &err);
    }
    for (; *more != NULL; more++) {
        check(recipe_set(recipe, *more, &err), &err);
    }
}

static void fill(struct batch *batch, int rank)
{
    struct error err = { 0 };
    check(batch_init(batch, ROWS, LENGTH, &err), &err);
    for (int32_t i = 0; i < ROWS * LENGTH; i++) {
        batch->ids[i] = (i + rank) * 7919 % 4096;
        batch->targets[i] = (i + rank + 1) * 7919 % 4096;
        batch->positions[i] = i % LENGTH;
        batch->starts[i] = 0;
    }
    batch->whole = true;
    batch->trained_tokens = ROWS * LENGTH;
}

static struct trainer *open_trainer(const struct recipe *recipe, struct comm *comm,
                                    struct backend *be)
{
    struct plan plan;
    struct error err = { 0 };
    check(plan_make_ranks(recipe, &config, comm->ranks, &plan, &err), &err);
    struct trainer *trainer = trainer_open(
        &(struct trainer_options){
            .recipe = recipe, .config = &config, .be = be, .comm = comm, .capacity = plan.bytes },
        &err);
    check(trainer == NULL ? -1 : 0, &err);
    return trainer;
}

/* Seconds of a trainer alone and of one with the others, by turns, so that what else the machine
 * does hits both alike. All ranks begin each at the same time. */
struct times {
    double alone, backward; /* of which in the backward */
    double together;
};

static struct times time_steps(const struct recipe *recipe, struct comm *comm, struct backend *be,
                               int steps)
{
    double seconds[2][STEPS_MAX];
    double backward[STEPS_MAX];
    struct batch batch;
    struct error err = { 0 };
    struct comm *single = comm_open_single();
    struct trainer *trainer[2] = { open_trainer(recipe, single, be),
                                   open_trainer(recipe, comm, be) };
    fill(&batch, comm->rank);
    for (int i = 0; i < WARMUP + steps; i++) {
        for (int t = 0; t < 2; t++) {
            struct step_result result;
            comm_sum_count(comm, 1);
            double began = clock_monotonic();
            check(trainer_step(trainer[t], i + 1, &batch, 1, &result, &err), &err);
            if (i >= WARMUP) {
                seconds[t][i - WARMUP] = clock_monotonic() - began;
            }
            if (i >= WARMUP && t == 0) {
                backward[i - WARMUP] = result.phase_ms[PHASE_BACKWARD] * 1e-3;
            }
        }
    }
    trainer_close(trainer[0]);
    trainer_close(trainer[1]);
    comm_close(single);
    batch_free(&batch);
    return (struct times){ .alone = median(seconds[0], (size_t)steps),
                           .backward = median(backward, (size_t)steps),
                           .together = median(seconds[1], (size_t)steps) };
}

static void bench(const char *name, const char *const *words, struct comm *comm, struct backend *be,
                  const struct link *link, int steps)
{
    struct recipe recipe;
    struct plan plan;
    struct error err = { 0 };
    make_recipe(&recipe, words);
    check(plan_make_ranks(&recipe, &config, comm->ranks, &plan, &err), &err);
    plan.refresh_wire_bytes = 0.0; /* none is timed */
    plan.refresh_hops = 0.0;
    struct times times = time_steps(&recipe, comm, be, steps);
    double exchange = plan_exchange_seconds(&plan, &recipe, link);
    double hidden = plan_hidden_seconds(&plan, times.backward, link);
    double predicted = times.alone + exchange - hidden;
    if (comm->rank == 0) {
        printf("| %-18s | %7.2f | %8.1f | %10.1f | %8.1f | %10.1f | %8.1f | %+5.0f %% |\n", name,
               plan.step_payload_bytes / 1e6, times.alone * 1e3, exchange * 1e3, hidden * 1e3,
               predicted * 1e3, times.together * 1e3, 100.0 * (predicted / times.together - 1.0));
    }
    recipe_free(&recipe);
}

int main(int argc, char **argv)
{
    char why[256] = "";
    char *end = NULL;
    long steps = argc > 1 ? strtol(argv[1], &end, 10) : 12;
    if (steps < 1 || steps > STEPS_MAX || (end != NULL && *end != '\0')) {
        fprintf(stderr, "bench_ranks: steps from 1 to %d\n", STEPS_MAX);
        return 2;
    }
    struct error err = { 0 };
    struct comm *comm = world_open(NULL, NULL, &err);
    if (comm == NULL) {
        fprintf(stderr, "bench_ranks: %s\n", err.message);
        return 77;
    }
    if (comm->ranks == 1) {
        fprintf(stderr,
                "bench_ranks: one rank exchanges nothing (mpirun -np 2, or WINDROW_RANKS)\n");
        comm_close(comm);
        return 77;
    }
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    if (be == NULL) {
        fprintf(stderr, "bench_ranks: %s\n", why);
        return 1;
    }
    struct link link = measure_link(comm, be);
    if (comm->rank == 0) {
        printf("%d ranks: %.2f GB/s, %.1f us a hop\n\n", comm->ranks, link.bytes / 1e9,
               link.latency_seconds * 1e6);
        printf("| ms a step          | MB sum  | alone    | exchange   | hidden   | predicted  | "
               "measured | error   |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
    }
    bench("full", (const char *const[]){ "method.name=full", NULL }, comm, be, &link, (int)steps);
    bench("grass, rank 64", (const char *const[]){ "method.name=grass", "method.rank=64", NULL },
          comm, be, &link, (int)steps);
    bench("grass, rank 16", (const char *const[]){ "method.name=grass", "method.rank=16", NULL },
          comm, be, &link, (int)steps);
    bench("lora, rank 8", (const char *const[]){ "method.name=lora", "method.rank=8", NULL }, comm,
          be, &link, (int)steps);
    backend_close(be);
    comm_close(comm);
    return 0;
}
