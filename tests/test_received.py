"""Attention received: the fused pass, the second pass and the map itself say the same."""

import numpy as np
import pytest

import attnkit
from attnkit import masks, reference

NAMES = ("received", "received_max", "visible", "received_mean")
SHAPES = [(2, 1, 100, 700), (1, 1, 48, 30), (4, 2, 150, 1300), (1, 1, 47, 64)]  # heads, key heads, Lq, Lk; the last has too few rows to fuse


def options(word, rng, heads, lq, lk):
    return {
        "plain": {},
        "causal": {"causal": True},
        "window": {"window": (60, 5)},
        "plan": {"mask": masks.window(40, sinks=3, dilation=2) | masks.prefix(9)},
        "mask": {"mask": rng.random((heads, lq, lk)) < 0.3},
        "bias": {"bias": np.where(rng.random((lq, lk)) < 0.1, -np.inf, rng.standard_normal((lq, lk)))},
        "sink": {"sink_logits": rng.standard_normal(heads)},
        "softcap": {"softcap": 2.0, "alibi_slopes": rng.random(heads)},
    }[word]


def inputs(shape, dtype, rng):
    heads, key_heads, lq, lk = shape
    return tuple(rng.standard_normal((h, n, 24)).astype(dtype) for h, n in ((heads, lq), (key_heads, lk), (key_heads, lk)))


def packed(stats):
    return b"".join(stats[name].tobytes() for name in NAMES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("word", ["plain", "causal", "window", "plan", "mask", "bias", "sink", "softcap"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_way_gives_the_same_bytes(shape, word, dtype):
    rng = np.random.default_rng(7)
    q, k, v = inputs(shape, dtype, rng)
    kw = options(word, rng, shape[0], *shape[2:])
    second_pass = attnkit.attention_column_stats(q, k, rows=np.arange(shape[2]), **kw)
    for n in (1, 2, 3, 7):
        with attnkit.threads(n):
            assert packed(attnkit.attention_column_stats(q, k, **kw)) == packed(second_pass)
            out, stats = attnkit.softmax_attention(q, k, v, stats=NAMES, **kw)
            assert packed(stats) == packed(second_pass)
            assert out.tobytes() == attnkit.softmax_attention(q, k, v, **kw).tobytes()
    expected = reference.attention_column_stats(q, k, **kw)
    eps = np.finfo(dtype).eps
    for name in NAMES:
        # Errors of single weights are relative: eps times the size of the logits (below 40 here) and the length of the sums.
        np.testing.assert_allclose(stats[name], expected[name], rtol=400 * eps, atol=40 * eps)


def test_row_weights_count_in_both_ways():
    rng = np.random.default_rng(8)
    q, k, _ = inputs((2, 2, 120, 300), np.float64, rng)
    w = rng.random((2, 120))
    fused = attnkit.attention_column_stats(q, k, row_weights=w)
    assert packed(fused) == packed(attnkit.attention_column_stats(q, k, row_weights=w, rows=slice(None)))
    p = reference.attention_weights(q, k)
    np.testing.assert_allclose(fused["received"], (w[..., None] * p).sum(-2), rtol=1e-12)


def test_a_nan_query_reaches_only_the_keys_it_sees():
    rng = np.random.default_rng(9)
    q, k, _ = inputs((1, 1, 60, 60), np.float32, rng)
    q[0, 3] = np.nan
    stats = attnkit.attention_column_stats(q, k, causal=True)
    assert np.isnan(stats["received"][0, :4]).all() and np.isnan(stats["received_max"][0, :4]).all()
    assert np.isfinite(stats["received"][0, 4:]).all()


def test_total_received_is_the_number_of_rows():
    rng = np.random.default_rng(10)
    q, k, _ = inputs((3, 1, 200, 900), np.float64, rng)
    np.testing.assert_allclose(attnkit.attention_column_stats(q, k, causal=True)["received"].sum(-1), 200, rtol=1e-12)
