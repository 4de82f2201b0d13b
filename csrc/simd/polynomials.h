/* Constants and polynomial coefficients of csrc/simd/math.h. Made by tools/make_polynomials.py.
 * Coefficients from the lowest degree; the comment gives the relative error of the approximation. */
#ifndef AK_SIMD_POLYNOMIALS_H
#define AK_SIMD_POLYNOMIALS_H

#define AK_F32_LOG2E 0xb8aa3bp-23f
#define AK_F32_LN2_HEAD 0xb17218p-24f
#define AK_F32_LN2_TAIL -0x82e308p-52f
#define AK_F32_LN2_SHORT 0xb17200p-24f
#define AK_F32_LN2_REST 0xbfbe8ep-43f

/* 2^-28.06 */
#define AK_F32_EXP2_DEGREE 6
static const float ak_f32_exp2[] = {
    0x800000p-23f,
    0xb17218p-24f,
    0xf5fdecp-26f,
    0xe357bcp-28f,
    0x9d9858p-30f,
    0xaf8533p-33f,
    0x9fc836p-36f,
};

/* 2^-26.07 */
#define AK_F32_EXP_DEGREE 4
static const float ak_f32_exp[] = {
    0xffffffp-25f,
    0xaaaa57p-26f,
    0xaaab91p-28f,
    0x891461p-30f,
    0xb5b28ap-33f,
};

/* 2^-34.99 */
#define AK_F32_LOG_DEGREE 3
static const float ak_f32_log[] = {
    0xaaaaaap-24f,
    0xcccdeap-25f,
    0x91f8d0p-25f,
    0xf60f21p-26f,
};

#define AK_F64_LOG2E 0xb8aa3b295c17f0p-55
#define AK_F64_LN2_HEAD 0xb17217f7d1cf78p-56
#define AK_F64_LN2_TAIL 0xd5e4f1d9cc01f8p-111
#define AK_F64_LN2_SHORT 0xb17217f7d1c000p-56
#define AK_F64_LN2_REST 0xf79abc9e3b3980p-100

/* 2^-57.32 */
#define AK_F64_EXP2_DEGREE 11
static const double ak_f64_exp2[] = {
    0x80000000000000p-55,
    0xb17217f7d1cf78p-56,
    0xf5fdeffc162d28p-58,
    0xe35846b8250910p-60,
    0x9d955b7dcffd98p-62,
    0xaec3ff3c5088e0p-65,
    0xa184898789ce58p-68,
    0xffe5fe2cade7b0p-72,
    0xb15fe38f53bc40p-75,
    0xda929fb01b2008p-79,
    0xf30e082c50ca38p-83,
    0xf4a38e43adc020p-87,
};

/* 2^-61.5 */
#define AK_F64_EXP_DEGREE 10
static const double ak_f64_exp[] = {
    0x80000000000000p-56,
    0xaaaaaaaaaaaac8p-58,
    0xaaaaaaaaaaaa60p-60,
    0x8888888887b2c8p-62,
    0xb60b60b60d9910p-65,
    0xd00d00d8004af8p-68,
    0xd00d00c5a27c58p-71,
    0xb8eefc0cab1658p-74,
    0x93f28cc234d970p-77,
    0xd7af8b955cc7b8p-81,
    0x8f8815dbe3bf28p-84,
};

/* 2^-59.44 */
#define AK_F64_LOG_DEGREE 6
static const double ak_f64_log[] = {
    0xaaaaaaaaaaaca0p-56,
    0xccccccccbfb968p-57,
    0x924924a11e39a0p-57,
    0xe38e28ea87d150p-58,
    0xba332430bc7668p-58,
    0x9cd06efd4ca610p-58,
    0x9786af16493ca8p-58,
};

#endif
