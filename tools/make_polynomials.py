"""Find the coefficients of csrc/simd/polynomials.h and print that file.

    python tools/make_polynomials.py > csrc/simd/polynomials.h

Each polynomial is a weighted least-squares fit on Chebyshev nodes (within a factor of about two of the minimax one,
and it stays well behaved when only high powers are left to fit) of what remains after the exact leading terms.
Coefficients are rounded to the target format one by one, from the lowest degree, and the rest is fitted again after
each rounding, so that later coefficients make up for the rounding of earlier ones. Needs mpmath.
"""

from mpmath import mp, mpf

mp.dps = 60


def round_to(x, bits):
    """Nearest number with `bits` significant bits."""
    if x == 0:
        return mpf(0)
    mantissa, exponent = mp.frexp(x)
    return mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), exponent - bits)


def fit(target, weight, powers, grid):
    """Coefficients c with sum over the grid of (weight(x) * (target(x) - sum c_j x^powers_j))^2 least."""
    n = len(powers)
    normal, right = mp.matrix(n, n), mp.matrix(n, 1)
    for x in grid:
        row = [weight(x) * x**p for p in powers]
        value = weight(x) * target(x)
        for i in range(n):
            right[i] += row[i] * value
            for j in range(n):
                normal[i, j] += row[i] * row[j]
    return mp.lu_solve(normal, right)


def fit_rounded(target, weight, degree, low, high, bits):
    """Coefficients of degree 0..degree, each representable with `bits` bits, and the largest weighted error."""
    nodes = 200
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mpf(1) / 2) / nodes) for i in range(nodes)]
    values = [target(x) for x in grid]
    fixed = []
    for first in range(degree + 1):
        rest = dict(zip(grid, values))
        for j, c in enumerate(fixed):
            rest = {x: v - c * x**j for x, v in rest.items()}
        fixed.append(round_to(fit(rest.get, weight, range(first, degree + 1), grid)[0], bits))
    ends = [low + (high - low) * mpf(i) / 999 for i in range(1000)]
    worst = max(abs(weight(x) * (target(x) - sum(c * x**j for j, c in enumerate(fixed)))) for x in ends)
    return fixed, worst


def literal(x, bits):
    """C hexadecimal constant of a number with at most `bits` significant bits."""
    assert round_to(x, bits) == x
    if x == 0:
        return "0.0"
    mantissa, exponent = mp.frexp(abs(x))
    digits = (bits + 3) // 4
    integer = int(mp.ldexp(mantissa, 4 * digits))
    text = f"0x{integer:0{digits}x}p{exponent - 4 * digits:+d}"
    return ("-" if x < 0 else "") + text + ("f" if bits == 24 else "")


def main():
    ln2 = mp.log(2)
    print("/* Constants and polynomial coefficients of csrc/simd/math.h. Made by tools/make_polynomials.py.")
    print(" * Coefficients from the lowest degree; the comment gives the relative error of the approximation. */")
    print("#ifndef AK_SIMD_POLYNOMIALS_H\n#define AK_SIMD_POLYNOMIALS_H")
    for name, kind, bits, degree_exp2, degree_exp, degree_log, exponent_bits in (
        ("F32", "float", 24, 6, 6, 3, 8),
        ("F64", "double", 53, 11, 12, 6, 11),
    ):
        def constant(word, value, keep=bits):
            print(f"#define AK_{name}_{word} {literal(round_to(value, keep), bits)}")

        def table(word, lead, coefficients, worst):
            rows = [literal(mpf(c), bits) for c in lead + coefficients]
            print(f"\n/* 2^{mp.nstr(mp.log(worst, 2), 4)} */")
            print(f"#define AK_{name}_{word}_DEGREE {len(rows) - 1}")
            print(f"static const {kind} ak_{name.lower()}_{word.lower()}[] = {{")
            for row in rows:
                print(f"    {row},")
            print("};")

        print()
        constant("LOG2E", 1 / ln2)
        # Two parts of ln 2. For exp the fused multiply-add makes the first step exact with a full-length head; for
        # log the head leaves room for a product with any exponent.
        constant("LN2_HEAD", ln2)
        constant("LN2_TAIL", ln2 - round_to(ln2, bits))
        constant("LN2_SHORT", ln2, bits - exponent_bits)
        constant("LN2_REST", ln2 - round_to(ln2, bits - exponent_bits))

        low, high = mpf(-1) / 2, mpf(1) / 2
        c, worst = fit_rounded(
            lambda x: (mpf(2) ** x - 1) / x if x else ln2, lambda x: abs(x) / mpf(2) ** x,
            degree_exp2 - 1, low, high, bits,
        )
        table("EXP2", [1], c, worst)
        # q of exp(x) = 1 + x + x^2 q(x), weighted for exp(x) - 1, which tanh builds on; exp itself is less demanding.
        low, high = -ln2 / 2 * mpf("1.0001"), ln2 / 2 * mpf("1.0001")
        c, worst = fit_rounded(
            lambda x: (mp.expm1(x) - x) / x**2 if x else mpf(1) / 2, lambda x: x**2 / mp.expm1(x) if x else x,
            degree_exp - 2, low, high, bits,
        )
        table("EXP", [], c, worst)
        # log((1 + s)/(1 - s)) = 2 s + s z P(z), z = s^2; |s| <= (sqrt 2 - 1)/(sqrt 2 + 1).
        high = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mpf("1.0001")
        c, worst = fit_rounded(
            lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z if z > mpf(10) ** -12 else mpf(2) / 3 + 2 * z / 5,
            lambda z: z / 2, degree_log, mpf(0), high, bits,
        )
        table("LOG", [], c, worst)
    print("\n#endif")


if __name__ == "__main__":
    main()
