/* The place of offloaded activations: opened before the first step, and how much stays beside. */
#include <stdlib.h>
#include <string.h>

#include "engine/activation/offload.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run/parts.h"

/* A step reaches about this share of the fastest product. */
static const double EFFICIENCY = 0.6;

/* The most that is written to measure a disk. */
enum { MEASURE_BYTES_MAX = 32 << 20 };

/* Beside the runs, or where the run will be: the file has no name, so nothing is seen of it. */
static char *offload_directory(const struct run *run)
{
    const char *given = run->recipe.activation_offload_dir;
    const char *directory = run->options->directory;
    if (given[0] != '\0') {
        return xstrdup(given);
    }
    if (run->resuming) {
        return xstrdup(run->directory.path);
    }
    if (directory == NULL) {
        return run_root();
    }
    const char *base = path_base(directory);
    return file_is_directory(directory) ? xstrdup(directory)
           : base == directory          ? xstrdup(".")
                                        : xstrndup(directory, (size_t)(base - directory));
}

/* How many blocks stay, from the bandwidth of the place and the speed of the device. */
static int measure_resident(struct run *run, const char *directory, int64_t *stay,
                            struct error *err)
{
    const struct plan *plan = &run->plan;
    int64_t layers = run->material.config.layers;
    size_t bytes = plan->offload_span_bytes;
    struct store_rates rates;
    if (strcmp(run->recipe.activation_offload, "ssd") == 0 && bytes > 0 &&
        run->ceiling_flops > 0.0) {
        if (store_measure(directory, bytes < MEASURE_BYTES_MAX ? bytes : MEASURE_BYTES_MAX, &rates,
                          err) != 0) {
            return -1;
        }
        double rate = rates.write < rates.read ? rates.write : rates.read;
        double micro_s = plan->step_flops / (double)run->recipe.batch_accumulate /
                         (EFFICIENCY * run->ceiling_flops);
        *stay = offload_resident(layers, (double)bytes, micro_s / 3.0 / (double)layers, rate);
        run_notice(run, "%s moves %.0f MB/s: the activations of %lld of %lld blocks stay",
                   text_show(directory).text, rate / 1e6, (long long)*stay, (long long)layers);
    }
    return 0;
}

/* Rank 0 decides how many blocks stay, the same on all ranks, and all plan anew: the run remembers
 * it as any other setting. */
static int choose_resident(struct run *run, const char *directory, struct error *err)
{
    int64_t stay = 0;
    int result = run_follows(run) ? 0 : measure_resident(run, directory, &stay, err);
    if (run_agree(run, result, err) != 0) {
        return -1;
    }
    comm_broadcast_bytes(run->comm, "the blocks that stay", &stay, sizeof stay);
    if (comm_check(run->comm, err) != 0) {
        return -1;
    }
    run->recipe.activation_resident = stay;
    run->effective.activation_resident = stay;
    if (plan_make_ranks(&run->effective, &run->material.config, run->comm->ranks, &run->plan,
                        err) != 0) {
        return -1;
    }
    return plan_check(&run->plan, &run->effective, &run->material.config, run->limit_bytes, err);
}

int run_open_store(struct run *run, struct error *err)
{
    if (strcmp(run->recipe.activation_offload, "none") == 0) {
        return 0;
    }
    char *directory = offload_directory(run);
    int result = 0;
    if (run->recipe.activation_offload_dir[0] == '\0' && !file_exists(directory)) {
        result = file_make_directories(directory, err);
    }
    if (result == 0 && run->recipe.activation_resident < 0) {
        result = choose_resident(run, directory, err);
    }
    if (result == 0 && run->plan.offload_spans > 0) {
        bool ssd = strcmp(run->recipe.activation_offload, "ssd") == 0;
        run->store = store_open(&(struct store_options){ .kind = ssd ? STORE_SSD : STORE_HOST,
                                                         .be = run->be,
                                                         .directory = directory,
                                                         .span_bytes = run->plan.offload_span_bytes,
                                                         .spans = run->plan.offload_spans },
                                err);
        result = run->store != NULL ? 0 : -1;
        if (result == 0 && ssd) {
            run_notice(run, "activations of %lld blocks go to %s (%s)",
                       (long long)run->plan.offload_spans, text_show(directory).text,
                       store_how(run->store));
        }
    }
    free(directory);
    return result;
}

void run_report_offload(struct run *run, struct event_step *step)
{
    struct store_counts now;
    if (run->store == NULL) {
        return;
    }
    store_count(run->store, &now);
    step->offload_written_bytes = now.written_bytes - run->offloaded.written_bytes;
    step->offload_read_bytes = now.read_bytes - run->offloaded.read_bytes;
    step->offload_stall_ms = 1e3 * (now.stall_seconds - run->offloaded.stall_seconds);
    run->offloaded = now;
}
