/*
 * Storage formats of tensor elements.
 *
 * Arithmetic is always done in fp32 (or double where a sum is long); a dtype only says how a value
 * is stored. F16 exists for reading model files: no operation computes on it.
 */
#ifndef WINDROW_KERNELS_DTYPE_H
#define WINDROW_KERNELS_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Small functions that device code calls as well. */
#ifdef __CUDACC__
#define KERNELS_INLINE static inline __host__ __device__
#else
#define KERNELS_INLINE static inline
#endif

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_U8, DTYPE_I16, DTYPE_COUNT };

/* How a value becomes bf16: to the nearest (ties to even), or up or down at random so that the
 * expected stored value equals the exact one. */
enum rounding { ROUNDING_NEAREST, ROUNDING_STOCHASTIC };

/* Bytes of one element. */
static inline size_t dtype_size(enum dtype dtype)
{
    static const size_t sizes[DTYPE_COUNT] = { 4, 2, 2, 4, 1, 2 };
    return sizes[dtype];
}

/* "fp32", "bf16", "fp16", "int32", "uint8", "int16": the names recipes and messages use. */
static inline const char *dtype_name(enum dtype dtype)
{
    static const char *const names[DTYPE_COUNT] = { "fp32",  "bf16",  "fp16",
                                                    "int32", "uint8", "int16" };
    return names[dtype];
}

KERNELS_INLINE uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

KERNELS_INLINE float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

KERNELS_INLINE float bf16_to_float(uint16_t value)
{
    return float_from_bits((uint32_t)value << 16);
}

/* Nearest, ties to even; NaN stays NaN (quiet). */
KERNELS_INLINE uint16_t bf16_from_float(float value)
{
    uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((bits >> 16) | 0x0040u);
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Stochastic: adds 16 uniform random bits below the kept mantissa, then cuts them off. A value
 * that bf16 holds exactly is kept; NaN and infinity are kept. */
KERNELS_INLINE uint16_t bf16_from_float_stochastic(float value, uint32_t random16)
{
    uint32_t bits = float_bits(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return bf16_from_float(value);
    }
    return (uint16_t)((bits + (random16 & 0xffffu)) >> 16);
}

/* An fp32 value in two halves: the nearest bf16 (ties away from zero) and the residue, what its
 * bits are above those of the bf16. Nothing is lost; a NaN stays one. */
KERNELS_INLINE uint16_t bf16_split(float value, int16_t *residue)
{
    uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        *residue = 0;
        return bf16_from_float(value);
    }
    *residue = (int16_t)(uint16_t)bits;
    return (uint16_t)((bits + 0x8000u) >> 16);
}

KERNELS_INLINE float bf16_join(uint16_t value, int16_t residue)
{
    return float_from_bits(((uint32_t)value << 16) + (uint32_t)(int32_t)residue);
}

#endif
