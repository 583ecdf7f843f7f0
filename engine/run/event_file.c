/* Reading events.jsonl as a whole. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/event.h"

enum { EVENT_FILE_LIMIT = 1 << 30 };

int event_file_read(const char *run, void (*take)(void *context, struct event *event),
                    void *context, struct error *err)
{
    char *path = path_join(run, "events.jsonl");
    size_t size = 0;
    char *text = file_read_all(path, EVENT_FILE_LIMIT, &size, err);
    free(path);
    if (text == NULL) {
        return -1;
    }
    for (char *line = text; line < text + size;) {
        char *end = memchr(line, '\n', (size_t)(text + size - line));
        if (end == NULL) {
            break;
        }
        struct event event;
        struct error ignored = { 0 };
        if (event_read(line, (size_t)(end - line), &event, &ignored) == 0) {
            take(context, &event);
            event_free(&event);
        }
        line = end + 1;
    }
    free(text);
    return 0;
}
