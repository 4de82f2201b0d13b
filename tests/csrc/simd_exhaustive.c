/* One float32 function over all (or every k-th) of the 2^32 bit patterns, against a correctly rounded reference.
 *
 *     simd_exhaustive FUNCTION [STEP [FIRST [LAST]]]
 *
 * FUNCTION: exp exp2 exp2_neg log log1p tanh. Prints the largest error in ULP, its argument, how many results were
 * not exactly right at the edges (infinite, zero, NaN where the reference is not, or a NaN that is not canonical), how
 * often the function went down from one argument to the next (exp must not), and an FNV-1a checksum of all results,
 * equal for every target.
 *
 * The reference is the C library's double function: its error, at most about two ULP of its own, is below 10^-8
 * float32 ULP. The error in ULP is |y - exact| over the spacing of float32 at the exact value. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simd/math.h"

enum { BLOCK = 1024 };

static double reference_exp2_neg(double x)
{
    /* From -126.5 down the result is 0 by definition: simd/math_body.h. */
    return x <= -126.5 ? 0.0 : exp2(x);
}

#define EVALUATE(name)                                                               \
    static void evaluate_##name(const float *x, float *y)                            \
    {                                                                                \
        for (int i = 0; i < BLOCK; i += VF_LANES) vf_store(y + i, vf_##name(vf_load(x + i))); \
    }
EVALUATE(exp)
EVALUATE(exp2)
EVALUATE(exp2_neg)
EVALUATE(log)
EVALUATE(log1p)
EVALUATE(tanh)

static const struct {
    const char *name;
    void (*evaluate)(const float *, float *);
    double (*reference)(double);
    float high; /* arguments above are left out */
    int canonical;
} functions[] = {
    {"exp", evaluate_exp, exp, INFINITY, 1},
    {"exp2", evaluate_exp2, exp2, INFINITY, 1},
    {"exp2_neg", evaluate_exp2_neg, reference_exp2_neg, 0.0f, 0},
    {"log", evaluate_log, log, INFINITY, 1},
    {"log1p", evaluate_log1p, log1p, INFINITY, 1},
    {"tanh", evaluate_tanh, tanh, INFINITY, 1},
};

/* Spacing of float32 numbers at |x|, with the spacing of the last binade beyond it. */
static double spacing(double x)
{
    int exponent;
    frexp(fabs(x), &exponent);
    if (exponent > 128) exponent = 128;
    if (exponent < -125) exponent = -125;
    return ldexp(1.0, exponent - 24);
}

int main(int argc, char **argv)
{
    size_t which = 0;
    if (argc < 2) return 2;
    while (which < sizeof functions / sizeof *functions && strcmp(functions[which].name, argv[1]) != 0) which++;
    if (which == sizeof functions / sizeof *functions) return 2;
    const uint64_t step = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    const uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;
    const uint64_t last = argc > 4 ? strtoull(argv[4], NULL, 0) : 0xffffffffu;

    uint64_t checksum = 0xcbf29ce484222325u, tested = 0, wrong = 0, falls = 0;
    double worst = 0;
    float worst_at = 0, wrong_at = 0, before = NAN, before_x = NAN;
    float x[BLOCK], y[BLOCK];
    uint64_t next = first;
    while (next <= last) {
        int n = 0;
        for (; n < BLOCK && next <= last; next += step) {
            const float value = ak_f32_from_bits((uint32_t)next);
            if (!(value > functions[which].high)) x[n++] = value;
        }
        for (int i = n; i < BLOCK; i++) x[i] = 0;
        functions[which].evaluate(x, y);
        for (int i = 0; i < n; i++) {
            uint32_t bits = ak_f32_bits(y[i]);
            const double exact = functions[which].reference(x[i]);
            if (isnan(y[i]) && !functions[which].canonical) bits = AK_F32_NAN_BITS;
            for (int byte = 0; byte < 4; byte++) checksum = (checksum ^ (bits >> (8 * byte) & 0xffu)) * 0x100000001b3u;
            int good = 1;
            if (isnan(exact)) {
                good = bits == AK_F32_NAN_BITS;
            } else if (isinf(y[i])) {
                /* Overflow where rounding to nearest overflows, give or take the one ULP allowed. */
                good = fabs(exact) > 0x1.fffffcp127 && !signbit(exact) == !signbit(y[i]);
            } else if (isinf(exact) || isnan(y[i])) {
                good = 0;
            } else if (exact == 0) {
                good = y[i] == 0 && !signbit(y[i]) == !signbit(exact);
            } else {
                const double error = fabs(y[i] - exact) / spacing(exact);
                if (error > worst) {
                    worst = error;
                    worst_at = x[i];
                }
            }
            if (!good) {
                wrong++;
                wrong_at = x[i];
            }
            /* All functions here increase; bit patterns of one sign are in the order of their magnitudes. */
            if (!signbit(before_x) == !signbit(x[i]) && (signbit(x[i]) ? y[i] > before : y[i] < before)) falls++;
            before = y[i];
            before_x = x[i];
            tested++;
        }
    }
    printf("%s tested %llu max_ulp %.4f at %a wrong %llu (%a) falls %llu checksum %016llx\n", argv[1],
           (unsigned long long)tested, worst, (double)worst_at, (unsigned long long)wrong, (double)wrong_at,
           (unsigned long long)falls, (unsigned long long)checksum);
    return wrong != 0 || worst > 1 || (falls != 0 && strcmp(argv[1], "exp") == 0);
}
