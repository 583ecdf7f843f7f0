/* Steps that several commands share. */
#include "app/commands/common.h"

#include "engine/base/xalloc.h"

int recipe_take_settings(struct recipe *recipe, const struct arguments *arguments,
                         struct error *err)
{
    for (size_t i = 0; i < arguments->setting_count; i++) {
        if (recipe_set(recipe, arguments->setting[i], err) == -1) {
            return -1;
        }
    }
    return 0;
}

int recipe_from_words(struct recipe *recipe, const char *name, const struct arguments *arguments,
                      struct error *err)
{
    if (recipe_find(recipe, name, err) == -1 ||
        recipe_take_settings(recipe, arguments, err) == -1) {
        return -1;
    }
    return recipe_check(recipe, err);
}

char *shape_text(int rank, const int64_t *dim)
{
    struct buffer out = { 0 };
    buffer_printf(&out, "(");
    for (int i = 0; i < rank; i++) {
        buffer_printf(&out, "%s%lld", i == 0 ? "" : ", ", (long long)dim[i]);
    }
    buffer_printf(&out, ")");
    return out.text;
}
