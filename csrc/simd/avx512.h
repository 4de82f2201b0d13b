/* AVX-512 (F, BW, DQ, VL): a virtual vector is one 512-bit register, a lane mask one mask register. Contract: simd.h.
 *
 * Tests put tests/csrc/avx512_emulated.h in front, which gives the intrinsics other meanings, and run the same text on
 * any x86 processor. */
#ifndef AK_SIMD_AVX512_H
#define AK_SIMD_AVX512_H

#ifndef AK_EMULATE_AVX512
#include <immintrin.h>
#endif

typedef __m512 vf;
typedef __m512d vd;
typedef __mmask16 mf;
typedef __mmask8 md;

#define AK_UNARY(name, R, V, expression)                                             \
    AK_SIMD_INLINE R name(V a) { return expression; }
#define AK_BINARY(name, R, V, expression)                                            \
    AK_SIMD_INLINE R name(V a, V b) { return expression; }
#define AK_TERNARY(name, V, expression)                                              \
    AK_SIMD_INLINE V name(V a, V b, V c) { return expression; }

/* Constants, loads, stores. Masked moves neither read nor fault beyond the first n elements. */
AK_SIMD_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
AK_SIMD_INLINE vd vd_zero(void) { return _mm512_setzero_pd(); }
AK_SIMD_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
AK_SIMD_INLINE vd vd_set1(double x) { return _mm512_set1_pd(x); }
AK_SIMD_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
AK_SIMD_INLINE vd vd_load(const double *p) { return _mm512_loadu_pd(p); }
AK_SIMD_INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
AK_SIMD_INLINE void vd_store(double *p, vd x) { _mm512_storeu_pd(p, x); }

AK_SIMD_INLINE vf vf_iota(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

AK_SIMD_INLINE vd vd_iota(void) { return _mm512_setr_pd(0, 1, 2, 3, 4, 5, 6, 7); }
AK_SIMD_INLINE mf ak_first_of_16(int n) { return (mf)((1u << n) - 1u); }
AK_SIMD_INLINE md ak_first_of_8(int n) { return (md)((1u << n) - 1u); }

AK_SIMD_INLINE vf vf_load_first(const float *p, int n) { return _mm512_maskz_loadu_ps(ak_first_of_16(n), p); }
AK_SIMD_INLINE vd vd_load_first(const double *p, int n) { return _mm512_maskz_loadu_pd(ak_first_of_8(n), p); }
AK_SIMD_INLINE void vf_store_first(float *p, vf x, int n) { _mm512_mask_storeu_ps(p, ak_first_of_16(n), x); }
AK_SIMD_INLINE void vd_store_first(double *p, vd x, int n) { _mm512_mask_storeu_pd(p, ak_first_of_8(n), x); }

/* Arithmetic. */
AK_BINARY(vf_add, vf, vf, _mm512_add_ps(a, b))
AK_BINARY(vd_add, vd, vd, _mm512_add_pd(a, b))
AK_BINARY(vf_sub, vf, vf, _mm512_sub_ps(a, b))
AK_BINARY(vd_sub, vd, vd, _mm512_sub_pd(a, b))
AK_BINARY(vf_mul, vf, vf, _mm512_mul_ps(a, b))
AK_BINARY(vd_mul, vd, vd, _mm512_mul_pd(a, b))
AK_BINARY(vf_div, vf, vf, _mm512_div_ps(a, b))
AK_BINARY(vd_div, vd, vd, _mm512_div_pd(a, b))
AK_BINARY(vf_max, vf, vf, _mm512_max_ps(a, b))
AK_BINARY(vd_max, vd, vd, _mm512_max_pd(a, b))
AK_BINARY(vf_min, vf, vf, _mm512_min_ps(a, b))
AK_BINARY(vd_min, vd, vd, _mm512_min_pd(a, b))
AK_TERNARY(vf_fma, vf, _mm512_fmadd_ps(a, b, c))
AK_TERNARY(vd_fma, vd, _mm512_fmadd_pd(a, b, c))
AK_TERNARY(vf_fnma, vf, _mm512_fnmadd_ps(a, b, c))
AK_TERNARY(vd_fnma, vd, _mm512_fnmadd_pd(a, b, c))
AK_UNARY(vf_sqrt, vf, vf, _mm512_sqrt_ps(a))
AK_UNARY(vd_sqrt, vd, vd, _mm512_sqrt_pd(a))
AK_UNARY(vf_neg, vf, vf, _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)))
AK_UNARY(vd_neg, vd, vd, _mm512_xor_pd(a, _mm512_set1_pd(-0.0)))
AK_UNARY(vf_abs, vf, vf, _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a))
AK_UNARY(vd_abs, vd, vd, _mm512_andnot_pd(_mm512_set1_pd(-0.0), a))

/* Comparisons and masks. */
AK_BINARY(vf_eq, mf, vf, _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ))
AK_BINARY(vd_eq, md, vd, _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ))
AK_BINARY(vf_ne, mf, vf, _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ))
AK_BINARY(vd_ne, md, vd, _mm512_cmp_pd_mask(a, b, _CMP_NEQ_UQ))
AK_BINARY(vf_lt, mf, vf, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ))
AK_BINARY(vd_lt, md, vd, _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ))
AK_BINARY(vf_le, mf, vf, _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ))
AK_BINARY(vd_le, md, vd, _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ))
AK_BINARY(vf_gt, mf, vf, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ))
AK_BINARY(vd_gt, md, vd, _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ))
AK_BINARY(vf_ge, mf, vf, _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ))
AK_BINARY(vd_ge, md, vd, _mm512_cmp_pd_mask(a, b, _CMP_GE_OQ))
AK_SIMD_INLINE mf vf_isnan(vf a) { return vf_ne(a, a); }
AK_SIMD_INLINE md vd_isnan(vd a) { return vd_ne(a, a); }
AK_BINARY(mf_and, mf, mf, (mf)(a & b))
AK_BINARY(md_and, md, md, (md)(a & b))
AK_BINARY(mf_or, mf, mf, (mf)(a | b))
AK_BINARY(md_or, md, md, (md)(a | b))
AK_BINARY(mf_andnot, mf, mf, (mf)(~a & b))
AK_BINARY(md_andnot, md, md, (md)(~a & b))
AK_UNARY(mf_not, mf, mf, (mf)~a)
AK_UNARY(md_not, md, md, (md)~a)
AK_SIMD_INLINE uint32_t mf_bits(mf m) { return m; }
AK_SIMD_INLINE uint32_t md_bits(md m) { return m; }
AK_SIMD_INLINE mf mf_from_bits(uint32_t bits) { return (mf)bits; }
AK_SIMD_INLINE md md_from_bits(uint32_t bits) { return (md)bits; }
AK_SIMD_INLINE vf vf_select(mf m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
AK_SIMD_INLINE vd vd_select(md m, vd a, vd b) { return _mm512_mask_blend_pd(m, b, a); }
AK_SIMD_INLINE vf vf_and_mask(mf m, vf a) { return _mm512_maskz_mov_ps(m, a); }
AK_SIMD_INLINE vd vd_and_mask(md m, vd a) { return _mm512_maskz_mov_pd(m, a); }

/* Reductions over the lanes, by the fixed tree. */
AK_SIMD_INLINE __m256 ak_upper_ps(vf x)
{
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
}

#define AK_FOLD(op8, op4, op1)                                                       \
    const __m256 t8 = op8(_mm512_castps512_ps256(x), ak_upper_ps(x));                \
    const __m128 t4 = op4(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1)); \
    const __m128 t2 = op4(t4, _mm_movehl_ps(t4, t4));                                \
    return _mm_cvtss_f32(op1(t2, _mm_shuffle_ps(t2, t2, 1)))
AK_SIMD_INLINE float vf_hsum(vf x) { AK_FOLD(_mm256_add_ps, _mm_add_ps, _mm_add_ss); }
AK_SIMD_INLINE float vf_hmax(vf x) { AK_FOLD(_mm256_max_ps, _mm_max_ps, _mm_max_ss); }
#undef AK_FOLD

#define AK_FOLD(op4, op2, op1)                                                       \
    const __m256d t4 = op4(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1)); \
    const __m128d t2 = op2(_mm256_castpd256_pd128(t4), _mm256_extractf128_pd(t4, 1)); \
    return _mm_cvtsd_f64(op1(t2, _mm_unpackhi_pd(t2, t2)))
AK_SIMD_INLINE double vd_hsum(vd x) { AK_FOLD(_mm256_add_pd, _mm_add_pd, _mm_add_sd); }
AK_SIMD_INLINE double vd_hmax(vd x) { AK_FOLD(_mm256_max_pd, _mm_max_pd, _mm_max_sd); }
#undef AK_FOLD

/* Bits: exponents and canonical values. */
AK_SIMD_INLINE __m512i ak_shift_exponent_epi32(vf t) { return _mm512_slli_epi32(_mm512_castps_si512(t), 23); }
AK_SIMD_INLINE __m512i ak_shift_exponent_epi64(vd t) { return _mm512_slli_epi64(_mm512_castpd_si512(t), 52); }

/* bits(p) + (bits(t) << 23): with t = n + 1.5 * 2^23 this is p * 2^n while the exponent stays in range. */
AK_BINARY(vf_scale_exp, vf, vf,
          _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), ak_shift_exponent_epi32(b))))
AK_BINARY(vd_scale_exp, vd, vd,
          _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a), ak_shift_exponent_epi64(b))))

/* bits(t) << 23 as a float: with t = n + 127 + 1.5 * 2^23 this is 2^n, and +0 for n = -127. */
AK_UNARY(vf_pow2_from_bits, vf, vf, _mm512_castsi512_ps(ak_shift_exponent_epi32(a)))
AK_UNARY(vd_pow2_from_bits, vd, vd, _mm512_castsi512_pd(ak_shift_exponent_epi64(a)))

/* x = m * 2^k with m in [sqrt(1/2), sqrt(2)), for positive normal finite x; returns k. */
AK_SIMD_INLINE vf vf_split_exp(vf x, vf *m)
{
    const __m512i root = _mm512_set1_epi32((int)AK_F32_SQRT_HALF_BITS);
    const __m512i u =
        _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32((int)(0x3f800000u - AK_F32_SQRT_HALF_BITS)));
    *m = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_and_si512(u, _mm512_set1_epi32(0x007fffff)), root));
    /* The biased exponent in the low bits of 2^23 is a float already. */
    const __m512i biased = _mm512_or_si512(_mm512_srli_epi32(u, 23), _mm512_set1_epi32(0x4b000000));
    return _mm512_sub_ps(_mm512_castsi512_ps(biased), _mm512_set1_ps(0x1p23f + 127.0f));
}

AK_SIMD_INLINE vd vd_split_exp(vd x, vd *m)
{
    const __m512i root = _mm512_set1_epi64((long long)AK_F64_SQRT_HALF_BITS);
    const __m512i u = _mm512_add_epi64(
        _mm512_castpd_si512(x), _mm512_set1_epi64((long long)(0x3ff0000000000000ull - AK_F64_SQRT_HALF_BITS)));
    *m = _mm512_castsi512_pd(
        _mm512_add_epi64(_mm512_and_si512(u, _mm512_set1_epi64(0x000fffffffffffffll)), root));
    const __m512i biased = _mm512_or_si512(_mm512_srli_epi64(u, 52), _mm512_set1_epi64(0x4330000000000000ll));
    return _mm512_sub_pd(_mm512_castsi512_pd(biased), _mm512_set1_pd(0x1p52 + 1023.0));
}

AK_SIMD_INLINE vf ak_one_nan_ps(vf x)
{
    return vf_select(vf_isnan(x), _mm512_castsi512_ps(_mm512_set1_epi32((int)AK_F32_NAN_BITS)), x);
}

AK_SIMD_INLINE vd ak_one_nan_pd(vd x)
{
    return vd_select(vd_isnan(x), _mm512_castsi512_pd(_mm512_set1_epi64((long long)AK_F64_NAN_BITS)), x);
}

AK_UNARY(vf_canonical, vf, vf, ak_one_nan_ps(_mm512_add_ps(a, _mm512_setzero_ps())))
AK_UNARY(vd_canonical, vd, vd, ak_one_nan_pd(_mm512_add_pd(a, _mm512_setzero_pd())))

/* Narrow storage. */
AK_SIMD_INLINE __m256i ak_load_16x16(const uint16_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

AK_SIMD_INLINE __m128i ak_load_8x16(const uint16_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }

AK_SIMD_INLINE vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(ak_load_16x16(p)); }

AK_SIMD_INLINE vf vf_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(ak_load_16x16(p)), 16));
}

AK_SIMD_INLINE vd vd_load_f32(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
AK_SIMD_INLINE vd vd_load_f16(const uint16_t *p) { return _mm512_cvtps_pd(_mm256_cvtph_ps(ak_load_8x16(p))); }

AK_SIMD_INLINE vd vd_load_bf16(const uint16_t *p)
{
    return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(ak_load_8x16(p)), 16)));
}

AK_SIMD_INLINE void vf_store_f16(uint16_t *p, vf x)
{
    const __m256i h = _mm512_cvtps_ph(ak_one_nan_ps(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256((__m256i *)(void *)p, h);
}

AK_SIMD_INLINE void vf_store_bf16(uint16_t *p, vf x)
{
    const __m512i bits = _mm512_castps_si512(ak_one_nan_ps(x));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

/* Transposes. Quarters of four rows are joined by loads (a memory operand costs no shuffle); what remains are 4x4
 * (2x2) transposes inside 128-bit lanes. */
AK_SIMD_INLINE vf ak_join_ps(const float *p, ptrdiff_t step)
{
    vf x = _mm512_castps128_ps512(_mm_loadu_ps(p));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(p + step), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 2 * step), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(p + 3 * step), 3);
}

/* dst[c * 16 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vf_transpose(const float *src, ptrdiff_t stride, float *dst)
{
    for (int c = 0; c < 16; c += 4) {
        const vf r0 = ak_join_ps(src + c, 4 * stride);
        const vf r1 = ak_join_ps(src + c + stride, 4 * stride);
        const vf r2 = ak_join_ps(src + c + 2 * stride, 4 * stride);
        const vf r3 = ak_join_ps(src + c + 3 * stride, 4 * stride);
        const vf a0 = _mm512_unpacklo_ps(r0, r1), a1 = _mm512_unpackhi_ps(r0, r1);
        const vf b0 = _mm512_unpacklo_ps(r2, r3), b1 = _mm512_unpackhi_ps(r2, r3);
        vf_store(dst + c * 16, _mm512_shuffle_ps(a0, b0, 0x44));
        vf_store(dst + c * 16 + 16, _mm512_shuffle_ps(a0, b0, 0xee));
        vf_store(dst + c * 16 + 32, _mm512_shuffle_ps(a1, b1, 0x44));
        vf_store(dst + c * 16 + 48, _mm512_shuffle_ps(a1, b1, 0xee));
    }
}

AK_SIMD_INLINE vd ak_join_pd(const double *p, ptrdiff_t step)
{
    vd x = _mm512_castpd128_pd512(_mm_loadu_pd(p));
    x = _mm512_insertf64x2(x, _mm_loadu_pd(p + step), 1);
    x = _mm512_insertf64x2(x, _mm_loadu_pd(p + 2 * step), 2);
    return _mm512_insertf64x2(x, _mm_loadu_pd(p + 3 * step), 3);
}

/* dst[c * 8 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vd_transpose(const double *src, ptrdiff_t stride, double *dst)
{
    for (int c = 0; c < 8; c += 2) {
        const vd r0 = ak_join_pd(src + c, 2 * stride);
        const vd r1 = ak_join_pd(src + c + stride, 2 * stride);
        vd_store(dst + c * 8, _mm512_unpacklo_pd(r0, r1));
        vd_store(dst + c * 8 + 8, _mm512_unpackhi_pd(r0, r1));
    }
}

#undef AK_UNARY
#undef AK_BINARY
#undef AK_TERNARY

#endif
