/* windrow doctor: what is there, what is missing, and what that costs. */
#include <dlfcn.h>
#include <langinfo.h>
#include <stdio.h>
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
#include "kernels/libraries.h"
#include "kernels/nvml.h"

/* A library that this program links, or opens while it runs. */
enum { LINKED = LIBRARY_COUNT };
static const struct {
    const char *name;
    int which;          /* of those that are opened (kernels/libraries.h), else LINKED */
    const char *file;   /* of one that is linked */
    const char *symbol; /* that shows it */
    bool needed;
    const char *without; /* what its absence costs */
} libraries[] = {
    { "ncursesw", LINKED, "libncursesw.so.6", "initscr", true, "no screens" },
    { "cjson", LINKED, "libcjson.so.1", "cJSON_Version", true, "nothing can be read" },
    { "sentencepiece", LINKED, "libsentencepiece.so.0", NULL, true, "no tokenizer" },
    { "onednn", LINKED, "libdnnl.so.2", "dnnl_version", true,
      "no matrix products on the processor" },
    { "xxhash", LINKED, "libxxhash.so.0", "XXH3_128bits", true, "no checksums" },
    { "openmp", LINKED, "libgomp.so.1", "omp_get_max_threads", true, "one thread" },
    { "cuda", LINKED, "libcuda.so.1", "cuInit", false, "no GPU driver: training runs on the CPU" },
    { "cublaslt", LIBRARY_CUBLASLT, NULL, "cublasLtMatmul", false,
      "no matrix products on a GPU: training runs on the CPU" },
    { "cudnn", LIBRARY_CUDNN, NULL, "cudnnBackendExecute", false,
      "attention on a GPU runs in our own kernels" },
    { "cusolver", LIBRARY_CUSOLVER, NULL, "cusolverDnXsyevd", false,
      "method.projection=svd on a GPU is solved by the processor" },
    { "nvml", LIBRARY_NVML, NULL, "nvmlInit_v2", false, "no GPU telemetry" },
    { "nccl", LIBRARY_NCCL, NULL, "ncclAllReduce", false,
      "several GPUs exchange through host memory, which is slow" },
};
enum { LIBRARY_ROWS = sizeof libraries / sizeof libraries[0], DEVICES_MAX = 16 };

static bool library_found(size_t row)
{
    const char *symbol = libraries[row].symbol;
    void *handle = libraries[row].which == LINKED
                       ? dlopen(libraries[row].file, RTLD_LAZY | RTLD_LOCAL)
                       : library_open((enum library)libraries[row].which, NULL);
    if (handle == NULL) {
        /* Another version, or linked in whole. */
        return symbol != NULL && dlsym(RTLD_DEFAULT, symbol) != NULL;
    }
    return symbol == NULL || dlsym(handle, symbol) != NULL;
}

struct device {
    bool compiled;
    int devices;
    char why[256]; /* none: the reason */
    struct backend_facts facts[DEVICES_MAX];
};

static struct device look_at(const char *backend, int limit)
{
    struct device device = { 0 };
    char why[256];
    struct backend *be = NULL;
    for (int i = 0; i < limit && (i == 0 || be != NULL); i++) {
        be = backend_open(backend, i, i == 0 ? device.why : why, sizeof why);
        if (be != NULL) {
            device.facts[device.devices++] = be->facts;
            backend_close(be);
        }
    }
    /* A build without it says so, and that is all there is to ask. */
    device.compiled = device.devices > 0 || strstr(device.why, "built without") == NULL;
    return device;
}

/* What the driver knows, CUDA_VISIBLE_DEVICES or not. */
struct driver {
    char version[96]; /* "": there is none */
    char why[256];
    int devices;
    struct nvml_facts facts[DEVICES_MAX];
};

static struct driver look_at_driver(void)
{
    struct driver driver = { .devices = 0 };
    struct nvml *nvml = nvml_open(NULL, driver.why, sizeof driver.why);
    if (nvml == NULL) {
        return driver;
    }
    snprintf(driver.version, sizeof driver.version, "%s", nvml_driver_version(nvml));
    int count = nvml_device_count(nvml);
    for (int i = 0; i < count && i < DEVICES_MAX; i++) {
        driver.devices += nvml_device_facts(nvml, i, &driver.facts[driver.devices]) ? 1 : 0;
    }
    nvml_close(nvml);
    return driver;
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
    struct driver driver;
    bool found[LIBRARY_ROWS];
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
    for (int i = 0; i < device->devices; i++) {
        cJSON_AddItemToArray(names, cJSON_CreateString(device->facts[i].device));
    }
    if (device->devices > 0) {
        json_add_number(item, "memory_bytes", (double)device->facts[0].memory_bytes);
        json_add_number(item, "threads", device->facts[0].threads);
    } else {
        json_add_text(item, "why", device->why);
    }
}

/* What cannot be known is left out. */
static void add_driver(cJSON *root, const struct driver *driver)
{
    cJSON *item = json_add_object(root, "nvidia");
    if (driver->version[0] != '\0') {
        json_add_text(item, "driver", driver->version);
    }
    if (driver->why[0] != '\0') {
        json_add_text(item, "why", driver->why);
    }
    cJSON *list = json_add_array(item, "devices");
    for (int i = 0; i < driver->devices; i++) {
        const struct nvml_facts *facts = &driver->facts[i];
        cJSON *device = json_append_object(list);
        char capability[32];
        if (facts->name[0] != '\0') {
            json_add_text(device, "name", facts->name);
        }
        json_add_text(device, "bus_id", facts->bus_id);
        if (facts->memory_bytes >= 0) {
            json_add_number(device, "memory_bytes", (double)facts->memory_bytes);
        }
        if (facts->major >= 0) {
            snprintf(capability, sizeof capability, "%d.%d", facts->major, facts->minor);
            json_add_text(device, "compute_capability", capability);
        }
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
    add_driver(root, &report->driver);
    cJSON *list = json_add_array(root, "libraries");
    for (int i = 0; i < LIBRARY_ROWS; i++) {
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
    for (int i = 0; i < device->devices; i++) {
        const struct backend_facts *facts = &device->facts[i];
        char label[16];
        snprintf(label, sizeof label, i > 0 ? "%s:%d" : "%s", name, i);
        output_data("%-14s %s", label, facts->device);
        if (facts->memory_bytes > 0) {
            output_data(", %s", text_bytes((double)facts->memory_bytes).text);
        }
        output_data("%s%s\n", facts->bus_id[0] != '\0' ? ", bus " : "", facts->bus_id);
    }
    if (device->devices == 0) {
        output_data("%-14s none: %s\n", name, device->why);
    }
}

static void print_driver(const struct driver *driver)
{
    if (driver->why[0] != '\0') {
        output_data("%-14s none: %s\n", "nvidia driver", driver->why);
        return;
    }
    output_data("%-14s %s\n", "nvidia driver",
                driver->version[0] != '\0' ? driver->version : "version unknown");
    for (int i = 0; i < driver->devices; i++) {
        const struct nvml_facts *facts = &driver->facts[i];
        output_data("%-14s %s", "", facts->name[0] != '\0' ? facts->name : "a device");
        if (facts->memory_bytes >= 0) {
            output_data(", %s", text_bytes((double)facts->memory_bytes).text);
        }
        if (facts->major >= 0) {
            output_data(", compute capability %d.%d", facts->major, facts->minor);
        }
        output_data(", bus %s\n", facts->bus_id);
    }
}

static void print_text(const struct report *report)
{
    output_data("windrow %s\n\nDEVICES\n", WINDROW_VERSION);
    print_backend("cpu", &report->cpu);
    print_backend("cuda", &report->cuda);
    print_driver(&report->driver);
    output_data("\nLIBRARIES\n");
    for (int i = 0; i < LIBRARY_ROWS; i++) {
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
    struct report report = { .cpu = look_at("cpu", 1),
                             .cuda = look_at("cuda", DEVICES_MAX),
                             .driver = look_at_driver(),
                             .terminal = look_at_terminal(),
                             .state = run_root(),
                             .presets = preset_directory() };
    report.state_good = report.state != NULL && can_write(report.state);
    report.can_train = report.cpu.devices > 0 && report.state_good;
    for (int i = 0; i < LIBRARY_ROWS; i++) {
        report.found[i] = library_found((size_t)i);
    }
    if (arguments->json) {
        print_json(&report);
    } else {
        print_text(&report);
    }
    free(report.state);
    return report.can_train ? 0 : ERROR_RUNTIME;
}
