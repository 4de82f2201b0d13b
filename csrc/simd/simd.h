/* The virtual vector: 16 lanes of float (vf) or 8 lanes of double (vd), 64 bytes on every target.
 *
 * The including file defines one of AK_TARGET_AVX512, AK_TARGET_AVX2, AK_TARGET_NEON, AK_TARGET_GENERIC and is
 * compiled with that target's flags. Kernels are written once against these names; the target headers are the
 * only files with intrinsics. Everything is inlined, so two targets in one binary share no symbol.
 *
 * Contract, equal on all targets, in the default floating-point environment (round to nearest, no flush to zero)
 * and without compiler contraction (-ffp-contract=off):
 *   - arithmetic (add sub mul div sqrt fma fnma) is correctly rounded; *which* NaN comes out is not promised;
 *   - everything else gives the same bytes for every input, NaN included:
 *       max(a, b) = a > b ? a : b and min(a, b) = a < b ? a : b, so b when either is NaN or both are zero;
 *       neg, abs, select, and_mask, load, store, transpose move bits;
 *       canonical turns every NaN into one positive quiet pattern and -0 into +0;
 *       half and bfloat16 loads are exact (float16 and float -> double make a signalling NaN quiet and keep its
 *       payload, bfloat16 -> float moves bits); half stores round to nearest even, every NaN to 0x7e00 / 0x7fc0;
 *   - hsum and hmax fold halves: lane i with lane i + 8, then + 4, + 2, + 1 (doubles: 4, 2, 1), lower lane first;
 *   - load_first and store_first touch the first n elements only (0 <= n <= lanes); missing lanes load as +0.
 * Names: vf_ and vd_ for the vectors, mf_ and md_ for their lane masks. */
#ifndef AK_SIMD_SIMD_H
#define AK_SIMD_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "half.h"

#define VF_LANES 16
#define VD_LANES 8

/* Bit patterns that more than one target needs. */
#define AK_F32_NAN_BITS 0x7fc00000u
#define AK_F64_NAN_BITS 0x7ff8000000000000ull
/* bits(sqrt(1/2)): split_exp returns mantissas in [sqrt(1/2), sqrt(2)). */
#define AK_F32_SQRT_HALF_BITS 0x3f3504f3u
#define AK_F64_SQRT_HALF_BITS 0x3fe6a09e667f3bcdull

#if defined(AK_TARGET_GENERIC)
#define AK_SIMD_INLINE static inline /* one number at a time: inlining everything took the compiler a minute */
#else
#define AK_SIMD_INLINE static inline __attribute__((always_inline))
#endif

#if defined(AK_TARGET_AVX512)
#include "avx512.h"
#elif defined(AK_TARGET_AVX2)
#include "avx2.h"
#elif defined(AK_TARGET_NEON)
#include "neon.h"
#elif defined(AK_TARGET_GENERIC)
#include "generic.h"
#else
#error "define AK_TARGET_<name> before including simd.h"
#endif

/* What follows from the rest in the same way everywhere. */
AK_SIMD_INLINE int mf_any(mf m) { return mf_bits(m) != 0; }
AK_SIMD_INLINE int mf_all(mf m) { return mf_bits(m) == 0xffffu; }
AK_SIMD_INLINE int mf_count(mf m) { return __builtin_popcount(mf_bits(m)); }
AK_SIMD_INLINE int md_any(md m) { return md_bits(m) != 0; }
AK_SIMD_INLINE int md_all(md m) { return md_bits(m) == 0xffu; }
AK_SIMD_INLINE int md_count(md m) { return __builtin_popcount(md_bits(m)); }

/* Tails of 16-bit storage go through a small zeroed buffer: they are read once per row, never in a hot loop. */
#define AK_FIRST_FROM_BUFFER(name, V, T, lanes, load)                                \
    AK_SIMD_INLINE V name(const T *p, int n)                                         \
    {                                                                                \
        T buffer[lanes] = {0};                                                       \
        memcpy(buffer, p, (size_t)n * sizeof(T));                                    \
        return load(buffer);                                                         \
    }
AK_FIRST_FROM_BUFFER(vf_load_f16_first, vf, uint16_t, VF_LANES, vf_load_f16)
AK_FIRST_FROM_BUFFER(vf_load_bf16_first, vf, uint16_t, VF_LANES, vf_load_bf16)
AK_FIRST_FROM_BUFFER(vd_load_f16_first, vd, uint16_t, VD_LANES, vd_load_f16)
AK_FIRST_FROM_BUFFER(vd_load_bf16_first, vd, uint16_t, VD_LANES, vd_load_bf16)
AK_FIRST_FROM_BUFFER(vd_load_f32_first, vd, float, VD_LANES, vd_load_f32)
#undef AK_FIRST_FROM_BUFFER

AK_SIMD_INLINE void vf_store_f16_first(uint16_t *p, vf x, int n)
{
    uint16_t buffer[VF_LANES];
    vf_store_f16(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}

AK_SIMD_INLINE void vf_store_bf16_first(uint16_t *p, vf x, int n)
{
    uint16_t buffer[VF_LANES];
    vf_store_bf16(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}

#endif
