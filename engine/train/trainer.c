/* Building a trainer. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/targets.h"
#include "engine/model/model_weights.h"
#include "engine/train/trainer_parts.h"

const char *const trainer_phase_names[PHASE_COUNT] = {
    "forward", "backward", "refresh", "update", "evaluate", "sample", "idle",
};

void trainer_enter(struct trainer *trainer, enum trainer_phase phase)
{
    trainer->phase = phase;
    backend_time_part(trainer->be, (int)phase);
    if (trainer->on_phase != NULL) {
        trainer->on_phase(trainer->context, phase);
    }
}

int trainer_device_error(struct trainer *trainer, struct error *err)
{
    if (trainer->offload.trouble.message[0] != '\0') {
        *err = trainer->offload.trouble; /* what made the backend fail, with its hint */
        return -1;
    }
    return fail(err, ERROR_RUNTIME, "%s: %s", trainer->be->facts.device, trainer->be->error);
}

/* The refresh of a matrix interrupts the backward it happens in. */
static void on_refresh(void *context, bool begin)
{
    trainer_enter(context, begin ? PHASE_REFRESH : PHASE_BACKWARD);
}

static void weight_gradient(void *context, struct pass *pass, const struct linear *linear,
                            const struct tensor *dy, const struct tensor *x)
{
    struct method *method = context;
    method->ops->weight_gradient(method, pass, linear, dy, x);
}

static void add_forward(void *context, struct pass *pass, const struct linear *linear,
                        struct tensor *y, const struct tensor *x)
{
    struct method *method = context;
    method->ops->forward(method, pass, linear, y, x);
}

static void add_input_gradient(void *context, struct pass *pass, const struct linear *linear,
                               struct tensor *dx, const struct tensor *dy)
{
    struct method *method = context;
    method->ops->input_gradient(method, pass, linear, dx, dy);
}

static void head_bounds(void *context, struct pass *pass, const struct linear *linear, bool begin)
{
    struct method *method = context;
    method->ops->head(method, pass, linear, begin);
}

static const struct tensor *wanted_columns(void *context, const struct linear *linear, bool *known)
{
    struct method *method = context;
    return method->ops->columns != NULL ? method->ops->columns(method, linear, known) : NULL;
}

void trainer_take_settings(struct trainer *trainer)
{
    const struct recipe *recipe = &trainer->recipe;
    static const enum dtype state_dtypes[] = {
        [STATE_FP32] = DTYPE_F32, [STATE_BF16] = DTYPE_BF16, [STATE_INT8] = DTYPE_U8
    };
    trainer->method.settings = (struct method_settings){
        .rank = recipe->method_rank,
        .interval = recipe->method_interval,
        .selection = (enum select_rule)recipe->method_selection,
        .replacement = recipe->method_replacement,
        .unbiased = recipe->method_unbiased,
        .side = (enum selection_side)recipe->method_side,
        .head_rows = recipe->method_head == METHOD_HEAD_ROWS,
        .embedding_rows = recipe->method_embedding == METHOD_EMBEDDING_ROWS,
        .scale = recipe->method_scale,
        .carry = recipe->method_carry,
        .refresh_warmup = recipe->method_refresh_warmup,
        .sketch = recipe->method_sketch,
        .unselected_every = recipe->method_unselected_every,
        .unselected_scale = recipe->method_unselected_scale,
        .exact_rows = recipe->method_exact_rows,
        .targets = recipe->method_targets,
        .frozen = recipe->method_frozen,
        .rank_pattern = recipe->method_rank_pattern,
        .alpha_pattern = recipe->method_alpha_pattern,
        .alpha = recipe->method_alpha,
        .projection = (enum projection)recipe->method_projection,
        .moments = (enum moments)recipe->method_moments,
        .stagger = recipe->method_stagger,
        .weight_decay = recipe->optimizer_weight_decay,
        .state_dtype = state_dtypes[recipe->optimizer_state],
        .seed = (uint64_t)recipe->train_seed,
    };
}

/* Gives the method the head, if it is to have it. */
static int give_head(struct trainer *trainer, struct error *err)
{
    struct model *model = &trainer->model;
    const struct method *method = &trainer->method;
    if (!method->settings.head_rows || method->ops->head == NULL || model->head->frozen) {
        return 0;
    }
    if (model->head == model->embedding) {
        fail(err, ERROR_USAGE,
             "method.head=rows does not go with this model: its head is its embedding, whose "
             "gradient from the inputs is not one product");
        return hint(err, "use method.head=full");
    }
    model_give_head(model);
    return 0;
}

int trainer_attach(struct trainer *trainer, struct error *err)
{
    struct method *method = &trainer->method;
    const struct targets targets = { .trained = method->settings.targets,
                                     .frozen = method->settings.frozen,
                                     .rank_pattern = method->settings.rank_pattern,
                                     .alpha_pattern = method->settings.alpha_pattern,
                                     .adapters = method->ops->adapters };
    if (targets_apply(&trainer->model, &targets, err) != 0 || give_head(trainer, err) != 0) {
        return -1;
    }
    const struct recipe *recipe = &trainer->recipe;
    int64_t tokens = recipe->batch_accumulate * recipe->batch_micro * recipe->data_sequence_length;
    int64_t of_all = trainer->comm->ranks * tokens;
    if (dense_attach(&trainer->dense, method, of_all, err) != 0) {
        return -1;
    }
    if (trainer->dense.by_rows && trainer->step_ids == NULL) {
        trainer->step_ids = xcalloc((size_t)(of_all + tokens), sizeof *trainer->step_ids);
    }
    trainer->dense_gradients.tensor = trainer->dense.gradient;
    return method->ops->attach(method, err);
}

static struct exchange exchange_of(const struct trainer *trainer)
{
    int wanted = trainer->recipe.precision_exchange;
    return (struct exchange){ .be = trainer->be,
                              .memory = trainer->memory,
                              .comm = trainer->comm,
                              .converts = wanted != EXCHANGE_GRADIENT,
                              .wire = wanted == EXCHANGE_BF16 ? DTYPE_BF16 : DTYPE_F32 };
}

static int find_parts(struct trainer *trainer, struct error *err)
{
    const struct recipe *recipe = &trainer->recipe;
    struct method *method = &trainer->method;
    method->ops = method_find(recipe->method_name);
    method->rule = rule_find(recipe->optimizer_name);
    trainer->policy = activation_find(recipe->activation_recompute);
    if (recipe->activation_keep < 1.0) { /* all of it is no sample, but what there is */
        trainer->sampler = (struct input_sampler){ .ops = sampler_find(recipe->activation_sample),
                                                   .keep = recipe->activation_keep,
                                                   .seed = (uint64_t)recipe->train_seed };
    }
    if (method->ops == NULL) {
        return fail(err, ERROR_USAGE, "method.name: '%s' is not built in", recipe->method_name);
    }
    if (method->rule == NULL) {
        return fail(err, ERROR_USAGE, "optimizer.name: '%s' is not built in",
                    recipe->optimizer_name);
    }
    if (trainer->policy == NULL) {
        return fail(err, ERROR_USAGE, "activation.recompute: '%s' is not built in",
                    recipe->activation_recompute);
    }
    method->be = trainer->be;
    method->memory = trainer->memory;
    method->model = &trainer->model;
    method->comm = trainer->comm;
    trainer->exchange = exchange_of(trainer);
    method->exchange = &trainer->exchange;
    method->on_refresh = on_refresh;
    method->context = trainer;
    bool adds = method->ops->forward != NULL && !trainer->inference;
    trainer->hooks = (struct linear_hooks){ .forward = adds ? add_forward : NULL,
                                            .input_gradient = adds ? add_input_gradient : NULL,
                                            .weight_gradient = weight_gradient,
                                            .head = head_bounds,
                                            .columns = wanted_columns,
                                            .context = method };
    trainer_take_settings(trainer);
    if (recipe->method_inputs == METHOD_INPUTS_COLUMNS && method->ops->inputs != NULL) {
        trainer->sampler = (struct input_sampler){ .ops = method->ops->inputs, .context = method };
    }
    return 0;
}

static void place_inputs(struct trainer *trainer, struct trainer_inputs *input)
{
    struct memory *memory = trainer->memory;
    int64_t tokens = trainer->recipe.batch_micro * trainer->recipe.data_sequence_length;
    struct {
        struct tensor *tensor;
        const char *name;
    } rows[] = {
        { &input->ids, "token ids" },
        { &input->targets, "targets" },
        { &input->positions, "positions" },
        { &input->starts, "record starts" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i].tensor =
            memory_vector(memory, MEMORY_ACTIVATIONS, rows[i].name, DTYPE_I32, tokens);
    }
    input->scale = memory_vector(memory, MEMORY_ACTIVATIONS, "loss scale", DTYPE_F32, 1);
}

static struct tensor answer_range(const struct trainer *trainer, int64_t first, int64_t count,
                                  const char *name)
{
    struct tensor column = tensor_as_matrix(&trainer->answer, STEP_ANSWER, 1);
    struct tensor view = tensor_row_range(&column, first, count);
    view.rank = 1;
    view.name = name;
    return view;
}

void trainer_place_step(struct trainer *trainer)
{
    const struct recipe *recipe = &trainer->recipe;
    bool ahead = trainer->be->facts.asynchronous && recipe->batch_accumulate > 1;
    trainer->inputs = ahead && !trainer->inference ? 2 : 1;
    for (int i = 0; i < trainer->inputs; i++) {
        place_inputs(trainer, &trainer->input[i]);
    }
    trainer->answer =
        memory_vector(trainer->memory, MEMORY_ACTIVATIONS, "step answer", DTYPE_F32, STEP_ANSWER);
    trainer->loss = answer_range(trainer, ANSWER_LOSS, 1, "loss");
    trainer->sum_squares = answer_range(trainer, ANSWER_SQUARES, 1, "sum of squares");
    trainer->control = answer_range(trainer, ANSWER_CONTROL, CONTROL_COUNT, "step control");
}

/* Only blocks with a backward keep anything. */
static int prepare_offload(struct trainer *trainer, struct store *store, struct error *err)
{
    const struct recipe *recipe = &trainer->recipe;
    int64_t layers = trainer->model.config.layers - trainer->model.first_trained;
    int64_t resident = recipe->activation_resident > 0 ? recipe->activation_resident : 0;
    trainer->offloads =
        strcmp(recipe->activation_offload, "none") != 0 && offload_spans(layers, resident) > 0;
    if (!trainer->offloads) {
        return 0;
    }
    if (offload_check(&trainer->model, err) != 0) {
        return -1;
    }
    if (store == NULL && !trainer->be->facts.imaginary) {
        return fail(err, ERROR_RUNTIME, "activation.offload=%s without a place to put them",
                    recipe->activation_offload);
    }
    offload_init(&trainer->offload, layers, resident, store);
    return 0;
}

int64_t trainer_offload_spans(const struct trainer *trainer)
{
    return trainer->offloads ? offload_spans(trainer->offload.layers, trainer->offload.resident)
                             : 0;
}

size_t trainer_offload_bytes(const struct trainer *trainer)
{
    return trainer->offloads ? offload_span_bytes(&trainer->offload) : 0;
}

size_t trainer_host_bytes(const struct trainer *trainer)
{
    const struct method_ops *ops = trainer->method.ops;
    bool ssd = strcmp(trainer->recipe.activation_offload, "ssd") == 0;
    size_t bytes = ops->host_bytes != NULL ? ops->host_bytes(&trainer->method) : 0;
    if (trainer->offloads) {
        struct store_options options = { .kind = ssd ? STORE_SSD : STORE_HOST,
                                         .span_bytes = trainer_offload_bytes(trainer),
                                         .spans = trainer_offload_spans(trainer) };
        bytes += (size_t)store_host_bytes(&options);
    }
    return bytes;
}

static int build(struct trainer *trainer, const struct trainer_options *options, struct error *err)
{
    const struct recipe *recipe = &trainer->recipe;
    int64_t positions = recipe->data_sequence_length;
    if (options->inference && options->positions > positions) {
        positions = options->positions;
    }
    if (model_init(&trainer->model, options->config, (enum dtype)recipe->precision_weights,
                   positions, err) != 0) {
        return -1;
    }
    trainer->memory = memory_open(trainer->be, options->capacity, err);
    if (trainer->memory == NULL) {
        return -1;
    }
    model_place(&trainer->model, trainer->be, trainer->memory);
    trainer->after_weights = memory_mark(trainer->memory, MEMORY_WEIGHTS);
    size_t tokens = (size_t)(recipe->batch_micro * recipe->data_sequence_length);
    size_t row = (tokens * sizeof(int32_t) + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT;
    trainer->packed = xcalloc(4 * row + 1, MEMORY_ALIGNMENT);
    trainer_place_step(trainer);
    if (find_parts(trainer, err) != 0) {
        return -1;
    }
    if (!trainer->inference &&
        (trainer_attach(trainer, err) != 0 || prepare_offload(trainer, options->store, err) != 0)) {
        return -1;
    }
    if (recipe->model_init == MODEL_RANDOM) {
        model_randomize(&trainer->model, trainer->be, (uint64_t)recipe->train_seed);
    }
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

struct trainer *trainer_open(const struct trainer_options *options, struct error *err)
{
    struct trainer *trainer = xcalloc(1, sizeof *trainer);
    recipe_init(&trainer->recipe);
    recipe_copy(&trainer->recipe, options->recipe);
    trainer->be = options->be;
    trainer->alone = options->comm == NULL ? comm_open_single() : NULL;
    trainer->comm = options->comm != NULL ? options->comm : trainer->alone;
    trainer->reports = xcalloc((size_t)trainer->comm->ranks, sizeof *trainer->reports);
    trainer->on_phase = options->on_phase;
    trainer->context = options->context;
    trainer->inference = options->inference;
    trainer->phase = PHASE_IDLE;
    if (build(trainer, options, err) != 0) {
        trainer_close(trainer);
        return NULL;
    }
    return trainer;
}

void trainer_close(struct trainer *trainer)
{
    if (trainer == NULL) {
        return;
    }
    if (trainer->comm != NULL) {
        comm_wait(trainer->comm, trainer->be); /* a step that failed may have left sums under way */
    }
    if (trainer->method.state != NULL) {
        trainer->method.ops->detach(&trainer->method);
    }
    dense_detach(&trainer->dense);
    free(trainer->cache.keys);
    free(trainer->cache.values);
    free(trainer->item);
    free(trainer->packed);
    free(trainer->step_ids);
    free(trainer->reports);
    memory_close(trainer->memory);
    model_free(&trainer->model);
    comm_close(trainer->alone);
    recipe_free(&trainer->recipe);
    free(trainer);
}

/* ---- weights ------------------------------------------------------------------------------------
 */

static int load_parameter(struct trainer *trainer, struct parameter *p,
                          const struct weights_tensor *tensor, struct error *err)
{
    enum { CHUNK = 1 << 18 };
    size_t width = dtype_size(p->value.dtype);
    int64_t count = parameter_count(p);
    void *host = xmalloc(CHUNK * width);
    for (int64_t first = 0; first < count; first += CHUNK) {
        int64_t n = count - first < CHUNK ? count - first : CHUNK;
        if (weights_read_range(tensor, first, n, host, p->value.dtype, err) != 0) {
            free(host);
            return -1;
        }
        backend_upload(trainer->be, (char *)p->value.data + (size_t)first * width, host,
                       (size_t)n * width);
    }
    free(host);
    return 0;
}

int trainer_load_weights(struct trainer *trainer, struct weights_source *source, struct error *err)
{
    if (model_check_weights(&trainer->model.config, source, err) != 0) {
        return -1;
    }
    for (int64_t i = 0; i < trainer->model.parameter_count; i++) {
        struct parameter *p = &trainer->model.parameter[i];
        struct weights_tensor tensor;
        if (weights_require(source, p->name, p->rank, p->dim, &tensor, err) != 0 ||
            load_parameter(trainer, p, &tensor, err) != 0) {
            return -1;
        }
    }
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

/* ---- facts --------------------------------------------------------------------------------------
 */

const struct model_config *trainer_config(const struct trainer *trainer)
{
    return &trainer->model.config;
}

const struct recipe *trainer_recipe(const struct trainer *trainer)
{
    return &trainer->recipe;
}

struct memory *trainer_memory(struct trainer *trainer)
{
    return trainer->memory;
}

int64_t trainer_positions(const struct trainer *trainer)
{
    return trainer->model.positions;
}

int64_t trainer_parameter_count(const struct trainer *trainer)
{
    return model_size(&trainer->model);
}

int64_t trainer_trained_count(const struct trainer *trainer)
{
    int64_t count = 0;
    for (int64_t i = 0; !trainer->inference && i < trainer->model.parameter_count; i++) {
        const struct parameter *p = &trainer->model.parameter[i];
        count += p->frozen ? 0 : parameter_count(p);
    }
    for (int64_t i = 0; i < trainer_adapter_count(trainer); i++) {
        struct method_adapter adapter;
        trainer->method.ops->adapter(&trainer->method, i, &adapter);
        count += tensor_count(&adapter.a) + tensor_count(&adapter.b);
    }
    return count;
}

int64_t trainer_adapter_count(const struct trainer *trainer)
{
    const struct method_ops *ops = trainer->method.ops;
    bool has = !trainer->inference && ops->adapter_count != NULL;
    return has ? ops->adapter_count(&trainer->method) : 0;
}

void trainer_adapter(const struct trainer *trainer, int64_t index, struct adapter_entry *out)
{
    struct method_adapter adapter;
    trainer->method.ops->adapter(&trainer->method, index, &adapter);
    *out = (struct adapter_entry){ .parameter = adapter.parameter->name,
                                   .rank = adapter.rank,
                                   .rows = adapter.b.dim[0],
                                   .columns = adapter.a.dim[1],
                                   .scale = adapter.scale };
}

int trainer_load_adapter(struct trainer *trainer, const struct adapter *adapter, struct error *err)
{
    struct method *method = &trainer->method;
    for (int64_t i = 0; i < trainer_adapter_count(trainer); i++) {
        struct method_adapter own;
        method->ops->adapter(method, i, &own);
        const struct adapter_entry *entry = adapter_find(adapter, own.parameter->name);
        if (entry == NULL || entry->rank != own.rank) {
            return fail(err, ERROR_DATA,
                        "%s: the adapter of %s has rank %lld, the recipe asks %lld",
                        adapter->directory, own.parameter->name,
                        entry == NULL ? 0LL : (long long)entry->rank, (long long)own.rank);
        }
        backend_upload(trainer->be, own.a.data, entry->a, tensor_bytes(&own.a));
        backend_upload(trainer->be, own.b.data, entry->b, tensor_bytes(&own.b));
    }
    method->ops->renew(method);
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

int64_t trainer_selection_count(const struct trainer *trainer)
{
    return trainer->method.ops->selection_count(&trainer->method);
}

int trainer_selection(const struct trainer *trainer, int64_t index, struct selection_report *report)
{
    if (index < 0 || index >= trainer_selection_count(trainer)) {
        return -1;
    }
    trainer->method.ops->selection(&trainer->method, index, report);
    return 0;
}
