/*
 * The plan: real steps, an evaluation and a sample on the null backend.
 *
 * The same functions as in training take memory on a backend that owns none, so the plan cannot
 * drift from the truth: its peaks are the capacities that a run is given.
 */
#ifndef WINDROW_ENGINE_PLAN_H
#define WINDROW_ENGINE_PLAN_H

#include "engine/train/trainer.h"

enum { PLAN_LARGEST_COUNT = 32 };

/* An estimate of what the driver's context and the libraries take of a GPU beside the plan; a run
 * measures it. With kernels loaded at their first use, programs of CUDA 12 and 13 were reported to
 * hold 256 MiB (GeForce RTX 3090, github.com/invoke-ai/InvokeAI issue 9413) and 426 MiB (RTX 6000
 * Ada, github.com/unslothai/unsloth-zoo pull request 1053) before their first tensor; cuBLASLt's
 * kernels and ours are the rest. */
#define PLAN_CONTEXT_BYTES ((int64_t)512 << 20)

struct plan {
    size_t bytes[MEMORY_CATEGORY_COUNT]; /* capacity of each category: its own peak */
    size_t total_bytes;                  /* their sum: what a run takes from the device */
    size_t peak_bytes;                   /* highest sum alive at one time */
    /* Peak of each category within a phase; phases that the recipe never runs are all 0. */
    size_t phase_bytes[PHASE_COUNT][MEMORY_CATEGORY_COUNT];
    double step_flops;    /* an optimizer step without refresh; where method.unselected_every makes
                             some dearer, the mean */
    double refresh_flops; /* one with, likewise (0 if the method has none) */
    double step_bytes;    /* least traffic of a step without refresh */
    /* The same by family of operations; refresh_count is all 0 where nothing is refreshed. */
    struct op_count step_count[OP_FAMILY_COUNT];
    struct op_count refresh_count[OP_FAMILY_COUNT];
    /* What ranks sum and spread in a step, without and with refresh, and what each sends for that
     * at least, and how often (struct comm_counts). */
    int ranks;
    double step_payload_bytes, step_wire_bytes, step_hops;
    double refresh_payload_bytes, refresh_wire_bytes, refresh_hops;
    /* Of a step without refresh, what is sent while its last micro-batch still runs its backward,
     * and what the backward of one micro-batch asks for. */
    double early_wire_bytes, early_hops;
    struct op_count backward_count[OP_FAMILY_COUNT];
    int64_t checkpoint_bytes; /* of one checkpoint on disk, headers included, within 1 % */
    int64_t parameters;
    int64_t trained;
    /* What activation.offload moves away and back in each micro-batch. */
    int64_t offload_spans;
    size_t offload_span_bytes;
    size_t host_bytes; /* of host memory: spans that wait there, bases of galore being replaced */
    struct memory_record largest[PLAN_LARGEST_COUNT];
    size_t largest_count;
};

int plan_make(const struct recipe *recipe, const struct model_config *config, struct plan *plan,
              struct error *err);
/* The same for each of several ranks. */
int plan_make_ranks(const struct recipe *recipe, const struct model_config *config, int ranks,
                    struct plan *plan, struct error *err);

/* Whether the recipe's device means a GPU; "auto" does if there is one. The plan of such a recipe
 * holds what its kernels work in. */
bool plan_takes_cuda(const struct recipe *recipe);

/* Capacities for a trainer that only evaluates and generates (options->inference). */
int plan_inference(const struct trainer_options *wanted, size_t capacity[MEMORY_CATEGORY_COUNT],
                   struct error *err);

/* 0 if total_bytes fits `limit_bytes` (0: no limit); else ERROR_FIT with the numbers and the
 * largest category, and the cheapest change that fits as hint, for as many ranks as were planned.
 */
int plan_check(const struct plan *plan, const struct recipe *recipe,
               const struct model_config *config, int64_t limit_bytes, struct error *err);

/* ---- time --------------------------------------------------------------------------------- */

/* A card as its data sheet states it. Ceilings are what dense bf16 products with fp32 sums, reads
 * and writes of its memory, and copies from and to the host could reach at most. */
struct card {
    const char *name;
    int64_t memory_gib;
    double product_flops; /* a second */
    double memory_bytes;  /* a second */
    double link_bytes;    /* a second, each way */
};

/* The cards by memory, smallest first; NULL behind the last. */
const struct card *card_at(size_t index);

/* The smallest card that has at least `bytes`, else the largest. */
const struct card *card_for(int64_t bytes);

/* What programs can take of a card: its memory less what context, libraries and the screen hold. */
int64_t card_usable_bytes(const struct card *card);

/* Predicted seconds of a step, refreshes spread over their interval. Every family of operations
 * takes its FLOPs or its bytes at the share of the card's ceilings that good kernels reach, the
 * slower counting; what activation.offload moves runs beside the computation, and delays it by what
 * does not hide there. Launches and gaps between kernels are left out: a bound for comparing plans
 * with each other, never a measurement. */
double plan_step_seconds(const struct plan *plan, const struct recipe *recipe,
                         const struct card *card);

/* What joins the ranks of a machine. Bytes a second are those of the "bus bandwidth" that
 * nccl-tests prints (its doc/PERFORMANCE.md): what each rank of a ring sends in a second of a large
 * sum. Latency is of one hop, the time from a rank to the next in a ring with next to nothing to
 * send. */
struct link {
    char name[32];
    char words[96]; /* what it is, and for which machines the numbers hold */
    double bytes;   /* a second */
    double latency_seconds;
};

/* The links that have names, fastest first; NULL behind the last. */
const struct link *link_at(size_t index);

/* "nvlink", "pcie5", "pcie4", or bytes a second: 25GB, 1e10, 12GiB; with ",20us" behind them the
 * latency, which is 0 otherwise. */
int link_from_text(const char *text, struct link *out, struct error *err);

/* Predicted seconds that the ranks of `plan` (plan_make_ranks) take in a step for exchanging,
 * refreshes spread over their interval: bytes on the wire over the link's, and hops times its
 * latency. 0 of one rank. */
double plan_exchange_seconds(const struct plan *plan, const struct recipe *recipe,
                             const struct link *link);

/* Those of the seconds above that hide behind the backward of a step's last micro-batch: in a
 * backward of B seconds n rounds of sums that take X seconds in all are asked for, the k-th after
 * k B / n. They run beside the computing, one after the other, and take nothing from it. The first
 * begins when a part of the backward is over, the last when nothing is left of it, so that
 * (n - 1) / n of the smaller one of B and X is hidden. What is sent afterwards (the last bucket,
 * rows that other ranks have updated, and all of a method that sums when its backward is done) is
 * waited for. */
double plan_hidden_seconds(const struct plan *plan, double backward_seconds,
                           const struct link *link);

/* Predicted seconds of the backward of one micro-batch, as plan_step_seconds predicts steps. */
double plan_backward_seconds(const struct plan *plan, const struct card *card);

/* What a recipe is to run on: what searches look for, and what their predicted times are of. */
struct plan_place {
    int64_t limit_bytes;     /* that may be taken of each device; 0: no limit */
    const struct card *card; /* NULL: card_for(limit_bytes) */
    int ranks;               /* that train together, a device each; 0: one */
    const struct link *link; /* what joins them; NULL: exchanging takes no time */
    int64_t host_bytes;      /* of host memory that all ranks together may take; 0: no limit */
};

/* Predicted seconds of a step there: computing, and exchanging what does not hide behind it. */
double plan_place_seconds(const struct plan *plan, const struct recipe *recipe,
                          const struct plan_place *place);

/* Whether a plan keeps the limits. */
bool plan_fits(const struct plan *plan, const struct plan_place *place);

/* A recipe that trains every weight of the same model on the same batches, in the same formats. */
int plan_full_recipe(const struct recipe *recipe, struct recipe *full, struct error *err);

/* Seconds of a step on a device that is here, and what offloading would do to them. */
struct plan_measured {
    int64_t layers;
    double step_seconds;      /* nothing leaves; no refresh */
    double offloaded_seconds; /* as the recipe says */
    double stall_seconds;     /* of those, waiting for the disk */
    double copy_seconds;      /* of those, copying between tensors and buffers */
    double written_bytes;     /* to the disk, in a step */
    double read_bytes;
    double write_rate; /* bytes a second of the disk, checksums included; 0: none is used */
    double read_rate;
    double copy_rate; /* of memory, where the host copies; else 0 */
};

/* Trains a few steps of one and of three blocks on `be`, and measures the disk under `directory`
 * where activation.offload=ssd. A few seconds for small models; takes what those blocks take. */
int plan_measure(const struct recipe *recipe, const struct model_config *config,
                 const struct plan *plan, struct backend *be, const char *directory,
                 struct plan_measured *out, struct error *err);

/* ---- what to change ----------------------------------------------------------------------- */

/* Changes of the recipe that make it fit, cheapest first: each is one or more key=value words.
 * `time_factor` is the predicted time per token there over that of the recipe as it is (1.0: none).
 */
enum { PLAN_CHANGES_MAX = 8 };
struct plan_change {
    char assignments[384]; /* "batch.micro=4 batch.accumulate=2" */
    char sentence[512];    /* what it does and what it costs */
    size_t total_bytes;    /* of the plan after it */
    double time_factor;
};
int plan_changes(const struct recipe *recipe, const struct model_config *config,
                 const struct plan_place *place, struct plan_change *out, size_t limit,
                 size_t *count, struct error *err);

/* The trade: every change alone, whether it fits or not, the one that costs the least time first.
 * Only changes that take fewer bytes than the recipe as it is. */
enum { PLAN_TRADES_MAX = 24 };
int plan_trades(const struct recipe *recipe, const struct model_config *config,
                const struct plan_place *place, struct plan_change out[PLAN_TRADES_MAX],
                size_t *count, struct error *err);

/* The fastest way to train this model within the limits, with the recipe's rows a step.
 *
 * Searched are the methods that train the model's own weights (full, grass, galore) with bf16
 * weights rounded at random; ranks of 1/4, 1/8, 1/16 and 1/32 of the hidden size; selected rows of
 * Grass with and without the bits that bf16 lacks; states in fp32, bf16 and int8; recomputing;
 * offloading to host memory, and to a disk where host memory has a limit; the rows of a
 * micro-batch. Of everything that fits and takes at most 5 % more predicted time than the fastest,
 * it is what stays nearest to full training: more rows before finer states before time. Only where
 * nothing of all that fits, and the model is a trained one, adapters of lora beside its weights are
 * searched. */
struct plan_fastest {
    bool found;            /* false: nothing in the space fits */
    bool adapters;         /* it is lora */
    char assignments[512]; /* key=value words, for this recipe */
    size_t total_bytes;
    double step_seconds;
    double fastest_seconds; /* of the fastest that fits, whatever it gives up */
};
int plan_fastest(const struct recipe *recipe, const struct model_config *config,
                 const struct plan_place *place, struct plan_fastest *out, struct error *err);

/* The largest method.rank whose plan fits, at most the recipe's hidden size; 0 if none does. */
int64_t plan_largest_rank(const struct recipe *recipe, const struct model_config *config,
                          const struct plan_place *place);

#endif
