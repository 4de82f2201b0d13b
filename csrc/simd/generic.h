/* Plain C: lanes in arrays, one loop per operation. Contract: simd.h.
 *
 * fma comes from the compiler when it knows the instruction, else from libm, which rounds correctly: a multiply in
 * double and a rounding to float would not. */
#ifndef AK_SIMD_GENERIC_H
#define AK_SIMD_GENERIC_H

typedef struct { float lane[VF_LANES]; } vf;
typedef struct { double lane[VD_LANES]; } vd;
typedef struct { uint32_t lane[VF_LANES]; } mf; /* 1 or 0 per lane */
typedef struct { uint32_t lane[VD_LANES]; } md;

#define AK_LANES(V) ((int)(sizeof((V){{0}}.lane) / sizeof((V){{0}}.lane[0])))
#define AK_NULLARY(name, R, expression)                                              \
    AK_SIMD_INLINE R name(void)                                                      \
    {                                                                                \
        R r;                                                                         \
        for (int i = 0; i < AK_LANES(R); i++) r.lane[i] = expression;                \
        return r;                                                                    \
    }
#define AK_UNARY(name, R, V, expression)                                             \
    AK_SIMD_INLINE R name(V a)                                                       \
    {                                                                                \
        R r;                                                                         \
        for (int i = 0; i < AK_LANES(R); i++) r.lane[i] = expression;                \
        return r;                                                                    \
    }
#define AK_BINARY(name, R, V, expression)                                            \
    AK_SIMD_INLINE R name(V a, V b)                                                  \
    {                                                                                \
        R r;                                                                         \
        for (int i = 0; i < AK_LANES(R); i++) r.lane[i] = expression;                \
        return r;                                                                    \
    }
#define AK_TERNARY(name, V, expression)                                              \
    AK_SIMD_INLINE V name(V a, V b, V c)                                             \
    {                                                                                \
        V r;                                                                         \
        for (int i = 0; i < AK_LANES(V); i++) r.lane[i] = expression;                \
        return r;                                                                    \
    }
#define AK_SET1(name, R, T)                                                          \
    AK_SIMD_INLINE R name(T x)                                                       \
    {                                                                                \
        R r;                                                                         \
        for (int i = 0; i < AK_LANES(R); i++) r.lane[i] = x;                         \
        return r;                                                                    \
    }
#define AK_LOAD(name, R, T, expression)                                              \
    AK_SIMD_INLINE R name(const T *p)                                                \
    {                                                                                \
        R r;                                                                         \
        for (int i = 0; i < AK_LANES(R); i++) r.lane[i] = expression;                \
        return r;                                                                    \
    }
#define AK_STORE(name, V, T, expression)                                             \
    AK_SIMD_INLINE void name(T *p, V x)                                              \
    {                                                                                \
        for (int i = 0; i < AK_LANES(V); i++) p[i] = expression;                     \
    }
#define AK_LOAD_FIRST(name, R, T)                                                    \
    AK_SIMD_INLINE R name(const T *p, int n)                                         \
    {                                                                                \
        R r;                                                                         \
        for (int i = 0; i < AK_LANES(R); i++) r.lane[i] = i < n ? p[i] : 0;          \
        return r;                                                                    \
    }
#define AK_STORE_FIRST(name, V, T)                                                   \
    AK_SIMD_INLINE void name(T *p, V x, int n)                                       \
    {                                                                                \
        for (int i = 0; i < n; i++) p[i] = x.lane[i];                                \
    }

/* Constants, loads, stores. memcpy: a float that is moved as a float may lose a signalling NaN on some machines. */
AK_NULLARY(vf_zero, vf, 0.0f)
AK_NULLARY(vd_zero, vd, 0.0)
AK_NULLARY(vf_iota, vf, (float)i)
AK_NULLARY(vd_iota, vd, (double)i)
AK_SET1(vf_set1, vf, float)
AK_SET1(vd_set1, vd, double)
AK_LOAD_FIRST(vf_load_first, vf, float)
AK_LOAD_FIRST(vd_load_first, vd, double)
AK_STORE_FIRST(vf_store_first, vf, float)
AK_STORE_FIRST(vd_store_first, vd, double)

AK_SIMD_INLINE vf vf_load(const float *p)
{
    vf r;
    memcpy(r.lane, p, sizeof r.lane);
    return r;
}

AK_SIMD_INLINE vd vd_load(const double *p)
{
    vd r;
    memcpy(r.lane, p, sizeof r.lane);
    return r;
}

AK_SIMD_INLINE void vf_store(float *p, vf x) { memcpy(p, x.lane, sizeof x.lane); }
AK_SIMD_INLINE void vd_store(double *p, vd x) { memcpy(p, x.lane, sizeof x.lane); }

/* Arithmetic. */
AK_BINARY(vf_add, vf, vf, a.lane[i] + b.lane[i])
AK_BINARY(vd_add, vd, vd, a.lane[i] + b.lane[i])
AK_BINARY(vf_sub, vf, vf, a.lane[i] - b.lane[i])
AK_BINARY(vd_sub, vd, vd, a.lane[i] - b.lane[i])
AK_BINARY(vf_mul, vf, vf, a.lane[i] * b.lane[i])
AK_BINARY(vd_mul, vd, vd, a.lane[i] * b.lane[i])
AK_BINARY(vf_div, vf, vf, a.lane[i] / b.lane[i])
AK_BINARY(vd_div, vd, vd, a.lane[i] / b.lane[i])
AK_BINARY(vf_max, vf, vf, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i])
AK_BINARY(vd_max, vd, vd, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i])
AK_BINARY(vf_min, vf, vf, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i])
AK_BINARY(vd_min, vd, vd, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i])
AK_TERNARY(vf_fma, vf, __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]))
AK_TERNARY(vd_fma, vd, __builtin_fma(a.lane[i], b.lane[i], c.lane[i]))
AK_TERNARY(vf_fnma, vf, __builtin_fmaf(-a.lane[i], b.lane[i], c.lane[i]))
AK_TERNARY(vd_fnma, vd, __builtin_fma(-a.lane[i], b.lane[i], c.lane[i]))
AK_UNARY(vf_sqrt, vf, vf, __builtin_sqrtf(a.lane[i]))
AK_UNARY(vd_sqrt, vd, vd, __builtin_sqrt(a.lane[i]))
AK_UNARY(vf_neg, vf, vf, ak_f32_from_bits(ak_f32_bits(a.lane[i]) ^ 0x80000000u))
AK_UNARY(vd_neg, vd, vd, ak_f64_from_bits(ak_f64_bits(a.lane[i]) ^ 0x8000000000000000ull))
AK_UNARY(vf_abs, vf, vf, ak_f32_from_bits(ak_f32_bits(a.lane[i]) & 0x7fffffffu))
AK_UNARY(vd_abs, vd, vd, ak_f64_from_bits(ak_f64_bits(a.lane[i]) & 0x7fffffffffffffffull))

/* Comparisons and masks. */
AK_BINARY(vf_eq, mf, vf, a.lane[i] == b.lane[i])
AK_BINARY(vd_eq, md, vd, a.lane[i] == b.lane[i])
AK_BINARY(vf_ne, mf, vf, a.lane[i] != b.lane[i])
AK_BINARY(vd_ne, md, vd, a.lane[i] != b.lane[i])
AK_BINARY(vf_lt, mf, vf, a.lane[i] < b.lane[i])
AK_BINARY(vd_lt, md, vd, a.lane[i] < b.lane[i])
AK_BINARY(vf_le, mf, vf, a.lane[i] <= b.lane[i])
AK_BINARY(vd_le, md, vd, a.lane[i] <= b.lane[i])
AK_BINARY(vf_gt, mf, vf, a.lane[i] > b.lane[i])
AK_BINARY(vd_gt, md, vd, a.lane[i] > b.lane[i])
AK_BINARY(vf_ge, mf, vf, a.lane[i] >= b.lane[i])
AK_BINARY(vd_ge, md, vd, a.lane[i] >= b.lane[i])
AK_UNARY(vf_isnan, mf, vf, a.lane[i] != a.lane[i])
AK_UNARY(vd_isnan, md, vd, a.lane[i] != a.lane[i])
AK_BINARY(mf_and, mf, mf, a.lane[i] & b.lane[i])
AK_BINARY(md_and, md, md, a.lane[i] & b.lane[i])
AK_BINARY(mf_or, mf, mf, a.lane[i] | b.lane[i])
AK_BINARY(md_or, md, md, a.lane[i] | b.lane[i])
AK_BINARY(mf_andnot, mf, mf, (a.lane[i] ^ 1u) & b.lane[i])
AK_BINARY(md_andnot, md, md, (a.lane[i] ^ 1u) & b.lane[i])
AK_UNARY(mf_not, mf, mf, a.lane[i] ^ 1u)
AK_UNARY(md_not, md, md, a.lane[i] ^ 1u)
AK_UNARY(mf_from_bits, mf, uint32_t, (a >> i) & 1u)
AK_UNARY(md_from_bits, md, uint32_t, (a >> i) & 1u)

AK_SIMD_INLINE uint32_t mf_bits(mf m)
{
    uint32_t bits = 0;
    for (int i = 0; i < VF_LANES; i++) bits |= m.lane[i] << i;
    return bits;
}

AK_SIMD_INLINE uint32_t md_bits(md m)
{
    uint32_t bits = 0;
    for (int i = 0; i < VD_LANES; i++) bits |= m.lane[i] << i;
    return bits;
}

#define AK_SELECT(name, M, V)                                                        \
    AK_SIMD_INLINE V name(M m, V a, V b)                                             \
    {                                                                                \
        V r;                                                                         \
        for (int i = 0; i < AK_LANES(V); i++) r.lane[i] = m.lane[i] ? a.lane[i] : b.lane[i]; \
        return r;                                                                    \
    }
AK_SELECT(vf_select, mf, vf)
AK_SELECT(vd_select, md, vd)
AK_SIMD_INLINE vf vf_and_mask(mf m, vf a) { return vf_select(m, a, vf_zero()); }
AK_SIMD_INLINE vd vd_and_mask(md m, vd a) { return vd_select(m, a, vd_zero()); }

/* Reductions over the lanes, by the fixed tree. */
#define AK_FOLD(name, V, T, expression)                                              \
    AK_SIMD_INLINE T name(V x)                                                       \
    {                                                                                \
        for (int half = AK_LANES(V) / 2; half > 0; half /= 2) {                      \
            for (int i = 0; i < half; i++) {                                         \
                const T a = x.lane[i], b = x.lane[i + half];                         \
                x.lane[i] = expression;                                              \
            }                                                                        \
        }                                                                            \
        return x.lane[0];                                                            \
    }
AK_FOLD(vf_hsum, vf, float, a + b)
AK_FOLD(vd_hsum, vd, double, a + b)
AK_FOLD(vf_hmax, vf, float, a > b ? a : b)
AK_FOLD(vd_hmax, vd, double, a > b ? a : b)

/* Bits: exponents and canonical values. */
/* bits(p) + (bits(t) << 23): with t = n + 1.5 * 2^23 this is p * 2^n while the exponent stays in range. */
AK_BINARY(vf_scale_exp, vf, vf, ak_f32_from_bits(ak_f32_bits(a.lane[i]) + (ak_f32_bits(b.lane[i]) << 23)))
AK_BINARY(vd_scale_exp, vd, vd, ak_f64_from_bits(ak_f64_bits(a.lane[i]) + (ak_f64_bits(b.lane[i]) << 52)))

/* bits(t) << 23 as a float: with t = n + 127 + 1.5 * 2^23 this is 2^n, and +0 for n = -127. */
AK_UNARY(vf_pow2_from_bits, vf, vf, ak_f32_from_bits(ak_f32_bits(a.lane[i]) << 23))
AK_UNARY(vd_pow2_from_bits, vd, vd, ak_f64_from_bits(ak_f64_bits(a.lane[i]) << 52))

/* x = m * 2^k with m in [sqrt(1/2), sqrt(2)), for positive normal finite x; returns k. */
AK_SIMD_INLINE vf vf_split_exp(vf x, vf *m)
{
    vf k;
    for (int i = 0; i < VF_LANES; i++) {
        const uint32_t u = ak_f32_bits(x.lane[i]) + (0x3f800000u - AK_F32_SQRT_HALF_BITS);
        m->lane[i] = ak_f32_from_bits((u & 0x007fffffu) + AK_F32_SQRT_HALF_BITS);
        k.lane[i] = (float)(u >> 23) - 127.0f;
    }
    return k;
}

AK_SIMD_INLINE vd vd_split_exp(vd x, vd *m)
{
    vd k;
    for (int i = 0; i < VD_LANES; i++) {
        const uint64_t u = ak_f64_bits(x.lane[i]) + (0x3ff0000000000000ull - AK_F64_SQRT_HALF_BITS);
        m->lane[i] = ak_f64_from_bits((u & 0x000fffffffffffffull) + AK_F64_SQRT_HALF_BITS);
        k.lane[i] = (double)(u >> 52) - 1023.0;
    }
    return k;
}

AK_UNARY(vf_canonical, vf, vf,
         a.lane[i] != a.lane[i] ? ak_f32_from_bits(AK_F32_NAN_BITS) : a.lane[i] + 0.0f)
AK_UNARY(vd_canonical, vd, vd,
         a.lane[i] != a.lane[i] ? ak_f64_from_bits(AK_F64_NAN_BITS) : a.lane[i] + 0.0)

/* Narrow storage. */
AK_LOAD(vf_load_f16, vf, uint16_t, ak_f16_to_f32(p[i]))
AK_LOAD(vf_load_bf16, vf, uint16_t, ak_bf16_to_f32(p[i]))
AK_LOAD(vd_load_f32, vd, float, (double)p[i])
AK_LOAD(vd_load_f16, vd, uint16_t, (double)ak_f16_to_f32(p[i]))
AK_LOAD(vd_load_bf16, vd, uint16_t, (double)ak_bf16_to_f32(p[i]))
AK_STORE(vf_store_f16, vf, uint16_t, ak_f32_to_f16(x.lane[i]))
AK_STORE(vf_store_bf16, vf, uint16_t, ak_f32_to_bf16(x.lane[i]))

/* dst[c * 16 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vf_transpose(const float *src, ptrdiff_t stride, float *dst)
{
    for (int c = 0; c < VF_LANES; c++)
        for (int r = 0; r < VF_LANES; r++) dst[c * VF_LANES + r] = src[r * stride + c];
}

/* dst[c * 8 + r] = src[r * stride + c] */
AK_SIMD_INLINE void vd_transpose(const double *src, ptrdiff_t stride, double *dst)
{
    for (int c = 0; c < VD_LANES; c++)
        for (int r = 0; r < VD_LANES; r++) dst[c * VD_LANES + r] = src[r * stride + c];
}

#undef AK_LANES
#undef AK_NULLARY
#undef AK_UNARY
#undef AK_BINARY
#undef AK_TERNARY
#undef AK_SET1
#undef AK_LOAD
#undef AK_STORE
#undef AK_LOAD_FIRST
#undef AK_STORE_FIRST
#undef AK_SELECT
#undef AK_FOLD

#endif
