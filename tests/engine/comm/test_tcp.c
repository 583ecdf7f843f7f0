/* Ranks over TCP, each a process: exchanges against their meaning, meeting among strangers, ranks
 * that do not come, and connections that end or say something else. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/comm/comm.h"
#include "engine/comm/gate.h"
#include "engine/comm/tcp.h"
#include "processes.h"

#define LIMIT_S 60.0

enum { WELL = 0, REFUSED = 10, LOST = 11, WRONG = 12 };

/* What the processes of a case share. */
struct scene {
    int ranks;
    int claimed[PROCESSES_MAX]; /* rank and number of ranks that a process claims, + 1; 0: true */
    int claimed_ranks[PROCESSES_MAX];
    char job[PROCESSES_MAX][32];
    struct tcp_place place;
    double wait_s;
    bool sockets_only;
    int (*then)(struct scene *scene, struct transport *transport);
    int rogue; /* the rank that `then` treats otherwise */
    int what;
    volatile int ready; /* how many came to a point */
    char error[PROCESSES_MAX][1024];
    int local_rank[PROCESSES_MAX];
    char first[PROCESSES_MAX][64];
};

static struct tcp_options options_of(const struct scene *scene, int process)
{
    struct tcp_options options = { .rank = process,
                                   .ranks = scene->ranks,
                                   .local_rank = -1,
                                   .listener = -1,
                                   .place = scene->place,
                                   .sockets_only = scene->sockets_only,
                                   .wait_s = scene->wait_s };
    if (scene->claimed[process]) {
        options.rank = scene->claimed[process] - 1;
    }
    if (scene->claimed_ranks[process]) {
        options.ranks = scene->claimed_ranks[process];
    }
    snprintf(options.job, sizeof options.job, "%s", scene->job[process]);
    return options;
}

static int be_rank(int process, void *context)
{
    struct scene *scene = context;
    struct error err = { 0 };
    struct tcp_options options = options_of(scene, process);
    struct transport *transport = transport_open_tcp(&options, &err);
    if (!transport) {
        snprintf(scene->error[process], sizeof scene->error[0], "%s", err.message);
        return REFUSED;
    }
    scene->local_rank[process] = transport->local_rank;
    snprintf(scene->first[process], sizeof scene->first[0], "%s", transport->first);
    int code = scene->then ? scene->then(scene, transport) : WELL;
    snprintf(scene->error[process], sizeof scene->error[0], "%s", transport->error);
    transport->ops->close(transport, code != WELL);
    return code;
}

/* A port that was free a moment ago. */
static int some_port(void)
{
    int port = 0;
    close(processes_listen(&port));
    return port;
}

static struct scene *new_scene(int ranks)
{
    struct scene *scene = processes_share(sizeof *scene);
    scene->ranks = ranks;
    scene->wait_s = LIMIT_S / 2;
    scene->rogue = -1;
    scene->place.port = some_port();
    scene->place.port_count = 1;
    snprintf(scene->place.host, sizeof scene->place.host, "127.0.0.1");
    for (int p = 0; p < PROCESSES_MAX; p++) {
        snprintf(scene->job[p], sizeof scene->job[p], "a job");
    }
    return scene;
}

/* Everybody ends well. */
static void check_well(struct scene *scene, int ranks)
{
    int status[PROCESSES_MAX];
    processes_run(ranks, be_rank, scene, LIMIT_S, status);
    for (int p = 0; p < ranks; p++) {
        if (status[p] != WELL) {
            print_error("rank %d: %d, %s\n", p, status[p], scene->error[p]);
        }
        assert_int_equal(status[p], WELL);
    }
}

static void check_says(const struct scene *scene, int process, const char *part)
{
    if (!strstr(scene->error[process], part)) {
        print_error("process %d says \"%s\", not \"%s\"\n", process, scene->error[process], part);
    }
    assert_non_null(strstr(scene->error[process], part));
}

/* ---- what an exchange means -------------------------------------------------------------------
 */

static char byte_of(int from, int to, size_t i, int round)
{
    return (char)(from * 31 + to * 7 + (int)(i % 251) + round);
}

/* A number of exchanges of one size; the first wrong one is told. */
static int exchange_size(struct transport *t, size_t bytes, int round)
{
    size_t ranks = (size_t)t->ranks;
    char *send = malloc(ranks * bytes + 1);
    char *receive = calloc(ranks * bytes + 1, 1);
    bool right = true;
    for (size_t p = 0; p < ranks; p++) {
        for (size_t i = 0; i < bytes; i++) {
            send[p * bytes + i] = byte_of(t->rank, (int)p, i, round);
        }
    }
    right = t->ops->exchange(t, send, receive, bytes) == 0;
    for (size_t p = 0; right && p < ranks; p++) {
        for (size_t i = 0; i < bytes; i++) {
            right = right && receive[p * bytes + i] == byte_of((int)p, t->rank, i, round);
        }
    }
    right = right && t->ops->gather(t, send, receive, bytes) == 0;
    for (size_t p = 0; right && p < ranks; p++) {
        for (size_t i = 0; i < bytes; i++) {
            right = right && receive[p * bytes + i] == byte_of((int)p, 0, i, round);
        }
    }
    for (int root = 0; right && root < t->ranks; root++) {
        memcpy(receive, send, bytes);
        right = t->ops->broadcast(t, receive, bytes, root) == 0;
        for (size_t i = 0; right && i < bytes; i++) {
            right = receive[i] == byte_of(root, 0, i, round);
        }
    }
    free(send);
    free(receive);
    return right ? WELL : WRONG;
}

static int exchange_all(struct scene *scene, struct transport *transport)
{
    static const size_t sizes[] = { 0, 1, 7, 4096, 100003, TRANSPORT_PART_BYTES };
    int code = WELL;
    (void)scene;
    for (int round = 0; code == WELL && round < 12; round++) {
        /* Ranks that come late, in turns. */
        if (round % transport->ranks == transport->rank) {
            nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL);
        }
        code = exchange_size(transport, sizes[(size_t)round % 6], round);
    }
    return code;
}

static void test_exchanges(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        int ranks = 2 + i / 2;
        struct scene *scene = new_scene(ranks);
        scene->then = exchange_all;
        scene->sockets_only = i % 2 == 1;
        check_well(scene, ranks);
        for (int p = 0; p < ranks; p++) {
            assert_int_equal(scene->local_rank[p], p);
            assert_string_equal(scene->first[p], "127.0.0.1");
        }
    }
}

/* One leaves on good terms while the others still wait for what rank 0 has not sent. */
static int leave_early(struct scene *scene, struct transport *t)
{
    char byte = t->rank == 0 ? 'x' : 0;
    char all[PROCESSES_MAX];
    if (t->ops->broadcast(t, &byte, 1, 0) != 0 || byte != 'x') {
        return WRONG;
    }
    if (t->rank == 1) {
        return WELL;
    }
    if (t->rank == 2) {
        nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
        return WELL;
    }
    nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    (void)scene;
    return t->ops->gather(t, &byte, all, 1) == 0 ? WRONG : WELL;
}

static void test_farewell(void **state)
{
    (void)state;
    for (int sockets_only = 0; sockets_only < 2; sockets_only++) {
        struct scene *scene = new_scene(3);
        scene->then = leave_early;
        scene->sockets_only = sockets_only;
        check_well(scene, 3);
        check_says(scene, 0, "has ended its part of the run");
    }
}

/* ---- meeting ----------------------------------------------------------------------------------
 */

/* Strangers of all kinds come first, and stay. */
static void test_strangers(void **state)
{
    (void)state;
    struct scene *scene = new_scene(3);
    pid_t rank[3];
    int silent = -1;
    scene->then = exchange_all;
    rank[0] = process_start(0, be_rank, scene);
    for (double until = processes_now() + 20.0; silent < 0 && processes_now() < until;) {
        silent = processes_connect(scene->place.port);
    }
    assert_true(silent >= 0);
    int crowd[GATE_GUESTS + 8]; /* more than there is room for */
    for (int i = 0; i < GATE_GUESTS + 8; i++) {
        crowd[i] = processes_connect(scene->place.port);
    }
    int scanner = processes_connect(scene->place.port);
    static const char request[] = "GET / HTTP/1.1\r\nHost: windrow\r\n\r\n";
    assert_int_equal(send(scanner, request, sizeof request, MSG_NOSIGNAL), sizeof request);
    struct patience patience = { .until_s = processes_now() + 10.0 };
    char why[SOCKET_WHY_SIZE];
    struct note note = { .kind = NOTE_JOIN, .rank = 1, .ranks = 3 };
    struct gate_keys other = gate_keys("another job", "");
    struct gate_keys own = gate_keys("a job", "");
    int wrong_key = processes_connect(scene->place.port);
    note_send(wrong_key, &note, other.join, &patience, why);
    int wrong_side = processes_connect(scene->place.port);
    note_send(wrong_side, &note, own.answer, &patience, why);
    int half = processes_connect(scene->place.port);
    send(half, "windrow1 and no more", 20, MSG_NOSIGNAL);
    close(half);
    rank[2] = process_start(2, be_rank, scene);
    rank[1] = process_start(1, be_rank, scene);
    for (int p = 0; p < 3; p++) {
        assert_int_equal(process_wait(rank[p], processes_now() + LIMIT_S), WELL);
    }
    char byte;
    assert_true(recv(wrong_key, &byte, 1, MSG_DONTWAIT) <= 0); /* nothing was told to it */
    close(silent);
    close(scanner);
    close(wrong_key);
    close(wrong_side);
    for (int i = 0; i < GATE_GUESTS + 8; i++) {
        close(crowd[i]);
    }
}

static void test_missing(void **state)
{
    (void)state;
    int status[PROCESSES_MAX];
    struct scene *scene = new_scene(4);
    char place[64];
    scene->wait_s = 2.0;
    processes_run(2, be_rank, scene, LIMIT_S, status);
    snprintf(place, sizeof place, "127.0.0.1:%d", scene->place.port);
    check_says(scene, 0, "ranks 2, 3 of 4 did not come to ");
    check_says(scene, 0, place);
    check_says(scene, 1, "ranks 2, 3 of 4 did not come to "); /* rank 0 tells those who came */
    assert_int_equal(status[0], REFUSED);
    assert_int_equal(status[1], REFUSED);
    /* Without rank 0. */
    scene = new_scene(2);
    scene->wait_s = 1.0;
    pid_t alone = process_start(1, be_rank, scene);
    assert_int_equal(process_wait(alone, processes_now() + LIMIT_S), REFUSED);
    check_says(scene, 1, "did not find rank 0 at ");
    check_says(scene, 1, "Connection refused");
    /* Of another job: as if it were not there. */
    scene = new_scene(2);
    scene->wait_s = 1.5;
    snprintf(scene->job[1], sizeof scene->job[1], "another job");
    processes_run(2, be_rank, scene, LIMIT_S, status);
    check_says(scene, 0, "rank 1 of 2 did not come to ");
    check_says(scene, 1, "did not find rank 0 at ");
}

static void test_contradictions(void **state)
{
    (void)state;
    int status[PROCESSES_MAX];
    struct scene *scene = new_scene(3);
    scene->claimed_ranks[1] = 5;
    processes_run(2, be_rank, scene, LIMIT_S, status);
    check_says(scene, 0, "was started as rank 1 of 5, rank 0 on ");
    assert_int_equal(status[0], REFUSED);
    assert_int_equal(status[1], REFUSED);
    scene = new_scene(3);
    scene->claimed[2] = 1 + 1;
    processes_run(3, be_rank, scene, LIMIT_S, status);
    check_says(scene, 0, "two processes were started as rank 1 of 3");
    for (int p = 0; p < 3; p++) {
        assert_int_equal(status[p], REFUSED);
    }
}

/* A rank that comes and dies before all are there does not keep the others waiting. */
static int die_at_once(int process, void *context)
{
    struct scene *scene = context;
    struct patience patience = { .until_s = processes_now() + 20.0 };
    struct gate_keys keys = gate_keys("a job", "");
    struct note note = { .kind = NOTE_JOIN, .rank = process, .ranks = scene->ranks };
    char why[SOCKET_WHY_SIZE];
    int fd = -1;
    while (fd < 0 && processes_now() < patience.until_s) {
        fd = processes_connect(scene->place.port);
    }
    note_send(fd, &note, keys.join, &patience, why);
    note_receive(fd, &note, keys.answer, &patience, NULL, why);
    return WELL;
}

static void test_dies_while_meeting(void **state)
{
    (void)state;
    struct scene *scene = new_scene(3);
    double began = processes_now();
    pid_t first = process_start(0, be_rank, scene);
    pid_t second = process_start(1, die_at_once, scene);
    assert_int_equal(process_wait(second, began + LIMIT_S), WELL);
    assert_int_equal(process_wait(first, began + LIMIT_S), REFUSED);
    check_says(scene, 0, "rank 1 on ");
    check_says(scene, 0, " left before all ranks had come");
    assert_true(processes_now() - began < scene->wait_s);
}

static void test_next_port(void **state)
{
    (void)state;
    struct scene *scene = new_scene(3);
    int busy = processes_listen(&scene->place.port);
    shutdown(busy, SHUT_RD); /* not there for those who connect, but the port is taken */
    scene->place.port_count = 8;
    scene->then = exchange_all;
    check_well(scene, 3);
    close(busy);
    /* An only port that is taken. */
    scene = new_scene(2);
    busy = processes_listen(&scene->place.port);
    pid_t first = process_start(0, be_rank, scene);
    assert_int_equal(process_wait(first, processes_now() + LIMIT_S), REFUSED);
    check_says(scene, 0, "Address already in use");
    close(busy);
}

static void test_place_file(void **state)
{
    (void)state;
    struct scene *scene = new_scene(3);
    struct tcp_posted posted = { .port = some_port(), .key = "00", .machine = "elsewhere" };
    struct tcp_posted found;
    struct error err = { 0 };
    char folder[] = "/tmp/windrow-place-XXXXXX";
    assert_non_null(mkdtemp(folder));
    snprintf(scene->place.file, sizeof scene->place.file, "%s/place", folder);
    scene->then = exchange_all;
    /* Left by a run that is over: of this job, of another, and torn. */
    assert_int_equal(tcp_post(scene->place.file, "a job", &posted, &err), 0);
    assert_true(tcp_read_posted(scene->place.file, "a job", &found));
    assert_int_equal(found.port, posted.port);
    assert_false(tcp_read_posted(scene->place.file, "another job", &found));
    pid_t rank[3];
    rank[2] = process_start(2, be_rank, scene);
    rank[1] = process_start(1, be_rank, scene);
    nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
    assert_int_equal(tcp_post(scene->place.file, "another job", &posted, &err), 0);
    nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
    FILE *torn = fopen(scene->place.file, "w");
    fprintf(torn, "windrow-place 1\njob");
    fclose(torn);
    assert_false(tcp_read_posted(scene->place.file, "a job", &found));
    rank[0] = process_start(0, be_rank, scene);
    for (int p = 0; p < 3; p++) {
        assert_int_equal(process_wait(rank[p], processes_now() + LIMIT_S), WELL);
    }
    assert_int_not_equal(access(scene->place.file, F_OK), 0); /* taken away */
    rmdir(folder);
}

/* ---- connections that go wrong ----------------------------------------------------------------
 */

enum { SENDS_GARBAGE, SENDS_HALF, CLOSES, OTHER_SIZE };

/* Gathers until something is wrong. */
static int gather_on(struct scene *scene, struct transport *t)
{
    char mine[64] = { 0 };
    char all[64 * PROCESSES_MAX];
    int code = WELL;
    (void)scene;
    for (int i = 0; code == WELL && i < 1000; i++) {
        code = t->ops->gather(t, mine, all, sizeof mine) == 0 ? WELL : LOST;
    }
    return code;
}

/* A rank that meets the others as it should and then behaves badly to them. */
static int be_rogue(int process, void *context)
{
    struct scene *scene = context;
    struct error err = { 0 };
    struct tcp_options options = options_of(scene, process);
    struct tcp_meeting meeting;
    char bytes[256];
    if (scene->what == OTHER_SIZE) {
        struct transport *t = transport_open_tcp(&options, &err);
        char all[32 * PROCESSES_MAX];
        memset(bytes, 0, sizeof bytes);
        int code = t->ops->gather(t, bytes, all, 32) == 0 ? WELL : LOST;
        snprintf(scene->error[process], sizeof scene->error[0], "%s", t->error);
        t->ops->close(t, true);
        return code;
    }
    memset(bytes, 'g', sizeof bytes);
    if (tcp_meet(&options, &meeting, &err) != 0) {
        return REFUSED;
    }
    for (int p = 0; p < scene->ranks; p++) {
        int fd = meeting.peer[p].fd;
        if (fd >= 0 && scene->what != CLOSES) {
            /* The frame of the first gather, and half of what belongs to it. */
            uint32_t frame[4] = { 0x57526b31u, 2, 0, 64 };
            memcpy(bytes, frame, scene->what == SENDS_HALF ? sizeof frame : 0);
            send(fd, bytes, scene->what == SENDS_HALF ? 48 : sizeof bytes, MSG_NOSIGNAL);
        }
    }
    if (scene->what == SENDS_GARBAGE) {
        sleep(1); /* it is what it says that ends the others, not its end */
    }
    return WELL;
}

static void check_rogue(int what, bool sockets_only, const char *sentence)
{
    for (int rogue = 0; rogue < 3; rogue++) {
        struct scene *scene = new_scene(3);
        pid_t rank[3];
        char named[32];
        double until_s = processes_now() + LIMIT_S;
        scene->what = what;
        scene->sockets_only = sockets_only;
        scene->then = gather_on;
        snprintf(named, sizeof named, "rank %d on ", rogue);
        for (int p = 0; p < 3; p++) {
            rank[p] = process_start(p, p == rogue ? be_rogue : be_rank, scene);
        }
        bool told = false;
        for (int p = 0; p < 3; p++) {
            int status = process_wait(rank[p], until_s);
            /* The others may end while one of them still looks for the memory to share. */
            bool early = !sockets_only && status == REFUSED;
            int expected = p == rogue && what != OTHER_SIZE ? WELL : LOST;
            assert_int_equal(status, early ? REFUSED : expected);
            /* Of two that disagree each names the other. */
            bool names = what == OTHER_SIZE || strstr(scene->error[p], named);
            told = told || (names && strstr(scene->error[p], sentence));
        }
        if (!told) {
            print_error("rogue %d: \"%s\", \"%s\", \"%s\"\n", rogue, scene->error[0],
                        scene->error[1], scene->error[2]);
        }
        assert_true(told);
    }
}

static void test_rogues(void **state)
{
    (void)state;
    check_rogue(SENDS_GARBAGE, true, "sent what is not of this run");
    check_rogue(SENDS_HALF, true, "was lost");
    check_rogue(CLOSES, true, "was lost");
    check_rogue(OTHER_SIZE, true, "is at another exchange: number 0 of kind 2 with ");
    check_rogue(OTHER_SIZE, false, "is at another exchange");
}

/* ---- giving up --------------------------------------------------------------------------------
 */

static bool until_told(void *context)
{
    double *until_s = context;
    return processes_now() < *until_s;
}

static int stay_away(struct scene *scene, struct transport *t)
{
    double until_s = processes_now() + 0.5;
    if (t->rank == scene->rogue) {
        while (scene->ready < scene->ranks - 1) {
            nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        }
        return WELL;
    }
    t->waiting = until_told;
    t->context = &until_s;
    int code = gather_on(scene, t);
    __atomic_add_fetch(&scene->ready, 1, __ATOMIC_SEQ_CST);
    return code == LOST ? WELL : WRONG;
}

static void test_given_up(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        int absent = i % 3;
        struct scene *scene = new_scene(3);
        char named[64];
        scene->sockets_only = i < 3;
        scene->then = stay_away;
        scene->rogue = absent;
        check_well(scene, 3);
        snprintf(named, sizeof named, "it was given up while rank %d on ", absent);
        check_says(scene, (absent + 1) % 3, named);
        check_says(scene, (absent + 2) % 3, named);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchanges),      cmocka_unit_test(test_farewell),
        cmocka_unit_test(test_strangers),      cmocka_unit_test(test_missing),
        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_dies_while_meeting),
        cmocka_unit_test(test_next_port),      cmocka_unit_test(test_place_file),
        cmocka_unit_test(test_rogues),         cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
