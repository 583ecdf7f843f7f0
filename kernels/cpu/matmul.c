/*
 * Matrix products through oneDNN.
 *
 * Preparing a product in oneDNN costs more than computing a small one, so prepared products are
 * kept, the least recently used one making room. A product is prepared for exact shapes and
 * strides; transposition and column ranges are strides, beta = 1 is a sum post-operation.
 *
 * oneDNN's AVX-512 products ("brg") never split a sum over k among threads. Its others do, and
 * their values would depend on the number of threads: such a product is cut into blocks of rows,
 * each of them computed by one thread.
 *
 * What oneDNN does not do here (bf16 on a processor without AVX-512; fp32 factors with a bf16
 * result) is computed in fp32 on converted copies. The product of a single row with a transposed
 * matrix, the one of decoding, is limited by memory: oneDNN repacks the matrix first, plain dot
 * products read it once.
 */
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"

enum { PRODUCT_COUNT = 192, VECTOR_GRAIN = 64 * 1024, SPLIT_COUNT = 16, SPLIT_ROWS = 16 };

/* What a prepared product depends on. All fields are 64 bits wide: there is no padding, and two
 * keys are compared as bytes. */
struct product_key {
    int64_t m, n, k;
    int64_t a_stride; /* elements from one stored row of a to the next */
    int64_t transpose_a, transpose_b;
    int64_t factor_type, result_type; /* enum dtype */
    int64_t accumulate;
    int64_t threads; /* one more than there are; 1: a block of rows, for a single thread */
};

struct product {
    struct product_key key;
    uint64_t used; /* when last; 0: free */
    bool possible; /* false: oneDNN has no implementation */
    bool splits;   /* may split sums among threads */
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t desc[4]; /* a, b, c, scratch */
    dnnl_memory_t memory[3];    /* a, b, c */
};

struct cpu_products {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t clock;
    struct product product[PRODUCT_COUNT];
};

static void product_free(struct product *p)
{
    for (int i = 0; i < 3; i++) {
        if (p->memory[i] != NULL) {
            dnnl_memory_destroy(p->memory[i]);
        }
    }
    if (p->primitive != NULL) {
        dnnl_primitive_destroy(p->primitive);
    }
    *p = (struct product){ 0 };
}

struct cpu_products *cpu_products_open(char *why, size_t why_size)
{
    struct cpu_products *products = calloc(1, sizeof *products);
    if (products == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    if (dnnl_engine_create(&products->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&products->stream, products->engine, dnnl_stream_default_flags) !=
            dnnl_success) {
        snprintf(why, why_size, "the oneDNN library finds no processor to work on");
        cpu_products_close(products);
        return NULL;
    }
    return products;
}

void cpu_products_close(struct cpu_products *products)
{
    for (int i = 0; i < PRODUCT_COUNT; i++) {
        product_free(&products->product[i]);
    }
    if (products->stream != NULL) {
        dnnl_stream_destroy(products->stream);
    }
    if (products->engine != NULL) {
        dnnl_engine_destroy(products->engine);
    }
    free(products);
}

/* ---- preparation ----------------------------------------------------------------------------- */

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *desc, int64_t rows, int64_t columns,
                                     int64_t stride, bool transposed, int64_t dtype)
{
    dnnl_dims_t dims = { rows, columns };
    dnnl_dims_t strides = { transposed ? 1 : stride, transposed ? stride : 1 };
    return dnnl_memory_desc_init_by_strides(desc, 2, dims,
                                            dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32, strides);
}

static dnnl_status_t product_describe(const struct product_key *key, dnnl_memory_desc_t desc[3])
{
    dnnl_status_t status = describe_matrix(&desc[0], key->m, key->k, key->a_stride,
                                           key->transpose_a != 0, key->factor_type);
    if (status == dnnl_success) {
        status = describe_matrix(&desc[1], key->k, key->n, key->transpose_b != 0 ? key->k : key->n,
                                 key->transpose_b != 0, key->factor_type);
    }
    if (status == dnnl_success) {
        status = describe_matrix(&desc[2], key->m, key->n, key->n, false, key->result_type);
    }
    return status;
}

/* How the product ends (adding to c) and where its scratch comes from. */
static dnnl_status_t product_attributes(const struct product_key *key,
                                        dnnl_primitive_attr_t attributes)
{
    dnnl_status_t status = dnnl_success;
    if (key->threads == 1) {
        status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    }
    if (status != dnnl_success || key->accumulate == 0) {
        return status;
    }
    dnnl_post_ops_t after = NULL;
    status = dnnl_post_ops_create(&after);
    if (status == dnnl_success) {
        status = dnnl_post_ops_append_sum(after, 1.0f);
        if (status == dnnl_success) {
            status = dnnl_primitive_attr_set_post_ops(attributes, after);
        }
        dnnl_post_ops_destroy(after);
    }
    return status;
}

static dnnl_status_t product_create(const struct cpu_products *products, struct product *p)
{
    dnnl_matmul_desc_t operation;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t prepared = NULL;
    dnnl_status_t status = product_describe(&p->key, p->desc);
    if (status == dnnl_success) {
        status = dnnl_matmul_desc_init(&operation, &p->desc[0], &p->desc[1], NULL, &p->desc[2]);
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_create(&attributes);
    }
    if (status == dnnl_success) {
        status = product_attributes(&p->key, attributes);
    }
    if (status == dnnl_success) {
        status =
            dnnl_primitive_desc_create(&prepared, &operation, attributes, products->engine, NULL);
    }
    if (status == dnnl_success) {
        const char *name = "";
        (void)dnnl_primitive_desc_query(prepared, dnnl_query_impl_info_str, 0, (void *)&name);
        p->splits = strncmp(name, "brg", 3) != 0;
        p->desc[3] = *dnnl_primitive_desc_query_md(prepared, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&p->primitive, prepared);
    }
    for (int i = 0; i < 3 && status == dnnl_success; i++) {
        status = dnnl_memory_create(&p->memory[i], &p->desc[i], products->engine, NULL);
    }
    if (prepared != NULL) {
        dnnl_primitive_desc_destroy(prepared);
    }
    if (attributes != NULL) {
        dnnl_primitive_attr_destroy(attributes);
    }
    return status;
}

/* The prepared product, made now if need be. NULL with the error latched. */
static struct product *product_find(struct backend *be, const struct product_key *key)
{
    struct cpu_state *state = be->state;
    struct cpu_products *products = state->products;
    struct product *oldest = &products->product[0];
    products->clock++;
    for (int i = 0; i < PRODUCT_COUNT; i++) {
        struct product *p = &products->product[i];
        if (p->used != 0 && memcmp(&p->key, key, sizeof *key) == 0) {
            p->used = products->clock;
            return p;
        }
        if (p->used < oldest->used) {
            oldest = p;
        }
    }
    product_free(oldest);
    oldest->key = *key;
    dnnl_status_t status = product_create(products, oldest);
    if (status != dnnl_success && status != dnnl_unimplemented) {
        product_free(oldest);
        backend_fail(be, "matmul: oneDNN cannot prepare (%lld, %lld) x (%lld, %lld): status %d",
                     (long long)key->m, (long long)key->k, (long long)key->k, (long long)key->n,
                     (int)status);
        return NULL;
    }
    oldest->possible = status == dnnl_success;
    oldest->used = products->clock;
    return oldest;
}

static void product_run(struct backend *be, struct product *p, const void *const data[3])
{
    const struct cpu_state *state = be->state;
    const int role[3] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST };
    dnnl_exec_arg_t arguments[3];
    dnnl_status_t status = dnnl_success;
    for (int i = 0; i < 3; i++) {
        if (status == dnnl_success) {
            status = dnnl_memory_set_data_handle(p->memory[i], (void *)(uintptr_t)data[i]);
        }
        arguments[i] = (dnnl_exec_arg_t){ .arg = role[i], .memory = p->memory[i] };
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_execute(p->primitive, state->products->stream, 3, arguments);
    }
    if (status == dnnl_success) {
        status = dnnl_stream_wait(state->products->stream);
    }
    if (status != dnnl_success) {
        backend_fail(be, "matmul: oneDNN fails with status %d", (int)status);
    }
}

/* One block of rows, by the thread that calls. Several threads may run the same product. */
static dnnl_status_t product_run_block(const struct cpu_products *products, const struct product *p,
                                       void *const data[4])
{
    const int role[4] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD };
    dnnl_exec_arg_t arguments[4];
    dnnl_status_t status = dnnl_success;
    int count = 0;
    while (count < 4 && status == dnnl_success) {
        arguments[count].arg = role[count];
        status = dnnl_memory_create(&arguments[count].memory, &p->desc[count], products->engine,
                                    data[count]);
        count += status == dnnl_success ? 1 : 0;
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_execute(p->primitive, products->stream, 4, arguments);
    }
    while (count > 0) {
        dnnl_memory_destroy(arguments[--count].memory);
    }
    return status;
}

/* A block of `grain` rows and the last one, which may be shorter. */
static bool prepare_blocks(struct backend *be, const struct product_key *whole, int64_t grain,
                           struct product *prepared[2])
{
    struct product_key key = *whole;
    int threads = omp_get_max_threads();
    key.threads = 1;
    omp_set_num_threads(1);
    for (int i = 0; i < 2; i++) {
        key.m = i == 0 ? grain : whole->m - (whole->m - 1) / grain * grain;
        prepared[i] = product_find(be, &key);
        if (prepared[i] != NULL && !prepared[i]->possible) {
            backend_fail(be, "matmul: oneDNN has no product of a block of rows");
        }
    }
    omp_set_num_threads(threads);
    return !be->failed;
}

/* Blocks depend on the shape alone, and so does every sum. */
static void product_run_split(struct backend *be, const struct product_key *whole,
                              const void *const data[3])
{
    const struct cpu_state *state = be->state;
    int64_t rows = cpu_chunk_count(whole->m, SPLIT_COUNT);
    int64_t grain = cpu_min(whole->m, cpu_chunk_count(rows, SPLIT_ROWS) * SPLIT_ROWS);
    int64_t chunks = cpu_chunk_count(whole->m, grain);
    struct product *prepared[2];
    if (!prepare_blocks(be, whole, grain, prepared)) {
        return;
    }
    size_t room = dnnl_memory_desc_get_size(&prepared[0]->desc[3]);
    size_t last_room = dnnl_memory_desc_get_size(&prepared[1]->desc[3]);
    room = ((room > last_room ? room : last_room) / 256 + 1) * 256;
    size_t scratch_bytes = room * (size_t)omp_get_max_threads();
    unsigned char *scratch = aligned_alloc(256, scratch_bytes);
    if (scratch == NULL) {
        backend_fail(be, "matmul: out of memory (%zu bytes of scratch)", scratch_bytes);
        return;
    }
    size_t a_step = (size_t)(whole->transpose_a != 0 ? 1 : whole->a_stride);
    size_t a_bytes = a_step * dtype_size((enum dtype)whole->factor_type);
    size_t c_bytes = (size_t)whole->n * dtype_size((enum dtype)whole->result_type);
    int failures = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : failures)
    for (int64_t i = 0; i < chunks; i++) {
        size_t row = (size_t)(i * grain);
        void *const block[4] = {
            (char *)(uintptr_t)data[0] + row * a_bytes,
            (void *)(uintptr_t)data[1],
            (char *)(uintptr_t)data[2] + row * c_bytes,
            scratch + room * (size_t)omp_get_thread_num(),
        };
        const struct product *p = prepared[i == chunks - 1 ? 1 : 0];
        failures += product_run_block(state->products, p, block) != dnnl_success ? 1 : 0;
    }
    free(scratch);
    if (failures > 0) {
        backend_fail(be, "matmul: oneDNN fails in %d blocks of rows", failures);
    }
}

/* ---- the products that oneDNN does not compute -------------------------------------------------
 */

static void convert(float *dst, const struct tensor *src)
{
    int64_t count = tensor_count(src);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        cpu_load(dst + r.first, src, r.first, r.last - r.first);
    }
}

static struct tensor placed(const struct tensor *like, float *data)
{
    struct tensor t = *like;
    t.data = data;
    t.dtype = DTYPE_F32;
    return t;
}

/* The same product on fp32 copies; only what is not fp32 is copied. */
static void multiply_converted(struct backend *be, const struct matmul *args)
{
    const struct tensor *whole[3] = { args->a, args->b, args->c };
    size_t bytes[3];
    size_t total = 0;
    for (int i = 0; i < 3; i++) {
        bytes[i] = whole[i]->dtype == DTYPE_F32
                       ? 0
                       : ((size_t)tensor_count(whole[i]) * sizeof(float) + 63) / 64 * 64;
        total += bytes[i];
    }
    unsigned char *scratch = cpu_scratch(be, total);
    if (scratch == NULL) {
        return;
    }
    struct tensor copy[3];
    for (int i = 0; i < 3; i++) {
        copy[i] = *whole[i];
        if (bytes[i] > 0) {
            copy[i] = placed(whole[i], (float *)(void *)scratch);
            scratch += bytes[i];
            if (i < 2 || args->beta != 0.0f) {
                convert(copy[i].data, whole[i]);
            }
        }
    }
    struct matmul plain = *args;
    plain.a = &copy[0];
    plain.b = &copy[1];
    plain.c = &copy[2];
    cpu_matmul(be, &plain);
    if (bytes[2] > 0 && !be->failed) {
        cpu_copy(be, args->c, &copy[2]);
    }
}

static float dot(const float *x, const struct tensor *w, int64_t first, int64_t count)
{
    float buffer[CPU_BLOCK];
    float total = 0.0f;
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, count - at);
        const float *row = cpu_read(w, first + at, length, buffer);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < length; i++) {
            sum += x[at + i] * row[i];
        }
        total += sum;
    }
    return total;
}

/* c (1, n) = a (1, k) b (n, k)^T + beta c. */
static void multiply_row(struct backend *be, const struct matmul *args, int64_t n, int64_t k)
{
    float *x = cpu_scratch(be, (size_t)k * sizeof *x);
    if (x == NULL) {
        return;
    }
    cpu_load(x, args->a, args->a_first, k);
    int64_t grain = VECTOR_GRAIN / k > 8 ? VECTOR_GRAIN / k : 8;
    int64_t chunks = cpu_chunk_count(n, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(n, grain, i);
        for (int64_t j = r.first; j < r.last; j++) {
            float y = dot(x, args->b, j * k, k);
            cpu_set(args->c, j, args->beta != 0.0f ? cpu_get(args->c, j) + y : y);
        }
    }
}

/* ---- the operation -----------------------------------------------------------------------------
 */

void cpu_matmul(struct backend *be, const struct matmul *args)
{
    const struct tensor *a = args->a;
    int64_t stride = tensor_columns(a);
    int64_t columns = args->a_columns > 0 ? args->a_columns : stride;
    int64_t rows = tensor_rows(a);
    int64_t m = args->transpose_a ? columns : rows;
    int64_t k = args->transpose_a ? rows : columns;
    int64_t n = tensor_columns(args->c);
    if (m == 0 || n == 0) {
        return;
    }
    if (args->addend != NULL) {
        /* Products with a sum read it where they write. */
        struct matmul in_place = *args;
        in_place.addend = NULL;
        in_place.beta = 1.0f;
        cpu_copy(be, args->c, args->addend);
        cpu_matmul(be, &in_place);
        return;
    }
    if (k == 0) {
        if (args->beta == 0.0f) {
            cpu_zero(be, args->c);
        }
        return;
    }
    if (m == 1 && !args->transpose_a && args->transpose_b) {
        multiply_row(be, args, n, k);
        return;
    }
    struct product_key key = {
        .m = m,
        .n = n,
        .k = k,
        .a_stride = stride,
        .transpose_a = args->transpose_a,
        .transpose_b = args->transpose_b,
        .factor_type = a->dtype,
        .result_type = args->c->dtype,
        .accumulate = args->beta != 0.0f,
        .threads = omp_get_max_threads() + 1, /* 1 is for blocks */
    };
    struct product *p = product_find(be, &key);
    if (p == NULL) {
        return;
    }
    if (p->possible) {
        size_t offset = (size_t)args->a_first * dtype_size(a->dtype);
        const void *const data[3] = { (const char *)a->data + offset, args->b->data,
                                      args->c->data };
        if (p->splits) {
            product_run_split(be, &key, data);
        } else {
            product_run(be, p, data);
        }
    } else if (key.factor_type == DTYPE_F32 && key.result_type == DTYPE_F32) {
        backend_fail(be, "matmul: oneDNN has no product of this shape for this processor");
    } else {
        multiply_converted(be, args);
    }
}
