/*
 * What ranks pay for exchanging what a plan counts.
 *
 * The three links are examples of their kinds, eight GPUs of one machine each:
 *   nvlink  370 GB/s: what a ring reaches of 450 GB/s (H100, github.com/NVIDIA/nccl-tests issue
 * 212). pcie5   38 GB/s: 37.6 to 41.7 were measured with peer access over switches or through the
 *           processors, and 24.6 us for a sum of 256 bytes, which is 14 hops (RTX PRO 6000,
 *           github.com/voipmonitor/rtx6kpro, hardware/pcie-bandwidth.md). NVLink is given the same
 *           latency: it is that of starting kernels and of their flags.
 *   pcie4   11 GB/s: without peer access every byte goes through host memory. 18 were seen with 4
 *           GPUs (RTX 4090, github.com/NVIDIA/nccl issue 1603), 8 on the mean of sizes with 8 (A100
 *           PCIe, issue 841). 14 us from GPU to GPU (rtx6kpro, as above).
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/plan.h"
#include "engine/recipe/combine.h"

static const struct link links[] = {
    { "nvlink", "NVLink of an H100 machine", 370e9, 1.8e-6 },
    { "pcie5", "PCIe 5 x16 with peer access", 38e9, 1.8e-6 },
    { "pcie4", "PCIe 4 x16 without peer access, through host memory", 11e9, 14e-6 },
};
enum { LINK_COUNT = sizeof links / sizeof links[0] };

static const double slowest_bytes = 1e3;
static const double fastest_bytes = 1e15;
static const double longest_seconds = 1.0;

const struct link *link_at(size_t index)
{
    return index < LINK_COUNT ? &links[index] : NULL;
}

struct unit {
    const char *name;
    double factor;
};
static const struct unit byte_units[] = { { "KiB", 0x1p10 }, { "MiB", 0x1p20 }, { "GiB", 0x1p30 },
                                          { "TiB", 0x1p40 }, { "KB", 1e3 },     { "MB", 1e6 },
                                          { "GB", 1e9 },     { "TB", 1e12 },    { "", 1.0 } };
static const struct unit time_units[] = {
    { "ns", 1e-9 }, { "us", 1e-6 }, { "ms", 1e-3 }, { "s", 1.0 }, { NULL, 0.0 }
};

/* A number with one of the units behind it; the unit without letters ends the list. */
static bool parse_quantity(const char *text, size_t length, const struct unit *unit, double *out)
{
    char number[64];
    for (; unit->name != NULL; unit++) {
        size_t tail = strlen(unit->name);
        if (tail < length && strncmp(text + length - tail, unit->name, tail) == 0) {
            length -= tail;
            break;
        }
        if (tail == 0) {
            break;
        }
    }
    if (unit->name == NULL || length == 0 || length >= sizeof number) {
        return false;
    }
    memcpy(number, text, length);
    number[length] = '\0';
    if (!text_to_double(number, out)) {
        return false;
    }
    *out *= unit->factor;
    return true;
}

int link_from_text(const char *text, struct link *out, struct error *err)
{
    for (size_t i = 0; i < LINK_COUNT; i++) {
        if (strcmp(text, links[i].name) == 0) {
            *out = links[i];
            return 0;
        }
    }
    const char *comma = strchr(text, ',');
    size_t length = comma != NULL ? (size_t)(comma - text) : strlen(text);
    *out = (struct link){ .latency_seconds = 0.0 };
    bool good = parse_quantity(text, length, byte_units, &out->bytes) &&
                out->bytes >= slowest_bytes && out->bytes <= fastest_bytes;
    if (good && comma != NULL) {
        good = parse_quantity(comma + 1, strlen(comma + 1), time_units, &out->latency_seconds) &&
               out->latency_seconds >= 0.0 && out->latency_seconds <= longest_seconds;
    }
    if (!good) {
        fail(err, ERROR_USAGE,
             "found %s, allowed are nvlink, pcie5, pcie4 and bytes a second from 1KB to 1000TB, "
             "with a latency of at most 1s behind a comma",
             text_show(text).text);
        return hint(err, "write 25GB, 1e10 or 25GB,20us");
    }
    snprintf(out->name, sizeof out->name, "given");
    snprintf(out->words, sizeof out->words, "a link as given");
    return 0;
}

static double exchange_seconds(double wire_bytes, double hops, const struct link *link)
{
    return wire_bytes / link->bytes + hops * link->latency_seconds;
}

double plan_exchange_seconds(const struct plan *plan, const struct recipe *recipe,
                             const struct link *link)
{
    double seconds = exchange_seconds(plan->step_wire_bytes, plan->step_hops, link);
    double refresh = exchange_seconds(plan->refresh_wire_bytes, plan->refresh_hops, link);
    if (refresh > seconds) {
        seconds += (refresh - seconds) / (double)recipe->method_interval;
    }
    return seconds;
}

double plan_hidden_seconds(const struct plan *plan, double backward_seconds,
                           const struct link *link)
{
    double rounds = plan->ranks > 1 ? plan->early_hops / (plan->ranks - 1.0) : 0.0;
    double sums = exchange_seconds(plan->early_wire_bytes, plan->early_hops, link);
    double less = sums < backward_seconds ? sums : backward_seconds;
    return rounds > 1.0 ? (rounds - 1.0) / rounds * less : 0.0;
}

double plan_place_seconds(const struct plan *plan, const struct recipe *recipe,
                          const struct plan_place *place)
{
    const struct card *card = place->card != NULL ? place->card : card_for(place->limit_bytes);
    double seconds = plan_step_seconds(plan, recipe, card);
    if (place->link != NULL) {
        seconds += plan_exchange_seconds(plan, recipe, place->link);
        seconds -= plan_hidden_seconds(plan, plan_backward_seconds(plan, card), place->link);
    }
    return seconds;
}

bool plan_fits(const struct plan *plan, const struct plan_place *place)
{
    double host = (double)plan->host_bytes * (double)plan->ranks;
    return (place->limit_bytes <= 0 || plan->total_bytes <= (size_t)place->limit_bytes) &&
           (place->host_bytes <= 0 || host <= (double)place->host_bytes);
}

int plan_full_recipe(const struct recipe *recipe, struct recipe *full, struct error *err)
{
    recipe_copy(full, recipe);
    for (const struct field *field = recipe_fields; field->key != NULL; field++) {
        if (strncmp(field->key, "method.", strlen("method.")) == 0 &&
            field_set(field, full, field->default_text, err) != 0) {
            return -1;
        }
    }
    return recipe_set(full, "method.name=full", err) == 0 ? combine_check(full, err) : -1;
}
