/*
 * Eight-bit states: blockwise dynamic quantisation (Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit
 * optimizers via block-wise quantization", arXiv 2110.02861, section 2).
 *
 * A block of at most 256 neighbours shares the largest magnitude among them (fp32); each element is
 * a byte that names the nearest entry of a fixed table, times that magnitude. The tables of 256
 * entries have seven decades; decade e = 0 .. 6 cuts [0.1, 1] into n = 2^e (signed) or 2^(e+1)
 * (unsigned) equal intervals, whose middles times 10^(e-6) are entries; 0 and 1 are added.
 *   signed    negatives at 0 .. 126, 0 at 127, positives from 128 on, 1 at 255
 *   unsigned  0 at 0, 1 at 255
 *
 * Second moments are stored as their roots, and a positive one never becomes 0: v spans twice the
 * decades of the gradient, and an element whose v is lost divides its step by eps. With this, steps
 * stay within a few learning rates whatever lies in one block.
 *
 * Everything here is arithmetic on single values with one rounding a step, so that all backends
 * give the same bytes.
 */
#ifndef WINDROW_KERNELS_QUANTIZE_H
#define WINDROW_KERNELS_QUANTIZE_H

#include <math.h>

#include "kernels/dtype.h"

enum { QUANTIZE_BLOCK = 256, QUANTIZE_CODES = 256 };

enum quantize_map {
    QUANTIZE_SIGNED, /* value = entry * magnitude */
    QUANTIZE_ROOT,   /* value = (entry * magnitude)^2, never negative */
};

/* Blocks along `count` elements. */
KERNELS_INLINE int64_t quantize_blocks(int64_t count)
{
    return (count + QUANTIZE_BLOCK - 1) / QUANTIZE_BLOCK;
}

/* Intervals of the lowest decade. */
KERNELS_INLINE int quantize_first(enum quantize_map map)
{
    return map == QUANTIZE_SIGNED ? 1 : 2;
}

/* Magnitude number k (ascending) of the table, below 1. */
KERNELS_INLINE float quantize_magnitude(int k, int first)
{
    int q = k + first;
    int log2 = (int)(float_bits((float)q) >> 23) - 127;
    int n = 1 << log2;
    int tenths = 20 * n; /* the middle is (2 n + 9 (2 i + 1)) / (20 n), over 10^(6 - e) */
    for (int e = first == 1 ? log2 : log2 - 1; e < 6; e++) {
        tenths *= 10;
    }
    return (float)(2 * n + 9 * (2 * (q - n) + 1)) / (float)tenths;
}

/* Entry `code` of the table. */
KERNELS_INLINE float quantize_entry(enum quantize_map map, int code)
{
    int zero = map == QUANTIZE_SIGNED ? 127 : 0;
    if (code == zero) {
        return 0.0f;
    }
    if (code == 255) {
        return 1.0f;
    }
    int first = quantize_first(map);
    return code > zero ? quantize_magnitude(code - zero - 1, first)
                       : -quantize_magnitude(zero - 1 - code, first);
}

/* The number of the magnitude below 1 that is nearest to y in (0, 1]. Between decades the border
 * lies in the middle of the last entry below and the first above, at 10^(e-6) (1 + 0.9 / n). */
KERNELS_INLINE int quantize_nearest(float y, int first)
{
    float step = 0.9f / (float)first;
    int e =
        (y >= 1e-6f * (1.0f + step) ? 1 : 0) + (y >= 1e-5f * (1.0f + step / 2.0f) ? 1 : 0) +
        (y >= 1e-4f * (1.0f + step / 4.0f) ? 1 : 0) + (y >= 1e-3f * (1.0f + step / 8.0f) ? 1 : 0) +
        (y >= 1e-2f * (1.0f + step / 16.0f) ? 1 : 0) + (y >= 1e-1f * (1.0f + step / 32.0f) ? 1 : 0);
    float up = (e == 0 ? 1e6f : e == 1 ? 1e5f : e == 2 ? 1e4f : 1e3f);
    up = e == 4 ? 1e2f : e == 5 ? 1e1f : e == 6 ? 1.0f : up;
    int n = first << e;
    float at = (y * up - 0.1f) * ((float)n / 0.9f);
    at = at < (float)(n - 1) ? at : (float)(n - 1);
    return n - first + (at > 0.0f ? (int)at : 0);
}

/* The code nearest to y: in [-1, 1], or in [0, 1] for QUANTIZE_ROOT. */
KERNELS_INLINE uint8_t quantize_code(enum quantize_map map, float y)
{
    int zero = map == QUANTIZE_SIGNED ? 127 : 0;
    int first = quantize_first(map);
    float magnitude = fabsf(y);
    /* Half of the smallest entry; a positive root goes up to it. */
    float smallest = map == QUANTIZE_SIGNED ? 0.5f * 5.5e-7f : 0.0f;
    int k = quantize_nearest(magnitude, first);
    int code = y < 0.0f ? zero - 1 - k : zero + 1 + k;
    code = y >= 1.0f - 0.225f / (64.0f * (float)first) ? 255 : code;
    return (uint8_t)(magnitude <= smallest ? zero : code);
}

/* What is compared with the magnitude of the block. */
KERNELS_INLINE float quantize_stored(enum quantize_map map, float value)
{
    return map == QUANTIZE_ROOT ? sqrtf(value) : value;
}

/* The byte of a value that is stored as x (quantize_stored) in a block of magnitude `absmax`. */
KERNELS_INLINE uint8_t quantize_store(enum quantize_map map, float x, float absmax)
{
    return absmax > 0.0f ? quantize_code(map, x / absmax) : quantize_code(map, 0.0f);
}

KERNELS_INLINE float quantize_load(enum quantize_map map, float entry, float absmax)
{
    float x = entry * absmax;
    return map == QUANTIZE_ROOT ? x * x : x;
}

#endif
