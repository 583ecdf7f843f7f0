/* The ranks of a ranks event: an array of objects, in the order of ranks, by a table of their own.
 * As everywhere a value that is not known is absent. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/run/event_rows.h"

enum member_type { MEMBER_NAME, MEMBER_INTEGER, MEMBER_DOUBLE };

static const struct member {
    const char *key;
    enum member_type type;
    size_t offset; /* in struct event_rank */
} members[] = {
    { "host", MEMBER_NAME, offsetof(struct event_rank, host) },
    { "device", MEMBER_NAME, offsetof(struct event_rank, device) },
    { "local_rank", MEMBER_INTEGER, offsetof(struct event_rank, local_rank) },
    { "step_ms", MEMBER_DOUBLE, offsetof(struct event_rank, step_ms) },
    { "compute_ms", MEMBER_DOUBLE, offsetof(struct event_rank, compute_ms) },
    { "wait_ms", MEMBER_DOUBLE, offsetof(struct event_rank, wait_ms) },
    { "exchanged_bytes", MEMBER_INTEGER, offsetof(struct event_rank, exchanged_bytes) },
    { "bytes", MEMBER_INTEGER, offsetof(struct event_rank, bytes) },
    { "peak_bytes", MEMBER_INTEGER, offsetof(struct event_rank, peak_bytes) },
    { "planned_bytes", MEMBER_INTEGER, offsetof(struct event_rank, planned_bytes) },
    { "limit_bytes", MEMBER_INTEGER, offsetof(struct event_rank, limit_bytes) },
    { "device_used_bytes", MEMBER_INTEGER, offsetof(struct event_rank, device_used_bytes) },
    { "device_total_bytes", MEMBER_INTEGER, offsetof(struct event_rank, device_total_bytes) },
    { "host_bytes", MEMBER_INTEGER, offsetof(struct event_rank, host_bytes) },
    { "gpu_util", MEMBER_DOUBLE, offsetof(struct event_rank, gpu_util) },
    { "power_w", MEMBER_DOUBLE, offsetof(struct event_rank, power_w) },
    { "temperature_c", MEMBER_DOUBLE, offsetof(struct event_rank, temperature_c) },
};
enum { MEMBER_COUNT = sizeof members / sizeof members[0], NAME_SIZE = 64 };

/* Ranks come from callers' storage, so that the alignment is right. */
static void *place_of(const struct member *member, const struct event_rank *rank)
{
    return (char *)(uintptr_t)rank + member->offset;
}

void event_rank_init(struct event_rank *rank)
{
    memset(rank, 0, sizeof *rank);
    for (int i = 0; i < MEMBER_COUNT; i++) {
        void *place = place_of(&members[i], rank);
        if (members[i].type == MEMBER_INTEGER) {
            *(int64_t *)place = EVENT_UNKNOWN;
        } else if (members[i].type == MEMBER_DOUBLE) {
            *(double *)place = (double)NAN;
        }
    }
}

static void write_member(const struct member *member, const void *place, struct buffer *out)
{
    if (member->type == MEMBER_NAME && *(const char *)place != '\0') {
        buffer_printf(out, ",\"%s\":", member->key);
        json_write_string(out, place, strlen(place));
    } else if (member->type == MEMBER_INTEGER && *(const int64_t *)place != EVENT_UNKNOWN) {
        buffer_printf(out, ",\"%s\":%lld", member->key, (long long)*(const int64_t *)place);
    } else if (member->type == MEMBER_DOUBLE && isfinite(*(const double *)place)) {
        buffer_printf(out, ",\"%s\":", member->key);
        json_write_double(out, *(const double *)place);
    }
}

void event_ranks_write(const struct event_ranks *ranks, struct buffer *out)
{
    buffer_append(out, "[", 1);
    for (int p = 0; p < ranks->count && p < EVENT_RANKS_MAX; p++) {
        buffer_printf(out, "%s{\"rank\":%d", p ? "," : "", p);
        for (int i = 0; i < MEMBER_COUNT; i++) {
            write_member(&members[i], place_of(&members[i], &ranks->item[p]), out);
        }
        buffer_append(out, "}", 1);
    }
    buffer_append(out, "]", 1);
}

static bool read_member(const struct member *member, const cJSON *value, void *place)
{
    if (member->type == MEMBER_NAME) {
        if (!cJSON_IsString(value)) {
            return false;
        }
        snprintf(place, NAME_SIZE, "%s", value->valuestring); /* a longer name loses its end */
        return true;
    }
    if (!cJSON_IsNumber(value)) {
        return false;
    }
    if (member->type == MEMBER_DOUBLE) {
        *(double *)place = value->valuedouble;
        return true;
    }
    if (!(fabs(value->valuedouble) <= 0x1p53) || value->valuedouble != trunc(value->valuedouble)) {
        return false;
    }
    *(int64_t *)place = (int64_t)value->valuedouble;
    return true;
}

static bool read_rank(const cJSON *object, int number, struct event_rank *rank)
{
    const cJSON *told = json_get(object, "rank");
    event_rank_init(rank);
    if (!cJSON_IsObject(object) || !cJSON_IsNumber(told) || told->valuedouble != number) {
        return false;
    }
    for (int i = 0; i < MEMBER_COUNT; i++) {
        const cJSON *value = json_get(object, members[i].key);
        if (value && !cJSON_IsNull(value) &&
            !read_member(&members[i], value, place_of(&members[i], rank))) {
            return false;
        }
    }
    return true;
}

bool event_ranks_read(const cJSON *value, struct event_ranks *ranks)
{
    int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 0;
    if (count < 1 || count > EVENT_RANKS_MAX) {
        return false;
    }
    struct event_rank *item = xcalloc((size_t)count, sizeof *item);
    const cJSON *object;
    int number = 0;
    cJSON_ArrayForEach (object, value) {
        if (!read_rank(object, number, &item[number])) {
            free(item);
            return false;
        }
        number++;
    }
    ranks->item = item;
    ranks->count = count;
    return true;
}
