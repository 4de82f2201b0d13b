"""Raw attention states: what they hold, how they merge, what they refuse."""

import numpy as np
import pytest

import attnkit
import attnkit.reference
from attnkit import AttentionState, masks


def drawn(lq=7, lk=600, heads=2, d=8, dv=5, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((heads, lq, d), (heads, lk, d), (heads, lk, dv))]


def shards(q, k, v, edges, **options):
    off = options.pop("q_offset", k.shape[-2] - q.shape[-2])
    return [attnkit.attention_state(q, k[..., a:b, :], v[..., a:b, :], q_offset=off - a, **options) for a, b in zip(edges, edges[1:])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_a_state_holds(dtype):
    """m, l and acc are what their documentation says, in units of ln 16."""
    q, k, v = drawn(dtype=dtype)
    state = attnkit.attention_state(q, k, v, causal=True)
    s = attnkit.reference.attention_logits(q, k, causal=True)
    weights = np.exp(s - s.max(axis=-1, keepdims=True))
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(state.m * np.log(16), s.max(axis=-1), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(state.l, weights.sum(axis=-1), rtol=10 * tolerance)
    np.testing.assert_allclose(state.acc, weights @ v, atol=100 * tolerance)
    assert state.m.dtype == state.l.dtype == state.acc.dtype == dtype
    assert state.m.shape == state.l.shape == (2, 7) and state.acc.shape == (2, 7, 5)
    assert repr(state) == f"AttentionState(rows (2, 7), dv 5, {np.dtype(dtype)})"


def test_a_state_of_no_keys_is_the_identity():
    q, k, v = drawn()
    nothing = attnkit.attention_state(q, k[:, :0], v[:, :0])
    assert (nothing.m == -np.inf).all() and (nothing.l == 0).all() and (nothing.acc == 0).all()
    out, lse = nothing.finish()
    assert (out == 0).all() and (lse == -np.inf).all()
    some = attnkit.attention_state(q, k, v)
    for states in ([nothing, some], [some, nothing], [nothing, nothing, some], [some, nothing, nothing, nothing]):
        merged = attnkit.merge_states(states)
        for name in ("m", "l", "acc"):
            assert getattr(merged, name).tobytes() == getattr(some, name).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (50, 9)}, {"softcap": 2.0, "alibi_slopes": [0.1, 0.2]}, {"scale": 0.1, "mask": masks.prefix(90)}], ids=str)
def test_shards_of_any_size_merge_within_rounding(options, dtype):
    q, k, v = (x.astype(dtype) for x in drawn())
    if "mask" in options:  # the plan of a shard is that of its keys
        parts = [attnkit.attention_state(q, k[:, a:b], v[:, a:b], q_offset=0, scale=0.1, mask=masks.prefix(max(90 - a, 0))) for a, b in ((0, 37), (37, 300), (300, 600))]
    else:
        parts = shards(q, k, v, [0, 37, 300, 600], **options)
    out, lse = attnkit.merge_states(parts).finish()
    want, want_lse = attnkit.softmax_attention(q, k, v, return_lse=True, **options)
    assert out.dtype == want.dtype == np.dtype(dtype) and lse.dtype == want_lse.dtype
    tolerance = {"float32": 1e-5, "float64": 1e-13, "float16": 2e-3}[dtype]
    np.testing.assert_allclose(out.astype(np.float64), want.astype(np.float64), atol=tolerance)
    np.testing.assert_allclose(lse, want_lse, rtol=max(tolerance / 10, 1e-14), atol=tolerance / 10)


def test_one_state_finishes_to_the_bytes_of_the_call():
    for dtype in (np.float32, np.float64, np.float16):
        q, k, v = drawn(dtype=dtype)
        q[0, 3] = np.nan
        for sink in (None, [0.5, -1.0], np.linspace(-5, 5, 7), 2.0):
            state = attnkit.attention_state(q, k, v, window=(100, 0), q_offset=20)
            want = attnkit.softmax_attention(q, k, v, window=(100, 0), q_offset=20, sink_logits=sink, return_lse=True)
            for a, b in zip(state.finish(sink_logits=sink), want):
                assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_nothing_is_changed():
    q, k, v = drawn()
    parts = shards(q, k, v, [0, 200, 400, 600])
    before = [x.tobytes() for part in parts for x in (part.m, part.l, part.acc)]
    merged = attnkit.merge_states(iter(parts))
    first, second = merged.finish(sink_logits=1.0), merged.finish(sink_logits=1.0)
    assert [x.tobytes() for part in parts for x in (part.m, part.l, part.acc)] == before
    assert first[0].tobytes() == second[0].tobytes()
    single = attnkit.merge_states(parts[:1])
    assert single.m is not parts[0].m and single.m.tobytes() == before[0]


def test_a_spoiled_shard_spoils_its_rows_only():
    q, k, v = drawn()
    parts, clean = shards(q, k, v, [0, 300, 600], causal=True), attnkit.softmax_attention(q, k, v, causal=True)
    q[1, 2, 0] = np.nan
    spoiled = [parts[0], shards(q, k, v, [0, 300, 600], causal=True)[1]]
    out, lse = attnkit.merge_states(spoiled).finish()
    assert np.isnan(out[1, 2]).all() and np.isnan(lse[1, 2])
    keep = np.ones((2, 7), bool)
    keep[1, 2] = False
    np.testing.assert_allclose(out[keep], clean[keep], atol=1e-6)


def test_infinite_maxima_merge():
    q, v = np.ones((1, 1), np.float32), np.array([[1.0], [3.0], [10.0]], np.float32)
    k = np.array([[np.inf], [np.inf], [0.0]], np.float32)
    for edges in ([0, 1, 3], [0, 2, 3], [0, 1, 2, 3]):
        out, lse = attnkit.merge_states(shards(q, k, v, edges, scale=1.0)).finish()
        assert out == 2 and lse == np.inf


def test_states_refuse_what_is_not_theirs():
    q, k, v = drawn()
    state = attnkit.attention_state(q, k, v)
    with pytest.raises(ValueError, match="states"):
        attnkit.merge_states([])
    with pytest.raises(TypeError, match="states"):
        attnkit.merge_states([state, (1, 2)])
    with pytest.raises(TypeError, match="states"):
        attnkit.merge_states(3)
    for other in (attnkit.attention_state(q[:, :3], k, v), attnkit.attention_state(q, k, v[..., :2]), attnkit.attention_state(q.astype(float), k, v),
                  attnkit.attention_state(*(x.astype(np.float16) for x in (q, k, v)))):
        with pytest.raises(ValueError, match="states"):
            attnkit.merge_states([state, other])
    with pytest.raises(ValueError, match="sink_logits"):
        state.finish(sink_logits=np.ones(3))
    with pytest.raises(TypeError, match="sink_logits"):
        state.finish(sink_logits=["a"])
    with pytest.raises(ValueError, match="v"):
        attnkit.attention_state(q, k, v[:, :5])
    broken = AttentionState(state.m[:, ::2], state.l[:, ::2], state.acc[:, ::2])
    assert broken.finish()[0].tobytes() == np.ascontiguousarray(state.finish()[0][:, ::2]).tobytes()
