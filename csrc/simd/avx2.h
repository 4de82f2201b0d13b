/* AVX2 + FMA + F16C: a virtual vector is a pair of 256-bit registers. Contract: simd.h. */
#ifndef AK_SIMD_AVX2_H
#define AK_SIMD_AVX2_H

#include <immintrin.h>

typedef struct { __m256 lo, hi; } vf;
typedef struct { __m256d lo, hi; } vd;
typedef struct { __m256 lo, hi; } mf; /* all ones or all zeros per lane */
typedef struct { __m256d lo, hi; } md;

#define AK_UNARY(name, R, V, low, high)                                              \
    AK_SIMD_INLINE R name(V a) { return (R){low, high}; }
#define AK_BINARY(name, R, V, op)                                                    \
    AK_SIMD_INLINE R name(V a, V b) { return (R){op(a.lo, b.lo), op(a.hi, b.hi)}; }
#define AK_TERNARY(name, V, op)                                                      \
    AK_SIMD_INLINE V name(V a, V b, V c)                                             \
    {                                                                                \
        return (V){op(a.lo, b.lo, c.lo), op(a.hi, b.hi, c.hi)};                      \
    }
#define AK_COMPARE(name, M, V, cmp, predicate)                                       \
    AK_SIMD_INLINE M name(V a, V b)                                                  \
    {                                                                                \
        return (M){cmp(a.lo, b.lo, predicate), cmp(a.hi, b.hi, predicate)};          \
    }

/* Constants, loads, stores. */
AK_SIMD_INLINE vf vf_zero(void) { return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
AK_SIMD_INLINE vd vd_zero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
AK_SIMD_INLINE vf vf_set1(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
AK_SIMD_INLINE vd vd_set1(double x) { return (vd){_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
AK_SIMD_INLINE vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
AK_SIMD_INLINE vd vd_load(const double *p) { return (vd){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }

AK_SIMD_INLINE void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
}

AK_SIMD_INLINE void vd_store(double *p, vd x)
{
    _mm256_storeu_pd(p, x.lo);
    _mm256_storeu_pd(p + 4, x.hi);
}

AK_SIMD_INLINE vf vf_iota(void)
{
    return (vf){_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
}

AK_SIMD_INLINE vd vd_iota(void)
{
    return (vd){_mm256_setr_pd(0, 1, 2, 3), _mm256_setr_pd(4, 5, 6, 7)};
}

/* Masked moves neither read nor fault beyond the first n elements. */
AK_SIMD_INLINE __m256i ak_first_epi32(int n, int base)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - base), lane);
}

AK_SIMD_INLINE __m256i ak_first_epi64(int n, int base)
{
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n - base), lane);
}

AK_SIMD_INLINE vf vf_load_first(const float *p, int n)
{
    return (vf){_mm256_maskload_ps(p, ak_first_epi32(n, 0)), _mm256_maskload_ps(p + 8, ak_first_epi32(n, 8))};
}

AK_SIMD_INLINE vd vd_load_first(const double *p, int n)
{
    return (vd){_mm256_maskload_pd(p, ak_first_epi64(n, 0)), _mm256_maskload_pd(p + 4, ak_first_epi64(n, 4))};
}

AK_SIMD_INLINE void vf_store_first(float *p, vf x, int n)
{
    _mm256_maskstore_ps(p, ak_first_epi32(n, 0), x.lo);
    _mm256_maskstore_ps(p + 8, ak_first_epi32(n, 8), x.hi);
}

AK_SIMD_INLINE void vd_store_first(double *p, vd x, int n)
{
    _mm256_maskstore_pd(p, ak_first_epi64(n, 0), x.lo);
    _mm256_maskstore_pd(p + 4, ak_first_epi64(n, 4), x.hi);
}

/* Arithmetic. */
AK_BINARY(vf_add, vf, vf, _mm256_add_ps)
AK_BINARY(vd_add, vd, vd, _mm256_add_pd)
AK_BINARY(vf_sub, vf, vf, _mm256_sub_ps)
AK_BINARY(vd_sub, vd, vd, _mm256_sub_pd)
AK_BINARY(vf_mul, vf, vf, _mm256_mul_ps)
AK_BINARY(vd_mul, vd, vd, _mm256_mul_pd)
AK_BINARY(vf_div, vf, vf, _mm256_div_ps)
AK_BINARY(vd_div, vd, vd, _mm256_div_pd)
AK_BINARY(vf_max, vf, vf, _mm256_max_ps)
AK_BINARY(vd_max, vd, vd, _mm256_max_pd)
AK_BINARY(vf_min, vf, vf, _mm256_min_ps)
AK_BINARY(vd_min, vd, vd, _mm256_min_pd)
AK_TERNARY(vf_fma, vf, _mm256_fmadd_ps)
AK_TERNARY(vd_fma, vd, _mm256_fmadd_pd)
AK_TERNARY(vf_fnma, vf, _mm256_fnmadd_ps)
AK_TERNARY(vd_fnma, vd, _mm256_fnmadd_pd)
AK_UNARY(vf_sqrt, vf, vf, _mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi))
AK_UNARY(vd_sqrt, vd, vd, _mm256_sqrt_pd(a.lo), _mm256_sqrt_pd(a.hi))

AK_SIMD_INLINE vf vf_neg(vf a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vf){_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

AK_SIMD_INLINE vd vd_neg(vd a)
{
    const __m256d sign = _mm256_set1_pd(-0.0);
    return (vd){_mm256_xor_pd(a.lo, sign), _mm256_xor_pd(a.hi, sign)};
}

AK_SIMD_INLINE vf vf_abs(vf a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vf){_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

AK_SIMD_INLINE vd vd_abs(vd a)
{
    const __m256d sign = _mm256_set1_pd(-0.0);
    return (vd){_mm256_andnot_pd(sign, a.lo), _mm256_andnot_pd(sign, a.hi)};
}

/* Comparisons and masks. */
AK_COMPARE(vf_eq, mf, vf, _mm256_cmp_ps, _CMP_EQ_OQ)
AK_COMPARE(vd_eq, md, vd, _mm256_cmp_pd, _CMP_EQ_OQ)
AK_COMPARE(vf_ne, mf, vf, _mm256_cmp_ps, _CMP_NEQ_UQ)
AK_COMPARE(vd_ne, md, vd, _mm256_cmp_pd, _CMP_NEQ_UQ)
AK_COMPARE(vf_lt, mf, vf, _mm256_cmp_ps, _CMP_LT_OQ)
AK_COMPARE(vd_lt, md, vd, _mm256_cmp_pd, _CMP_LT_OQ)
AK_COMPARE(vf_le, mf, vf, _mm256_cmp_ps, _CMP_LE_OQ)
AK_COMPARE(vd_le, md, vd, _mm256_cmp_pd, _CMP_LE_OQ)
AK_COMPARE(vf_gt, mf, vf, _mm256_cmp_ps, _CMP_GT_OQ)
AK_COMPARE(vd_gt, md, vd, _mm256_cmp_pd, _CMP_GT_OQ)
AK_COMPARE(vf_ge, mf, vf, _mm256_cmp_ps, _CMP_GE_OQ)
AK_COMPARE(vd_ge, md, vd, _mm256_cmp_pd, _CMP_GE_OQ)
AK_SIMD_INLINE mf vf_isnan(vf a) { return vf_ne(a, a); }
AK_SIMD_INLINE md vd_isnan(vd a) { return vd_ne(a, a); }

AK_BINARY(mf_and, mf, mf, _mm256_and_ps)
AK_BINARY(md_and, md, md, _mm256_and_pd)
AK_BINARY(mf_or, mf, mf, _mm256_or_ps)
AK_BINARY(md_or, md, md, _mm256_or_pd)
AK_BINARY(mf_andnot, mf, mf, _mm256_andnot_ps)
AK_BINARY(md_andnot, md, md, _mm256_andnot_pd)

AK_SIMD_INLINE mf mf_not(mf a)
{
    const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return (mf){_mm256_xor_ps(a.lo, ones), _mm256_xor_ps(a.hi, ones)};
}

AK_SIMD_INLINE md md_not(md a)
{
    const __m256d ones = _mm256_castsi256_pd(_mm256_set1_epi32(-1));
    return (md){_mm256_xor_pd(a.lo, ones), _mm256_xor_pd(a.hi, ones)};
}

AK_SIMD_INLINE vf vf_select(mf m, vf a, vf b)
{
    return (vf){_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}

AK_SIMD_INLINE vd vd_select(md m, vd a, vd b)
{
    return (vd){_mm256_blendv_pd(b.lo, a.lo, m.lo), _mm256_blendv_pd(b.hi, a.hi, m.hi)};
}

AK_SIMD_INLINE vf vf_and_mask(mf m, vf a)
{
    return (vf){_mm256_and_ps(m.lo, a.lo), _mm256_and_ps(m.hi, a.hi)};
}

AK_SIMD_INLINE vd vd_and_mask(md m, vd a)
{
    return (vd){_mm256_and_pd(m.lo, a.lo), _mm256_and_pd(m.hi, a.hi)};
}

AK_SIMD_INLINE uint32_t mf_bits(mf m)
{
    return (uint32_t)_mm256_movemask_ps(m.lo) | (uint32_t)_mm256_movemask_ps(m.hi) << 8;
}

AK_SIMD_INLINE uint32_t md_bits(md m)
{
    return (uint32_t)_mm256_movemask_pd(m.lo) | (uint32_t)_mm256_movemask_pd(m.hi) << 4;
}

AK_SIMD_INLINE mf mf_from_bits(uint32_t bits)
{
    const __m256i all = _mm256_set1_epi32((int)bits);
    const __m256i lo = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i hi = _mm256_slli_epi32(lo, 8);
    return (mf){_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, lo), lo)),
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, hi), hi))};
}

AK_SIMD_INLINE md md_from_bits(uint32_t bits)
{
    const __m256i all = _mm256_set1_epi64x(bits);
    const __m256i lo = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i hi = _mm256_slli_epi64(lo, 4);
    return (md){_mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(all, lo), lo)),
                _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(all, hi), hi))};
}

/* Reductions over the lanes, by the fixed tree. */
#define AK_FOLD(op8, op4, op1)                                                       \
    const __m256 t8 = op8(x.lo, x.hi);                                               \
    const __m128 t4 = op4(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1)); \
    const __m128 t2 = op4(t4, _mm_movehl_ps(t4, t4));                                \
    return _mm_cvtss_f32(op1(t2, _mm_shuffle_ps(t2, t2, 1)))
AK_SIMD_INLINE float vf_hsum(vf x) { AK_FOLD(_mm256_add_ps, _mm_add_ps, _mm_add_ss); }
AK_SIMD_INLINE float vf_hmax(vf x) { AK_FOLD(_mm256_max_ps, _mm_max_ps, _mm_max_ss); }
#undef AK_FOLD

#define AK_FOLD(op4, op2, op1)                                                       \
    const __m256d t4 = op4(x.lo, x.hi);                                              \
    const __m128d t2 = op2(_mm256_castpd256_pd128(t4), _mm256_extractf128_pd(t4, 1)); \
    return _mm_cvtsd_f64(op1(t2, _mm_unpackhi_pd(t2, t2)))
AK_SIMD_INLINE double vd_hsum(vd x) { AK_FOLD(_mm256_add_pd, _mm_add_pd, _mm_add_sd); }
AK_SIMD_INLINE double vd_hmax(vd x) { AK_FOLD(_mm256_max_pd, _mm_max_pd, _mm_max_sd); }
#undef AK_FOLD

/* Bits: exponents and canonical values. */
AK_SIMD_INLINE __m256 ak_scale_exp_ps(__m256 p, __m256 t)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}

AK_SIMD_INLINE __m256d ak_scale_exp_pd(__m256d p, __m256d t)
{
    return _mm256_castsi256_pd(
        _mm256_add_epi64(_mm256_castpd_si256(p), _mm256_slli_epi64(_mm256_castpd_si256(t), 52)));
}

/* bits(p) + (bits(t) << 23): with t = n + 1.5 * 2^23 this is p * 2^n while the exponent stays in range. */
AK_BINARY(vf_scale_exp, vf, vf, ak_scale_exp_ps)
AK_BINARY(vd_scale_exp, vd, vd, ak_scale_exp_pd)

/* bits(t) << 23 as a float: with t = n + 127 + 1.5 * 2^23 this is 2^n, and +0 for n = -127. */
AK_UNARY(vf_pow2_from_bits, vf, vf, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.lo), 23)),
         _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.hi), 23)))
AK_UNARY(vd_pow2_from_bits, vd, vd, _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.lo), 52)),
         _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.hi), 52)))

AK_SIMD_INLINE __m256 ak_split_exp_ps(__m256 x, __m256 *m)
{
    const __m256i root = _mm256_set1_epi32((int)AK_F32_SQRT_HALF_BITS);
    const __m256i u =
        _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32((int)(0x3f800000u - AK_F32_SQRT_HALF_BITS)));
    *m = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x007fffff)), root));
    /* The biased exponent in the low bits of 2^23 is a float already. */
    const __m256i biased = _mm256_or_si256(_mm256_srli_epi32(u, 23), _mm256_set1_epi32(0x4b000000));
    return _mm256_sub_ps(_mm256_castsi256_ps(biased), _mm256_set1_ps(0x1p23f + 127.0f));
}

AK_SIMD_INLINE __m256d ak_split_exp_pd(__m256d x, __m256d *m)
{
    const __m256i root = _mm256_set1_epi64x((long long)AK_F64_SQRT_HALF_BITS);
    const __m256i u = _mm256_add_epi64(
        _mm256_castpd_si256(x), _mm256_set1_epi64x((long long)(0x3ff0000000000000ull - AK_F64_SQRT_HALF_BITS)));
    *m = _mm256_castsi256_pd(
        _mm256_add_epi64(_mm256_and_si256(u, _mm256_set1_epi64x(0x000fffffffffffffll)), root));
    const __m256i biased = _mm256_or_si256(_mm256_srli_epi64(u, 52), _mm256_set1_epi64x(0x4330000000000000ll));
    return _mm256_sub_pd(_mm256_castsi256_pd(biased), _mm256_set1_pd(0x1p52 + 1023.0));
}

/* x = m * 2^k with m in [sqrt(1/2), sqrt(2)), for positive normal finite x; returns k. */
AK_SIMD_INLINE vf vf_split_exp(vf x, vf *m)
{
    vf k;
    k.lo = ak_split_exp_ps(x.lo, &m->lo);
    k.hi = ak_split_exp_ps(x.hi, &m->hi);
    return k;
}

AK_SIMD_INLINE vd vd_split_exp(vd x, vd *m)
{
    vd k;
    k.lo = ak_split_exp_pd(x.lo, &m->lo);
    k.hi = ak_split_exp_pd(x.hi, &m->hi);
    return k;
}

AK_SIMD_INLINE __m256 ak_one_nan_ps(__m256 x)
{
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32((int)AK_F32_NAN_BITS));
    return _mm256_blendv_ps(x, nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

AK_SIMD_INLINE __m256d ak_one_nan_pd(__m256d x)
{
    const __m256d nan = _mm256_castsi256_pd(_mm256_set1_epi64x((long long)AK_F64_NAN_BITS));
    return _mm256_blendv_pd(x, nan, _mm256_cmp_pd(x, x, _CMP_UNORD_Q));
}

AK_UNARY(vf_canonical, vf, vf, ak_one_nan_ps(_mm256_add_ps(a.lo, _mm256_setzero_ps())),
         ak_one_nan_ps(_mm256_add_ps(a.hi, _mm256_setzero_ps())))
AK_UNARY(vd_canonical, vd, vd, ak_one_nan_pd(_mm256_add_pd(a.lo, _mm256_setzero_pd())),
         ak_one_nan_pd(_mm256_add_pd(a.hi, _mm256_setzero_pd())))

/* Narrow storage. */
AK_SIMD_INLINE __m128i ak_load_8x16(const uint16_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
AK_SIMD_INLINE void ak_store_8x16(uint16_t *p, __m128i x) { _mm_storeu_si128((__m128i *)(void *)p, x); }

AK_SIMD_INLINE __m256 ak_bf16_to_ps(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

AK_SIMD_INLINE vd ak_ps_to_vd(__m256 x)
{
    return (vd){_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))};
}

AK_SIMD_INLINE vf vf_load_f16(const uint16_t *p)
{
    return (vf){_mm256_cvtph_ps(ak_load_8x16(p)), _mm256_cvtph_ps(ak_load_8x16(p + 8))};
}

AK_SIMD_INLINE vf vf_load_bf16(const uint16_t *p)
{
    return (vf){ak_bf16_to_ps(ak_load_8x16(p)), ak_bf16_to_ps(ak_load_8x16(p + 8))};
}

AK_SIMD_INLINE vd vd_load_f32(const float *p)
{
    return (vd){_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))};
}

AK_SIMD_INLINE vd vd_load_f16(const uint16_t *p) { return ak_ps_to_vd(_mm256_cvtph_ps(ak_load_8x16(p))); }
AK_SIMD_INLINE vd vd_load_bf16(const uint16_t *p) { return ak_ps_to_vd(ak_bf16_to_ps(ak_load_8x16(p))); }

AK_SIMD_INLINE void vf_store_f16(uint16_t *p, vf x)
{
    ak_store_8x16(p, _mm256_cvtps_ph(ak_one_nan_ps(x.lo), _MM_FROUND_TO_NEAREST_INT));
    ak_store_8x16(p + 8, _mm256_cvtps_ph(ak_one_nan_ps(x.hi), _MM_FROUND_TO_NEAREST_INT));
}

AK_SIMD_INLINE __m256i ak_round_bf16(__m256 x)
{
    const __m256i bits = _mm256_castps_si256(ak_one_nan_ps(x));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    return _mm256_srli_epi32(rounded, 16);
}

AK_SIMD_INLINE void vf_store_bf16(uint16_t *p, vf x)
{
    const __m256i pairs = _mm256_packus_epi32(ak_round_bf16(x.lo), ak_round_bf16(x.hi));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(pairs, 0xd8));
}

/* Transposes. Halves of two rows are joined by the load (a memory operand costs no shuffle); what remains are 4x4
 * (2x2) transposes inside 128-bit lanes. */
AK_SIMD_INLINE __m256 ak_join_ps(const float *low, const float *high)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}

AK_SIMD_INLINE void ak_transpose_8x4(const float *src, ptrdiff_t stride, float *dst)
{
    const __m256 r0 = ak_join_ps(src, src + 4 * stride);
    const __m256 r1 = ak_join_ps(src + stride, src + 5 * stride);
    const __m256 r2 = ak_join_ps(src + 2 * stride, src + 6 * stride);
    const __m256 r3 = ak_join_ps(src + 3 * stride, src + 7 * stride);
    const __m256 a0 = _mm256_unpacklo_ps(r0, r1), a1 = _mm256_unpackhi_ps(r0, r1);
    const __m256 b0 = _mm256_unpacklo_ps(r2, r3), b1 = _mm256_unpackhi_ps(r2, r3);
    _mm256_storeu_ps(dst, _mm256_shuffle_ps(a0, b0, 0x44));
    _mm256_storeu_ps(dst + 16, _mm256_shuffle_ps(a0, b0, 0xee));
    _mm256_storeu_ps(dst + 32, _mm256_shuffle_ps(a1, b1, 0x44));
    _mm256_storeu_ps(dst + 48, _mm256_shuffle_ps(a1, b1, 0xee));
}

/* dst[c * 16 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vf_transpose(const float *src, ptrdiff_t stride, float *dst)
{
    for (int c = 0; c < 16; c += 4) {
        ak_transpose_8x4(src + c, stride, dst + c * 16);
        ak_transpose_8x4(src + 8 * stride + c, stride, dst + c * 16 + 8);
    }
}

AK_SIMD_INLINE __m256d ak_join_pd(const double *low, const double *high)
{
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(low)), _mm_loadu_pd(high), 1);
}

/* dst[c * 8 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vd_transpose(const double *src, ptrdiff_t stride, double *dst)
{
    for (int c = 0; c < 8; c += 2) {
        for (int r = 0; r < 8; r += 4) {
            const double *corner = src + r * stride + c;
            const __m256d r0 = ak_join_pd(corner, corner + 2 * stride);
            const __m256d r1 = ak_join_pd(corner + stride, corner + 3 * stride);
            _mm256_storeu_pd(dst + c * 8 + r, _mm256_unpacklo_pd(r0, r1));
            _mm256_storeu_pd(dst + (c + 1) * 8 + r, _mm256_unpackhi_pd(r0, r1));
        }
    }
}

#undef AK_UNARY
#undef AK_BINARY
#undef AK_TERNARY
#undef AK_COMPARE

#endif
