/* A ring of buckets and the thread that empties it. See worker.h. */
#include "engine/comm/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

enum { ROOM = 8 };

struct worker {
    int (*send)(void *context, const struct comm_bucket *bucket);
    void *context;
    int ranks;
    pthread_t thread;
    atomic_bool given_up;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    struct comm_bucket ring[ROOM]; /* number n at n % ROOM; not touched between posted and done */
    int64_t posted;
    int64_t done;
    bool ending;
    bool failed;
    char failed_what[COMM_WHAT];
};

static void *work(void *context)
{
    struct worker *worker = context;
    pthread_mutex_lock(&worker->mutex);
    for (;;) {
        while (worker->done == worker->posted && !worker->ending) {
            pthread_cond_wait(&worker->changed, &worker->mutex);
        }
        if (worker->done == worker->posted) {
            break;
        }
        const struct comm_bucket *bucket = &worker->ring[worker->done % ROOM];
        if (!worker->failed) {
            pthread_mutex_unlock(&worker->mutex);
            bool failed = worker->send(worker->context, bucket) != 0;
            pthread_mutex_lock(&worker->mutex);
            if (failed) {
                worker->failed = true;
                memcpy(worker->failed_what, bucket->what, sizeof worker->failed_what);
            }
        }
        worker->done++;
        pthread_cond_broadcast(&worker->changed);
    }
    pthread_mutex_unlock(&worker->mutex);
    return NULL;
}

static void free_worker(struct worker *worker)
{
    for (int i = 0; i < ROOM; i++) {
        comm_bucket_free(&worker->ring[i]);
    }
    pthread_cond_destroy(&worker->changed);
    pthread_mutex_destroy(&worker->mutex);
    free(worker);
}

struct worker *worker_open(int ranks, int (*send)(void *context, const struct comm_bucket *bucket),
                           void *context)
{
    struct worker *worker = xcalloc(1, sizeof *worker);
    pthread_condattr_t monotonic;
    worker->send = send;
    worker->context = context;
    worker->ranks = ranks;
    for (int i = 0; i < ROOM; i++) {
        comm_bucket_init(&worker->ring[i], ranks);
    }
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&worker->thread, NULL, work, worker) != 0) {
        free_worker(worker);
        return NULL;
    }
    return worker;
}

bool worker_post(struct worker *worker, const struct comm_bucket *bucket)
{
    pthread_mutex_lock(&worker->mutex);
    bool room = worker->posted - worker->done < ROOM;
    if (room) {
        comm_bucket_copy(&worker->ring[worker->posted % ROOM], bucket, worker->ranks);
        worker->posted++;
        pthread_cond_broadcast(&worker->changed);
    }
    pthread_mutex_unlock(&worker->mutex);
    return room;
}

bool worker_busy(struct worker *worker, double seconds, char what[COMM_WHAT])
{
    double end = clock_monotonic() + seconds;
    struct timespec until = { .tv_sec = (time_t)end };
    until.tv_nsec = (long)(1e9 * (end - (double)until.tv_sec));
    pthread_mutex_lock(&worker->mutex);
    int waited = 0;
    while (worker->done < worker->posted && waited == 0) {
        waited = pthread_cond_timedwait(&worker->changed, &worker->mutex, &until);
    }
    bool busy = worker->done < worker->posted;
    if (busy) {
        memcpy(what, worker->ring[worker->done % ROOM].what, COMM_WHAT);
    }
    pthread_mutex_unlock(&worker->mutex);
    return busy;
}

bool worker_failed(struct worker *worker, char what[COMM_WHAT])
{
    pthread_mutex_lock(&worker->mutex);
    bool failed = worker->failed;
    memcpy(what, worker->failed_what, COMM_WHAT);
    pthread_mutex_unlock(&worker->mutex);
    return failed;
}

void worker_give_up(struct worker *worker)
{
    atomic_store(&worker->given_up, true);
}

bool worker_goes_on(void *worker)
{
    return !atomic_load(&((struct worker *)worker)->given_up);
}

void worker_close(struct worker *worker)
{
    if (worker == NULL) {
        return;
    }
    worker_give_up(worker);
    pthread_mutex_lock(&worker->mutex);
    worker->ending = true;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
    pthread_join(worker->thread, NULL);
    free_worker(worker);
}
