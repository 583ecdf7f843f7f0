/* The reader of events: any JSON, in any layout. */
#include <math.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/run/event_rows.h"

/* A whole number that int64_t and double both hold. */
static bool read_whole(const cJSON *value, int64_t *out)
{
    if (!cJSON_IsNumber(value) || !(fabs(value->valuedouble) <= 0x1p53) ||
        value->valuedouble != trunc(value->valuedouble)) {
        return false;
    }
    *out = (int64_t)value->valuedouble;
    return true;
}

static bool read_categories(const cJSON *value, int64_t *out)
{
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        if (!read_whole(json_get(value, memory_category_names[i]), &out[i])) {
            return false;
        }
    }
    return true;
}

static bool read_histogram(const cJSON *value, int64_t *out)
{
    int64_t bins[EVENT_HISTOGRAM_BINS] = { 0 };
    int count = 0;
    const cJSON *item;
    if (!cJSON_IsArray(value)) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (count == EVENT_HISTOGRAM_BINS || !read_whole(item, &bins[count])) {
            return false;
        }
        count++;
    }
    memcpy(out, bins, sizeof bins);
    return count == EVENT_HISTOGRAM_BINS;
}

static bool read_curve(const cJSON *value, double *out)
{
    int count = 0;
    const cJSON *item;
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) != EVENT_CURVE_POINTS) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (!cJSON_IsNumber(item)) {
            return false;
        }
        out[count++] = item->valuedouble;
    }
    return true;
}

static bool read_phases(const cJSON *value, struct event_plan *plan)
{
    const cJSON *item;
    if (!cJSON_IsObject(value)) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (plan->phase_count == EVENT_PHASE_COUNT ||
            strlen(item->string) >= sizeof plan->phase[0].name ||
            !read_categories(item, plan->phase[plan->phase_count].bytes)) {
            return false;
        }
        memcpy(plan->phase[plan->phase_count].name, item->string, strlen(item->string) + 1);
        plan->phase_count++;
    }
    return true;
}

/* Position of the string `value` among names, or -1. */
static int read_name(const cJSON *value, const char *(*name)(int), int count)
{
    for (int i = 0; cJSON_IsString(value) && i < count; i++) {
        if (strcmp(value->valuestring, name(i)) == 0) {
            return i;
        }
    }
    return -1;
}

static const char *category_name(int i)
{
    return memory_category_names[i];
}

static const char *type_name(int i)
{
    return dtype_name((enum dtype)i);
}

static bool read_record(const cJSON *item, struct memory_record *record)
{
    const cJSON *name = json_get(item, "name");
    const cJSON *shape = json_get(item, "shape");
    int category = read_name(json_get(item, "category"), category_name, MEMORY_CATEGORY_COUNT);
    int dtype = read_name(json_get(item, "dtype"), type_name, DTYPE_COUNT);
    int64_t bytes = 0;
    if (!cJSON_IsString(name) || strlen(name->valuestring) >= sizeof record->name ||
        !cJSON_IsArray(shape) || category < 0 || dtype < 0 ||
        !read_whole(json_get(item, "bytes"), &bytes) || bytes < 0) {
        return false;
    }
    const cJSON *dim;
    cJSON_ArrayForEach (dim, shape) {
        if (record->rank == TENSOR_RANK_MAX || !read_whole(dim, &record->dim[record->rank])) {
            return false;
        }
        record->rank++;
    }
    memcpy(record->name, name->valuestring, strlen(name->valuestring) + 1);
    record->category = (enum memory_category)category;
    record->dtype = (enum dtype)dtype;
    record->bytes = (size_t)bytes;
    return true;
}

static bool read_largest(const cJSON *value, struct event_plan *plan)
{
    const cJSON *item;
    if (!cJSON_IsArray(value)) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (plan->largest_count == EVENT_LARGEST_COUNT ||
            !read_record(item, &plan->largest[plan->largest_count])) {
            return false;
        }
        plan->largest_count++;
    }
    return true;
}

static bool read_value(const struct event_row *row, const cJSON *value, void *place)
{
    switch (row->type) {
    case ROW_TEXT:
        if (!cJSON_IsString(value)) {
            return false;
        }
        *(char **)place = xstrdup(value->valuestring);
        return true;
    case ROW_OBJECT:
        if (!cJSON_IsObject(value)) {
            return false;
        }
        *(char **)place = json_print(value);
        return true;
    case ROW_FLOAT:
    case ROW_DOUBLE:
        if (!cJSON_IsNumber(value)) {
            return false;
        }
        if (row->type == ROW_FLOAT) {
            *(float *)place = (float)value->valuedouble;
        } else {
            *(double *)place = value->valuedouble;
        }
        return true;
    case ROW_INTEGER:
        return read_whole(value, place);
    case ROW_FLAG:
        *(bool *)place = cJSON_IsTrue(value);
        return cJSON_IsBool(value);
    case ROW_CATEGORIES:
        return read_categories(value, place);
    case ROW_HISTOGRAM:
        return read_histogram(value, place);
    case ROW_CURVE:
        return read_curve(value, place);
    case ROW_PHASES:
        return read_phases(value, place);
    case ROW_LARGEST:
        return read_largest(value, place);
    case ROW_RANKS:
        return event_ranks_read(value, place);
    }
    return false;
}

static int read_rows(const cJSON *root, struct event *event, struct error *err)
{
    for (size_t i = 0; i < event_row_count; i++) {
        const cJSON *value =
            event_rows[i].kind == event->kind ? json_get(root, event_rows[i].key) : NULL;
        if (value && !cJSON_IsNull(value) &&
            !read_value(&event_rows[i], value, event_row_place(&event_rows[i], event))) {
            return fail(err, ERROR_DATA, "event %s: \"%s\" has an unexpected value",
                        event_kind_names[event->kind], event_rows[i].key);
        }
    }
    return 0;
}

static int read_event(const cJSON *root, struct event *event, struct error *err)
{
    const cJSON *name = json_get(root, "event");
    const cJSON *time = json_get(root, "time");
    const cJSON *step = json_get(root, "step");
    int kind = 0;
    if (!cJSON_IsString(name) || !cJSON_IsNumber(time)) {
        return fail(err, ERROR_DATA, "an event needs \"event\" and \"time\"");
    }
    while (kind < EVENT_KIND_COUNT && strcmp(name->valuestring, event_kind_names[kind]) != 0) {
        kind++;
    }
    if (kind == EVENT_KIND_COUNT) {
        return fail(err, ERROR_DATA, "unknown event \"%s\"", text_show(name->valuestring).text);
    }
    event_init(event, (enum event_kind)kind);
    event->time = time->valuedouble;
    if (step && !read_whole(step, &event->step)) {
        return fail(err, ERROR_DATA, "event %s: \"step\" is not a whole number", name->valuestring);
    }
    if (read_rows(root, event, err) != 0) {
        event_free(event);
        return -1;
    }
    return 0;
}

int event_read(const char *line, size_t size, struct event *event, struct error *err)
{
    return event_scan(line, size, event) ? 0 : event_read_any(line, size, event, err);
}

int event_read_any(const char *line, size_t size, struct event *event, struct error *err)
{
    memset(event, 0, sizeof *event);
    cJSON *root = json_parse(line, size, "event", 1, err);
    if (!root) {
        return -1;
    }
    int result = read_event(root, event, err);
    cJSON_Delete(root);
    return result;
}
