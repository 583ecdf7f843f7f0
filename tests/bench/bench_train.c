/*
 * How fast a training step is, and where its time goes.
 *
 *     bench_train [--json] [--steps N] [CASE ...]      all cases if none is named
 *
 * The model of the cases full-*, grass-* is a LLaMA of 4 blocks, hidden size 256, 8 heads, feed
 * forward 688, vocabulary 2048, on micro-batches of 8 x 256 random tokens; bench_train.py trains
 * the same one with PyTorch. The case stories is the recipe of that name, on random tokens too.
 *
 * Of N steps (default 20) after three to warm up, the median, the smallest and the mean are given,
 * and the median of those that refresh a selection. Then as many steps again are timed operation by
 * operation for the shares. With --json: one object a case and line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/plan.h"

enum { WARMUP_STEPS = 3, WORD_COUNT = 12, STEPS_MAX = 1000 };

static const char model_json[] =
    "{ \"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
    "\"hidden_act\": \"silu\", \"hidden_size\": 256, \"intermediate_size\": 688, "
    "\"num_hidden_layers\": 4, \"num_attention_heads\": 8, \"num_key_value_heads\": 8, "
    "\"vocab_size\": 2048, \"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-5, "
    "\"rope_theta\": 10000.0, \"initializer_range\": 0.02, \"tie_word_embeddings\": false, "
    "\"attention_bias\": false, \"mlp_bias\": false, \"bos_token_id\": 1, \"eos_token_id\": 2 }";

struct bench_case {
    const char *name;
    const char *recipe; /* below presets/, or NULL: the defaults */
    const char *model;  /* below presets/, or NULL: model_json */
    const char *words[WORD_COUNT];
};

#define SHAPE "batch.micro=8", "data.sequence_length=256", "optimizer.weight_decay=0.01"
#define BF16  "precision.weights=bf16", "optimizer.state=bf16", "precision.rounding=stochastic"
#define GRASS "method.name=grass", "method.rank=64", "method.interval=200"

static const struct bench_case cases[] = {
    { "full-fp32", NULL, NULL, { SHAPE, "method.name=full", "precision.weights=fp32" } },
    { "full-bf16", NULL, NULL, { SHAPE, "method.name=full", BF16 } },
    { "grass-fp32", NULL, NULL, { SHAPE, GRASS, "precision.weights=fp32" } },
    { "grass-bf16", NULL, NULL, { SHAPE, GRASS, BF16 } },
    { "stories", "recipes/stories.json", "models/llama-tiny.json", { NULL } },
};

struct bench {
    const struct bench_case *chosen;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct backend *be;
    struct trainer *trainer;
    struct batch batch;
    int64_t step;
};

struct figures {
    double median_ms, least_ms, mean_ms;
    double refresh_ms; /* 0: no step refreshed */
    int64_t refresh_count;
};

static void stop(const struct error *err)
{
    fprintf(stderr, "bench_train: %s\n", err->message);
    exit(1);
}

static int find_config(const struct bench_case *chosen, struct model_config *config,
                       struct error *err)
{
    if (chosen->model != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", PRESETS, chosen->model);
        return config_read(path, config, err);
    }
    cJSON *json = json_parse(model_json, sizeof model_json - 1, "model", 1, err);
    int rc = json == NULL ? -1 : config_parse("model", json, config, err);
    cJSON_Delete(json);
    return rc;
}

static int find_recipe(const struct bench_case *chosen, struct recipe *recipe, struct error *err)
{
    recipe_init(recipe);
    if (chosen->recipe != NULL) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", PRESETS, chosen->recipe);
        if (recipe_load(recipe, path, err) != 0) {
            return -1;
        }
    }
    for (int i = 0; i < WORD_COUNT && chosen->words[i] != NULL; i++) {
        if (recipe_set(recipe, chosen->words[i], err) != 0) {
            return -1;
        }
    }
    return recipe_set(recipe, "device=cpu", err);
}

static void fill_batch(struct bench *b)
{
    uint32_t state = 1;
    for (int64_t i = 0; i < b->batch.rows * b->batch.sequence; i++) {
        state = state * 1664525u + 1013904223u;
        b->batch.ids[i] = (int32_t)((state >> 8) % (uint32_t)b->config.vocabulary);
        state = state * 1664525u + 1013904223u;
        b->batch.targets[i] = (int32_t)((state >> 8) % (uint32_t)b->config.vocabulary);
        b->batch.positions[i] = (int32_t)(i % b->batch.sequence);
        b->batch.starts[i] = 0;
    }
    b->batch.trained_tokens = b->batch.rows * b->batch.sequence;
}

static void bench_open(struct bench *b, const struct bench_case *chosen)
{
    struct error err = { 0 };
    char why[256];
    *b = (struct bench){ .chosen = chosen };
    if (find_config(chosen, &b->config, &err) != 0 || find_recipe(chosen, &b->recipe, &err) != 0 ||
        plan_make(&b->recipe, &b->config, &b->plan, &err) != 0 ||
        batch_init(&b->batch, b->recipe.batch_micro, b->recipe.data_sequence_length, &err) != 0) {
        stop(&err);
    }
    b->be = backend_open("cpu", 0, why, sizeof why);
    if (b->be == NULL) {
        fprintf(stderr, "bench_train: %s\n", why);
        exit(1);
    }
    struct trainer_options options = {
        .recipe = &b->recipe, .config = &b->config, .be = b->be, .capacity = b->plan.bytes
    };
    b->trainer = trainer_open(&options, &err);
    if (b->trainer == NULL) {
        stop(&err);
    }
    fill_batch(b);
}

static void bench_close(struct bench *b)
{
    trainer_close(b->trainer);
    backend_close(b->be);
    batch_free(&b->batch);
    recipe_free(&b->recipe);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t count)
{
    if (count == 0) {
        return 0.0;
    }
    qsort(values, (size_t)count, sizeof *values, compare);
    return 0.5 * (values[(count - 1) / 2] + values[count / 2]);
}

static struct figures run(struct bench *b, int64_t steps)
{
    double all[STEPS_MAX] = { 0 };
    double refresh[STEPS_MAX];
    struct figures f = { 0 };
    double total = 0.0;
    for (int64_t i = 0; i < steps; i++) {
        struct error err = { 0 };
        struct step_result result;
        double start = clock_monotonic();
        if (trainer_step(b->trainer, ++b->step, &b->batch, 1, &result, &err) != 0) {
            stop(&err);
        }
        all[i] = 1e3 * (clock_monotonic() - start);
        total += all[i];
        if (result.refreshed) {
            refresh[f.refresh_count++] = all[i];
        }
    }
    f.mean_ms = total / (double)steps;
    f.median_ms = median(all, steps);
    f.least_ms = all[0];
    f.refresh_ms = median(refresh, f.refresh_count);
    return f;
}

static int64_t positions(const struct bench *b)
{
    return b->batch.rows * b->batch.sequence;
}

static void print_json(const struct bench *b, const struct figures *f, int64_t steps)
{
    double tokens = 1e3 * (double)positions(b);
    printf("{\"case\":\"%s\",\"device\":\"%s\",\"threads\":%d,\"steps\":%lld,"
           "\"step_ms\":%.3f,\"least_ms\":%.3f,\"mean_ms\":%.3f,\"refresh_ms\":%.3f,"
           "\"tokens_per_second\":%.1f,\"gflops\":%.2f",
           b->chosen->name, b->be->facts.device, b->be->facts.threads, (long long)steps,
           f->median_ms, f->least_ms, f->mean_ms, f->refresh_ms, tokens / f->median_ms,
           1e-6 * b->plan.step_flops / f->median_ms);
    printf(",\"families\":{");
    for (int i = 0, shown = 0; i < OP_FAMILY_COUNT; i++) {
        const struct op_count *c = &b->be->count[i];
        if (c->calls > 0) {
            printf("%s\"%s\":{\"calls\":%.1f,\"ms\":%.4f,\"gflop\":%.4f,\"megabytes\":%.3f}",
                   shown++ > 0 ? "," : "", op_family_name((enum op_family)i),
                   (double)c->calls / (double)steps, 1e3 * c->seconds / (double)steps,
                   1e-9 * c->flops / (double)steps, 1e-6 * c->bytes / (double)steps);
        }
    }
    printf("},\"peak_bytes\":{");
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        printf("%s\"%s\":%zu", c > 0 ? "," : "", memory_category_names[c],
               memory_peak(trainer_memory(b->trainer), (enum memory_category)c));
    }
    printf("}}\n");
}

static void print_table(const struct bench *b, const struct figures *f, int64_t steps)
{
    struct op_count all = backend_total(b->be);
    printf("%s, %s\n", b->chosen->name, b->be->facts.device);
    printf("  step %.1f ms (least %.1f, mean %.1f", f->median_ms, f->least_ms, f->mean_ms);
    if (f->refresh_count > 0) {
        printf("; refresh %.1f", f->refresh_ms);
    }
    printf("), %.0f tokens/s, %.1f GFLOP/s\n", 1e3 * (double)positions(b) / f->median_ms,
           1e-6 * b->plan.step_flops / f->median_ms);
    printf("  %-12s %7s %9s %6s %9s %9s\n", "operations", "calls", "ms", "share", "GFLOP/s",
           "GB/s");
    for (int i = 0; i < OP_FAMILY_COUNT; i++) {
        const struct op_count *c = &b->be->count[i];
        if (c->calls > 0) {
            printf("  %-12s %7.1f %9.3f %5.1f%% %9.2f %9.2f\n", op_family_name((enum op_family)i),
                   (double)c->calls / (double)steps, 1e3 * c->seconds / (double)steps,
                   100.0 * c->seconds / all.seconds, 1e-9 * c->flops / c->seconds,
                   1e-9 * c->bytes / c->seconds);
        }
    }
    printf("  peak MiB:");
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        size_t bytes = memory_peak(trainer_memory(b->trainer), (enum memory_category)c);
        printf(" %s %.1f", memory_category_names[c], (double)bytes / 1048576.0);
    }
    printf("\n\n");
}

static void bench_one(const struct bench_case *chosen, int64_t steps, bool json)
{
    struct bench b;
    bench_open(&b, chosen);
    (void)run(&b, WARMUP_STEPS);
    struct figures f = run(&b, steps);
    backend_clear_counts(b.be);
    b.be->timing = true;
    (void)run(&b, steps);
    if (json) {
        print_json(&b, &f, steps);
    } else {
        print_table(&b, &f, steps);
    }
    fflush(stdout);
    bench_close(&b);
}

static bool wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    bool json = false;
    int64_t steps = 20;
    int at = 1;
    for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[at], "--steps") == 0 && at + 1 < argc) {
            steps = strtol(argv[++at], NULL, 10);
        }
    }
    if (steps < 1 || steps > STEPS_MAX) {
        fprintf(stderr, "bench_train: --steps takes 1 to %d\n", STEPS_MAX);
        return 2;
    }
    setenv("WINDROW_PRESETS", PRESETS, 0);
    bool found = false;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (wanted(cases[i].name, argc - at, argv + at)) {
            found = true;
            bench_one(&cases[i], steps, json);
        }
    }
    if (!found) {
        fprintf(stderr, "bench_train: no case of that name; there are full-fp32, full-bf16, "
                        "grass-fp32, grass-bf16 and stories\n");
        return 2;
    }
    return 0;
}
