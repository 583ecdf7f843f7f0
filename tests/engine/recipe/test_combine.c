/* Every combination that is refused: by its own sentence, with a way out that is then accepted, and
 * with nothing refused that has no test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/recipe/combine.h"

static const struct {
    const char *words;   /* that make no sense together */
    const char *part;    /* of the sentence */
    const char *instead; /* a way out that the hint names */
} refused[] = {
    { "activation.sample=rad activation.recompute=norms", "activation.sample=rad",
      "activation.sample=wta-crs" },
    { "activation.sample=crs activation.keep=0", "activation.keep=0", "activation.keep=0.3" },
    { "kernel.attention=cudnn device=cpu precision.weights=bf16 data.sequence_length=128 "
      "train.deterministic=false",
      "needs device=cuda", "kernel.attention=auto" },
    { "kernel.attention=cudnn device=cuda precision.weights=bf16 data.sequence_length=128",
      "train.deterministic=true", "train.deterministic=false" },
    { "kernel.attention=cudnn device=cuda precision.weights=fp32 data.sequence_length=128 "
      "train.deterministic=false",
      "precision.weights=fp32", "precision.weights=bf16" },
    { "kernel.attention=cudnn device=cuda precision.weights=bf16 data.sequence_length=100 "
      "train.deterministic=false",
      "multiple of 128", "data.sequence_length=128" },
    { "method.exact_rows=true method.name=galore precision.weights=bf16", "select no rows",
      "method.exact_rows=false" },
    { "method.exact_rows=true method.name=grass precision.weights=fp32", "every row is exact",
      "precision.weights=bf16" },
    { "method.exact_rows=true method.name=grass precision.weights=bf16 optimizer.name=sgd",
      "optimizer.name=adamw only", "optimizer.name=adamw" },
    { "optimizer.name=tradam method.name=grass", "pull towards the anchor", "method.name=full" },
    { "optimizer.name=tradam method.name=galore", "pull towards the anchor",
      "optimizer.name=adamw" },
    { "optimizer.name=tradam method.name=full optimizer.state=int8", "its anchor is as large",
      "optimizer.state=bf16" },
    { "optimizer.name=tradam method.name=full method.embedding=rows", "rows that did not occur",
      "method.embedding=dense" },
    { "method.name=grass method.inputs=columns method.side=out", "only with method.side=in",
      "method.side=in" },
    { "method.name=grass method.inputs=columns method.side=short", "only with method.side=in",
      "method.inputs=whole" },
    { "method.name=grass method.inputs=columns method.side=in activation.sample=crs",
      "both replace the same inputs", "activation.sample=none" },
    { "method.name=grass method.inputs=columns method.side=in activation.recompute=ffn",
      "nothing to thin out", "activation.recompute=none" },
};
enum { REFUSED = sizeof refused / sizeof refused[0] };

static void lay(struct recipe *recipe, const char *text)
{
    struct error err = { 0 };
    char *words = xstrdup(text);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        if (recipe_set(recipe, word, &err) != 0) {
            fail_msg("%s: %s", word, err.message);
        }
    }
    free(words);
}

static void test_refused(void **state)
{
    (void)state;
    bool met[64] = { false };
    for (size_t i = 0; i < REFUSED; i++) {
        struct error err = { 0 };
        struct recipe recipe;
        recipe_init(&recipe);
        lay(&recipe, refused[i].words);
        assert_int_equal(combine_check(&recipe, &err), -1);
        assert_int_equal(err.code, ERROR_USAGE);
        if (strstr(err.message, refused[i].part) == NULL || strlen(err.hint) < 10) {
            fail_msg("%s: %s (%s)", refused[i].words, err.message, err.hint);
        }
        for (size_t s = 0; combine_sentence(s) != NULL; s++) {
            assert_true(s < 64);
            met[s] = met[s] || strcmp(combine_sentence(s), err.message) == 0;
        }
        lay(&recipe, refused[i].instead);
        if (combine_check(&recipe, &err) != 0) {
            fail_msg("%s with %s: %s", refused[i].words, refused[i].instead, err.message);
        }
        recipe_free(&recipe);
    }
    for (size_t s = 0; combine_sentence(s) != NULL; s++) {
        if (!met[s]) {
            fail_msg("no test refuses: %s", combine_sentence(s));
        }
    }
}

/* Each half of a refused pair alone is no trouble. */
static void test_defaults(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    assert_int_equal(combine_check(&recipe, &err), 0);
    lay(&recipe, "method.name=grass method.stagger=true method.side=in method.inputs=columns "
                 "activation.offload=host optimizer.state=int8 method.head=rows "
                 "method.embedding=rows method.exact_rows=true precision.weights=bf16");
    assert_int_equal(combine_check(&recipe, &err), 0);
    recipe_free(&recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
