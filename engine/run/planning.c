/* The device of a run, its plan, and whether device and disk have room for it. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/device.h"
#include "engine/run/parts.h"

/* Checkpoints of this run that lie on the disk already: a save may give up the oldest of them. */
static int64_t held_checkpoints(const struct run *run)
{
    struct checkpoint_list list;
    struct error ignored;
    if (!run->resuming || checkpoint_list_read(run->directory.path, &list, &ignored) != 0) {
        return 0;
    }
    int64_t count = (int64_t)list.count;
    checkpoint_list_free(&list);
    return count;
}

/* A run that cannot hold two checkpoints would lose the old one while it writes the new. */
static int check_disk(const struct run *run, struct error *err)
{
    char *root = run_root();
    const char *place = run->resuming             ? run->directory.path
                        : run->options->directory ? run->options->directory
                                                  : root;
    int64_t held = held_checkpoints(run);
    int64_t missing = held < 2 ? 2 - held : 0;
    int64_t need = missing * run_need_bytes(run) + CHECKPOINT_SPARE_BYTES;
    int64_t have = file_free_bytes(place);
    int result = 0;
    if (run->recipe.train_save_every > 0 && have >= 0 && have < need) {
        fail(err, ERROR_FIT,
             "checkpoints and events take %lld bytes more, the disk of %s has %lld free",
             (long long)need, text_show(place).text, (long long)have);
        result = hint(err, "free space, name another place with --run-dir, or set "
                           "train.save_every=0 to save none");
    }
    free(root);
    return result;
}

static void device_notice(void *context, const char *text)
{
    run_notice(context, "%s", text);
}

/* What is suggested in a refusal is typed as the recipe was: with epochs, with device=auto. */
static struct need room_needed(const struct run *run, struct device_room *room)
{
    device_room(&run->effective, run->be, room);
    return (struct need){ .plan = &run->plan,
                          .recipe = room->cuda ? &run->recipe : &run->effective,
                          .config = &run->material.config,
                          .room = room,
                          .resume = run->directory.name };
}

int run_make_plan(struct run *run, struct error *err)
{
    const struct model_config *config = &run->material.config;
    run->be = run_open_device(run, &(struct device_listener){ device_notice, run }, err);
    if (run_agree(run, run->be ? 0 : -1, err) != 0 || run_use_devices(run, err) != 0) {
        return -1;
    }
    /* The plan is that of the device that was found. */
    if (strcmp(run->recipe.device, "auto") == 0 &&
        recipe_set(&run->effective, device_is_cuda(run->be) ? "device=cuda" : "device=cpu", err) !=
            0) {
        return -1;
    }
    if (plan_make_ranks(&run->effective, config, run->comm->ranks, &run->plan, err) != 0) {
        return -1;
    }
    struct device_room room;
    struct need need = room_needed(run, &room);
    run->limit_bytes = room.usable_bytes;
    if (device_room_check(&need, err) != 0) {
        return -1;
    }
    return run_follows(run) ? 0 : check_disk(run, err);
}

int run_refuse_memory(const struct run *run, struct error *err)
{
    struct device_room room;
    struct need need = room_needed(run, &room);
    return device_room_refuse(&need, err);
}
