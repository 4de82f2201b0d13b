"""Row states and merges: streamed in any blocks they equal the statistics of the whole row."""

import copy
import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnkit import reference as ref
from attnkit.exact import states as main

both = pytest.mark.parametrize("impl", [main, ref], ids=["main", "twin"])
INF, NAN = np.inf, np.nan
NAMES = ("row_state_init", "row_state_update", "row_state_merge", "row_state_finish", "merge_partials")
LK, DV, G, K = 11, 3, 4, 5


def case(seed, n=6, special=False):
    """Logits with ties, masked keys and an empty row; values, groups, positions."""
    rng = np.random.default_rng(seed)
    s = rng.standard_normal((n, LK)).round(1) * rng.choice([1, 30])
    s[rng.random((n, LK)) < 0.3] = -INF
    s[1] = -INF
    if special:
        s[2, rng.integers(0, LK, 2)] = INF
        s[3, rng.integers(LK)] = NAN
    return s, rng.standard_normal((LK, DV)), rng.integers(-1, G + 1, LK), np.arange(n) + 5


def stream(impl, s, v, groups, pos, cuts):
    state = impl.row_state_init(len(s), dv=DV, n_groups=G, topk=K)
    for a, b in zip(cuts[:-1], cuts[1:]):
        state = impl.row_state_update(state, s[:, a:b], a, pos, v_block=v[a:b], groups_block=groups[a:b])
    return state


def assert_states(x, y, exact=False):
    assert x.keys() == y.keys()
    for key in x:
        assert x[key].dtype == y[key].dtype and x[key].shape == y[key].shape, key
        if exact:
            np.testing.assert_array_equal(x[key], y[key], err_msg=key)
        else:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-11, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_equal(name):
    ours = inspect.signature(getattr(main, name))  # the twins write into no array of the caller
    ours = ours.replace(parameters=[p for p in ours.parameters.values() if p.name != "out"])
    assert ours == inspect.signature(getattr(ref, name))


@both
@pytest.mark.parametrize("block", [1, 4, LK])
@pytest.mark.parametrize("sink", [None, 0.7])
def test_streamed_statistics_equal_the_whole_row(impl, block, sink):
    s, v, groups, pos = case(0)
    cuts = [*range(0, LK, block), LK]
    got = impl.row_state_finish(stream(impl, s, v, groups, pos, cuts), sink_logits=sink)
    # logits that are given: bias on top of zero products
    q, k = np.zeros((6, 1)), np.zeros((LK, 1))
    want = ref.attention_row_stats(q, k, bias=s, topk=K, groups=groups, n_groups=G, sink_logits=sink, q_offset=5)
    want["out"] = ref.softmax_attention(q, k, v, bias=s, sink_logits=sink)
    for name, value in got.items():
        np.testing.assert_allclose(value, want[name], rtol=1e-12, atol=1e-13, err_msg=name)
    assert set(want) - set(got) == {"n_allowed", "sink_mass", "sink_logit_mass"}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, LK), max_size=4), st.sampled_from([None, 0.3, -INF, INF]))
def test_main_equals_twin(seed, cuts, sink):
    s, v, groups, pos = case(seed, special=True)
    cuts = [0, *sorted(cuts), LK]
    a, b = (stream(impl, s, v, groups, pos, cuts) for impl in (main, ref))
    assert_states(a, b)
    assert_states(main.row_state_finish(a, sink_logits=sink), ref.row_state_finish(b, sink_logits=sink))


@both
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_merge_is_associative_commutative_with_identity(impl, seed):
    s, v, groups, pos = case(seed, special=True)
    empty = impl.row_state_init(len(s), dv=DV, n_groups=G, topk=K)
    x, y, z = (impl.row_state_update(empty, s[:, a:b], a, pos, v_block=v[a:b], groups_block=groups[a:b])
               for a, b in ((0, 3), (3, 8), (8, LK)))
    kept = copy.deepcopy((x, y, z))
    merge = impl.row_state_merge
    assert_states(merge(merge(x, y), z), merge(x, merge(y, z)))
    assert_states(merge(x, y), merge(y, x), exact=True)
    assert_states(merge(empty, x), x, exact=True)
    assert_states(merge(x, empty), x, exact=True)
    for before, after in zip(kept, (x, y, z)):
        assert_states(before, after, exact=True)


@both
def test_ties_go_to_the_lower_index(impl):
    empty = impl.row_state_init(1, topk=3)
    low = impl.row_state_update(empty, [[1.0, 2.0]], 0, [0])
    high = impl.row_state_update(empty, [[2.0, 2.0]], 2, [0])
    for merged in (impl.row_state_merge(low, high), impl.row_state_merge(high, low)):
        assert merged["am"].tolist() == [1] and merged["ti"].tolist() == [[1, 2, 3]]
        np.testing.assert_allclose(merged["l1"], [2 + math.exp(-1)], rtol=1e-15)


@both
def test_inputs_are_not_modified(impl):
    s, v, groups, pos = case(1, special=True)
    state = stream(impl, s[:, :6], v[:6], groups[:6], pos, [0, 6])
    arguments = (state, s[:, 6:], pos, v[6:], groups[6:])
    kept = copy.deepcopy(arguments)
    new = impl.row_state_update(state, s[:, 6:], 6, pos, v_block=v[6:], groups_block=groups[6:])
    done = impl.row_state_finish(state, sink_logits=1.0)
    for a in [*new.values(), *done.values()]:
        assert not any(np.shares_memory(a, b) for b in state.values())
    assert_states(kept[0], state, exact=True)
    for a, b in zip(kept[1:], arguments[1:]):
        np.testing.assert_array_equal(a, b)


@both
def test_entropy_of_a_peaked_row_is_kept_through_merges(impl):
    empty = impl.row_state_init(1)
    for gap in (40.0, 300.0):
        x = impl.row_state_update(empty, [[1000.0]], 0, [0])
        y = impl.row_state_update(empty, [[1000.0 - gap]], 1, [0])
        h = impl.row_state_finish(impl.row_state_merge(x, y))["entropy"][0]
        np.testing.assert_allclose(h, (1 + gap) * math.exp(-gap), rtol=1e-13)


@both
def test_masked_keys_and_skipped_values_leave_no_trace(impl):
    s, v, groups, pos = case(2)
    hidden = np.isinf(s).all(0) | (np.arange(LK) == 4)
    s[:, hidden] = -INF
    want = stream(impl, s, v, groups, pos, [0, 5, LK])
    v[hidden] = NAN
    assert_states(want, stream(impl, s, v, groups, pos, [0, 5, LK]), exact=True)


@both
def test_infinite_and_nan_logits(impl):
    s = np.array([[0.0, INF, 1.0, INF], [0.0, NAN, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    state = impl.row_state_init(3, dv=1, topk=2)
    for j in range(4):
        state = impl.row_state_update(state, s[:, j:j + 1], j, [3, 3, 3], v_block=[[float(j)]])
    got = impl.row_state_finish(state)
    assert got["lse"][0] == INF and got["out"][0, 0] == 2 and got["max_weight"][0] == 0.5
    assert got["topk_index"][0].tolist() == [1, 3] and got["argmax"].tolist() == [1, -1, 0]
    np.testing.assert_allclose(got["entropy"][[0, 2]], [math.log(2), math.log(4)])
    for name, value in got.items():
        bad = value[1] == -1 if name in ("argmax", "topk_index") else np.isnan(value[1])
        assert np.all(bad), name


@both
def test_empty_state_and_sink_alone(impl):
    got = impl.row_state_finish(impl.row_state_init(2, dv=2, n_groups=1, topk=2))
    for name, value in got.items():
        assert (value == {"lse": -INF, "argmax": -1, "topk_index": -1}.get(name, 0)).all(), name
    got = impl.row_state_finish(impl.row_state_init(1), sink_logits=[0.5])
    assert got["lse"] == 0.5 and got["purity"] == 1 and got["entropy"] == 0 and got["max_weight"] == 0


@both
@pytest.mark.parametrize("kind, word, call", [
    (ValueError, "n_rows", lambda m: m.row_state_init(-1)),
    (TypeError, "topk", lambda m: m.row_state_init(1, topk=1.5)),
    (TypeError, "state", lambda m: m.row_state_update([], [[0.0]], 0, [0])),
    (ValueError, "tv", lambda m: m.row_state_finish({k: v for k, v in m.row_state_init(1).items() if k != "tv"})),
    (ValueError, "s_block", lambda m: m.row_state_update(m.row_state_init(2), [[0.0]], 0, [0, 0])),
    (TypeError, "pos", lambda m: m.row_state_update(m.row_state_init(1), [[0.0]], 0, [0.5])),
    (ValueError, "pos", lambda m: m.row_state_update(m.row_state_init(2), [[0.0], [0.0]], 0, [0, 0, 0])),
    (ValueError, "v_block", lambda m: m.row_state_update(m.row_state_init(1, dv=2), [[0.0]], 0, [0])),
    (ValueError, "v_block", lambda m: m.row_state_update(m.row_state_init(1, dv=2), [[0.0]], 0, [0], v_block=[[1.0]])),
    (ValueError, "groups_block", lambda m: m.row_state_update(m.row_state_init(1), [[0.0]], 0, [0], groups_block=[0])),
    (ValueError, "acc", lambda m: m.row_state_merge(m.row_state_init(1, dv=2), m.row_state_init(1, dv=3))),
    (ValueError, "sink_logits", lambda m: m.row_state_finish(m.row_state_init(3), sink_logits=[0.0, 0.0])),
])
def test_bad_arguments(impl, kind, word, call):
    with pytest.raises(kind, match=word):
        call(impl)


def split_attention(parts=3, dtype=np.float64):
    rng = np.random.default_rng(4)
    q, k, v = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 9, 3)), rng.standard_normal((2, 9, 5))
    mask = rng.random((4, 9)) < 0.6
    mask[1], mask[2, :3] = False, False
    whole = ref.softmax_attention(q, k, v, mask=mask, return_lse=True)
    outs, lses = zip(*(ref.softmax_attention(q, k[:, a], v[:, a], mask=mask[:, a], return_lse=True)
                       for a in np.array_split(np.arange(9), parts)))
    return whole, np.array(outs, dtype), np.array(lses, dtype)


@both
def test_merged_parts_equal_the_whole(impl):
    (out, lse), outs, lses = split_attention()
    outs[:, :, 1], outs[0, :, 2] = NAN, NAN     # rows without a key: their outputs are skipped
    for merged in (impl.merge_partials(outs, lses), impl.merge_partials(list(outs), list(lses)),
                   impl.merge_partials(outs.swapaxes(0, 2), lses.swapaxes(0, 2), axis=2),
                   impl.merge_partials(outs.swapaxes(0, 1), lses.swapaxes(0, 1), axis=-2)):
        a, b = merged
        a, b = (a.swapaxes(0, 1), b.swapaxes(0, 1)) if a.shape != out.shape else (a, b)
        np.testing.assert_allclose(a, out, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(b, lse, rtol=1e-13)
    assert isinstance(impl.merge_partials(outs, lses, return_lse=False), np.ndarray)


@both
def test_merge_partials_is_associative_with_identity_and_has_a_two_operand_form(impl):
    _, outs, lses = split_attention()
    a, b = impl.merge_partials(outs[:2], lses[:2]), (outs[2], lses[2])
    left = impl.merge_partials([a[0], b[0]], [a[1], b[1]])
    for x, y in zip(left, impl.merge_partials(outs[::-1], lses[::-1])):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-15)
    zero = impl.merge_partials([outs[0], np.zeros_like(outs[0])], [lses[0], np.full_like(lses[0], -INF)])
    np.testing.assert_allclose(zero[0], outs[0], rtol=1e-15)
    np.testing.assert_array_equal(zero[1], lses[0])
    x, y, s, t = outs[1], outs[2], lses[1], lses[2]
    some = np.isfinite(s) & np.isfinite(t)
    sigmoid = 1 / (1 + np.exp(-(t[some] - s[some])))
    want = x[some] - sigmoid[:, None] * (x[some] - y[some])
    np.testing.assert_allclose(impl.merge_partials([x, y], [s, t])[0][some], want, rtol=1e-12, atol=1e-14)


@both
def test_merge_partials_limits(impl):
    out, lse = impl.merge_partials([[[1.0]], [[3.0]], [[9.0]]], [[INF], [INF], [0.0]])
    assert out.tolist() == [[2.0]] and lse.tolist() == [INF]
    out, lse = impl.merge_partials([[[1.0], [1.0]], [[3.0], [3.0]]], [[NAN, 0.0], [0.0, 0.0]])
    assert np.isnan(out[0]).all() and np.isnan(lse[0]) and out[1, 0] == 2
    out, lse = impl.merge_partials([[[1.0]], [[3.0]]], [[-1e308], [1e308]])
    assert out.tolist() == [[3.0]] and lse.tolist() == [1e308]


def test_merge_partials_types():
    whole, outs, lses = split_attention()
    for dtype, out_type, lse_type in ((np.float32, np.float32, np.float32), (np.float16, np.float16, np.float32),
                                      (np.float64, np.float64, np.float64)):
        out, lse = main.merge_partials(outs.astype(dtype), lses.astype(dtype))
        assert out.dtype == out_type and lse.dtype == lse_type
        np.testing.assert_allclose(out, whole[0], atol=8 * np.finfo(dtype).eps)
    out, lse = main.merge_partials(outs.astype(np.float16), lses.astype(np.float32))
    assert out.dtype == np.float16 and lse.dtype == np.float32
    assert main.merge_partials(outs.astype(np.float32), lses)[0].dtype == np.float64
    assert main.merge_partials(np.ones((2, 1, 1), int), np.zeros((2, 1), int))[0].dtype == np.float64


def test_merge_partials_bfloat16():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    whole, outs, lses = split_attention()
    out, lse = main.merge_partials(outs.astype(bfloat16), lses.astype(np.float32))
    assert out.dtype == bfloat16 and lse.dtype == np.float32
    np.testing.assert_allclose(out.astype(float), whole[0], atol=2**-6)
    with pytest.raises(TypeError, match="bfloat16"):
        main.merge_partials(outs.astype(np.float16), lses.astype(bfloat16))


@both
@pytest.mark.parametrize("kind, word, args, options", [
    (ValueError, "lses", (np.zeros((2, 3, 4)), np.zeros((3, 2))), {}),
    (ValueError, "axis", (np.zeros((2, 3, 4)), np.zeros((2, 3))), {"axis": 2}),
    (TypeError, "axis", (np.zeros((2, 3, 4)), np.zeros((2, 3))), {"axis": 0.0}),
    (ValueError, "outs", ([np.zeros((3, 4)), np.zeros((2, 4))], np.zeros((2, 3))), {}),
    (TypeError, "lses", (np.zeros((2, 3, 4)), np.zeros((2, 3), complex)), {}),
])
def test_merge_partials_refuses(impl, kind, word, args, options):
    with pytest.raises(kind, match=word):
        impl.merge_partials(*args, **options)
