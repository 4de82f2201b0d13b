/* The elementary functions for one type; math.h sets the macros and includes this file once per type. */

/* c[0] + c[1] x + ... , from the top down. */
AK_SIMD_INLINE AK_V AK_FN(horner)(AK_V x, const AK_S *c, int degree)
{
    AK_V p = AK_FN(set1)(c[degree]);
    _Pragma("GCC unroll 16")
    for (int i = degree - 1; i >= 0; i--) p = AK_FN(fma)(p, x, AK_FN(set1)(c[i]));
    return p;
}

AK_SIMD_INLINE AK_V AK_FN(one_nan)(AK_V x)
{
    return AK_FN(select)(AK_FN(isnan)(x), AK_FN(set1)(AK_NAN), x);
}

/* 2^x for -BIAS <= x <= 0 (or NaN): the weight of a score below its row's maximum.
 *
 * Adding ROUNDER + BIAS leaves the biased exponent of the result in the low bits, so one shift makes the power of
 * two. The product, unlike an integer addition to the exponent, lets no payload of a NaN reach the exponent, and
 * below the normal range it rounds correctly, until from x = -(BIAS - 1/2) down the power is +0. */
AK_SIMD_INLINE AK_V AK_FN(exp2_neg_clamped)(AK_V x)
{
    const AK_V rounder = AK_FN(set1)(AK_ROUNDER + AK_BIAS);
    const AK_V t = AK_FN(add)(x, rounder);
    const AK_V f = AK_FN(sub)(x, AK_FN(sub)(t, rounder));
    return AK_FN(mul)(AK_FN(horner)(f, AK_TABLE(exp2), AK_K(EXP2_DEGREE)), AK_FN(pow2_from_bits)(t));
}

/* 16^x = 2^(4 x) for -BIAS/4 <= x <= 0 (or NaN): the bytes of exp2_neg_clamped(4 x) at the same cost, for scores whose
 * unit is four times as large, so that no finite score overflows. */
AK_SIMD_INLINE AK_V AK_FN(exp16_neg_clamped)(AK_V x)
{
    const AK_V rounder = AK_FN(set1)(AK_ROUNDER + AK_BIAS), four = AK_FN(set1)((AK_S)4);
    const AK_V t = AK_FN(fma)(x, four, rounder);
    const AK_V f = AK_FN(fma)(x, four, AK_FN(sub)(rounder, t));
    return AK_FN(mul)(AK_FN(horner)(f, AK_TABLE(exp2), AK_K(EXP2_DEGREE)), AK_FN(pow2_from_bits)(t));
}

AK_SIMD_INLINE AK_V AK_FN(exp16_neg)(AK_V x)
{
    return AK_FN(exp16_neg_clamped)(AK_FN(max)(AK_FN(set1)(-AK_BIAS / 4), x));
}

/* 2^x for x <= 0: 1 at 0, +0 from -(BIAS - 1/2) down; NaN stays NaN (its payload is not canonical).
 * Neighbouring arguments may fall by one ULP (4 in 10^5 do), here and in exp2; in float32 exp, log, log1p and tanh never fall. */
AK_SIMD_INLINE AK_V AK_FN(exp2_neg)(AK_V x)
{
    return AK_FN(exp2_neg_clamped)(AK_FN(max)(AK_FN(set1)(-AK_BIAS), x));
}

/* p * 2^n over the whole range: two factors, since one may overflow where the product does not. Only the second
 * product can round, so a denormal result is rounded once. */
AK_SIMD_INLINE AK_V AK_FN(times_pow2)(AK_V p, AK_V n)
{
    const AK_V rounder = AK_FN(set1)(AK_ROUNDER + AK_BIAS);
    const AK_V t1 = AK_FN(fma)(n, AK_FN(set1)((AK_S)0.5), rounder);
    const AK_V t2 = AK_FN(add)(AK_FN(sub)(n, AK_FN(sub)(t1, rounder)), rounder);
    return AK_FN(mul)(AK_FN(mul)(p, AK_FN(pow2_from_bits)(t1)), AK_FN(pow2_from_bits)(t2));
}

/* low and high lie beyond the range where the result is neither 0 nor infinite; NaN passes. */
AK_SIMD_INLINE AK_V AK_FN(clamp)(AK_V x, AK_S low, AK_S high)
{
    return AK_FN(max)(AK_FN(set1)(low), AK_FN(min)(AK_FN(set1)(high), x));
}

AK_SIMD_INLINE AK_V AK_FN(exp2)(AK_V x)
{
    const AK_V rounder = AK_FN(set1)(AK_ROUNDER);
    const AK_V y = AK_FN(clamp)(x, AK_EXP2_RANGE);
    const AK_V n = AK_FN(sub)(AK_FN(add)(y, rounder), rounder);
    const AK_V p = AK_FN(horner)(AK_FN(sub)(y, n), AK_TABLE(exp2), AK_K(EXP2_DEGREE));
    return AK_FN(one_nan)(AK_FN(times_pow2)(p, n));
}

/* x = n ln 2 + r + r_low with n an integer and |r| <= ln 2 / 2; returns n. */
AK_SIMD_INLINE AK_V AK_FN(reduce_ln2)(AK_V x, AK_V *r, AK_V *r_low)
{
    const AK_V rounder = AK_FN(set1)(AK_ROUNDER), tail = AK_FN(set1)(AK_K(LN2_TAIL));
    const AK_V n = AK_FN(sub)(AK_FN(fma)(x, AK_FN(set1)(AK_K(LOG2E)), rounder), rounder);
    const AK_V head = AK_FN(fnma)(n, AK_FN(set1)(AK_K(LN2_HEAD)), x); /* exact */
    *r = AK_FN(fnma)(n, tail, head);
    *r_low = AK_FN(fnma)(n, tail, AK_FN(sub)(head, *r));
    return n;
}

/* exp(r + r_low) - 1 - r = r_low + r^2 q(r) */
AK_SIMD_INLINE AK_V AK_FN(exp_rest)(AK_V r, AK_V r_low)
{
    return AK_FN(fma)(AK_FN(mul)(r, r), AK_FN(horner)(r, AK_TABLE(exp), AK_K(EXP_DEGREE)), r_low);
}

/* r enters as it is, so that the error of the rest is small against the step of r: exp is monotone. */
AK_SIMD_INLINE AK_V AK_FN(exp)(AK_V x)
{
    AK_V r, r_low;
    const AK_V n = AK_FN(reduce_ln2)(AK_FN(clamp)(x, AK_EXP_RANGE), &r, &r_low);
    const AK_V p = AK_FN(add)(AK_FN(set1)((AK_S)1), AK_FN(add)(r, AK_FN(exp_rest)(r, r_low)));
    return AK_FN(one_nan)(AK_FN(times_pow2)(p, n));
}

/* k ln 2 + log(1 + f) + tail, for sqrt(1/2) <= 1 + f < sqrt(2), tail below the last digit of the rest.
 * With s = f / (2 + f): log(1 + f) = f - (f^2/2 - s (f^2/2 + s^2 P(s^2))). */
AK_SIMD_INLINE AK_V AK_FN(log_core)(AK_V k, AK_V f, AK_V tail)
{
    const AK_V s = AK_FN(div)(f, AK_FN(add)(AK_FN(set1)((AK_S)2), f));
    const AK_V z = AK_FN(mul)(s, s);
    const AK_V half_square = AK_FN(mul)(AK_FN(mul)(f, AK_FN(set1)((AK_S)0.5)), f);
    const AK_V sum = AK_FN(fma)(z, AK_FN(horner)(z, AK_TABLE(log), AK_K(LOG_DEGREE)), half_square);
    const AK_V bend = AK_FN(fnma)(s, sum, half_square);
    const AK_V head = AK_FN(mul)(k, AK_FN(set1)(AK_K(LN2_SHORT))); /* exact */
    const AK_V high = AK_FN(add)(head, f);
    const AK_V low = AK_FN(sub)(f, AK_FN(sub)(high, head)); /* exact: k = 0, or |head| > |f| */
    const AK_V rest = AK_FN(sub)(AK_FN(fma)(k, AK_FN(set1)(AK_K(LN2_REST)), tail), bend);
    return AK_FN(add)(high, AK_FN(add)(low, rest));
}

AK_SIMD_INLINE AK_V AK_FN(log)(AK_V x)
{
    const AK_V infinity = AK_FN(set1)((AK_S)__builtin_inf());
    const AK_M tiny = AK_FN(lt)(x, AK_FN(set1)(AK_MIN_NORMAL));
    AK_V m;
    AK_V k = AK_FN(split_exp)(AK_FN(select)(tiny, AK_FN(mul)(x, AK_FN(set1)((AK_S)0x1p64)), x), &m);
    k = AK_FN(sub)(k, AK_FN(and_mask)(tiny, AK_FN(set1)((AK_S)64)));
    AK_V y = AK_FN(log_core)(k, AK_FN(sub)(m, AK_FN(set1)((AK_S)1)), AK_FN(zero)());
    y = AK_FN(select)(AK_FN(eq)(x, AK_FN(zero)()), AK_FN(neg)(infinity), y);
    y = AK_FN(select)(AK_FN(eq)(x, infinity), infinity, y);
    return AK_FN(select)(AK_FN(ge)(x, AK_FN(zero)()), y, AK_FN(set1)(AK_NAN));
}

AK_SIMD_INLINE AK_V AK_FN(log1p)(AK_V x)
{
    const AK_V one = AK_FN(set1)((AK_S)1), minus_one = AK_FN(set1)((AK_S)-1);
    const AK_V infinity = AK_FN(set1)((AK_S)__builtin_inf());
    /* u + c = 1 + x exactly. */
    const AK_V u = AK_FN(add)(one, x);
    const AK_V back = AK_FN(sub)(u, one);
    const AK_V c = AK_FN(add)(AK_FN(sub)(one, AK_FN(sub)(u, back)), AK_FN(sub)(x, back));
    AK_V m;
    const AK_V k = AK_FN(split_exp)(u, &m);
    /* Without a power of two x itself is f, to the last digit; with one, log(u + c) = log(u) + c / u. */
    const AK_M plain = AK_FN(eq)(k, AK_FN(zero)());
    const AK_V f = AK_FN(select)(plain, x, AK_FN(sub)(m, one));
    const AK_V tail = AK_FN(select)(plain, AK_FN(zero)(), AK_FN(div)(c, u));
    AK_V y = AK_FN(log_core)(k, f, tail);
    y = AK_FN(select)(AK_FN(eq)(x, AK_FN(zero)()), x, y);
    y = AK_FN(select)(AK_FN(eq)(x, minus_one), AK_FN(neg)(infinity), y);
    y = AK_FN(select)(AK_FN(eq)(x, infinity), infinity, y);
    return AK_FN(select)(AK_FN(ge)(x, minus_one), y, AK_FN(set1)(AK_NAN));
}

/* tanh|x| = e / (e + 2) with e = exp(2|x|) - 1 in two parts, high + low. */
AK_SIMD_INLINE AK_V AK_FN(tanh)(AK_V x)
{
    const AK_V one = AK_FN(set1)((AK_S)1), two = AK_FN(set1)((AK_S)2);
    const AK_V magnitude = AK_FN(abs)(x);
    const AK_V y = AK_FN(mul)(two, AK_FN(min)(AK_FN(set1)(AK_TANH_ONE), magnitude));
    AK_V r, r_low;
    const AK_V n = AK_FN(reduce_ln2)(y, &r, &r_low);
    const AK_V small = AK_FN(exp_rest)(r, r_low);
    const AK_V power = AK_FN(pow2_from_bits)(AK_FN(add)(n, AK_FN(set1)(AK_ROUNDER + AK_BIAS)));
    /* e = (2^n - 1) + 2^n r + 2^n small; the first two are added without loss: n = 0, or 2^n - 1 is the larger. */
    const AK_V whole = AK_FN(sub)(power, one);
    const AK_V part = AK_FN(mul)(power, r);
    const AK_V most = AK_FN(add)(whole, part);
    const AK_V missing = AK_FN(fma)(power, small, AK_FN(sub)(part, AK_FN(sub)(most, whole)));
    const AK_V high = AK_FN(add)(most, missing);
    const AK_V low = AK_FN(sub)(missing, AK_FN(sub)(high, most));
    /* e + 2 = below + below_low, again without loss. */
    const AK_V below = AK_FN(add)(high, two);
    const AK_V back = AK_FN(sub)(below, two);
    const AK_V loss = AK_FN(add)(AK_FN(sub)(two, AK_FN(sub)(below, back)), AK_FN(sub)(high, back));
    const AK_V below_low = AK_FN(add)(loss, low);
    /* One division, one correction with its exact remainder. */
    const AK_V inverse = AK_FN(div)(one, below);
    const AK_V quotient = AK_FN(mul)(high, inverse);
    const AK_V remainder = AK_FN(fnma)(quotient, below, high);
    const AK_V correction = AK_FN(add)(remainder, AK_FN(fnma)(quotient, below_low, low));
    AK_V result = AK_FN(fma)(correction, inverse, quotient);
    result = AK_FN(select)(AK_FN(ge)(magnitude, AK_FN(set1)(AK_TANH_ONE)), one, result);
    /* Odd: the sign of x, zeros included. */
    result = AK_FN(select)(AK_FN(lt)(x, AK_FN(zero)()), AK_FN(neg)(result), result);
    result = AK_FN(select)(AK_FN(eq)(x, AK_FN(zero)()), x, result);
    return AK_FN(one_nan)(result);
}

#undef AK_V
#undef AK_M
#undef AK_S
#undef AK_FN
#undef AK_K
#undef AK_TABLE
#undef AK_ROUNDER
#undef AK_BIAS
#undef AK_MIN_NORMAL
#undef AK_NAN
#undef AK_EXP_RANGE
#undef AK_EXP2_RANGE
#undef AK_TANH_ONE
