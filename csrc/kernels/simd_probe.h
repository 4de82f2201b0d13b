/* The vector layer of one target as a table of small functions, for tests (rows: csrc/simd/simd_table.h).
 *
 * Included plainly it declares the type of a row. A target file that defines AK_SIMD_PROBES as the name of its table
 * also gets the table itself, a static array. */
#ifndef AK_KERNELS_SIMD_PROBE_H
#define AK_KERNELS_SIMD_PROBE_H

struct ak_simd_probe {
    const char *name;
    const char *signature; /* what one call reads and writes: simd_table.h */
    void (*run)(const void *a, const void *b, const void *c, void *out);
};

#ifdef AK_SIMD_PROBES
#include "../simd/math.h"

#define VF(p) vf_load((const float *)p)
#define VD(p) vd_load((const double *)p)
#define MF(p) mf_from_bits(*(const uint32_t *)p)
#define MD(p) md_from_bits(*(const uint32_t *)p)
#define H(p) ((const uint16_t *)p)
#define FIRST(p, lanes) ((int)(*(const uint32_t *)p % (lanes + 1)))
#define OUT_F(x) vf_store((float *)out, x)
#define OUT_D(x) vd_store((double *)out, x)
#define OUT_F_ONE_NAN(x) OUT_F(vf_one_nan(x))
#define OUT_D_ONE_NAN(x) OUT_D(vd_one_nan(x))
#define OUT_S_ONE_NAN(x) *(float *)out = ak_probe_one_nan_f32(x)
#define OUT_E_ONE_NAN(x) *(double *)out = ak_probe_one_nan_f64(x)
#define OUT_U(x) *(uint32_t *)out = x

static inline float ak_probe_one_nan_f32(float x) { return x == x ? x : ak_f32_from_bits(AK_F32_NAN_BITS); }
static inline double ak_probe_one_nan_f64(double x) { return x == x ? x : ak_f64_from_bits(AK_F64_NAN_BITS); }

#define AK_PROBE(name, signature, ...)                                                                           \
    static void ak_probe_##name(const void *a, const void *b, const void *c, void *out)                          \
    {                                                                                                            \
        (void)b, (void)c;                                                                                        \
        __VA_ARGS__;                                                                                             \
    }
#include "../simd/simd_table.h"
#undef AK_PROBE

static const struct ak_simd_probe AK_SIMD_PROBES[] = {
#define AK_PROBE(name, signature, ...) {#name, signature, ak_probe_##name},
#include "../simd/simd_table.h"
#undef AK_PROBE
};

#undef VF
#undef VD
#undef MF
#undef MD
#undef H
#undef FIRST
#undef OUT_F
#undef OUT_D
#undef OUT_F_ONE_NAN
#undef OUT_D_ONE_NAN
#undef OUT_S_ONE_NAN
#undef OUT_E_ONE_NAN
#undef OUT_U
#endif
#endif
