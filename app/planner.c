/* The planning thread. */
#include "app/planner.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "app/text.h"
#include "engine/base/xalloc.h"
#include "engine/device.h"
#include "engine/inspect.h"

struct planner {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int fd;
    bool asked;
    bool finished;
    bool ending;
    bool busy; /* a plan is under way */
    struct recipe recipe;
    struct launcher_plan plan; /* choice going in, all of it coming out */
};

void planner_refusal(const struct error *err, const int choice[LAUNCHER_LISTS],
                     struct launcher_plan *plan)
{
    struct launcher_plan refusal = { .ranks = 1 };
    memcpy(refusal.choice, choice, sizeof(refusal.choice)); /* it may be the plan's own */
    *plan = refusal;
    snprintf(plan->message, sizeof(plan->message), "%.250s", err->message);
    snprintf(plan->hint, sizeof(plan->hint), "%.250s", err->hint);
}

static void fill(const struct recipe *recipe, const struct plan *made, struct launcher_plan *plan)
{
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        plan->bytes[i] = (int64_t)made->bytes[i];
    }
    plan->total_bytes = (int64_t)made->total_bytes;
    plan->parameters = made->parameters;
    plan->trained = made->trained;
    plan->checkpoint_bytes = made->checkpoint_bytes;
    plan->step_flops = made->step_flops;
    char length[48];
    if (recipe->train_steps > 0) {
        snprintf(length, sizeof(length), "%" PRId64 " steps", recipe->train_steps);
    } else {
        snprintf(length, sizeof(length), "%g epochs", recipe->train_epochs);
    }
    char ranks[24] = "";
    if (plan->ranks > 1) {
        snprintf(ranks, sizeof(ranks), "%d x ", plan->ranks);
    }
    snprintf(plan->shape, sizeof(plan->shape),
             "batch %s%" PRId64 " x %" PRId64 ", sequence %" PRId64 ", %s", ranks,
             recipe->batch_micro, recipe->batch_accumulate, recipe->data_sequence_length, length);
}

static void find_changes(const struct recipe *recipe, const struct model_config *config,
                         struct launcher_plan *plan)
{
    struct plan_change found[LAUNCHER_CHANGES];
    struct error ignored = { 0 };
    size_t count = 0;
    struct plan_place place = { .limit_bytes = plan->limit_bytes, .ranks = plan->ranks };
    if (plan_changes(recipe, config, &place, found, LAUNCHER_CHANGES, &count, &ignored) != 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct launcher_change *change = &plan->change[plan->change_count++];
        snprintf(change->words, sizeof(change->words), "%.255s", found[i].assignments);
        snprintf(change->sentence, sizeof(change->sentence), "%.255s", found[i].sentence);
        change->total_bytes = (int64_t)found[i].total_bytes;
        change->time_factor = found[i].time_factor;
    }
}

static void make(struct recipe *recipe, struct launcher_plan *plan)
{
    struct error err = { 0 };
    struct material material = { 0 };
    struct plan made;
    memset(&made, 0, sizeof(made));
    if (material_open(recipe, MATERIAL_CONFIG, NULL, &material, &err) != 0) {
        planner_refusal(&err, plan->choice, plan);
        return;
    }
    if (material_adapter_settings(recipe, &material, &err) != 0 ||
        plan_make_ranks(recipe, &material.config, plan->ranks, &made, &err) != 0) {
        planner_refusal(&err, plan->choice, plan);
        material_close(&material);
        return;
    }
    fill(recipe, &made, plan);
    struct device_room room;
    device_look(recipe, &room);
    /* Ranks on a processor share the memory of the host. */
    plan->limit_bytes = room.cuda ? room.usable_bytes : room.usable_bytes / plan->ranks;
    plan->gpus = room.gpus;
    plan->exchanged_bytes = made.step_payload_bytes;
    snprintf(plan->device, sizeof(plan->device), "%.62s", room.cuda ? room.name : "cpu");
    plan->ok = plan->limit_bytes <= 0 || plan->total_bytes <= plan->limit_bytes;
    if (!plan->ok) {
        /* The cheapest change takes many plans to find: only for what the cursor rests on. */
        snprintf(plan->message, sizeof(plan->message), "%.31s is more than the %.31s of %.63s",
                 text_bytes((double)plan->total_bytes).text,
                 text_bytes((double)plan->limit_bytes).text, plan->device);
        if (plan->detailed) {
            find_changes(recipe, &material.config, plan);
        }
    }
    material_close(&material);
}

static void *work(void *context)
{
    struct planner *planner = context;
    pthread_mutex_lock(&planner->lock);
    while (!planner->ending) {
        if (!planner->asked) {
            pthread_cond_wait(&planner->wake, &planner->lock);
            continue;
        }
        planner->asked = false;
        planner->busy = true;
        struct recipe recipe;
        recipe_init(&recipe);
        recipe_copy(&recipe, &planner->recipe);
        struct launcher_plan plan = { .total_bytes = 0 };
        memcpy(plan.choice, planner->plan.choice, sizeof(plan.choice));
        plan.detailed = planner->plan.detailed;
        plan.ranks = planner->plan.ranks;
        pthread_mutex_unlock(&planner->lock);
        make(&recipe, &plan);
        recipe_free(&recipe);
        pthread_mutex_lock(&planner->lock);
        planner->plan = plan;
        planner->finished = true;
        planner->busy = false;
        uint64_t one = 1;
        if (write(planner->fd, &one, sizeof(one)) < 0) {
            planner->ending = true; /* cannot happen to an eventfd that is read */
        }
    }
    pthread_mutex_unlock(&planner->lock);
    return NULL;
}

struct planner *planner_open(void)
{
    struct planner *planner = xcalloc(1, sizeof(*planner));
    pthread_mutex_init(&planner->lock, NULL);
    pthread_cond_init(&planner->wake, NULL);
    recipe_init(&planner->recipe);
    planner->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (planner->fd < 0 || pthread_create(&planner->thread, NULL, work, planner) != 0) {
        BUG("no thread for planning can be started");
    }
    return planner;
}

void planner_close(struct planner *planner)
{
    if (!planner) {
        return;
    }
    pthread_mutex_lock(&planner->lock);
    planner->ending = true;
    pthread_cond_signal(&planner->wake);
    bool busy = planner->busy;
    pthread_mutex_unlock(&planner->lock);
    if (busy) {
        /* Leaving must not wait for the plan of a large model; the process ends soon anyway. */
        pthread_detach(planner->thread);
        return;
    }
    pthread_join(planner->thread, NULL);
    pthread_mutex_destroy(&planner->lock);
    pthread_cond_destroy(&planner->wake);
    recipe_free(&planner->recipe);
    close(planner->fd);
    free(planner);
}

int planner_fd(const struct planner *planner)
{
    return planner->fd;
}

void planner_ask(struct planner *planner, const struct recipe *recipe,
                 const int choice[LAUNCHER_LISTS], int ranks, bool detailed)
{
    pthread_mutex_lock(&planner->lock);
    planner->plan.detailed = detailed;
    planner->plan.ranks = ranks;
    recipe_copy(&planner->recipe, recipe);
    memcpy(planner->plan.choice, choice, sizeof(planner->plan.choice));
    planner->asked = true;
    planner->finished = false;
    pthread_cond_signal(&planner->wake);
    pthread_mutex_unlock(&planner->lock);
}

bool planner_take(struct planner *planner, struct launcher_plan *plan)
{
    uint64_t count;
    if (read(planner->fd, &count, sizeof(count)) < 0) {
        return false;
    }
    pthread_mutex_lock(&planner->lock);
    bool finished = planner->finished;
    planner->finished = false;
    *plan = planner->plan;
    pthread_mutex_unlock(&planner->lock);
    return finished;
}
