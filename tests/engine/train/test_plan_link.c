/*
 * What several ranks exchange and wait for: the formulas by hand, and what they say of Grass and of
 * full training at 7B on eight GPUs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/comm/comm.h"
#include "fixture.h"

enum { GPUS = 8 };

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * fabs(b))) {
        fail_msg("%.12g is not %.12g", a, b);
    }
}

static void test_link_names(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct link link;
    for (size_t i = 0; link_at(i) != NULL; i++) {
        check(link_from_text(link_at(i)->name, &link, &err), &err);
        near(link.bytes, link_at(i)->bytes);
        assert_true(i == 0 || link.bytes < link_at(i - 1)->bytes);
    }
    check(link_from_text("25GB", &link, &err), &err);
    near(link.bytes, 25e9);
    assert_true(link.latency_seconds == 0.0);
    check(link_from_text("1e10,20us", &link, &err), &err);
    near(link.bytes, 1e10);
    near(link.latency_seconds, 20e-6);
    check(link_from_text("1.5GiB,0.25ms", &link, &err), &err);
    near(link.bytes, 1.5 * 1024 * 1024 * 1024);
    near(link.latency_seconds, 25e-5);
}

static void test_wrong_links(void **state)
{
    (void)state;
    static const char *const wrong[] = { "",       "nvlink2",   "GB",       "0",         "-1e9",
                                         "1e9,",   "1e9,20",    "1e9,-1us", "1e9,20us,", "1e30",
                                         "1e9,2s", "25GB 20us", "inf",      "nan",       "12XB" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct error err = { 0 };
        struct link link;
        if (link_from_text(wrong[i], &link, &err) != -1) {
            fail_msg("%s was taken", wrong[i]);
        }
        assert_non_null(strstr(err.message, "nvlink, pcie5, pcie4 and bytes a second"));
    }
}

/* Bytes over the rate and hops times the latency; one step of the interval as dear as a refresh. */
static void test_seconds(void **state)
{
    (void)state;
    const struct link link = { .bytes = 10e9, .latency_seconds = 20e-6 };
    struct plan plan = { .step_wire_bytes = 5e9, .step_hops = 1000 };
    struct recipe recipe;
    recipe_init(&recipe);
    recipe.method_interval = 100;
    near(plan_exchange_seconds(&plan, &recipe, &link), 0.5 + 0.02);
    plan.refresh_wire_bytes = 15e9;
    plan.refresh_hops = 2000;
    near(plan_exchange_seconds(&plan, &recipe, &link), 0.52 + (1.54 - 0.52) / 100);
    struct plan alone = { 0 };
    assert_true(plan_exchange_seconds(&alone, &recipe, &link) == 0.0);
    recipe_free(&recipe);
}

/* The k-th of n rounds is asked for after k B / n of the backward: by hand, round by round. */
static double wait_after(double backward, double sums, int rounds)
{
    double done = 0.0;
    for (int k = 1; k <= rounds; k++) {
        double asked = backward * k / rounds;
        done = (done > asked ? done : asked) + sums / rounds;
    }
    return done - backward;
}

static void test_hidden(void **state)
{
    (void)state;
    const struct card *card = card_for((int64_t)80 << 30);
    const struct link link = { .bytes = 10e9, .latency_seconds = 20e-6 };
    struct plan plan = { .ranks = GPUS };
    plan.backward_count[OP_MATMUL].flops = 0.73 * 989e12 * 0.8;
    near(plan_backward_seconds(&plan, card), 0.8);
    for (int rounds = 1; rounds <= 40; rounds += 13) {
        plan.early_hops = (GPUS - 1.0) * rounds;
        for (double wire = 0.0; wire < 20e9; wire += 3e9) {
            plan.early_wire_bytes = wire;
            double sums = wire / 10e9 + plan.early_hops * 20e-6;
            near(sums - plan_hidden_seconds(&plan, 0.8, &link), wait_after(0.8, sums, rounds));
        }
    }
    plan.ranks = 1;
    assert_true(plan_hidden_seconds(&plan, 0.8, &link) == 0.0);
}

/* ---- 7B -------------------------------------------------------------------------------------- */

enum { HIDDEN = 4096, INTERMEDIATE = 11008, LAYERS = 32, VOCABULARY = 32000 };

static const double ends = 2.0 * VOCABULARY * HIDDEN;
static const double norms = (2.0 * LAYERS + 1.0) * HIDDEN;

/* 512 rows of 256 tokens a step on eight GPUs, weights, gradients and states in bf16. */
static void make_recipe(struct recipe *recipe, const char *const *more)
{
    static const char *const words[] = { "model.init=random",
                                         "precision.weights=bf16",
                                         "precision.rounding=stochastic",
                                         "optimizer.state=bf16",
                                         "data.sequence_length=256",
                                         "batch.micro=16",
                                         "batch.accumulate=4",
                                         "train.eval_every=0",
                                         "train.sample_every=0",
                                         "method.name=grass",
                                         "method.rank=128",
                                         "method.interval=200",
                                         "device=cpu",
                                         NULL };
    recipe_init(recipe);
    lay_words(recipe, words);
    lay_words(recipe, more);
}

struct pair {
    struct recipe grass_recipe, full_recipe;
    struct plan grass, full;
};

static void open_pair(struct pair *p, int ranks, const char *const *words)
{
    struct error err = { 0 };
    struct model_config config;
    memset(p, 0, sizeof *p);
    check(config_read(SOURCE_ROOT "/presets/models/llama-7b.json", &config, &err), &err);
    make_recipe(&p->grass_recipe, words);
    recipe_init(&p->full_recipe);
    check(plan_full_recipe(&p->grass_recipe, &p->full_recipe, &err), &err);
    check(plan_make_ranks(&p->grass_recipe, &config, ranks, &p->grass, &err), &err);
    check(plan_make_ranks(&p->full_recipe, &config, ranks, &p->full, &err), &err);
}

static void close_pair(struct pair *p)
{
    recipe_free(&p->grass_recipe);
    recipe_free(&p->full_recipe);
}

/* Of one rank nothing is exchanged, and the wire carries 2 (P - 1) / P of what is summed and
 * (P - 1) / P of what is gathered: here what each rank tells of itself. */
static void test_wire(void **state)
{
    (void)state;
    struct pair p;
    open_pair(&p, 1, WORDS("method.rank=128"));
    assert_true(p.full.step_wire_bytes == 0.0 && p.full.step_hops == 0.0);
    assert_true(p.grass.refresh_wire_bytes == 0.0 && p.grass.refresh_hops == 0.0);
    close_pair(&p);
    open_pair(&p, GPUS, WORDS("method.rank=128"));
    const double counts = (double)sizeof(struct rank_report) * GPUS;
    const double passed = (GPUS - 1.0) / GPUS;
    near(p.full.step_wire_bytes,
         2.0 * passed * (p.full.step_payload_bytes - counts) + passed * counts);
    /* Buckets of 16 MiB. In full training each block's four pieces (q, k and v together, gate and
     * up too) and each of the two ends are more than that: their rows are summed to the ranks that
     * own them, and given back to all once they are updated. What all ranks get is the loss, which
     * goes out with the sum of the embedding, the norms and the square of the gradient. */
    const double ends_hops = 2 * 2 + 2;
    near(p.full.step_hops, (GPUS - 1) * (2.0 * LAYERS * 4 + ends_hops + 1 + 2 + 1));
    /* Of the rows of Grass many matrices share a bucket, which at most one of them overfills. */
    const double bucket = COMM_BUCKET_BYTES;
    const double largest = 2.0 * 344 * 4096;
    const double matrices = LAYERS * 7;
    double buckets = (p.grass.step_hops / (GPUS - 1) - 1 - 2 - ends_hops) / 2;
    double rows_bytes = p.grass.step_payload_bytes - 2.0 * ends;
    assert_true(buckets >= rows_bytes / (bucket + largest) - 1);
    assert_true(buckets <= rows_bytes / bucket + 1);
    assert_true(buckets < matrices / 5);
    /* A refresh sums each matrix once more, whole, and waits for it. */
    near(p.grass.refresh_hops, p.grass.step_hops + (GPUS - 1) * 2.0 * matrices);
    close_pair(&p);
}

/* Rows kept: 128 of 4096 outputs, and as large a share of 11008. */
static double selected(void)
{
    const double attention = 4.0 * 128 * HIDDEN;
    const double up = 2.0 * 344 * HIDDEN; /* 128 * 11008 / 4096 */
    const double down = 128.0 * INTERMEDIATE;
    return LAYERS * (attention + up + down);
}

static void test_bytes_at_7b(void **state)
{
    (void)state;
    /* The loss, the square of the gradient, what ranks tell. */
    const double small = 8 + (double)sizeof(struct rank_report) * GPUS;
    struct pair p;
    open_pair(&p, GPUS, WORDS("method.embedding=dense", "method.head=full"));
    near(p.full.step_payload_bytes, 2.0 * 6738415616.0 + small);
    near(p.grass.step_payload_bytes, 2.0 * (selected() + ends + norms) + small);
    assert_true(p.full.step_payload_bytes >= 10.0 * p.grass.step_payload_bytes);
    double dense = p.full.step_payload_bytes / p.grass.step_payload_bytes;
    close_pair(&p);
    /* The head by rows too, 128 of each 4096, and of the embedding the words that occur. With 131k
     * tokens of a vocabulary of 32k that may be all of them, and is planned as such. */
    open_pair(&p, GPUS, WORDS("method.embedding=rows", "method.head=rows"));
    assert_true(p.full.step_payload_bytes >= 10.0 * p.grass.step_payload_bytes);
    double rows = p.full.step_payload_bytes / p.grass.step_payload_bytes;
    assert_true(rows > dense);
    print_message("7B, rank 128: %.1f times fewer bytes a step, %.1f with the head by rows\n",
                  dense, rows);
    close_pair(&p);
}

/* ---- time ------------------------------------------------------------------------------------ */

static double seconds_of(const struct plan *plan, const struct recipe *recipe,
                         const struct card *card, const struct link *link)
{
    return plan_place_seconds(
        plan, recipe, &(struct plan_place){ .card = card, .ranks = plan->ranks, .link = link });
}

static double ratio(const struct pair *p, const struct card *card, const struct link *link)
{
    return seconds_of(&p->full, &p->full_recipe, card, link) /
           seconds_of(&p->grass, &p->grass_recipe, card, link);
}

/* The most bytes a second at which Grass takes half the time of full training. */
static double bound(const struct pair *p, const struct card *card, struct link link)
{
    double low = 1e8;
    double high = 1e12;
    assert_true(ratio(p, card, &(struct link){ .bytes = high }) < 2.0);
    for (int i = 0; i < 60; i++) {
        link.bytes = sqrt(low * high);
        double *side = ratio(p, card, &link) >= 2.0 ? &low : &high;
        *side = link.bytes;
    }
    return low;
}

/* All of the blocks and the head go out while the backward runs, nothing of Grass; and a backward
 * is two of the three products of each matrix in the blocks. */
static void test_early_at_7b(void **state)
{
    (void)state;
    const double tokens = 16 * 256;
    const double blocks = LAYERS * (4.0 * HIDDEN * HIDDEN + 3.0 * HIDDEN * INTERMEDIATE);
    struct pair p;
    open_pair(&p, GPUS, WORDS("method.rank=128"));
    near(p.full.early_wire_bytes, (GPUS - 1.0) / GPUS * 2.0 * (blocks + ends / 2));
    near(p.full.early_hops, (GPUS - 1.0) * (LAYERS * 4 + 1));
    near(p.full.backward_count[OP_MATMUL].flops, 4.0 * blocks * tokens);
    assert_true(p.grass.early_wire_bytes == 0.0 && p.grass.early_hops == 0.0);
    close_pair(&p);
}

/* Inputs: 7B, rank 128, refreshed every 200 steps, 512 rows of 256 tokens a step in 4 micro-batches
 * a GPU, 8 GPUs over PCIe 4 without peer access at 11 GB/s and 14 us a hop, full training's sums
 * hidden behind its last backward; computing on A100s, at the rates of the data sheet, and on
 * H100s. With one micro-batch a step more of a step is exchange. The other links bound it: it
 * cannot fall under what computing alone gives, and falls as the link gets faster. */
static void test_ratio_at_7b(void **state)
{
    (void)state;
    static const char *const parts[] = { "batch.accumulate=4", "batch.accumulate=1" };
    struct error err = { 0 };
    struct link pcie4, nvlink;
    const struct card *card[] = { card_for((int64_t)40 << 30), card_for((int64_t)80 << 30) };
    check(link_from_text("pcie4", &pcie4, &err), &err);
    check(link_from_text("nvlink", &nvlink, &err), &err);
    near(pcie4.bytes, 11e9);
    for (int b = 0; b < 2; b++) {
        struct pair p;
        open_pair(&p, GPUS, WORDS("method.rank=128", parts[b]));
        assert_true(p.full.total_bytes < (size_t)card_usable_bytes(card[1]));
        for (int c = 0; c < 2; c++) {
            double hidden = ratio(&p, card[c], &pcie4);
            double limit = bound(&p, card[c], pcie4);
            double wide = ratio(&p, card[c], &nvlink);
            double alone = ratio(&p, card[c], NULL);
            struct pair late = p;
            late.full.early_wire_bytes = late.full.early_hops = 0.0;
            double shown = ratio(&late, card[c], &pcie4);
            print_message("Grass over full, 8 x %s, %s: PCIe 4 %.2f (%.2f if nothing were hidden), "
                          "2 up to %.1f GB/s (%.1f); NVLink %.2f; computing alone %.2f\n",
                          card[c]->name, parts[b], hidden, shown, limit / 1e9,
                          bound(&late, card[c], pcie4) / 1e9, wide, alone);
            assert_true(hidden >= 2.0 && shown > hidden && limit >= pcie4.bytes);
            assert_true(alone < wide && wide < hidden);
        }
        close_pair(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_names),  cmocka_unit_test(test_wrong_links),
        cmocka_unit_test(test_seconds),     cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_wire),        cmocka_unit_test(test_bytes_at_7b),
        cmocka_unit_test(test_early_at_7b), cmocka_unit_test(test_ratio_at_7b),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
