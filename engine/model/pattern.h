/*
 * Patterns over the names of parameters: "q_proj", "layers.0-3", "layers.*.down_proj".
 *
 * Pattern and name fall into words at the points. A pattern fits a name if its words fit words of
 * the name that follow each other, wherever they begin:
 *   word      itself; '*' inside it stands for any letters ("*_layernorm")
 *   *         one word or more
 *   N-M       a number from N to M
 * So "norm" is model.norm and not input_layernorm, "layers.0-3" is everything in the first four
 * blocks, and "self_attn" the four matrices of attention. "all" fits every name.
 *
 * A list joins patterns with commas; blanks around them do not count. In a list of numbers each
 * pattern is followed by '=' and a number, and the first that fits decides: "q_proj=16,layers.0=4".
 */
#ifndef WINDROW_ENGINE_MODEL_PATTERN_H
#define WINDROW_ENGINE_MODEL_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

struct pattern {
    const char *text; /* within the list */
    size_t size;
    const char *value; /* behind the '=', or NULL */
    size_t value_size;
};

/* The next pattern of a list, or false at its end. `rest` begins as the list and moves on. */
bool pattern_next(const char **rest, struct pattern *out);

bool pattern_fits(const struct pattern *pattern, const char *name);

/* Whether one of the list fits. */
bool pattern_list_fits(const char *list, const char *name);

/* The number beside the first pattern that fits; `fallback` if none does or it is no number. */
double pattern_list_number(const char *list, const char *name, double fallback);

#endif
