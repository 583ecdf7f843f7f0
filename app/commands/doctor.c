/* windrow doctor: what is there, what is missing, and what that costs. */
#include <dlfcn.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app/commands/command.h"
#include "app/commands/output.h"
#include "app/text.h"
#include "engine/base/file.h"
#include "engine/recipe.h"
#include "engine/run.h"
#include "kernels/backend.h"

/* A library that this program links or opens while it runs. */
struct library {
    const char *name;
    const char *file;   /* for dlopen */
    const char *symbol; /* that shows it */
    bool needed;
    const char *without; /* what its absence costs */
};
static const struct library libraries[] = {
    { "ncursesw", "libncursesw.so.6", "initscr", true, "no screens" },
    { "cjson", "libcjson.so.1", "cJSON_Version", true, "nothing can be read" },
    { "sentencepiece", "libsentencepiece.so.0", NULL, true, "no tokenizer" },
    { "onednn", "libdnnl.so.2", "dnnl_version", true, "no matrix products on the processor" },
    { "xxhash", "libxxhash.so.0", "XXH3_128bits", true, "no checksums" },
    { "openmp", "libgomp.so.1", "omp_get_max_threads", true, "one thread" },
    { "cuda", "libcuda.so.1", "cuInit", false, "no GPU driver: training runs on the CPU" },
    { "nvml", "libnvidia-ml.so.1", "nvmlInit_v2", false, "no GPU telemetry" },
};
enum { LIBRARY_COUNT = sizeof libraries / sizeof libraries[0] };

static bool library_found(const struct library *library)
{
    void *handle = dlopen(library->file, RTLD_LAZY | RTLD_LOCAL);
    if (handle == NULL) {
        /* Another version, or linked in whole. */
        return library->symbol != NULL && dlsym(RTLD_DEFAULT, library->symbol) != NULL;
    }
    bool found = library->symbol == NULL || dlsym(handle, library->symbol) != NULL;
    dlclose(handle);
    return found;
}

struct device {
    bool compiled;
    int devices;
    char why[256]; /* none: the reason */
    struct backend_facts facts;
};

static struct device look_at(const char *backend)
{
    struct device device = { 0 };
    struct backend *be = backend_open(backend, 0, device.why, sizeof device.why);
    /* A build without it says so, and that is all there is to ask. */
    device.compiled = be != NULL || strstr(device.why, "built without") == NULL;
    if (be != NULL) {
        device.devices = 1;
        device.facts = be->facts;
        backend_close(be);
    }
    return device;
}

struct terminal {
    bool output;
    int columns;
    int rows;
    const char *type;
    const char *charset;
};

static struct terminal look_at_terminal(void)
{
    struct winsize size = { 0 };
    struct terminal terminal = { .output = isatty(STDOUT_FILENO) != 0,
                                 .type = getenv("TERM"),
                                 .charset = nl_langinfo(CODESET) };
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
        terminal.columns = size.ws_col;
        terminal.rows = size.ws_row;
    }
    return terminal;
}

/* The place for runs: it, or the nearest directory above it that exists, can be written. */
static bool can_write(const char *path)
{
    char *folder = xstrdup(path);
    while (!file_exists(folder) && strrchr(folder, '/') != NULL && strrchr(folder, '/') != folder) {
        *strrchr(folder, '/') = '\0';
    }
    bool good = access(folder, W_OK) == 0;
    free(folder);
    return good;
}

struct report {
    struct device cpu;
    struct device cuda;
    bool found[LIBRARY_COUNT];
    struct terminal terminal;
    char *state;
    bool state_good;
    const char *presets;
    bool can_train;
};

static void add_backend(cJSON *backends, const char *name, const struct device *device)
{
    cJSON *item = json_add_object(backends, name);
    json_add_bool(item, "compiled", device->compiled);
    json_add_number(item, "devices", device->devices);
    cJSON *names = json_add_array(item, "device_names");
    if (device->devices > 0) {
        cJSON_AddItemToArray(names, cJSON_CreateString(device->facts.device));
        json_add_number(item, "memory_bytes", (double)device->facts.memory_bytes);
        json_add_number(item, "threads", device->facts.threads);
    } else {
        json_add_text(item, "why", device->why);
    }
}

static void print_json(const struct report *report)
{
    cJSON *root = cJSON_CreateObject();
    json_add_text(root, "version", WINDROW_VERSION);
    json_add_bool(root, "can_train", report->can_train);
    cJSON *backends = json_add_object(root, "backends");
    add_backend(backends, "cpu", &report->cpu);
    add_backend(backends, "cuda", &report->cuda);
    cJSON *list = json_add_array(root, "libraries");
    for (int i = 0; i < LIBRARY_COUNT; i++) {
        cJSON *item = json_append_object(list);
        json_add_text(item, "name", libraries[i].name);
        json_add_bool(item, "found", report->found[i]);
        json_add_bool(item, "needed", libraries[i].needed);
        if (!report->found[i]) {
            json_add_text(item, "without", libraries[i].without);
        }
    }
    cJSON *terminal = json_add_object(root, "terminal");
    json_add_bool(terminal, "output", report->terminal.output);
    json_add_text(terminal, "type", report->terminal.type);
    json_add_text(terminal, "charset", report->terminal.charset);
    json_add_number(terminal, "columns", report->terminal.columns);
    json_add_number(terminal, "rows", report->terminal.rows);
    json_add_bool(terminal, "color", output_has_color(STDOUT_FILENO));
    cJSON *state = json_add_object(root, "state");
    json_add_text(state, "path", report->state);
    json_add_bool(state, "writable", report->state_good);
    json_add_text(root, "presets", report->presets);
    output_json(root);
}

static void print_backend(const char *name, const struct device *device)
{
    if (device->devices > 0) {
        output_data("%-14s %s", name, device->facts.device);
        if (device->facts.memory_bytes > 0) {
            output_data(", %s", text_bytes((double)device->facts.memory_bytes).text);
        }
        output_data("\n");
    } else {
        output_data("%-14s none: %s\n", name, device->why);
    }
}

static void print_text(const struct report *report)
{
    output_data("windrow %s\n\nDEVICES\n", WINDROW_VERSION);
    print_backend("cpu", &report->cpu);
    print_backend("cuda", &report->cuda);
    output_data("\nLIBRARIES\n");
    for (int i = 0; i < LIBRARY_COUNT; i++) {
        if (report->found[i]) {
            output_data("%-14s found\n", libraries[i].name);
        } else {
            output_data("%-14s not found%s: %s\n", libraries[i].name,
                        libraries[i].needed ? "" : " (optional)", libraries[i].without);
        }
    }
    const struct terminal *terminal = &report->terminal;
    output_data("\nTERMINAL\n%-14s %s\n%-14s %s%s\n", "type",
                terminal->type == NULL ? "not set: no screens" : terminal->type, "characters",
                terminal->charset,
                strcmp(terminal->charset, "UTF-8") == 0 ? "" : ": charts are drawn in ASCII");
    if (!terminal->output) {
        output_data("%-14s stdout is no terminal: runs are headless\n", "size");
    } else {
        output_data("%-14s %d x %d%s\n", "size", terminal->columns, terminal->rows,
                    terminal->columns < 80 || terminal->rows < 24 ? ": 80 x 24 shows all" : "");
    }
    output_data("%-14s %s\n\nPLACES\n", "colours", output_has_color(STDOUT_FILENO) ? "yes" : "no");
    output_data("%-14s %s%s\n", "runs", report->state,
                report->state_good ? "" : ": cannot be written; set XDG_STATE_HOME");
    output_data("%-14s %s\n", "presets",
                report->presets == NULL ? "not found; set WINDROW_PRESETS" : report->presets);
    output_say(report->can_train ? "\neverything that training needs is there"
                                 : "\nit cannot train here");
}

int command_doctor(const struct arguments *arguments)
{
    struct report report = { .cpu = look_at("cpu"),
                             .cuda = look_at("cuda"),
                             .terminal = look_at_terminal(),
                             .state = run_root(),
                             .presets = preset_directory() };
    report.state_good = report.state != NULL && can_write(report.state);
    report.can_train = report.cpu.devices > 0 && report.state_good;
    for (int i = 0; i < LIBRARY_COUNT; i++) {
        report.found[i] = library_found(&libraries[i]);
    }
    if (arguments->json) {
        print_json(&report);
    } else {
        print_text(&report);
    }
    free(report.state);
    return report.can_train ? 0 : ERROR_RUNTIME;
}
