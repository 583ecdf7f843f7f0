#include "small.h"

int64_t dice_roll(struct dice *dice, int64_t sides)
{
    struct random_key key = { .seed = dice->state, .purpose = RANDOM_TEST };
    dice->state++;
    return (int64_t)(random_u32(&key, 0) % (uint32_t)sides);
}

int64_t dice_pick(struct dice *dice, const int64_t *choices, int64_t count)
{
    return choices[dice_roll(dice, count)];
}

void small_config(struct dice *dice, struct model_config *config)
{
    struct error err = { 0 };
    *config = (struct model_config){ .family = "llama", .model_type = "llama" };
    config->hidden_size = DICE_PICK(dice, 1, 2, 5, 8, 16);
    config->intermediate_size = DICE_PICK(dice, 1, 3, 8, 17);
    config->layers = 1 + dice_roll(dice, 3);
    config->kv_heads = 1 + dice_roll(dice, 2);
    config->heads = config->kv_heads * (1 + dice_roll(dice, 3));
    config->head_size = DICE_PICK(dice, 2, 4, 6);
    config->vocabulary = DICE_PICK(dice, 1, 2, 7, 33);
    config->max_positions = 64;
    config->rms_norm_eps = 1e-5;
    config->rope_theta = 10000.0;
    config->tied = dice_roll(dice, 2) == 1;
    config->bos = config->eos = config->pad = -1;
    config->initializer_range = 0.3;
    config->dtype = DTYPE_F32;
    check(config_check("drawn at random", config, &err), &err);
}

void small_batch(struct dice *dice, int64_t vocabulary, struct batch *batch)
{
    batch->trained_tokens = 0;
    for (int64_t i = 0; i < batch->rows * batch->sequence; i++) {
        int64_t s = i % batch->sequence;
        bool first = s == 0 || dice_roll(dice, 5) == 0;
        batch->ids[i] = (int32_t)dice_roll(dice, vocabulary);
        batch->targets[i] =
            i == 0 || dice_roll(dice, 4) != 0 ? (int32_t)dice_roll(dice, vocabulary) : -1;
        batch->starts[i] = (int32_t)(first ? s : batch->starts[i - 1]);
        batch->positions[i] = (int32_t)s - batch->starts[i];
        batch->trained_tokens += batch->targets[i] >= 0;
    }
}

struct backend *small_backend(void)
{
    char why[256];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(be);
    return be;
}

struct store *small_store(const struct recipe *recipe, const struct plan *plan, struct backend *be)
{
    struct error err = { 0 };
    if (plan->offload_spans == 0) {
        return NULL;
    }
    bool ssd = strcmp(recipe->activation_offload, "ssd") == 0;
    struct store *store =
        store_open(&(struct store_options){ .kind = ssd ? STORE_SSD : STORE_HOST,
                                            .be = be,
                                            .directory = "/tmp",
                                            .span_bytes = plan->offload_span_bytes,
                                            .spans = plan->offload_spans },
                   &err);
    check(store == NULL ? -1 : 0, &err);
    return store;
}

struct trainer *small_trainer(const struct recipe *recipe, const struct model_config *config,
                              const struct plan *plan, struct backend *be)
{
    return small_trainer_with(recipe, config, plan, be, NULL);
}

struct trainer *small_trainer_with(const struct recipe *recipe, const struct model_config *config,
                                   const struct plan *plan, struct backend *be, struct store *store)
{
    struct error err = { 0 };
    struct trainer *trainer = trainer_open(
        &(struct trainer_options){
            .recipe = recipe, .config = config, .be = be, .capacity = plan->bytes, .store = store },
        &err);
    check(trainer == NULL ? -1 : 0, &err);
    return trainer;
}

void small_digest(struct trainer *trainer, char text[DIGEST_TEXT_SIZE])
{
    struct fixture f = { .trainer = trainer };
    fixture_digest(&f, text);
}
