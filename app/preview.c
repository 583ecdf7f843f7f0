/* The previewing thread, and what a preview holds. */
#include "app/preview.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/xalloc.h"
#include "engine/inspect.h"

/* ---- one preview ------------------------------------------------------------------------------
 */

void preview_refuse(const struct error *err, struct launcher_preview *out)
{
    out->ok = false;
    snprintf(out->message, sizeof(out->message), "%.250s", err->message);
    snprintf(out->hint, sizeof(out->hint), "%.250s", err->hint);
}

/* Adds text as far as there is room, whole characters only. False if it was cut. */
static bool append(struct launcher_preview *out, const char *text, bool trained)
{
    size_t size = strlen(text);
    size_t room = sizeof(out->text) - 1 - out->text_size;
    bool fits = size <= room;
    if (!fits) {
        size = room;
        while (size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    memcpy(out->text + out->text_size, text, size);
    memset(out->trained + out->text_size, trained, size);
    out->text_size += size;
    return fits;
}

/* Runs of tokens that are trained, or are not, are decoded together; control pieces show their
 * names. */
static void render(const struct tokenizer *tokenizer, const int32_t *ids, const uint8_t *mask,
                   size_t count, struct launcher_preview *out)
{
    size_t shown = count < PREVIEW_TEXT_SIZE ? count : PREVIEW_TEXT_SIZE;
    for (size_t i = 0; i < count; i++) {
        out->sample_trained += mask[i] != 0;
    }
    out->sample_tokens = (int64_t)count;
    out->text_cut = shown < count;
    for (size_t i = 0; i < shown;) {
        char why[256];
        size_t end = i + 1;
        bool control = tokenizer_is_control(tokenizer, ids[i]);
        while (end < shown && !control && mask[end] == mask[i] &&
               !tokenizer_is_control(tokenizer, ids[end])) {
            end++;
        }
        char *text =
            control ? NULL : tokenizer_decode(tokenizer, ids + i, end - i, NULL, why, sizeof(why));
        const char *piece = control ? tokenizer_piece(tokenizer, ids[i]) : text;
        bool fits = append(out, piece ? piece : "?", mask[i] != 0);
        free(text);
        if (!fits) {
            out->text_cut = true;
            return;
        }
        i = end;
    }
}

static void fill(const struct recipe *recipe, const struct material *material,
                 struct launcher_preview *out)
{
    const struct dataset_facts *facts = dataset_facts(material->dataset);
    const char *notice = dataset_notice(material->dataset, 0);
    const int32_t *ids;
    const uint8_t *mask;
    size_t count;
    out->ok = true;
    snprintf(out->format, sizeof(out->format), "%s", data_format_names[facts->format]);
    snprintf(out->template_name, sizeof(out->template_name), "%s", facts->template_name);
    out->total_bytes = facts->total_bytes;
    out->read_bytes = facts->read_bytes;
    out->documents = facts->documents;
    out->skipped = facts->skipped;
    out->rows = facts->rows[DATA_TRAIN];
    out->tokens = facts->tokens[DATA_TRAIN];
    out->trained_tokens = facts->trained_tokens[DATA_TRAIN];
    out->sequence = recipe->data_sequence_length;
    snprintf(out->notice, sizeof(out->notice), "%.250s",
             notice          ? notice
             : out->stand_in ? "counted with the small tokenizer that comes along"
                             : "");
    if (dataset_preview(material->dataset, 0, &ids, &mask, &count) == 0) {
        render(material->tokenizer, ids, mask, count, out);
    }
}

/* Any bytes can be read with the tokenizer that comes along. */
static int stand_in(struct recipe *recipe, struct error *err)
{
    const char *root = preset_directory();
    char *word = xasprintf("tokenizer.path=%s/tokenizers/stories.model", root ? root : ".");
    int result = recipe_set(recipe, "model.preset=llama-tiny", err);
    if (result == 0) {
        result = recipe_set(recipe, word, err);
    }
    free(word);
    return result;
}

/* Whether the tokenizer of the recipe can be had without training one. */
static bool has_tokenizer(const struct recipe *recipe)
{
    struct error ignored = { 0 };
    struct material material;
    if (recipe->tokenizer_vocab > 0 ||
        material_open(recipe, MATERIAL_TOKENIZER, NULL, &material, &ignored) != 0) {
        return false;
    }
    material_close(&material);
    return true;
}

void preview_make(const struct recipe *wanted, struct launcher_preview *out)
{
    enum { PARTS = MATERIAL_TOKENIZER | MATERIAL_DATA | MATERIAL_BEGINNING };
    struct error err = { 0 };
    struct recipe recipe;
    struct material material;
    recipe_init(&recipe);
    recipe_copy(&recipe, wanted);
    int result = recipe_set(&recipe, "data.validation=", &err);
    if (result == 0 && !has_tokenizer(&recipe)) {
        out->stand_in = true;
        result = stand_in(&recipe, &err);
    }
    if (result != 0 || material_open(&recipe, PARTS, NULL, &material, &err) != 0) {
        preview_refuse(&err, out);
    } else {
        fill(&recipe, &material, out);
        material_close(&material);
    }
    recipe_free(&recipe);
}

/* ---- the thread -------------------------------------------------------------------------------
 */

struct previewer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int fd;
    bool asked;
    bool ending;
    bool busy; /* one is being made */
    struct recipe recipe;
    int choice[LAUNCHER_LISTS];
    struct launcher_preview *finished; /* or NULL */
};

static void *work(void *context)
{
    struct previewer *previewer = context;
    pthread_mutex_lock(&previewer->lock);
    while (!previewer->ending) {
        if (!previewer->asked) {
            pthread_cond_wait(&previewer->wake, &previewer->lock);
            continue;
        }
        previewer->asked = false;
        previewer->busy = true;
        struct recipe recipe;
        recipe_init(&recipe);
        recipe_copy(&recipe, &previewer->recipe);
        struct launcher_preview *made = xcalloc(1, sizeof(*made));
        memcpy(made->choice, previewer->choice, sizeof(made->choice));
        pthread_mutex_unlock(&previewer->lock);
        preview_make(&recipe, made);
        recipe_free(&recipe);
        pthread_mutex_lock(&previewer->lock);
        free(previewer->finished);
        previewer->finished = made;
        previewer->busy = false;
        uint64_t one = 1;
        if (write(previewer->fd, &one, sizeof(one)) < 0) {
            previewer->ending = true; /* cannot happen to an eventfd that is read */
        }
    }
    pthread_mutex_unlock(&previewer->lock);
    return NULL;
}

struct previewer *previewer_open(void)
{
    struct previewer *previewer = xcalloc(1, sizeof(*previewer));
    pthread_mutex_init(&previewer->lock, NULL);
    pthread_cond_init(&previewer->wake, NULL);
    recipe_init(&previewer->recipe);
    previewer->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (previewer->fd < 0 || pthread_create(&previewer->thread, NULL, work, previewer) != 0) {
        BUG("no thread for previews can be started");
    }
    return previewer;
}

void previewer_close(struct previewer *previewer)
{
    if (!previewer) {
        return;
    }
    pthread_mutex_lock(&previewer->lock);
    previewer->ending = true;
    pthread_cond_signal(&previewer->wake);
    bool busy = previewer->busy || previewer->asked;
    pthread_mutex_unlock(&previewer->lock);
    if (busy) {
        /* Leaving must not wait for a slow disk; the process ends soon anyway. */
        pthread_detach(previewer->thread);
        return;
    }
    pthread_join(previewer->thread, NULL);
    pthread_mutex_destroy(&previewer->lock);
    pthread_cond_destroy(&previewer->wake);
    recipe_free(&previewer->recipe);
    close(previewer->fd);
    free(previewer->finished);
    free(previewer);
}

int previewer_fd(const struct previewer *previewer)
{
    return previewer->fd;
}

void previewer_ask(struct previewer *previewer, const struct recipe *recipe,
                   const int choice[LAUNCHER_LISTS])
{
    pthread_mutex_lock(&previewer->lock);
    recipe_copy(&previewer->recipe, recipe);
    memcpy(previewer->choice, choice, sizeof(previewer->choice));
    previewer->asked = true;
    pthread_cond_signal(&previewer->wake);
    pthread_mutex_unlock(&previewer->lock);
}

struct launcher_preview *previewer_take(struct previewer *previewer)
{
    uint64_t count;
    if (read(previewer->fd, &count, sizeof(count)) < 0) {
        return NULL;
    }
    pthread_mutex_lock(&previewer->lock);
    struct launcher_preview *finished = previewer->finished;
    previewer->finished = NULL;
    pthread_mutex_unlock(&previewer->lock);
    return finished;
}
