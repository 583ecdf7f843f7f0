/*
 * A run of several ranks: rank 0 leads, the others follow.
 *
 * Rank 0 alone resolves what to train, prints, writes the run directory, hears commands and
 * signals, evaluates and writes texts. What concerns the others it tells them between steps, as
 * orders; they do nothing of their own accord. So there is no second set of decisions that could
 * come out otherwise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/comm/nccl.h"
#include "engine/comm/watch.h"
#include "engine/comm/world.h"
#include "engine/recipe/load.h"
#include "engine/run/parts.h"

enum order_kind { ORDER_STEP, ORDER_SETTINGS, ORDER_GO_BACK, ORDER_SHOW_STATES, ORDER_STOP };

struct order {
    int64_t kind;
    int64_t step; /* done so far, with ORDER_STEP */
    int64_t rows; /* taken so far, likewise */
    int64_t code; /* of the program, with ORDER_STOP */
    int64_t text_bytes;
};

bool run_follows(const struct run *run)
{
    return run->comm->rank > 0;
}

/* Sends (rank 0) or takes (the others) a text; what is taken is xmalloc'd. */
static char *share_text(struct run *run, const char *what, const char *text)
{
    int64_t bytes = text ? (int64_t)strlen(text) : 0;
    comm_broadcast_bytes(run->comm, what, &bytes, sizeof bytes);
    char *copy = xcalloc((size_t)(run->comm->failed ? 0 : bytes) + 1, 1);
    if (!run_follows(run) && text) {
        memcpy(copy, text, (size_t)bytes);
    }
    comm_broadcast_bytes(run->comm, what, copy, (size_t)bytes);
    return copy;
}

/* ---- waiting for others --------------------------------------------------------------------- */

/* mpirun tells all ranks to end when one is lost, and kills them soon after: then a rank does not
 * wait long for anybody; one that is merely slow comes within this time. Other launchers leave it
 * to the ranks to notice, and rank 0 decides how the run ends. */
#define PATIENCE_S 2.0

static bool waits_on(void *context)
{
    struct run *run = context;
    if (!watch_check(run->watch, run->comm)) {
        return false;
    }
    bool told = run->comm->launcher == world_mpi_launcher && run_signal() != 0;
    if (!told || run->showing) {
        run->impatient_s = 0.0;
        return true;
    }
    double now = clock_monotonic();
    if (run->impatient_s == 0.0 || strcmp(run->impatient_for, run->comm->last) != 0) {
        run->impatient_s = now;
        snprintf(run->impatient_for, sizeof run->impatient_for, "%s", run->comm->last);
    }
    return now - run->impatient_s < PATIENCE_S;
}

static bool waits_to_join(void *context)
{
    (void)context;
    return run_signal() == 0;
}

int run_join_ranks(struct run *run, struct error *err)
{
    run->comm = world_open(waits_to_join, NULL, err);
    if (run->comm == NULL) {
        return -1;
    }
    if (run_follows(run) && run->comm->launcher == world_own_launcher) {
        run_ignore_signals(); /* Ctrl-C reaches all: rank 0 decides, and its end is theirs */
    }
    comm_on_wait(run->comm, waits_on, run);
    const char *limit = getenv("WINDROW_PEER_SECONDS");
    double silence_s = limit ? strtod(limit, NULL) : 0.0;
    run->watch = watch_open(run->comm, silence_s >= 2.0 ? silence_s : WATCH_SECONDS, err);
    if (!run->watch && run->comm->ranks > 1) {
        comm_fail(run->comm, "%s", err->message);
        comm_close(run->comm);
        return -1;
    }
    return 0;
}

/* ---- before the first step ------------------------------------------------------------------ */

/* A rank that was started with other words than rank 0 was not meant to be part of this run. */
static int check_own_recipe(const struct run *run, struct error *err)
{
    int result = 0;
    for (const struct field *field = recipe_fields; field->key && result == 0; field++) {
        char *own = field_text(field, run->options->recipe);
        char *first = field_text(field, &run->recipe);
        if (strcmp(own, first) != 0) {
            fail(err, ERROR_USAGE, "started with another recipe than rank 0: %s is %s, not %s",
                 field->key, text_show(own).text, text_show(first).text);
            result = hint(err, "start all ranks with the same words");
        }
        free(own);
        free(first);
    }
    return result;
}

int run_share_start(struct run *run, struct error *err)
{
    if (run->comm->ranks == 1) {
        return 0;
    }
    char *mine = run_follows(run) ? NULL : recipe_json(&run->recipe);
    char *recipe = share_text(run, "the recipe", mine);
    char *path = share_text(run, "the checkpoint", run->resume_path);
    int64_t facts[] = { run->forked, run->own_tokenizer };
    comm_broadcast_bytes(run->comm, "the state", &run->state, sizeof run->state);
    comm_broadcast_bytes(run->comm, "the state", facts, sizeof facts);
    run->forked = facts[0] != 0;
    run->own_tokenizer = facts[1] != 0;
    int result = comm_check(run->comm, err);
    if (result == 0 && run_follows(run)) {
        cJSON *root = json_parse(recipe, strlen(recipe), "the recipe of rank 0", 1, err);
        recipe_free(&run->recipe);
        recipe_init(&run->recipe);
        result = root ? recipe_parse(&run->recipe, root, "the recipe of rank 0", err) : -1;
        cJSON_Delete(root);
        run->resume_path = path[0] ? xstrdup(path) : NULL;
        run->begin_step = run->state.step;
        bool new = !run->options->resume && !run->options->fork;
        if (result == 0 && new) {
            result = check_own_recipe(run, err);
        }
    }
    free(mine);
    free(recipe);
    free(path);
    return result;
}

struct backend *run_open_device(struct run *run, const struct device_listener *listener,
                                struct error *err)
{
    const char *named = run->recipe.device;
    bool any = strcmp(named, "cuda") == 0 || strcmp(named, "auto") == 0;
    int there = backend_device_count("cuda");
    struct recipe recipe;
    struct backend *be = NULL;
    recipe_init(&recipe);
    recipe_copy(&recipe, &run->recipe);
    if (run->comm->ranks > 1 && any && there > 0) {
        char word[32];
        snprintf(word, sizeof word, "device=cuda:%d", run->comm->local_rank);
        if (run->comm->local_rank >= there) {
            fail(err, ERROR_FIT, "rank %d is number %d of its host, which has %d GPU%s",
                 run->comm->rank, run->comm->local_rank + 1, there, there == 1 ? "" : "s");
            hint(err, "start as many ranks on each host as it has GPUs, or set device=cpu");
        } else if (recipe_set(&recipe, word, err) == 0) {
            be = device_open(&recipe, listener, err);
        }
    } else {
        be = device_open(&recipe, listener, err);
    }
    recipe_free(&recipe);
    return be;
}

static bool all_on_gpus(struct run *run)
{
    int64_t gpus = comm_sum_count(run->comm, device_is_cuda(run->be) ? 1 : 0);
    return !run->comm->failed && gpus == run->comm->ranks;
}

/* One rank has nobody to exchange with; but NCCL can be tried with it. */
static bool wants_nccl(struct run *run, bool *always)
{
    const char *wish = getenv("WINDROW_NCCL");
    *always = wish != NULL && strcmp(wish, "always") == 0 && device_is_cuda(run->be);
    return (run->comm->ranks > 1 || *always) && all_on_gpus(run);
}

int run_use_devices(struct run *run, struct error *err)
{
    char why[256];
    bool always;
    struct nccl_options options = { .deterministic = run->recipe.train_deterministic };
    if (!wants_nccl(run, &always)) {
        return comm_check(run->comm, err);
    }
    if (comm_use_nccl(run->comm, run->be, &options, why, sizeof why)) {
        backend_measure_context(run->be); /* with what NCCL has taken of the device */
        return 0;
    }
    if (comm_check(run->comm, err) != 0) {
        return hint(err, "NCCL_DEBUG=INFO tells more; WINDROW_NCCL=off trains without NCCL");
    }
    if (always) {
        fail(err, ERROR_RUNTIME, "WINDROW_NCCL=always is set, but NCCL cannot be used: %s", why);
        return hint(err, "without WINDROW_NCCL the GPUs exchange through host memory then");
    }
    run_notice(run, "the GPUs exchange through host memory, which is slow: %s", why);
    return 0;
}

/* ---- orders --------------------------------------------------------------------------------- */

static void give_order(struct run *run, struct order order, const char *text)
{
    if (run->comm->ranks == 1 || run_follows(run)) {
        return;
    }
    order.text_bytes = text ? (int64_t)strlen(text) : 0;
    comm_broadcast_bytes(run->comm, "an order", &order, sizeof order);
    if (text) {
        free(share_text(run, "an order's text", text));
    }
}

void run_order_step(struct run *run)
{
    give_order(
        run, (struct order){ .kind = ORDER_STEP, .step = run->state.step, .rows = run->state.rows },
        NULL);
}

void run_order_settings(struct run *run, const struct recipe *effective)
{
    char *text = run->comm->ranks > 1 ? recipe_json(effective) : NULL;
    give_order(run, (struct order){ .kind = ORDER_SETTINGS }, text);
    free(text);
}

void run_order_back(struct run *run, const char *checkpoint)
{
    give_order(run, (struct order){ .kind = ORDER_GO_BACK }, checkpoint ? checkpoint : "");
}

void run_order_show(struct run *run)
{
    give_order(run, (struct order){ .kind = ORDER_SHOW_STATES }, NULL);
    trainer_show_states(run->trainer);
}

void run_order_stop(struct run *run, int code)
{
    give_order(run, (struct order){ .kind = ORDER_STOP, .code = code }, NULL);
    run->ended_together = !run->comm->failed;
}

/* ---- following ------------------------------------------------------------------------------ */

/* What rank 0 changes. A rank that cannot say what that would take takes part in the refusal. */
static int take_settings(struct run *run, const char *text, struct error *err)
{
    struct plan plan;
    struct recipe effective;
    recipe_init(&effective);
    cJSON *root = json_parse(text, strlen(text), "the settings of rank 0", 1, err);
    bool known =
        root && recipe_parse(&effective, root, "the settings of rank 0", err) == 0 &&
        plan_make_ranks(&effective, &run->material.config, run->comm->ranks, &plan, err) == 0;
    int result = run_apply(run, known ? &effective : NULL, &plan, err);
    cJSON_Delete(root);
    recipe_free(&effective);
    return result == 0 || !run->broken ? 0 : -1;
}

/* Rank 0 saves, which may take its time after a signal to end too: it is not given up meanwhile. */
static int show_states(struct run *run, struct error *err)
{
    run->showing = true;
    int result = trainer_serve_states(run->trainer, err);
    run->showing = false;
    run->impatient_s = 0.0;
    return result;
}

static int obey(struct run *run, const struct order *order, const char *text, struct error *err)
{
    struct step_result ignored;
    switch ((enum order_kind)order->kind) {
    case ORDER_STEP:
        run->state.step = order->step;
        run->state.rows = order->rows;
        return run_step(run, &ignored, err);
    case ORDER_SETTINGS:
        return take_settings(run, text, err);
    case ORDER_GO_BACK:
        return run_build(run, text[0] ? text : NULL, err);
    case ORDER_SHOW_STATES:
        return show_states(run, err);
    case ORDER_STOP:
        break;
    }
    return 0;
}

int run_follow(struct run *run, int *code, struct error *err)
{
    struct order order = { .kind = ORDER_STEP };
    int result = 0;
    run->began_s = clock_monotonic();
    run_open_sampler(run);
    while (result == 0 && order.kind != ORDER_STOP) {
        comm_broadcast_bytes(run->comm, "an order", &order, sizeof order);
        bool has_text = order.kind == ORDER_SETTINGS || order.kind == ORDER_GO_BACK;
        char *text = has_text ? share_text(run, "an order's text", NULL) : NULL;
        result = comm_check(run->comm, err);
        if (result == 0) {
            result = obey(run, &order, text, err);
        }
        free(text);
    }
    run->ended_together = run->ended_together || result == 0;
    *code = result == 0 ? (int)order.code : (int)err->code;
    return result;
}
