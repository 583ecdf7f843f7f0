/*
 * How long a planned step would take on a card that is not here.
 *
 * Rates of the cards are those of their makers' data sheets: dense bf16 products with sums in fp32,
 * memory, and one direction of the PCIe link. Programs never reach them; the shares below are what
 * good kernels were seen to reach on large operands (an H100: 720 of 989 TFLOP/s in products, about
 * 325 in causal attention forward and backward, 2.6 of 3.35 TB/s).
 */
#include <string.h>

#include "engine/plan.h"

static const struct card cards[] = {
    { "GeForce RTX 4060", 8, 30.2e12, 272e9, 16e9 },
    { "GeForce RTX 4070", 12, 58.3e12, 504e9, 32e9 },
    { "GeForce RTX 4080", 16, 97.5e12, 717e9, 32e9 },
    { "GeForce RTX 4090", 24, 165.2e12, 1008e9, 32e9 },
    { "A100 40GB", 40, 312e12, 1555e9, 32e9 },
    { "L40S", 48, 362e12, 864e9, 32e9 },
    { "H100 SXM", 80, 989e12, 3350e9, 64e9 },
};
enum { CARD_COUNT = sizeof cards / sizeof cards[0] };

static const double product_share = 0.73;
static const double attention_share = 0.33;
static const double memory_share = 0.78;
static const double link_share = 0.80;
/* Sustained, each way, of an NVMe disk of the better kind; that of a run is measured when it
 * starts. */
static const double disk_bytes = 3e9;
/* Of a step, the forward pass takes a third of the time: one product of three. */
static const double forward_share = 1.0 / 3.0;
/* Context, libraries and a screen hold the rest; a card of 24 GB shows 23.99 GiB. */
static const double usable_share = 0.94;

const struct card *card_at(size_t index)
{
    return index < CARD_COUNT ? &cards[index] : NULL;
}

const struct card *card_for(int64_t bytes)
{
    for (size_t i = 0; i < CARD_COUNT; i++) {
        if (cards[i].memory_gib << 30 >= bytes) {
            return &cards[i];
        }
    }
    return &cards[CARD_COUNT - 1];
}

int64_t card_usable_bytes(const struct card *card)
{
    return (int64_t)((double)(card->memory_gib << 30) * usable_share);
}

static double compute_seconds(const struct op_count *count, const struct card *card)
{
    double sum = 0.0;
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        double share = f == OP_ATTENTION ? attention_share : product_share;
        bool products = f == OP_MATMUL || f == OP_LOSS || f == OP_ATTENTION;
        double by_flops = products ? count[f].flops / (share * card->product_flops) : 0.0;
        double by_bytes = count[f].bytes / (memory_share * card->memory_bytes);
        sum += by_flops > by_bytes ? by_flops : by_bytes;
    }
    return sum;
}

double plan_backward_seconds(const struct plan *plan, const struct card *card)
{
    return compute_seconds(plan->backward_count, card);
}

double plan_step_seconds(const struct plan *plan, const struct recipe *recipe,
                         const struct card *card)
{
    double seconds = compute_seconds(plan->step_count, card);
    double refresh = compute_seconds(plan->refresh_count, card);
    if (refresh > seconds) {
        seconds += (refresh - seconds) / (double)recipe->method_interval;
    }
    double rate = link_share * card->link_bytes;
    if (strcmp(recipe->activation_offload, "ssd") == 0 && rate > disk_bytes) {
        rate = disk_bytes;
    }
    double moved = (double)plan->offload_spans * (double)plan->offload_span_bytes *
                   (double)recipe->batch_accumulate / rate;
    double forward = seconds * forward_share;
    double backward = seconds - forward;
    return (forward > moved ? forward : moved) + (backward > moved ? backward : moved);
}
