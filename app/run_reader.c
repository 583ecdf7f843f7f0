/* The thread that reads runs. The lock is never held while a file is read. */
#include "app/run_reader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/xalloc.h"

enum { QUEUE = 16, READ = 'r', REMOVE = 'd', LIST = 'l' };

struct run_reader {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int fd;
    bool ending;
    bool busy;
    char *asked[QUEUE]; /* oldest first: a path behind READ, REMOVE, or LIST alone */
    int asked_count;
    struct run_reading read[QUEUE];
    int read_count;
};

void run_reading_free(struct run_reading *reading)
{
    comparison_run_free(&reading->run);
    run_list_free(&reading->list);
    free(reading->path);
    *reading = (struct run_reading){ 0 };
}

static void do_job(const char *job, struct run_reading *out)
{
    *out = (struct run_reading){ 0 };
    if (job[0] == LIST) {
        out->ok = run_list_read(&out->list, &out->err) == 0;
        return;
    }
    const char *path = job + 1;
    out->path = xstrdup(path);
    if (job[0] == REMOVE) {
        out->pruned = true;
        out->ok = run_prune(path, &out->err) == 0;
        return;
    }
    out->ok = comparison_run_read(&out->run, path, NULL, &out->err) == 0;
    if (!out->ok) {
        out->run = (struct comparison_run){ 0 };
    }
}

static void keep(struct run_reader *reader, struct run_reading *reading)
{
    if (reader->read_count == QUEUE) {
        run_reading_free(&reader->read[0]);
        memmove(&reader->read[0], &reader->read[1], (QUEUE - 1) * sizeof(reader->read[0]));
        reader->read_count--;
    }
    reader->read[reader->read_count++] = *reading;
    uint64_t one = 1;
    if (write(reader->fd, &one, sizeof(one)) < 0) {
        reader->ending = true; /* cannot happen to an eventfd that is read */
    }
}

static void *work(void *context)
{
    struct run_reader *reader = context;
    pthread_mutex_lock(&reader->lock);
    while (!reader->ending) {
        if (reader->asked_count == 0) {
            pthread_cond_wait(&reader->wake, &reader->lock);
            continue;
        }
        char *job = reader->asked[0];
        reader->asked_count--;
        memmove(&reader->asked[0], &reader->asked[1],
                (size_t)reader->asked_count * sizeof(reader->asked[0]));
        reader->busy = true;
        pthread_mutex_unlock(&reader->lock);
        struct run_reading reading;
        do_job(job, &reading);
        free(job);
        pthread_mutex_lock(&reader->lock);
        reader->busy = false;
        keep(reader, &reading);
    }
    pthread_mutex_unlock(&reader->lock);
    return NULL;
}

struct run_reader *run_reader_open(void)
{
    struct run_reader *reader = xcalloc(1, sizeof(*reader));
    pthread_mutex_init(&reader->lock, NULL);
    pthread_cond_init(&reader->wake, NULL);
    reader->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (reader->fd < 0 || pthread_create(&reader->thread, NULL, work, reader) != 0) {
        BUG("no thread for reading runs can be started");
    }
    return reader;
}

void run_reader_close(struct run_reader *reader)
{
    if (!reader) {
        return;
    }
    pthread_mutex_lock(&reader->lock);
    reader->ending = true;
    pthread_cond_signal(&reader->wake);
    bool busy = reader->busy;
    pthread_mutex_unlock(&reader->lock);
    if (busy) {
        pthread_detach(reader->thread);
        return;
    }
    pthread_join(reader->thread, NULL);
    for (int i = 0; i < reader->asked_count; i++) {
        free(reader->asked[i]);
    }
    for (int i = 0; i < reader->read_count; i++) {
        run_reading_free(&reader->read[i]);
    }
    pthread_mutex_destroy(&reader->lock);
    pthread_cond_destroy(&reader->wake);
    close(reader->fd);
    free(reader);
}

int run_reader_fd(const struct run_reader *reader)
{
    return reader->fd;
}

/* Takes the job over. */
static void queue(struct run_reader *reader, char *job)
{
    pthread_mutex_lock(&reader->lock);
    bool known = false;
    for (int i = 0; i < reader->asked_count; i++) {
        known |= strcmp(reader->asked[i], job) == 0;
    }
    if (!known && reader->asked_count == QUEUE) {
        free(reader->asked[0]);
        memmove(&reader->asked[0], &reader->asked[1], (QUEUE - 1) * sizeof(reader->asked[0]));
        reader->asked_count--;
    }
    if (known) {
        free(job);
    } else {
        reader->asked[reader->asked_count++] = job;
        pthread_cond_signal(&reader->wake);
    }
    pthread_mutex_unlock(&reader->lock);
}

void run_reader_ask(struct run_reader *reader, const char *path)
{
    queue(reader, path ? xasprintf("%c%s", READ, path) : xasprintf("%c", LIST));
}

void run_reader_prune(struct run_reader *reader, const char *path)
{
    queue(reader, xasprintf("%c%s", REMOVE, path));
}

bool run_reader_take(struct run_reader *reader, struct run_reading *out)
{
    pthread_mutex_lock(&reader->lock);
    bool any = reader->read_count > 0;
    if (any) {
        *out = reader->read[0];
        reader->read_count--;
        memmove(&reader->read[0], &reader->read[1],
                (size_t)reader->read_count * sizeof(reader->read[0]));
    }
    if (reader->read_count == 0) {
        uint64_t count;
        ssize_t cleared = read(reader->fd, &count, sizeof(count));
        (void)cleared; /* nothing to clear is good too */
    }
    pthread_mutex_unlock(&reader->lock);
    return any;
}
