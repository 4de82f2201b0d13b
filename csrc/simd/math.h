/* Elementary functions on the virtual vector. Written once in math_body.h, expanded here for float and double.
 *
 * Largest error over all inputs (float32: every input; float64: samples and hard cases) is below 1 ULP for each;
 * docs/numerics.md has the table. No tables, no data-dependent branches, the same bytes on every target. NaN results
 * of exp, exp2, log, log1p and tanh are the one pattern of vf_canonical; zeros keep their sign where the function
 * has one (log1p, tanh).
 *
 * The file is not <math.h>: it is always included as "math.h" from this folder or as "simd/math.h". */
#ifndef AK_SIMD_MATH_H
#define AK_SIMD_MATH_H

#include "polynomials.h"
#include "simd.h"

#define AK_V vf
#define AK_M mf
#define AK_S float
#define AK_FN(name) vf_##name
#define AK_K(name) AK_F32_##name
#define AK_TABLE(name) ak_f32_##name
#define AK_ROUNDER 0x1.8p23f /* x + ROUNDER - ROUNDER rounds |x| < 2^22 to an integer */
#define AK_BIAS 127.0f
#define AK_MIN_NORMAL 0x1p-126f
#define AK_NAN ak_f32_from_bits(AK_F32_NAN_BITS)
#define AK_EXP_RANGE -104.0f, 89.0f
#define AK_EXP2_RANGE -151.0f, 129.0f
#define AK_TANH_ONE 9.1f /* from here on tanh rounds to 1 */
#include "math_body.h"

#define AK_V vd
#define AK_M md
#define AK_S double
#define AK_FN(name) vd_##name
#define AK_K(name) AK_F64_##name
#define AK_TABLE(name) ak_f64_##name
#define AK_ROUNDER 0x1.8p52
#define AK_BIAS 1023.0
#define AK_MIN_NORMAL 0x1p-1022
#define AK_NAN ak_f64_from_bits(AK_F64_NAN_BITS)
#define AK_EXP_RANGE -746.0, 710.0
#define AK_EXP2_RANGE -1076.0, 1025.0
#define AK_TANH_ONE 19.1
#include "math_body.h"

#endif
