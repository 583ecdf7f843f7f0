/* Writing, pruning and cleaning of checkpoints; format and protocol are in the header. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/digest.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run/checkpoint.h"

enum { CHUNK_BYTES = 1 << 20, MANIFEST_BYTES = 1024 };

static char *folder_of(const char *run)
{
    return path_join(run, "checkpoints");
}

/* ---- one directory -------------------------------------------------------------------------- */

static int write_blob(const char *folder, const struct checkpoint_blob *blob, struct error *err)
{
    char *path = path_join(folder, blob->name);
    int fd = file_ops()->open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        fail(err, ERROR_RUNTIME, "cannot create %s: %s", text_show(path).text, strerror(errno));
        free(path);
        return -1;
    }
    int result = file_write_all(fd, path, blob->bytes, blob->size, err);
    if (result == 0 && file_ops()->fsync(fd) != 0) {
        result =
            fail(err, ERROR_RUNTIME, "cannot sync %s: %s", text_show(path).text, strerror(errno));
    }
    if (file_ops()->close(fd) != 0 && result == 0 && errno != EINTR) {
        result =
            fail(err, ERROR_RUNTIME, "cannot close %s: %s", text_show(path).text, strerror(errno));
    }
    free(path);
    return result;
}

static int64_t element_count(const struct safetensors_entry *entry)
{
    int64_t count = 1;
    for (int i = 0; i < entry->rank; i++) {
        count *= entry->dim[i];
    }
    return count;
}

static int stream_entry(struct safetensors_writer *writer, const struct checkpoint_tensors *tensors,
                        size_t index, void *chunk, struct error *err)
{
    const struct safetensors_entry *entry = &tensors->entry[index];
    int64_t size = (int64_t)dtype_size(entry->dtype);
    int64_t total = element_count(entry);
    int64_t most = CHUNK_BYTES / size;
    for (int64_t first = 0; first < total; first += most) {
        int64_t count = total - first < most ? total - first : most;
        if (tensors->read(tensors->context, index, first, count, chunk, err) != 0 ||
            safetensors_writer_write(writer, chunk, (size_t)(count * size), err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int write_tensors(const char *path, const struct checkpoint_tensors *tensors,
                         char digest[DIGEST_TEXT_SIZE], int64_t *bytes, struct error *err)
{
    struct safetensors_writer *writer =
        safetensors_writer_begin(path, tensors->entry, tensors->count, err);
    if (!writer) {
        return -1;
    }
    void *chunk = xmalloc(CHUNK_BYTES);
    int result = 0;
    for (size_t i = 0; i < tensors->count && result == 0; i++) {
        result = stream_entry(writer, tensors, i, chunk, err);
    }
    free(chunk);
    if (result != 0) {
        safetensors_writer_abort(writer);
        return -1;
    }
    return safetensors_writer_finish(writer, digest, bytes, err);
}

/* One file of the manifest. */
static void note_file(struct buffer *manifest, const char *name, int64_t bytes, const char *digest)
{
    bool first = manifest->text[manifest->size - 1] == '[';
    buffer_printf(manifest, "%s\n{\"name\": \"%s\", \"bytes\": %lld, \"digest\": \"%s\"}",
                  first ? "" : ",", name, (long long)bytes, digest);
}

static int write_files(const char *folder, const struct checkpoint_save *save,
                       struct buffer *manifest, int64_t *total, struct error *err)
{
    static const char *const names[] = { CHECKPOINT_WEIGHTS, CHECKPOINT_STATE, CHECKPOINT_ADAPTER };
    const struct checkpoint_tensors *sets[] = { &save->weights, &save->state, &save->adapter };
    char digest[DIGEST_TEXT_SIZE];
    for (int i = 0; i < 3; i++) {
        int64_t bytes = 0;
        if (sets[i]->count == 0) {
            continue;
        }
        char *path = path_join(folder, names[i]);
        int result = write_tensors(path, sets[i], digest, &bytes, err);
        free(path);
        if (result != 0) {
            return -1;
        }
        note_file(manifest, names[i], bytes, digest);
        *total += bytes;
    }
    for (size_t i = 0; i < save->blob_count; i++) {
        const struct checkpoint_blob *blob = &save->blob[i];
        if (write_blob(folder, blob, err) != 0) {
            return -1;
        }
        digest_of(blob->bytes, blob->size, digest);
        note_file(manifest, blob->name, (int64_t)blob->size, digest);
        *total += (int64_t)blob->size;
    }
    return 0;
}

/* Everything into the temporary directory, synced. */
static int write_directory(const char *folder, const struct checkpoint_save *save, int64_t *total,
                           struct error *err)
{
    struct buffer manifest = { 0 };
    char digest[DIGEST_TEXT_SIZE];
    buffer_printf(&manifest,
                  "{\"format\": \"windrow-checkpoint\", \"version\": 1, \"step\": %lld, "
                  "\"files\": [",
                  (long long)save->step);
    int result = write_files(folder, save, &manifest, total, err);
    if (result == 0) {
        buffer_printf(&manifest, "\n], ");
        digest_of(manifest.text, manifest.size, digest);
        buffer_printf(&manifest, "\"self\": \"%s\"}\n", digest);
        struct checkpoint_blob blob = { "manifest.json", manifest.text, manifest.size };
        result = write_blob(folder, &blob, err);
        *total += (int64_t)manifest.size;
    }
    if (result == 0) {
        result = file_sync_directory(folder, err);
    }
    buffer_free(&manifest);
    return result;
}

/* ---- saving --------------------------------------------------------------------------------- */

int64_t checkpoint_size(const struct checkpoint_save *save)
{
    int64_t bytes = MANIFEST_BYTES;
    if (save->weights.count > 0) {
        bytes += safetensors_file_bytes(save->weights.entry, save->weights.count);
    }
    if (save->state.count > 0) {
        bytes += safetensors_file_bytes(save->state.entry, save->state.count);
    }
    if (save->adapter.count > 0) {
        bytes += safetensors_file_bytes(save->adapter.entry, save->adapter.count);
    }
    for (size_t i = 0; i < save->blob_count; i++) {
        bytes += (int64_t)save->blob[i].size;
    }
    return bytes;
}

static bool has_room(const char *folder, int64_t need, int64_t *have)
{
    *have = file_free_bytes(folder);
    return *have < 0 || *have >= need + CHECKPOINT_SPARE_BYTES;
}

/* One that another process begins from stays, which is no error. */
static int remove_checkpoint(const char *run, const struct checkpoint_name *item, struct error *err)
{
    int claim = checkpoint_claim(item->path);
    if (claim == CHECKPOINT_PINNED) {
        return 0;
    }
    char *away = xasprintf("%s/checkpoints/.del-step-%06lld-%ld", run, (long long)item->step,
                           (long)getpid());
    int result = 0;
    if (file_ops()->rename(item->path, away) != 0) {
        result = fail(err, ERROR_RUNTIME, "cannot remove %s: %s", text_show(item->path).text,
                      strerror(errno));
        checkpoint_unpin(claim);
    } else {
        checkpoint_unpin(claim);
        result = file_remove_tree(away, err);
    }
    free(away);
    return result;
}

static bool is_pinned(const struct checkpoint_save *save, int64_t step)
{
    bool pinned = step == save->step;
    for (size_t i = 0; i < save->pinned_count; i++) {
        pinned = pinned || save->pinned[i] == step;
    }
    return pinned;
}

/* Removes older checkpoints, the oldest first, until there is room. */
static int make_room(const char *folder, int64_t need, const struct checkpoint_save *save,
                     struct error *err)
{
    struct checkpoint_list list;
    int64_t have = 0;
    if (checkpoint_list_read(save->run, &list, err) != 0) {
        return -1;
    }
    size_t newest = 0; /* whole: with it, nothing older is needed to go on */
    struct error why = { 0 };
    while (newest < list.count && checkpoint_verify(list.item[newest].path, true, &why) != 0) {
        newest++;
    }
    int result = 0;
    for (size_t i = list.count; i > newest + 1 && result == 0; i--) {
        const struct checkpoint_name *item = &list.item[i - 1];
        if (has_room(folder, need, &have)) {
            break;
        }
        if (!is_pinned(save, item->step)) {
            result = remove_checkpoint(save->run, item, err);
        }
    }
    checkpoint_list_free(&list);
    return result;
}

static int check_space(const char *folder, const struct checkpoint_save *save, struct error *err)
{
    int64_t need = checkpoint_size(save);
    int64_t have = 0;
    if (has_room(folder, need, &have)) {
        return 0;
    }
    if (make_room(folder, need, save, err) != 0) {
        return -1;
    }
    if (!has_room(folder, need, &have)) {
        fail(err, ERROR_RUNTIME,
             "a checkpoint takes %lld bytes and %d must stay free beside it, the disk of %s has "
             "%lld bytes free, and no older checkpoint is left to remove",
             (long long)need, CHECKPOINT_SPARE_BYTES, text_show(folder).text, (long long)have);
        return hint(err, "free space there");
    }
    return 0;
}

/* An empty directory of this name; what an earlier process left there is removed. */
static int make_temporary(const char *path, struct error *err)
{
    if (file_ops()->mkdir(path, 0700) == 0) {
        return 0;
    }
    if (errno == EEXIST) {
        if (file_remove_tree(path, err) != 0) {
            return -1;
        }
        if (file_ops()->mkdir(path, 0700) == 0) {
            return 0;
        }
    }
    return fail(err, ERROR_RUNTIME, "cannot make %s: %s", text_show(path).text, strerror(errno));
}

/* Gives the written directory its name. An older checkpoint of the same step is exchanged in one
 * call, so that at no moment there is none; `temporary` then holds the old one. */
static int publish(const char *temporary, const char *path, struct error *err)
{
    bool taken = file_exists(path);
    if (taken && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        return 0;
    }
    char *away = xasprintf("%s-old", temporary); /* on file systems that cannot exchange */
    int result = 0;
    if ((taken && file_ops()->rename(path, away) != 0) ||
        file_ops()->rename(temporary, path) != 0) {
        result = fail(err, ERROR_RUNTIME, "cannot give %s its name: %s", text_show(path).text,
                      strerror(errno));
        if (taken && !file_exists(path)) {
            file_ops()->rename(away, path);
        }
    } else if (taken) {
        struct error ignored = { 0 };
        file_remove_tree(away, &ignored);
    }
    free(away);
    return result;
}

int checkpoint_save(const struct checkpoint_save *save, char **path, int64_t *bytes,
                    struct error *err)
{
    struct error ignored = { 0 };
    char *folder = folder_of(save->run);
    char *target = xasprintf("%s/step-%06lld", folder, (long long)save->step);
    char *temporary =
        xasprintf("%s/.tmp-step-%06lld-%ld", folder, (long long)save->step, (long)getpid());
    int64_t total = 0;
    bool made = false;
    int result = file_make_directories(folder, err);
    if (result == 0) {
        result = check_space(folder, save, err);
    }
    if (result == 0) {
        result = make_temporary(temporary, err);
        made = result == 0;
    }
    if (result == 0) {
        result = write_directory(temporary, save, &total, err);
    }
    if (result == 0) {
        result = publish(temporary, target, err);
    }
    if (result == 0) {
        result = file_sync_directory(folder, err);
    }
    if (made) {
        file_remove_tree(temporary, &ignored); /* on failure, or an older one exchanged for this */
    }
    if (result == 0) {
        *path = target;
        *bytes = total;
    } else {
        fail_within(err, "checkpoint of step %lld", (long long)save->step);
        free(target);
    }
    free(temporary);
    free(folder);
    return result;
}

int checkpoint_link(const char *run, const char *name, int64_t step, struct error *err)
{
    char *link = path_join(run, name);
    char *temporary = xasprintf("%s/.%s-%ld", run, name, (long)getpid());
    char *target = xasprintf("checkpoints/step-%06lld", (long long)step);
    int result = 0;
    file_ops()->unlink(temporary);
    if (symlink(target, temporary) != 0 || file_ops()->rename(temporary, link) != 0) {
        result = fail(err, ERROR_RUNTIME, "cannot point %s at step %lld: %s", text_show(link).text,
                      (long long)step, strerror(errno));
        file_ops()->unlink(temporary);
    }
    free(target);
    free(temporary);
    free(link);
    return result;
}

/* ---- removing ------------------------------------------------------------------------------- */

int checkpoint_prune(const char *run, int64_t keep, const int64_t *pinned, size_t pinned_count,
                     struct error *err)
{
    struct checkpoint_list list;
    int64_t kept = 0;
    int result = 0;
    if (checkpoint_list_read(run, &list, err) != 0) {
        return -1;
    }
    for (size_t i = 0; i < list.count; i++) {
        struct error why = { 0 };
        bool whole = checkpoint_verify(list.item[i].path, false, &why) == 0;
        bool stays = whole && kept < (keep < 1 ? 1 : keep);
        kept += stays ? 1 : 0;
        for (size_t p = 0; p < pinned_count; p++) {
            stays = stays || pinned[p] == list.item[i].step;
        }
        /* Nothing goes before a whole one was seen: there would be nothing to fall back on. */
        if (!stays && kept > 0 && remove_checkpoint(run, &list.item[i], err) != 0) {
            result = -1;
        }
    }
    checkpoint_list_free(&list);
    return result;
}

int checkpoint_clean(const char *run, struct error *err)
{
    char *folder = folder_of(run);
    DIR *directory = opendir(folder);
    int result = 0;
    if (!directory && errno != ENOENT) {
        result =
            fail(err, ERROR_RUNTIME, "cannot list %s: %s", text_show(folder).text, strerror(errno));
    }
    const struct dirent *entry;
    while (directory && result == 0 && (entry = readdir(directory))) {
        if (strncmp(entry->d_name, ".tmp-", 5) == 0 || strncmp(entry->d_name, ".del-", 5) == 0) {
            char *path = path_join(folder, entry->d_name);
            result = file_remove_tree(path, err);
            free(path);
        }
    }
    if (directory) {
        closedir(directory);
    }
    free(folder);
    return result;
}
