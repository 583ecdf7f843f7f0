/* From options to an exit code. */
#include "engine/run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/text.h"
#include "engine/run/parts.h"

static void open_server(struct run *run)
{
    struct error err = { 0 };
    run->server = server_open(run->directory.path, run->directory.bytes, &err);
    if (!run->server) {
        run_warn(run, &err); /* a run that cannot be attached to still trains */
    }
}

static void begin(struct run *run)
{
    run_report_start(run);
    run_report_plan(run);
    open_server(run);
    if (run->resuming || run->resume_path) {
        run_report_resume(run, run->resume_path, run->state.step,
                          run->forked        ? "forked"
                          : run->resume_path ? "resumed"
                                             : "there was no checkpoint yet");
    }
    const char *notice;
    for (int i = 0; (notice = dataset_notice(run->material.dataset, i)); i++) {
        struct error told = { 0 };
        fail(&told, ERROR_DATA, "%s", notice);
        run_warn(run, &told);
    }
    run_report_state(run, "running");
}

/* A run that ends before its last step keeps what it has. */
static void save_unless_done(struct run *run)
{
    struct error err = { 0 };
    struct checkpoint_list list = { 0 };
    bool there = checkpoint_list_read(run->directory.path, &list, &err) == 0 && list.count > 0 &&
                 list.item[0].step == run->state.step && !run->save_failed && run->steps_here == 0;
    checkpoint_list_free(&list);
    if (!there && run->state.step > 0) {
        run_save(run, &err);
    }
}

/* Adds what to do after a device failed, or lost its memory in a live change. It is not read for a
 * checkpoint any more: the newest one is from before. */
static void hint_after_fault(struct run *run, struct error *err)
{
    struct checkpoint_list list = { 0 };
    struct error unused = { 0 };
    const char *names = run->be->failed_unnamed
                            ? "; with KERNELS_SYNC=1 in the environment, slower, it names the "
                              "operation that fails"
                            : "";
    if ((!run->be->failed && !run->broken) || err->hint[0] != '\0') {
        return;
    }
    if (checkpoint_list_read(run->directory.path, &list, &unused) == 0 && list.count > 0) {
        hint(err,
             "the checkpoint of step %lld is whole: windrow train --resume %s goes on from it%s",
             (long long)list.item[0].step, run->directory.name, names);
    } else {
        hint(err, "nothing was saved yet: windrow train --resume %s begins anew%s",
             run->directory.name, names);
    }
    checkpoint_list_free(&list);
}

static void report_error(struct run *run, const struct error *err)
{
    struct event event;
    event_init(&event, EVENT_ERROR);
    event.step = run->state.step;
    event.message.text = xstrdup(err->message);
    event.message.hint = err->hint[0] ? xstrdup(err->hint) : NULL;
    run_emit(run, &event);
}

/* The loop ended without a failure: by its last step, a command or a signal. */
static int end_well(struct run *run, struct error *err)
{
    bool last = run->state.step >= run->effective.train_steps;
    int number = run_signal();
    const char *reason = last ? "done" : number ? "interrupted" : "stopped";
    int code = !last && number ? 128 + number : 0;
    if (!last) {
        save_unless_done(run);
    }
    run_order_stop(run, 0);
    if (run->save_failed || run->backlog.size > 0) {
        fail(err, ERROR_RUNTIME, "the last save failed; the newest checkpoint is an older one");
        code = ERROR_RUNTIME;
    }
    if (last && run->recipe.train_export && run_write_model(run, err) != 0) {
        report_error(run, err);
        code = ERROR_RUNTIME;
    }
    run_report_stop(run, code == ERROR_RUNTIME ? "failed" : reason, code);
    return code;
}

static int train(struct run *run, struct error *err)
{
    int code = 0;
    if (run_follows(run)) {
        run_follow(run, &code, err);
        if (run->ended_together) { /* rank 0 says why */
            *err = (struct error){ 0 };
        }
        return code;
    }
    begin(run);
    if (run_loop(run, err) == 0) {
        return end_well(run, err);
    }
    code = err->code == ERROR_NONE ? ERROR_RUNTIME : (int)err->code;
    if (!run->stepping && !run->broken) {
        run_order_stop(run, code);
    }
    hint_after_fault(run, err);
    report_error(run, err);
    run_report_stop(run, run->diverged ? "diverged" : "failed", code);
    return code;
}

int run_train(const struct run_options *options, struct error *err)
{
    struct run run = { .options = options, .directory = { .lock = -1, .events = -1 } };
    int code;
    umask(077);
    run_catch_signals();
    if (run_join_ranks(&run, err) != 0) {
        return err->code == ERROR_NONE ? ERROR_RUNTIME : (int)err->code;
    }
    if (run_prepare(&run, err) != 0) {
        code = run.end_code              ? run.end_code
               : err->code == ERROR_NONE ? ERROR_RUNTIME
                                         : (int)err->code;
    } else if (run.finished) {
        const char *name = run.directory.name ? run.directory.name : options->fork;
        run_notice(&run, "%s is finished: all %lld steps are done; train.steps=N trains on",
                   text_show(name).text, (long long)run.state.step);
        code = 0;
    } else {
        code = train(&run, err);
    }
    if (code != 0 && code < 128 && !run.ended_together) { /* the others are not waited for */
        comm_fail(run.comm, "rank %d ended with an error", run.comm->rank);
    }
    run_release(&run);
    return code;
}
