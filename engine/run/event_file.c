/* Reading events.jsonl as a whole, a slice after the other: a long run has hundreds of megabytes.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/event.h"

enum { SLICE_BYTES = 1 << 20 };

struct reading {
    void (*take)(void *context, struct event *event);
    void *context;
    struct buffer partial; /* the beginning of a line whose end is in the next slice */
};

static void take_line(struct reading *reading, const char *line, size_t size)
{
    struct event event;
    struct error ignored = { 0 };
    if (event_read(line, size, &event, &ignored) == 0) {
        reading->take(reading->context, &event);
        event_free(&event);
    }
}

static void take_slice(struct reading *reading, const char *at, size_t size)
{
    const char *end = at + size;
    for (const char *line_end; (line_end = memchr(at, '\n', (size_t)(end - at))) != NULL;) {
        size_t length = (size_t)(line_end - at);
        if (reading->partial.size > 0) {
            buffer_append(&reading->partial, at, length);
            take_line(reading, reading->partial.text, reading->partial.size);
            reading->partial.size = 0;
        } else {
            take_line(reading, at, length);
        }
        at = line_end + 1;
    }
    buffer_append(&reading->partial, at, (size_t)(end - at));
}

int event_file_read(const char *run, void (*take)(void *context, struct event *event),
                    void *context, struct error *err)
{
    struct reading reading = { .take = take, .context = context };
    char *path = path_join(run, "events.jsonl");
    int64_t size = 0;
    int fd = file_open_read(path, &size, err);
    int result = fd < 0 ? -1 : 0;
    char *slice = xmalloc(SLICE_BYTES);
    for (int64_t at = 0; at < size && result == 0; at += SLICE_BYTES) {
        size_t part = size - at < SLICE_BYTES ? (size_t)(size - at) : SLICE_BYTES;
        result = file_read_at(fd, path, slice, part, at, err);
        if (result == 0) {
            take_slice(&reading, slice, part);
        }
    }
    if (fd >= 0) {
        file_ops()->close(fd);
    }
    buffer_free(&reading.partial);
    free(slice);
    free(path);
    return result;
}
