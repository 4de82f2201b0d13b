"""FlashAttention: any tiling gives plain attention, and its counts follow from the loops."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnkit import reference as ref
from attnkit.exact import p085_flashattention as main

both = pytest.mark.parametrize("impl", [main, ref], ids=["main", "twin"])
INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("name", ["flash_attention_tiled", "flash_block_sizes", "flash_traffic",
                                  "butterfly_block_mask"])
def test_signatures_are_equal(name):
    ours = inspect.signature(getattr(main, name))  # the twins write into no array of the caller
    ours = ours.replace(parameters=[p for p in ours.parameters.values() if p.name != "out"])
    assert ours == inspect.signature(getattr(ref, name))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 9), st.integers(1, 10), st.integers(1, 10),
       st.sampled_from([False, True, "lower_right", "upper_left"]), st.booleans(), st.sampled_from([None, 0.0, 2.5]))
def test_any_tiling_is_plain_attention(seed, lq, lk, block_q, block_k, causal, masked, scale):
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((lq, 3)), rng.standard_normal((lk, 3)), rng.standard_normal((lk, 4))
    mask = rng.random((lq, lk)) < 0.4 if masked else None
    options = {"block_q": block_q, "block_k": block_k, "scale": scale, "causal": causal, "mask": mask}
    out, lse, tiles = main.flash_attention_tiled(q, k, v, return_lse=True, return_tiles=True, **options)
    want, want_lse, want_tiles = ref.flash_attention_tiled(q, k, v, return_lse=True, return_tiles=True, **options)
    np.testing.assert_allclose(out, want, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(lse, want_lse, rtol=1e-12, atol=1e-13)
    assert tiles == want_tiles and type(tiles) is int
    allowed = np.ones((lq, lk), bool) if mask is None else mask.copy()
    if causal:
        allowed &= np.tri(lq, lk, 0 if causal == "upper_left" else lk - lq, dtype=bool)
    assert tiles == ref.mask_tile_stats(allowed, block_q, block_k)["visited"]


@both
def test_poisoned_masked_keys_infinities_and_nan(impl):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((5, 2)) for _ in range(3))
    mask = np.ones((5, 5), bool)
    mask[:, 3], mask[2] = False, False
    options = {"block_q": 2, "block_k": 2, "mask": mask, "return_lse": True}
    want = impl.flash_attention_tiled(q, k, v, **options)
    assert not want[0][2].any() and want[1][2] == -INF
    k[3] = v[3] = NAN
    for a, b in zip(impl.flash_attention_tiled(q, k, v, **options), want):
        np.testing.assert_array_equal(a, b)
    q[0] = NAN
    out = impl.flash_attention_tiled(q, k, v, **options)[0]
    assert np.isnan(out[0]).all() and np.isfinite(out[1:]).all()
    # two +inf logits in different tiles share the mass
    k, v = [[INF], [0.0], [1.0], [INF]], [[1.0], [7.0], [7.0], [5.0]]
    out, lse = impl.flash_attention_tiled([[1.0]], k, v, block_k=2, return_lse=True)
    assert out.tolist() == [[3.0]] and lse.tolist() == [INF]


def test_types_of_results():
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((70, 8)) for _ in range(3))
    want = ref.flash_attention_tiled(q, k, v, causal=True)
    for dtype, lse_type in ((np.float32, np.float32), (np.float16, np.float32), (np.float64, np.float64)):
        x = [a.astype(dtype) for a in (q, k, v)]
        out, lse = main.flash_attention_tiled(*x, causal=True, return_lse=True)
        assert out.dtype == dtype and lse.dtype == lse_type
        np.testing.assert_allclose(out, want, atol=20 * np.finfo(dtype).eps)
    assert main.flash_attention_tiled(*(np.ones((2, 2), int),) * 3).dtype == np.float64
    mixed = main.flash_attention_tiled(q.astype(np.float32), k.astype(np.float16), v.astype(np.float32))
    assert mixed.dtype == np.float32


@both
def test_block_sizes_and_traffic(impl):
    # M = 100,000 elements at d = 64: ceil(100000 / 256) = 391
    assert impl.flash_block_sizes(100_000, 64) == (64, 391) and impl.flash_block_sizes(1000, 64) == (4, 4)
    # one block: every array moves once (compulsory traffic)
    assert impl.flash_traffic(50, 60, 8, 4, block_q=50, block_k=60) == 50 * 8 + 60 * 12 + 50 * 4 + 50
    # the published ratios of standard to fa2 at d = 64 and 128 x 128 tiles
    for length, ratio in ((1024, 3.8), (4096, 3.9), (16384, 4.0)):
        standard = impl.flash_traffic(length, length, 64, block_q=128, block_k=128, algo="standard")
        assert round(standard / impl.flash_traffic(length, length, 64, block_q=128, block_k=128), 1) == ratio


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(1, 50), st.integers(1, 50),
       st.sampled_from(["standard", "fa1", "fa2"]))
def test_traffic_formulas_count_the_loops(sizes, block_q, block_k, algo):
    options = {"block_q": block_q, "block_k": block_k, "algo": algo}
    assert main.flash_traffic(*sizes, **options) == ref.flash_traffic(*sizes, **options)


@both
def test_butterfly(impl):
    for t in range(1, 6):
        mask = impl.butterfly_block_mask(2**t)
        assert (mask.sum(1) == t + 1).all() and (mask == mask.T).all()
        assert ref.receptive_depth(mask).max() == t
    narrow = impl.butterfly_block_mask(8, max_stride=2, global_blocks=1)
    assert np.flatnonzero(narrow[5]).tolist() == [0, 4, 5, 7] and narrow[0].all() and narrow[:, 0].all()


@pytest.mark.parametrize("n", [0, 1, 2, 5, 16, 23])
@pytest.mark.parametrize("options", [{}, {"max_stride": 0}, {"max_stride": 5, "global_blocks": 2},
                                     {"global_blocks": 40}])
def test_butterfly_main_equals_twin(n, options):
    a, b = main.butterfly_block_mask(n, **options), ref.butterfly_block_mask(n, **options)
    assert a.dtype == b.dtype == bool
    np.testing.assert_array_equal(a, b)


@both
@pytest.mark.parametrize("kind, word, call", [
    (ValueError, "q", lambda m, x: m.flash_attention_tiled(x[0], x, x)),
    (ValueError, r"\(3, 2\)", lambda m, x: m.flash_attention_tiled(np.zeros((3, 4)), x, x)),
    (ValueError, r"\(4, 2\)", lambda m, x: m.flash_attention_tiled(x, x, np.zeros((4, 2)))),
    (TypeError, "k", lambda m, x: m.flash_attention_tiled(x, x.astype(complex), x)),
    (TypeError, "bias", lambda m, x: m.flash_attention_tiled(x, x, x, mask=np.ones((3, 3)))),
    (ValueError, "mask", lambda m, x: m.flash_attention_tiled(x, x, x, mask=np.ones((2, 3), bool))),
    (ValueError, "causal", lambda m, x: m.flash_attention_tiled(x, x, x, causal="right")),
    (TypeError, "causal", lambda m, x: m.flash_attention_tiled(x, x, x, causal=1)),
    (ValueError, "block_q", lambda m, x: m.flash_attention_tiled(x, x, x, block_q=0)),
    (TypeError, "scale", lambda m, x: m.flash_attention_tiled(x, x, x, scale="1")),
    (ValueError, "d", lambda m, x: m.flash_block_sizes(10, 0)),
    (ValueError, "algo", lambda m, x: m.flash_traffic(1, 1, 1, algo="fa3")),
    (TypeError, "n_blocks", lambda m, x: m.butterfly_block_mask(4.0)),
])
def test_bad_arguments(impl, kind, word, call):
    with pytest.raises(kind, match=word):
        call(impl, np.zeros((3, 2)))
