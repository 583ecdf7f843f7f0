/* Writing safetensors: the format stands in safetensors.h. The data follow each other in the order
 * of the entries. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/safetensors.h"

enum { PREFIX = 8, ALIGNMENT = 8, HOLD = 1 << 18 };

struct safetensors_writer {
    char *path;
    int fd;
    struct digest *digest;
    int64_t written; /* bytes handed over, header included */
    int64_t total;
    bool failed;
    size_t held; /* bytes collected in `hold` */
    unsigned char *hold;
};

static const char *type_name(enum dtype dtype)
{
    static const char *const names[DTYPE_COUNT] = { "F32", "BF16", "F16", "I32", "U8", "I16" };
    return names[dtype];
}

int64_t safetensors_entry_bytes(const struct safetensors_entry *entry)
{
    int64_t bytes = (int64_t)dtype_size(entry->dtype);
    for (int i = 0; i < entry->rank; i++) {
        bytes *= entry->dim[i];
    }
    return bytes;
}

/* The length, the header and its padding. Returns the bytes of the data. */
static int64_t make_header(struct buffer *out, const struct safetensors_entry *entries,
                           size_t count)
{
    static const char start[PREFIX + 1] = "        ";
    int64_t at = 0;
    buffer_append(out, start, PREFIX);
    buffer_printf(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_entry *e = &entries[i];
        int64_t bytes = safetensors_entry_bytes(e);
        buffer_append(out, ",", 1);
        json_write_string(out, e->name, strlen(e->name));
        buffer_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", type_name(e->dtype));
        for (int k = 0; k < e->rank; k++) {
            buffer_printf(out, "%s%lld", k ? "," : "", (long long)e->dim[k]);
        }
        buffer_printf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)at,
                      (long long)(at + bytes));
        at += bytes;
    }
    buffer_append(out, "}", 1);
    while (out->size % ALIGNMENT != 0) {
        buffer_append(out, " ", 1);
    }
    uint64_t length = out->size - PREFIX;
    for (int i = 0; i < PREFIX; i++) {
        out->text[i] = (char)(unsigned char)(length >> (8 * i));
    }
    return at;
}

int64_t safetensors_file_bytes(const struct safetensors_entry *entries, size_t count)
{
    struct buffer header = { 0 };
    int64_t data = make_header(&header, entries, count);
    int64_t bytes = data + (int64_t)header.size;
    buffer_free(&header);
    return bytes;
}

struct safetensors_writer *safetensors_writer_begin(const char *path,
                                                    const struct safetensors_entry *entries,
                                                    size_t count, struct error *err)
{
    int fd;
    do {
        fd = file_ops()->open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        fail(err, ERROR_RUNTIME, "cannot create %s: %s", text_show(path).text, strerror(errno));
        return NULL;
    }
    struct buffer header = { 0 };
    struct safetensors_writer *w = xcalloc(1, sizeof *w);
    w->path = xstrdup(path);
    w->fd = fd;
    w->digest = digest_begin();
    w->hold = xmalloc(HOLD);
    int64_t data = make_header(&header, entries, count);
    w->total = data + (int64_t)header.size;
    int result = safetensors_writer_write(w, header.text, header.size, err);
    if (header.size - PREFIX > SAFETENSORS_HEADER_MAX && result == 0) {
        result = fail(err, ERROR_RUNTIME, "%s: a header of %zu bytes, at most %d are read anywhere",
                      text_show(path).text, header.size - PREFIX, SAFETENSORS_HEADER_MAX);
    }
    buffer_free(&header);
    if (result != 0) {
        safetensors_writer_abort(w);
        return NULL;
    }
    return w;
}

static int flush(struct safetensors_writer *w, const void *bytes, size_t size, struct error *err)
{
    if (size > 0 && file_write_all(w->fd, w->path, bytes, size, err) != 0) {
        w->failed = true;
        return -1;
    }
    digest_add(w->digest, bytes, size);
    return 0;
}

int safetensors_writer_write(struct safetensors_writer *w, const void *bytes, size_t size,
                             struct error *err)
{
    if (size > (size_t)(w->total - w->written)) {
        BUG("%s: more data than its tensors hold", w->path);
    }
    w->written += (int64_t)size;
    if (w->held + size <= HOLD) {
        if (size > 0) {
            memcpy(w->hold + w->held, bytes, size);
        }
        w->held += size;
        return 0;
    }
    size_t held = w->held;
    w->held = 0;
    if (flush(w, w->hold, held, err) != 0) {
        return -1;
    }
    if (size <= HOLD / 2) {
        memcpy(w->hold, bytes, size);
        w->held = size;
        return 0;
    }
    return flush(w, bytes, size, err);
}

static void free_writer(struct safetensors_writer *w)
{
    free(w->hold);
    free(w->path);
    free(w);
}

int safetensors_writer_finish(struct safetensors_writer *w, char digest[DIGEST_TEXT_SIZE],
                              int64_t *bytes, struct error *err)
{
    char text[DIGEST_TEXT_SIZE];
    if (!w->failed && w->written != w->total) {
        BUG("%s: %lld bytes were written, its tensors hold %lld", w->path, (long long)w->written,
            (long long)w->total);
    }
    int result = w->failed ? fail(err, ERROR_RUNTIME, "%s: a write failed before", w->path)
                           : flush(w, w->hold, w->held, err);
    if (result == 0 && file_ops()->fsync(w->fd) != 0) {
        result = fail(err, ERROR_RUNTIME, "cannot sync %s: %s", text_show(w->path).text,
                      strerror(errno));
    }
    if (file_ops()->close(w->fd) != 0 && result == 0 && errno != EINTR) {
        result = fail(err, ERROR_RUNTIME, "cannot close %s: %s", text_show(w->path).text,
                      strerror(errno));
    }
    if (result != 0) {
        file_ops()->unlink(w->path);
    } else if (bytes) {
        *bytes = w->total;
    }
    digest_end(w->digest, text);
    if (result == 0 && digest) {
        memcpy(digest, text, sizeof text);
    }
    free_writer(w);
    return result;
}

void safetensors_writer_abort(struct safetensors_writer *w)
{
    char text[DIGEST_TEXT_SIZE];
    if (!w) {
        return;
    }
    file_ops()->close(w->fd);
    file_ops()->unlink(w->path);
    digest_end(w->digest, text);
    free_writer(w);
}
