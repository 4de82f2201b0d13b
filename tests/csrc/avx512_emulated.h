/* AVX-512 intrinsics in plain code, so that csrc/simd/avx512.h can be tested on any x86 processor: SIMDe, plus the
 * few intrinsics that SIMDe 0.7.4 lacks, written here from their definitions. Use: -include avx512_emulated.h */
#ifndef AK_TESTS_AVX512_EMULATED_H
#define AK_TESTS_AVX512_EMULATED_H

#define AK_EMULATE_AVX512 1
#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#pragma GCC diagnostic pop

#include "simd/half.h"

#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
static inline __m512 emulated_maskz_loadu_ps(unsigned mask, const float *p)
{
    float x[16];
    for (int i = 0; i < 16; i++) x[i] = mask >> i & 1 ? p[i] : 0;
    return _mm512_loadu_ps(x);
}

#define _mm512_maskz_loadu_pd emulated_maskz_loadu_pd
static inline __m512d emulated_maskz_loadu_pd(unsigned mask, const double *p)
{
    double x[8];
    for (int i = 0; i < 8; i++) x[i] = mask >> i & 1 ? p[i] : 0;
    return _mm512_loadu_pd(x);
}

#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
static inline void emulated_mask_storeu_ps(float *p, unsigned mask, __m512 a)
{
    float x[16];
    _mm512_storeu_ps(x, a);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) p[i] = x[i];
}

#define _mm512_mask_storeu_pd emulated_mask_storeu_pd
static inline void emulated_mask_storeu_pd(double *p, unsigned mask, __m512d a)
{
    double x[8];
    _mm512_storeu_pd(x, a);
    for (int i = 0; i < 8; i++)
        if (mask >> i & 1) p[i] = x[i];
}

#define _mm512_cvtph_ps emulated_cvtph_ps
static inline __m512 emulated_cvtph_ps(__m256i a)
{
    uint16_t h[16];
    float x[16];
    memcpy(h, &a, sizeof h);
    for (int i = 0; i < 16; i++) x[i] = ak_f16_to_f32(h[i]);
    return _mm512_loadu_ps(x);
}

#undef _mm512_cvtps_ph /* some compilers have it as a macro */
#define _mm512_cvtps_ph emulated_cvtps_ph
static inline __m256i emulated_cvtps_ph(__m512 a, int rounding)
{
    uint16_t h[16];
    float x[16];
    __m256i result;
    (void)rounding; /* to nearest */
    _mm512_storeu_ps(x, a);
    for (int i = 0; i < 16; i++) h[i] = ak_f32_to_f16(x[i]);
    memcpy(&result, h, sizeof h);
    return result;
}

#define _mm512_cvtps_pd emulated_cvtps_pd
static inline __m512d emulated_cvtps_pd(__m256 a)
{
    float x[8];
    double y[8];
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 8; i++) y[i] = x[i];
    return _mm512_loadu_pd(y);
}

#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
static inline __m512i emulated_cvtepu16_epi32(__m256i a)
{
    uint16_t h[16];
    uint32_t x[16];
    __m512i result;
    memcpy(h, &a, sizeof h);
    for (int i = 0; i < 16; i++) x[i] = h[i];
    memcpy(&result, x, sizeof x);
    return result;
}

#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
static inline __m256i emulated_cvtepi32_epi16(__m512i a)
{
    uint16_t h[16];
    uint32_t x[16];
    __m256i result;
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 16; i++) h[i] = (uint16_t)x[i];
    memcpy(&result, h, sizeof h);
    return result;
}

#endif
