/*
 * The trainer: a model, a method, an optimizer rule and an activation policy on one backend.
 *
 * No thread, no file, no clock but the backend's: the plan runs it on the null backend, the run
 * process on a real one, tests on both. Sizes depend on the recipe, never on the data.
 */
#ifndef WINDROW_ENGINE_TRAIN_TRAINER_H
#define WINDROW_ENGINE_TRAIN_TRAINER_H

#include "engine/dataset.h"
#include "engine/memory/memory.h"
#include "engine/method/selection.h"
#include "engine/method/state.h"
#include "engine/model/adapter.h"
#include "engine/model/config.h"
#include "engine/model/weights.h"
#include "engine/recipe.h"
#include "kernels/backend.h"

struct comm;  /* engine/comm/comm.h */
struct store; /* engine/activation/store.h */
struct trainer;

/* What a step is doing, told as it begins. */
enum trainer_phase {
    PHASE_FORWARD,
    PHASE_BACKWARD,
    PHASE_REFRESH, /* inside the backward of a refresh step, for each matrix: begin and end */
    PHASE_UPDATE,
    PHASE_EVALUATE,
    PHASE_SAMPLE,
    PHASE_IDLE,
    PHASE_COUNT
};
extern const char *const trainer_phase_names[PHASE_COUNT];

struct trainer_options {
    const struct recipe *recipe;       /* copied */
    const struct model_config *config; /* copied */
    struct backend *be;                /* outlives the trainer */
    const size_t *capacity; /* bytes per memory category from the plan; NULL: null backend */
    bool inference;         /* evaluates and generates only: no gradients, no states */
    int64_t positions;      /* inference: longest sequence (0: data.sequence_length) */
    struct comm *comm;      /* the ranks that train together; outlives the trainer; NULL: one */
    struct store *store;    /* outlives the trainer; for activation.offload: of the plan's spans */
    void (*on_phase)(void *context, enum trainer_phase phase); /* may be NULL */
    void *context;
};

/* Takes all memory. Weights are random (by the recipe's seed) until loaded or restored. */
struct trainer *trainer_open(const struct trainer_options *options, struct error *err);
void trainer_close(struct trainer *trainer);

/* Fills the weights from a model directory; every tensor must be there with the right shape. */
int trainer_load_weights(struct trainer *trainer, struct weights_source *source, struct error *err);

/* Takes the values of an adapter from files, of the very ranks that the recipe asks for. */
int trainer_load_adapter(struct trainer *trainer, const struct adapter *adapter, struct error *err);

/* ---- steps ---------------------------------------------------------------------------------- */

struct step_result {
    float loss;      /* sum of token losses / trained tokens; not finite if so */
    float grad_norm; /* before clipping */
    double learning_rate;
    int64_t tokens;               /* trained, by all ranks */
    int64_t positions;            /* processed, by all ranks: ranks * micro-batches * rows * S */
    double flops;                 /* that the operations asked for on this rank */
    double phase_ms[PHASE_COUNT]; /* times of the device; NaN where it cannot tell */
    double exchange_ms; /* that this rank stood in collectives, in no phase; NaN likewise */
    bool refreshed;     /* rows (or a subspace, of some matrices) were chosen anew in this step */
    bool skipped;       /* nothing was changed */
    const char *reason; /* why it was skipped; a constant */
};

/* One optimizer step: step number `step` (from 1; decides schedule, refresh and random numbers) on
 * `count` micro-batches (recipe batch.accumulate) of this rank; all ranks do the same step. -1 only
 * if the device or another rank failed or the batch holds ids outside the vocabulary. */
int trainer_step(struct trainer *trainer, int64_t step, const struct batch *batches, int64_t count,
                 struct step_result *result, struct error *err);

/* What each rank tells the others as a step begins: the tokens that it is about to train, and how
 * it fared. It goes from host to host as it is. Bytes of -1 and NaN are unknown. */
struct rank_report {
    int64_t tokens;
    double step_s;          /* the step before, from its rows to its end */
    double wait_s;          /* of that, in collectives: for other ranks and for the bytes */
    double exchanged_bytes; /* in it, as comm_counts.payload_bytes counts */
    int64_t bytes;          /* tensors alive now */
    int64_t peak_bytes;     /* at most at one time */
    int64_t planned_bytes;  /* the regions */
    int64_t limit_bytes;    /* that the plan was held to; 0: none */
    int64_t device_used_bytes;
    int64_t device_total_bytes;
    int64_t host_bytes;
    double gpu_util; /* percent */
    double temperature_c;
    double power_w;
};

/* What was sent while the micro-batches of the last step ran, beside them where the engine of the
 * ranks does so: sums of gradients that are complete before the last backward is, and what a
 * refresh sums. */
const struct comm_counts *trainer_sent_early(const struct trainer *trainer);

/* Tells this with the next steps; the trainer fills in the tokens. */
void trainer_tell_ranks(struct trainer *trainer, const struct rank_report *mine);
/* What the ranks told as the latest step began, in their order; they are the trainer's. */
const struct rank_report *trainer_rank_reports(const struct trainer *trainer);

/* Row selection (engine/method/selection.h): one report per matrix.
 * Number of reports of the latest refresh (0 if the method selects nothing). */
int64_t trainer_selection_count(const struct trainer *trainer);
int trainer_selection(const struct trainer *trainer, int64_t index,
                      struct selection_report *report);

/* ---- looking -------------------------------------------------------------------------------- */

/* Sum of losses and trained tokens of one batch, weights untouched. In a run, memory for it is
 * planned if recipe_evaluates. */
int trainer_evaluate(struct trainer *trainer, const struct batch *batch, double *loss_sum,
                     int64_t *tokens, struct error *err);

/* Starts generation anew with room for `length` tokens, at most trainer_positions. In a run, memory
 * for it is planned if train.sample_every is not 0. */
int trainer_generate_begin(struct trainer *trainer, int64_t length, struct error *err);
/* Feeds one token at the next position; logits (V) of what follows, or NULL if not wanted. */
int trainer_generate_feed(struct trainer *trainer, int32_t token, float *logits, struct error *err);
void trainer_generate_end(struct trainer *trainer);

/* What activation.offload moves in a micro-batch: spans and bytes of each; 0 where nothing moves.
 * Known after the first step. */
/* Host memory that the method and what activation.offload moves take, beside the process. */
size_t trainer_host_bytes(const struct trainer *trainer);
int64_t trainer_offload_spans(const struct trainer *trainer);
size_t trainer_offload_bytes(const struct trainer *trainer);

const struct model_config *trainer_config(const struct trainer *trainer);
const struct recipe *trainer_recipe(const struct trainer *trainer);
struct memory *trainer_memory(struct trainer *trainer);
/* Longest sequence that can be generated. */
int64_t trainer_positions(const struct trainer *trainer);
int64_t trainer_parameter_count(const struct trainer *trainer);
/* Parameters that may move at all under the method. */
int64_t trainer_trained_count(const struct trainer *trainer);

/* The adapters that train; 0 but for lora. Their values are the state tensors
 * "method/<parameter>/lora_A" and "lora_B"; the entry has no values. */
int64_t trainer_adapter_count(const struct trainer *trainer);
void trainer_adapter(const struct trainer *trainer, int64_t index, struct adapter_entry *out);

/* ---- live settings ----------------------------------------------------------------------------
 */

/* Takes over the live keys of `recipe` between two steps. `capacity` comes from a plan of that
 * recipe. If method.rank or any capacity changed, all but the weights are laid out anew; after a
 * change of rank the moments of the old selection wait on the host for the refresh that the next
 * step makes.
 *
 * A change is tried first, and before the next step either kept or taken back; then everything is
 * as it was, bit for bit. A change that cannot be made is an error and takes itself back. Only
 * where the memory given up for it is not to be had again, the trainer is lost. */
struct trainer_before; /* how things were */
struct trainer_before *trainer_try(struct trainer *trainer, const struct recipe *recipe,
                                   const size_t *capacity, struct error *err);
void trainer_keep(struct trainer_before *before);
int trainer_take_back(struct trainer *trainer, struct trainer_before *before, struct error *err);
/* Both at once: tries, and keeps what can be made. */
int trainer_apply(struct trainer *trainer, const struct recipe *recipe, const size_t *capacity,
                  struct error *err);
/* Whether a change took the trainer's memory: nothing but trainer_close may follow. */
bool trainer_lost(const struct trainer *trainer);

/* ---- state
 * --------------------------------------------------------------------------------------- */

/* Everything that must survive, as named tensors: weights under their Hugging Face names first,
 * then "optimizer/..." and "method/..." (struct state_entry in engine/method/state.h). The count
 * makes the list, which holds until the next step, apply or restore. */
int64_t trainer_state_count(struct trainer *trainer);
void trainer_state_entry(struct trainer *trainer, int64_t index, struct state_entry *entry);
/* Downloads elements [first, first + count) into `out` (of the entry's dtype). What is split over
 * several ranks is read by rank 0, while it shows states. */
int trainer_state_read(struct trainer *trainer, int64_t index, int64_t first, int64_t count,
                       void *out, struct error *err);

/* With several ranks: on rank 0, between the two trainer_state_read gives what others hold, and
 * trainer_state_finite asks all; the others are in trainer_serve_states, which returns at the end,
 * or with an error if a rank is lost. The end follows whatever failed in between. */
void trainer_show_states(struct trainer *trainer);
void trainer_show_end(struct trainer *trainer);
int trainer_serve_states(struct trainer *trainer, struct error *err);

/* Numbers that must survive beside the tensors. Steps are step numbers; all 0 before the first. */
struct trainer_counters {
    int64_t last_refresh; /* the step that chose the rows in use; 0: none yet */
    int64_t refresh_count;
};
void trainer_counters(const struct trainer *trainer, struct trainer_counters *counters);

/* Puts a saved state back. Method states of another rank are taken (they wait for the next refresh,
 * as after trainer_apply); anything else that does not match is an error naming the tensor. */
int trainer_restore(struct trainer *trainer, const struct state_source *source,
                    const struct trainer_counters *counters, struct error *err);

/* True if every element of every state tensor is finite; else names the first bad one. Of several
 * ranks it is what this one holds, unless states are shown. */
bool trainer_state_finite(struct trainer *trainer, const char **bad);

#endif
