/* float16 and bfloat16, one value at a time, in plain C: the same bytes as the vector loads and stores.
 *
 * To float: exact; a float16 signalling NaN becomes quiet and keeps its payload (what the processors' conversions
 * do), bfloat16 only moves bits. From float: round to nearest even, overflow to infinity, every NaN to one pattern. */
#ifndef AK_SIMD_HALF_H
#define AK_SIMD_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t ak_f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float ak_f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint64_t ak_f64_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double ak_f64_from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float ak_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    uint32_t bits;
    if (magnitude > 0x7c00u) {
        bits = 0x7fc00000u | (magnitude << 13);
    } else if (magnitude == 0x7c00u) {
        bits = 0x7f800000u;
    } else if (magnitude >= 0x0400u) {
        bits = (magnitude << 13) + (112u << 23);
    } else {
        bits = ak_f32_bits((float)magnitude * 0x1p-24f);
    }
    return ak_f32_from_bits(sign | bits);
}

static inline uint16_t ak_f32_to_f16(float x)
{
    const uint32_t bits = ak_f32_bits(x);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7e00u;
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Below 2^-14. The ulp of 0.5f is the spacing of float16 denormals, so this addition rounds for us. */
        return (uint16_t)(sign | (ak_f32_bits(ak_f32_from_bits(magnitude) + 0.5f) - 0x3f000000u));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((magnitude - (112u << 23)) >> 13));
}

static inline float ak_bf16_to_f32(uint16_t h)
{
    return ak_f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t ak_f32_to_bf16(float x)
{
    const uint32_t bits = ak_f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
