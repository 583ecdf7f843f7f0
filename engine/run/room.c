/*
 * What a device has room for, and the sentence that refuses what has none.
 *
 * A GPU is shared: what counts is what is free now, not what the card has. Before it is opened that
 * is what NVML tells, less what this program's context will take; once it is open, what its driver
 * tells. Of the cpu's memory the whole counts, as the kernel gives and takes there as it likes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/device.h"
#include "engine/method/method.h"
#include "engine/recipe/combine.h"
#include "kernels/backend.h"

/* Kernels that are loaded at their first use and recorded graphs lie on the device, too. */
static const int64_t spare_bytes = (int64_t)64 << 20;
static const double mib = 1024.0 * 1024.0;

/* ---- what there is -------------------------------------------------------------------------- */

static int64_t less(int64_t a, int64_t b)
{
    return a > b ? a - b : 1; /* 0 would mean that there is no limit */
}

/* memory.limit holds where it is the smaller one. */
static void settle_usable(const struct recipe *recipe, struct device_room *out)
{
    int64_t limit = recipe->memory_limit;
    out->by_limit = limit > 0 && (out->usable_bytes == 0 || limit <= out->usable_bytes);
    out->usable_bytes = out->by_limit ? limit : out->usable_bytes;
}

void device_room(const struct recipe *recipe, struct backend *be, struct device_room *out)
{
    const struct backend_facts *facts = &be->facts;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    *out = (struct device_room){ .cuda = device_is_cuda(be),
                                 .total_bytes = (int64_t)facts->memory_bytes,
                                 .usable_bytes = (int64_t)facts->memory_bytes };
    snprintf(out->name, sizeof out->name, "%s", facts->device);
    if (out->cuda && backend_memory(be, &free_bytes, &total_bytes) == 0) {
        out->free_bytes = (int64_t)free_bytes;
        out->total_bytes = (int64_t)total_bytes;
        out->context_bytes = (int64_t)facts->context_bytes;
        out->others_bytes = facts->context_bytes > 0 ? (int64_t)facts->found_used_bytes : 0;
        out->usable_bytes = less((int64_t)free_bytes, spare_bytes);
    }
    settle_usable(recipe, out);
}

void device_look(const struct recipe *recipe, struct device_room *out)
{
    char why[256];
    struct error unused;
    int index = 0;
    size_t used = 0;
    size_t total = 0;
    *out = (struct device_room){ .cuda = plan_takes_cuda(recipe) };
    if (!out->cuda) {
        struct backend *be = backend_open("cpu", 0, why, sizeof why);
        if (be != NULL) {
            device_room(recipe, be, out);
            backend_close(be);
        }
        out->gpus = backend_device_count("cuda");
        return;
    }
    out->gpus = backend_device_count("cuda");
    snprintf(out->name, sizeof out->name, "%.100s",
             strcmp(recipe->device, "auto") == 0 ? "cuda" : recipe->device);
    if (device_index(recipe, &index, &unused) == 0 &&
        backend_look("cuda", index, &used, &total) == 0 && total > used) {
        out->total_bytes = (int64_t)total;
        out->free_bytes = (int64_t)(total - used);
        out->others_bytes = (int64_t)used;
        out->context_bytes = PLAN_CONTEXT_BYTES;
        out->usable_bytes = less(out->free_bytes, PLAN_CONTEXT_BYTES + spare_bytes);
    }
    settle_usable(recipe, out);
}

/* ---- what to type instead ------------------------------------------------------------------- */

static struct plan_place place_of(const struct need *need)
{
    return (struct plan_place){ .limit_bytes = need->room->usable_bytes,
                                .ranks = need->plan->ranks };
}

/* Lays a preset of presets/methods over a copy of the recipe; false if they do not go together, or
 * if it is another kind of training: adapters, another rule, drawn gradients. */
static bool lay_preset(const struct need *need, const char *path, struct recipe *out)
{
    struct error unused;
    const struct recipe *recipe = need->recipe;
    const struct method_ops *before = method_find(recipe->method_name);
    recipe_copy(out, recipe);
    if (recipe_load(out, path, &unused) != 0) {
        return false;
    }
    free(out->name);
    out->name = xstrdup(recipe->name);
    const struct method_ops *after = method_find(out->method_name);
    if (after != NULL && method_reads(after, "method.rank") &&
        out->method_rank > need->config->hidden_size) {
        out->method_rank = (need->config->hidden_size + 3) / 4;
    }
    return before != NULL && after != NULL && before->adapters == after->adapters &&
           strcmp(recipe->optimizer_name, out->optimizer_name) == 0 &&
           strcmp(recipe->activation_sample, out->activation_sample) == 0 &&
           combine_check(out, &unused) == 0;
}

/* The command that trains `recipe`, xmalloc'd. Where nobody knows how the recipe was named, what
 * has to be added to the command. */
static char *command_for(const struct recipe *recipe, const struct recipe *now)
{
    struct recipe base;
    struct error unused;
    recipe_init(&base);
    bool named = now->name[0] != '\0' && recipe_find(&base, now->name, &unused) == 0;
    char *words = recipe_words(recipe, named ? &base : now);
    char *command = named ? xasprintf("windrow train %s %s", now->name, words)
                          : xasprintf("the same command with %s", words);
    free(words);
    recipe_free(&base);
    return command;
}

/* The preset that takes most of what there is; its name (xmalloc'd) and command, or NULL. */
static char *find_preset(const struct need *need, size_t *bytes, char **command)
{
    struct preset_list list;
    struct error unused;
    struct plan *plan = xmalloc(sizeof *plan);
    char *name = NULL;
    *bytes = 0;
    *command = NULL;
    if (preset_list_read("methods", &list, &unused) != 0) {
        free(plan);
        return NULL;
    }
    for (size_t i = 0; i < list.count; i++) {
        struct recipe recipe = { 0 };
        if (lay_preset(need, list.item[i].path, &recipe) &&
            plan_make_ranks(&recipe, need->config, need->plan->ranks, plan, &unused) == 0 &&
            (int64_t)plan->total_bytes <= need->room->usable_bytes && plan->total_bytes > *bytes) {
            *bytes = plan->total_bytes;
            free(name);
            free(*command);
            name = xstrdup(list.item[i].name);
            *command = command_for(&recipe, need->recipe);
        }
        recipe_free(&recipe);
    }
    preset_list_free(&list);
    free(plan);
    return name;
}

/* A run that goes on keeps its method: the rank is what may be another one. */
static int hint_resumed(const struct need *need, struct error *err)
{
    const struct method_ops *method = method_find(need->recipe->method_name);
    bool ranked = method != NULL && !method->adapters && method_reads(method, "method.rank");
    struct plan_place place = place_of(need);
    int64_t rank = ranked ? plan_largest_rank(need->recipe, need->config, &place) : 0;
    if (rank > 0) {
        return hint(err,
                    "end other programs, or go on with the largest rank that fits: windrow train "
                    "--resume %s method.rank=%lld",
                    need->resume, (long long)rank);
    }
    return hint(err,
                "end other programs, or go on where there is room: windrow train --resume %s "
                "device=cpu",
                need->resume);
}

static int hint_new(const struct need *need, struct error *err)
{
    enum { SAFE = 500 }; /* of a hint: what is cut off in the middle cannot be typed */
    struct plan_change change;
    struct error unused;
    struct buffer text = { 0 };
    size_t count = 0;
    size_t bytes = 0;
    char *command = NULL;
    char *name = find_preset(need, &bytes, &command);
    struct plan_place place = place_of(need);
    bool changes =
        plan_changes(need->recipe, need->config, &place, &change, 1, &count, &unused) == 0 &&
        count > 0;
    if (name != NULL) {
        buffer_printf(&text, "the largest preset that fits is %s (%.1f MiB): %s", name,
                      (double)bytes / mib, command);
    }
    size_t kept = text.size;
    if (changes) {
        buffer_printf(&text, "%s the cheapest change that fits is %s (%.1f MiB)",
                      name != NULL ? "; or" : "", change.assignments,
                      (double)change.total_bytes / mib);
    }
    if (text.size > SAFE && kept > 0 && kept <= SAFE) {
        text.text[kept] = '\0';
    } else if (text.size == 0 || text.size > SAFE) {
        buffer_free(&text);
        buffer_printf(&text, "end other programs, lower data.sequence_length, choose a smaller "
                             "model, or train on the processor with device=cpu");
    }
    hint(err, "%s", text.text + (text.text[0] == ' '));
    buffer_free(&text);
    free(name);
    free(command);
    return -1;
}

/* ---- refusing ------------------------------------------------------------------------------- */

/* Who holds what is not free. */
static void say_holders(const struct device_room *room, char *text, size_t size)
{
    int64_t held = room->total_bytes - room->free_bytes;
    if (room->context_bytes > 0) {
        snprintf(text, size,
                 "other programs and the driver hold %.1f MiB, CUDA's context and libraries %.1f "
                 "MiB",
                 (double)room->others_bytes / mib, (double)room->context_bytes / mib);
    } else {
        snprintf(text, size,
                 "other programs, the driver and CUDA's context and libraries hold %.1f MiB",
                 (double)held / mib);
    }
}

static int refuse(const struct need *need, struct error *err)
{
    const struct plan *plan = need->plan;
    const struct device_room *room = need->room;
    char holders[256];
    int largest = 0;
    for (int c = 1; c < MEMORY_CATEGORY_COUNT; c++) {
        largest = plan->bytes[c] > plan->bytes[largest] ? c : largest;
    }
    say_holders(room, holders, sizeof holders);
    fail(err, ERROR_FIT,
         "does not fit: the plan takes %.1f MiB and %.1f MiB are kept for kernels that are loaded "
         "later, %s has %.1f MiB free of %.1f MiB; %s; the largest part is %s with %.1f MiB",
         (double)plan->total_bytes / mib, (double)spare_bytes / mib, room->name,
         (double)room->free_bytes / mib, (double)room->total_bytes / mib, holders,
         memory_category_names[largest], (double)plan->bytes[largest] / mib);
    return need->resume != NULL ? hint_resumed(need, err) : hint_new(need, err);
}

int device_room_check(const struct need *need, struct error *err)
{
    const struct device_room *room = need->room;
    if (room->usable_bytes <= 0 || (int64_t)need->plan->total_bytes <= room->usable_bytes) {
        return 0;
    }
    if (!room->cuda || room->by_limit) {
        return plan_check(need->plan, need->recipe, need->config, room->usable_bytes, err);
    }
    return refuse(need, err);
}

int device_room_refuse(const struct need *need, struct error *err)
{
    struct device_room room = *need->room;
    struct need now = *need;
    /* What was told as free was not to be had: what is suggested must be smaller. */
    int64_t wanted = (int64_t)need->plan->total_bytes;
    room.usable_bytes = room.usable_bytes < wanted ? room.usable_bytes : less(wanted, 1);
    now.room = &room;
    return refuse(&now, err);
}
