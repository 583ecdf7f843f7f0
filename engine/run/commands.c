/* The safe point between two steps: signals, and commands from the socket. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/method/method.h"
#include "engine/recipe/load.h"
#include "engine/run/parts.h"

#define PAUSE_WAIT_S 0.1

/* ---- signals -------------------------------------------------------------------------------- */

/* The one thing a handler may touch. */
static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    if (caught != 0) {
        _exit(128 + number); /* asked twice: at once */
    }
    caught = number;
}

void run_catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigemptyset(&action.sa_mask);
    caught = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a limit of file sizes fails a write like a full disk */
}

void run_ignore_signals(void)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGTERM, &ignore, NULL);
    caught = 0;
}

int run_signal(void)
{
    return caught;
}

/* ---- answers -------------------------------------------------------------------------------- */

static void answer_ok(struct run *run, const struct server_command *command, int64_t step)
{
    char *line = xasprintf("{\"ack\":%lld,\"ok\":true,\"step\":%lld}", (long long)command->id,
                           (long long)step);
    server_answer(run->server, command->client, line);
    free(line);
}

static void answer_error(struct run *run, const struct server_command *command,
                         const struct error *err)
{
    struct buffer line = { 0 };
    buffer_printf(&line, "{\"ack\":%lld,\"ok\":false,\"error\":", (long long)command->id);
    json_write_string(&line, err->message, strlen(err->message));
    buffer_printf(&line, ",\"hint\":");
    json_write_string(&line, err->hint, strlen(err->hint));
    buffer_printf(&line, "}");
    server_answer(run->server, command->client, line.text);
    buffer_free(&line);
}

/* ---- live settings -------------------------------------------------------------------------- */

/* A change that was judged but not applied. */
struct change {
    const struct field *field;
    struct recipe recipe; /* with it */
    struct recipe effective;
    struct plan plan;
    char *from;
    char *to;
};

static void change_free(struct change *change)
{
    recipe_free(&change->recipe);
    recipe_free(&change->effective);
    free(change->from);
    free(change->to);
}

static int check_live(const struct run *run, const char *key, const struct field **field,
                      struct error *err)
{
    *field = recipe_field(key);
    if (!*field) {
        return recipe_refuse_key(key, err);
    }
    if (!(*field)->live) {
        fail(err, ERROR_USAGE, "%s cannot change while the model trains", key);
        return hint(err, "windrow help recipe shows which settings are live");
    }
    const struct method_ops *method = method_find(run->recipe.method_name);
    if (method != NULL && !method_reads(method, key)) {
        return fail(err, ERROR_USAGE, "%s means nothing to method.name=%s", key, method->name);
    }
    if (method != NULL && method->adapters && strcmp(key, "method.rank") == 0) {
        fail(err, ERROR_USAGE,
             "method.rank cannot change under method.name=%s: the rank is the "
             "shape of the adapters",
             method->name);
        return hint(err, "start a new run from this one's exported model with another rank");
    }
    return 0;
}

/* Makes the recipes and the plan with the change in them. */
static int judge(const struct run *run, const struct server_command *command, struct change *change,
                 struct error *err)
{
    const struct model_config *config = &run->material.config;
    char *word = xasprintf("%s=%s", command->key, command->value);
    change->from = field_text(change->field, &run->recipe);
    recipe_copy(&change->recipe, &run->recipe);
    recipe_copy(&change->effective, &run->effective);
    int result = recipe_set(&change->recipe, word, err);
    if (result == 0) {
        result = recipe_set(&change->effective, word, err);
    }
    free(word);
    if (result != 0 || recipe_check(&change->recipe, err) != 0 ||
        run_check_rank(&change->recipe, config, err) != 0) {
        return -1;
    }
    change->to = field_text(change->field, &change->recipe);
    return plan_make_ranks(&change->effective, config, run->comm->ranks, &change->plan, err);
}

/* Refuses what does not fit, with the largest rank that does. */
static int check_fits(const struct run *run, const struct change *change, struct error *err)
{
    const struct model_config *config = &run->material.config;
    if (plan_check(&change->plan, &change->effective, config, run->limit_bytes, err) == 0) {
        return 0;
    }
    if (strcmp(change->field->key, "method.rank") == 0) {
        int64_t rank = plan_largest_rank(
            &change->effective, config,
            &(struct plan_place){ .limit_bytes = run->limit_bytes, .ranks = run->comm->ranks });
        hint(err, "the largest rank that fits is %lld", (long long)rank);
    }
    return -1;
}

static void report_setting(struct run *run, const struct server_command *command,
                           const struct change *change)
{
    struct event event;
    event_init(&event, EVENT_SETTING);
    event.step = run->state.step;
    event.setting.key = xstrdup(change->field->key);
    event.setting.from = xstrdup(change->from);
    event.setting.to = xstrdup(change->to);
    event.setting.effective_step = run->state.step + 1;
    event.setting.by = xasprintf("client %lld", (long long)command->client);
    run_emit(run, &event);
}

static int apply(struct run *run, const struct server_command *command, struct change *change,
                 struct error *err)
{
    bool rank = change->recipe.method_rank != run->recipe.method_rank;
    bool moved = memcmp(change->plan.bytes, run->plan.bytes, sizeof run->plan.bytes) != 0;
    run_order_settings(run, &change->effective);
    if (run_apply(run, &change->effective, &change->plan, err) != 0) {
        return -1;
    }
    recipe_copy(&run->recipe, &change->recipe);
    report_setting(run, command, change);
    if (rank || moved) {
        memory_reset_peak(trainer_memory(run->trainer));
        run_report_plan(run);
        run_report_memory(run);
    }
    return 0;
}

/* Bytes and FLOPs with the change and now; `unfit` (may be NULL): why it would be refused. */
static void answer_change(struct run *run, const struct server_command *command,
                          const struct plan *with, const struct plan *now,
                          const struct error *unfit)
{
    struct buffer line = { 0 };
    buffer_printf(&line,
                  "{\"ack\":%lld,\"ok\":true,\"step\":%lld,\"bytes\":%zu,\"bytes_now\":%zu,"
                  "\"flops\":%.17g,\"flops_now\":%.17g,\"refresh_flops\":%.17g,"
                  "\"refresh_flops_now\":%.17g,\"fits\":%s",
                  (long long)command->id, (long long)(run->state.step + 1), with->total_bytes,
                  now->total_bytes, with->step_flops, now->step_flops, with->refresh_flops,
                  now->refresh_flops, unfit ? "false" : "true");
    if (unfit) {
        buffer_printf(&line, ",\"error\":");
        json_write_string(&line, unfit->message, strlen(unfit->message));
        buffer_printf(&line, ",\"hint\":");
        json_write_string(&line, unfit->hint, strlen(unfit->hint));
    }
    buffer_printf(&line, "}");
    server_answer(run->server, command->client, line.text);
    buffer_free(&line);
}

static void change_setting(struct run *run, const struct server_command *command,
                           struct error *failure)
{
    struct error err = { 0 };
    struct error unfit = { 0 };
    struct change change = { 0 };
    struct plan now = run->plan;
    int result = check_live(run, command->key, &change.field, &err);
    if (result == 0) {
        result = judge(run, command, &change, &err);
    }
    struct plan with = change.plan;
    bool only_ask = strcmp(command->command, "plan") == 0;
    bool fits = result == 0 && check_fits(run, &change, &unfit) == 0;
    if (result == 0 && !only_ask && !fits) {
        err = unfit;
        result = -1;
    } else if (result == 0 && !only_ask) {
        result = apply(run, command, &change, &err);
    }
    if (run->broken) {
        *failure = err;
    }
    if (result != 0) {
        answer_error(run, command, &err);
    } else {
        answer_change(run, command, &with, &now, fits ? NULL : &unfit);
    }
    change_free(&change);
}

/* ---- obeying -------------------------------------------------------------------------------- */

static void pause_or_go_on(struct run *run, const struct server_command *command, bool pause)
{
    if (run->paused != pause) {
        run->paused = pause;
        run_report_state(run, pause ? "paused" : "running");
    }
    answer_ok(run, command, run->state.step);
}

static void obey(struct run *run, const struct server_command *command, struct error *failure)
{
    struct error err = { 0 };
    const char *name = command->command;
    if (strcmp(name, "pause") == 0 || strcmp(name, "resume") == 0) {
        pause_or_go_on(run, command, name[0] == 'p');
    } else if (strcmp(name, "stop") == 0) {
        run->stop_asked = true;
        answer_ok(run, command, run->state.step);
    } else if (strcmp(name, "set") == 0 || strcmp(name, "plan") == 0) {
        change_setting(run, command, failure);
    } else {
        bool save = strcmp(name, "save") == 0;
        const char *prompt = command->value[0] ? command->value : NULL;
        if ((save ? run_save(run, &err) : run_sample(run, prompt, &err)) != 0) {
            answer_error(run, command, &err);
        } else {
            answer_ok(run, command, run->state.step);
        }
    }
}

int run_safe_point(struct run *run, struct error *err)
{
    struct server_command command;
    while (run->server && !run->stop_asked && run_signal() == 0) {
        if (server_take(run->server, run->paused ? PAUSE_WAIT_S : 0.0, &command)) {
            obey(run, &command, err);
        } else if (!run->paused) {
            break;
        }
        if (run->broken) {
            return -1;
        }
    }
    return 0;
}
