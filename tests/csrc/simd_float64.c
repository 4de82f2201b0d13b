/* The float64 functions at COUNT random points, against the C library's long double function.
 *
 *     simd_float64 FUNCTION COUNT [SEED]
 *
 * FUNCTION: exp exp2 exp2_neg log log1p tanh. Half of the points are uniform over the range where the function does
 * something, a quarter are random bit patterns, a quarter lie within a few ULP of points where reductions change:
 * multiples of ln 2 / 2, half-integers, sqrt(1/2) times powers of two. Prints the same line as simd_exhaustive.
 *
 * Needs a long double of 64 significant bits or more; its error is then about 2^-11 of a float64 ULP. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simd/math.h"

_Static_assert(LDBL_MANT_DIG >= 64, "the reference needs extended precision");

static long double reference_exp2_neg(long double x)
{
    return x <= -1022.5L ? 0.0L : exp2l(x);
}

#define EVALUATE(name)                                                               \
    static void evaluate_##name(const double *x, double *y) { vd_store(y, vd_##name(vd_load(x))); }
EVALUATE(exp)
EVALUATE(exp2)
EVALUATE(exp2_neg)
EVALUATE(log)
EVALUATE(log1p)
EVALUATE(tanh)

static const struct {
    const char *name;
    void (*evaluate)(const double *, double *);
    long double (*reference)(long double);
    double low, high; /* the interesting range */
    double limit;     /* arguments above are left out */
    int canonical;
} functions[] = {
    {"exp", evaluate_exp, expl, -750, 712, INFINITY, 1},
    {"exp2", evaluate_exp2, exp2l, -1080, 1026, INFINITY, 1},
    {"exp2_neg", evaluate_exp2_neg, reference_exp2_neg, -1030, 0, 0, 0},
    {"log", evaluate_log, logl, 0, 4, INFINITY, 1},
    {"log1p", evaluate_log1p, log1pl, -1, 4, INFINITY, 1},
    {"tanh", evaluate_tanh, tanhl, -20, 20, INFINITY, 1},
};

static uint64_t state;

/* splitmix64 */
static uint64_t random_bits(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double point(size_t which, uint64_t index)
{
    const double unit = (double)(random_bits() >> 11) * 0x1p-53;
    const double low = functions[which].low, high = functions[which].high;
    const double uniform = low + unit * (high - low);
    const uint64_t choice = random_bits();
    double near;
    switch (index % 8) {
    case 0: case 1: case 2: return uniform;
    case 3: return uniform * ldexp(1, -(int)(choice % 60)); /* towards zero */
    case 4: case 5: return ak_f64_from_bits(choice);
    case 6: near = rint(uniform * 4) * 0.17328679513998633; break;
    default: near = choice & 1 ? rint(uniform * 2) / 2 : ldexp(0.7071067811865476, (int)(choice % 64) - 32); break;
    }
    return ak_f64_from_bits(ak_f64_bits(near) + (choice >> 8) % 9 - 4);
}

static long double spacing(long double x)
{
    int exponent;
    frexpl(fabsl(x), &exponent);
    if (exponent > 1024) exponent = 1024;
    if (exponent < -1021) exponent = -1021;
    return ldexpl(1.0L, exponent - 53);
}

int main(int argc, char **argv)
{
    size_t which = 0;
    if (argc < 3) return 2;
    while (which < sizeof functions / sizeof *functions && strcmp(functions[which].name, argv[1]) != 0) which++;
    if (which == sizeof functions / sizeof *functions) return 2;
    const uint64_t count = strtoull(argv[2], NULL, 0);
    state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;

    uint64_t checksum = 0xcbf29ce484222325u, tested = 0, wrong = 0;
    long double worst = 0;
    double worst_at = 0, wrong_at = 0, x[VD_LANES], y[VD_LANES];
    while (tested < count) {
        for (int i = 0; i < VD_LANES; i++) {
            x[i] = point(which, tested + (uint64_t)i);
            if (x[i] > functions[which].limit) x[i] = -x[i];
        }
        functions[which].evaluate(x, y);
        for (int i = 0; i < VD_LANES; i++) {
            uint64_t bits = ak_f64_bits(y[i]);
            const long double exact = functions[which].reference(x[i]);
            if (isnan(y[i]) && !functions[which].canonical) bits = AK_F64_NAN_BITS;
            checksum = (checksum ^ bits) * 0x100000001b3u;
            int good = 1;
            if (isnan(exact)) {
                good = bits == AK_F64_NAN_BITS;
            } else if (isinf(y[i])) {
                good = fabsl(exact) > 0x1.ffffffffffffep1023L && !signbit(exact) == !signbit(y[i]);
            } else if (isinf(exact) || isnan(y[i])) {
                good = 0;
            } else if (exact == 0) {
                good = y[i] == 0 && !signbit(y[i]) == !signbit(exact);
            } else {
                const long double error = fabsl(y[i] - exact) / spacing(exact);
                if (error > worst) {
                    worst = error;
                    worst_at = x[i];
                }
            }
            if (!good) {
                wrong++;
                wrong_at = x[i];
            }
            tested++;
        }
    }
    printf("%s tested %llu max_ulp %.4Lf at %a wrong %llu (%a) checksum %016llx\n", argv[1],
           (unsigned long long)tested, worst, worst_at, (unsigned long long)wrong, wrong_at,
           (unsigned long long)checksum);
    return wrong != 0 || worst > 1;
}
