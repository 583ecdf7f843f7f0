/* windrow help --man: the manual page from the tables of the program. */
#include "app/commands/manual.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/command_line.h"
#include "app/commands/command.h"
#include "app/keymap.h"
#include "app/settings.h"
#include "engine/recipe.h"

/* A page needs a date; it is that of the version, so that two builds give the same page. */
static const char page_date[] = "2026-11-21";

const struct manual_fact manual_exit_codes[] = {
    { "0", "done; also after windrow stop, an early end, or when a finished run is resumed" },
    { "1", "failed while running, or the last save failed" },
    { "2", "usage or configuration" },
    { "3", "data or model file" },
    { "4", "does not fit" },
    { "5", "diverged" },
    { "129", "the terminal of the workbench is gone; the run goes on" },
    { "130, 143", "interrupted by Ctrl-C or SIGTERM with the state saved; a second signal ends "
                  "the run at once" },
    { 0 },
};

const struct manual_fact manual_environment[] = {
    { "NO_COLOR", "If set and not empty: no colours." },
    { "CLICOLOR_FORCE", "If set and not 0: colours even where the output is no terminal." },
    { "WINDROW_THEME", "Colours of the workbench, as --theme; goes before the configuration." },
    { "COLORTERM", "truecolor or 24bit: the terminal takes any colour, not only its 256." },
    { "COLORFGBG", "Whether the background is dark or light, where the terminal does not say." },
    { "TERM", "What the terminal can do." },
    { "LANG, LC_ALL, LC_CTYPE", "Where these do not say UTF-8, screens are drawn in ASCII." },
    { "XDG_CONFIG_HOME", "The folder that holds windrow/config.json and windrow/presets; "
                         "~/.config if unset." },
    { "XDG_STATE_HOME", "The folder that holds windrow/runs; ~/.local/state if unset." },
    { "XDG_RUNTIME_DIR", "The folder of the control sockets of running runs; a private one below "
                         "/tmp if unset." },
    { "XDG_CACHE_HOME", "The folder for what was tuned for a device, and that holds "
                        "huggingface/hub; ~/.cache if unset." },
    { "HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME",
      "Where models are looked for by name. The first that is set counts." },
    { "WINDROW_PRESETS", "The folder of presets, instead of the one that came along." },
    { "WINDROW_RENDEZVOUS",
      "Where the processes of a run on several machines meet, before what their launcher says: "
      "tcp://HOST:PORT, where rank 0 listens, or file:/PATH, which all see and rank 0 writes." },
    { "WINDROW_RANKS, WINDROW_RANK, WINDROW_LOCAL_RANK",
      "How many processes train together, which of them this is, and which among those of its "
      "machine. Without them those of mpirun (OMPI_COMM_WORLD_SIZE, ...), torchrun (WORLD_SIZE, "
      "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) and srun (SLURM_STEP_NUM_TASKS, SLURM_PROCID, "
      "...) count." },
    { "WINDROW_JOB",
      "A word that the processes of a run must have in common, to keep others out." },
    { "WINDROW_JOIN_SECONDS", "How long they wait for each other at the start: 120 if unset." },
    { "WINDROW_SHARED_MEMORY",
      "off: processes of one machine exchange over sockets, not through memory that they share." },
    { "WINDROW_PEER_SECONDS",
      "After how long a process that says nothing is taken for hung: 60 if unset, at least 2." },
    { "WINDROW_NCCL",
      "off: GPUs of several ranks exchange through host memory, without NCCL. always: "
      "they do not, and one GPU by itself goes through NCCL too, to try it." },
    { "NCCL_ALGO", "How NCCL sums; train.deterministic sets Ring where this is unset." },
    { "OMP_NUM_THREADS, OMP_WAIT_POLICY, GOMP_SPINCOUNT",
      "How many threads compute on the processor, and how they wait." },
    { 0 },
};

const struct manual_fact manual_files[] = {
    { "~/.config/windrow/config.json", "What the workbench begins with and how it looks." },
    { "~/.config/windrow/presets/", "Presets of your own: recipes, methods, models." },
    { "~/.local/state/windrow/runs/", "Runs, a directory each." },
    { "RUN/recipe.json", "The recipe of the run, every default included." },
    { "RUN/events.jsonl", "Everything the run said, one JSON object a line." },
    { "RUN/checkpoints/", "Whole checkpoints with checksums; latest and best name two of them." },
    { "RUN/model/", "What was exported at the end: config.json, safetensors, tokenizer." },
    { "RUN/control", "The path of the socket of a running run." },
    { 0 },
};

/* ---- roff --------------------------------------------------------------------------------------
 */

/* Text as roff wants it: no escape, no request and no typographic sign comes out of it. */
static void add_text(struct buffer *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        bool first = out->size == 0 || out->text[out->size - 1] == '\n';
        if (first && (*c == '.' || *c == '\'')) {
            buffer_printf(out, "\\&");
        }
        switch (*c) {
        case '-':
            buffer_printf(out, "\\-");
            break;
        case '\\':
            buffer_printf(out, "\\e");
            break;
        case '^':
            buffer_printf(out, "\\(ha");
            break;
        case '~':
            buffer_printf(out, "\\(ti");
            break;
        case '`':
            buffer_printf(out, "\\(ga");
            break;
        case '\'':
            buffer_printf(out, "\\(aq");
            break;
        case '"':
            buffer_printf(out, "\\(dq");
            break;
        default:
            buffer_printf(out, "%c", *c);
        }
    }
}

static void add_line(struct buffer *out, const char *text)
{
    add_text(out, text);
    buffer_printf(out, "\n");
}

static void add_section(struct buffer *out, const char *name)
{
    buffer_printf(out, ".SH ");
    add_line(out, name);
}

/* A tagged paragraph: `bold`, then `rest` in italics. */
static void add_tag(struct buffer *out, const char *bold, const char *rest)
{
    buffer_printf(out, ".TP\n\\fB");
    add_text(out, bold);
    buffer_printf(out, "\\fR");
    if (rest && rest[0]) {
        buffer_printf(out, " \\fI");
        add_text(out, rest);
        buffer_printf(out, "\\fR");
    }
    buffer_printf(out, "\n");
}

static void add_facts(struct buffer *out, const struct manual_fact *facts)
{
    for (; facts->name; facts++) {
        add_tag(out, facts->name, NULL);
        add_line(out, facts->text);
    }
}

/* ---- sections ----------------------------------------------------------------------------------
 */

static void add_options(struct buffer *out, const struct option *options)
{
    for (; options && options->name; options++) {
        char *name = xasprintf("--%s", options->name);
        add_tag(out, name, options->value);
        add_line(out, options->help);
        free(name);
    }
}

static void add_commands(struct buffer *out)
{
    add_section(out, "COMMANDS");
    for (const struct command *c = command_table; c->name; c++) {
        char *name = xasprintf("windrow %s", c->name);
        add_tag(out, name, c->synopsis);
        add_text(out, c->summary);
        buffer_printf(out, ".\n");
        if (c->help) {
            add_line(out, c->help);
        }
        if (c->options && c->options->name) {
            buffer_printf(out, ".RS\n");
            add_options(out, c->options);
            buffer_printf(out, ".RE\n");
        }
        free(name);
    }
    add_section(out, "OPTIONS OF EVERY COMMAND");
    add_options(out, command_common_options);
    add_tag(out, "--version", NULL);
    add_line(out, "the version, on stdout");
}

static void add_field(struct buffer *out, const struct field *field)
{
    char *range = field_range(field);
    const char *fallback = field->default_text ? field->default_text : "";
    add_tag(out, field->key, range);
    add_line(out, field->help);
    if (field->type != FIELD_STRING && field->unit && field->unit[0]) {
        buffer_printf(out, "Unit: ");
        add_text(out, field->unit);
        buffer_printf(out, ".\n");
    }
    if (fallback[0]) {
        buffer_printf(out, "Default: ");
        add_text(out, fallback);
        buffer_printf(out, ".\n");
    }
    if (field->live) {
        buffer_printf(out, "Live: changes while a run trains.\n");
    }
    free(range);
}

static void add_keys(struct buffer *out, unsigned context, const char *title)
{
    bool begun = false;
    for (size_t i = 0; i < keymap_count; i++) {
        const struct action_row *row = &keymap_rows[i];
        /* What holds in every screen of a run stands under that heading alone. */
        unsigned part = context & IN_RUN;
        bool wide = (row->context & IN_RUN) == IN_RUN;
        bool here = context == IN_ALL        ? row->context == IN_ALL
                    : row->context == IN_ALL ? false
                    : context == IN_RUN      ? wide
                                             : (row->context & context) && !(part && wide);
        if (!here || !row->help) {
            continue;
        }
        if (!begun) {
            buffer_printf(out, ".SS ");
            add_line(out, title);
            begun = true;
        }
        char keys[48];
        keymap_keys(row, keys, sizeof(keys));
        add_tag(out, keys, row->name);
        add_text(out, row->help);
        buffer_printf(out, "%s\n", row->engine ? " (only while it runs)" : "");
    }
}

static void add_workbench(struct buffer *out)
{
    static const struct {
        unsigned context;
        const char *title;
    } places[] = {
        { IN_ALL, "Everywhere" },
        { IN_LAUNCHER, "Launcher" },
        { IN_FORM, "Every setting of a choice" },
        { IN_RUN, "Every screen of a run" },
        { IN_DASHBOARD, "Run" },
        { IN_LAYERS, "Layers" },
        { IN_MEMORY, "Memory" },
        { IN_TUNE, "Tune" },
        { IN_COMPARE, "Compare" },
        { IN_SAMPLES, "Samples" },
        { IN_LOG, "Log" },
        { IN_LIST, "List of runs" },
    };
    add_section(out, "KEYS OF THE WORKBENCH");
    add_line(out, "The word after the keys is what the command line of the workbench calls it.");
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        add_keys(out, places[i].context, places[i].title);
    }
    add_section(out, "COMMAND LINE OF THE WORKBENCH");
    add_line(out, "The key : opens it; Tab completes, Up brings back what was said before. Beside "
                  "these it knows every action by the name above.");
    for (size_t i = 0; i < command_row_count; i++) {
        char *name = xasprintf(":%s", command_rows[i].name);
        add_tag(out, name, command_rows[i].arguments);
        add_line(out, command_rows[i].help);
        free(name);
    }
}

static void add_beginning(struct buffer *out)
{
    buffer_printf(out,
                  ".\\\" Made by windrow help --man from the tables of the program.\n"
                  ".TH WINDROW 1 \"%s\" \"windrow %s\" \"User Commands\"\n",
                  page_date, WINDROW_VERSION);
    add_section(out, "NAME");
    buffer_printf(out, "windrow \\- train language models with methods that save memory\n");
    add_section(out, "SYNOPSIS");
    buffer_printf(out, "\\fBwindrow\\fR\n.br\n"
                       "\\fBwindrow\\fR \\fICOMMAND\\fR [\\fIargument\\fR ...] "
                       "[\\fIkey\\fR=\\fIvalue\\fR ...]\n");
    add_section(out, "DESCRIPTION");
    add_line(out,
             "A workbench for finetuning and pretraining LLaMA models on one machine. Without a "
             "command it opens in the terminal: pick a model, data and a method, see what the "
             "method takes before anything runs, watch it train, and change its rank while it "
             "trains. Every step of that can be done with commands too. Text for people goes to "
             "stderr, data to stdout.");
}

void manual_write(struct buffer *out)
{
    add_beginning(out);
    add_commands(out);
    add_workbench(out);
    add_section(out, "SETTINGS OF A RECIPE");
    add_line(out, "A recipe is JSON with these keys, nested at the dots; any of them can be given "
                  "as key=value on the command line.");
    for (const struct field *field = recipe_fields; field->key; field++) {
        add_field(out, field);
    }
    add_section(out, "CONFIGURATION OF THE WORKBENCH");
    add_line(out, "A JSON object with these keys, in the file config.json named below.");
    for (const struct field *field = settings_fields; field->key; field++) {
        add_field(out, field);
    }
    add_section(out, "EXIT STATUS");
    add_facts(out, manual_exit_codes);
    add_section(out, "ENVIRONMENT");
    add_facts(out, manual_environment);
    add_section(out, "FILES");
    add_facts(out, manual_files);
    add_section(out, "EXAMPLES");
    static const struct manual_fact examples[] = {
        { "windrow plan stories", "What a recipe takes, before anything runs." },
        { "windrow train stories train.steps=100", "Train it without the workbench." },
        { "windrow set RUN method.rank=32", "Change the rank of a run that is running." },
        { "windrow compare stories --methods full,grass", "Two methods side by side." },
        { 0 },
    };
    add_facts(out, examples);
}
