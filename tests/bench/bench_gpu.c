/*
 * How fast one GPU trains, against its own ceilings, and what that takes of its memory.
 *
 *     bench_gpu [--device cuda|cpu] [--json FILE] [--seconds N] [--presets DIR] [--tiny]
 *               [--count] [CASE ...]                  all cases if none is named; exit 77: no such
 * device
 *
 * Ceilings first: a large copy and a large bf16 product. Then the cases in the order of the table
 * below, which is that of their weight: when --seconds (default 240) have passed, the rest is
 * skipped and named. Weights and tokens are random; nothing is read or written but the presets.
 *
 * The speed cases train steps of 32768 tokens at sequence 1024, in the largest micro-batch of 16,
 * 8, 4, 2, 1 rows whose plan fits the device, less 2 GiB. After two steps to warm up, five are
 * timed, then a refresh, one with the time of each phase and one operation by operation. Tokens a
 * second count refreshes at the method's interval. MFU is the plan's FLOPs of a step over its
 * median time over the measured product. The memory cases train 20 steps within a limit.
 *
 * --tiny takes a small model in small steps, so that the program can be tried on anything. --count
 * needs no device: it plans for one of 79 GiB (an H100) and counts the FLOPs and bytes that the
 * operations of a step ask for, which predict.py makes times of.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/plan.h"
#include "kernels/nvml.h"
#include "tests/bench/ceilings.h"

enum { WORD_COUNT = 12, STEPS_MAX = 20, WARMUP = 2, TIMED = 5, REFRESH_EVERY = 200 };
static const size_t spare_bytes = (size_t)2 << 30;

struct bench_case {
    const char *name;
    const char *model;  /* of presets/models */
    double limit_bytes; /* 0: a speed case */
    int64_t sequence;   /* of a memory case, one row; speed cases have 1024 */
    const char *words[WORD_COUNT];
};

#define BF16  "precision.weights=bf16", "optimizer.state=bf16", "precision.rounding=stochastic"
#define FULL  "method.name=full", BF16
#define GRASS "method.name=grass", "method.rank=128", "method.interval=200", BF16
#define GIB   1073741824.0

static const struct bench_case cases[] = {
    { "full-7b", "shape-qwen2.5-7b", 0, 0, { FULL } },
    { "grass-7b", "shape-qwen2.5-7b", 0, 0, { GRASS } },
    { "full-1.5b", "shape-qwen2.5-1.5b", 0, 0, { FULL } },
    { "grass-1.5b", "shape-qwen2.5-1.5b", 0, 0, { GRASS } },
    { "full-llama-1b", "llama-1b", 0, 0, { FULL } },
    { "grass-llama-1b", "llama-1b", 0, 0, { GRASS } },
    { "grass-13b-in-40gb", "llama-13b", 40e9, 256, { GRASS } },
    { "grass-7b-in-18gib", "llama-7b", 18 * GIB, 256, { GRASS } },
    { "grass-33b-in-80gb", "llama-33b", 80e9, 256, { GRASS } },
    { "full-0.5b", "shape-qwen2.5-0.5b", 0, 0, { FULL } },
    { "grass-0.5b", "shape-qwen2.5-0.5b", 0, 0, { GRASS } },
    { "full-3b", "shape-qwen2.5-3b", 0, 0, { FULL } },
    { "grass-3b", "shape-qwen2.5-3b", 0, 0, { GRASS } },
};
enum { CASE_COUNT = sizeof cases / sizeof cases[0] };

struct result {
    const char *state; /* "done", or why not */
    char why[512];
    int64_t rows, accumulate, sequence;
    double step_ms, least_ms, refresh_ms; /* 0: none */
    double tokens_per_second, mfu;
    double phase_ms[PHASE_COUNT];
    struct op_count family[OP_FAMILY_COUNT];
    double plan_bytes, device_peak_bytes; /* -1: unknown */
    double step_flops, refresh_flops;
    float loss;
};

struct bench {
    const char *device, *presets;
    bool tiny;
    bool count; /* on the null backend */
    double deadline_s;
    struct backend *be;
    struct nvml *nvml;              /* NULL: none */
    double copy_rate, product_rate; /* bytes and FLOPs a second */
    struct result result[CASE_COUNT];
};

/* One case under way. */
struct work {
    struct bench *bench;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct trainer *trainer;
    struct batch *batch;
    int64_t step;
    enum trainer_phase phase;
    double phase_began_s;
    bool phases;
    struct result *result;
};

/* ---- one case ------------------------------------------------------------------------------- */

static int refuse(struct work *w, const char *state, const char *why)
{
    w->result->state = state;
    snprintf(w->result->why, sizeof w->result->why, "%.500s", why);
    return -1;
}

static int set(struct recipe *recipe, const char *key, int64_t value, struct error *err)
{
    char word[64];
    snprintf(word, sizeof word, "%s=%lld", key, (long long)value);
    return recipe_set(recipe, word, err);
}

static int load_recipe(struct work *w, const struct bench_case *chosen, struct error *err)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/models/%s.json", w->bench->presets,
             w->bench->tiny ? "llama-micro" : chosen->model);
    recipe_init(&w->recipe);
    if (config_read(path, &w->config, err) != 0) {
        return -1;
    }
    for (int i = 0; i < WORD_COUNT && chosen->words[i] != NULL; i++) {
        if (recipe_set(&w->recipe, chosen->words[i], err) != 0) {
            return -1;
        }
    }
    char word[32];
    snprintf(word, sizeof word, "device=%s", w->bench->count ? "cpu" : w->bench->device);
    int64_t sequence = chosen->sequence > 0 ? chosen->sequence : 1024;
    int rc = recipe_set(&w->recipe, word, err);
    if (w->bench->tiny) {
        sequence = 16;
        rc = rc != 0 || set(&w->recipe, "method.rank", 8, err) != 0 ? -1 : 0;
    }
    return rc != 0 || set(&w->recipe, "data.sequence_length", sequence, err) != 0 ? -1 : 0;
}

/* The largest micro-batch that fits; its plan. */
static int choose_rows(struct work *w, const struct bench_case *chosen, struct error *err)
{
    double device = w->bench->count ? 79 * GIB : (double)w->bench->be->facts.memory_bytes;
    double room = device > 0.0 ? device - (double)spare_bytes : 1e30;
    int64_t tokens = w->bench->tiny ? 32 : 32768;
    int64_t rows = w->bench->tiny ? 2 : 16;
    if (chosen->limit_bytes > 0.0) {
        room = chosen->limit_bytes;
        tokens = w->recipe.data_sequence_length;
        rows = 1;
    } else if (w->bench->tiny) {
        room = 1e30;
    }
    for (; rows > 0; rows /= 2) {
        int64_t accumulate = tokens / (rows * w->recipe.data_sequence_length);
        if (set(&w->recipe, "batch.micro", rows, err) != 0 ||
            set(&w->recipe, "batch.accumulate", accumulate, err) != 0 ||
            plan_make(&w->recipe, &w->config, &w->plan, err) != 0) {
            return -1;
        }
        w->result->plan_bytes = (double)w->plan.total_bytes;
        if ((double)w->plan.total_bytes <= room) {
            return 0;
        }
    }
    char why[160];
    snprintf(why, sizeof why, "the plan takes %.2f GiB, %.2f are there",
             (double)w->plan.total_bytes / GIB, room / GIB);
    return refuse(w, "does not fit", why);
}

static void fill_batch(struct batch *batch, int64_t vocabulary, uint32_t state)
{
    for (int64_t i = 0; i < batch->rows * batch->sequence; i++) {
        state = state * 1664525u + 1013904223u;
        batch->ids[i] = (int32_t)((state >> 8) % (uint32_t)vocabulary);
        state = state * 1664525u + 1013904223u;
        batch->targets[i] = (int32_t)((state >> 8) % (uint32_t)vocabulary);
        batch->positions[i] = (int32_t)(i % batch->sequence);
        batch->starts[i] = 0;
    }
    batch->trained_tokens = batch->rows * batch->sequence;
}

static void look_at_memory(struct work *w)
{
    struct nvml_sample sample;
    if (w->bench->nvml != NULL) {
        nvml_sample(w->bench->nvml, &sample);
        w->result->device_peak_bytes =
            fmax(w->result->device_peak_bytes, (double)sample.used_bytes);
    }
}

/* The next step, or step number `at` if that is not 0; its time in ms, or -1. */
static double step(struct work *w, int64_t at, struct error *err)
{
    struct step_result result;
    w->step = at > 0 ? at : w->step + 1;
    double began = clock_monotonic();
    if (trainer_step(w->trainer, w->step, w->batch, w->recipe.batch_accumulate, &result, err) !=
            0 ||
        backend_sync(w->bench->be) != 0) {
        return -1.0;
    }
    double took = 1e3 * (clock_monotonic() - began);
    w->result->loss = result.loss;
    look_at_memory(w);
    return took;
}

static void on_phase(void *context, enum trainer_phase phase)
{
    struct work *w = context;
    if (!w->phases) {
        return;
    }
    backend_sync(w->bench->be);
    double now = clock_monotonic();
    w->result->phase_ms[w->phase] += 1e3 * (now - w->phase_began_s);
    w->phase = phase;
    w->phase_began_s = now;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times `count` steps after `warmup`. */
static int time_steps(struct work *w, int64_t warmup, int64_t count, struct error *err)
{
    double ms[STEPS_MAX];
    for (int64_t i = -warmup; i < count; i++) {
        double took = step(w, 0, err);
        if (took < 0.0) {
            return -1;
        }
        ms[i < 0 ? 0 : i] = took;
    }
    qsort(ms, (size_t)count, sizeof *ms, compare);
    w->result->step_ms = 0.5 * (ms[(count - 1) / 2] + ms[count / 2]);
    w->result->least_ms = ms[0];
    return 0;
}

/* A refresh, phases, families: each of them a step. */
static int look_inside(struct work *w, struct error *err)
{
    bool selects = w->plan.refresh_flops > 0.0;
    if (selects && (w->result->refresh_ms = step(w, REFRESH_EVERY + 1, err)) < 0.0) {
        return -1;
    }
    w->phases = true;
    w->phase = PHASE_IDLE;
    w->phase_began_s = clock_monotonic();
    double phased = step(w, 0, err);
    on_phase(w, PHASE_IDLE);
    w->phases = false;
    backend_clear_counts(w->bench->be);
    w->bench->be->timing = true;
    double timed = step(w, 0, err);
    w->bench->be->timing = false;
    memcpy(w->result->family, w->bench->be->count, sizeof w->result->family);
    return phased < 0.0 || timed < 0.0 ? -1 : 0;
}

/* Two steps on the null backend, of which the second, that refreshes nothing, is counted. */
static int count_step(struct work *w, struct error *err)
{
    if (step(w, 1, err) < 0.0) {
        return -1;
    }
    backend_clear_counts(w->bench->be);
    if (step(w, 2, err) < 0.0) {
        return -1;
    }
    memcpy(w->result->family, w->bench->be->count, sizeof w->result->family);
    w->result->state = "counted";
    return 0;
}

static int run_case(struct work *w, const struct bench_case *chosen, struct error *err)
{
    struct result *r = w->result;
    if (load_recipe(w, chosen, err) != 0) {
        return -1;
    }
    if (choose_rows(w, chosen, err) != 0) {
        return -1;
    }
    r->rows = w->recipe.batch_micro;
    r->accumulate = w->recipe.batch_accumulate;
    r->sequence = w->recipe.data_sequence_length;
    r->step_flops = w->plan.step_flops;
    r->refresh_flops = w->plan.refresh_flops;
    w->batch = calloc((size_t)r->accumulate, sizeof *w->batch);
    for (int64_t i = 0; w->batch != NULL && i < r->accumulate; i++) {
        if (batch_init(&w->batch[i], r->rows, r->sequence, err) != 0) {
            return -1;
        }
        fill_batch(&w->batch[i], w->config.vocabulary, (uint32_t)i + 1);
    }
    struct trainer_options options = { .recipe = &w->recipe,
                                       .config = &w->config,
                                       .be = w->bench->be,
                                       .capacity = w->plan.bytes,
                                       .on_phase = on_phase,
                                       .context = w };
    if (w->bench->count) {
        options.capacity = NULL;
    }
    w->trainer = trainer_open(&options, err);
    if (w->trainer != NULL && w->bench->count) {
        return count_step(w, err);
    }
    bool limited = chosen->limit_bytes > 0.0;
    int64_t warmup = limited || w->bench->tiny ? 1 : WARMUP;
    int64_t timed = w->bench->tiny ? 2 : limited ? 19 : TIMED;
    if (w->trainer == NULL || time_steps(w, warmup, timed, err) != 0 ||
        (!limited && look_inside(w, err) != 0)) {
        return -1;
    }
    double tokens = (double)(r->rows * r->accumulate * r->sequence);
    double more = r->refresh_ms > r->step_ms ? r->refresh_ms - r->step_ms : 0.0;
    r->tokens_per_second = 1e3 * tokens / (r->step_ms + more / REFRESH_EVERY);
    r->mfu = w->bench->product_rate > 0.0
                 ? r->step_flops / (1e-3 * r->step_ms) / w->bench->product_rate
                 : 0.0;
    r->state = "done";
    return 0;
}

static void do_case(struct bench *bench, const struct bench_case *chosen, struct result *result)
{
    struct error err = { 0 };
    struct work w = { .bench = bench, .result = result };
    *result = (struct result){ .plan_bytes = -1.0, .device_peak_bytes = -1.0 };
    if (clock_monotonic() > bench->deadline_s) {
        refuse(&w, "skipped", "no time was left");
        return;
    }
    if (run_case(&w, chosen, &err) != 0 && result->state == NULL) {
        refuse(&w, "failed", err.message[0] != '\0' ? err.message : bench->be->error);
    }
    trainer_close(w.trainer);
    for (int64_t i = 0; w.batch != NULL && i < w.recipe.batch_accumulate; i++) {
        batch_free(&w.batch[i]);
    }
    free(w.batch);
    recipe_free(&w.recipe);
}

/* ---- telling -------------------------------------------------------------------------------- */

static void print_case(const struct bench_case *chosen, const struct result *r)
{
    if (strcmp(r->state, "counted") == 0) {
        printf("%-18s %lld x %lld x %lld  plan %6.2f GiB (%.0f bytes)\n", chosen->name,
               (long long)r->accumulate, (long long)r->rows, (long long)r->sequence,
               r->plan_bytes / GIB, r->plan_bytes);
        return;
    }
    if (strcmp(r->state, "done") != 0) {
        printf("%-18s %s: %s\n", chosen->name, r->state, r->why);
        return;
    }
    printf("%-18s %8.1f ms  %8.0f tok/s  MFU %4.1f%%  %lld x %lld x %lld  plan %6.2f GiB",
           chosen->name, r->step_ms, r->tokens_per_second, 100.0 * r->mfu, (long long)r->accumulate,
           (long long)r->rows, (long long)r->sequence, r->plan_bytes / GIB);
    if (r->device_peak_bytes >= 0.0) {
        printf(", device %6.2f GiB", r->device_peak_bytes / GIB);
    }
    printf("\n");
    double all = 0.0;
    for (int i = 0; i < OP_FAMILY_COUNT; i++) {
        all += r->family[i].seconds;
    }
    if (all <= 0.0) {
        return;
    }
    printf("  forward %.1f  backward %.1f  update %.1f  refresh step %.1f ms\n ",
           r->phase_ms[PHASE_FORWARD], r->phase_ms[PHASE_BACKWARD], r->phase_ms[PHASE_UPDATE],
           r->refresh_ms);
    for (int i = 0; i < OP_FAMILY_COUNT; i++) {
        if (r->family[i].calls > 0) {
            printf(" %s %.1f%%", op_family_name((enum op_family)i),
                   100.0 * r->family[i].seconds / all);
        }
    }
    printf("\n");
}

static void json_number(FILE *file, const char *key, double value)
{
    if (isfinite(value) && value >= 0.0) {
        fprintf(file, ", \"%s\": %.10g", key, value);
    }
}

static void json_case(FILE *file, const struct bench_case *chosen, const struct result *r)
{
    fprintf(file, "{\"case\": \"%s\", \"model\": \"%s\", \"state\": \"%s\"", chosen->name,
            chosen->model, r->state);
    if (r->why[0] != '\0') {
        /* The sentences are our own: no quotes to escape, but for names of files. */
        fprintf(file, ", \"why\": \"");
        for (const char *c = r->why; *c != '\0'; c++) {
            fputc(*c == '"' || *c == '\\' || (unsigned char)*c < ' ' ? '\'' : *c, file);
        }
        fputc('"', file);
    }
    const struct {
        const char *key;
        double value;
    } numbers[] = { { "rows", (double)r->rows },
                    { "accumulate", (double)r->accumulate },
                    { "sequence", (double)r->sequence },
                    { "step_ms", r->step_ms },
                    { "least_ms", r->least_ms },
                    { "refresh_ms", r->refresh_ms },
                    { "tokens_per_second", r->tokens_per_second },
                    { "mfu", r->mfu },
                    { "step_flops", r->step_flops },
                    { "limit_bytes", chosen->limit_bytes },
                    { "plan_bytes", r->plan_bytes },
                    { "device_peak_bytes", r->device_peak_bytes },
                    { "loss", (double)r->loss } };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_number(file, numbers[i].key, numbers[i].value);
    }
    fprintf(file, ", \"phase_ms\": {\"forward\": %.4f, \"backward\": %.4f, \"update\": %.4f}",
            r->phase_ms[PHASE_FORWARD], r->phase_ms[PHASE_BACKWARD], r->phase_ms[PHASE_UPDATE]);
    fprintf(file, ", \"families\": {");
    for (int i = 0, shown = 0; i < OP_FAMILY_COUNT; i++) {
        const struct op_count *c = &r->family[i];
        if (c->calls > 0) {
            fprintf(file,
                    "%s\"%s\": {\"calls\": %lld, \"ms\": %.4f, \"flops\": %.6g, \"bytes\": %.6g}",
                    shown++ > 0 ? ", " : "", op_family_name((enum op_family)i), (long long)c->calls,
                    1e3 * c->seconds, c->flops, c->bytes);
        }
    }
    fprintf(file, "}}");
}

static int write_json(const struct bench *b, const char *path, const bool *chosen)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        fprintf(stderr, "bench_gpu: %s cannot be written\n", path);
        return -1;
    }
    fprintf(file, "{\"device\": \"%s\"", b->be->facts.device);
    json_number(file, "copy_bytes_per_second", b->copy_rate);
    json_number(file, "product_flops_per_second", b->product_rate);
    fprintf(file, ", \"cases\": [");
    for (int i = 0, shown = 0; i < CASE_COUNT; i++) {
        if (chosen[i]) {
            fprintf(file, "%s\n  ", shown++ > 0 ? "," : "");
            json_case(file, &cases[i], &b->result[i]);
        }
    }
    fprintf(file, "\n]}\n");
    return fclose(file) == 0 ? 0 : -1;
}

/* ---- main ----------------------------------------------------------------------------------- */

static int open_bench(struct bench *b)
{
    char why[256];
    b->be = backend_open(b->device, 0, why, sizeof why);
    if (b->be == NULL) {
        printf("bench_gpu: %s\n", why);
        return 77;
    }
    b->nvml = b->be->facts.bus_id[0] != '\0' ? nvml_open(NULL, why, sizeof why) : NULL;
    if (b->nvml != NULL && nvml_choose(b->nvml, b->be->facts.bus_id, why, sizeof why) != 0) {
        nvml_close(b->nvml);
        b->nvml = NULL;
    }
    if (b->count) {
        return 0;
    }
    b->product_rate = measure_ceiling(b->be, b->tiny ? 64 : 8192, true);
    b->copy_rate = measure_ceiling(b->be, b->tiny ? 64 : 16384, false);
    printf("%s: bf16 product %.1f TFLOP/s, copy %.2f TB/s (read + written)\n", b->be->facts.device,
           1e-12 * b->product_rate, 1e-12 * b->copy_rate);
    return 0;
}

static bool choose(bool *chosen, int count, char **names)
{
    for (int i = 0; i < CASE_COUNT; i++) {
        chosen[i] = count == 0;
    }
    for (int k = 0; k < count; k++) {
        bool found = false;
        for (int i = 0; i < CASE_COUNT; i++) {
            if (strcmp(names[k], cases[i].name) == 0) {
                chosen[i] = found = true;
            }
        }
        if (!found) {
            fprintf(stderr, "bench_gpu: there is no case %s\n", names[k]);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    bool chosen[CASE_COUNT];
    const char *json = NULL;
    double seconds = 240.0;
    int at = 1;
    bench = (struct bench){ .device = "cuda", .presets = PRESETS };
    for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        const char *word = argv[at];
        const char *value = at + 1 < argc ? argv[at + 1] : "";
        bool tiny = strcmp(word, "--tiny") == 0;
        bool count = strcmp(word, "--count") == 0;
        bench.tiny = bench.tiny || tiny;
        bench.count = bench.count || count;
        at += tiny || count ? 0 : 1;
        if (strcmp(word, "--device") == 0) {
            bench.device = value;
        } else if (strcmp(word, "--json") == 0) {
            json = value;
        } else if (strcmp(word, "--seconds") == 0) {
            seconds = strtod(value, NULL);
        } else if (strcmp(word, "--presets") == 0) {
            bench.presets = value;
        } else if (!tiny && !count) {
            fprintf(stderr, "bench_gpu: %s is unknown\n", word);
            return 2;
        }
    }
    bench.device = bench.count ? "null" : bench.device;
    at = at > argc ? argc : at;
    if (!choose(chosen, argc - at, argv + at)) {
        return 2;
    }
    bench.deadline_s = clock_monotonic() + seconds;
    int rc = open_bench(&bench);
    for (int i = 0; rc == 0 && i < CASE_COUNT; i++) {
        if (chosen[i]) {
            do_case(&bench, &cases[i], &bench.result[i]);
            print_case(&cases[i], &bench.result[i]);
            fflush(stdout);
        }
    }
    bool failed = false;
    for (int i = 0; rc == 0 && i < CASE_COUNT; i++) {
        failed = failed || (chosen[i] && strcmp(bench.result[i].state, "failed") == 0);
    }
    if (rc == 0 && json != NULL && write_json(&bench, json, chosen) != 0) {
        failed = true;
    }
    nvml_close(bench.nvml);
    if (bench.be != NULL) {
        backend_close(bench.be);
    }
    return rc != 0 ? rc : failed ? 1 : 0;
}
