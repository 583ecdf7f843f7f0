/* Choosing, opening and closing a device, and its tuning file. */
#include "engine/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "kernels/backend_ops.h"

enum { TUNING_LIMIT = 4 << 20 };
/* The check works in the 64 MiB that products take, and in little more. */
static const size_t least_bytes = (size_t)96 << 20;

bool device_is_cuda(const struct backend *be)
{
    return strcmp(be->ops->name, "cuda") == 0;
}

static void say(const struct device_listener *listener, const char *text)
{
    if (listener != NULL && listener->notice != NULL) {
        listener->notice(listener->context, text);
    }
}

/* ---- what was tuned before ---------------------------------------------------------------------
 */

/* The file for this device and library (xmalloc'd), or NULL if there is no place for one. */
static char *tuning_path(struct backend *be, char **folder)
{
    char name[128];
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    backend_tuning_name(be, name, sizeof name);
    *folder = NULL;
    if (name[0] == '\0') {
        return NULL;
    }
    if (cache != NULL && cache[0] == '/') {
        *folder = xasprintf("%s/windrow", cache);
    } else if (home != NULL && home[0] == '/') {
        *folder = xasprintf("%s/.cache/windrow", home);
    }
    return *folder != NULL ? xasprintf("%s/products-%s.txt", *folder, name) : NULL;
}

/* A file that is damaged or of another device is passed over: it is made anew. */
static void read_tuning(struct backend *be, const struct device_listener *listener)
{
    char *folder;
    char *path = tuning_path(be, &folder);
    if (path != NULL && file_exists(path)) {
        struct error ignored = { 0 };
        char why[256];
        size_t size = 0;
        char *text = file_read_all(path, TUNING_LIMIT, &size, &ignored);
        if (text != NULL && backend_tuning_import(be, text, why, sizeof why) != 0) {
            char *notice = xasprintf("%s is passed over: %s", text_show(path).text, why);
            say(listener, notice);
            free(notice);
        }
        free(text);
    }
    free(path);
    free(folder);
}

static void write_tuning(struct backend *be)
{
    struct error ignored = { 0 };
    char *folder;
    char *path = tuning_path(be, &folder);
    char *text = path != NULL ? backend_tuning_export(be) : NULL;
    if (text != NULL && file_make_directories(folder, &ignored) == 0) {
        file_replace(path, text, strlen(text), &ignored); /* only a cache */
    }
    free(text);
    free(path);
    free(folder);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* One way to a device, and why it led nowhere. */
struct attempt {
    const struct recipe *recipe;
    const struct device_listener *listener;
    enum error_code code; /* what kind of failure `why` is */
    const char *hint;
    char why[384];
};

static int configure(struct backend *be, struct attempt *attempt)
{
    struct backend_options options = recipe_backend_options(attempt->recipe);
    char why[256];
    if (backend_configure(be, &options, why, sizeof why) == 0) {
        return 0;
    }
    attempt->code = ERROR_USAGE;
    attempt->hint = "use kernel.attention=auto, which takes what there is";
    snprintf(attempt->why, sizeof attempt->why, "kernel.attention=%s cannot be had: %s",
             attempt->recipe->kernel_attention, why);
    return -1;
}

/* A device that others have filled cannot even be checked. */
static int check_free(struct backend *be, struct attempt *attempt)
{
    const double mib = 1024.0 * 1024.0;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    if (backend_memory(be, &free_bytes, &total_bytes) != 0 || free_bytes >= least_bytes) {
        return 0;
    }
    attempt->code = ERROR_FIT;
    attempt->hint = "end other programs that use it; device=cpu trains on the processor";
    snprintf(attempt->why, sizeof attempt->why,
             "%s has %.1f MiB free of %.1f MiB, the others are held by other programs and the "
             "driver; %.1f MiB are needed for its check alone",
             be->facts.device, (double)free_bytes / mib, (double)total_bytes / mib,
             (double)least_bytes / mib);
    return -1;
}

static struct backend *open_cuda(struct attempt *attempt, int index)
{
    struct backend *be = backend_open("cuda", index, attempt->why, sizeof attempt->why);
    if (be == NULL) {
        return NULL;
    }
    if (configure(be, attempt) != 0 || check_free(be, attempt) != 0 ||
        device_check(be, attempt->why, sizeof attempt->why) != 0) {
        backend_close(be);
        return NULL;
    }
    backend_set_scratch(be, NULL, NULL); /* what the check worked in goes back */
    backend_measure_context(be);         /* by now the libraries have loaded what they need */
    if (!be->options.deterministic) {
        read_tuning(be, attempt->listener);
    }
    return be;
}

static struct backend *open_cpu(struct attempt *attempt)
{
    struct backend *be = backend_open("cpu", 0, attempt->why, sizeof attempt->why);
    if (be != NULL && configure(be, attempt) != 0) {
        backend_close(be);
        be = NULL;
    }
    return be;
}

int device_index(const struct recipe *recipe, int *index, struct error *err)
{
    const char *colon = strchr(recipe->device, ':');
    int64_t number = 0;
    if (colon != NULL && (!text_to_integer(colon + 1, &number) || number < 0 || number > 1023)) {
        return fail(err, ERROR_USAGE, "device: found %s, allowed are auto, cpu, cuda and cuda:N",
                    text_show(recipe->device).text);
    }
    *index = (int)number;
    return 0;
}

struct backend *device_open(const struct recipe *recipe, const struct device_listener *listener,
                            struct error *err)
{
    static const char doctor[] =
        "windrow doctor lists the devices; device=cpu trains on the processor";
    struct attempt attempt = {
        .recipe = recipe, .listener = listener, .code = ERROR_RUNTIME, .hint = doctor
    };
    const char *device = recipe->device;
    int index = 0;
    bool automatic = strcmp(device, "auto") == 0;
    struct backend *be = NULL;
    if (device_index(recipe, &index, err) != 0) {
        return NULL;
    }
    if (strncmp(device, "cuda", 4) == 0 || (automatic && backend_device_count("cuda") > 0)) {
        be = open_cuda(&attempt, index);
        if (be == NULL && automatic) {
            char *notice =
                xasprintf("the GPU is left alone, training on the processor: %s", attempt.why);
            say(listener, notice);
            free(notice);
        }
    }
    if (be == NULL && (automatic || strcmp(device, "cpu") == 0)) {
        attempt.code = ERROR_RUNTIME;
        attempt.hint = doctor;
        be = open_cpu(&attempt);
    }
    if (be == NULL) {
        fail(err, attempt.code, "device=%s cannot be used: %s", text_show(device).text,
             attempt.why);
        hint(err, "%s", attempt.hint);
    }
    return be;
}

void device_close(struct backend *be)
{
    if (be != NULL && device_is_cuda(be)) {
        write_tuning(be);
    }
    if (be != NULL) {
        backend_close(be);
    }
}
