"""The vector layer, target by target: equal bytes between targets, and the promised semantics against NumPy."""

from fractions import Fraction

import numpy as np
import pytest

from attnkit import _core

# Letter of a signature -> element type and elements per call; the contract is csrc/simd/simd_table.h.
OPERANDS = {
    "f": ("f4", 16), "s": ("f4", 1), "F": ("f4", 256), "w": ("f4", 8),
    "d": ("f8", 8), "e": ("f8", 1), "D": ("f8", 64),
    "h": ("u2", 16), "g": ("u2", 8), "u": ("u4", 1), "i": ("i4", 1),
}  # fmt: skip
USABLE = [word for word, _, usable in _core.isa_table() if usable]
PROBES = dict(_core.simd(USABLE[-1]))
UNARY_MATH = ["exp", "exp2", "exp2_neg", "log", "log1p", "tanh"]
UNSIGNED = {"f2": "u2", "f4": "u4", "f8": "u8"}


def simd(target, name, *operands):
    """Run one operation over whole arrays; operands are padded with zeros to full calls."""
    signature = PROBES[name]
    counts = [OPERANDS[letter][1] for letter in signature[: signature.index(">")]]
    calls = max(-(-len(x) // n) for x, n in zip(operands, counts))
    full = []
    for x, n, letter in zip(operands, counts, signature):
        kind = OPERANDS[letter][0]
        buffer = np.zeros(calls * n, kind)
        buffer[: len(x)] = x.view(kind) if x.dtype.itemsize == buffer.itemsize else x.astype(kind)
        full.append(buffer)
    return np.asarray(_core.simd(target, name, *full)).copy()


def bits(x):
    return x.view(UNSIGNED.get(x.dtype.str[1:], x.dtype))


def same_bytes(x, y):
    assert x.dtype == y.dtype and x.shape == y.shape
    bad = np.flatnonzero(bits(x) != bits(y))
    assert bad.size == 0, f"{bad.size} differ, first at {bad[0]}: {x[bad[0]]!r} and {y[bad[0]]!r}"


def edges(kind):
    """Zeros, denormals, powers of two and their neighbours, integers, half-integers, infinities, NaNs; both signs."""
    info = np.finfo(kind)
    fraction, top = info.nmant, info.maxexp
    exponents = [*range(-12, 13), fraction, fraction + 1, top // 2, top - 2, top - 1]
    exponents += [-fraction - 1, -fraction, -top // 2, info.minexp, info.minexp + 1]
    powers = np.ldexp(np.ones(len(exponents), kind), exponents)
    near = [np.nextafter(powers, np.array(way, kind)) for way in (0, np.inf)]
    halves = np.arange(0, 152, dtype=kind) / 2
    large = np.array([87.3, 88.7, 88.8, 103.9, 104, 126, 126.5, 127, 128, 149, 150, 151], kind)
    wide_range = np.array([708.3, 709.7, 709.8, 745.1, 746, 1022, 1022.5, 1023, 1024, 1074, 1075, 1076], kind)
    logs = np.array([0.5**0.5, 2**0.5, np.log(2), np.log(2) / 2], kind)
    tiny = np.array([1, 2, 3, 2 ** (fraction - 1), 2**fraction - 1], UNSIGNED[kind]).view(kind)
    exponent = (1 << (8 * info.dtype.itemsize - 1 - fraction)) - 1 << fraction
    payloads = [0, 1, 0x7A2, 1 << (fraction - 1), 2**fraction - 1]  # infinity, signalling and quiet NaNs
    odd = np.array([exponent + payload for payload in payloads], UNSIGNED[kind])
    values = np.concatenate([tiny, powers, *near, halves, large, wide_range, logs, [info.max], odd.view(kind)]).astype(kind, copy=False)
    bits(values)[-len(odd) :] = odd  # a conversion may have made the signalling NaN quiet
    negative = values.copy()
    bits(negative)[:] |= UNSIGNED_SIGN[kind]
    return np.concatenate([values, negative])


UNSIGNED_SIGN = {"f4": np.uint32(1 << 31), "f8": np.uint64(1 << 63)}


def spread(kind, n, seed, reach=3):
    """n numbers of both signs whose magnitudes spread over many powers of two."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * 10 ** rng.uniform(-reach, reach, n)).astype(kind)


def samples(name, seed=0):
    """Operands of an operation: edge values (of two operands all pairings), every half, random bits, ordinary numbers."""
    rng = np.random.default_rng(seed)
    letters = PROBES[name].partition(">")[0]
    columns, fixed = [], {}
    numbers = [i for i, letter in enumerate(letters) if OPERANDS[letter][0] in UNSIGNED_SIGN]
    for i in numbers:
        fixed[i] = edges(OPERANDS[letters[i]][0])
    if len(numbers) > 1:
        first, second = fixed[numbers[0]], fixed[numbers[1]]
        fixed[numbers[0]], fixed[numbers[1]] = np.repeat(first, len(second)), np.tile(second, len(first))
    for i, letter in enumerate(letters):
        if letter in "hg":
            fixed[i] = np.arange(65536, dtype="u2")
        elif letter == "u":
            fixed[i] = np.array([0, 1, 0x80, 0xFF, 0x8000, 0xFFFF, 0xFFFFFFFF], "u4")
        elif letter == "i":
            fixed[i] = np.arange(OPERANDS[letters[0]][1] + 1, dtype="i4")
    calls = 128 + max(-(-len(fixed[i]) // OPERANDS[letter][1]) for i, letter in enumerate(letters))
    for i, letter in enumerate(letters):
        kind, count = OPERANDS[letter]
        total = calls * count
        if letter == "i":
            x = rng.integers(0, len(fixed[i]), total).astype(kind)
        else:
            x = np.frombuffer(rng.bytes(total * np.dtype(kind).itemsize), kind).copy()
            if i in numbers:
                x[::2] = spread(kind, len(x[::2]), seed + i)
        bits(x)[: len(fixed[i])] = bits(fixed[i])
        columns.append(x)
    return columns


@pytest.mark.parametrize("name", sorted(PROBES))
def test_targets_agree_to_the_byte(name):
    operands = samples(name)
    first = simd(USABLE[-1], name, *operands)
    assert bits(first).any() or name.endswith("_zero")
    for target in USABLE[:-1]:
        assert dict(_core.simd(target))[name] == PROBES[name]
        same_bytes(simd(target, name, *operands), first)


# ---- what the operations mean -----------------------------------------------------------------------------------


def one_nan(x):
    """One quiet NaN, positive."""
    x = np.array(x)
    bits(x)[np.isnan(x)] = {4: 0x7FC00000, 8: 0x7FF8000000000000}[x.itemsize]
    return x


def packed(mask, lanes):
    """Lane masks as integers, one per vector."""
    return (mask.reshape(-1, lanes) << np.arange(lanes)).sum(axis=1).astype("u4")


def lanes_of(word, lanes):
    return (word[:, None] >> np.arange(lanes, dtype="u4") & 1).astype(bool).ravel()


def tree(x, lanes, combine):
    x = x.reshape(-1, lanes)
    while lanes > 1:
        lanes //= 2
        x = combine(x[:, :lanes], x[:, lanes:])
    return x[:, 0]


def pick(mask, a, b):
    return np.where(mask, bits(a), bits(b)).astype(bits(a).dtype).view(a.dtype)


def first_lanes(x, n, lanes, rest=None):
    keep = (np.arange(lanes) < n[:, None]).ravel()
    return pick(keep, x, np.zeros_like(x) if rest is None else rest)


def to_f16(x):
    y = bits(x.astype("f2"))
    y[np.isnan(x)] = 0x7E00
    return y


def to_bf16(x):
    """Round to nearest even by comparing the two neighbours in float64."""
    low = bits(x) & 0xFFFF0000
    with np.errstate(all="ignore"):
        down = low.view("f4").astype("f8")
        # Beyond the largest bfloat16 comes the power of two, not infinity: that is where rounding overflows.
        up = np.where(low & 0x7FFFFFFF == 0x7F7F0000, np.copysign(2.0**128, down), (low + 0x10000).view("f4").astype("f8"))
        below, above = abs(x - down), abs(up - x)
    away = (above < below) | ((above == below) & (low >> 16 & 1 == 1))
    y = ((low + np.where(away & np.isfinite(x), 0x10000, 0).astype("u4")) >> 16).astype("u2")
    y[np.isnan(x)] = 0x7FC0
    return y


def quiet(x):
    """Signalling NaNs quiet, payloads kept."""
    x = x.copy()
    bits(x)[np.isnan(x)] |= {4: 1 << 22, 8: 1 << 51}[x.itemsize]
    return x


def f16(h):
    return quiet(h.view("f2").astype("f4"))


def bf16(h):
    return (h.astype("u4") << 16).view("f4")


def wide(x):
    return quiet(x.astype("f8"))


def square(x, n, stride, start=0):
    x = x.reshape(-1, n * n)
    index = start + np.arange(n)[:, None] * stride + np.arange(n)
    return np.ascontiguousarray(x[:, index].transpose(0, 2, 1)).ravel()


def both(name, definition):
    """The definition for float and double, told the number of lanes."""
    return {f"v{t}_{name}": (lambda *x, n=n: definition(n, *x)) for t, n in (("f", 16), ("d", 8))}


def masks(name, definition):
    def of(n):
        return lambda *words: definition(n, *(w & np.uint32((1 << n) - 1) for w in words))

    return {"mf_" + name: of(16), "md_" + name: of(8)}


MEANING = {
    **both("zero", lambda n, a: np.zeros_like(a)),
    **both("iota", lambda n, a: np.resize(np.arange(n), a.size).astype(a.dtype)),
    **both("set1", lambda n, a: np.repeat(a, n)),
    **both("load", lambda n, a: a),
    **both("load_first", lambda n, a, k: first_lanes(a, k, n)),
    **both("store_first", lambda n, a, k, c: first_lanes(a, k, n, c)),
    **both("add", lambda n, a, b: one_nan(a + b)),
    **both("sub", lambda n, a, b: one_nan(a - b)),
    **both("mul", lambda n, a, b: one_nan(a * b)),
    **both("div", lambda n, a, b: one_nan(a / b)),
    **both("sqrt", lambda n, a: one_nan(np.sqrt(a))),
    **both("neg", lambda n, a: (bits(a) ^ UNSIGNED_SIGN[a.dtype.str[1:]]).view(a.dtype)),
    **both("abs", lambda n, a: (bits(a) & ~UNSIGNED_SIGN[a.dtype.str[1:]]).view(a.dtype)),
    **both("max", lambda n, a, b: pick(a > b, a, b)),
    **both("min", lambda n, a, b: pick(a < b, a, b)),
    **both("eq", lambda n, a, b: packed(a == b, n)),
    **both("ne", lambda n, a, b: packed(a != b, n)),
    **both("lt", lambda n, a, b: packed(a < b, n)),
    **both("le", lambda n, a, b: packed(a <= b, n)),
    **both("gt", lambda n, a, b: packed(a > b, n)),
    **both("ge", lambda n, a, b: packed(a >= b, n)),
    **both("isnan", lambda n, a: packed(np.isnan(a), n)),
    **masks("from_bits", lambda n, a: a),
    **masks("and", lambda n, a, b: a & b),
    **masks("or", lambda n, a, b: a | b),
    **masks("andnot", lambda n, a, b: ~a & b),
    **masks("not", lambda n, a: a ^ np.uint32((1 << n) - 1)),
    **masks("any", lambda n, a: (a != 0).astype("u4")),
    **masks("all", lambda n, a: (a == (1 << n) - 1).astype("u4")),
    **masks("count", lambda n, a: np.bitwise_count(a).astype("u4")),
    **both("select", lambda n, m, a, b: pick(lanes_of(m, n), a, b)),
    **both("and_mask", lambda n, m, a: pick(lanes_of(m, n), a, np.zeros_like(a))),
    **both("hsum", lambda n, a: one_nan(tree(a, n, np.add))),
    **both("hmax", lambda n, a: tree(a, n, lambda x, y: pick(x > y, x, y))),
    **both("canonical", lambda n, a: one_nan(a + a.dtype.type(0))),
    "vf_scale_exp": lambda a, b: (bits(a) + (bits(b) << 23)).view("f4"),
    "vd_scale_exp": lambda a, b: (bits(a) + (bits(b) << 52)).view("f8"),
    "vf_pow2_from_bits": lambda a: (bits(a) << 23).view("f4"),
    "vd_pow2_from_bits": lambda a: (bits(a) << 52).view("f8"),
    "vf_load_f16": f16,
    "vf_load_bf16": bf16,
    "vd_load_f16": lambda h: wide(f16(h)),
    "vd_load_bf16": lambda h: wide(bf16(h)),
    "vd_load_f32": wide,
    "vf_load_f16_first": lambda h, k: first_lanes(f16(h), k, 16),
    "vf_load_bf16_first": lambda h, k: first_lanes(bf16(h), k, 16),
    "vd_load_f16_first": lambda h, k: first_lanes(wide(f16(h)), k, 8),
    "vd_load_bf16_first": lambda h, k: first_lanes(wide(bf16(h)), k, 8),
    "vd_load_f32_first": lambda x, k: first_lanes(wide(x), k, 8),
    "vf_store_f16": to_f16,
    "vf_store_bf16": to_bf16,
    "vf_store_f16_first": lambda x, k, h: first_lanes(to_f16(x), k, 16, h),
    "vf_store_bf16_first": lambda x, k, h: first_lanes(to_bf16(x), k, 16, h),
    "ak_f16_to_f32": f16,
    "ak_bf16_to_f32": bf16,
    "ak_f32_to_f16": to_f16,
    "ak_f32_to_bf16": to_bf16,
    "vf_transpose": lambda x: square(x, 16, 16),
    "vd_transpose": lambda x: square(x, 8, 8),
    "vf_transpose_narrow": lambda x: square(x, 16, 13),
    "vd_transpose_narrow": lambda x: square(x, 8, 7),
    "vf_transpose_up": lambda x: square(x, 16, -16, 240),
    "vd_transpose_up": lambda x: square(x, 8, -8, 56),
}


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("name", sorted(MEANING))
def test_operation_means_what_the_contract_says(name, target):
    operands = samples(name, seed=1)
    with np.errstate(all="ignore"):
        want = MEANING[name](*operands)
    same_bytes(simd(target, name, *operands), want)


def test_every_operation_is_covered():
    elsewhere = {f"v{t}_{name}" for t in "fd" for name in [*UNARY_MATH, "exp16_neg", "fma", "fnma", "split_exp", "split_exp_m"]}
    assert set(MEANING) | elsewhere == set(PROBES)


def nearest(x, kind):
    """The number of `kind` nearest to a rational, ties to even; the range must not be left upwards."""
    info = np.finfo(kind)
    if x == 0:
        return kind(0)
    exponent = max(abs(x.numerator).bit_length() - x.denominator.bit_length() - 1, info.minexp)
    exponent += abs(x) >= Fraction(2) ** (exponent + 1)
    step = Fraction(2) ** (exponent - info.nmant)
    return kind(float(round(x / step))) * kind(float(step))


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("kind, prefix", [(np.float32, "vf"), (np.float64, "vd")])
def test_fma_rounds_once(target, kind, prefix):
    info = np.finfo(kind)
    half = (info.nmant + 1) // 2
    if kind is np.float32:
        # The product lies half-way between two floats, and c decides: rounding to float64 first loses c.
        e, tiny = 2.0**-half, 2.0**-80
        hard = [(1 + e, 1 + e, tiny), (1 + e, 1 + e, -tiny), (1 + 3 * e, 1 + e, -tiny), (1 + 3 * e, 1 + e, tiny)]
    else:
        hard = [(1 + 2.0**-27, 1 + 2.0**-27, -1.0), (1 + 2.0**-52, 1 - 2.0**-53, -1.0)]
    rng = np.random.default_rng(2)
    ordinary = rng.standard_normal((600, 3)) * 2.0 ** rng.integers(-20, 20, (600, 3))
    a, b, c = (np.ascontiguousarray(x) for x in np.concatenate([np.array(hard), ordinary]).astype(kind).T)
    c[len(hard) :: 3] = -(a * b)[len(hard) :: 3]  # what is left is the rounding error of the product
    for name, sign in (("fma", 1), ("fnma", -1)):
        got = simd(target, f"{prefix}_{name}", a, b, c)
        for i in range(a.size):
            exact = sign * Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
            assert got[i] == nearest(exact, kind), (a[i], b[i], c[i])


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("kind, prefix", [("f4", "vf"), ("f8", "vd")])
def test_split_exp(target, kind, prefix):
    x = np.abs(np.concatenate([edges(kind), spread(kind, 4096, 3, reach=30)]))
    x = x[np.isfinite(x) & (x >= np.finfo(kind).tiny)]
    k = simd(target, f"{prefix}_split_exp", x)[: x.size]
    m = simd(target, f"{prefix}_split_exp_m", x)[: x.size]
    assert np.array_equal(np.ldexp(m.astype(np.longdouble), k.astype(int)), x.astype(np.longdouble))
    root = np.longdouble(0.5) ** np.longdouble(0.5)
    assert np.all(m.astype(np.longdouble) >= root * (1 - np.finfo(kind).eps))
    assert np.all(m.astype(np.longdouble) < 2 * root * (1 + np.finfo(kind).eps))


# ---- elementary functions ---------------------------------------------------------------------------------------


def reference(name, x):
    """In extended precision, from the C library."""
    with np.errstate(all="ignore"):
        x = x.astype(np.longdouble)
        return np.exp2(x) if name == "exp2_neg" else getattr(np, name)(x)


def math_arguments(name, kind, seed=4):
    rng = np.random.default_rng(seed)
    low, high = {
        "exp": (-110, 90), "exp2": (-155, 130), "exp2_neg": (-130, 0), "log": (0, 4), "log1p": (-1, 4), "tanh": (-10, 10),
    }[name]  # fmt: skip
    scale = 1 if kind == "f4" or name in ("log", "log1p") else 2 if name == "tanh" else 8
    pattern = np.frombuffer(rng.bytes(20000 * np.dtype(kind).itemsize), kind)
    even = rng.uniform(low * scale, high * scale, 40000)
    even[::4] *= 2.0 ** -rng.integers(0, 60, 10000)
    around = np.rint(rng.uniform(low * scale, high * scale, 4000) * 4) * np.log(2) / 4
    x = np.concatenate([edges(kind), pattern, even.astype(kind), around.astype(kind)]).astype(kind)
    return -np.abs(x) if name == "exp2_neg" else x


def spacing(x, kind):
    """Distance of neighbouring numbers of `kind` at x."""
    info = np.finfo(kind)
    exponent = np.clip(np.frexp(x)[1], info.minexp + 1, info.maxexp)
    return np.ldexp(np.ones_like(x), exponent - info.nmant - 1)


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("kind, prefix", [("f4", "vf"), ("f8", "vd")])
@pytest.mark.parametrize("name", UNARY_MATH)
def test_math_is_within_one_ulp(name, kind, prefix, target):
    if kind == "f8" and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no extended precision to compare with")
    x = math_arguments(name, kind)
    y = simd(target, f"{prefix}_{name}", x)[: x.size]
    exact = reference(name, x)
    if name == "exp2_neg":
        exact[x <= (-126.5 if kind == "f4" else -1022.5)] = 0
    assert np.array_equal(np.isnan(y), np.isnan(exact))
    same_bytes(y[np.isnan(y)], one_nan(y[np.isnan(y)]))
    infinite = np.isinf(y)
    largest = np.finfo(kind).max
    assert np.all(np.abs(exact[infinite]) > np.longdouble(largest) * (1 - np.finfo(kind).eps))
    finite = ~infinite & ~np.isnan(y)
    assert np.all(np.isfinite(exact[finite]))
    error = np.abs(y[finite] - exact[finite]) / spacing(exact[finite], kind)
    worst = np.argmax(error)
    assert error[worst] <= 1, f"{name}({x[finite][worst]!r}) is {error[worst]} ULP off"


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("kind, prefix", [("f4", "vf"), ("f8", "vd")])
def test_a_power_of_16_has_the_bytes_of_the_power_of_2(kind, prefix, target):
    x = math_arguments("exp2_neg", kind)
    with np.errstate(all="ignore"):
        quarter = x / np.dtype(kind).type(4)
        four_times = quarter * np.dtype(kind).type(4)
    same_bytes(simd(target, f"{prefix}_exp16_neg", quarter), simd(target, f"{prefix}_exp2_neg", four_times))


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("kind, prefix", [("f4", "vf"), ("f8", "vd")])
def test_math_at_the_edges(kind, prefix, target):
    info = np.finfo(kind)
    inf, smallest = np.inf, info.smallest_subnormal
    table = {
        "exp": [(0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (info.max, inf), (-info.max, 0), (smallest, 1)],
        "exp2": [(0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (info.maxexp, inf)]
        + [(n, float(np.ldexp(np.float64(1), n))) for n in range(info.minexp, info.maxexp)]
        + [(info.minexp - info.nmant, smallest), (info.minexp - info.nmant - 1, 0)],
        "exp2_neg": [(0, 1), (-0.0, 1), (-inf, 0), (info.minexp - 1, 0), (-info.max, 0)]
        + [(n, float(np.ldexp(np.float64(1), n))) for n in range(info.minexp, 1)],
        "log": [(0, -inf), (-0.0, -inf), (1, 0), (inf, inf)],
        "log1p": [(0, 0), (-0.0, -0.0), (-1, -inf), (inf, inf), (smallest, smallest), (-smallest, -smallest)],
        "tanh": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (30, 1), (-30, -1), (smallest, smallest)],
    }
    for name, rows in table.items():
        x, want = (np.array(column, kind) for column in zip(*rows))
        same_bytes(simd(target, f"{prefix}_{name}", x)[: x.size], want)
    outside = {"log": [-smallest, -1, -inf], "log1p": [-1 - info.eps, -2, -inf]}
    for name, x in outside.items():
        y = simd(target, f"{prefix}_{name}", np.array(x, kind))[: len(x)]
        same_bytes(y, one_nan(np.full(len(x), np.nan, kind)))


@pytest.mark.parametrize("target", USABLE)
@pytest.mark.parametrize("kind, prefix", [("f4", "vf"), ("f8", "vd")])
def test_a_weight_never_exceeds_one_and_exp_never_falls(kind, prefix, target):
    for start in (0.0, 0.125, 0.34657, 0.5, 1.0, 17.3, 60.0):
        # A run of consecutive numbers.
        up = (bits(np.array([start], kind)) + np.arange(20000, dtype=UNSIGNED[kind])).view(kind)
        assert np.all(simd(target, f"{prefix}_exp2_neg", -up)[: up.size] <= 1)
        assert np.all(np.diff(simd(target, f"{prefix}_exp", up)[: up.size]) >= 0)
        assert np.all(np.diff(simd(target, f"{prefix}_exp", -up)[: up.size]) <= 0)


# ---- the door itself ---------------------------------------------------------------------------------------------


def test_wrong_use_is_named():
    target, x = USABLE[-1], np.zeros(16, "f4")
    with pytest.raises(ValueError, match="unknown"):
        _core.simd("vax", "vf_add", x, x)
    with pytest.raises(ValueError, match="no operation"):
        _core.simd(target, "vf_frobnicate", x)
    with pytest.raises(TypeError, match="takes 2 operands, 1 given"):
        _core.simd(target, "vf_add", x)
    with pytest.raises(TypeError, match="operand 2 has elements 'd'"):
        _core.simd(target, "vf_add", x, np.zeros(16))
    with pytest.raises(ValueError, match="15 elements, not a multiple of 16"):
        _core.simd(target, "vf_neg", x[:15])
    with pytest.raises(ValueError, match="feeds 2 calls"):
        _core.simd(target, "vf_add", x, np.zeros(32, "f4"))
