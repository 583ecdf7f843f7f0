/*
 * What it costs to let activations leave: the same steps with all of them kept, in host memory, and
 * on a disk.
 *
 *     bench_offload [DIRECTORY] [LAYERS]       of the file (.); blocks (16)
 *
 * A LLaMA of hidden size 256 on micro-batches of 4 x 256 random tokens, blocks recomputed. The
 * three trainers take their steps by turns, so that what else the machine does hits all alike;
 * medians and the least are given. Before, the plan predicts the same figures (windrow plan
 * --measure); at the end one step is drawn as it went: what computed and what the disk did, over
 * time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/store.h"
#include "engine/base/clock.h"
#include "engine/dataset.h"
#include "engine/plan.h"
#include "tests/llama.h"

enum { WARMUP = 1, STEPS = 5, ROWS = 4, LENGTH = 256, COLUMNS = 96, EVENTS_MAX = 4096 };

static const char *const places[] = { "none", "host", "ssd" };
enum { PLACES = sizeof places / sizeof places[0] };

struct mark {
    enum store_work work;
    double begin, end;
};

struct trial {
    struct recipe recipe;
    struct plan plan;
    struct store *store; /* NULL: nothing leaves */
    struct trainer *trainer;
    double seconds[STEPS];
    struct store_counts counts; /* of the timed steps */
    /* Of the last step: what the store did, and when the phases began. */
    struct mark mark[EVENTS_MAX];
    int marks;
    struct mark phase[EVENTS_MAX]; /* `work` is the phase */
    int phases;
};

static void stop(const char *message)
{
    fprintf(stderr, "bench_offload: %s\n", message);
    exit(1);
}

static void check(int rc, const struct error *err)
{
    if (rc == -1) {
        stop(err->message);
    }
}

static void on_trace(void *context, enum store_work work, int64_t span, double begin, double end)
{
    struct trial *t = context;
    (void)span;
    if (t->marks < EVENTS_MAX) {
        t->mark[t->marks++] = (struct mark){ work, begin, end };
    }
}

static void on_phase(void *context, enum trainer_phase phase)
{
    struct trial *t = context;
    double now = clock_monotonic();
    if (t->phases > 0) {
        t->phase[t->phases - 1].end = now;
    }
    if (t->phases < EVENTS_MAX) {
        t->phase[t->phases++] = (struct mark){ (enum store_work)phase, now, now };
    }
}

static struct model_config make_config(int64_t layers)
{
    return (struct model_config){ LLAMA_REST,
                                  .hidden_size = 256,
                                  .intermediate_size = 688,
                                  .layers = layers,
                                  .heads = 8,
                                  .kv_heads = 8,
                                  .head_size = 32,
                                  .vocabulary = 2048,
                                  .max_positions = LENGTH,
                                  .initializer_range = 0.02 };
}

static void make_recipe(struct recipe *recipe, const char *place, const char *directory)
{
    char offload[64];
    char where[512];
    const char *const words[] = { "model.init=random",
                                  "method.name=full",
                                  "precision.weights=fp32",
                                  "data.sequence_length=256",
                                  "batch.micro=4",
                                  "activation.recompute=block",
                                  "activation.resident=0",
                                  "device=cpu",
                                  offload,
                                  where };
    struct error err = { 0 };
    snprintf(offload, sizeof offload, "activation.offload=%s", place);
    snprintf(where, sizeof where, "activation.offload_dir=%s", directory);
    recipe_init(recipe);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        check(recipe_set(recipe, words[i], &err), &err);
    }
}

static void open_trial(struct trial *t, const char *place, const char *directory, int64_t layers,
                       struct backend *be)
{
    struct error err = { 0 };
    struct model_config config = make_config(layers);
    make_recipe(&t->recipe, place, directory);
    check(plan_make(&t->recipe, &config, &t->plan, &err), &err);
    if (t->plan.offload_spans > 0) {
        bool ssd = strcmp(place, "ssd") == 0;
        t->store = store_open(&(struct store_options){ .kind = ssd ? STORE_SSD : STORE_HOST,
                                                       .be = be,
                                                       .directory = directory,
                                                       .span_bytes = t->plan.offload_span_bytes,
                                                       .spans = t->plan.offload_spans,
                                                       .trace = on_trace,
                                                       .trace_context = t },
                              &err);
        check(t->store == NULL ? -1 : 0, &err);
    }
    t->trainer = trainer_open(&(struct trainer_options){ .recipe = &t->recipe,
                                                         .config = &config,
                                                         .be = be,
                                                         .capacity = t->plan.bytes,
                                                         .store = t->store,
                                                         .on_phase = on_phase,
                                                         .context = t },
                              &err);
    check(t->trainer == NULL ? -1 : 0, &err);
}

static void fill(struct batch *batch)
{
    struct error err = { 0 };
    check(batch_init(batch, ROWS, LENGTH, &err), &err);
    for (int32_t i = 0; i < ROWS * LENGTH; i++) {
        batch->ids[i] = i * 7919 % 2048;
        batch->targets[i] = (i + 1) * 7919 % 2048;
        batch->positions[i] = i % LENGTH;
        batch->starts[i] = 0;
    }
    batch->whole = true;
    batch->trained_tokens = ROWS * LENGTH;
}

static void take_step(struct trial *t, const struct batch *batch, int number)
{
    struct error err = { 0 };
    struct step_result result;
    struct store_counts before = { 0 };
    t->marks = 0;
    t->phases = 0;
    if (t->store != NULL) {
        store_count(t->store, &before);
    }
    double began = clock_monotonic();
    check(trainer_step(t->trainer, number + 1, batch, 1, &result, &err), &err);
    if (number >= WARMUP) {
        t->seconds[number - WARMUP] = clock_monotonic() - began;
    }
    if (t->store != NULL && number >= WARMUP) {
        struct store_counts after;
        store_count(t->store, &after);
        t->counts.written_bytes += after.written_bytes - before.written_bytes;
        t->counts.read_bytes += after.read_bytes - before.read_bytes;
        t->counts.stall_seconds += after.stall_seconds - before.stall_seconds;
        t->counts.write_seconds += after.write_seconds - before.write_seconds;
        t->counts.read_seconds += after.read_seconds - before.read_seconds;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(struct trial *t)
{
    qsort(t->seconds, STEPS, sizeof t->seconds[0], ascending);
    return t->seconds[STEPS / 2];
}

static void draw(char row[COLUMNS + 1], const struct mark *m, double begin, double scale, char c)
{
    int first = (int)((m->begin - begin) * scale);
    int last = (int)((m->end - begin) * scale);
    for (int i = first < 0 ? 0 : first; i <= last && i < COLUMNS; i++) {
        row[i] = c;
    }
}

/* One step as it went. */
static void print_timeline(const struct trial *t)
{
    char row[4][COLUMNS + 1];
    static const char *const names[4] = { "computes", "waits", "writes", "reads" };
    double begin = t->phase[0].begin;
    double end = t->phase[t->phases - 1].begin;
    double scale = COLUMNS / (end - begin);
    memset(row, ' ', sizeof row);
    for (int i = 0; i + 1 < t->phases; i++) {
        static const char letters[PHASE_COUNT] = { [PHASE_FORWARD] = 'f',
                                                   [PHASE_BACKWARD] = 'b',
                                                   [PHASE_REFRESH] = 'r',
                                                   [PHASE_UPDATE] = 'u' };
        char c = letters[(int)t->phase[i].work];
        draw(row[0], &t->phase[i], begin, scale, c != '\0' ? c : ' ');
    }
    for (int i = 0; i < t->marks; i++) {
        const struct mark *m = &t->mark[i];
        if (m->work == STORE_STALL || m->work == STORE_WRITE || m->work == STORE_READ) {
            int which = m->work == STORE_STALL ? 1 : m->work == STORE_WRITE ? 2 : 3;
            draw(row[which], m, begin, scale, which == 1 ? '!' : '#');
        }
    }
    printf("one step of %.0f ms (f forward, b backward, u update):\n", 1e3 * (end - begin));
    for (int i = 0; i < 4; i++) {
        row[i][COLUMNS] = '\0';
        printf("%9s |%s|\n", names[i], row[i]);
    }
}

static void print_prediction(const struct trial *t, const struct model_config *config,
                             struct backend *be, const char *directory, double measured)
{
    struct error err = { 0 };
    struct plan_measured p;
    check(plan_measure(&t->recipe, config, &t->plan, be, directory, &p, &err), &err);
    printf("%s, predicted: %.1f ms a step (%+.0f %% of the measured), x %.3f, %.1f ms waiting, "
           "%.1f ms copying, %.1f MB out and %.1f MB in a step",
           t->recipe.activation_offload, 1e3 * p.offloaded_seconds,
           100.0 * (p.offloaded_seconds / measured - 1.0), p.offloaded_seconds / p.step_seconds,
           1e3 * p.stall_seconds, 1e3 * p.copy_seconds, p.written_bytes / 1e6, p.read_bytes / 1e6);
    if (p.write_rate > 0.0) {
        printf("; the disk: %.0f MB/s out, %.0f MB/s in", p.write_rate / 1e6, p.read_rate / 1e6);
    }
    printf("\n");
}

static void print_depths(const char *directory)
{
    struct error err = { 0 };
    static const int64_t depths[] = { 8, 16, 32, 64 };
    for (int i = 0; i < PLACES; i++) {
        printf("activations planned with offload=%-4s at 8, 16, 32, 64 blocks:", places[i]);
        for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++) {
            struct recipe recipe;
            static struct plan plan;
            struct model_config config = make_config(depths[d]);
            make_recipe(&recipe, places[i], directory);
            check(plan_make(&recipe, &config, &plan, &err), &err);
            printf(" %.1f", (double)plan.bytes[MEMORY_ACTIVATIONS] / 1e6);
            recipe_free(&recipe);
        }
        printf(" MB\n");
    }
}

int main(int count, char **words)
{
    const char *directory = count > 1 ? words[1] : ".";
    int64_t layers = count > 2 ? strtol(words[2], NULL, 10) : 16;
    static struct trial trial[PLACES];
    struct batch batch;
    char why[256];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    if (be == NULL || layers < 5) {
        stop(be == NULL ? why : "LAYERS is at least 5");
    }
    struct model_config config = make_config(layers);
    fill(&batch);
    for (int i = 0; i < PLACES; i++) {
        open_trial(&trial[i], places[i], directory, layers, be);
    }
    for (int step = 0; step < WARMUP + STEPS; step++) {
        for (int i = 0; i < PLACES; i++) {
            take_step(&trial[(i + step) % PLACES], &batch, step);
        }
    }
    double plain = median(&trial[0]);
    for (int i = 0; i < PLACES; i++) {
        struct trial *t = &trial[i];
        double seconds = median(t);
        printf("%-4s %.1f ms a step (x %.3f), least %.1f, peak of activations %.1f MB, %.1f ms "
               "waiting, "
               "%.1f MB out and %.1f MB in a step%s%s\n",
               places[i], 1e3 * seconds, seconds / plain, 1e3 * t->seconds[0],
               (double)memory_peak(trainer_memory(t->trainer), MEMORY_ACTIVATIONS) / 1e6,
               1e3 * t->counts.stall_seconds / STEPS, (double)t->counts.written_bytes / 1e6 / STEPS,
               (double)t->counts.read_bytes / 1e6 / STEPS, t->store != NULL ? ", " : "",
               t->store != NULL ? store_how(t->store) : "");
    }
    for (int i = 0; i < PLACES; i++) {
        print_prediction(&trial[i], &config, be, directory, trial[i].seconds[STEPS / 2]);
    }
    print_depths(directory);
    print_timeline(&trial[PLACES - 1]);
    for (int i = 0; i < PLACES; i++) {
        trainer_close(trial[i].trainer);
        store_close(trial[i].store);
        recipe_free(&trial[i].recipe);
    }
    batch_free(&batch);
    backend_close(be);
    return 0;
}
