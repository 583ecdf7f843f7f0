/* A made-up run. */
#include "recording.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

#define MIB 1048576

static const char recipe[] =
    "{\"method\":{\"name\":\"grass\",\"rank\":32,\"interval\":50,\"selection\":\"top\",\"scale\":1}"
    ","
    "\"optimizer\":{\"lr\":0.001,\"weight_decay\":0.01},"
    "\"train\":{\"clip\":1,\"eval_every\":100,\"save_every\":400,\"sample_every\":200}}";

/* A number in [0, 1) from two integers. */
static double noise(int64_t a, int64_t b)
{
    uint64_t x = (uint64_t)a * 0x9e3779b97f4a7c15u + (uint64_t)b * 0xbf58476d1ce4e5b9u + 1;
    x ^= x >> 31;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 29;
    return (double)(x >> 11) / 9007199254740992.0;
}

struct player {
    const struct recording *recording;
    void (*take)(void *context, const struct event *event);
    void *context;
};

static void begin(struct event *event, enum event_kind kind, int64_t step)
{
    event_init(event, kind);
    event->time = 1795252262.0 + 0.5 * (double)(step > 0 ? step : 0);
    event->step = step > 0 ? step : EVENT_UNKNOWN;
}

static void send(const struct player *player, struct event *event)
{
    player->take(player->context, event);
    event_free(event);
}

static void play_start(const struct player *player)
{
    struct event event;
    begin(&event, EVENT_START, 0);
    event.start.run = xstrdup("1121-1141-grass");
    event.start.recipe_json = xstrdup(recipe);
    event.start.model_name = xstrdup("llama-9m");
    event.start.family = xstrdup("llama");
    event.start.data_name = xstrdup("meadow");
    event.start.device = xstrdup("cpu, 2 threads");
    event.start.version = xstrdup("0.1.0");
    event.start.parameters = event.start.trained_parameters = 9438720;
    event.start.layers = player->recording->layers;
    event.start.total_steps = player->recording->total;
    event.start.pid = 4711;
    event.start.ranks = player->recording->ranks > 0 ? player->recording->ranks : EVENT_UNKNOWN;
    send(player, &event);
}

static void plan_bytes(int64_t bytes[MEMORY_CATEGORY_COUNT])
{
    static const int64_t mib[MEMORY_CATEGORY_COUNT] = { 36, 7, 21, 58, 12 };
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        bytes[i] = mib[i] * MIB;
    }
}

static void play_plan(const struct player *player)
{
    static const char *const phases[] = { "forward", "backward", "refresh", "update", "evaluate" };
    struct event event;
    begin(&event, EVENT_PLAN, 0);
    plan_bytes(event.plan.planned_bytes);
    event.plan.total_bytes = 134 * (int64_t)MIB;
    event.plan.peak_bytes = 130 * (int64_t)MIB;
    event.plan.limit_bytes = 8192 * (int64_t)MIB;
    event.plan.step_flops = 2.1e10;
    event.plan.refresh_flops = 2.9e10;
    event.plan.checkpoint_bytes = 60 * (int64_t)MIB;
    event.plan.phase_count = 5;
    for (int i = 0; i < 5; i++) {
        snprintf(event.plan.phase[i].name, sizeof(event.plan.phase[i].name), "%s", phases[i]);
        plan_bytes(event.plan.phase[i].bytes);
        event.plan.phase[i].bytes[MEMORY_ACTIVATIONS] = (58 - 11 * i) * (int64_t)MIB;
        event.plan.phase[i].bytes[MEMORY_WORKSPACE] = (i == 2 ? 12 : 5) * (int64_t)MIB;
    }
    event.plan.largest_count = 3;
    for (int i = 0; i < 3; i++) {
        struct memory_record *record = &event.plan.largest[i];
        snprintf(record->name, sizeof(record->name), "model.layers.%d.mlp.down_proj.weight", i);
        record->category = MEMORY_WEIGHTS;
        record->rank = 2;
        record->dim[0] = 256;
        record->dim[1] = 4096 * (4 - i) / 4;
        record->bytes = (size_t)(4 - i) * MIB;
    }
    send(player, &event);
}

static void play_step(const struct player *player, int64_t step)
{
    struct event event;
    begin(&event, EVENT_STEP, step);
    struct event_step *done = &event.step_done;
    double loss = 2.1 + 6.4 * exp(-(double)step / 90) + 0.35 * (noise(step, 1) - 0.5);
    done->loss = (float)loss;
    done->grad_norm = (float)(0.8 + noise(step, 2));
    done->learning_rate = step < 300 ? 1e-3 : 5e-4;
    done->tokens = 2048;
    done->tokens_total = 2048 * step;
    done->refreshed = step % 50 == 1;
    done->step_ms = 480 + 60 * noise(step, 3) + (done->refreshed ? 120 : 0);
    done->tokens_per_second = 2048e3 / done->step_ms;
    done->forward_ms = 150;
    done->backward_ms = 270;
    done->update_ms = 40;
    done->refresh_ms = done->refreshed ? 120 : 0;
    done->rank = 32;
    done->mfu = 0.31;
    if (player->recording->ranks > 1) {
        done->backward_ms = 150;
        done->exchange_ms = 120;
        done->exchanged_bytes = 9 * (int64_t)MIB;
    }
    done->skipped = false;
    if (step == 321) {
        done->loss = NAN;
        done->skipped = true;
        done->reason = xstrdup("the loss is not finite");
    }
    send(player, &event);
}

static void play_memory(const struct player *player, int64_t step)
{
    struct event event;
    begin(&event, EVENT_MEMORY, step);
    plan_bytes(event.memory.planned_bytes);
    plan_bytes(event.memory.bytes);
    plan_bytes(event.memory.peak_bytes);
    event.memory.bytes[MEMORY_ACTIVATIONS] = 0;
    event.memory.device_used_bytes = EVENT_UNKNOWN;
    event.memory.host_bytes = 311 * (int64_t)MIB;
    send(player, &event);
}

/* Of a device or, without one, of the process. */
static void play_telemetry(const struct player *player, int64_t step)
{
    struct event event;
    begin(&event, EVENT_TELEMETRY, step);
    event.telemetry.host_bytes = 311 * (int64_t)MIB;
    event.telemetry.cpu_percent = 187;
    if (player->recording->gpu) {
        event.telemetry.gpu_util = 97;
        event.telemetry.power_w = 412.5;
        event.telemetry.temperature_c = 61;
        event.telemetry.clock_mhz = 1980;
        event.telemetry.device_used_bytes = 812 * (int64_t)MIB;
        event.telemetry.device_total_bytes = 81559 * (int64_t)MIB;
    }
    send(player, &event);
}

/* Of the ranks the third, or else the last one is slow, and waits less than the others. */
static void play_ranks(const struct player *player, int64_t step)
{
    int count = player->recording->ranks;
    struct event event;
    begin(&event, EVENT_RANKS, step);
    event.ranks.steps = 2;
    event.ranks.slowest = count > 2 ? 2 : count - 1;
    event.ranks.count = count;
    event.ranks.item = xcalloc((size_t)count, sizeof(*event.ranks.item));
    for (int p = 0; p < count; p++) {
        struct event_rank *rank = &event.ranks.item[p];
        bool slow = p == event.ranks.slowest;
        event_rank_init(rank);
        snprintf(rank->host, sizeof(rank->host), "mower-%d", 1 + p / 8);
        snprintf(rank->device, sizeof(rank->device), "%s",
                 player->recording->gpu ? "NVIDIA H100 80GB HBM3" : "cpu, 2 threads");
        rank->local_rank = p % 8;
        rank->step_ms = 480;
        rank->compute_ms = (slow ? 402.5 : 330 + 30 * noise(p, 7)) + 9 * noise(step, p);
        rank->wait_ms = rank->step_ms - rank->compute_ms;
        rank->exchanged_bytes = 9 * (int64_t)MIB;
        rank->bytes = (76 + p % 3) * (int64_t)MIB;
        rank->peak_bytes = (134 - p % 3) * (int64_t)MIB;
        rank->planned_bytes = (134 - p % 3) * (int64_t)MIB;
        rank->limit_bytes = 256 * (int64_t)MIB;
        rank->host_bytes = 311 * (int64_t)MIB;
        if (player->recording->gpu) {
            rank->device_used_bytes = (180 + p % 5) * (int64_t)MIB;
            rank->device_total_bytes = 256 * (int64_t)MIB;
            rank->gpu_util = 97 - p % 7;
            rank->power_w = 412.5;
            rank->temperature_c = 58 + p % 9;
        }
    }
    send(player, &event);
}

static void play_refresh(const struct player *player, int64_t step)
{
    static const char *const names[] = { "self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
                                         "mlp.gate",    "mlp.up",      "mlp.down" };
    for (int layer = 0; layer < player->recording->layers; layer++) {
        for (int kind = 0; kind < 7; kind++) {
            struct event event;
            begin(&event, EVENT_SELECTION, step);
            struct event_selection *selection = &event.selection;
            selection->tensor = xasprintf("model.layers.%d.%s_proj.weight", layer, names[kind]);
            selection->side = xstrdup("out");
            selection->rank = 32;
            selection->rows = kind < 4 ? 256 : 704;
            selection->selected = selection->rows / 8;
            double progress = (double)step / 600;
            selection->captured_energy = 0.9 - 0.05 * kind - 0.02 * layer + 0.1 * progress;
            selection->overlap = step == 1 ? (double)NAN : 0.4 + 0.4 * progress;
            selection->coverage = 0.125 + 0.7 * progress;
            selection->entropy = 4.2;
            for (int i = 0; i < EVENT_CURVE_POINTS && layer < 4; i++) {
                selection->curve[i] =
                    fmin(1, selection->captured_energy * pow(2, 0.12 * (i - 3)) + 0.02);
            }
            for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
                selection->histogram[i] = (int64_t)(3 * noise(i, kind + 7 * layer));
            }
            send(player, &event);
        }
    }
}

static void play_rest(const struct player *player, int64_t step)
{
    struct event event;
    if (step % 100 == 0) {
        begin(&event, EVENT_EVALUATION, step);
        event.evaluation.loss = (float)(2.3 + 6.2 * exp(-(double)step / 90));
        event.evaluation.perplexity = exp((double)event.evaluation.loss);
        send(player, &event);
    }
    if (step == 200) {
        begin(&event, EVENT_SAMPLE, step);
        event.sample.prompt = xstrdup("The meadow");
        event.sample.text = xstrdup("The meadow was mown in rows,\nand the rows were left to dry.");
        send(player, &event);
    }
    if (step == 299) {
        begin(&event, EVENT_SETTING, step);
        event.setting.key = xstrdup("optimizer.lr");
        event.setting.from = xstrdup("0.001");
        event.setting.to = xstrdup("0.0005");
        event.setting.effective_step = 300;
        event.setting.by = xstrdup("client 1");
        send(player, &event);
    }
    if (step == 320) {
        begin(&event, EVENT_WARNING, step);
        event.message.text = xstrdup("the disk of the run has 2.1 GiB left");
        send(player, &event);
    }
    if (step == 400) {
        begin(&event, EVENT_CHECKPOINT, step);
        event.checkpoint.path = xstrdup("checkpoints/step-000400");
        event.checkpoint.bytes = 60 * (int64_t)MIB;
        event.checkpoint.seconds = 0.4;
        event.checkpoint.best = true;
        send(player, &event);
    }
}

void recording_play(const struct recording *recording,
                    void (*take)(void *context, const struct event *event), void *context)
{
    struct player player = { recording, take, context };
    struct event event;
    play_start(&player);
    play_plan(&player);
    begin(&event, EVENT_STATE, 0);
    event.state.state = xstrdup("running");
    send(&player, &event);
    for (int64_t step = 1; step <= recording->steps; step++) {
        play_step(&player, step);
        if (step % 50 == 1) {
            play_refresh(&player, step);
        }
        if (step <= 2 || step % 50 == 1) {
            play_memory(&player, step);
        }
        if (step % 2 == 0) {
            play_telemetry(&player, step);
            if (recording->ranks > 1) {
                play_ranks(&player, step);
            }
        }
        play_rest(&player, step);
    }
    if (recording->stop) {
        begin(&event, EVENT_STOP, recording->steps);
        event.stop.reason = xstrdup("done");
        event.stop.status = 0;
        event.stop.steps = recording->steps;
        event.stop.loss = 2.1f;
        send(&player, &event);
    }
}

static void feed(void *context, const struct event *event)
{
    struct workbench_event record = { .kind = WORKBENCH_RECORD, .record = event };
    workbench_event(context, &record);
}

void recording_feed(struct workbench *workbench, const struct recording *recording)
{
    workbench_show_run(workbench, "1121-1141-grass", CONNECTION_LIVE);
    recording_play(recording, feed, workbench);
}

static char *long_name(char letter)
{
    char *name = xmalloc(260);
    memset(name, letter, 259);
    snprintf(name + 200, 60, "\x1b]0;owned\x07\xe2\x80\xae\xf0\x9f\x8c\xbe\xff\x9b[2J");
    return name;
}

void recording_feed_hostile(struct workbench *workbench)
{
    static const float losses[] = { NAN, INFINITY, -INFINITY, 0, 1e30f, -4, 3 };
    struct recording small = { .steps = 60, .total = 10, .layers = 126 };
    recording_feed(workbench, &small);
    struct event event;
    for (int kind = 0; kind < EVENT_KIND_COUNT; kind++) {
        begin(&event, (enum event_kind)kind, 61);
        feed(workbench, &event); /* every field unknown */
        event_free(&event);
    }
    begin(&event, EVENT_START, 0);
    event.start.run = long_name('r');
    event.start.model_name = long_name('m');
    event.start.data_name = long_name('d');
    event.start.recipe_json = xstrdup("{\"method\":{\"name\":\"\\u001b[2J\",\"rank\":1e300}}");
    event.start.total_steps = INT64_MAX;
    feed(workbench, &event);
    event_free(&event);
    static const int64_t steps[] = { 70, 5, INT64_MAX, 80, -3, 81, 400 };
    for (int i = 0; i < 7; i++) {
        begin(&event, EVENT_STEP, 1);
        event.step = steps[i];
        event.step_done.loss = losses[i];
        event.step_done.tokens_per_second = i % 2 ? 1e300 : (double)NAN;
        event.step_done.step_ms = i % 2 ? -1 : 1e18;
        event.step_done.skipped = true;
        event.step_done.reason = long_name('x');
        feed(workbench, &event);
        event_free(&event);
    }
    begin(&event, EVENT_RANKS, 400);
    event.ranks.slowest = 99;
    event.ranks.count = 3;
    event.ranks.item = xcalloc(3, sizeof(*event.ranks.item));
    for (int p = 0; p < 3; p++) {
        struct event_rank *rank = &event.ranks.item[p];
        char *name = long_name('h');
        event_rank_init(rank);
        snprintf(rank->host, sizeof(rank->host), "%s", name + 180);
        snprintf(rank->device, sizeof(rank->device), "%s", name + 190);
        free(name);
        rank->step_ms = p == 0 ? 1e300 : -1;
        rank->compute_ms = p == 1 ? -1e300 : (double)INFINITY;
        rank->wait_ms = p == 2 ? 1e18 : (double)NAN;
        rank->peak_bytes = p == 1 ? INT64_MAX : -7;
        rank->limit_bytes = p == 1 ? 1 : INT64_MIN + 1;
        rank->planned_bytes = INT64_MAX - p;
        rank->device_used_bytes = INT64_MAX;
        rank->gpu_util = 1e300;
        rank->temperature_c = -1e300;
    }
    feed(workbench, &event);
    event_free(&event);
    begin(&event, EVENT_SELECTION, 400);
    event.selection.tensor = long_name('t');
    event.selection.side = xstrdup("sideways and long");
    event.selection.captured_energy = 1e300;
    event.selection.overlap = -1e300;
    event.selection.rows = INT64_MIN + 1;
    feed(workbench, &event);
    event_free(&event);
    begin(&event, EVENT_MEMORY, 400);
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        event.memory.peak_bytes[i] = INT64_MAX - i;
        event.memory.planned_bytes[i] = INT64_MIN;
    }
    feed(workbench, &event);
    event_free(&event);
    begin(&event, EVENT_SAMPLE, 400);
    event.sample.prompt = long_name('p');
    event.sample.text =
        xstrdup("\x1b[31mred \xe6\xbc\xa2\xe5\xad\x97 e\xcc\x81 \xf0\x9f\x8c\xbe\n\n\r\t\x07"
                "end");
    feed(workbench, &event);
    event_free(&event);
}

/* ---- the launcher -----------------------------------------------------------------------------
 */

static void fill(struct launcher_list *list, const char *const *names, int count)
{
    list->count = count;
    list->item = xcalloc((size_t)count, sizeof(list->item[0]));
    for (int i = 0; i < count; i++) {
        const char *bar = strchr(names[i], '|');
        list->item[i].name = xstrndup(names[i], (size_t)(bar - names[i]));
        list->item[i].note = xstrdup(bar + 1);
        list->item[i].about = xstrdup("What this is for, said in one sentence.");
        list->item[i].model = list->item[i].data = -1;
    }
}

static void fill_plan(struct workbench *workbench, int method)
{
    static const int64_t mib[5][MEMORY_CATEGORY_COUNT] = { { 36, 36, 72, 58, 9 },
                                                           { 36, 7, 21, 58, 12 },
                                                           { 36, 36, 31, 58, 14 },
                                                           { 37, 2, 3, 58, 8 },
                                                           { 0, 0, 0, 0, 0 } };
    struct launcher_plan plan = { .choice = { 0, 0, method } };
    plan.ok = method < 4;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        plan.bytes[i] = mib[method][i] * MIB;
        plan.total_bytes += plan.bytes[i];
    }
    plan.limit_bytes = 8192 * (int64_t)MIB;
    plan.parameters = 9438720;
    plan.trained = 9438720;
    plan.checkpoint_bytes = 60 * (int64_t)MIB;
    plan.step_flops = 2.1e10;
    snprintf(plan.device, sizeof(plan.device), "cpu");
    snprintf(plan.shape, sizeof(plan.shape), "batch 8 x 1, sequence 256, 400 steps");
    if (!plan.ok) {
        snprintf(plan.message, sizeof(plan.message), "method.name=grass needs rank <= 256");
    }
    struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
    workbench_event(workbench, &event);
}

void recording_launcher(struct workbench *workbench)
{
    static const char *const models[] = { "llama-9m|9.4M", "llama-60m|58M", "tinyllama-1.1b|1.1G" };
    static const char *const data[] = { "meadow|text", "letters|jsonl" };
    static const char *const methods[] = { "full|", "grass|", "galore|", "lora|", "grass-huge|" };
    struct launcher *launcher = &workbench->launcher;
    fill(&launcher->list[LAUNCHER_MODEL], models, 3);
    fill(&launcher->list[LAUNCHER_DATA], data, 2);
    fill(&launcher->list[LAUNCHER_METHOD], methods, 5);
    launcher->cursor[LAUNCHER_METHOD] = 1;
    for (int i = 0; i < 5; i++) {
        fill_plan(workbench, i);
    }
    struct launcher_run *runs = xcalloc(2, sizeof(runs[0]));
    static const char *const status[] = { "running", "done" };
    for (int i = 0; i < 2; i++) {
        snprintf(runs[i].name, sizeof(runs[i].name), "20261121-11%d1-grass", 4 - i);
        snprintf(runs[i].path, sizeof(runs[i].path), "/runs/20261121-11%d1-grass", 4 - i);
        snprintf(runs[i].status, sizeof(runs[i].status), "%s", status[i]);
        snprintf(runs[i].what, sizeof(runs[i].what), "grass, llama-9m, meadow");
        runs[i].step = i ? 400 : 112;
        runs[i].total_steps = 400;
        runs[i].loss = 2.214;
        runs[i].tokens_per_second = 4100;
        runs[i].peak_bytes = 134 * (int64_t)MIB;
    }
    struct workbench_event event = { .kind = WORKBENCH_RUNS, .runs = { runs, 2 } };
    workbench_event(workbench, &event);
    struct effect effect;
    while (workbench_effect(workbench, &effect)) {
    }
}

void recording_preview(struct workbench *workbench)
{
    static const char *const parts[] = {
        "<s>Below is an instruction that describes a task.\n\n### Instruction:\nMake the sentence "
        "sad.\n\n### Input:\nLucy was happy because the pig came to play.\n\n### Response:\n",
        "Lucy was sad because the pig went home.</s>"
    };
    struct launcher_preview *preview = xcalloc(1, sizeof(*preview));
    memcpy(preview->choice, workbench->launcher.cursor, sizeof(preview->choice));
    preview->ok = true;
    snprintf(preview->format, sizeof(preview->format), "alpaca");
    snprintf(preview->template_name, sizeof(preview->template_name), "alpaca");
    preview->total_bytes = 882000;
    preview->read_bytes = 441000;
    preview->rows = 550;
    preview->tokens = 165500;
    preview->trained_tokens = 52460;
    preview->sequence = 320;
    for (int i = 0; i < 2; i++) {
        size_t size = strlen(parts[i]);
        memcpy(preview->text + preview->text_size, parts[i], size);
        memset(preview->trained + preview->text_size, i, size);
        preview->text_size += size;
    }
    struct workbench_event event = { .kind = WORKBENCH_PREVIEWED, .preview = preview };
    workbench_event(workbench, &event);
}

void recording_unfit(struct workbench *workbench)
{
    struct launcher_plan plan = *launcher_plan_of(&workbench->launcher, workbench->launcher.cursor);
    plan.ok = false;
    plan.detailed = true;
    plan.limit_bytes = 120 * (int64_t)MIB;
    plan.change_count = 2;
    plan.change[0] = (struct launcher_change){ "batch.micro=4 batch.accumulate=2", "",
                                               105 * (int64_t)MIB, 1.04 };
    plan.change[1] =
        (struct launcher_change){ "activation.recompute=block", "", 98 * (int64_t)MIB, 1.27 };
    struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
    workbench_event(workbench, &event);
}

void recording_ranks(struct workbench *workbench)
{
    struct launcher_plan plan = *launcher_plan_of(&workbench->launcher, workbench->launcher.cursor);
    plan.ranks = 4;
    plan.gpus = 8;
    plan.exchanged_bytes = 9.0 * MIB;
    snprintf(plan.shape, sizeof(plan.shape), "batch 4 x 8 x 1, sequence 256, 600 steps");
    struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
    workbench_event(workbench, &event);
}

void recording_form(struct workbench *workbench)
{
    struct recipe defaults;
    struct form_facts facts = { .count = 0 };
    recipe_init(&defaults);
    while (recipe_fields[facts.count].key) {
        facts.count++;
    }
    facts.row = xcalloc((size_t)facts.count, sizeof(facts.row[0]));
    for (int i = 0; i < facts.count; i++) {
        facts.row[i].field = &recipe_fields[i];
        facts.row[i].value = field_text(&recipe_fields[i], &defaults);
        facts.row[i].source = (enum form_source)(i * 7 % 11 < FORM_SOURCE_COUNT ? i * 7 % 11 : 0);
    }
    facts.command = xstrdup("windrow train stories method.rank=32 "
                            "train.sample_prompt='Once upon a time' optimizer.lr=0.0004 "
                            "data.train=/home/reader/notes/of/a/long/summer.txt");
    recipe_free(&defaults);
    struct workbench_event event = { .kind = WORKBENCH_FORM, .form = &facts };
    workbench_event(workbench, &event);
}

void press(struct workbench *workbench, uint32_t key)
{
    struct workbench_event event = { .kind = WORKBENCH_KEY, .key = key };
    workbench_event(workbench, &event);
}

void resize(struct workbench *workbench, int width, int height)
{
    struct workbench_event event = { .kind = WORKBENCH_RESIZE, .size = { width, height } };
    workbench_event(workbench, &event);
}
