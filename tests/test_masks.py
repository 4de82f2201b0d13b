"""Mask plans against their definition: boolean arrays for small extents, Python integers for huge ones."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnkit import _core, masks
from attnkit.exact import softmax_attention

TILE = 256
EMPTY, FULL, PARTIAL = 0, 1, 2


# ---- the definition --------------------------------------------------------------------------------------------------


def delta(Lq, Lk, offset):
    offset = {None: Lk - Lq, "lower_right": Lk - Lq, "upper_left": 0}.get(offset, offset)
    return np.arange(Lq)[:, None] + offset - np.arange(Lk)[None, :]


def window_array(Lq, Lk, left, right=0, sinks=0, dilation=1, offset=None):
    d = delta(Lq, Lk, offset)
    behind = np.ones_like(d, bool) if left is None or left < 0 else d <= left * dilation
    ahead = np.ones_like(d, bool) if right is None or right < 0 else d >= -right * dilation
    return (behind & ahead & (d % dilation == 0)) | (ahead & (np.arange(Lk) < sinks))


def block_array(Lq, Lk, block_mask, block_q, block_k):
    return np.repeat(np.repeat(block_mask, block_q, axis=-2), block_k, axis=-1)[..., :Lq, :Lk].astype(bool)


def state_of(part):
    return EMPTY if not part.any() else FULL if part.all() else PARTIAL


def random_strides(rng, array):
    """The same values with other strides: transposed, reversed, padded, or as they are."""
    kind = rng.integers(4)
    if kind == 1:
        return np.ascontiguousarray(array.T).T
    if kind == 2:
        return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    if kind == 3:
        wide = np.ones((array.shape[0], 2 * array.shape[1] + 3), bool)
        wide[:, 1 : 2 * array.shape[1] + 1 : 2] = array
        return wide[:, 1 : 2 * array.shape[1] + 1 : 2]
    return array


def random_leaf(rng, Lq, Lk):
    """A plan of one pattern and its array."""
    kind = rng.integers(8)
    offset = [None, "upper_left", int(rng.integers(-Lk - 3, Lk + 3))][rng.integers(3)]
    if kind == 0:
        return masks.causal(offset), delta(Lq, Lk, offset) >= 0
    if kind in (1, 2):
        left, right = (int(rng.integers(-1, [3, 40, 900][rng.integers(3)])) for _ in range(2))
        args = dict(left=left, right=right, sinks=int(rng.integers(0, 5)) * int(rng.integers(0, 90)), offset=offset)
        args["dilation"] = int(rng.choice([1, 1, 2, 3, 7, 300]))
        return masks.window(**args), window_array(Lq, Lk, **args)
    if kind == 3:
        n = int(rng.choice([1, 3, 30]))
        seg_q, seg_k = rng.integers(-n, n, Lq), rng.integers(-n, n, Lk)
        if rng.integers(2):
            seg_q, seg_k = np.sort(seg_q), np.sort(seg_k)
        return masks.documents(seg_q, seg_k), seg_q[:, None] == seg_k[None, :]
    if kind == 4:
        n = int(rng.integers(0, Lk + 5))
        return masks.prefix(n), np.broadcast_to(np.arange(Lk) < n, (Lq, Lk))
    if kind == 5:
        block_q, block_k = (int(rng.choice([1, 5, 64, 100, 256, 1000])) for _ in range(2))
        block_mask = rng.random((-(-Lq // block_q), -(-Lk // block_k))) < rng.choice([0.1, 0.5, 0.9])
        return masks.blocks(block_mask, block_q, block_k), block_array(Lq, Lk, block_mask, block_q, block_k)
    if kind == 6:
        array = rng.random((Lq, Lk)) < rng.choice([0.0, 0.01, 0.5, 0.99, 1.0])
        array = random_strides(rng, array)
        return masks.dense(array), array
    return masks.full(), np.ones((Lq, Lk), bool)


def random_plan(rng, Lq, Lk, depth):
    if depth == 0 or rng.integers(3) == 0:
        return random_leaf(rng, Lq, Lk)
    plan, array = random_plan(rng, Lq, Lk, depth - 1)
    operator = rng.integers(3)
    if operator == 0:
        return ~plan, ~array
    other_plan, other = random_plan(rng, Lq, Lk, depth - 1)
    return (plan & other_plan, array & other) if operator == 1 else (plan | other_plan, array | other)


def check_plan(plan, array, rng, exact):
    """Everything the core says about a plan, against the array."""
    Lq, Lk = array.shape
    nodes = masks._lower(plan, Lq, Lk, ())
    np.testing.assert_array_equal(plan.to_dense(Lq, Lk), array)
    padded = np.pad(array, ((0, 0), (0, -Lk % TILE)))
    n_tiles = -(-Lk // TILE)
    for _ in range(4):
        row0, row1 = np.sort(rng.integers(0, Lq + 1, 2)).tolist() if rng.integers(2) else (0, Lq)
        first, last = _core.plan_range(nodes, Lq, Lk, (), row0, row1)
        for tile in range(n_tiles):
            part = array[row0:row1, tile * TILE : (tile + 1) * TILE]
            state = _core.plan_classify(nodes, Lq, Lk, (), row0, row1, tile)
            truth = state_of(part) if part.size else EMPTY
            assert state == truth or (state == PARTIAL and not exact), (plan, row0, row1, tile, state, truth)
            assert truth == EMPTY or first <= tile < last, (plan, row0, row1, tile, first, last)
            if Lq:
                row = int(rng.integers(Lq))
                bits = _core.plan_row(nodes, Lq, Lk, (), row, tile)
                np.testing.assert_array_equal(bits, padded[row, tile * TILE : (tile + 1) * TILE])
    block_q, block_k = (int(rng.choice([1, 7, 64, 100, 256, 300, 5000])) for _ in range(2))
    check_counts(plan, array, block_q, block_k)


def brute_stats(array, block_q, block_k):
    Lq, Lk = array.shape
    states = np.zeros((-(-Lq // block_q), -(-Lk // block_k)), int)
    for a, b in np.ndindex(*states.shape):
        states[a, b] = state_of(array[a * block_q : (a + 1) * block_q, b * block_k : (b + 1) * block_k])
    visited = states != EMPTY
    inside = np.repeat(np.repeat(visited, block_q, axis=0), block_k, axis=1)[:Lq, :Lk].sum()
    most = visited.sum(axis=1).max(initial=0)
    return states, {
        "tiles": states.size,
        "visited": visited.sum(),
        "full": (states == FULL).sum(),
        "partial": (states == PARTIAL).sum(),
        "density": array.mean() if array.size else 0.0,
        "wasted": 1 - array.sum() / inside if inside else 0.0,
        "max_row_tiles": most,
        "speedup_bound": states.size / visited.sum() if visited.any() else np.inf if states.size else 1,
        "speedup_worst_row": states.shape[1] / most if most else np.inf if states.size else 1,
    }


def check_counts(plan, array, block_q, block_k):
    Lq, Lk = array.shape
    if Lq * Lk > 250_000 and block_q * block_k < 50:
        block_q = block_k = 31  # the brute force walks every tile in Python
    states, expected = brute_stats(array, block_q, block_k)
    assert plan.tile_stats(Lq, Lk, block_q=block_q, block_k=block_k) == pytest.approx(expected)
    seen = _core.plan_states(masks._lower(plan, Lq, Lk, ()), Lq, Lk, (), block_q, block_k)
    np.testing.assert_array_equal(seen, states)


# ---- small extents, by brute force -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_single_patterns_match_their_definition_and_are_classified_exactly(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        Lq, Lk = (int(n) for n in rng.choice([0, 1, 2, 5, 63, 64, 65, 200, 256, 257, 700], 2))
        plan, array = random_leaf(rng, Lq, Lk)
        check_plan(plan, array, rng, exact=True)
        check_plan(~plan, ~array, rng, exact=True)


@pytest.mark.parametrize("seed", range(8))
def test_random_combinations_match_their_definition(seed):
    rng = np.random.default_rng(100 + seed)
    for _ in range(60):
        Lq, Lk = (int(n) for n in rng.choice([1, 3, 64, 130, 256, 300, 600], 2))
        plan, array = random_plan(rng, Lq, Lk, int(rng.integers(1, 5)))
        check_plan(plan, array, rng, exact=False)


numbers = st.integers(-1, 40) | st.sampled_from([None, 255, 256, 257, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 200])


@settings(max_examples=300, deadline=None)
@given(
    Lq=st.integers(0, 40),
    Lk=st.integers(0, 600),
    left=numbers,
    right=numbers,
    sinks=st.integers(0, 30) | st.sampled_from([1 << 62, 1 << 64]),
    dilation=st.integers(1, 9) | st.sampled_from([255, 256, 257, 1 << 62]),
    offset=st.integers(-700, 700) | st.sampled_from([None, "lower_right", "upper_left"]),
)
def test_windows_of_any_size(Lq, Lk, left, right, sinks, dilation, offset):
    plan = masks.window(left, right, sinks, dilation, offset)
    far = 1 << 20  # beyond every distance in play, and safe to multiply in int64
    left, right, sinks, dilation = (None if n is None else min(n, far) for n in (left, right, sinks, dilation))
    array = window_array(Lq, Lk, left, right, sinks, dilation, offset)
    np.testing.assert_array_equal(plan.to_dense(Lq, Lk), array)
    nodes = masks._lower(plan, Lq, Lk, ())
    for tile in range(-(-Lk // TILE)):
        if Lq:
            part = array[:, tile * TILE : (tile + 1) * TILE]
            assert _core.plan_classify(nodes, Lq, Lk, (), 0, Lq, tile) == state_of(part)


def test_sorted_documents_with_a_document_that_has_no_keys():
    # Segment 5 lies between the bounds of the only tile but has no key: only the keys themselves can tell.
    seg_k = np.repeat([1, 9], 100)
    for order in (slice(None), slice(None, None, -1)):
        nodes = masks._lower(masks.documents([5, 5, 5], seg_k[order]), 3, 200, ())
        assert _core.plan_classify(nodes, 3, 200, (), 0, 3, 0) == EMPTY


def test_narrow_ranges():
    L = 10_000
    band = masks._lower(masks.window(300), L, L, ())
    assert _core.plan_range(band, L, L, (), 5000, 5064) == (4700 // TILE, 5063 // TILE + 1)
    hole = masks._lower(masks.full() & ~masks.window(300, right=None), L, L, ())
    assert _core.plan_range(hole, L, L, (), 5000, 5064) == (0, (5063 - 300 - 1) // TILE + 1)
    segments = np.repeat(np.arange(10), 1000)
    for seg in (segments, segments[::-1]):
        nodes = masks._lower(masks.documents(seg) & masks.causal(), L, L, ())
        assert _core.plan_range(nodes, L, L, (), 5000, 5064) == (5000 // TILE, 5063 // TILE + 1)
    listed = np.zeros((10, 10), bool)
    listed[5, [3, 6]] = True
    nodes = masks._lower(masks.blocks(listed, 1000, 1000), L, L, ())
    assert _core.plan_range(nodes, L, L, (), 5000, 5064) == (3000 // TILE, 6999 // TILE + 1)


def test_documents_that_fall_from_tile_to_tile():
    segments = np.repeat([7, 5, 6], TILE)  # sorted within every tile, not across them
    plan, same = masks.documents(segments), segments[:, None] == segments
    check_plan(plan, same, np.random.default_rng(0), exact=True)
    nodes = masks._lower(plan, segments.size, segments.size, ())
    assert _core.plan_range(nodes, segments.size, segments.size, (), 0, 9) == (0, 1)


def test_ranges_of_negated_plans():
    L = 10_000
    hole = masks._lower(~masks.window(3000, sinks=1000), L, L, ())
    assert _core.plan_range(hole, L, L, (), 9000, 9064) == (1000 // TILE, -(-L // TILE))
    hole = masks._lower(~masks.window(3000, right=None, sinks=1000), L, L, ())
    assert _core.plan_range(hole, L, L, (), 9000, 9064) == (1000 // TILE, 6062 // TILE + 1)
    rest = masks._lower(~(masks.causal() | masks.prefix(4000)), L, L, ())
    assert _core.plan_range(rest, L, L, (), 100, 164) == (4000 // TILE, -(-L // TILE))
    assert _core.plan_range(rest, L, L, (), 7000, 7064) == (7001 // TILE, -(-L // TILE))
    assert _core.plan_range(masks._lower(masks.none(), L, L, ()), L, L, (), 0, L) == (0, 0)


def test_the_largest_dilation_does_not_wrap():
    for dilation in ((1 << 63) - 1, 1 << 62, 300):
        row = _core.plan_row([("window", 3, 3, 0, dilation, 0)], 1000, 1000, (), 600, 2)
        np.testing.assert_array_equal(np.flatnonzero(row), [600 - 2 * TILE])


def test_bytes_other_than_one_count_as_true():
    raw = np.array([[0, 2, 128, 255, 1, 0, 64, 3, 0, 7]], np.uint8)
    nodes = [("dense", raw.view(bool))]
    np.testing.assert_array_equal(_core.plan_dense(nodes, 1, 10, ()), raw != 0)


# ---- huge extents, by Python integers --------------------------------------------------------------------------------


def allowed(spec, pos, j):
    """Is key j allowed for a query at position pos?"""
    left, right, sinks, dilation = spec
    d = pos - j
    ahead = right is None or d >= -right * dilation
    return ahead and (j < sinks or (left is None or d <= left * dilation) and d % dilation == 0)


@pytest.mark.parametrize("extent", [1 << 31, (1 << 40) + 12345, 1 << 62])
@pytest.mark.parametrize(
    "spec",
    [
        (None, 0, 0, 1),
        (1000, 0, 4, 1),
        (3, 5, 0, 1),
        (1 << 61, 1 << 61, 0, 2),
        (7, 7, 300, 1 << 20),
        (None, None, 0, 3),
    ],
)
def test_huge_extents(extent, spec):
    rng = np.random.default_rng(extent % 1000 + spec[3])
    left, right, sinks, dilation = spec
    edges = [0, 1, TILE, extent // 2, extent - TILE - 1, extent - 1]
    for offset in (0, -1, 17, -(extent // 2), extent // 2, 1 << 62, -(1 << 62)):
        plan = masks.window(left, right, sinks, dilation, offset)
        nodes = masks._lower(plan, extent, extent, ())
        for row in edges + [int(rng.integers(extent)) for _ in range(3)]:
            pos = row + offset
            near = [pos - TILE, pos, pos + TILE, pos - (left or 0) * dilation, pos + (right or 0) * dilation]
            for tile in {j // TILE for j in [*near, 0, extent - 1] if 0 <= j < extent}:
                keys = range(tile * TILE, min((tile + 1) * TILE, extent))
                truth = np.array([allowed(spec, pos, j) for j in keys])
                bits = _core.plan_row(nodes, extent, extent, (), row, tile)
                assert not bits[len(keys) :].any()
                np.testing.assert_array_equal(bits[: len(keys)], truth)
                assert _core.plan_classify(nodes, extent, extent, (), row, row + 1, tile) == state_of(truth)
                first, last = _core.plan_range(nodes, extent, extent, (), row, row + 1)
                assert first <= tile < last or not truth.any()


def test_huge_rows_at_once():
    L = 1 << 40
    nodes = masks._lower(masks.causal(), L, L, ())
    assert _core.plan_classify(nodes, L, L, (), 0, L, 0) == PARTIAL
    assert _core.plan_classify(nodes, L, L, (), 255, L, 0) == FULL
    assert _core.plan_classify(nodes, L, L, (), 0, L - TILE, L // TILE - 1) == EMPTY
    assert _core.plan_range(nodes, L, L, (), 0, 1) == (0, 1)
    assert _core.plan_range(nodes, L, L, (), L - 1, L) == (0, L // TILE)


def test_counts_of_large_plans_follow_from_arithmetic():
    L, w = 100_000, 1000
    stats = masks.window(w - 1).tile_stats(L)
    pairs = w * (w + 1) // 2 + (L - w) * w
    assert stats["density"] == pytest.approx(pairs / L**2, rel=1e-12)
    rows = np.arange(0, L, 64)
    per_row = np.minimum(rows + 63, L - 1) // 256 - np.maximum(rows - (w - 1), 0) // 256 + 1
    assert stats["visited"] == per_row.sum() and stats["max_row_tiles"] == per_row.max()
    stats = masks.causal().tile_stats(1 << 20, block_q=1 << 10, block_k=1 << 10)
    assert (stats["visited"], stats["full"]) == (1024 * 1025 // 2, 1024 * 1023 // 2)


# ---- plan objects ----------------------------------------------------------------------------------------------------


def test_simplification_equality_hash_and_pickle():
    c, w = masks.causal(), masks.window(5, sinks=2)
    assert ~~c is c and (c & c) == c and (c | c) == c
    assert c & masks.full() is not None and (c & masks.full()) == c and (masks.none() | c) == c
    assert ~masks.full() == masks.none() and ~masks.none() == masks.full()
    assert c & w == w & c and hash(c & w) == hash(w & c) and c & w != c | w and c != masks.causal(offset=0)
    assert (c & w) & masks.prefix(3) == c & (w & masks.prefix(3))
    array = np.eye(4, dtype=bool)
    d, copy = masks.dense(array), masks.dense(array.copy())
    assert d == copy and hash(d) == hash(copy) and d != masks.dense(~array) and c != "causal()"
    plans = [c, w, c & w | ~masks.prefix(2), masks.documents([0, 1], [1, 1, 2]), masks.documents([0, 0]), d, c.at(3, 4)]
    plans += [masks.blocks(np.ones((3, 2, 2), bool), 8, 8), masks.none()]
    plans += [masks.dense(np.broadcast_to(array[:, :1], (4, 4)))]
    for plan in plans:
        again = pickle.loads(pickle.dumps(plan))
        assert again == plan and hash(again) == hash(plan) and repr(again) == repr(plan)
    assert len({*plans, *plans}) == len(plans)


def test_plans_are_immutable_and_have_no_truth_value():
    plan = masks.causal()
    with pytest.raises(AttributeError, match="immutable"):
        plan._fields = ()
    with pytest.raises(AttributeError, match="immutable"):
        plan.offset = 3
    with pytest.raises(TypeError, match="truth value"):
        bool(plan)
    segments = np.array([0, 0, 1])
    plan = masks.documents(segments)
    segments[:] = 7
    np.testing.assert_array_equal(np.asarray(plan), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_arrays_combine_on_either_side():
    array = np.random.default_rng(0).random((5, 5)) < 0.5
    lower = np.tri(5, dtype=bool)
    np.testing.assert_array_equal(np.asarray(array & masks.causal()), array & lower)
    np.testing.assert_array_equal(np.asarray(masks.causal() & array), array & lower)
    np.testing.assert_array_equal(np.asarray(array | masks.causal()), array | lower)
    np.testing.assert_array_equal((masks.causal() | array[0]).to_dense(5), array[0] | lower)
    np.testing.assert_array_equal((masks.causal() & array.astype(np.int64)).to_dense(5), array & lower)
    with pytest.raises(TypeError, match="bias="):
        masks.causal() & np.zeros((5, 5), np.float32)
    with pytest.raises(TypeError):
        masks.causal() & 3


def test_conversion_to_an_array():
    bound = (masks.causal() & masks.window(1)).at(3)
    expected = [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert np.asarray(bound).dtype == bool and np.asarray(bound, dtype=np.int8).dtype == np.int8
    np.testing.assert_array_equal(np.asarray(bound), expected)
    np.testing.assert_array_equal(np.asarray(bound | masks.prefix(1)), np.array(expected) | [1, 0, 0])
    np.testing.assert_array_equal(np.asarray(masks.dense([True, False])), [[True, False]])
    with pytest.raises(ValueError, match="makes a new one"):
        np.array(bound, copy=False)
    with pytest.raises(TypeError, match="does not know its extents"):
        np.asarray(masks.causal())


def test_per_head_plans():
    rng = np.random.default_rng(3)
    block_mask = rng.random((3, 5, 4)) < 0.5
    array = block_array(300, 200, block_mask, 64, 50)
    plan = masks.blocks(block_mask, 64, 50) & masks.causal()
    expected = array & (delta(300, 200, None) >= 0)
    np.testing.assert_array_equal(plan.to_dense(300, 200), expected)
    per_batch = rng.random((2, 1, 1, 200)) < 0.7
    both = plan & per_batch
    np.testing.assert_array_equal(both.to_dense(300, 200), expected & per_batch)
    stats, heads = plan.tile_stats(300, 200, block_q=50), [brute_stats(a, 50, 256)[1] for a in expected]
    for word in ("tiles", "visited", "full", "partial"):
        assert stats[word] == sum(h[word] for h in heads)
    assert stats["density"] == pytest.approx(expected.mean())
    nodes = masks._lower(both, 300, 200, (2, 3))
    np.testing.assert_array_equal(_core.plan_dense(nodes, 300, 200, (1, 2)), (expected & per_batch)[1, 2])
    assert plan.picture(300, 200, index=(2,)) != plan.picture(300, 200)


def test_lowering_copies_no_mask():
    base = np.random.default_rng(1).random((40, 60)) < 0.5
    for array in (base, base.T[::-1], base[::2, 1::3], base.astype(np.uint8), base[:, :1], base[0]):
        Lq, Lk = (40, 60) if array.ndim == 1 or array.shape[1] == 1 else array.shape
        ((word, lowered),) = masks._lower(array, Lq, Lk, (2, 3))
        assert word == "dense" and lowered.shape == (2, 3, Lq, Lk) and lowered.dtype == bool
        assert np.shares_memory(lowered, array) and lowered.strides[:2] == (0, 0)
        assert masks.dense(array).nbytes <= array.nbytes + 64
    # Of 0/1 integers only the distinct ones are checked and converted.
    wide = np.broadcast_to(np.ones((1, 1), np.int64), (1 << 20, 1 << 20))
    ((_, lowered),) = masks._lower(wide, 1 << 20, 1 << 20, ())
    assert lowered.strides == (0, 0)
    assert _core.plan_classify([("dense", lowered)], 1 << 20, 1 << 20, (), 0, 1 << 20, 5) == FULL


def test_lowered_offset_of_a_call():
    assert masks._lower(masks.causal(), 3, 10, ()) == [("causal", 7)]
    assert masks._lower(masks.causal(), 3, 10, (), offset=2) == [("causal", 2)]
    assert masks._lower(masks.causal("upper_left"), 3, 10, (), offset=2) == [("causal", 0)]
    assert masks._lower(masks.causal(5), 3, 10, (), offset=2) == [("causal", 5)]
    assert masks._lower(None, 3, 10, ()) == []


def test_many_operands_need_little_height():
    plan = masks.none()
    for n in range(15):
        plan = masks.window(n, offset=n) & (plan | masks.prefix(n))  # nested to the right 30 deep
    array = np.zeros((50, 50), bool)
    for n in range(15):
        array = window_array(50, 50, n, offset=n) & (array | (np.arange(50) < n))
    np.testing.assert_array_equal(plan.to_dense(50), array)
    with pytest.raises(ValueError, match="at most 64"):
        wide = masks.none()
        for n in range(40):
            wide = wide | masks.prefix(n)
        wide.to_dense(50)


def test_text():
    plan = masks.causal() & masks.window(256)
    assert repr(plan) == "causal() & window(left=256)"
    assert repr(~(plan | masks.prefix(3))) == "~(causal() & window(left=256) | prefix(3))"
    assert repr(masks.prefix(1) & (masks.causal(2) | masks.prefix(9))) == "prefix(1) & (causal(offset=2) | prefix(9))"
    words = "left=None, right=None, sinks=4, dilation=2, offset='upper_left'"
    assert repr(masks.window(None, -3, 4, 2, "upper_left")) == f"window({words})"
    assert repr(masks.documents([0, 1], causal=True)) == "documents([0, 1]) & causal()"
    assert repr(masks.dense(np.ones((20, 20), bool))) == "dense(<bool (20, 20)>)"
    assert repr(plan.at(1024)) == "(causal() & window(left=256)).at(1024, 1024)"
    assert str(masks.causal().at(2, 4)) == "causal().at(2, 4)\n###.\n####"
    text = masks.causal("upper_left").at(2)._repr_html_()
    assert text.startswith("<pre>") and "&#x27;upper_left&#x27;" in text and text.endswith("</pre>")
    assert masks.causal()._repr_html_() == "<pre>causal()</pre>"


def test_pictures_fit_and_are_exact():
    rng = np.random.default_rng(9)
    for _ in range(30):
        Lq, Lk, width = int(rng.integers(1, 400)), int(rng.integers(1, 700)), int(rng.integers(1, 40))
        plan, array = random_plan(rng, Lq, Lk, 3)
        block = -(-max(Lq, Lk) // width)
        rows = plan.picture(Lq, Lk, width=width).split("\n")
        states = brute_stats(array, block, block)[0]
        assert max(len(rows), len(rows[0])) <= width
        assert rows == ["".join(".#+"[s] for s in row) for row in states]
    assert masks.causal().picture(0, 5) == masks.causal().picture(5, 0) == ""
    huge = (masks.causal() & masks.window(1 << 34)).picture(1 << 40, width=8)  # a band far thinner than a tile
    assert huge.split("\n") == ["." * (i - 1) + "++"[: i + 1] + "." * (7 - i) for i in range(8)]
    assert set((masks.causal() & ~masks.causal()).picture(3000)) == {".", "\n"}


def test_empty_extents():
    for Lq, Lk in ((0, 0), (0, 7), (7, 0)):
        segments = masks.documents(np.zeros(Lq, int), np.zeros(Lk, int))
        for plan in (masks.causal(), masks.window(3, sinks=2), ~masks.prefix(2), segments):
            assert plan.to_dense(Lq, Lk).shape == (Lq, Lk)
            stats = plan.tile_stats(Lq, Lk)
            assert stats["visited"] == 0 and stats["density"] == 0 and stats["speedup_bound"] == 1
            str(plan.at(Lq, Lk))


def test_attention_gives_the_same_bytes_for_a_plan_and_for_its_array():
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((2, 3, n, 16)).astype(np.float32) for n in (300, 700, 700))
    seg_q, seg_k = np.sort(rng.integers(0, 5, 300)), np.sort(rng.integers(0, 5, 700))
    plans = [
        masks.window(100, sinks=4),
        masks.window(9, right=9, dilation=5),
        masks.documents(seg_q, seg_k, causal=True),
        masks.documents(rng.permutation(seg_q), rng.permutation(seg_k)),
        masks.causal() | masks.prefix(300),
        ~masks.window(200),
        masks.blocks(rng.random((3, 5, 11)) < 0.4),
        masks.none(),
        masks.causal() & (rng.random((2, 1, 1, 700)) < 0.5),
    ]
    for plan in plans:
        of_plan = softmax_attention(q, k, v, mask=plan, return_lse=True)
        of_array = softmax_attention(q, k, v, mask=plan.to_dense(300, 700), return_lse=True)
        assert [x.tobytes() for x in of_plan] == [x.tobytes() for x in of_array], plan


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: masks.causal("lower"), ValueError, "upper_left"),
        (lambda: masks.causal(1.5), TypeError, "offset"),
        (lambda: masks.causal(True), TypeError, "offset"),
        (lambda: masks.causal(1 << 63), ValueError, "offset"),
        (lambda: masks.window(2.0), TypeError, "left"),
        (lambda: masks.window(2, sinks=-1), ValueError, "sinks"),
        (lambda: masks.window(2, dilation=0), ValueError, "dilation"),
        (lambda: masks.prefix(-1), ValueError, "n must"),
        (lambda: masks.documents([[0, 1]]), ValueError, r"seg_q.*\(1, 2\)"),
        (lambda: masks.documents([0.5]), TypeError, "seg_q.*float64"),
        (lambda: masks.documents([0], np.array([1 << 63], np.uint64)), ValueError, "seg_k"),
        (lambda: masks.documents([0], causal="left"), ValueError, "causal"),
        (lambda: masks.blocks([True]), ValueError, r"block_mask.*\(1,\)"),
        (lambda: masks.blocks([[2]]), ValueError, "block_mask.*0 and 1"),
        (lambda: masks.blocks([[True]], block_q=0), ValueError, "block_q"),
        (lambda: masks.dense(np.zeros((2, 2), np.float32)), TypeError, "float32.*bias="),
        (lambda: masks.dense(np.array([["a"]])), TypeError, "boolean"),
        (lambda: masks.dense(np.ma.masked_array([True])), TypeError, "MaskedArray"),
        (lambda: masks.dense([[0, -1]]), ValueError, "0 and 1"),
        (lambda: masks.causal().at(-1), ValueError, "Lq"),
        (lambda: masks.causal().at(3).at(4), ValueError, r"\(3, 3\).*\(4, 4\)"),
        (lambda: masks.causal().at(3) & masks.causal().at(4), ValueError, r"\(3, 3\).*\(4, 4\)"),
        (lambda: masks.documents([0, 1]).to_dense(3), ValueError, r"\(2, 2\).*\(3, 2\)"),
        (lambda: masks.blocks(np.ones((3, 2, 2), bool)) & np.ones((2, 1, 1), bool), ValueError, r"\(3,\).*\(2,\)"),
        (lambda: masks.blocks([[True]], 4, 4).to_dense(5), ValueError, r"\(1, 1\).*\(5, 5\).*2, 2"),
        (lambda: masks.causal().picture(4, index=(0,)), ValueError, "index="),
        (lambda: masks.causal().tile_stats(4, block_q=0), ValueError, "block_q"),
        (lambda: masks.causal().tile_stats(1 << 40), ValueError, "2..63"),
        (lambda: masks._lower(np.ones((3, 4), bool), 5, 4, (2,)), ValueError, r"mask=.*\(3, 4\).*\(2, 5, 4\)"),
        (lambda: masks._lower(np.ones((3, 5, 4), bool), 5, 4, (2,)), ValueError, r"mask=.*\(3, 5, 4\).*\(2, 5, 4\)"),
        (lambda: masks._lower(np.ones((5, 4)), 5, 4, ()), TypeError, "mask=.*bias="),
        (lambda: masks._lower(np.full((5, 4), 2), 5, 4, ()), ValueError, "mask="),
        (lambda: masks._lower(masks.documents([0, 1]), 5, 4, ()), ValueError, r"mask=.*\(2, 2\).*\(5, 4\)"),
    ],
)
def test_bad_input_is_named(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


@pytest.mark.parametrize(
    "nodes",
    [
        7,
        [()],
        ["causal"],
        [("nonsense",)],
        [("causal",)],
        [("causal", "x")],
        [("causal", 1 << 62 | 1)],
        [("causal", 1 << 64)],
        [("and",)],
        [("all",), ("and",)],
        [("all",), ("all",)],
        [("all",)] * 17 + [("and",)] * 16,
        [("all",)] + [("not",)] * 64,
        [("window", 1, 1, 0, 0, 0)],
        [("dense", [[True]])],
        [("dense", np.ones((3, 3)))],
        [("dense", np.ones((4, 3), bool))],
        [("dense", np.ones((1, 3, 3), bool))],
        [("blocks", np.ones((1, 1), bool), 0, 1)],
        [("blocks", np.ones((1, 1), bool), 2, 2)],
        [("document", np.zeros(3, np.int32), np.zeros(3, np.int64))],
        [("document", np.zeros(4, np.int64), np.zeros(3, np.int64))],
        [("document", np.zeros(6, np.int64)[::2], np.zeros(3, np.int64))],
    ],
)
def test_the_parser_refuses_malformed_nodes(nodes):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        _core.plan_dense(nodes, 3, 3, ())


def test_the_parser_checks_the_head():
    matrix = np.ones((2, 3, 3), bool)
    with pytest.raises(IndexError):
        _core.plan_dense([("dense", matrix)], 3, 3, (2,))
    with pytest.raises(ValueError, match="leading axes"):
        _core.plan_dense([("dense", matrix), ("dense", matrix[:1]), ("and",)], 3, 3, (0,))
    with pytest.raises(ValueError):
        _core.plan_dense([], 3, 3, (0,) * 40)
    with pytest.raises(ValueError):
        _core.plan_classify([], 3, 3, (), 2, 4, 0)


def test_every_failed_allocation_is_a_memory_error_without_a_leak():
    segments = np.repeat([0, 1], 300)
    plan = masks.documents(segments) & masks.causal() | masks.documents(segments[::-1]) & np.ones((2, 600, 600), bool)
    nodes = masks._lower(plan, 600, 600, (2,))
    references = [sys.getrefcount(node[1]) for node in nodes if node[0] in ("document", "dense")]
    live = _core.alloc_live()
    for k in range(1, 20):
        _core.alloc_fail_after(k)
        try:
            _core.plan_dense(nodes, 600, 600, (1,))
        except MemoryError:
            assert _core.alloc_live() == live
            continue
        finally:
            _core.alloc_fail_after(0)
        break
    assert k == 5  # nodes, head strides and two tables
    assert _core.alloc_live() == live
    assert references == [sys.getrefcount(node[1]) for node in nodes if node[0] in ("document", "dense")]
