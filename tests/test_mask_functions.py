"""Boolean masks: closed forms, both implementations against each other, and the arguments they refuse."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnkit import mask_functions as main
from attnkit import reference as ref

both = pytest.mark.parametrize("impl", [main, ref], ids=["main", "twin"])
NAMES = ("causal_mask", "sliding_window_mask", "document_mask", "block_mask_to_dense", "block_mask_to_csr",
         "mask_tile_stats", "receptive_field", "receptive_depth")


def outcome(f, args, options):
    try:
        return f(*args, **options)
    except (TypeError, ValueError) as error:
        return type(error)


def assert_same(name, *args, **options):
    """Values, dtypes and shapes agree, or both raise the same kind of error."""
    a, b = (outcome(getattr(module, name), args, options) for module in (main, ref))
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all(), (name, args, options)
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            np.testing.assert_equal(x, y)
    else:
        assert a == b, (name, args, options)
        if isinstance(a, dict):
            assert {k: type(v) for k, v in a.items()} == {k: type(v) for k, v in b.items()}


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_equal(name):
    assert inspect.signature(getattr(main, name)) == inspect.signature(getattr(ref, name))


lengths = st.integers(0, 12)


@settings(max_examples=200, deadline=None)
@given(lengths, st.none() | lengths, st.none() | st.integers(-2, 5), st.integers(-2, 4), st.integers(0, 3),
       st.integers(1, 3), st.none() | st.integers(-15, 15))
def test_position_masks(lq, lk, left, right, sinks, dilation, offset):
    assert_same("causal_mask", lq, lk, offset=offset)
    assert_same("sliding_window_mask", lq, lk, left=left, right=right, sinks=sinks, dilation=dilation, offset=offset)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), lengths, lengths, st.integers(1, 5), st.integers(1, 5), st.floats(0, 1),
       st.booleans())
def test_blocks_and_tiles(seed, lq, lk, block_q, block_k, density, causal):
    rng = np.random.default_rng(seed)
    mask = rng.random((lq, lk)) < density
    assert_same("mask_tile_stats", mask, block_q, block_k)
    assert_same("document_mask", rng.integers(0, 3, lq), rng.integers(0, 3, lk), causal=causal)
    assert_same("document_mask", rng.integers(0, 3, (2, 1, lq)), rng.integers(0, 3, (3, lk)), causal=causal)
    blocks = rng.random((2, -(-lq // block_q), -(-lk // block_k))) < density
    for b in (blocks, blocks[0]):
        assert_same("block_mask_to_dense", b, lq, lk, block_q=block_q, block_k=block_k, causal=causal)
        assert_same("block_mask_to_csr", b)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20) | st.sampled_from([63, 64, 65, 70]), st.floats(0, 1),
       st.integers(0, 9))
def test_receptive(seed, length, density, layers):
    mask = np.random.default_rng(seed).random((length, length)) < density**3
    assert_same("receptive_field", mask, layers)
    assert_same("receptive_depth", mask)


@both
def test_closed_forms(impl):
    assert impl.causal_mask(3, 5).tolist() == [[True] * 3 + [False] * 2, [True] * 4 + [False], [True] * 5]
    assert impl.causal_mask(2, 2, offset=-1).tolist() == [[False, False], [True, False]]
    assert impl.causal_mask(4).sum() == 10
    w = impl.sliding_window_mask(9, left=2, dilation=3, sinks=2)
    assert np.flatnonzero(w[8]).tolist() == [0, 1, 2, 5, 8] and np.flatnonzero(w[0]).tolist() == [0]
    w = impl.sliding_window_mask(6, left=1, right=2, sinks=1)
    assert np.flatnonzero(w[3]).tolist() == [0, 2, 3, 4, 5]
    assert impl.sliding_window_mask(4, left=None).sum() == 10 and impl.sliding_window_mask(4, left=-1, right=None).all()
    assert impl.document_mask([1, 1, 2], [2, 1, 1]).tolist() == [[False, True, True]] * 2 + [[True, False, False]]
    indptr, indices = impl.block_mask_to_csr([[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert indptr.tolist() == [0, 2, 2, 3] and indices.tolist() == [1, 2, 0]
    assert indptr.dtype == indices.dtype == np.int64
    heads = impl.block_mask_to_csr(np.ones((2, 1, 3), bool))
    assert isinstance(heads, list) and len(heads) == 2 and heads[1][1].tolist() == [0, 1, 2]


@both
def test_tiles_of_causal_masks(impl):
    for t in range(1, 7):       # t x t tiles: the diagonal is partial, all below it full
        stats = impl.mask_tile_stats(impl.causal_mask(4 * t), 4, 4)
        assert stats["tiles"] == t * t and stats["visited"] == t * (t + 1) // 2 and stats["full"] == t * (t - 1) // 2
        assert stats["max_row_tiles"] == t and stats["speedup_worst_row"] == 1
        np.testing.assert_allclose(stats["speedup_bound"], 2 * t / (t + 1))
        np.testing.assert_allclose(stats["density"], (4 * t + 1) / (8 * t))
        np.testing.assert_allclose(stats["wasted"], 1 - (4 * t * (4 * t + 1) / 2) / (16 * t * (t + 1) / 2))
    none = impl.mask_tile_stats(np.zeros((3, 3), bool), 2, 2)
    assert none["visited"] == 0 and none["speedup_bound"] == math.inf and none["wasted"] == 0
    assert impl.mask_tile_stats(np.zeros((0, 3), bool), 2, 2)["speedup_bound"] == 1


@both
def test_dense_blocks_and_csr_round_trip(impl):
    blocks = np.random.default_rng(0).random((5, 4)) < 0.5
    dense = impl.block_mask_to_dense(blocks, 14, 11, block_q=3, block_k=3)
    stats = impl.mask_tile_stats(dense, 3, 3)
    assert stats["visited"] == stats["full"] == blocks.sum() and stats["wasted"] == 0
    indptr, indices = impl.block_mask_to_csr(blocks)
    again = np.zeros_like(blocks)
    again[np.repeat(np.arange(5), np.diff(indptr)), indices] = True
    assert (again == blocks).all()
    causal = impl.block_mask_to_dense(blocks, 14, 11, block_q=3, block_k=3, causal=True)
    assert (causal == (dense & impl.causal_mask(14, 11))).all()


@both
def test_receptive_closed_forms(impl):
    window = impl.sliding_window_mask(12, left=2)
    i, j = np.indices((12, 12))
    assert (impl.receptive_depth(window) == np.where(j <= i, -(-(i - j) // 2), -1)).all()
    for layers in range(4):
        assert (impl.receptive_field(window, layers) == ((j <= i) & (i - j <= 2 * layers))).all()
    step = np.eye(12, k=-1, dtype=bool)             # no diagonal: exactly `layers` steps
    assert (impl.receptive_field(step, 3) == np.eye(12, k=-3, dtype=bool)).all()
    assert (impl.receptive_depth(step) == np.where(j <= i, i - j, -1)).all()
    assert (impl.receptive_depth(np.zeros((3, 3), bool)) == np.where(np.eye(3), 0, -1)).all()


def test_depth_is_the_first_power_that_reaches():
    rng = np.random.default_rng(1)
    mask = (rng.random((130, 130)) < 0.02) | np.eye(130, dtype=bool)
    depth = main.receptive_depth(mask)
    for layers in (0, 1, 2, 5):     # with a diagonal, reach in `layers` steps = depth <= layers
        assert (main.receptive_field(mask, layers) == ((depth >= 0) & (depth <= layers))).all()


@both
@pytest.mark.parametrize("kind, word, name, args, options", [
    (TypeError, "Lq", "causal_mask", (2.0,), {}),
    (ValueError, "Lq", "causal_mask", (-1,), {}),
    (TypeError, "offset", "causal_mask", (2,), {"offset": True}),
    (ValueError, "dilation", "sliding_window_mask", (2,), {"left": 1, "dilation": 0}),
    (ValueError, "sinks", "sliding_window_mask", (2,), {"left": 1, "sinks": -1}),
    (TypeError, "seg_q", "document_mask", ([0.5],), {}),
    (ValueError, "seg_k", "document_mask", (np.zeros((2, 3), int), np.zeros((3, 3), int)), {}),
    (TypeError, "block_mask", "block_mask_to_dense", (np.ones((2, 2)), 4, 4), {"block_q": 2, "block_k": 2}),
    (ValueError, r"\(2, 2\)", "block_mask_to_dense", (np.ones((2, 2), bool), 5, 4), {"block_q": 2, "block_k": 2}),
    (ValueError, "block_mask", "block_mask_to_csr", (np.ones(3, bool),), {}),
    (ValueError, r"\(3,\)", "mask_tile_stats", (np.ones(3, bool), 1, 1), {}),
    (ValueError, "block_k", "mask_tile_stats", (np.ones((3, 3), bool), 1, 0), {}),
    (ValueError, r"\(2, 3\)", "receptive_field", (np.ones((2, 3), bool), 1), {}),
    (ValueError, "layers", "receptive_field", (np.ones((2, 2), bool), -1), {}),
    (TypeError, "bias", "receptive_depth", (np.ones((2, 2)),), {}),
    (ValueError, "mask", "receptive_depth", (np.full((2, 2), 2),), {}),
])
def test_bad_arguments(impl, kind, word, name, args, options):
    with pytest.raises(kind, match=word):
        getattr(impl, name)(*args, **options)
