/* What all kernel headers of a target share; free of the real type. */
#ifndef AK_KERNELS_COMMON_H
#define AK_KERNELS_COMMON_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "../simd/simd.h"
#include "../simd/half.h"
#include "../simd/math.h"
#include "kernels.h"

#if defined(AK_TARGET_GENERIC)
#define AK_INLINE static inline
#else
#define AK_INLINE static inline __attribute__((always_inline))
#endif

/* Unroll the next loop whole: its bounds are constants after inlining, and its arrays must become registers. */
#if defined(AK_TARGET_GENERIC)
#define AK_UNROLL /* no registers to fill: fma is a call there, and unrolling it took the compiler a minute */
#elif defined(__clang__)
#define AK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define AK_UNROLL _Pragma("GCC unroll 12")
#endif

/* Register blocks: `AK_PANELS` panels of VL lanes times `AK_ROWS(panels)` rows fill the registers of the target.
 * AVX-512 has 32 registers of one vector, AVX2 16 of half a vector, AArch64 32 of a quarter. */
#if defined(AK_TARGET_AVX512)
#define AK_PANELS 4
#else
#define AK_PANELS 1
#endif

/* Scores are weighed in units of ln 16: a difference x weighs 16^-x, and one unit is larger than a natural one, so that a
 * finite score stays finite in them. */
#define AK_LOG16E 0.36067376022224085184
#define AK_LN16 2.7725887222397812377

static inline int ak_min_int(int a, int b) { return a < b ? a : b; }
static inline int ak_max_int(int a, int b) { return a > b ? a : b; }
static inline int ak_ceil_div(int a, int b) { return (a + b - 1) / b; }
#endif
