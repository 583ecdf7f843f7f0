/* Converting gradients around their exchange. See exchange.h. */
#include "engine/method/exchange.h"

#include "kernels/ops.h"

/* Elements that are packed or unpacked by way of the workspace, and those of a piece that is
 * widened (16 MiB in fp32). */
enum { ROOM_COUNT = 1 << 16, PIECE_COUNT = 1 << 22, ALIGNED = 8 };

static bool narrows(const struct exchange *exchange, const struct tensor *gradient)
{
    return exchange->converts && exchange->wire == DTYPE_BF16 && gradient->dtype == DTYPE_F32;
}

static bool widens(const struct exchange *exchange, const struct tensor *gradient)
{
    return exchange->converts && exchange->wire == DTYPE_F32 && gradient->dtype == DTYPE_BF16;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- in place ------------------------------------------------------------------------------- */

/* Elements [first, first + count) of memory that holds this type. */
static struct tensor run_of(const struct tensor *t, enum dtype dtype, int64_t first, int64_t count)
{
    return (struct tensor){ .data =
                                (void *)((uintptr_t)t->data + (size_t)first * dtype_size(dtype)),
                            .dim = { count, 1, 1, 1 },
                            .rank = 1,
                            .dtype = dtype,
                            .name = t->name };
}

static void convert(const struct exchange *exchange, struct tensor to, struct tensor from)
{
    op_copy(exchange->be, &to, &from);
}

/* The same where both may share memory. */
static void convert_through_room(const struct exchange *exchange, struct tensor to,
                                 struct tensor from)
{
    struct memory_position mark = memory_mark(exchange->memory, MEMORY_WORKSPACE);
    struct tensor room = memory_vector(exchange->memory, MEMORY_WORKSPACE, "packed gradient",
                                       DTYPE_BF16, tensor_count(&from));
    convert(exchange, room, from);
    convert(exchange, to, room);
    memory_release(exchange->memory, MEMORY_WORKSPACE, mark);
}

/* fp32 becomes bf16 at the beginning of its memory. When n elements are packed into 2 n bytes, 4 n
 * bytes have been read: the next n can be written. */
static void pack(const struct exchange *exchange, const struct tensor *t)
{
    int64_t count = tensor_count(t);
    int64_t done = least(ROOM_COUNT, count);
    convert_through_room(exchange, run_of(t, DTYPE_BF16, 0, done), run_of(t, DTYPE_F32, 0, done));
    while (done < count) {
        int64_t n = least(done, count - done);
        convert(exchange, run_of(t, DTYPE_BF16, done, n), run_of(t, DTYPE_F32, done, n));
        done += n;
    }
}

/* Elements [first, first + count) go back to where they were. From the last on, those whose places
 * lie behind what is still packed: of packed elements up to `first + end` the place of first + m is
 * free once 4 (first + m) >= 2 (first + end) bytes. */
static void unpack(const struct exchange *exchange, const struct tensor *t, int64_t first,
                   int64_t count)
{
    for (int64_t end = count; end > 0;) {
        int64_t from = end > first ? (end - first + 1) / 2 : 0;
        from = least((from + ALIGNED - 1) / ALIGNED * ALIGNED, end);
        if (from > 0 && end <= ROOM_COUNT) {
            convert_through_room(exchange, run_of(t, DTYPE_F32, first, end),
                                 run_of(t, DTYPE_BF16, first, end));
            return;
        }
        convert(exchange, run_of(t, DTYPE_F32, first + from, end - from),
                run_of(t, DTYPE_BF16, first + from, end - from));
        end = from;
    }
}

/* ---- piece by piece ------------------------------------------------------------------------- */

/* Part of the gradient, widened in the workspace. */
static struct tensor widen(const struct exchange *exchange, const struct tensor *part)
{
    struct tensor wide = memory_vector(exchange->memory, MEMORY_WORKSPACE, "widened gradient",
                                       DTYPE_F32, tensor_count(part));
    wide.name = part->name;
    op_copy(exchange->be, &wide, part);
    return wide;
}

static void sum_widened(const struct exchange *exchange, const struct tensor *gradient)
{
    int64_t count = tensor_count(gradient);
    for (int64_t first = 0; first < count; first += PIECE_COUNT) {
        struct memory_position mark = memory_mark(exchange->memory, MEMORY_WORKSPACE);
        struct tensor part = run_of(gradient, DTYPE_BF16, first, least(PIECE_COUNT, count - first));
        struct tensor wide = widen(exchange, &part);
        comm_all_reduce(exchange->comm, exchange->be, &wide);
        op_copy(exchange->be, &part, &wide);
        memory_release(exchange->memory, MEMORY_WORKSPACE, mark);
    }
}

/* Rows [first, first + rows) of every rank's share, as one matrix of equal shares: where a rank has
 * fewer, what is left of its place is not read. */
static void scatter_widened_rows(const struct exchange *exchange, const struct tensor *gradient,
                                 int64_t first, int64_t rows)
{
    struct comm *comm = exchange->comm;
    struct memory_position mark = memory_mark(exchange->memory, MEMORY_WORKSPACE);
    const int64_t dim[2] = { comm->ranks * rows, tensor_columns(gradient) };
    struct tensor wide =
        memory_matrix(exchange->memory, MEMORY_WORKSPACE, "widened gradient", DTYPE_F32, dim);
    wide.name = gradient->name;
    op_zero(exchange->be, &wide);
    for (int p = 0; p < comm->ranks; p++) {
        struct comm_share share = comm_share_of(comm, p, tensor_rows(gradient));
        int64_t n = least(rows, share.count - first);
        if (n > 0) {
            struct tensor from = tensor_row_range(gradient, share.first + first, n);
            struct tensor to = tensor_row_range(&wide, p * rows, n);
            op_copy(exchange->be, &to, &from);
        }
    }
    comm_ask_reduce_scatter(comm, exchange->be, &wide, NULL);
    comm_wait(comm, exchange->be);
    struct comm_share mine = comm_share_of(comm, comm->rank, tensor_rows(gradient));
    int64_t n = least(rows, mine.count - first);
    if (n > 0) {
        struct tensor to = tensor_row_range(gradient, mine.first + first, n);
        struct tensor from = tensor_row_range(&wide, comm->rank * rows, n);
        op_copy(exchange->be, &to, &from);
    }
    memory_release(exchange->memory, MEMORY_WORKSPACE, mark);
}

static void scatter_widened(const struct exchange *exchange, const struct tensor *gradient)
{
    int64_t share = comm_share_rows(exchange->comm, tensor_rows(gradient));
    int64_t rows = PIECE_COUNT / (exchange->comm->ranks * tensor_columns(gradient));
    rows = least(rows > 0 ? rows : 1, share);
    for (int64_t first = 0; first < share; first += rows) {
        scatter_widened_rows(exchange, gradient, first, least(rows, share - first));
    }
}

/* ---- both ----------------------------------------------------------------------------------- */

void exchange_ask(const struct exchange *exchange, struct tensor *gradient,
                  struct exchange_rows rows)
{
    struct tensor sent = *gradient;
    if (exchange->comm->ranks == 1) { /* as it is: nothing, or NCCL on trial */
        comm_ask_all_reduce(exchange->comm, exchange->be, &sent);
        return;
    }
    if (widens(exchange, gradient)) {
        if (rows.split && rows.bound == NULL) {
            scatter_widened(exchange, gradient);
        } else {
            sum_widened(exchange, gradient);
        }
        return;
    }
    if (narrows(exchange, gradient)) {
        pack(exchange, gradient);
        sent.dtype = DTYPE_BF16;
    }
    if (rows.split) {
        comm_ask_reduce_scatter(exchange->comm, exchange->be, &sent, rows.bound);
    } else {
        comm_ask_all_reduce(exchange->comm, exchange->be, &sent);
    }
}

void exchange_take(const struct exchange *exchange, struct tensor *gradient,
                   struct exchange_rows rows)
{
    if (exchange->comm->ranks == 1 || !narrows(exchange, gradient)) {
        return;
    }
    int rank = exchange->comm->rank;
    struct comm_share mine = { 0, tensor_rows(gradient) };
    int64_t columns = tensor_columns(gradient);
    if (rows.split && rows.bound == NULL) {
        mine = comm_share_of(exchange->comm, rank, tensor_rows(gradient));
    } else if (rows.split) {
        mine = (struct comm_share){ rows.bound[rank], rows.bound[rank + 1] - rows.bound[rank] };
    }
    unpack(exchange, gradient, mine.first * columns, mine.count * columns);
}

void exchange_now(const struct exchange *exchange, struct tensor *gradient)
{
    exchange_ask(exchange, gradient, (struct exchange_rows){ .split = false });
    comm_wait(exchange->comm, exchange->be);
    exchange_take(exchange, gradient, (struct exchange_rows){ .split = false });
}
