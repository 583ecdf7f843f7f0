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

static struct backend *open_cuda(const struct recipe *recipe, int index,
                                 const struct device_listener *listener, char *why, size_t why_size)
{
    struct backend *be = backend_open("cuda", index, why, why_size);
    if (be == NULL) {
        return NULL;
    }
    struct backend_options options = recipe_backend_options(recipe);
    if (backend_configure(be, &options, why, why_size) != 0 ||
        device_check(be, why, why_size) != 0) {
        backend_close(be);
        return NULL;
    }
    if (!options.deterministic) {
        read_tuning(be, listener);
    }
    return be;
}

struct backend *device_open(const struct recipe *recipe, const struct device_listener *listener,
                            struct error *err)
{
    char why[384] = "";
    const char *device = recipe->device;
    int64_t index = 0;
    bool automatic = strcmp(device, "auto") == 0;
    const char *colon = strchr(device, ':');
    struct backend *be = NULL;
    if (colon != NULL && (!text_to_integer(colon + 1, &index) || index < 0 || index > 1023)) {
        fail(err, ERROR_USAGE, "device: found %s, allowed are auto, cpu, cuda and cuda:N",
             text_show(device).text);
        return NULL;
    }
    if (strncmp(device, "cuda", 4) == 0 || (automatic && backend_device_count("cuda") > 0)) {
        be = open_cuda(recipe, (int)index, listener, why, sizeof why);
        if (be == NULL && automatic) {
            char *notice = xasprintf("the GPU is left alone, training on the processor: %s", why);
            say(listener, notice);
            free(notice);
        }
    }
    if (be == NULL && (automatic || strcmp(device, "cpu") == 0)) {
        struct backend_options options = recipe_backend_options(recipe);
        be = backend_open("cpu", 0, why, sizeof why);
        if (be != NULL && backend_configure(be, &options, why, sizeof why) != 0) {
            backend_close(be);
            be = NULL;
        }
    }
    if (be == NULL) {
        fail(err, ERROR_RUNTIME, "device=%s cannot be used: %s", text_show(device).text, why);
        hint(err, "windrow doctor lists the devices; device=cpu trains on the processor");
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
