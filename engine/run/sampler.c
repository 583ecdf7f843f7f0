/* The sampling thread. The lock is held only while a sample is copied, never while NVML is asked.
 */
#include "engine/run/sampler.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

enum { EVERY_MS = 1000, LEAVE_AFTER_MS = 1000, LOOK_EVERY_MS = 5 };
static const double stale_s = 5.0;

struct sampler {
    pthread_t thread;
    pthread_mutex_t lock;
    int wake; /* an eventfd: written to end */
    char bus_id[NVML_BUS_ID_SIZE];
    char *library; /* NULL: the system's */
    /* Under the lock: */
    struct nvml_sample sample;
    double sampled_s; /* clock_monotonic; 0: never */
    char trouble[256];
    bool told;
    bool finished;  /* the thread touches nothing any more */
    bool abandoned; /* the thread frees everything */
};

static void release(struct sampler *sampler)
{
    pthread_mutex_destroy(&sampler->lock);
    close(sampler->wake);
    free(sampler->library);
    free(sampler);
}

static void publish(struct sampler *sampler, const struct nvml_sample *sample, const char *trouble)
{
    pthread_mutex_lock(&sampler->lock);
    sampler->sample = *sample;
    sampler->sampled_s = clock_monotonic();
    snprintf(sampler->trouble, sizeof sampler->trouble, "%s", trouble);
    pthread_mutex_unlock(&sampler->lock);
}

/* Samples until told to end, or until there is nothing to ask any more. */
static void sample_on(struct sampler *sampler, struct nvml *nvml)
{
    struct pollfd wake = { .fd = sampler->wake, .events = POLLIN };
    struct nvml_sample sample;
    do {
        nvml_sample(nvml, &sample);
        publish(sampler, &sample,
                sample.lost ? "the driver has lost the device: there is no telemetry of it any more"
                            : "");
    } while (!sample.lost && poll(&wake, 1, EVERY_MS) == 0);
}

static void *work(void *context)
{
    struct sampler *sampler = context;
    struct nvml_sample unknown;
    char why[256];
    struct nvml *nvml = nvml_open(sampler->library, why, sizeof why);
    nvml_sample_clear(&unknown);
    if (nvml == NULL || nvml_choose(nvml, sampler->bus_id, why, sizeof why) != 0) {
        publish(sampler, &unknown, why);
    } else {
        sample_on(sampler, nvml);
    }
    nvml_close(nvml);
    pthread_mutex_lock(&sampler->lock);
    sampler->finished = true;
    bool abandoned = sampler->abandoned;
    pthread_mutex_unlock(&sampler->lock);
    if (abandoned) {
        release(sampler);
    }
    return NULL;
}

struct sampler *sampler_open(const char *bus_id, const char *library)
{
    struct sampler *sampler = xcalloc(1, sizeof *sampler);
    snprintf(sampler->bus_id, sizeof sampler->bus_id, "%s", bus_id);
    sampler->library = library ? xstrdup(library) : NULL;
    pthread_mutex_init(&sampler->lock, NULL);
    nvml_sample_clear(&sampler->sample);
    sampler->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sampler->wake < 0 || pthread_create(&sampler->thread, NULL, work, sampler) != 0) {
        release(sampler);
        return NULL;
    }
    return sampler;
}

static bool is_finished(struct sampler *sampler)
{
    pthread_mutex_lock(&sampler->lock);
    bool finished = sampler->finished;
    pthread_mutex_unlock(&sampler->lock);
    return finished;
}

void sampler_close(struct sampler *sampler)
{
    if (!sampler) {
        return;
    }
    uint64_t one = 1;
    ssize_t written = write(sampler->wake, &one, sizeof one);
    (void)written; /* an eventfd that is written once is never full */
    for (int waited = 0; !is_finished(sampler) && waited < LEAVE_AFTER_MS;
         waited += LOOK_EVERY_MS) {
        poll(NULL, 0, LOOK_EVERY_MS);
    }
    pthread_mutex_lock(&sampler->lock);
    sampler->abandoned = !sampler->finished;
    bool abandoned = sampler->abandoned;
    pthread_t thread = sampler->thread;
    pthread_mutex_unlock(&sampler->lock);
    if (abandoned) {
        pthread_detach(thread);
        return;
    }
    pthread_join(thread, NULL);
    release(sampler);
}

void sampler_read(struct sampler *sampler, struct nvml_sample *out)
{
    nvml_sample_clear(out);
    if (!sampler) {
        return;
    }
    pthread_mutex_lock(&sampler->lock);
    if (sampler->sampled_s > 0.0 && clock_monotonic() - sampler->sampled_s < stale_s) {
        *out = sampler->sample;
    }
    pthread_mutex_unlock(&sampler->lock);
}

bool sampler_trouble(struct sampler *sampler, char *why, size_t why_size)
{
    if (!sampler) {
        return false;
    }
    pthread_mutex_lock(&sampler->lock);
    bool news = sampler->trouble[0] != '\0' && !sampler->told;
    if (news) {
        sampler->told = true;
        snprintf(why, why_size, "%s", sampler->trouble);
    }
    pthread_mutex_unlock(&sampler->lock);
    return news;
}
