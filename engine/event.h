/*
 * Everything a run says is one stream of events, one JSON object a line.
 *
 * events.jsonl, the socket, --json, the screens and the tests read the same lines. A value that is
 * not known is absent, never 0: floating-point fields hold NaN, integers EVENT_UNKNOWN and strings
 * NULL for it.
 */
#ifndef WINDROW_ENGINE_EVENT_H
#define WINDROW_ENGINE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/base/xalloc.h"
#include "engine/memory/memory.h"

enum {
    EVENT_HISTOGRAM_BINS = 64,
    EVENT_CURVE_POINTS = 7,
    EVENT_LARGEST_COUNT = 16,
    EVENT_PHASE_COUNT = 8,
    EVENT_RANKS_MAX = 4096
};
#define EVENT_UNKNOWN INT64_MIN

enum event_kind {
    EVENT_START,
    EVENT_PLAN,
    EVENT_STEP,
    EVENT_MEMORY,
    EVENT_SELECTION,
    EVENT_EVALUATION,
    EVENT_SAMPLE,
    EVENT_CHECKPOINT,
    EVENT_SETTING,
    EVENT_TELEMETRY,
    EVENT_WARNING,
    EVENT_ERROR,
    EVENT_RESUME,
    EVENT_STATE, /* what the run is doing now: running, paused, evaluating, saving */
    EVENT_STOP,
    EVENT_RANKS, /* how the ranks of a run fare; only where there are several */
    EVENT_KIND_COUNT
};
/* "start", "plan", "step" ... */
extern const char *const event_kind_names[EVENT_KIND_COUNT];

struct event_start {
    char *run;         /* name of the run */
    char *recipe_json; /* the resolved recipe, written as an object under "recipe" */
    char *model_name;
    char *family;
    int64_t parameters;
    int64_t trained_parameters;
    int64_t layers, hidden_size, heads, kv_heads, intermediate_size, vocabulary;
    char *data_name;
    int64_t train_rows, train_tokens, validation_rows;
    int64_t total_steps;
    char *device;
    int64_t threads;
    int64_t ranks; /* that train together; EVENT_UNKNOWN: of an older run, which had one */
    /* Of a GPU: its memory; what the driver's context and the libraries take beside the plan, as it
     * was measured; what other programs and the driver held before. */
    int64_t device_total_bytes, context_bytes, others_bytes;
    char *version;
    int64_t pid;
};

struct event_plan {
    int64_t planned_bytes[MEMORY_CATEGORY_COUNT]; /* capacity of each category */
    int64_t total_bytes;                          /* their sum */
    int64_t peak_bytes;                           /* highest sum alive at one time */
    int64_t limit_bytes;                          /* 0: none */
    double step_flops;
    double refresh_flops;
    int64_t checkpoint_bytes;
    int phase_count;
    struct {
        char name[16]; /* "forward", "backward", "refresh", "update", "evaluate", "sample" */
        int64_t bytes[MEMORY_CATEGORY_COUNT];
    } phase[EVENT_PHASE_COUNT];
    int largest_count;
    struct memory_record largest[EVENT_LARGEST_COUNT];
};

struct event_step {
    float loss; /* nats per trained token; NaN: absent */
    float grad_norm;
    double learning_rate;
    int64_t tokens;           /* trained tokens of this step */
    int64_t tokens_total;     /* processed since the start of the run, padding included */
    double tokens_per_second; /* processed positions */
    double mfu; /* FLOPs of the plan a second / those of a large matrix product on this device */
    double step_ms, forward_ms, backward_ms, update_ms, refresh_ms, data_ms;
    double exchange_ms; /* stood in collectives, in none of the phases; absent: there is one rank */
    int64_t offload_written_bytes; /* of activations, to an SSD and back */
    int64_t offload_read_bytes;
    double offload_stall_ms; /* the step waited for the disk */
    int64_t exchanged_bytes; /* that the ranks summed or spread; EVENT_UNKNOWN: there is one */
    int64_t rank;            /* EVENT_UNKNOWN where the method has none */
    bool refreshed;
    bool skipped;
    char *reason; /* why it was skipped */
};

struct event_memory {
    int64_t bytes[MEMORY_CATEGORY_COUNT];
    int64_t peak_bytes[MEMORY_CATEGORY_COUNT];
    int64_t planned_bytes[MEMORY_CATEGORY_COUNT];
    /* On an NVIDIA device what NVML, or else CUDA, tells of all its processes and the driver;
     * elsewhere what the regions take. */
    int64_t device_used_bytes;
    int64_t host_bytes;
};

struct event_selection {
    char *tensor;           /* "model.layers.0.self_attn.q_proj.weight" */
    char *side;             /* "out" or "in" */
    int64_t rank;           /* of the recipe */
    int64_t rows;           /* candidates */
    int64_t selected;       /* distinct rows chosen */
    double overlap;         /* Jaccard with the previous selection; NaN at the first */
    double captured_energy; /* share of the squared gradient norm */
    double coverage;        /* share of rows ever selected */
    double entropy;         /* nats, of the squared row norms as a distribution */
    double
        curve[EVENT_CURVE_POINTS]; /* share that 1/64, 1/32 ... 1/2, all of the rows could hold */
    int64_t histogram[EVENT_HISTOGRAM_BINS]; /* selected rows by position, bins of equal width */
};

struct event_evaluation {
    float loss;
    double perplexity;
    int64_t rows;
    int64_t tokens;
};
struct event_sample {
    char *prompt;
    char *text;
};
struct event_checkpoint {
    char *path;
    int64_t bytes;
    double seconds;
    bool best;
};
struct event_setting {
    char *key;
    char *from; /* as text, as after key= */
    char *to;
    int64_t effective_step; /* the first step that runs with it */
    char *by;               /* "client 3", "resume" */
};
struct event_telemetry {
    /* Of the device, at most a second old; all absent where it is no NVIDIA device or NVML is not
     * there. Used bytes are those of all its processes. */
    double gpu_util, power_w, temperature_c, clock_mhz;
    int64_t device_used_bytes, device_total_bytes;
    int64_t host_bytes; /* resident, of this process */
    double cpu_percent; /* of one processor */
};
struct event_message {
    char *text;
    char *hint;
}; /* warning, error */
struct event_resume {
    char *path;
    int64_t from_step;
    char *reason;
};
struct event_state {
    char *state;
};
struct event_stop {
    char *reason;   /* "done", "stopped", "interrupted", "diverged", "failed" */
    int64_t status; /* the exit code */
    int64_t steps;
    int64_t tokens_total;
    double seconds;
    float loss;
};
/* One of the ranks. */
struct event_rank {
    char host[64]; /* "": unknown, as `device` */
    char device[64];
    int64_t local_rank; /* among those of its host: with GPUs the number of the GPU */
    /* Means over the steps. A step is computing and waiting: in collectives, for the other ranks
     * and for the bytes that travel. */
    double step_ms, compute_ms, wait_ms;
    int64_t exchanged_bytes;
    /* Tensors: alive between two steps, at most, and the regions made for them; what the plan was
     * held to (0: nothing). */
    int64_t bytes, peak_bytes, planned_bytes, limit_bytes;
    /* As in struct event_telemetry. */
    int64_t device_used_bytes, device_total_bytes, host_bytes;
    double gpu_util, power_w, temperature_c;
};
struct event_ranks {
    int64_t steps;           /* that the times are means of */
    int64_t slowest;         /* the rank that computed longest */
    int count;               /* ranks; at most EVENT_RANKS_MAX are told */
    struct event_rank *item; /* made with xmalloc: the event's */
};

struct event {
    enum event_kind kind;
    double time;  /* Unix seconds */
    int64_t step; /* EVENT_UNKNOWN where it does not apply */
    union {
        struct event_start start;
        struct event_plan plan;
        struct event_step step_done;
        struct event_memory memory;
        struct event_selection selection;
        struct event_evaluation evaluation;
        struct event_sample sample;
        struct event_checkpoint checkpoint;
        struct event_setting setting;
        struct event_telemetry telemetry;
        struct event_message message;
        struct event_resume resume;
        struct event_state state;
        struct event_stop stop;
        struct event_ranks ranks;
    };
};

/* An event with every field unknown. */
void event_init(struct event *event, enum event_kind kind);
/* Frees strings and ranks (made with xmalloc). */
void event_free(struct event *event);

/* Appends one line, with its newline. No byte of it can command a terminal. */
void event_write(const struct event *event, struct buffer *out);

/* A rank of which nothing is known. */
void event_rank_init(struct event_rank *rank);

/* Reads one line (with or without newline). Unknown keys are ignored, so that older programs read
 * newer runs; an unknown kind is an error. */
int event_read(const char *line, size_t size, struct event *event, struct error *err);

/* Shows every event of a run directory in the order of its file; `take` may take strings out of it.
 * A line that cannot be read is passed over, and so is a last one without its newline: the run may
 * be writing it now. */
int event_file_read(const char *run, void (*take)(void *context, struct event *event),
                    void *context, struct error *err);

#endif
