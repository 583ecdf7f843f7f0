/* The table of all settings. `windrow help recipe`, forms, the command line and recipe files are
 * made from it. */
#include <string.h>

#include "engine/recipe/load.h"

/* Counts beyond this are a slip of the keyboard; it also keeps products of two of them exact. */
#define MOST 1e9

static const char *const init_names[] = { "pretrained", "random", NULL };
static const char *const selection_names[] = { "top", "norm", "norm2", "uniform", NULL };
static const char *const side_names[] = { "out", "in", "short", NULL };
static const char *const inputs_names[] = { "whole", "columns", NULL };
static const char *const head_names[] = { "full", "rows", NULL };
static const char *const embedding_names[] = { "dense", "rows", NULL };
static const char *const projection_names[] = { "subspace", "svd", NULL };
static const char *const moments_names[] = { "keep", "rotate", "reset", NULL };
static const char *const state_names[] = { "fp32", "bf16", "int8", NULL };
static const char *const anchor_step_names[] = { "harmonic", "full", NULL };
static const char *const schedule_names[] = { "constant", "linear", "cosine", "wsd", NULL };
static const char *const weight_names[] = { "fp32", "bf16", NULL };
static const char *const exchange_names[] = { "gradient", "bf16", "fp32", NULL };
static const char *const rounding_names[] = { "nearest", "stochastic", NULL };

/* A path, a name or words; `allowed` is what messages and help show. */
#define STRING(k, member, allowed, initial, words)                                                 \
    {                                                                                              \
        .key = (k), .type = FIELD_STRING, .offset = offsetof(struct recipe, member),               \
        .unit = (allowed), .help = (words), .default_text = (initial)                              \
    }
#define CHOICE(k, member, names, initial, words)                                                   \
    {                                                                                              \
        .key = (k), .type = FIELD_CHOICE, .offset = offsetof(struct recipe, member), .unit = "",   \
        .help = (words), .choices = (names), .default_text = (initial)                             \
    }
#define BOOL(k, member, initial, words)                                                            \
    {                                                                                              \
        .key = (k), .type = FIELD_BOOL, .offset = offsetof(struct recipe, member), .unit = "",     \
        .help = (words), .default_text = (initial)                                                 \
    }
#define WHOLE(k, member, low, high, units, initial, words)                                         \
    {                                                                                              \
        .key = (k), .type = FIELD_INTEGER, .offset = offsetof(struct recipe, member),              \
        .minimum = (low), .maximum = (high), .unit = (units), .help = (words),                     \
        .default_text = (initial)                                                                  \
    }
#define NUMBER(k, member, low, high, units, initial, words)                                        \
    {                                                                                              \
        .key = (k), .type = FIELD_NUMBER, .offset = offsetof(struct recipe, member),               \
        .minimum = (low), .maximum = (high), .unit = (units), .help = (words),                     \
        .default_text = (initial)                                                                  \
    }
/* The same three for settings that may change while the model trains. */
#define LIVE_CHOICE(k, member, names, initial, words)                                              \
    {                                                                                              \
        .key = (k), .type = FIELD_CHOICE, .offset = offsetof(struct recipe, member), .unit = "",   \
        .help = (words), .choices = (names), .default_text = (initial), .live = true               \
    }
#define LIVE_WHOLE(k, member, low, high, units, initial, words)                                    \
    {                                                                                              \
        .key = (k), .type = FIELD_INTEGER, .offset = offsetof(struct recipe, member),              \
        .minimum = (low), .maximum = (high), .unit = (units), .help = (words),                     \
        .default_text = (initial), .live = true                                                    \
    }
#define LIVE_NUMBER(k, member, low, high, units, initial, words)                                   \
    {                                                                                              \
        .key = (k), .type = FIELD_NUMBER, .offset = offsetof(struct recipe, member),               \
        .minimum = (low), .maximum = (high), .unit = (units), .help = (words),                     \
        .default_text = (initial), .live = true                                                    \
    }

/* Order matters where keys exclude each other: a file is laid over a recipe in this order. */
const struct field recipe_fields[] = {
    STRING("model.path", model_path, "a model directory, or a name in the Hugging Face cache", "",
           "The model to train: a directory with config.json, weights and tokenizer."),
    STRING("model.preset", model_preset, "a name in presets/models, or a file", "",
           "A small architecture with random weights, instead of model.path."),
    CHOICE("model.init", model_init, init_names, "pretrained",
           "Whether the weights come from the model's files or are random; with model.preset they "
           "are always random."),
    STRING("model.adapter", model_adapter, "an adapter directory in peft's format", "",
           "A LoRA adapter to begin with: method.name=lora goes on training it, with its ranks, "
           "alphas and targets; every other use merges it into the weights first. Empty: the one "
           "that lies with the model, if any, is merged."),
    STRING("tokenizer.path", tokenizer_path, "a tokenizer.model file or the directory holding it",
           "", "The tokenizer; empty: the one that lies with the model."),
    WHOLE("tokenizer.vocab", tokenizer_vocab, 0, 1000000, "pieces", "0",
          "Trains a tokenizer of so many pieces on the training text, for model.preset; 0: none is "
          "trained."),

    STRING("data.train", data_train, "a file or a directory", "",
           "The text or records to train on."),
    STRING("data.validation", data_validation, "a path, or a fraction below 1 such as 0.05", "",
           "What the evaluations run on: another file, or a share of the training rows; empty: "
           "nothing."),
    CHOICE("data.format", data_format, data_format_names, "auto",
           "How the files are read; auto looks at the first records."),
    STRING("data.template", data_template, "auto, or the name of a template", "auto",
           "How instructions and chats become text; auto takes the tokenizer's own template, or "
           "one that suits the format."),
    WHOLE("data.sequence_length", data_sequence_length, 1, 1048576, "tokens", "512",
          "Tokens in one row: the longest context that the model sees in training."),
    BOOL("data.shuffle", data_shuffle, "true", "Mixes the rows anew in every epoch."),
    BOOL("data.pack", data_pack, "true",
         "Puts several records into one row, where they do not see each other."),
    BOOL("data.train_on_prompt", data_train_on_prompt, "false",
         "Also trains on the prompts of instructions and chats, not only on the answers."),

    STRING(
        "method.name", method_name, "full|grass|galore|lora", "grass",
        "How the matrices are trained: full trains all, grass a changing subset of rows, galore in "
        "a changing subspace."),
    LIVE_WHOLE("method.rank", method_rank, 1, 65536, "rows", "128",
               "Rows trained at a time, for a dimension as large as the hidden size: fewer take "
               "less memory, more learn faster per step."),
    LIVE_WHOLE("method.interval", method_interval, 1, MOST, "steps", "200",
               "Steps between two choices of rows."),
    LIVE_CHOICE("method.selection", method_selection, selection_names, "top",
                "How rows are chosen: those with the largest gradient, or at random with the "
                "given weights."),
    BOOL("method.replacement", method_replacement, "false",
         "Random selection may draw a row more than once."),
    BOOL("method.unbiased", method_unbiased, "false",
         "Scales randomly selected rows so that their expected gradient is the true one."),
    CHOICE("method.side", method_side, side_names, "out",
           "What is selected: outputs (rows), inputs (columns), or the shorter dimension."),
    LIVE_NUMBER("method.scale", method_scale, 0, 1e6, "", "1",
                "Factor on the update of the selected rows."),
    BOOL("method.carry", method_carry, "true",
         "Rows that stay selected keep their optimizer state at a refresh."),
    WHOLE("method.refresh_warmup", method_refresh_warmup, 0, MOST, "steps", "0",
          "Steps over which the update grows to full size after each refresh; 0: none."),
    WHOLE(
        "method.sketch", method_sketch, 0, 65536, "columns", "0",
        "grass: estimates row norms at a refresh from a random sketch of so many columns, so that "
        "no full gradient is ever formed; 64 is plenty. 0: exact norms."),
    WHOLE("method.unselected_every", method_unselected_every, 0, MOST, "steps", "0",
          "grass: steps between two updates of the rows that are not selected, by their normalised "
          "gradient and without any state. 1 is the quality of more memory at the work of full "
          "training, 4 a balance. 0: they never move."),
    NUMBER("method.unselected_scale", method_unselected_scale, 0, 1e6, "", "1",
           "grass: factor on the updates of the rows that are not selected."),
    CHOICE(
        "method.inputs", method_inputs, inputs_names, "whole",
        "grass with method.side=in: keeps of the inputs of q, k, v, gate, up and down whole rows "
        "for the backward, or only the selected columns: less memory for activations, the same "
        "gradients."),
    CHOICE("method.head", method_head, head_names, "full",
           "grass: how the head of an untied model trains: in full, or like the matrices of the "
           "blocks, by a changing choice of its rows, which are the words of the vocabulary."),
    CHOICE("method.embedding", method_embedding, embedding_names, "dense",
           "The embedding's gradient: of all its rows, or only of those whose tokens occur in a "
           "step, which takes less memory where a step has fewer tokens than the vocabulary words. "
           "Rows that do not occur then keep weight and moments as they are (lazy Adam)."),
    BOOL("method.exact_rows", method_exact_rows, "false",
         "Keeps the selected rows of bf16 weights in full precision, for two bytes an element of "
         "them, so that small updates are not lost."),
    STRING("method.targets", method_targets, "all, or patterns joined by commas", "all",
           "The matrices of the blocks that train, by patterns such as q_proj, layers.0-3 or "
           "layers.*.down_proj; the others are frozen. all means q, k, v, o, gate, up and down."),
    STRING("method.frozen", method_frozen, "patterns joined by commas", "",
           "Parameters that stay as they are: patterns such as embed_tokens, lm_head, norm, "
           "layers.0-3 or *_layernorm. They have no gradient, no state and no decay."),
    CHOICE("method.projection", method_projection, projection_names, "subspace",
           "How galore finds its subspace: by power iteration without forming a gradient, or by "
           "an exact decomposition of it."),
    CHOICE("method.moments", method_moments, moments_names, "rotate",
           "What becomes of galore's optimizer state when its subspace changes: kept as numbers, "
           "turned into the new one, or zeroed."),
    BOOL(
        "method.stagger", method_stagger, "false",
        "grass and galore: spreads the refreshes over the steps of an interval, layer by layer, so "
        "that no step stalls."),
    NUMBER("method.alpha", method_alpha, 0, 1e6, "", "16",
           "Scaling of the adapters of lora, which add alpha / rank times B A."),
    STRING("method.rank_pattern", method_rank_pattern, "pattern=rank, joined by commas", "",
           "Ranks of lora that differ from method.rank, as in q_proj=16,layers.0=4; the first "
           "pattern that fits decides."),
    STRING("method.alpha_pattern", method_alpha_pattern, "pattern=alpha, joined by commas", "",
           "Values of method.alpha that differ, in the same way."),

    STRING("activation.recompute", activation_recompute, "none|norms|ffn|block", "none",
           "What the backward pass computes again: norms and SwiGLU, the feed-forward, or all."),
    STRING("activation.sample", activation_sample, "none|wta-crs|crs|rad", "none",
           "Keeps a random sample of the inputs of linear layers instead of all of them."),
    NUMBER("activation.keep", activation_keep, 0, 1, "fraction", "0.3",
           "The share that activation.sample keeps: of the tokens, or with rad of the columns."),
    STRING(
        "activation.offload", activation_offload, "none|host|ssd", "none",
        "Where the activations of all but three blocks wait for the backward pass: on the device, "
        "in host memory, or in a file on an SSD."),
    STRING("activation.offload_dir", activation_offload_dir, "a directory", "",
           "Folder for activation.offload=ssd; empty: that of the run. The file has no name."),
    WHOLE("activation.resident", activation_resident, -1, 100000, "blocks", "0",
          "Last blocks whose activations stay on the device beside the three; -1: as many as it "
          "takes "
          "to hide the transfers behind the computation, measured when the run starts."),

    /* Betas that stay below 1 in fp32, and an eps that is no 0 there: where a gradient is always 0,
     * the update divides by it. */
    STRING("optimizer.name", optimizer_name, "adamw|sgd|tradam", "adamw", "The update rule."),
    LIVE_NUMBER("optimizer.lr", optimizer_lr, 0, 1e3, "", "0.0001",
                "Learning rate at the top of the schedule."),
    NUMBER("optimizer.beta1", optimizer_beta1, 0, 0.999999, "", "0.9",
           "Decay of the first moment."),
    NUMBER("optimizer.beta2", optimizer_beta2, 0, 0.999999, "", "0.999",
           "Decay of the second moment."),
    NUMBER("optimizer.eps", optimizer_eps, 1e-30, 1, "", "1e-08",
           "Added to the root of the second moment."),
    LIVE_NUMBER("optimizer.weight_decay", optimizer_weight_decay, 0, 1e3, "", "0",
                "Decoupled decay of matrices, embeddings and head; norms do not decay."),
    CHOICE(
        "optimizer.state", optimizer_state, state_names, "fp32",
        "Storage format of the moments: int8 stores them in blocks of 256 that share a magnitude "
        "(adamw; tensors of less than 4096 elements stay fp32)."),
    WHOLE("optimizer.anchor_interval", optimizer_anchor_interval, 1, MOST, "steps", "10",
          "tradam: steps between two anchors, towards which the weights are drawn."),
    NUMBER("optimizer.anchor_weight", optimizer_anchor_weight, 0, 1e6, "", "0.01",
           "tradam: strength of the pull towards the anchor; its gradient is twice this times the "
           "distance. Where that is no longer small beside the gradients of single weights, they "
           "stand still."),
    CHOICE("optimizer.anchor_step", optimizer_anchor_step, anchor_step_names, "harmonic",
           "tradam: harmonic divides the learning rate by 1, 2, 3 ... after each anchor, as its "
           "authors' program does (the mean over 10 steps is 0.29 of it); full leaves it as it "
           "is."),
    CHOICE("schedule.name", schedule_name, schedule_names, "constant",
           "Course of the learning rate after the warm-up."),
    WHOLE("schedule.warmup", schedule_warmup, 0, MOST, "steps", "0",
          "Steps over which the learning rate grows linearly from zero."),
    NUMBER("schedule.floor", schedule_floor, 0, 1, "fraction of lr", "0",
           "What is left of the learning rate at the last step (linear, cosine, wsd)."),

    WHOLE("batch.micro", batch_micro, 1, 65536, "rows", "8",
          "Rows that pass through the model at once: the knob for activation memory."),
    WHOLE("batch.accumulate", batch_accumulate, 1, 65536, "micro-batches", "1",
          "Micro-batches whose gradients are summed for one optimizer step."),
    WHOLE("train.steps", train_steps, 0, MOST, "steps", "0",
          "Optimizer steps in all; 0: counted in epochs. Setting it clears train.epochs."),
    NUMBER("train.epochs", train_epochs, 0, 1e6, "epochs", "1",
           "Passes over the training rows; 0: counted in steps. Setting it clears train.steps."),
    LIVE_NUMBER("train.clip", train_clip, 0, 1e6, "", "1",
                "Largest gradient norm; what is above is scaled down. 0: off."),
    WHOLE("train.seed", train_seed, 0, 9007199254740991.0, "", "1",
          "Seed of everything random: weights, order of the data, selection, samples."),
    LIVE_WHOLE(
        "train.eval_every", train_eval_every, 0, MOST, "steps", "100",
        "Steps between evaluations on the validation rows, of at most 64 micro-batches each; "
        "the last one takes all rows. 0: never."),
    LIVE_WHOLE("train.save_every", train_save_every, 0, MOST, "steps", "200",
               "Steps between checkpoints; one is also saved at the end. 0: never."),
    WHOLE("train.keep", train_keep, 1, 100000, "checkpoints", "2",
          "Checkpoints kept besides the best and the one that was resumed from."),
    BOOL("train.export", train_export, "false",
         "Writes the trained model as a Hugging Face directory into the run at the end."),
    LIVE_WHOLE("train.sample_every", train_sample_every, 0, MOST, "steps", "0",
               "Steps between texts that the model writes on train.sample_prompt. 0: never."),
    STRING("train.sample_prompt", train_sample_prompt, "a text", "",
           "How the samples begin; empty: with the first word of the model's choice."),
    BOOL("train.deterministic", train_deterministic, "true",
         "The same losses bit for bit in every repetition; on the cpu this is always so."),

    CHOICE("precision.weights", precision_weights, weight_names, "fp32",
           "Storage format of weights and activations."),
    CHOICE("precision.rounding", precision_rounding, rounding_names, "nearest",
           "How updates are rounded into bf16: to the nearest, or up and down at random so that "
           "small updates are not lost."),
    CHOICE("precision.exchange", precision_exchange, exchange_names, "gradient",
           "Format in which several ranks exchange gradients: that of the gradients themselves, or "
           "another; bf16 for fp32 gradients halves the bytes."),
    STRING("device", device, "auto|cpu|cuda|cuda:N", "auto",
           "Where the model trains; auto takes a GPU if there is one."),
    { .key = "memory.limit",
      .type = FIELD_BYTES,
      .offset = offsetof(struct recipe, memory_limit),
      .unit = "bytes",
      .help = "A run whose plan is larger is refused before it starts; 0: what the device has.",
      .minimum = 0,
      .maximum = 0x1p50,
      .default_text = "0" },
    STRING(
        "kernel.attention", kernel_attention, "auto|own|cudnn", "auto",
        "Which attention kernels run: cuDNN's, our own, or cuDNN's where the device has them and "
        "they do what is asked for. Rows packed of several records always take our own."),
    STRING("compare.methods", compare_methods, "names of methods, with commas",
           "full,grass,galore,lora",
           "What `windrow compare RECIPE` trains side by side; a method may carry settings: "
           "grass:method.rank=32."),
    { .key = NULL },
};

_Static_assert(sizeof recipe_fields / sizeof recipe_fields[0] <= RECIPE_FIELD_LIMIT,
               "raise RECIPE_FIELD_LIMIT");

const struct field *recipe_field(const char *key)
{
    for (const struct field *field = recipe_fields; field->key; field++) {
        if (strcmp(field->key, key) == 0) {
            return field;
        }
    }
    return NULL;
}
