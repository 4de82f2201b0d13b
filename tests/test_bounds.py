"""Error against higher precision, held to bounds that are known before the call.

With A = scale max_ij sum_c |q_ic k_jc| and eps = 2^-23 (2^-52 for float64):

- tested, on random and on cancelling data: |out - exact| <= eps (1 + A) max|v| and |lse - exact| <= eps sqrt(d) (1 + A), plus half a
  unit in the last place for the lse itself, which may be larger than A (ln L for logits of 0); from d = 8 on, since the sum of
  weights rounds whatever d is;
- proved, on any data (`proved`): equal terms round the same way again and again, and then errors grow with the number of terms.

ATTNKIT_TEST_SCALE multiplies the number of random cases.
"""

import math
import os

import cases
import numpy as np
import pytest

import attnkit
from attnkit import masks

SCALE = float(os.environ.get("ATTNKIT_TEST_SCALE", "1"))
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-23, "bfloat16": 2.0**-23}
LD = np.longdouble


def exact(q, k, v, *, scale=None, allowed=None):
    """(out, lse, A) of one head, in extended precision for float64, else in float64; empty rows give 0 and -inf."""
    wide = LD if k.dtype == np.float64 else np.float64
    q, k, v = (np.asarray(x).astype(wide) for x in (q, k, v))
    scale = 1 / np.sqrt(wide(q.shape[-1])) if scale is None else wide(scale)
    s = scale * (q @ k.T)
    size = float(abs(scale) * (abs(q) @ abs(k).T).max(initial=0))
    if allowed is not None:
        s = np.where(allowed, s, -np.inf)
    m = np.where(np.isneginf(s.max(axis=1)), 0, s.max(axis=1))
    e = np.exp(s - m[:, None])
    total = e.sum(axis=1)
    some = total > 0
    out = np.where(some[:, None], e @ v / np.where(some, total, 1)[:, None], 0)
    with np.errstate(divide="ignore"):
        return out, m + np.log(total), size


def ratios(q, k, v, *, dtype="float32", scale=None, allowed=None, **options):
    """Errors of out and lse as a share of the tested bounds; half outputs are allowed half a unit in the last place."""
    if allowed is not None:
        options["mask"] = allowed
    out, lse = attnkit.softmax_attention(q, k, v, scale=scale, return_lse=True, **options)
    want, want_lse, size = exact(q, k, v, scale=scale, allowed=allowed)
    bound = EPS[dtype] * (1 + size) * float(abs(np.asarray(v).astype(LD)).max())
    error = abs(out.astype(LD) - want)
    if dtype in cases.HALF_STEP:
        relative, absolute = cases.HALF_STEP[dtype]
        error = np.maximum(error - np.maximum(relative * (abs(want) + bound), absolute), 0)
    some = ~np.isneginf(want_lse)
    assert np.array_equal(np.isneginf(lse), ~some)
    assert np.isfinite(out.astype(np.float64)).all() and np.isfinite(lse[some]).all()
    lse_error = abs(lse[some].astype(LD) - want_lse[some])
    lse_error = np.maximum(lse_error - EPS[dtype] / 2 * abs(want_lse[some]), 0).max(initial=0)
    return float(error.max() / bound), float(lse_error / (EPS[dtype] * math.sqrt(q.shape[-1]) * (1 + size)))


def drawn(rng, lq, lk, d, dv, size, dtype="float32"):
    dtype = cases.dtype_of(dtype)
    return ((rng.standard_normal((lq, d)) * size).astype(dtype), rng.standard_normal((lk, d)).astype(dtype), rng.standard_normal((lk, dv)).astype(dtype))


# ---- the tested bounds (random data) ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_random_cases(dtype):
    """Logits from nothing to hundreds, a few keys to several chunks, masks now and then."""
    rng = np.random.default_rng(1)
    worst = (0.0, 0.0)
    for _ in range(int((40 if dtype == 'float64' else 120) * SCALE)):
        d, dv = int(rng.choice([8, 31, 64, 80, 128, 256])), int(rng.choice([1, 8, 33, 64]))
        lq, lk = int(rng.choice([1, 3, 50])), int(2 ** rng.uniform(0, 12.4))
        q, k, v = drawn(rng, lq, lk, d, dv, float(10 ** rng.uniform(-3, 1.7)), dtype)
        allowed = rng.random((lq, lk)) < 0.5 if rng.random() < 0.3 else None
        found = ratios(q, k, v, dtype=dtype, allowed=allowed)
        worst = tuple(map(max, worst, found))
        assert max(found) <= 1, (found, q.shape, k.shape, v.shape)
    assert worst[1] > 0.01, worst  # the bound is not miles away


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_rows(dtype):
    rng = np.random.default_rng(2)
    for lk in (2**14 + 5, 2**16 + 300):
        for size in (0.1, 4.0, 30.0):
            assert max(ratios(*drawn(rng, 2, lk, 64, 16, size, dtype), dtype=dtype)) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_that_cancel(dtype):
    """Products of 1000 x 1000 whose sums are small: the logits' size |S| would promise far too much, A does not."""
    rng = np.random.default_rng(3)
    beyond = 0.0
    for _ in range(int(40 * SCALE)):
        d, lk = int(rng.choice([2, 16, 64, 128])), int(rng.choice([2, 50, 700]))
        q, k, v = drawn(rng, 4, lk, d, 8, 1, dtype)
        q, k = q * 1000, k * 1000
        # The last feature makes each logit come out near zero for the first query.
        k[:, -1] = -(q[0, :-1].astype(LD) @ k[:, :-1].T.astype(LD)) / q[0, -1]
        found = ratios(q, k, v, dtype=dtype)
        assert max(found) <= 1, found
        out, _ = attnkit.softmax_attention(q[:1], k, v, return_lse=True)
        want, lse, size = exact(q[:1], k, v)
        s = float(abs((q[:1].astype(LD) @ k.T.astype(LD)) / math.sqrt(d)).max())
        beyond = max(beyond, float(abs(out - want).max() / (EPS[dtype] * (1 + s) * float(abs(v).max()))))
    assert beyond > 1, "these cases are too easy: a bound with max|S| in place of A would hold as well"


# ---- the proved bound (any data) -------------------------------------------------------------------------------------


def proved(d, lk, size, eps):
    """(out as a multiple of max|v|, lse): u = eps / 2, n u for n roundings in a row, second order in the last factor.

    A logit: the factor and q' round once each, d products are added in order: |ds| <= (d + 2) u A. The shift by the maximum: 2 u A;
    the power: 2 u. Values: up to 256 products per tile in order, then one fold per tile of a chunk and one per level of the chunk
    tree; the sum of weights: 16 per lane and tile, 16 tiles, 4 + levels; the quotient u.
    """
    u = eps / 2
    levels = math.ceil(math.log2(max(lk / 4096, 1))) + 1
    logit = (d + 2) * u * size
    weight = 2 * logit + 4 * u * size + 4 * u
    sums = (min(lk, 256) + 3 * 16 + 3 * levels) * u + (min(lk, 4096) / 16 + 3 * 16 + 4 + 3 * levels) * u
    return 1.01 * (weight + sums + 2 * u), 1.01 * (logit + 4 * u * (1 + size) + (min(lk, 4096) / 16 + 60 + 3 * levels) * u + u * math.log(lk + 1.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_terms_stay_within_the_proved_bound(dtype):
    """Constant vectors: every product and every value rounds the same way. Random data never come near."""
    rng = np.random.default_rng(4)
    worst = 0.0
    for _ in range(int(60 * SCALE)):
        d, lk = int(rng.choice([1, 16, 64, 128, 256])), int(rng.choice([2, 64, 256, 1000, 9000]))
        kinds = rng.uniform(1, 2, 3)
        size = 10 ** rng.uniform(-2, 1.5)
        q = np.full((2, d), kinds[0] * size).astype(dtype)
        k = np.where(rng.random((lk, 1)) < 0.5, kinds[1], kinds[1] * (1 + 1e-3 * rng.standard_normal())) * np.ones((1, d))
        k, v = k.astype(dtype), np.full((lk, 5), kinds[2]).astype(dtype) * np.where(rng.random((lk, 5)) < 0.5, 1, rng.choice([-1, 1], (1, 5))).astype(dtype)
        out, lse = attnkit.softmax_attention(q, k, v, return_lse=True)
        want, want_lse, logits = exact(q, k, v)
        limit, lse_limit = proved(d, lk, logits, EPS[dtype])
        share = float(abs(out - want).max() / (limit * float(abs(v).max())))
        assert share <= 1 and float(abs(lse - want_lse).max()) <= lse_limit, (share, d, lk, logits)
        worst = max(worst, share)
    assert worst > 0.05, worst


# ---- any finite logit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, huge", [("float32", 3e38), ("float64", 1.7e308)])
def test_rows_near_the_largest_number(dtype, huge):
    """No sentinel: logits just inside the range win, lose and tie like any others."""
    one = np.ones((1, 1), dtype)
    v = np.array([[1.0], [2.0], [4.0]], dtype)
    table = [
        ([huge, 0.9 * huge, -huge], 1.0, huge), ([-huge, -0.9 * huge, -huge], 2.0, -0.9 * huge), ([-huge] * 3, 7 / 3, -huge),
        ([huge] * 3, 7 / 3, huge), ([huge, 0.0, huge], 2.5, huge), ([0.0, -huge, 0.0], 2.5, math.log(2)), ([1.0, -huge, huge], 4.0, huge),
    ]
    for logits, out, lse in table:
        k = np.array(logits, dtype)[:, None]
        got, got_lse, weights, stats = attnkit.softmax_attention(one, k, v, scale=1.0, return_lse=True, return_weights=True, stats=("n_allowed", "max_weight"))
        np.testing.assert_allclose(got, out, rtol=4 * EPS[dtype])
        np.testing.assert_allclose(got_lse, lse, rtol=4 * EPS[dtype])
        np.testing.assert_allclose(weights.sum(), 1, rtol=4 * EPS[dtype])
        assert stats["n_allowed"] == 3
        # The same through the bias of a whole row of keys, as padding masks of finfo.min are.
        np.testing.assert_allclose(attnkit.softmax_attention(one * 0, k, v, bias=k.T), got, rtol=4 * EPS[dtype])
    lowest = np.full((1, 3), np.finfo(dtype).min, dtype)
    np.testing.assert_allclose(attnkit.softmax_attention(one * 0, k, v, bias=lowest, return_lse=True)[0], 7 / 3, rtol=4 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_one_hot_and_subnormal_rows(dtype):
    rng = np.random.default_rng(5)
    tiny = np.finfo(dtype).smallest_subnormal
    for lk in (1, 5, 300, 5000):
        v = rng.standard_normal((lk, 3)).astype(dtype)
        equal = np.full((2, 7), 3.25, dtype), np.full((lk, 7), -1.5, dtype)
        assert max(ratios(*equal, v, dtype=dtype)) <= 1
        one_hot = np.full((2, 1), 1000, dtype), (np.arange(lk) == lk // 2).astype(dtype)[:, None]
        assert max(ratios(*one_hot, v, dtype=dtype)) <= 1
        assert np.array_equal(attnkit.softmax_attention(*one_hot, v), v[[lk // 2, lk // 2]])
        subnormal = np.full((2, 7), 3 * tiny, dtype), np.full((lk, 7), 5 * tiny, dtype)
        assert max(ratios(*subnormal, v, dtype=dtype)) <= 1
        out = attnkit.softmax_attention(np.zeros((1, 7), dtype), np.zeros((lk, 7), dtype), np.full((lk, 2), 8 * tiny, dtype))
        assert np.array_equal(out, np.full((1, 2), 8 * tiny, dtype))  # subnormal values are kept, not flushed


# ---- entropy ---------------------------------------------------------------------------------------------------------


def exact_entropy(s):
    """-sum p ln p of rows of logits in extended precision, without cancellation."""
    s = np.asarray(s).astype(LD)
    at = s.argmax(axis=1)[:, None]
    fall = np.take_along_axis(s, at, axis=1) - s
    e = np.exp(-fall)
    np.put_along_axis(e, at, 0, axis=1)
    rest = e.sum(axis=1)
    return np.log1p(rest) + (e * fall).sum(axis=1) / (1 + rest)


def test_entropy_has_relative_accuracy_from_1e30_to_the_logarithm_of_the_length():
    """Logits are given exactly (one feature, powers of two) so that only the statistic itself can err."""
    seen = []
    for lk in (2, 17, 300, 5000):
        rng = np.random.default_rng(lk)
        for gap in np.r_[np.linspace(0, 74, 40), rng.uniform(0, 60, 20)]:
            # Multiples of 2^-10 below 128 carry at most 17 bits: they stay exact in the units of the engine up to its one rounding.
            s = -np.round(np.abs(rng.standard_normal(lk)) * min(gap, 3.0) + gap, 3)
            s[rng.integers(lk)] = 0.0
            s = s.astype(np.float32)
            h = attnkit.attention_row_stats(np.ones((1, 1), np.float32), s[:, None], scale=1.0)["entropy"]
            # Rounding the logits to the engine's units moves H by up to H times eps gap: count only what is beyond.
            want = float(exact_entropy(s[None])[0])
            assert h[0] >= 0
            if want > 0:
                assert abs(h[0] - want) <= 1e-5 * want, (lk, gap, float(h[0]), want)
                seen.append(want)
    assert min(seen) < 1e-29 and max(seen) > 0.99 * math.log(5000)


def test_entropy_is_never_negative():
    rng = np.random.default_rng(6)
    for dtype in ("float32", "float64", "float16"):
        for size in (0.0, 0.1, 3.0, 30.0, 1000.0):
            q, k, _ = drawn(rng, 100, 700, 8, 1, size, dtype)
            stats = attnkit.attention_row_stats(q, k, mask=masks.causal(offset=0), sink_logits=np.linspace(-1000, 1000, 100))
            assert (stats["entropy"] >= 0).all() and (stats["purity"] <= 1 + 1e-6).all() and (stats["max_weight"] <= 1).all()


# ---- length ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_33_million_equal_logits(dtype):
    """A float32 sum of 2^25 ones stops at 2^24 unless it is cut into chunks."""
    lk = 2**25
    q, k = np.zeros((1, 1), dtype), np.broadcast_to(np.zeros((1, 1), dtype), (lk, 1))
    out, lse = attnkit.softmax_attention(q, k, np.broadcast_to(np.ones((1, 1), dtype), (lk, 1)), return_lse=True)
    assert out == 1
    assert abs(lse[0] - dtype_of(dtype)(25 * math.log(2))) <= np.spacing(lse[0])


def dtype_of(name):
    return np.dtype(name).type


def test_error_does_not_grow_with_the_length():
    rng = np.random.default_rng(7)
    error = {}
    for power, repeats in ((12, 8), (20, 2)):
        worst = []
        for _ in range(repeats):
            q, k, v = drawn(rng, 4, 2**power, 2, 4, 1)
            out, lse = attnkit.softmax_attention(q, k, v, return_lse=True)
            want, want_lse, _ = exact(q, k, v)
            worst.append([float(np.sqrt(((out - want) ** 2).mean())), float(abs(lse - want_lse).max())])
        error[power] = np.max(worst, axis=0)
    assert (error[20] <= 1.5 * error[12]).all(), error


# ---- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_identities_between_statistics(dtype):
    """What must hold between results of one call, without a reference."""
    rng = np.random.default_rng(8)
    q, k, v = drawn(rng, 70, 5000, 16, 8, 1.0, dtype)
    tolerance = 40 * EPS[dtype]
    out, lse, stats = attnkit.softmax_attention(q, k, v, causal=True, return_lse=True, stats=("entropy", "mean_logit", "purity", "max_weight"))
    np.testing.assert_allclose(stats["entropy"], lse - stats["mean_logit"], atol=20 * tolerance)
    groups = np.arange(5000) % 7
    rows = attnkit.attention_row_stats(q, k, causal=True, groups=groups, topk=3, sink_size=5000)
    np.testing.assert_allclose(rows["group_mass"].sum(axis=-1), 1, atol=tolerance)
    np.testing.assert_allclose(rows["sink_mass"], 1, atol=tolerance)
    np.testing.assert_allclose(rows["topk_weight"][:, 0], rows["max_weight"], rtol=4 * EPS[dtype])
    assert np.array_equal(rows["topk_index"][:, 0], rows["argmax"])
    columns = attnkit.attention_column_stats(q, k, causal=True)
    np.testing.assert_allclose(columns["received"].astype(np.float64).sum(), 70, atol=70 * tolerance)
    assert np.array_equal(columns["visible"], np.minimum(70, 5000 - np.arange(5000)))
    shards = [attnkit.attention_column_stats(q, k[a : a + 1300], lse=lse, causal=True, q_offset=4930 - a) for a in range(0, 5000, 1300)]
    for name in ("received", "received_max"):
        np.testing.assert_allclose(np.concatenate([x[name] for x in shards]), columns[name], rtol=1e3 * EPS[dtype])
    # A sink logit is one more key with value zero.
    extra = attnkit.softmax_attention(np.c_[q, np.ones(70, dtype)], np.r_[np.c_[k, np.zeros(5000, dtype)], [[0.0] * 16 + [8.0]]].astype(dtype),
                                      np.r_[v, np.zeros((1, 8), dtype)], scale=0.25, return_lse=True)
    sink = attnkit.softmax_attention(q, k, v, scale=0.25, sink_logits=2.0, return_lse=True)
    for a, b in zip(extra, sink):
        np.testing.assert_allclose(a, b, atol=4 * tolerance)


def test_ties_go_to_the_lower_index():
    """Equal logits within a tile, across tiles and across chunks."""
    rng = np.random.default_rng(9)
    for lk in (5, 300, 9000):
        s = rng.integers(0, 3, lk).astype(np.float32)
        rows = attnkit.attention_row_stats(np.ones((1, 1), np.float32), s[:, None], scale=1.0, topk=min(lk, 40))
        order = np.argsort(-s, kind="stable")[:40]
        assert rows["argmax"] == order[0] and np.array_equal(rows["topk_index"][0], order)
