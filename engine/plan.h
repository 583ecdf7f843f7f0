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

struct plan {
    size_t bytes[MEMORY_CATEGORY_COUNT]; /* capacity of each category: its own peak */
    size_t total_bytes;                  /* their sum: what a run takes from the device */
    size_t peak_bytes;                   /* highest sum alive at one time */
    /* Peak of each category within a phase; phases that the recipe never runs are all 0. */
    size_t phase_bytes[PHASE_COUNT][MEMORY_CATEGORY_COUNT];
    double step_flops;        /* an optimizer step without refresh */
    double refresh_flops;     /* one with (0 if the method has none) */
    double step_bytes;        /* least traffic of a step without refresh */
    int64_t checkpoint_bytes; /* of one checkpoint on disk, headers included, within 1 % */
    int64_t parameters;
    int64_t trained;
    /* What activation.offload moves away and back in each micro-batch. */
    int64_t offload_spans;
    size_t offload_span_bytes;
    struct memory_record largest[PLAN_LARGEST_COUNT];
    size_t largest_count;
};

int plan_make(const struct recipe *recipe, const struct model_config *config, struct plan *plan,
              struct error *err);

/* Capacities for a trainer that only evaluates and generates (options->inference). */
int plan_inference(const struct trainer_options *wanted, size_t capacity[MEMORY_CATEGORY_COUNT],
                   struct error *err);

/* What memory.limit, or else the device, allows; 0: unlimited or unknown. */
int64_t plan_limit(const struct recipe *recipe, const struct backend *be);

/* 0 if total_bytes fits `limit_bytes` (0: no limit); else ERROR_FIT with the numbers and the
 * largest category, and the cheapest change that fits as hint. */
int plan_check(const struct plan *plan, const struct recipe *recipe,
               const struct model_config *config, int64_t limit_bytes, struct error *err);

/* Changes of the recipe that make it fit, cheapest first: each is one or more key=value words.
 * Cost is the predicted change of the time per token (1.0: none). */
enum { PLAN_CHANGES_MAX = 8 };
struct plan_change {
    char assignments[256]; /* "batch.micro=4 batch.accumulate=2" */
    char sentence[256];    /* what it does and what it costs */
    size_t total_bytes;    /* of the plan after it */
    double time_factor;
};
int plan_changes(const struct recipe *recipe, const struct model_config *config,
                 int64_t limit_bytes, struct plan_change *out, size_t limit, size_t *count,
                 struct error *err);

/* The largest method.rank whose plan fits, at most the recipe's hidden size; 0 if none does. */
int64_t plan_largest_rank(const struct recipe *recipe, const struct model_config *config,
                          int64_t limit_bytes);

#endif
