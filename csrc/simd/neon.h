/* AArch64: a virtual vector is four 128-bit registers. Contract: simd.h.
 *
 * Maxima and minima are compare and select: FMAX and FMIN treat NaN and signed zeros in their own way. */
#ifndef AK_SIMD_NEON_H
#define AK_SIMD_NEON_H

#include <arm_neon.h>

typedef struct { float32x4_t q0, q1, q2, q3; } vf;
typedef struct { float64x2_t q0, q1, q2, q3; } vd;
typedef struct { uint32x4_t q0, q1, q2, q3; } mf; /* all ones or all zeros per lane */
typedef struct { uint64x2_t q0, q1, q2, q3; } md;

#define AK_FOUR(R, op, ...) (R){op(q0, __VA_ARGS__), op(q1, __VA_ARGS__), op(q2, __VA_ARGS__), op(q3, __VA_ARGS__)}
#define AK_APPLY1(q, f) f(a.q)
#define AK_APPLY2(q, f) f(a.q, b.q)
#define AK_APPLY3(q, f) f(a.q, b.q, c.q)
#define AK_UNARY(name, R, V, f)                                                      \
    AK_SIMD_INLINE R name(V a) { return AK_FOUR(R, AK_APPLY1, f); }
#define AK_BINARY(name, R, V, f)                                                     \
    AK_SIMD_INLINE R name(V a, V b) { return AK_FOUR(R, AK_APPLY2, f); }
#define AK_TERNARY(name, R, A, V, f)                                                 \
    AK_SIMD_INLINE R name(A a, V b, V c) { return AK_FOUR(R, AK_APPLY3, f); }

/* One register of each operation that is not a single intrinsic. */
AK_SIMD_INLINE float32x4_t ak_fma_f32(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
AK_SIMD_INLINE float64x2_t ak_fma_f64(float64x2_t a, float64x2_t b, float64x2_t c) { return vfmaq_f64(c, a, b); }
AK_SIMD_INLINE float32x4_t ak_fnma_f32(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmsq_f32(c, a, b); }
AK_SIMD_INLINE float64x2_t ak_fnma_f64(float64x2_t a, float64x2_t b, float64x2_t c) { return vfmsq_f64(c, a, b); }
AK_SIMD_INLINE float32x4_t ak_max_f32(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
AK_SIMD_INLINE float64x2_t ak_max_f64(float64x2_t a, float64x2_t b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
AK_SIMD_INLINE float32x4_t ak_min_f32(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
AK_SIMD_INLINE float64x2_t ak_min_f64(float64x2_t a, float64x2_t b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
AK_SIMD_INLINE uint64x2_t ak_not_u64(uint64x2_t a) { return veorq_u64(a, vdupq_n_u64(~0ull)); }
AK_SIMD_INLINE uint32x4_t ak_ne_f32(float32x4_t a, float32x4_t b) { return vmvnq_u32(vceqq_f32(a, b)); }
AK_SIMD_INLINE uint64x2_t ak_ne_f64(float64x2_t a, float64x2_t b) { return ak_not_u64(vceqq_f64(a, b)); }
AK_SIMD_INLINE uint32x4_t ak_andnot_u32(uint32x4_t a, uint32x4_t b) { return vbicq_u32(b, a); }
AK_SIMD_INLINE uint64x2_t ak_andnot_u64(uint64x2_t a, uint64x2_t b) { return vbicq_u64(b, a); }

AK_SIMD_INLINE float32x4_t ak_and_mask_f32(uint32x4_t m, float32x4_t a)
{
    return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a)));
}

AK_SIMD_INLINE float64x2_t ak_and_mask_f64(uint64x2_t m, float64x2_t a)
{
    return vreinterpretq_f64_u64(vandq_u64(m, vreinterpretq_u64_f64(a)));
}

AK_SIMD_INLINE float32x4_t ak_pow2_f32(float32x4_t t)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
}

AK_SIMD_INLINE float64x2_t ak_pow2_f64(float64x2_t t)
{
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(t), 52));
}

AK_SIMD_INLINE float32x4_t ak_scale_exp_f32(float32x4_t p, float32x4_t t)
{
    return vreinterpretq_f32_u32(
        vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)));
}

AK_SIMD_INLINE float64x2_t ak_scale_exp_f64(float64x2_t p, float64x2_t t)
{
    return vreinterpretq_f64_u64(
        vaddq_u64(vreinterpretq_u64_f64(p), vshlq_n_u64(vreinterpretq_u64_f64(t), 52)));
}

AK_SIMD_INLINE float32x4_t ak_one_nan_f32(float32x4_t x)
{
    return vbslq_f32(vceqq_f32(x, x), x, vreinterpretq_f32_u32(vdupq_n_u32(AK_F32_NAN_BITS)));
}

AK_SIMD_INLINE float64x2_t ak_one_nan_f64(float64x2_t x)
{
    return vbslq_f64(vceqq_f64(x, x), x, vreinterpretq_f64_u64(vdupq_n_u64(AK_F64_NAN_BITS)));
}

AK_SIMD_INLINE float32x4_t ak_canonical_f32(float32x4_t x) { return ak_one_nan_f32(vaddq_f32(x, vdupq_n_f32(0))); }
AK_SIMD_INLINE float64x2_t ak_canonical_f64(float64x2_t x) { return ak_one_nan_f64(vaddq_f64(x, vdupq_n_f64(0))); }

/* Constants, loads, stores. */
AK_SIMD_INLINE vf vf_set1(float x)
{
    const float32x4_t q = vdupq_n_f32(x);
    return (vf){q, q, q, q};
}

AK_SIMD_INLINE vd vd_set1(double x)
{
    const float64x2_t q = vdupq_n_f64(x);
    return (vd){q, q, q, q};
}

AK_SIMD_INLINE vf vf_zero(void) { return vf_set1(0); }
AK_SIMD_INLINE vd vd_zero(void) { return vd_set1(0); }

AK_SIMD_INLINE vf vf_load(const float *p)
{
    return (vf){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}

AK_SIMD_INLINE vd vd_load(const double *p)
{
    return (vd){vld1q_f64(p), vld1q_f64(p + 2), vld1q_f64(p + 4), vld1q_f64(p + 6)};
}

AK_SIMD_INLINE void vf_store(float *p, vf x)
{
    vst1q_f32(p, x.q0);
    vst1q_f32(p + 4, x.q1);
    vst1q_f32(p + 8, x.q2);
    vst1q_f32(p + 12, x.q3);
}

AK_SIMD_INLINE void vd_store(double *p, vd x)
{
    vst1q_f64(p, x.q0);
    vst1q_f64(p + 2, x.q1);
    vst1q_f64(p + 4, x.q2);
    vst1q_f64(p + 6, x.q3);
}

AK_SIMD_INLINE vf vf_iota(void)
{
    static const float lanes[VF_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vf_load(lanes);
}

AK_SIMD_INLINE vd vd_iota(void)
{
    static const double lanes[VD_LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
    return vd_load(lanes);
}

/* There are no masked moves: tails go through a buffer. */
AK_SIMD_INLINE vf vf_load_first(const float *p, int n)
{
    float buffer[VF_LANES] = {0};
    memcpy(buffer, p, (size_t)n * sizeof *p);
    return vf_load(buffer);
}

AK_SIMD_INLINE vd vd_load_first(const double *p, int n)
{
    double buffer[VD_LANES] = {0};
    memcpy(buffer, p, (size_t)n * sizeof *p);
    return vd_load(buffer);
}

AK_SIMD_INLINE void vf_store_first(float *p, vf x, int n)
{
    float buffer[VF_LANES];
    vf_store(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}

AK_SIMD_INLINE void vd_store_first(double *p, vd x, int n)
{
    double buffer[VD_LANES];
    vd_store(buffer, x);
    memcpy(p, buffer, (size_t)n * sizeof *p);
}

/* Arithmetic. */
AK_BINARY(vf_add, vf, vf, vaddq_f32)
AK_BINARY(vd_add, vd, vd, vaddq_f64)
AK_BINARY(vf_sub, vf, vf, vsubq_f32)
AK_BINARY(vd_sub, vd, vd, vsubq_f64)
AK_BINARY(vf_mul, vf, vf, vmulq_f32)
AK_BINARY(vd_mul, vd, vd, vmulq_f64)
AK_BINARY(vf_div, vf, vf, vdivq_f32)
AK_BINARY(vd_div, vd, vd, vdivq_f64)
AK_BINARY(vf_max, vf, vf, ak_max_f32)
AK_BINARY(vd_max, vd, vd, ak_max_f64)
AK_BINARY(vf_min, vf, vf, ak_min_f32)
AK_BINARY(vd_min, vd, vd, ak_min_f64)
AK_TERNARY(vf_fma, vf, vf, vf, ak_fma_f32)
AK_TERNARY(vd_fma, vd, vd, vd, ak_fma_f64)
AK_TERNARY(vf_fnma, vf, vf, vf, ak_fnma_f32)
AK_TERNARY(vd_fnma, vd, vd, vd, ak_fnma_f64)
AK_UNARY(vf_sqrt, vf, vf, vsqrtq_f32)
AK_UNARY(vd_sqrt, vd, vd, vsqrtq_f64)
AK_UNARY(vf_neg, vf, vf, vnegq_f32)
AK_UNARY(vd_neg, vd, vd, vnegq_f64)
AK_UNARY(vf_abs, vf, vf, vabsq_f32)
AK_UNARY(vd_abs, vd, vd, vabsq_f64)

/* Comparisons and masks. */
AK_BINARY(vf_eq, mf, vf, vceqq_f32)
AK_BINARY(vd_eq, md, vd, vceqq_f64)
AK_BINARY(vf_ne, mf, vf, ak_ne_f32)
AK_BINARY(vd_ne, md, vd, ak_ne_f64)
AK_BINARY(vf_lt, mf, vf, vcltq_f32)
AK_BINARY(vd_lt, md, vd, vcltq_f64)
AK_BINARY(vf_le, mf, vf, vcleq_f32)
AK_BINARY(vd_le, md, vd, vcleq_f64)
AK_BINARY(vf_gt, mf, vf, vcgtq_f32)
AK_BINARY(vd_gt, md, vd, vcgtq_f64)
AK_BINARY(vf_ge, mf, vf, vcgeq_f32)
AK_BINARY(vd_ge, md, vd, vcgeq_f64)
AK_SIMD_INLINE mf vf_isnan(vf a) { return vf_ne(a, a); }
AK_SIMD_INLINE md vd_isnan(vd a) { return vd_ne(a, a); }
AK_BINARY(mf_and, mf, mf, vandq_u32)
AK_BINARY(md_and, md, md, vandq_u64)
AK_BINARY(mf_or, mf, mf, vorrq_u32)
AK_BINARY(md_or, md, md, vorrq_u64)
AK_BINARY(mf_andnot, mf, mf, ak_andnot_u32)
AK_BINARY(md_andnot, md, md, ak_andnot_u64)
AK_UNARY(mf_not, mf, mf, vmvnq_u32)
AK_UNARY(md_not, md, md, ak_not_u64)
AK_TERNARY(vf_select, vf, mf, vf, vbslq_f32)
AK_TERNARY(vd_select, vd, md, vd, vbslq_f64)

AK_SIMD_INLINE vf vf_and_mask(mf a, vf b) { return AK_FOUR(vf, AK_APPLY2, ak_and_mask_f32); }
AK_SIMD_INLINE vd vd_and_mask(md a, vd b) { return AK_FOUR(vd, AK_APPLY2, ak_and_mask_f64); }

/* Lane i carries bit i; every lane of every register has a bit of its own, so sums across lanes collect them. */
AK_SIMD_INLINE mf ak_lane_bits_u32(void)
{
    static const uint32_t first[4] = {1, 2, 4, 8};
    const uint32x4_t q = vld1q_u32(first);
    return (mf){q, vshlq_n_u32(q, 4), vshlq_n_u32(q, 8), vshlq_n_u32(q, 12)};
}

AK_SIMD_INLINE md ak_lane_bits_u64(void)
{
    static const uint64_t first[2] = {1, 2};
    const uint64x2_t q = vld1q_u64(first);
    return (md){q, vshlq_n_u64(q, 2), vshlq_n_u64(q, 4), vshlq_n_u64(q, 6)};
}

AK_SIMD_INLINE uint32_t mf_bits(mf m)
{
    const mf b = mf_and(m, ak_lane_bits_u32());
    return vaddvq_u32(vorrq_u32(vorrq_u32(b.q0, b.q1), vorrq_u32(b.q2, b.q3)));
}

AK_SIMD_INLINE uint32_t md_bits(md m)
{
    const md b = md_and(m, ak_lane_bits_u64());
    return (uint32_t)vaddvq_u64(vorrq_u64(vorrq_u64(b.q0, b.q1), vorrq_u64(b.q2, b.q3)));
}

AK_SIMD_INLINE mf mf_from_bits(uint32_t bits)
{
    const uint32x4_t all = vdupq_n_u32(bits);
    const mf b = ak_lane_bits_u32();
    return (mf){vtstq_u32(all, b.q0), vtstq_u32(all, b.q1), vtstq_u32(all, b.q2), vtstq_u32(all, b.q3)};
}

AK_SIMD_INLINE md md_from_bits(uint32_t bits)
{
    const uint64x2_t all = vdupq_n_u64(bits);
    const md b = ak_lane_bits_u64();
    return (md){vtstq_u64(all, b.q0), vtstq_u64(all, b.q1), vtstq_u64(all, b.q2), vtstq_u64(all, b.q3)};
}

/* Reductions over the lanes, by the fixed tree. */
AK_SIMD_INLINE float vf_hsum(vf x)
{
    const float32x4_t t4 = vaddq_f32(vaddq_f32(x.q0, x.q2), vaddq_f32(x.q1, x.q3));
    const float32x2_t t2 = vadd_f32(vget_low_f32(t4), vget_high_f32(t4));
    return vget_lane_f32(t2, 0) + vget_lane_f32(t2, 1);
}

AK_SIMD_INLINE float vf_hmax(vf x)
{
    const float32x4_t t4 = ak_max_f32(ak_max_f32(x.q0, x.q2), ak_max_f32(x.q1, x.q3));
    const float32x4_t t2 = ak_max_f32(t4, vextq_f32(t4, t4, 2));
    return vgetq_lane_f32(ak_max_f32(t2, vextq_f32(t2, t2, 1)), 0);
}

AK_SIMD_INLINE double vd_hsum(vd x)
{
    const float64x2_t t2 = vaddq_f64(vaddq_f64(x.q0, x.q2), vaddq_f64(x.q1, x.q3));
    return vgetq_lane_f64(t2, 0) + vgetq_lane_f64(t2, 1);
}

AK_SIMD_INLINE double vd_hmax(vd x)
{
    const float64x2_t t2 = ak_max_f64(ak_max_f64(x.q0, x.q2), ak_max_f64(x.q1, x.q3));
    return vgetq_lane_f64(ak_max_f64(t2, vextq_f64(t2, t2, 1)), 0);
}

/* Bits: exponents and canonical values. */
/* bits(p) + (bits(t) << 23): with t = n + 1.5 * 2^23 this is p * 2^n while the exponent stays in range. */
AK_BINARY(vf_scale_exp, vf, vf, ak_scale_exp_f32)
AK_BINARY(vd_scale_exp, vd, vd, ak_scale_exp_f64)

/* bits(t) << 23 as a float: with t = n + 127 + 1.5 * 2^23 this is 2^n, and +0 for n = -127. */
AK_UNARY(vf_pow2_from_bits, vf, vf, ak_pow2_f32)
AK_UNARY(vd_pow2_from_bits, vd, vd, ak_pow2_f64)

AK_UNARY(vf_canonical, vf, vf, ak_canonical_f32)
AK_UNARY(vd_canonical, vd, vd, ak_canonical_f64)

AK_SIMD_INLINE float32x4_t ak_split_exp_f32(float32x4_t x, float32x4_t *m)
{
    const uint32x4_t u = vaddq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x3f800000u - AK_F32_SQRT_HALF_BITS));
    const uint32x4_t fraction = vandq_u32(u, vdupq_n_u32(0x007fffffu));
    *m = vreinterpretq_f32_u32(vaddq_u32(fraction, vdupq_n_u32(AK_F32_SQRT_HALF_BITS)));
    return vsubq_f32(vcvtq_f32_u32(vshrq_n_u32(u, 23)), vdupq_n_f32(127.0f));
}

AK_SIMD_INLINE float64x2_t ak_split_exp_f64(float64x2_t x, float64x2_t *m)
{
    const uint64x2_t offset = vdupq_n_u64(0x3ff0000000000000ull - AK_F64_SQRT_HALF_BITS);
    const uint64x2_t u = vaddq_u64(vreinterpretq_u64_f64(x), offset);
    const uint64x2_t fraction = vandq_u64(u, vdupq_n_u64(0x000fffffffffffffull));
    *m = vreinterpretq_f64_u64(vaddq_u64(fraction, vdupq_n_u64(AK_F64_SQRT_HALF_BITS)));
    return vsubq_f64(vcvtq_f64_u64(vshrq_n_u64(u, 52)), vdupq_n_f64(1023.0));
}

/* x = m * 2^k with m in [sqrt(1/2), sqrt(2)), for positive normal finite x; returns k. */
AK_SIMD_INLINE vf vf_split_exp(vf x, vf *m)
{
    return (vf){ak_split_exp_f32(x.q0, &m->q0), ak_split_exp_f32(x.q1, &m->q1),
                ak_split_exp_f32(x.q2, &m->q2), ak_split_exp_f32(x.q3, &m->q3)};
}

AK_SIMD_INLINE vd vd_split_exp(vd x, vd *m)
{
    return (vd){ak_split_exp_f64(x.q0, &m->q0), ak_split_exp_f64(x.q1, &m->q1),
                ak_split_exp_f64(x.q2, &m->q2), ak_split_exp_f64(x.q3, &m->q3)};
}

/* Narrow storage. */
AK_SIMD_INLINE float32x4_t ak_load_4xf16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
AK_SIMD_INLINE float32x4_t ak_load_4xbf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

AK_SIMD_INLINE vd ak_widen(float32x4_t a, float32x4_t b)
{
    return (vd){vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a), vcvt_f64_f32(vget_low_f32(b)),
                vcvt_high_f64_f32(b)};
}

AK_SIMD_INLINE vf vf_load_f16(const uint16_t *p)
{
    return (vf){ak_load_4xf16(p), ak_load_4xf16(p + 4), ak_load_4xf16(p + 8), ak_load_4xf16(p + 12)};
}

AK_SIMD_INLINE vf vf_load_bf16(const uint16_t *p)
{
    return (vf){ak_load_4xbf16(p), ak_load_4xbf16(p + 4), ak_load_4xbf16(p + 8), ak_load_4xbf16(p + 12)};
}

AK_SIMD_INLINE vd vd_load_f32(const float *p) { return ak_widen(vld1q_f32(p), vld1q_f32(p + 4)); }
AK_SIMD_INLINE vd vd_load_f16(const uint16_t *p) { return ak_widen(ak_load_4xf16(p), ak_load_4xf16(p + 4)); }
AK_SIMD_INLINE vd vd_load_bf16(const uint16_t *p) { return ak_widen(ak_load_4xbf16(p), ak_load_4xbf16(p + 4)); }

AK_SIMD_INLINE void ak_store_4xf16(uint16_t *p, float32x4_t x)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(ak_one_nan_f32(x))));
}

AK_SIMD_INLINE void ak_store_4xbf16(uint16_t *p, float32x4_t x)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(ak_one_nan_f32(x));
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    vst1_u16(p, vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16));
}

#define AK_STORE_FOUR(name, store)                                                   \
    AK_SIMD_INLINE void name(uint16_t *p, vf x)                                      \
    {                                                                                \
        store(p, x.q0);                                                              \
        store(p + 4, x.q1);                                                          \
        store(p + 8, x.q2);                                                          \
        store(p + 12, x.q3);                                                         \
    }
AK_STORE_FOUR(vf_store_f16, ak_store_4xf16)
AK_STORE_FOUR(vf_store_bf16, ak_store_4xbf16)

/* Transposes, in blocks of one register. */
AK_SIMD_INLINE float32x4_t ak_join_low(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

AK_SIMD_INLINE float32x4_t ak_join_high(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

/* dst[c * 16 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vf_transpose(const float *src, ptrdiff_t stride, float *dst)
{
    for (int c = 0; c < 16; c += 4) {
        for (int r = 0; r < 16; r += 4) {
            const float *corner = src + r * stride + c;
            const float32x4_t r0 = vld1q_f32(corner), r1 = vld1q_f32(corner + stride);
            const float32x4_t r2 = vld1q_f32(corner + 2 * stride), r3 = vld1q_f32(corner + 3 * stride);
            const float32x4_t a0 = vtrn1q_f32(r0, r1), a1 = vtrn2q_f32(r0, r1);
            const float32x4_t b0 = vtrn1q_f32(r2, r3), b1 = vtrn2q_f32(r2, r3);
            float *out = dst + c * 16 + r;
            vst1q_f32(out, ak_join_low(a0, b0));
            vst1q_f32(out + 16, ak_join_low(a1, b1));
            vst1q_f32(out + 32, ak_join_high(a0, b0));
            vst1q_f32(out + 48, ak_join_high(a1, b1));
        }
    }
}

/* dst[c * 8 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vd_transpose(const double *src, ptrdiff_t stride, double *dst)
{
    for (int c = 0; c < 8; c += 2) {
        for (int r = 0; r < 8; r += 2) {
            const float64x2_t r0 = vld1q_f64(src + r * stride + c), r1 = vld1q_f64(src + (r + 1) * stride + c);
            vst1q_f64(dst + c * 8 + r, vtrn1q_f64(r0, r1));
            vst1q_f64(dst + (c + 1) * 8 + r, vtrn2q_f64(r0, r1));
        }
    }
}

#undef AK_FOUR
#undef AK_APPLY1
#undef AK_APPLY2
#undef AK_APPLY3
#undef AK_UNARY
#undef AK_BINARY
#undef AK_TERNARY
#undef AK_STORE_FOUR

#endif
