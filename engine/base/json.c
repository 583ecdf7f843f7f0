/* Strict JSON: the text is checked by json_check, the tree is made by cJSON and then searched for
 * duplicate keys, which only show after their escapes are resolved. */
#include "engine/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json_check.h"
#include "engine/base/text.h"

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Refuses a key given twice in one object. `keys` is room for all of its keys. */
static int check_object(const cJSON *object, const char **keys, const char *name, struct error *err)
{
    size_t count = 0;
    const cJSON *child;
    cJSON_ArrayForEach (child, object) {
        keys[count++] = child->string;
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0) {
            fail(err, ERROR_DATA, "%s: the key \"%s\" is given twice in one object",
                 text_show(name).text, text_show(keys[i]).text);
            return hint(err, "remove one of them");
        }
    }
    return 0;
}

/* Depth was limited by json_check. */
static int check_duplicates(const cJSON *value, const char *name, struct error *err)
{
    const cJSON *child;
    if (cJSON_IsObject(value)) {
        size_t count = 0;
        cJSON_ArrayForEach (child, value) {
            count++;
        }
        const char **keys = malloc((count + 1) * sizeof *keys);
        if (!keys) {
            return fail(err, ERROR_RUNTIME, "%s: out of memory", text_show(name).text);
        }
        int result = check_object(value, keys, name, err);
        free(keys);
        if (result != 0) {
            return result;
        }
    }
    cJSON_ArrayForEach (child, value) {
        if (child->child && check_duplicates(child, name, err) != 0) {
            return -1;
        }
    }
    return 0;
}

cJSON *json_parse(const char *text, size_t size, const char *name, int64_t first_line,
                  struct error *err)
{
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3; /* the mark some editors put first */
        size -= 3;
    }
    if (json_check(text, size, name, first_line, err) != 0) {
        return NULL;
    }
    cJSON *value = cJSON_ParseWithLength(text, size);
    if (!value) {
        fail(err, ERROR_RUNTIME, "%s: no memory for %zu bytes of JSON", text_show(name).text, size);
        return NULL;
    }
    if (check_duplicates(value, name, err) != 0) {
        cJSON_Delete(value);
        return NULL;
    }
    return value;
}

cJSON *json_read(const char *path, struct error *err)
{
    size_t size = 0;
    char *text = file_read_all(path, (size_t)64 << 20, &size, err);
    if (!text) {
        return NULL;
    }
    cJSON *value = json_parse(text, size, path, 1, err);
    free(text);
    return value;
}

const cJSON *json_get(const cJSON *object, const char *key)
{
    const cJSON *child;
    if (!cJSON_IsObject(object)) {
        return NULL;
    }
    cJSON_ArrayForEach (child, object) {
        if (strcmp(child->string, key) == 0) {
            return child;
        }
    }
    return NULL;
}

/* What stands there, cut short. */
static struct text_shown shown_value(const cJSON *value)
{
    if (cJSON_IsObject(value)) {
        return text_show("an object");
    }
    if (cJSON_IsArray(value)) {
        return text_show("a list");
    }
    char *text = json_print(value);
    struct text_shown shown = text_show(text);
    free(text);
    return shown;
}

/* "file: "model.hidden_size" must be ALLOWED, found VALUE". An object in a tree knows its own key;
 * so two levels of the path are known here, and callers put the rest into `name`. */
static int refuse_value(const cJSON *object, const char *key, const char *allowed, const char *name,
                        struct error *err)
{
    const cJSON *value = json_get(object, key);
    bool inside = object && object->string && object->string[0] != '\0';
    char *path = inside ? xasprintf("%s.%s", object->string, key) : xstrdup(key);
    if (!value || cJSON_IsNull(value)) {
        fail(err, ERROR_DATA, "%s: \"%s\" is missing, it must be %s", text_show(name).text,
             text_show(path).text, allowed);
    } else {
        fail(err, ERROR_DATA, "%s: \"%s\" must be %s, found %s", text_show(name).text,
             text_show(path).text, allowed, shown_value(value).text);
    }
    free(path);
    return -1;
}

int json_integer(const cJSON *object, const char *key, struct json_range range, int64_t *out,
                 const char *name, struct error *err)
{
    const cJSON *value = json_get(object, key);
    if ((!value || cJSON_IsNull(value)) && !range.required) {
        *out = range.fallback;
        return 0;
    }
    /* From 2^53 on, neighbours in the text are the same double. */
    bool whole = cJSON_IsNumber(value) && fabs(value->valuedouble) < 0x1p53 &&
                 value->valuedouble == trunc(value->valuedouble);
    int64_t number = whole ? (int64_t)value->valuedouble : 0;
    if (!whole || number < range.minimum || number > range.maximum) {
        char *allowed = xasprintf("a whole number in %lld .. %lld", (long long)range.minimum,
                                  (long long)range.maximum);
        refuse_value(object, key, allowed, name, err);
        free(allowed);
        return -1;
    }
    *out = number;
    return 0;
}

int json_number(const cJSON *object, const char *key, double fallback, double *out,
                const char *name, struct error *err)
{
    const cJSON *value = json_get(object, key);
    if (!value || cJSON_IsNull(value)) {
        *out = fallback;
        return 0;
    }
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble)) {
        return refuse_value(object, key, "a number", name, err);
    }
    *out = value->valuedouble;
    return 0;
}

int json_bool(const cJSON *object, const char *key, bool fallback, bool *out, const char *name,
              struct error *err)
{
    const cJSON *value = json_get(object, key);
    if (!value || cJSON_IsNull(value)) {
        *out = fallback;
        return 0;
    }
    if (!cJSON_IsBool(value)) {
        return refuse_value(object, key, "true or false", name, err);
    }
    *out = cJSON_IsTrue(value) != 0;
    return 0;
}

int json_string(const cJSON *object, const char *key, const char *fallback, const char **out,
                const char *name, struct error *err)
{
    const cJSON *value = json_get(object, key);
    if (!value || cJSON_IsNull(value)) {
        *out = fallback;
        return 0;
    }
    if (!cJSON_IsString(value)) {
        return refuse_value(object, key, "a text in quotes", name, err);
    }
    *out = value->valuestring;
    return 0;
}
