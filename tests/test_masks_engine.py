"""Mask plans inside calls: every function means the same pairs, and only the tiles of a plan are visited."""

import numpy as np
import pytest

import attnkit
from attnkit import masks

LQ, LK, H = 70, 600, 3
RNG = np.random.default_rng(0)
SEGMENTS_Q, SEGMENTS_K = np.sort(RNG.integers(0, 5, LQ)), np.sort(RNG.integers(0, 5, LK))
BLOCKS = RNG.random((H, 7, 6)) < 0.4
DENSE = RNG.random((LQ, LK)) < 0.3
HEADS = RNG.random((H, 1, LK)) < 0.5
I, J = np.arange(LQ)[:, None], np.arange(LK)[None]


def delta(off):
    return I + off - J


# name: (plan, the pairs it must allow, as a function of the position of query 0)
PLANS = {
    "full": (masks.full(), lambda off: np.ones((LQ, LK), bool)),
    "causal": (masks.causal(), lambda off: delta(off) >= 0),
    "causal, upper left": (masks.causal(offset="upper_left"), lambda off: delta(0) >= 0),
    "causal, own offset": (masks.causal(offset=300), lambda off: delta(300) >= 0),
    "window": (masks.window(20, right=3), lambda off: (delta(off) <= 20) & (delta(off) >= -3)),
    "window, sinks, dilation": (masks.window(20, sinks=5, dilation=7),
                                lambda off: ((delta(off) >= 0) & (delta(off) <= 140) & (delta(off) % 7 == 0)) | ((J < 5) & (delta(off) >= 0))),
    "documents": (masks.documents(SEGMENTS_Q, SEGMENTS_K), lambda off: SEGMENTS_Q[:, None] == SEGMENTS_K),
    "prefix": (masks.prefix(33), lambda off: np.broadcast_to(J < 33, (LQ, LK))),
    "blocks of heads": (masks.blocks(BLOCKS, 10, 100), lambda off: BLOCKS.repeat(10, axis=1).repeat(100, axis=2)),
    "dense": (masks.dense(DENSE), lambda off: DENSE),
    "dense of heads": (masks.dense(HEADS), lambda off: np.broadcast_to(HEADS, (H, LQ, LK))),
    "prefix or causal, not blocks": ((masks.prefix(100) | masks.causal()) & ~masks.blocks(BLOCKS[0], 10, 100),
                                     lambda off: ((J < 100) | (delta(off) >= 0)) & ~BLOCKS[0].repeat(10, axis=0).repeat(100, axis=1)),
    "dense and window": (DENSE & masks.window(200), lambda off: DENSE & (delta(off) >= 0) & (delta(off) <= 200)),
}
ENGINE_OPTIONS = {"nothing": {}, "causal": {"causal": True, "q_offset": 250}, "upper left": {"causal": "upper_left"}, "window": {"window": (100, 50), "q_offset": 200}}


def inputs(dtype=np.float32, d=8):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((H, LQ, d), (H, LK, d), (H, LK, 4))]


def offset_of(options):
    return options.get("q_offset", 0 if options.get("causal") == "upper_left" else LK - LQ)


def meant(name, options):
    """The pairs that a plan and the options leave."""
    off = offset_of(options)
    allowed = PLANS[name][1](off)
    if options.get("causal"):
        allowed = allowed & (delta(off) >= 0)
    if options.get("window"):
        left, right = options["window"]
        allowed = allowed & (delta(off) <= left) & (delta(off) >= -right)
    return np.broadcast_to(allowed, (H, LQ, LK))


@pytest.mark.parametrize("options", ENGINE_OPTIONS.values(), ids=ENGINE_OPTIONS)
@pytest.mark.parametrize("name", PLANS)
def test_every_function_sees_the_pairs_that_are_meant(name, options):
    q, k, v = inputs()
    allowed, plan = meant(name, options), PLANS[name][0]
    logits = attnkit.attention_logits(q, k, mask=plan, **options)
    assert np.array_equal(logits != -np.inf, allowed)
    weights = attnkit.attention_weights(q, k, mask=plan, **options)
    assert np.array_equal(weights > 0, allowed)
    stats = attnkit.attention_row_stats(q, k, mask=plan, topk=600, **options)
    assert np.array_equal(stats["n_allowed"], allowed.sum(axis=-1))
    for h in range(H):
        for i in range(0, LQ, 13):
            assert set(stats["topk_index"][h, i]) - {-1} == set(np.flatnonzero(allowed[h, i]))
    columns = attnkit.attention_column_stats(q, k, mask=plan, **options)
    assert np.array_equal(columns["visible"], allowed.sum(axis=-2))
    mass = attnkit.attention_block_mass(q, k, mask=plan, block_q=1, block_k=1, **options)
    assert np.array_equal(mass > 0, allowed)
    out, lse = attnkit.softmax_attention(q, k, v, mask=plan, return_lse=True, **options)
    assert np.array_equal(lse != -np.inf, allowed.any(axis=-1))
    np.testing.assert_allclose(out, weights @ v, atol=1e-5)
    state = attnkit.attention_state(q, k, v, mask=plan, **options)
    assert state.finish()[0].tobytes() == out.tobytes()


@pytest.mark.parametrize("name", PLANS)
def test_windows_of_the_map_under_a_plan(name):
    q, k, _ = inputs()
    whole = attnkit.attention_weights(q, k, mask=PLANS[name][0])
    rows, cols = [69, 3, 3, 48], [599, 0, 255, 256, 300]
    part = attnkit.attention_weights(q, k, mask=PLANS[name][0], rows=rows, cols=cols, heads=[2, 0])
    assert part.tobytes() == np.ascontiguousarray(whole[[2, 0]][:, rows][:, :, cols]).tobytes()
    subset = attnkit.attention_column_stats(q, k, mask=PLANS[name][0], rows=rows)
    np.testing.assert_allclose(subset["received"], whole[:, rows].sum(axis=1), atol=1e-5)
    assert np.array_equal(subset["visible"], (whole[:, rows] > 0).sum(axis=1))


@pytest.mark.parametrize("n_queries", [1, 2, 6, 7, 47, 48, 49, 96, 97])
@pytest.mark.parametrize("n_keys", [1, 15, 16, 17, 255, 256, 257, 513])
def test_diagonals_of_every_size(n_queries, n_keys):
    """The diagonal meets rows, groups of rows, register blocks and tiles at every place."""
    rng = np.random.default_rng(n_queries * 1000 + n_keys)
    q, k, v = (rng.standard_normal((n, 5)).astype(np.float32) for n in (n_queries, n_keys, n_keys))
    for off in {0, n_keys - n_queries, n_keys // 2, -3, 100}:
        d = np.arange(n_queries)[:, None] + off - np.arange(n_keys)
        for options, allowed in (({"causal": True}, d >= 0), ({"window": (9, 0)}, (d >= 0) & (d <= 9)), ({"window": (None, 20)}, d >= -20)):
            out, stats = attnkit.softmax_attention(q, k, v, q_offset=off, stats="n_allowed", **options)
            dense, again = attnkit.softmax_attention(q, k, v, mask=allowed, stats="n_allowed")
            assert out.tobytes() == dense.tobytes(), (off, options)
            assert np.array_equal(stats["n_allowed"], allowed.sum(axis=1)) and np.array_equal(again["n_allowed"], allowed.sum(axis=1))


def test_only_the_tiles_of_a_plan_are_visited():
    """The whole square is 2^40 pairs: minutes of work, beyond the time limit of a test."""
    n = 1 << 20
    q = np.broadcast_to(np.ones((1, 8), np.float32), (n, 8))
    v = np.arange(n, dtype=np.float32)[:, None]
    out = attnkit.softmax_attention(q, q, v, window=(63, 0))
    np.testing.assert_allclose(out[63:, 0], np.arange(63, n) - 31.5, rtol=1e-5)
    documents = masks.documents(np.arange(n) // 100, np.arange(n) // 100)
    out = attnkit.softmax_attention(q, q, v, mask=documents)
    np.testing.assert_allclose(out[: n // 100 * 100, 0].reshape(-1, 100), np.repeat(np.arange(n // 100)[:, None] * 100 + 49.5, 100, axis=1), rtol=1e-5)


def test_plans_broadcast_over_the_batch():
    """A plan with a matrix per head in a call with more leading axes, and with grouped heads."""
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal(s).astype(np.float32) for s in ((2, 6, LQ, 8), (2, 2, LK, 8), (2, 2, LK, 4)))
    blocks = rng.random((6, 7, 6)) < 0.5
    plan, dense = masks.blocks(blocks, 10, 100), blocks.repeat(10, axis=1).repeat(100, axis=2)
    for options in ({"mask": plan}, {"mask": plan & masks.causal()}):
        allowed = dense & (delta(LK - LQ) >= 0) if "causal" in repr(options["mask"]) else dense
        a = attnkit.softmax_attention(q, k, v, return_lse=True, return_weights=True, **options)
        b = attnkit.softmax_attention(q, k, v, return_lse=True, return_weights=True, mask=allowed)
        for x, y in zip(a, b):
            assert x.tobytes() == y.tobytes()
    one_row = attnkit.softmax_attention(q[:, :, 3:4], k, v, mask=dense[:, 3:4])
    assert one_row.tobytes() == np.ascontiguousarray(attnkit.softmax_attention(q, k, v, mask=plan)[:, :, 3:4]).tobytes()


def test_block_sparse_attention_is_attention_under_blocks():
    q, k, v = inputs()
    for options in ({}, {"causal": True}, {"mask": DENSE}, {"mask": masks.causal(offset=100)}, {"window": (100, 0), "q_offset": 300, "sink_logits": [1.0, 2.0, 3.0]}):
        sparse = attnkit.block_sparse_attention(q, k, v, BLOCKS, block_q=10, block_k=100, return_lse=True, stats="entropy", **options)
        extra = options.get("mask")
        plan = masks.blocks(BLOCKS, 10, 100)
        same = attnkit.softmax_attention(q, k, v, return_lse=True, stats="entropy", **{**options, "mask": plan if extra is None else plan & extra})
        assert sparse[0].tobytes() == same[0].tobytes() and sparse[1].tobytes() == same[1].tobytes()
        assert sparse[2]["entropy"].tobytes() == same[2]["entropy"].tobytes()


@pytest.mark.parametrize("bad, error", [(masks.documents(np.zeros(5, int), np.zeros(LK, int)), ValueError), (masks.dense(DENSE).at(LQ, LK) if False else
                         masks.causal().at(3, 4), ValueError), (masks.blocks(np.ones((2, 2), bool), 10, 100), ValueError),
                                        (masks.blocks(np.ones((4, 7, 6), bool), 10, 100), ValueError), (np.ones((LQ, LK)), TypeError)])
def test_plans_that_do_not_fit_are_named(bad, error):
    q, k, v = inputs()
    for call in (lambda: attnkit.softmax_attention(q, k, v, mask=bad), lambda: attnkit.attention_column_stats(q, k, mask=bad),
                 lambda: attnkit.attention_weights(q, k, mask=bad, heads=0)):
        with pytest.raises(error, match="mask"):
            call()
