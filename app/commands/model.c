/* eval, generate and export: what a model can do. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/commands/command.h"
#include "app/commands/common.h"
#include "app/commands/output.h"
#include "app/text.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/generate.h"
#include "engine/run.h"

/* ---- eval ----------------------------------------------------------------------------------- */

struct evaluation {
    double loss_sum;
    int64_t tokens;
    int64_t rows;
};

/* The last block of rows wraps around to the first; what was counted already carries no loss. */
static void drop_rows(struct batch *batch, int64_t keep)
{
    for (int64_t i = keep * batch->sequence; i < batch->rows * batch->sequence; i++) {
        batch->trained_tokens -= batch->targets[i] >= 0 ? 1 : 0;
        batch->targets[i] = -1;
    }
}

static int evaluate(struct trainer *trainer, const struct dataset *dataset, int64_t rows,
                    struct evaluation *out, struct error *err)
{
    const struct recipe *recipe = trainer_recipe(trainer);
    struct batch batch;
    double told = clock_monotonic();
    if (batch_init(&batch, recipe->batch_micro, recipe->data_sequence_length, err) == -1) {
        return -1;
    }
    int result = 0;
    for (int64_t first = 0; first < rows && result == 0; first += batch.rows) {
        double sum = 0;
        int64_t tokens = 0;
        dataset_fill(dataset, DATA_TRAIN, first, &batch);
        if (first + batch.rows > rows) {
            drop_rows(&batch, rows - first);
        }
        result = trainer_evaluate(trainer, &batch, &sum, &tokens, err);
        out->loss_sum += sum;
        out->tokens += tokens;
        out->rows += first + batch.rows > rows ? rows - first : batch.rows;
        if (result == 0 && clock_monotonic() - told >= 1) {
            told = clock_monotonic();
            output_say("%lld of %lld rows, loss %s", (long long)out->rows, (long long)rows,
                       text_loss(out->loss_sum / (double)out->tokens).text);
        }
    }
    batch_free(&batch);
    return result;
}

/* MODEL, DATA and the settings as one recipe that never shuffles. */
static int eval_recipe(struct recipe *recipe, const struct arguments *arguments, struct error *err)
{
    if (recipe_take_model(recipe, arguments->word[0], err) == -1 ||
        recipe_set_text(recipe, "data.train", arguments->word[1], err) == -1) {
        return -1;
    }
    if (recipe_take_adapter(recipe, arguments, err) == -1 || recipe_fit_length(recipe, err) == -1 ||
        recipe_set_integer(recipe, "batch.micro", 4, err) == -1 ||
        recipe_take_settings(recipe, arguments, err) == -1 ||
        recipe_set_text(recipe, "data.validation", "", err) == -1) {
        return -1;
    }
    return recipe_set_text(recipe, "data.shuffle", "false", err);
}

static void print_evaluation(const struct arguments *arguments, const struct evaluation *found)
{
    double loss = found->loss_sum / (double)found->tokens;
    if (arguments->json) {
        cJSON *root = cJSON_CreateObject();
        json_add_text(root, "model", arguments->word[0]);
        json_add_text(root, "data", arguments->word[1]);
        json_add_number(root, "loss", loss);
        json_add_number(root, "perplexity", exp(loss));
        json_add_number(root, "tokens", (double)found->tokens);
        json_add_number(root, "rows", (double)found->rows);
        output_json(root);
        return;
    }
    output_data("loss        %.6f nats a token\nperplexity  %.4f\ntokens      %lld in %lld rows\n",
                loss, exp(loss), (long long)found->tokens, (long long)found->rows);
}

static int eval_open(const struct recipe *recipe, const struct arguments *arguments,
                     const struct material *material, struct error *err)
{
    struct looker looker;
    struct evaluation found = { 0 };
    int64_t rows = dataset_facts(material->dataset)->rows[DATA_TRAIN];
    int64_t wanted = rows;
    const char *notice;
    if (option_integer(arguments, "rows", 1, INT64_MAX, &wanted, err) == -1 ||
        looker_open(&looker, recipe, material, recipe->data_sequence_length, err) == -1) {
        return -1;
    }
    for (int i = 0; (notice = dataset_notice(material->dataset, i)) != NULL; i++) {
        output_warning(notice);
    }
    int result =
        evaluate(looker.trainer, material->dataset, wanted < rows ? wanted : rows, &found, err);
    looker_close(&looker);
    if (result == 0 && found.tokens == 0) {
        return fail(err, ERROR_DATA, "%s: no token of these rows is trained, so there is no loss",
                    recipe->data_train);
    }
    if (result == 0 && !isfinite(found.loss_sum)) {
        return fail(err, ERROR_DATA, "%s: the loss is not finite: the weights are damaged",
                    material->model_name);
    }
    if (result == 0) {
        print_evaluation(arguments, &found);
    }
    return result;
}

int command_eval(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct material material;
    recipe_init(&recipe);
    int result = eval_recipe(&recipe, arguments, &err);
    if (result == 0) {
        result = material_open(&recipe, MATERIAL_TOKENIZER | MATERIAL_DATA, NULL, &material, &err);
        if (result == 0) {
            result = eval_open(&recipe, arguments, &material, &err);
            material_close(&material);
        }
    }
    recipe_free(&recipe);
    return result == -1 ? output_error(&err) : 0;
}

/* ---- generate ------------------------------------------------------------------------------- */

/* To a terminal only what cannot command it, elsewhere the bytes as they are. */
static void write_text(void *context, const char *text, size_t size)
{
    const bool *terminal = context;
    if (*terminal) {
        output_data("%.*s", (int)size, text);
    } else {
        output_bytes(text, size);
    }
    fflush(stdout);
}

static int generate_options_read(const struct arguments *arguments,
                                 struct generate_options *options, struct error *err)
{
    int64_t seed = 0;
    *options = (struct generate_options){ .max_tokens = 128, .temperature = 0.8, .top_p = 0.95 };
    options->prompt = option_text(arguments, "prompt");
    if (options->prompt == NULL) {
        fail(err, ERROR_USAGE, "windrow generate needs --prompt TEXT");
        return hint(err, "--prompt '' begins with nothing");
    }
    if (option_integer(arguments, "max-tokens", 1, 1 << 20, &options->max_tokens, err) == -1 ||
        option_number(arguments, "temperature", 0, 100, &options->temperature, err) == -1 ||
        option_number(arguments, "top-p", 1e-6, 1, &options->top_p, err) == -1 ||
        option_integer(arguments, "seed", 0, INT64_MAX, &seed, err) == -1) {
        return -1;
    }
    options->seed = (uint64_t)seed;
    return 0;
}

/* Positions for BOS, the prompt and what follows, as far as the model goes. */
static int count_positions(const struct material *material, const struct generate_options *options,
                           int64_t *positions, struct error *err)
{
    struct token_list prompt = { 0 };
    char why[256];
    if (tokenizer_encode(material->tokenizer, options->prompt, strlen(options->prompt), &prompt,
                         why, sizeof why) == -1) {
        return fail(err, ERROR_USAGE, "--prompt: %s", why);
    }
    int64_t wanted = 1 + (int64_t)prompt.count + options->max_tokens;
    token_list_free(&prompt);
    *positions = wanted < material->config.max_positions ? wanted : material->config.max_positions;
    return 0;
}

static int generate(struct recipe *recipe, const struct arguments *arguments,
                    struct generate_options *options, const struct material *material,
                    struct error *err)
{
    int64_t positions = 0;
    struct looker looker;
    bool terminal = isatty(STDOUT_FILENO) != 0;
    if (count_positions(material, options, &positions, err) == -1 ||
        looker_open(&looker, recipe, material, positions, err) == -1) {
        return -1;
    }
    if (!arguments->json) {
        options->on_text = write_text;
        options->context = &terminal;
    }
    char *text = generate_text(looker.trainer, material->tokenizer, options, err);
    looker_close(&looker);
    if (text == NULL) {
        return -1;
    }
    if (arguments->json) {
        cJSON *root = cJSON_CreateObject();
        json_add_text(root, "prompt", options->prompt);
        json_add_text(root, "text", text);
        output_json(root);
    } else if (terminal) {
        output_bytes("\n", 1);
    }
    free(text);
    return 0;
}

int command_generate(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct material material;
    struct generate_options options;
    recipe_init(&recipe);
    int result = generate_options_read(arguments, &options, &err);
    if (result == 0) {
        result = recipe_take_model(&recipe, arguments->word[0], &err);
    }
    if (result == 0) {
        result = recipe_take_adapter(&recipe, arguments, &err);
    }
    /* Memory for one token at a time is enough. */
    if (result == 0) {
        result = recipe_set_integer(&recipe, "data.sequence_length", 1, &err);
    }
    if (result == 0) {
        result = recipe_set_integer(&recipe, "batch.micro", 1, &err);
    }
    if (result == 0) {
        result = recipe_take_settings(&recipe, arguments, &err);
    }
    if (result == 0) {
        result = material_open(&recipe, MATERIAL_TOKENIZER, NULL, &material, &err);
        if (result == 0) {
            result = generate(&recipe, arguments, &options, &material, &err);
            material_close(&material);
        }
    }
    recipe_free(&recipe);
    return result == -1 ? output_error(&err) : 0;
}

/* ---- export --------------------------------------------------------------------------------- */

int command_export(const struct arguments *arguments)
{
    struct error err = { 0 };
    const char *target = option_text(arguments, "to");
    int64_t step = 0;
    char *path = NULL;
    int result = option_integer(arguments, "step", 1, INT64_MAX, &step, &err);
    if (result == 0 && target == NULL) {
        result = fail(&err, ERROR_USAGE, "windrow export needs --to DIR");
        hint(&err, "DIR must not exist yet, or be empty");
    }
    if (result == 0) {
        path = run_resolve(arguments->word[0], &err);
        result = path == NULL
                     ? -1
                     : run_export(path, step, option_given(arguments, "adapter"), target, &err);
    }
    if (result == 0 && arguments->json) {
        cJSON *root = cJSON_CreateObject();
        json_add_text(root, "run", path_base(path));
        json_add_text(root, "path", target);
        output_json(root);
    } else if (result == 0) {
        output_say("wrote %s", target);
    }
    free(path);
    return result == -1 ? output_error(&err) : 0;
}
