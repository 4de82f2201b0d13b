"""The twins of the forward pass against plain loops, closed forms and the identities of the definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnkit import reference as ref

INF, NAN = np.inf, np.nan


def arrays(rng, *shapes):
    return [rng.standard_normal(shape) for shape in shapes]


def loops(q, k, v, *, scale=None, off=None, causal=False, window=(-1, -1), mask=None, bias=None, slope=0.0, cap=0.0,
          sink=-INF, keep=None, p_drop=0.0):
    """Output, lse and weights of one head with nothing but Python floats."""
    lq, lk, d = len(q), len(k), q.shape[1]
    off = lk - lq if off is None else off
    scale = 1 / math.sqrt(d) if scale is None else scale
    out, lse, weights = np.zeros((lq, v.shape[1])), np.full(lq, -INF), np.zeros((lq, lk))
    for i in range(lq):
        logit = {}
        for j in range(lk):
            delta = i + off - j
            if causal and delta < 0 or window[0] >= 0 and delta > window[0] or window[1] >= 0 and -delta > window[1]:
                continue
            if mask is not None and not mask[i, j] or bias is not None and bias[i, j] == -INF:
                continue
            s = scale * math.fsum(float(a) * float(b) for a, b in zip(q[i], k[j]))
            s = cap * math.tanh(s / cap) if cap else s
            logit[j] = s + (0.0 if bias is None else bias[i, j]) - slope * abs(delta)
        terms = list(logit.values()) + ([sink] if sink > -INF else [])
        if not terms:
            continue
        m = max(terms)
        lse[i] = m + math.log(math.fsum(math.exp(s - m) for s in terms))
        for j, s in logit.items():
            weights[i, j] = math.exp(s - lse[i])
            if keep is None or keep[i, j]:
                out[i] += weights[i, j] * v[j] / (1 - p_drop)
    return out, lse, weights


OPTIONS = st.fixed_dictionaries({
    "causal": st.booleans(),
    "window": st.tuples(st.integers(-1, 4), st.integers(-1, 4)),
    "slope": st.sampled_from([0.0, 0.25]),
    "cap": st.sampled_from([0.0, 1.5]),
    "sink": st.sampled_from([-INF, 0.3]),
    "off": st.sampled_from([None, 0, 2, -1]),
    "scale": st.sampled_from([None, 0.0, 0.7]),
})


@settings(max_examples=60, deadline=None)
@given(OPTIONS, st.integers(0, 5), st.integers(0, 6), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_forward_equals_loops(options, lq, lk, seed, masked, biased):
    rng = np.random.default_rng(seed)
    q, k, v = arrays(rng, (lq, 3), (lk, 3), (lk, 2))
    mask = rng.random((lq, lk)) < 0.6 if masked else None
    bias = np.where(rng.random((lq, lk)) < 0.2, -INF, rng.standard_normal((lq, lk))) if biased else None
    keep = rng.random((lq, lk)) < 0.7
    want = loops(q, k, v, mask=mask, bias=bias, keep=keep, p_drop=0.25, **options)
    got = ref.softmax_attention(
        q, k, v, scale=options["scale"], causal=options["causal"], mask=mask, bias=bias, window=options["window"],
        alibi_slopes=options["slope"], softcap=options["cap"], sink_logits=options["sink"], dropout_mask=keep,
        dropout_p=0.25, q_offset=options["off"], return_lse=True, return_weights=True)
    for w, g in zip(want, got):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-13)


def test_closed_forms():
    # logits (0, ln 3): weights 1/4 and 3/4, lse ln 4
    q, k, v = np.ones((1, 1)), np.array([[0.0], [math.log(3)]]), np.array([[1.0], [5.0]])
    out, lse, p, stats = ref.softmax_attention(q, k, v, return_lse=True, return_weights=True,
                                               stats=("entropy", "lse"))
    np.testing.assert_allclose(p, [[0.25, 0.75]], rtol=1e-15)
    np.testing.assert_allclose(out, [[4.0]], rtol=1e-15)
    np.testing.assert_allclose(lse, [math.log(4)], rtol=1e-15)
    assert list(stats) == ["entropy", "lse"]
    np.testing.assert_allclose(stats["entropy"], [math.log(4) - 0.75 * math.log(3)], rtol=1e-15)
    np.testing.assert_array_equal(ref.attention_logits(q, k), [[0.0, math.log(3)]])


def test_rows_sum_to_one_and_order_of_results():
    q, k, v = arrays(np.random.default_rng(0), (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6))
    out, p = ref.softmax_attention(q, k, v, causal=True, return_weights=True)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-14)
    np.testing.assert_allclose(out, p @ v, rtol=1e-12)
    assert out.shape == (2, 3, 5, 6) and out.dtype == np.float64
    assert isinstance(ref.softmax_attention(q, k, v), np.ndarray)


def test_causal_alignments():
    q, k = np.zeros((3, 2)), np.zeros((5, 2))

    def seen(**options):
        return (ref.attention_logits(q, k, **options) > -INF).tolist()

    lower = [[j <= i + 2 for j in range(5)] for i in range(3)]
    upper = [[j <= i for j in range(5)] for i in range(3)]
    assert seen(causal=True) == seen(causal="lower_right") == lower
    assert seen(causal="upper_left") == seen(causal=True, q_offset=0) == upper
    assert seen(causal=np.True_, window=(0, 3)) == [[j == i + 2 for j in range(5)] for i in range(3)]
    assert seen(window=(None, 0)) == lower and seen(window=(-1, -5)) == [[True] * 5] * 3


def test_grouped_heads_equal_repeated_heads():
    q, k, v = arrays(np.random.default_rng(1), (2, 6, 4, 3), (2, 2, 5, 3), (2, 2, 5, 3))
    want = ref.softmax_attention(q, k.repeat(3, 1), v.repeat(3, 1), causal=True)
    np.testing.assert_array_equal(ref.softmax_attention(q, k, v, causal=True), want)
    np.testing.assert_array_equal(ref.softmax_attention(q[0], k[0], v[0], causal=True), want[0])  # 3-D: heads first
    np.testing.assert_array_equal(ref.attention_logits(q[0], k[0]), ref.attention_logits(q[0], k[0].repeat(3, 0)))


def test_leading_axes_broadcast():
    q, k, v = arrays(np.random.default_rng(2), (4, 1, 3, 2), (5, 3, 2), (1, 3, 2))
    got = ref.softmax_attention(q, k, v)
    assert got.shape == (4, 5, 3, 2)
    np.testing.assert_array_equal(got[2, 3], ref.softmax_attention(q[2, 0], k[3], v[0]))


def test_sink_is_an_extra_key_with_zero_value_and_minus_infinity_is_none():
    q, k, v = arrays(np.random.default_rng(3), (4, 3, 2), (4, 5, 2), (4, 5, 2))
    a = np.array([0.5, -1.0, 2.0, 0.0])
    out, lse, p = ref.softmax_attention(q, k, v, sink_logits=a, return_lse=True, return_weights=True)
    bias = np.concatenate([np.zeros((4, 3, 5)), np.broadcast_to(a[:, None, None], (4, 3, 1))], -1)
    k1, v1 = (np.concatenate([x, np.zeros((4, 1, 2))], 1) for x in (k, v))
    out1, lse1, p1 = ref.softmax_attention(q, k1, v1, bias=bias, return_lse=True, return_weights=True)
    for got, want in ((out, out1), (lse, lse1), (p, p1[..., :5])):
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(1 - p.sum(-1), np.exp(a[:, None] - lse), rtol=1e-12)
    np.testing.assert_array_equal(ref.softmax_attention(q, k, v, sink_logits=-INF), ref.softmax_attention(q, k, v))
    # all keys masked: the sink alone
    out, lse = ref.softmax_attention(q, k, v, mask=np.zeros((3, 5), bool), sink_logits=a, return_lse=True)
    assert not out.any() and (lse == a[:, None]).all()


def test_large_softcap_is_none_and_alibi_is_a_column_bias_under_causality():
    q, k, v = arrays(np.random.default_rng(4), (2, 6, 3), (2, 6, 3), (2, 6, 3))
    np.testing.assert_allclose(ref.softmax_attention(q, k, v, softcap=1e9), ref.softmax_attention(q, k, v), rtol=1e-12)
    slopes = np.array([0.5, 0.125])
    out, lse = ref.softmax_attention(q, k, v, causal=True, alibi_slopes=slopes, return_lse=True)
    column = slopes[:, None, None] * np.arange(6)
    out2, lse2 = ref.softmax_attention(q, k, v, causal=True, bias=column, return_lse=True)
    np.testing.assert_allclose(out, out2, rtol=1e-12)
    np.testing.assert_allclose(lse2 - lse, slopes[:, None] * np.arange(6), rtol=1e-10, atol=1e-13)


def test_empty_rows_and_empty_lengths():
    q, k, v = arrays(np.random.default_rng(5), (3, 2), (4, 2), (4, 2))
    mask = np.ones((3, 4), bool)
    mask[1] = False
    out, lse, p = ref.softmax_attention(q, k, v, mask=mask, return_lse=True, return_weights=True)
    assert not out[1].any() and lse[1] == -INF and not p[1].any() and np.isfinite(out).all()
    out, lse = ref.softmax_attention(q, k[:0], v[:0], return_lse=True)
    assert not out.any() and (lse == -INF).all()
    assert ref.softmax_attention(q[:0], k, v).shape == (0, 2)
    out = ref.softmax_attention(q[:, :0], k[:, :0], v)      # no features: every logit is 0
    np.testing.assert_allclose(out, np.tile(v.mean(0), (3, 1)), rtol=1e-14)


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_masked_keys_leave_no_trace(poison):
    q, k, v = arrays(np.random.default_rng(6), (3, 2), (5, 2), (5, 2))
    mask = np.ones((3, 5), bool)
    mask[:, [1, 4]] = False
    want = ref.softmax_attention(q, k, v, mask=mask, return_lse=True, return_weights=True)
    k[[1, 4]] = v[[1, 4]] = poison
    bias = np.where(mask, 0.0, -INF)
    for options in ({"mask": mask}, {"mask": mask.astype(np.int8)}, {"bias": bias}):
        got = ref.softmax_attention(q, k, v, return_lse=True, return_weights=True, **options)
        for w, g in zip(want, got):
            np.testing.assert_array_equal(g, w)
    keep = mask                                     # a dropped key's value is skipped too
    assert np.isfinite(ref.softmax_attention(q, np.zeros((5, 2)), v, dropout_mask=keep, dropout_p=0.5)).all()


def test_nan_spoils_its_row_only_and_infinite_logits_share_the_mass():
    q, k, v = arrays(np.random.default_rng(7), (3, 2), (4, 2), (4, 2))
    want = ref.softmax_attention(q, k, v)
    q[1, 0] = NAN
    out, lse, p = ref.softmax_attention(q, k, v, return_lse=True, return_weights=True)
    np.testing.assert_array_equal(out[[0, 2]], want[[0, 2]])
    assert np.isnan(out[1]).all() and np.isnan(lse[1]) and np.isnan(p[1]).all()
    v[2, 1] = NAN                                   # an attended value: its feature, in the rows that see it
    out = ref.softmax_attention(q, k, v, mask=np.array([[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]]))
    assert np.isfinite(out[0]).all() and np.isfinite(out[2, 0]) and np.isnan(out[2, 1])
    bias = np.array([[0.0, INF, 3.0, INF]])
    out, lse, p = ref.softmax_attention(q[:1], k, np.arange(8.0).reshape(4, 2), bias=bias, return_lse=True,
                                        return_weights=True)
    assert p.tolist() == [[0.0, 0.5, 0.0, 0.5]] and lse[0] == INF and out.tolist() == [[4.0, 5.0]]


def test_any_finite_logit():
    q, v = np.ones((1, 1)), np.array([[1.0], [2.0], [4.0]])
    for k, want in (([[3e38], [3e38], [-3e38]], 1.5), ([[-1e300]] * 3, 7 / 3), ([[5e-324], [0], [0]], 7 / 3)):
        np.testing.assert_allclose(ref.softmax_attention(q, np.array(k, float), v), [[want]], rtol=1e-14)


def test_weights_window():
    q, k = arrays(np.random.default_rng(8), (2, 4, 6, 3), (2, 2, 7, 3))
    full, lse = (ref.softmax_attention(q, k, k, causal=True, return_lse=True, return_weights=True)[i] for i in (2, 1))
    np.testing.assert_array_equal(ref.attention_weights(q, k, causal=True), full)
    got = ref.attention_weights(q, k, causal=True, rows=[4, -1], cols=slice(1, 6, 2), heads=3)
    np.testing.assert_array_equal(got, full[:, 3:4, [4, 5], 1:6:2])
    assert ref.attention_weights(q, k, rows=2, cols=0).shape == (2, 4, 1, 1)
    np.testing.assert_allclose(ref.attention_weights(q, k, causal=True, lse=lse), full, rtol=1e-13)
    # a shard of the keys with the lse over all keys is a slice of the map
    shard = ref.attention_weights(q, k[..., 3:, :], causal=True, lse=lse)
    np.testing.assert_allclose(shard, full[..., 3:], rtol=1e-13)
    with pytest.raises(ValueError, match="heads"):
        ref.attention_weights(q[0, 0], k[0, 0], heads=0)
    with pytest.raises(ValueError, match="rows"):
        ref.attention_weights(q, k, rows=6)
    with pytest.raises(TypeError, match="cols"):
        ref.attention_weights(q, k, cols=1.5)


class Plan:
    """Stands for a mask plan: anything with __array__."""

    def __array__(self, dtype=None, copy=None):
        return np.tri(3, dtype=bool)


def test_inputs_are_converted_and_plans_are_accepted():
    q, k, v = (np.array(x) for x in ([[1, 0], [0, 1], [1, 1]], [[1, 2], [0, 1], [1, 0]], [[1, 0], [0, 2], [3, 0]]))
    want = ref.softmax_attention(q.astype(float), k.astype(float), v.astype(float), mask=np.tri(3, dtype=bool))
    got = ref.softmax_attention(q.astype(np.float16), k.astype(bool) * k, v, mask=Plan())
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind, word, options", [
    (TypeError, "bias", {"mask": np.ones((3, 3))}),
    (ValueError, "mask", {"mask": np.full((3, 3), 2)}),
    (ValueError, "mask", {"mask": np.ones((2, 3), bool)}),
    (ValueError, "bias", {"bias": np.ones((4, 3))}),
    (TypeError, "causal", {"causal": 1}),
    (ValueError, "causal", {"causal": "left"}),
    (TypeError, "window", {"window": 3}),
    (ValueError, "window", {"window": (1, 2, 3)}),
    (TypeError, "window", {"window": (1.0, 2)}),
    (TypeError, "q_offset", {"q_offset": 1.0}),
    (TypeError, "scale", {"scale": "1"}),
    (ValueError, "scale", {"scale": NAN}),
    (ValueError, "softcap", {"softcap": -1.0}),
    (ValueError, "alibi_slopes", {"alibi_slopes": np.ones(2)}),
    (ValueError, "sink_logits", {"sink_logits": np.ones(2)}),
    (ValueError, "dropout_p", {"dropout_p": 1.0, "dropout_mask": np.ones((3, 3), bool)}),
    (ValueError, "dropout_mask", {"dropout_p": 0.1}),
    (ValueError, "stats", {"stats": ("entropie",)}),
])
def test_bad_options_name_the_argument(kind, word, options):
    x = np.zeros((3, 2))
    with pytest.raises(kind, match=word):
        ref.softmax_attention(x, x, x, **options)


def test_bad_arrays_name_the_argument_and_show_shapes():
    x = np.zeros((3, 2))
    for q, k, v, words in (
        (np.zeros(3), x, x, ("q", r"\(3,\)")),
        (x, np.zeros((3, 4)), x, ("k", r"\(3, 4\)")),
        (x, x, np.zeros((4, 2)), ("v", r"\(4, 2\)")),
        (np.zeros((5, 3, 2)), np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), ("k", "5")),
        (np.zeros((2, 1, 3, 2)), np.zeros((3, 1, 3, 2)), np.zeros((3, 1, 3, 2)), ("q", r"\(2, 1, 3, 2\)")),
    ):
        for word in words:
            with pytest.raises(ValueError, match=word):
                ref.softmax_attention(q, k, v)
    for bad in (x.astype(complex), x.astype(object), np.array([["a"]]), np.ma.masked_array(x)):
        with pytest.raises(TypeError, match="k "):
            ref.softmax_attention(x, bad, x)
    with pytest.raises(TypeError, match="mask "):
        ref.softmax_attention(x, x, x, mask=np.ma.masked_array(np.ones((3, 3), bool)))


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(9).standard_normal((4, 2)).astype(ml_dtypes.bfloat16)
    got = ref.softmax_attention(x, x, x)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, ref.softmax_attention(*[x.astype(float)] * 3))
    with pytest.raises(TypeError, match="bfloat16"):
        ref.softmax_attention(x.astype(np.float16), x, x)
