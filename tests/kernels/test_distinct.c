/* Distinct ids: against a search through all of them; and the gradient of an embedding by rows that
 * occur against that of the whole table. */
#include "kernels/host_tensor.h"

#include <string.h>

static uint32_t random_below(uint64_t stream, uint64_t element, uint32_t limit)
{
    struct random_key key = { .seed = stream, .purpose = RANDOM_TEST };
    return random_u32(&key, element) % limit;
}

static void check_distinct(struct backend *be, int64_t tokens, int64_t words, int64_t spare)
{
    int64_t slots = (tokens < words ? tokens : words) + spare;
    struct tensor ids = host_vector(be, DTYPE_I32, tokens);
    struct tensor slot = host_vector(be, DTYPE_I32, tokens);
    struct tensor room = host_vector(be, DTYPE_I32, words);
    struct tensor index = host_vector(be, DTYPE_I32, slots);
    int32_t *id = ids.data;
    for (int64_t t = 0; t < tokens; t++) {
        id[t] = (int32_t)random_below((uint64_t)(tokens * words), (uint64_t)t, (uint32_t)words);
    }
    op_distinct(be, &(struct distinct){ &index, &slot, &room, &ids });
    const int32_t *found = index.data;
    int64_t used = 0;
    for (int32_t w = 0; w < words; w++) {
        bool occurs = false;
        for (int64_t t = 0; t < tokens; t++) {
            if (id[t] == w) {
                occurs = true;
                assert_int_equal(((int32_t *)slot.data)[t], used);
            }
        }
        assert_int_equal(((int32_t *)room.data)[w], occurs ? used : -1);
        if (occurs) {
            assert_int_equal(found[used], w);
            used++;
        }
    }
    for (; used < slots; used++) {
        assert_int_equal(found[used], -1);
    }
    host_free(be, &ids);
    host_free(be, &slot);
    host_free(be, &room);
    host_free(be, &index);
}

static void test_distinct(void **state)
{
    check_distinct(*state, 1, 1, 0);
    check_distinct(*state, 1, 300, 2);
    check_distinct(*state, 300, 1, 0);
    check_distinct(*state, 200, 17, 5);
    check_distinct(*state, 17, 200, 0);
    check_distinct(*state, 128, 128, 1);
}

/* Summing into slots is summing into the table, to the bit. */
static void test_gradient(void **state)
{
    enum { TOKENS = 60, WORDS = 25, COLUMNS = 7 };
    struct backend *be = *state;
    struct tensor ids = host_vector(be, DTYPE_I32, TOKENS);
    struct tensor slot = host_vector(be, DTYPE_I32, TOKENS);
    struct tensor room = host_vector(be, DTYPE_I32, WORDS);
    struct tensor index = host_vector(be, DTYPE_I32, WORDS);
    struct tensor dy = host_matrix(be, DTYPE_BF16, TOKENS, COLUMNS);
    struct tensor whole = host_matrix(be, DTYPE_BF16, WORDS, COLUMNS);
    struct tensor rows = host_matrix(be, DTYPE_BF16, WORDS, COLUMNS);
    struct tensor spread = host_matrix(be, DTYPE_BF16, WORDS, COLUMNS);
    for (int64_t t = 0; t < TOKENS; t++) {
        ((int32_t *)ids.data)[t] = 2 * (int32_t)random_below(3, (uint64_t)t, WORDS / 2);
    }
    host_randomize(&dy, 5, -1.0f, 1.0f);
    op_zero(be, &whole);
    op_zero(be, &rows);
    op_zero(be, &spread);
    op_distinct(be, &(struct distinct){ &index, &slot, &room, &ids });
    for (int i = 0; i < 2; i++) { /* micro-batches */
        op_embedding_backward(be, &whole, &dy, &ids);
        op_embedding_backward(be, &rows, &dy, &slot);
    }
    op_scatter(be, &spread, &rows, &index, SIDE_ROWS);
    for (int64_t i = 0; i < WORDS * COLUMNS; i++) {
        assert_true(host_get(&spread, i) == host_get(&whole, i));
    }
    host_free(be, &ids);
    host_free(be, &slot);
    host_free(be, &room);
    host_free(be, &index);
    host_free(be, &dy);
    host_free(be, &whole);
    host_free(be, &rows);
    host_free(be, &spread);
}

/* Too few slots are an error, not a write past the end. */
static void test_refused(void **state)
{
    (void)state;
    char why[256];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    struct tensor ids = host_vector(be, DTYPE_I32, 9);
    struct tensor slot = host_vector(be, DTYPE_I32, 9);
    struct tensor room = host_vector(be, DTYPE_I32, 8);
    struct tensor index = host_vector(be, DTYPE_I32, 7);
    op_distinct(be, &(struct distinct){ &index, &slot, &room, &ids });
    assert_int_not_equal(backend_sync(be), 0);
    assert_non_null(strstr(be->error, "too few"));
    host_free(be, &ids);
    host_free(be, &slot);
    host_free(be, &room);
    host_free(be, &index);
    backend_close(be);
}

/* Bytes of eight-bit states, put where they were. */
static void test_scatter_bytes(void **state)
{
    enum { ROWS = 9, COLUMNS = 6 };
    struct backend *be = *state;
    static const int32_t places[] = { 1, 4, -1, 5 };
    for (int side = 0; side < 2; side++) {
        bool rows = side == SIDE_ROWS;
        struct tensor x = host_matrix(be, DTYPE_U8, ROWS, COLUMNS);
        struct tensor y = host_matrix(be, DTYPE_U8, rows ? 4 : ROWS, rows ? COLUMNS : 4);
        struct tensor index = host_vector(be, DTYPE_I32, 4);
        memcpy(index.data, places, sizeof places);
        memset(x.data, 7, ROWS * COLUMNS);
        for (int64_t i = 0; i < tensor_count(&y); i++) {
            ((uint8_t *)y.data)[i] = (uint8_t)(200 + i);
        }
        op_scatter(be, &x, &y, &index, (enum side)side);
        for (int64_t i = 0; i < ROWS * COLUMNS; i++) {
            int64_t line = rows ? i / COLUMNS : i % COLUMNS;
            int64_t slot = line == 1 ? 0 : line == 4 ? 1 : line == 5 ? 3 : -1;
            int64_t at = rows ? slot * COLUMNS + i % COLUMNS : i / COLUMNS * 4 + slot;
            int expected = slot < 0 ? 7 : (uint8_t)(200 + at);
            assert_int_equal(((uint8_t *)x.data)[i], expected);
        }
        host_free(be, &x);
        host_free(be, &y);
        host_free(be, &index);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_distinct, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_gradient, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_scatter_bytes, host_setup, host_teardown),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
