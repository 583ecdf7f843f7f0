/*
 * A rank is killed, or stopped, at each collective of a short training: every other rank ends
 * within seconds and says which rank was lost, where, and at which collective. Ranks are processes
 * over TCP, watched as those of a run are.
 */
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../comm/processes.h"
#include "engine/comm/comm.h"
#include "engine/comm/socket.h"
#include "engine/comm/tcp.h"
#include "engine/comm/watch.h"
#include "ranked.h"

enum { RANKS = 3, STEPS = 2, COLLECTIVES_MAX = 512, CASES_MAX = 512 };
/* What survivors may take, and after how many seconds a rank that says nothing hangs. */
#define END_S     10.0
#define SILENCE_S 4.0

/* What all cases share. */
static const char *const words[] = { "method.name=grass", "method.rank=4", "method.interval=2",
                                     "train.steps=2", NULL };

/* What a rank leaves behind. */
struct rank_mark {
    int begun;   /* collectives */
    bool struck; /* it is about to be killed or stopped */
    double struck_s;
    char error[512]; /* of its communicator */
    char at[128];    /* the collective it was in */
};

/* A rank that is struck at a collective, and the others. */
struct fault {
    int rank; /* -1: none */
    int at;   /* collective, from 0 */
    int signal;
    int listener;
    int port;
    struct plan *plan;
    struct recipe *recipe;
    struct batch *batch;
    char (*names)[128]; /* of collectives, as rank 0 meets them; NULL: not wanted */
    struct rank_mark *mark;
    pid_t process[RANKS];
    double ended_s[RANKS]; /* 0: not yet */
    int status[RANKS];
};

struct striker {
    struct fault *fault;
    struct rank_mark *mark;
    int rank;
    void (*begun)(void *context, const char *last); /* of the watch */
    void *context;
};

static void on_collective(void *context, const char *last)
{
    struct striker *striker = context;
    struct fault *fault = striker->fault;
    int index = striker->mark->begun++;
    if (striker->begun != NULL) {
        striker->begun(striker->context, last);
    }
    if (fault->names != NULL && striker->rank == 0 && index < COLLECTIVES_MAX) {
        snprintf(fault->names[index], sizeof fault->names[0], "%s", last);
    }
    snprintf(striker->mark->at, sizeof striker->mark->at, "%s", last);
    if (striker->rank == fault->rank && index == fault->at) {
        striker->mark->struck_s = processes_now();
        striker->mark->struck = true;
        kill(getpid(), fault->signal);
    }
}

struct watched {
    struct comm *comm;
    struct watch *watch;
};

static bool waits_on(void *context)
{
    struct watched *watched = context;
    return watch_check(watched->watch, watched->comm);
}

/* What a run does: an order, a step, and what goes beside. */
static int train(struct fault *fault, struct comm *comm, struct error *err)
{
    struct backend *be = small_backend();
    struct trainer *trainer =
        trainer_open(&(struct trainer_options){ .recipe = fault->recipe,
                                                .config = &ranked_config,
                                                .be = be,
                                                .comm = comm,
                                                .capacity = fault->plan->bytes },
                     err);
    int result = trainer ? 0 : -1;
    for (int64_t step = 1; result == 0 && step <= STEPS; step++) {
        struct batch batches[RANKED_MICRO_BATCHES];
        struct step_result ignored;
        int64_t order = step;
        for (int i = 0; i < RANKED_MICRO_BATCHES; i++) {
            batches[i] = ranked_share(comm, fault->batch);
        }
        comm_broadcast_bytes(comm, "an order", &order, sizeof order);
        result = comm_check(comm, err);
        if (result == 0) {
            result = trainer_step(trainer, step, batches, RANKED_MICRO_BATCHES, &ignored, err);
        }
    }
    comm_sum_count(comm, 1);
    if (trainer) {
        trainer_close(trainer);
    }
    backend_close(be);
    return result == 0 ? comm_check(comm, err) : result;
}

static int be_rank(int rank, void *context)
{
    struct fault *fault = context;
    struct rank_mark *mark = &fault->mark[rank];
    struct striker striker = { .fault = fault, .mark = mark, .rank = rank };
    struct error err = { 0 };
    struct tcp_options options = {
        .rank = rank,
        .ranks = RANKS,
        .local_rank = rank,
        .listener = rank == 0 ? fault->listener : -1,
        .wait_s = 60.0,
        .place = { .host = "127.0.0.1", .port = fault->port, .port_count = 1 }
    };
    omp_set_num_threads(1);
    snprintf(options.job, sizeof options.job, "%d %d %d", fault->rank, fault->at, fault->signal);
    if (rank > 0) {
        close(fault->listener);
    }
    struct transport *transport = transport_open_tcp(&options, &err);
    if (!transport) {
        snprintf(mark->error, sizeof mark->error, "%.500s", err.message);
        return 2;
    }
    struct watched watched = { .comm = comm_open_host(transport) };
    struct comm *comm = watched.comm;
    snprintf(comm->first, sizeof comm->first, "127.0.0.1");
    comm->bucket_bytes = 512; /* several a step */
    comm->begun = on_collective;
    comm->begun_context = &striker;
    watched.watch = watch_open(comm, SILENCE_S, &err);
    int result = watched.watch ? 0 : -1;
    if (result == 0) {
        striker.begun = comm->begun;
        striker.context = comm->begun_context;
        comm->begun = on_collective;
        comm->begun_context = &striker;
        comm_on_wait(comm, waits_on, &watched);
        result = train(fault, comm, &err);
    }
    snprintf(mark->error, sizeof mark->error, "%.500s", err.message);
    watch_close(watched.watch, result != 0);
    if (result != 0) {
        comm_fail(comm, "%s", err.message);
    }
    comm_close(comm);
    return result == 0 ? 0 : 1;
}

/* ---- many at a time ---------------------------------------------------------------------------
 */

static void begin(struct fault *fault)
{
    char why[SOCKET_WHY_SIZE];
    fault->mark = processes_share(RANKS * sizeof *fault->mark);
    fault->listener = socket_listen("127.0.0.1", 0, why);
    assert_true(fault->listener >= 0);
    fault->port = socket_port(fault->listener);
    for (int p = 0; p < RANKS; p++) {
        fault->process[p] = process_start(p, be_rank, fault);
    }
    close(fault->listener);
}

static void note_end(struct fault *fault, int p)
{
    int status = 0;
    if (fault->ended_s[p] == 0.0 && waitpid(fault->process[p], &status, WNOHANG) > 0) {
        fault->ended_s[p] = processes_now();
        fault->status[p] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

/* Whether all processes have ended. A stopped one goes on once the others have. */
static bool is_over(struct fault *fault)
{
    int survivors = 0;
    bool over = true;
    for (int p = 0; p < RANKS; p++) {
        note_end(fault, p);
        survivors += p != fault->rank && fault->ended_s[p] == 0.0;
        over = over && fault->ended_s[p] != 0.0;
    }
    if (survivors == 0 && !over && fault->signal == SIGSTOP) {
        kill(fault->process[fault->rank], SIGCONT);
    }
    return over;
}

/* All at the same time, at most `limit_s`. */
static void run_all(struct fault *fault, int count, double limit_s)
{
    double until_s = processes_now() + limit_s;
    int left = count;
    for (int i = 0; i < count; i++) {
        begin(&fault[i]);
    }
    while (left > 0 && processes_now() < until_s) {
        left = 0;
        for (int i = 0; i < count; i++) {
            left += !is_over(&fault[i]);
        }
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
    for (int i = 0; i < count; i++) {
        for (int p = 0; p < RANKS; p++) {
            if (fault[i].ended_s[p] == 0.0) {
                kill(fault[i].process[p], SIGKILL);
                waitpid(fault[i].process[p], NULL, 0);
            }
        }
    }
}

/* ---- what is expected -------------------------------------------------------------------------
 */

/* Whether it says what one of them, "all-reduce of x.weight", is about. */
static bool names_collective(const char *text, char (*names)[128], int count)
{
    for (int i = 0; i < count; i++) {
        const char *of = strstr(names[i], " of ");
        if (strstr(text, of ? of + 4 : names[i])) {
            return true;
        }
    }
    return false;
}

/* Prints what is wrong; how much is. */
static int check_fault(const struct fault *fault, char (*names)[128], int count)
{
    char host[64] = "";
    char lost[128];
    int wrong = 0;
    const struct rank_mark *victim = &fault->mark[fault->rank];
    double limit_s = END_S + (fault->signal == SIGSTOP ? SILENCE_S : 0.0);
    gethostname(host, sizeof host - 1);
    snprintf(lost, sizeof lost, "rank %d on %s", fault->rank, host);
    for (int p = 0; p < RANKS; p++) {
        const struct rank_mark *mark = &fault->mark[p];
        double took_s = fault->ended_s[p] - victim->struck_s;
        const char *what = NULL;
        if (fault->ended_s[p] == 0.0) {
            what = "never ended";
        } else if (!victim->struck) {
            what = "ended without the fault";
        } else if (p == fault->rank) {
            /* What it needs for its last collective may have come while it was stopped. */
            bool done = fault->signal == SIGSTOP && fault->at == count - 1 && fault->status[p] == 0;
            int expected = fault->signal == SIGKILL ? 128 + SIGKILL : 1;
            what = fault->status[p] != expected && !done ? "was struck and ended otherwise" : NULL;
        } else if (fault->status[p] == 2 && fault->at <= 1) { /* it had not joined yet */
            what = strstr(mark->error, lost) ? NULL : "does not say who was lost";
        } else if (fault->status[p] != 1) {
            what = "ended with another status";
        } else if (took_s > limit_s) {
            what = "took too long";
        } else if (!strstr(mark->error, lost) || !names_collective(mark->error, names, count)) {
            what = "does not say who was lost, and at what";
        }
        if (what) {
            print_error("signal %d to rank %d at collective %d (%s): rank %d %s (%.1f s, status "
                        "%d: %s)\n",
                        fault->signal, fault->rank, fault->at, names[fault->at], p, what, took_s,
                        fault->status[p], mark->error);
            wrong++;
        }
    }
    return wrong;
}

/* Every `every`th collective from `first` on, and the first of each kind ("all-reduce"). */
static int choose(char (*names)[128], int count, int first, int every, int *chosen)
{
    int used = 0;
    for (int i = 0; i < count; i++) {
        size_t kind = strcspn(names[i], " ") + 1;
        bool known = false;
        for (int j = 0; j < i; j++) {
            known = known || strncmp(names[i], names[j], kind) == 0;
        }
        if (i % every == first || !known) {
            chosen[used++] = i;
        }
    }
    return used;
}

/* What every process of this test inherits. */
static void prepare(struct fault *fault, struct recipe *recipe, struct plan *plan,
                    struct batch *batch)
{
    struct dice dice = { .state = 5 };
    struct error err = { 0 };
    check(ranked_recipe(recipe, words, RANKS, &err), &err);
    check(plan_make_ranks(recipe, &ranked_config, RANKS, plan, &err), &err);
    check(batch_init(batch, RANKED_ROWS, RANKED_SEQUENCE, &err), &err);
    small_batch(&dice, ranked_config.vocabulary, batch);
    *fault = (struct fault){ .rank = -1, .recipe = recipe, .plan = plan, .batch = batch };
}

static void test_faults(void **state)
{
    (void)state;
    struct recipe recipe;
    struct plan plan;
    struct batch batch;
    struct fault whole;
    int chosen[COLLECTIVES_MAX];
    prepare(&whole, &recipe, &plan, &batch);
    whole.names = processes_share(COLLECTIVES_MAX * sizeof *whole.names);
    run_all(&whole, 1, 60.0);
    int count = whole.mark[0].begun;
    for (int p = 0; p < RANKS; p++) {
        if (whole.status[p] != 0) {
            print_error("rank %d: %s\n", p, whole.mark[p].error);
        }
        assert_int_equal(whole.status[p], 0);
        assert_int_equal(whole.mark[p].begun, count);
    }
    assert_in_range(count, 10, COLLECTIVES_MAX);
    struct fault *fault = calloc(CASES_MAX, sizeof *fault);
    const int signals[] = { SIGKILL, SIGSTOP };
    const int most[] = { 16, 8 };
    int wrong = 0;
    for (int s = 0; s < 2; s++) {
        int cases = 0;
        int every = getenv("WINDROW_TORTURE") ? 1 : count / most[s] + 1;
        int used = choose(whole.names, count, every - 1, every, chosen);
        for (int i = 0; i < used; i++) {
            for (int p = 0; p < RANKS; p++) {
                fault[cases] = whole;
                fault[cases].names = NULL;
                memset(fault[cases].ended_s, 0, sizeof fault[cases].ended_s);
                fault[cases].rank = p;
                fault[cases].at = chosen[i];
                fault[cases].signal = signals[s];
                cases++;
            }
        }
        print_message("%d of %d collectives, %d cases of signal %d\n", used, count, cases,
                      signals[s]);
        enum { AT_ONCE = 32 };
        for (int first = 0; first < cases; first += AT_ONCE) {
            int n = cases - first < AT_ONCE ? cases - first : AT_ONCE;
            run_all(fault + first, n, 60.0);
            for (int i = 0; i < n; i++) {
                wrong += check_fault(&fault[first + i], whole.names, count);
            }
        }
    }
    assert_int_equal(wrong, 0);
    free(fault);
    batch_free(&batch);
    recipe_free(&recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
