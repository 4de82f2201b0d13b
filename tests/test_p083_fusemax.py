"""FuseMax: every cascade is softmax attention; the counts follow from walking through it."""

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnkit import reference as ref
from attnkit.exact import p083_fusemax as main

both = pytest.mark.parametrize("impl", [main, ref], ids=["main", "twin"])
VARIANTS = list(itertools.product((1, 2, 3), (True, False)))
INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("name", ["attention_cascade", "cascade_counts"])
def test_signatures_are_equal(name):
    ours = inspect.signature(getattr(main, name))  # the twins write into no array of the caller
    ours = ours.replace(parameters=[p for p in ours.parameters.values() if p.name != "out"])
    assert ours == inspect.signature(getattr(ref, name))


@pytest.mark.parametrize("passes, defer", VARIANTS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lq=st.integers(0, 6), lk=st.integers(0, 9), block=st.integers(1, 10),
       size=st.sampled_from([1.0, 1e3]))
def test_every_variant_is_softmax_attention(passes, defer, seed, lq, lk, block, size):
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((lq, 3)) * size, rng.standard_normal((lk, 3)), rng.standard_normal((lk, 2))
    got = main.attention_cascade(q, k, v, passes=passes, block=block, defer_division=defer, scale=0.5)
    np.testing.assert_allclose(got, ref.softmax_attention(q, k, v, scale=0.5), rtol=1e-9, atol=1e-13)
    assert got.shape == (lq, 2) and got.dtype == np.float64


@both
@pytest.mark.parametrize("passes, defer", VARIANTS)
def test_limits(impl, passes, defer):
    options = {"passes": passes, "defer_division": defer, "block": 2}
    q, k, v = [[1.0], [NAN]], [[0.0], [INF], [INF], [2.0]], [[9.0], [1.0], [3.0], [9.0]]
    out = impl.attention_cascade(q, k, v, **options)
    assert out[0].tolist() == [2.0] and np.isnan(out[1]).all()
    # 1000 apart: one key takes everything
    out = impl.attention_cascade([[1.0]], [[0.0], [1000.0], [-1000.0]], [[9.0], [1.0], [3.0]], **options)
    assert out.tolist() == [[1.0]]


@pytest.mark.parametrize("passes, defer", VARIANTS)
def test_types_of_results(passes, defer):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((20, 8)) for _ in range(3))
    want = ref.attention_cascade(q, k, v)
    for dtype in (np.float32, np.float16, np.float64):
        x = [a.astype(dtype) for a in (q, k, v)]
        out = main.attention_cascade(*x, passes=passes, defer_division=defer, block=8)
        assert out.dtype == dtype
        np.testing.assert_allclose(out, want, atol=20 * np.finfo(dtype).eps)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=4), st.sampled_from(VARIANTS), st.integers(1, 14))
def test_counts_equal_a_walk_through_the_cascade(sizes, variant, block):
    options = {"passes": variant[0], "defer_division": variant[1], "block": block}
    assert main.cascade_counts(*sizes, **options) == ref.cascade_counts(*sizes, **options)


@both
def test_what_the_counts_say(impl):
    # the one-pass cascade keeps a block of scores, whatever the length
    for lk in (100, 1000):
        assert impl.cascade_counts(4, lk, 8, 8, block=16)["row_footprint"] == 16
        assert impl.cascade_counts(4, lk, 8, 8, passes=2, block=16)["row_footprint"] == lk
    # deferral divides Lk / dv times less often, and saves the third pass
    now, later = (impl.cascade_counts(4, 960, 8, 16, passes=3, defer_division=x) for x in (False, True))
    assert now["div"] == 60 * later["div"] and (now["passes"], later["passes"]) == (3, 2)
    # one factor per block: exp overhead B / Lk
    assert impl.cascade_counts(3, 1024, 8, 8, block=64)["exp"] == 3 * (1024 + 16)


@both
@pytest.mark.parametrize("kind, word, call", [
    (ValueError, "passes", lambda m, x: m.attention_cascade(x, x, x, passes=4)),
    (TypeError, "passes", lambda m, x: m.cascade_counts(1, 1, 1, 1, passes="1")),
    (ValueError, "block", lambda m, x: m.attention_cascade(x, x, x, block=0)),
    (TypeError, "defer_division", lambda m, x: m.attention_cascade(x, x, x, defer_division=1)),
    (ValueError, "k", lambda m, x: m.attention_cascade(x, x[None], x)),
    (ValueError, r"\(3, 5\)", lambda m, x: m.attention_cascade(x, np.zeros((3, 5)), x)),
    (ValueError, r"\(4, 2\)", lambda m, x: m.attention_cascade(x, x, np.zeros((4, 2)))),
    (TypeError, "v", lambda m, x: m.attention_cascade(x, x, x.astype(object))),
    (ValueError, "scale", lambda m, x: m.attention_cascade(x, x, x, scale=NAN)),
    (ValueError, "Lk", lambda m, x: m.cascade_counts(1, -1, 1, 1)),
])
def test_bad_arguments(impl, kind, word, call):
    with pytest.raises(kind, match=word):
        call(impl, np.zeros((3, 2)))
