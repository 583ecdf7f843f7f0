/* The table of commands. Parsing, errors and help all come from it. */
#include "app/commands/command.h"

static const struct option train_options[] = {
    { "resume", "RUN",
      "continue from the newest whole checkpoint; train.steps=N goes past its end" },
    { "run-dir", "DIR",
      "the run directory (may exist if empty); default: under the state directory" },
    { "accept-change", "KEY", "with --resume: let a key change that must not differ silently" },
    { "attach", NULL, "open the dashboard too; leaving it does not end the run" },
    { "gpus", "N",
      "train with N processes of this machine, each with a GPU of its own (or a part of the "
      "processor); on several machines start it with torchrun, srun or mpirun" },
    { 0 },
};
static const struct option fork_options[] = {
    { "run-dir", "DIR", "the directory of the new run; default: under the state directory" },
    { "accept-change", "KEY", "let a key change that must not differ silently" },
    { "gpus", "N", "train with N processes, as windrow train does" },
    { 0 },
};
static const struct option plan_options[] = {
    { "limit", "BYTES",
      "what it has to fit into (24GiB); shows the cheapest changes that fit, what each change "
      "saves and costs, and the fastest way that fits; with --gpus, on each of them" },
    { "host", "BYTES",
      "with --limit: host memory that may be taken for offloading, by all GPUs together; then a "
      "disk "
      "is looked at too" },
    { "measure", NULL,
      "time a few blocks on this device, and the disk of offloaded activations, to predict the "
      "time of a step" },
    { "gpus", "N",
      "plan for each of N GPUs that train together: what they exchange, what a step takes, and how "
      "that compares with training in full" },
    { "link", "NAME",
      "with --gpus: what joins them: nvlink, pcie5, pcie4 (the default: PCIe 4 through host "
      "memory), "
      "or bytes a second and, behind a comma, the latency (25GB,20us)" },
    { 0 },
};
static const struct option compare_options[] = {
    { "methods", "A,B",
      "train the recipe with each of these; a method may carry settings: "
      "full,grass,grass:method.rank=32" },
    { "to", "DIR", "with --methods: where the runs go; finished ones there are not trained again" },
    { "format", "NAME", "text (with charts), markdown, csv or json" },
    { "by", "AXIS", "what the chart's axis counts: tokens (default), time or steps" },
    { 0 },
};
static const struct option snapshot_options[] = {
    { "screen", "NAME", "which screen: run (default), layers, memory, ranks, tune, samples, log" },
    { "size", "WxH", "columns and lines (default 120x36)" },
    { "format", "NAME", "text (default) or svg" },
    { "ground", "NAME", "of an svg: dark (default) or light" },
    { "glyphs", "NAME", "of charts: ascii, block or braille (default)" },
    { "step", "N", "as it was after step N" },
    { 0 },
};
static const struct option prune_options[] = {
    { "older", "DAYS", "remove every run that began more than this many days ago" },
    { 0 },
};
static const struct option eval_options[] = {
    { "rows", "N", "look at the first N rows only" },
    { "adapter", "DIR", "a LoRA adapter in peft's format, merged into the model first" },
    { 0 },
};
static const struct option generate_options[] = {
    { "prompt", "TEXT", "what to go on from; empty: the beginning of a text" },
    { "max-tokens", "N", "stop after N tokens (default 128)" },
    { "temperature", "T", "0 always takes the likeliest token (default 0.8)" },
    { "top-p", "P",
      "choose among the likeliest tokens that together have this share (default 0.95)" },
    { "seed", "N", "the same seed gives the same text (default 0)" },
    { "adapter", "DIR", "a LoRA adapter in peft's format, merged into the model first" },
    { 0 },
};
static const struct option inspect_options[] = {
    { "model", "MODEL", "whose tokenizer and template to read data with" },
    { "rows", "N", "records to show (default 3)" },
    { 0 },
};
static const struct option export_options[] = {
    { "to", "DIR", "the directory to make" },
    { "step", "N", "the checkpoint of this step (default: the newest whole one)" },
    { "adapter", NULL, "the adapter of a lora run alone, in peft's format, instead of the model" },
    { 0 },
};

static const struct option help_options[] = {
    { "man", NULL, "all of it as a manual page (roff): windrow help --man | man -l -" },
    { 0 },
};

#define CONTROL_HELP                                                                               \
    "RUN is a run directory, a name under the state directory or a unique beginning of one. The "  \
    "run answers with the first step that holds it."

const struct command command_table[] = {
    { "train", "RECIPE [key=value ...]", "train headless",
      "RECIPE is a file or a name in presets/recipes or presets/methods; windrow presets lists "
      "them, "
      "windrow help recipe lists the keys. Progress goes to stderr; with --json every event is a "
      "line on stdout. Ctrl-C saves and ends the run, a second one ends it at once.",
      train_options, 0, 1, true, command_train },
    { "fork", "RUN[@STEP] [key=value ...]", "a new run from a checkpoint",
      "Begins with the weights, the optimizer and the place in the data of RUN at STEP (default: "
      "its "
      "newest whole checkpoint), and goes on with the settings that follow. RUN is left alone.",
      fork_options, 1, 1, true, command_fork },
    { "plan", "RECIPE [key=value ...]", "memory, FLOPs and bytes on disk, before anything runs",
      "The plan runs two training steps, an evaluation and a sample on a device that owns no "
      "memory. "
      "Its bytes are what a run takes. Exit code 4 if they do not fit.",
      plan_options, 1, 1, true, command_plan },
    { "attach", "[RUN]", "dashboard of a running run; a finished one replays",
      "Without RUN: the newest running one, else the newest; where several are running, with "
      "their list.",
      NULL, 0, 1, false, command_attach },
    { "runs", "", "all runs, newest first", NULL, NULL, 0, 0, false, command_runs },
    { "show", "RUN", "what a run did: settings, losses, checkpoints", NULL, NULL, 1, 1, false,
      command_show },
    { "prune", "RUN | --older DAYS", "remove runs from the disk",
      "A run that is still running is never removed.", prune_options, 0, 1, false, command_prune },
    { "set", "RUN key=value", "change a live setting of a running run",
      CONTROL_HELP " Live keys: windrow help recipe.", NULL, 1, 1, true, command_control },
    { "pause", "RUN", "hold a running run after its current step", CONTROL_HELP, NULL, 1, 1, false,
      command_control },
    { "resume", "RUN", "let a paused run go on",
      CONTROL_HELP " A run that has ended goes on with windrow train --resume RUN.", NULL, 1, 1,
      false, command_control },
    { "save", "RUN", "write a checkpoint after the current step", CONTROL_HELP, NULL, 1, 1, false,
      command_control },
    { "stop", "RUN", "save and end a running run", CONTROL_HELP, NULL, 1, 1, false,
      command_control },
    { "compare", "RUN RUN ... | RECIPE --methods A,B [key=value ...]", "runs side by side",
      "Loss after the same tokens and after the same training time, speed, and memory by category. "
      "With a recipe, trains it with each method from the same start on the same data, one after "
      "the other (methods: presets of presets/methods; without --methods the recipe's "
      "compare.methods).",
      compare_options, 1, 99, true, command_compare },
    { "snapshot", "RUN", "a screen of a run as text or as a picture, for documents",
      "Draws what windrow attach shows, on stdout.", snapshot_options, 1, 1, false,
      command_snapshot },
    { "eval", "MODEL DATA [key=value ...]", "loss and perplexity",
      "MODEL is a directory, a name in the Hugging Face cache, a file of presets/models, or a run.",
      eval_options, 2, 2, true, command_eval },
    { "generate", "MODEL --prompt TEXT", "text from a model",
      "Only the generated text goes to stdout, neither the prompt nor special tokens. Settings "
      "such "
      "as precision.weights=bf16 or device=cpu may follow.",
      generate_options, 1, 1, true, command_generate },
    { "inspect", "MODEL|DATA [key=value ...]", "what it is: tensors, template, first rows",
      "Rows of data are shown with trained and masked tokens told apart: trained ones stand "
      "between "
      "[brackets], in colour where there are colours.",
      inspect_options, 1, 1, true, command_inspect },
    { "export", "RUN --to DIR", "a Hugging Face directory from a checkpoint",
      "Writes config.json, model.safetensors and the tokenizer's files.", export_options, 1, 1,
      false, command_export },
    { "models", "", "model presets, and models in the Hugging Face cache", NULL, NULL, 0, 0, false,
      command_models },
    { "datasets", "", "data sets that come with the program", NULL, NULL, 0, 0, false,
      command_datasets },
    { "presets", "", "recipes, methods and cards", NULL, NULL, 0, 0, false, command_presets },
    { "doctor", "", "devices, libraries, terminal: what is there and what is missing",
      "Exit code 0 where it can train at all.", NULL, 0, 0, false, command_doctor },
    { "help", "[COMMAND | recipe | config]",
      "this list, a command, or every key of a recipe or of the workbench", NULL, help_options, 0,
      1, false, command_help },
    { 0 },
};
