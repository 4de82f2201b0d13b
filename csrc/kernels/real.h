/* Names of one real type: included with AK_REAL_IS_FLOAT set to 1 or 0, before the kernels that are written once for
 * both. R(x) = x_f32 or x_f64; V(op) and M(op) are the vector and mask operations of csrc/simd. */
#undef R
#undef V
#undef M
#undef VL
#undef real
#undef vreal
#undef mreal
#undef AK_REAL_DTYPE
#undef AK_MAX_FINITE
#if AK_REAL_IS_FLOAT
#define R(name) name##_f32
#define V(name) vf_##name
#define M(name) mf_##name
#define VL 16
#define real float
#define vreal vf
#define mreal mf
#define AK_REAL_DTYPE AK_F32
#define AK_MAX_FINITE 3.40282347e+38f
#else
#define R(name) name##_f64
#define V(name) vd_##name
#define M(name) md_##name
#define VL 8
#define real double
#define vreal vd
#define mreal md
#define AK_REAL_DTYPE AK_F64
#define AK_MAX_FINITE 1.7976931348623157e+308
#endif
