/* The table of combinations that are refused: see combine.h. */
#include "engine/recipe/combine.h"

#include <string.h>

struct combination {
    bool (*refuses)(const struct recipe *recipe);
    const char *why;
    const char *hint;
};

static bool is(const char *value, const char *name)
{
    return strcmp(value, name) == 0;
}

static bool tradam_selected(const struct recipe *r)
{
    return is(r->optimizer_name, "tradam") &&
           (is(r->method_name, "grass") || is(r->method_name, "galore"));
}

static bool tradam_int8(const struct recipe *r)
{
    return is(r->optimizer_name, "tradam") && r->optimizer_state == STATE_INT8;
}

static const struct combination combinations[] = {
    { tradam_selected,
      "optimizer.name=tradam does not go with method.name=grass or galore: the pull towards the "
      "anchor has to be added to the full gradient before it is compressed, and that takes an "
      "anchor as large as the weights, which defeats the method",
      "use optimizer.name=adamw, or method.name=full" },
    { tradam_int8,
      "optimizer.state=int8 does not go with optimizer.name=tradam: its anchor is as large as the "
      "weights, and eight bits for the moments beside it would save little",
      "use optimizer.state=bf16, or optimizer.name=adamw" },
};

int combine_check(const struct recipe *recipe, struct error *err)
{
    for (size_t i = 0; i < sizeof combinations / sizeof combinations[0]; i++) {
        if (combinations[i].refuses(recipe)) {
            fail(err, ERROR_USAGE, "%s", combinations[i].why);
            return hint(err, "%s", combinations[i].hint);
        }
    }
    return 0;
}
