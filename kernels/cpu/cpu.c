/* The cpu backend: memory, facts, and the table of operations. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/backend_ops.h"
#include "kernels/backend_private.h"

enum { CPU_ALIGNMENT = 256 };

static void cpu_close(struct backend *be)
{
    struct cpu_state *state = be->state;
    cpu_products_close(state->products);
    free(state->scratch);
    free(state);
    free(be);
}

static int cpu_sync(struct backend *be)
{
    (void)be;
    return 0;
}

static void *cpu_aligned_alloc(size_t bytes)
{
    if (bytes > SIZE_MAX - CPU_ALIGNMENT) {
        return NULL;
    }
    size_t rounded = (bytes + CPU_ALIGNMENT - 1) / CPU_ALIGNMENT * CPU_ALIGNMENT;
    return aligned_alloc(CPU_ALIGNMENT, rounded > 0 ? rounded : CPU_ALIGNMENT);
}

static void *cpu_alloc(struct backend *be, size_t bytes)
{
    (void)be;
    return cpu_aligned_alloc(bytes);
}

static void cpu_free(struct backend *be, void *data, size_t bytes)
{
    (void)be;
    (void)bytes;
    free(data);
}

static void cpu_upload(struct backend *be, void *device, const void *host, size_t bytes)
{
    (void)be;
    memcpy(device, host, bytes);
}

static void cpu_download(struct backend *be, void *host, const void *device, size_t bytes)
{
    (void)be;
    memcpy(host, device, bytes);
}

void *cpu_scratch(struct backend *be, size_t bytes)
{
    struct cpu_state *state = be->state;
    if (bytes > state->scratch_bytes) {
        free(state->scratch);
        state->scratch = cpu_aligned_alloc(bytes);
        state->scratch_bytes = state->scratch != NULL ? bytes : 0;
        if (state->scratch == NULL) {
            backend_fail(be, "cpu: out of memory (%zu bytes of scratch)", bytes);
        }
    }
    return state->scratch;
}

static int cpu_configure(struct backend *be, const struct backend_options *options, char *why,
                         size_t why_size)
{
    (void)be;
    if (options->attention == ATTENTION_CUDNN) {
        snprintf(why, why_size, "cuDNN runs on NVIDIA devices, not on the cpu");
        return -1;
    }
    return 0; /* everything else is so by itself */
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .close = cpu_close,
    .configure = cpu_configure,
    .sync = cpu_sync,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .zero = cpu_zero,
    .copy = cpu_copy,
    .add = cpu_add,
    .scale = cpu_scale,
    .sum = cpu_sum,
    .sum_squares = cpu_sum_squares,
    .clip = cpu_clip,
    .matmul = cpu_matmul,
    .rmsnorm_forward = cpu_rmsnorm_forward,
    .rmsnorm_backward = cpu_rmsnorm_backward,
    .rope = cpu_rope,
    .attention_forward = cpu_attention_forward,
    .attention_backward = cpu_attention_backward,
    .attention_decode = cpu_attention_decode,
    .swiglu_forward = cpu_swiglu_forward,
    .swiglu_backward = cpu_swiglu_backward,
    .embedding_forward = cpu_embedding_forward,
    .embedding_backward = cpu_embedding_backward,
    .distinct = cpu_distinct,
    .cross_entropy = cpu_cross_entropy,
    .squared_norms = cpu_squared_norms,
    .select = cpu_select,
    .gather = cpu_gather,
    .scatter = cpu_scatter,
    .scale_side = cpu_scale_side,
    .adamw = cpu_adamw,
    .settle = cpu_settle,
    .adamw_int8 = cpu_adamw_int8,
    .sgd = cpu_sgd,
    .unit_factors = cpu_unit_factors,
    .tradam = cpu_tradam,
    .quantize = cpu_quantize,
    .dequantize = cpu_dequantize,
    .random_normal = cpu_random_normal,
    .orthonormalize = cpu_orthonormalize,
    .eigenvectors = cpu_eigenvectors,
    .square = cpu_square,
    .descend = cpu_descend,
    .random_sign = cpu_random_sign,
};

/* The processor's own name for itself, without the padding it comes with. */
static void cpu_name(char *name, size_t size)
{
    snprintf(name, size, "cpu");
#if defined(__x86_64__)
    unsigned int words[12] = { 0 };
    for (unsigned int i = 0; i < 3; i++) {
        unsigned int *w = words + 4 * i;
        if (__get_cpuid(0x80000002u + i, w, w + 1, w + 2, w + 3) == 0) {
            return;
        }
    }
    char brand[sizeof words + 1] = "";
    memcpy(brand, words, sizeof words);
    const char *first = brand + strspn(brand, " ");
    size_t length = strlen(first);
    while (length > 0 && first[length - 1] == ' ') {
        length--;
    }
    if (length > 0) {
        snprintf(name, size, "%.*s", (int)length, first);
    }
#endif
}

static void cpu_find_facts(struct backend_facts *facts)
{
    char name[64];
    cpu_name(name, sizeof name);
    facts->threads = omp_get_max_threads();
    snprintf(facts->device, sizeof facts->device, "%s, %d thread%s", name, facts->threads,
             facts->threads == 1 ? "" : "s");
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page_bytes > 0) {
        facts->memory_bytes = (size_t)pages * (size_t)page_bytes;
    }
    facts->host_accessible = true;
}

struct backend *backend_cpu_open(int index, char *why, size_t why_size)
{
    if (index != 0) {
        snprintf(why, why_size, "there is only one cpu backend, number 0, not %d", index);
        return NULL;
    }
    struct backend *be = calloc(1, sizeof *be);
    struct cpu_state *state = calloc(1, sizeof *state);
    if (be == NULL || state == NULL) {
        snprintf(why, why_size, "out of memory");
        goto refuse;
    }
    state->products = cpu_products_open(why, why_size);
    if (state->products == NULL) {
        goto refuse;
    }
    be->ops = &cpu_ops;
    be->state = state;
    cpu_find_facts(&be->facts);
    return be;

refuse:
    free(state);
    free(be);
    return NULL;
}
