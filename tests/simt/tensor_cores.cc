/*
 * Tensor cores, emulated: the layouts of fragments are those of the PTX ISA 8.7, section 9.7.14.5
 * (mma.m16n8k16 with .bf16, ldmatrix), written down in kernels/cuda/mma.cuh.
 */
#include "simt/simt.h"

#include "kernels/dtype.h"

enum { LANES = 32 };

/* Element k (0 to 15) of row g + 8 * lower of A: held by lane 4 g + k % 8 / 2. */
static float a_at(unsigned turn, unsigned row, unsigned k)
{
    const uint32_t *a = (const uint32_t *)simt_given(row % 8 * 4 + k % 8 / 2, turn);
    uint32_t pair = a[row / 8 + k / 8 * 2];
    return bf16_to_float((uint16_t)(k % 2 == 0 ? pair : pair >> 16));
}

/* Row k of column n (0 to 15) of B, behind the four registers of A. */
static float b_at(unsigned turn, unsigned k, unsigned n)
{
    const uint32_t *b = (const uint32_t *)simt_given(n % 8 * 4 + k % 8 / 2, turn) + 4;
    uint32_t pair = b[n / 8 * 2 + k / 8];
    return bf16_to_float((uint16_t)(k % 2 == 0 ? pair : pair >> 16));
}

void mma_pair(float left[4], float right[4], const uint32_t a[4], const uint32_t b[4])
{
    uint32_t both[8];
    memcpy(both, a, 16);
    memcpy(both + 4, b, 16);
    unsigned turn = simt_share(both, sizeof both);
    unsigned g = threadIdx.x % LANES / 4;
    unsigned t = threadIdx.x % 4;
    for (unsigned e = 0; e < 4; e++) {
        float *to[2] = { &left[e], &right[e] };
        for (unsigned half = 0; half < 2; half++) {
            double sum = 0.0;
            for (unsigned k = 0; k < 16; k++) {
                sum += (double)a_at(turn, g + e / 2 * 8, k) *
                       (double)b_at(turn, k, 8 * half + 2 * t + e % 2);
            }
            *to[half] = (float)((double)*to[half] + sum);
        }
    }
}

/* Element `column` of row `row` of matrix `matrix`, whose address lane 8 matrix + row gave. */
static uint32_t element(unsigned turn, unsigned matrix, unsigned row, unsigned column)
{
    const uint16_t *address;
    memcpy(&address, simt_given(8 * matrix + row, turn), sizeof address);
    return address[column];
}

void matrix_load(uint32_t value[4], const uint16_t *row)
{
    unsigned turn = simt_share(&row, sizeof row);
    unsigned g = threadIdx.x % LANES / 4;
    unsigned t = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) {
        value[i] = element(turn, i, g, 2 * t) | element(turn, i, g, 2 * t + 1) << 16;
    }
}

void matrix_load_transposed(uint32_t value[4], const uint16_t *row)
{
    unsigned turn = simt_share(&row, sizeof row);
    unsigned g = threadIdx.x % LANES / 4;
    unsigned t = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) {
        value[i] = element(turn, i, 2 * t, g) | element(turn, i, 2 * t + 1, g) << 16;
    }
}

float power_of_two(float x)
{
    return exp2f(x);
}

uint32_t bf16_pair(float low, float high)
{
    return (uint32_t)bf16_from_float(low) | (uint32_t)bf16_from_float(high) << 16;
}

int computed_here(int x)
{
    return x;
}
