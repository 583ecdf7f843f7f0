/*
 * The instructions of tensor cores and of copies that run beside the arithmetic, one wrapper each.
 *
 * Source: PTX ISA 8.7, sections 9.7.14.5 (mma.m16n8k16, ldmatrix) and 9.7.9.25.3 (cp.async); they
 * exist from sm_80 on. The emulation under tests/simt defines the same functions for the host, so
 * these are the only places where the two differ.
 *
 * With g = lane / 4 and t = lane % 4, a lane holds of
 *   A (16, 16): rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9, two a register:
 *               (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..);
 *   B (16, 8):  column g, rows (2t, 2t + 1) and (2t + 8, 2t + 9);
 *   C (16, 8):  (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
 * Two C tiles side by side therefore are, rounded to bf16, an A: what one product leaves in
 * registers the next one takes from there.
 */
#ifndef WINDROW_KERNELS_CUDA_MMA_CUH
#define WINDROW_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/device.cuh"

#ifndef SIMT_EMULATION

/* left (16, 8) and right (16, 8) += A (16, 16) times the halves of B (16, 16): b[0], b[1] are the
 * fragment of its columns 0 to 7, b[2], b[3] of 8 to 15. The whole warp must call. */
static __device__ inline void mma_pair(float left[4], float right[4], const uint32_t a[4],
                                       const uint32_t b[4])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(left[0]), "+f"(left[1]), "+f"(left[2]), "+f"(left[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(right[0]), "+f"(right[1]), "+f"(right[2]), "+f"(right[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2]), "r"(b[3]));
}

static __device__ inline unsigned shared_address(const void *shared)
{
    return (unsigned)__cvta_generic_to_shared(shared);
}

/* Four matrices of 8 x 8 bf16 from shared memory: `row` of lane l is the address of row l % 8 of
 * matrix l / 8 (16 bytes, aligned). Of each matrix a lane gets elements 2t and 2t + 1 of row g. */
static __device__ inline void matrix_load(uint32_t value[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value[0]), "=r"(value[1]), "=r"(value[2]), "=r"(value[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* ... transposed: a lane gets elements g of rows 2t and 2t + 1. */
static __device__ inline void matrix_load_transposed(uint32_t value[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value[0]), "=r"(value[1]), "=r"(value[2]), "=r"(value[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* Begins to copy 16 bytes (both addresses aligned to 16) from global to shared memory; zeros, and
 * no access to `global`, unless `inside`. */
static __device__ inline void copy_begin(void *shared, const void *global, bool inside)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(inside ? 16 : 0)
                 : "memory");
}

/* ... 4 bytes. */
static __device__ inline void copy_begin_word(void *shared, const void *global, bool inside)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(inside ? 4 : 0)
                 : "memory");
}

/* Waits for all copies that this thread has begun; a barrier makes them seen by the others. */
static __device__ inline void copy_wait(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* 2 to the power of x within 2^-22 of it; 0 for minus infinity. */
static __device__ inline float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* x, of which the compiler knows nothing: what is computed from it inside a loop stays there, where
 * it would else be carried through the loop in registers. */
static __device__ inline int computed_here(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* Two numbers rounded to bf16, `low` in the lower half. */
static __device__ inline uint32_t bf16_pair(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#endif

#endif
