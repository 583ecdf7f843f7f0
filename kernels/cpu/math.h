/* exp in fp32, written so that a loop over it becomes vector instructions; libm's is one call an
 * element. */
#ifndef WINDROW_KERNELS_CPU_MATH_H
#define WINDROW_KERNELS_CPU_MATH_H

#include "kernels/dtype.h"

/*
 * e^x to within 2 units in the last place over the whole range, denormal results included; 0 and
 * infinity beyond it; NaN for NaN.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2 and ln 2 in two parts (Cody and Waite, "Software Manual for
 * the Elementary Functions", chapter 6); e^r by its Taylor polynomial of degree 7, whose remainder
 * there is below 6e-9; 2^n as two factors, since n may leave the range of one exponent.
 */
static inline float cpu_exp(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float clamped = x > 89.0f ? 89.0f : x;
    clamped = clamped < -104.0f ? -104.0f : clamped;
    float shifted = clamped * 1.44269504f + round;
    float n = shifted - round;
    float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* n + 256 >= 0, so that halving it is a plain shift. */
    uint32_t biased = float_bits(shifted) - float_bits(round) + 256u;
    uint32_t half = biased >> 1;
    float low = float_from_bits((half - 128u + 127u) << 23);
    float high = float_from_bits((biased - half - 128u + 127u) << 23);
    return p * low * high;
}

#endif
