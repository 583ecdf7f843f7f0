/* The table of events, shared by the files that read and write them. */
#ifndef WINDROW_ENGINE_RUN_EVENT_ROWS_H
#define WINDROW_ENGINE_RUN_EVENT_ROWS_H

#include <cjson/cJSON.h>

#include "engine/event.h"

enum row_type {
    ROW_TEXT,       /* char * */
    ROW_OBJECT,     /* char *: JSON, written as an object */
    ROW_FLOAT,      /* float */
    ROW_DOUBLE,     /* double */
    ROW_INTEGER,    /* int64_t */
    ROW_FLAG,       /* bool */
    ROW_CATEGORIES, /* int64_t [MEMORY_CATEGORY_COUNT]: {"weights": ...} */
    ROW_HISTOGRAM,  /* int64_t [EVENT_HISTOGRAM_BINS]: [...] */
    ROW_CURVE,      /* double [EVENT_CURVE_POINTS]: [...] */
    ROW_PHASES,     /* struct event_plan: {"forward": {"weights": ...}, ...} */
    ROW_LARGEST,    /* struct event_plan: [{"name", "category", "dtype", "shape", "bytes"}, ...] */
    ROW_RANKS,      /* struct event_ranks: [{"rank", "host", ...}, ...] */
};

struct event_row {
    enum event_kind kind;
    const char *key;
    enum row_type type;
    size_t offset; /* in struct event */
};

/* In the order of the kinds, and within a kind in the order they are written. */
extern const struct event_row event_rows[];
extern const size_t event_row_count;
/* Index of the first row of a kind. */
size_t event_row_first(enum event_kind kind);

/* Reads a line that is laid out exactly as event_write does it, several times as fast as the reader
 * of any JSON. False, and nothing to free, if the line is anything else or has a value that is
 * better left to that reader: it may still be an event. What is read is the same, bit for bit. */
bool event_scan(const char *line, size_t size, struct event *event);

/* Where the row's value lies. Events come from callers' storage, so that the alignment is right. */
void *event_row_place(const struct event_row *row, const struct event *event);

/* event_ranks.c: the array of a ranks event. False, with what was read freed, if it is none. */
void event_ranks_write(const struct event_ranks *ranks, struct buffer *out);
bool event_ranks_read(const cJSON *value, struct event_ranks *ranks);

/* The reader of any JSON. */
int event_read_any(const char *line, size_t size, struct event *event, struct error *err);

#endif
