"""Allocation number k of a call fails, for k = 1, 2, ... until it succeeds: MemoryError, nothing written, nothing lost."""

import inspect

import numpy as np
import pytest

import attnkit
from attnkit import _core, masks

RNG = np.random.default_rng(0)
Q, K, V = RNG.standard_normal((3, 2, 600, 16)).astype(np.float32)
X = RNG.standard_normal((3, 600, 16)).astype(np.float32)
LSE = attnkit.softmax_attention(Q, K, V, return_lse=True)[1]
PLAN = masks.documents(np.arange(600) // 70) | (masks.blocks(RNG.integers(0, 2, (2, 10, 10)).astype(bool), 60, 60) & masks.causal())
MASK = RNG.integers(0, 2, (2, 600, 600)).astype(bool)
LONG = RNG.standard_normal((2, 1, 9000, 16)).astype(np.float32)
STATES = [attnkit.attention_state(Q, K, V)] * 3


def out_like(shape, dtype=np.float32):
    return np.full(shape, 7, dtype)


# Every public function that reaches C: calls that take an `out` or None.
CALLS = {
    "softmax_attention": [
        lambda out: attnkit.softmax_attention(Q, K, V, out=out),
        lambda out: attnkit.softmax_attention(Q, K, V, mask=PLAN, return_lse=True, return_weights=True, stats=("entropy", "argmax"), out=out),
        lambda out: attnkit.softmax_attention(Q, K, V, mask=MASK, bias=MASK.astype(np.float16), dropout_mask=MASK, dropout_p=0.5, out=out),
        lambda out: attnkit.softmax_attention(Q.astype(np.float64), K, V, causal=True, window=(3, 3), sink_logits=[1.0, 2.0],
                                              out=None if out is None else np.full(Q.shape, 7.0)),
        lambda out: attnkit.softmax_attention(Q[:, :1], *LONG),  # decoding: chunks are tasks
        lambda out: attnkit.softmax_attention(Q[:1, :60], *LONG[..., :8192, :]),
    ],
    "attention_logits": [lambda out: attnkit.attention_logits(Q, K, mask=PLAN, out=out)],
    "attention_weights": [
        lambda out: attnkit.attention_weights(Q, K, out=out),
        lambda out: attnkit.attention_weights(Q, K, heads=[1, 0], rows=[5, 3], cols=slice(0, 599), mask=PLAN, out=out),
        lambda out: attnkit.attention_weights(Q, K, lse=LSE, out=out),
    ],
    "attention_row_stats": [lambda out: attnkit.attention_row_stats(Q, K, topk=3, groups=np.arange(600) % 5, extra="abs_distance", mask=PLAN)],
    "attention_column_stats": [lambda out: attnkit.attention_column_stats(Q, K, mask=PLAN, rows=[0, 5], row_weights=np.ones(600)),
                               lambda out: attnkit.attention_column_stats(Q, K, lse=LSE)],
    "attention_block_mass": [lambda out: attnkit.attention_block_mass(Q, K, block_q=100, block_k=33, mask=PLAN)],
    "block_sparse_attention": [lambda out: attnkit.block_sparse_attention(Q, K, V, np.tri(10, dtype=bool), block_q=60, block_k=60, mask=PLAN,
                                                                          out=out)],
    "varlen_attention": [lambda out: attnkit.varlen_attention(Q, K, V, [0, 100, 350, 600], [0, 200, 300, 600], causal=True, return_lse=True, out=out)],
    "paged_attention": [lambda out: attnkit.paged_attention(Q[:, None], K[:, None], V[:, None], [[1, 0], [0, 1]], [700, 1200], return_lse=True,
                                                            out=None if out is None else out.reshape(2, 1, 600, 16))],
    "attention_state": [lambda out: attnkit.attention_state(Q, K, V, mask=PLAN).acc],
    "merge_states": [lambda out: attnkit.merge_states(STATES).acc],
    "AttentionState.finish": [lambda out: STATES[0].finish(sink_logits=[1.0, 2.0])],
    "MaskPlan.to_dense": [lambda out: PLAN.to_dense(600)],
    "MaskPlan.tile_stats": [lambda out: PLAN.tile_stats(600)["visited"]],
    "MaskPlan.picture": [lambda out: PLAN.picture(600)],
}


def contents(x):
    if isinstance(x, dict):
        return {name: contents(part) for name, part in x.items()}
    if isinstance(x, tuple):
        return [contents(part) for part in x]
    return x.tobytes() if isinstance(x, np.ndarray) else x


def test_every_function_that_reaches_c_has_a_row():
    """By the sources: the functions of the modules that call the extension."""
    from attnkit.exact import blocks, packed, softmax, statistics

    public = {name for module in (blocks, packed, softmax, statistics) for name, f in vars(module).items()
              if inspect.isfunction(f) and f.__module__ == module.__name__ and name in attnkit.exact.__all__}
    assert public <= set(CALLS)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("name", CALLS)
def test_every_allocation_may_fail(name, n_threads):
    takes_out = "out" in inspect.signature(getattr(attnkit, name, len)).parameters if hasattr(attnkit, name) else False
    with attnkit.threads(n_threads):
        for call in CALLS[name]:
            expected = call(None)
            first = expected[0] if isinstance(expected, tuple) else expected
            live = _core.alloc_live()
            for k in range(1, 400):
                out = out_like(first.shape, first.dtype) if takes_out and first.size == Q.size or takes_out and name != "softmax_attention" else None
                _core.alloc_fail_after(k)
                try:
                    result = call(out)
                except MemoryError:
                    _core.alloc_fail_after(0)
                    assert out is None or (out == 7).all(), k
                    assert _core.alloc_live() == live, k
                    assert contents(call(None)) == contents(expected), k  # the next call is fine
                else:
                    break
            _core.alloc_fail_after(0)
            assert k > 1 or name in ("merge_states", "AttentionState.finish"), "no allocation was made to fail"
            assert k < 399
            assert contents(result) == contents(expected)
            assert _core.alloc_live() == live


def test_the_hook_reaches_every_allocation_of_a_long_call():
    """A call with chunks as tasks, packed keys and a document plan takes several blocks of memory, not one."""
    failures = 0
    with attnkit.threads(2):
        for k in range(1, 100):
            _core.alloc_fail_after(k)
            try:
                attnkit.softmax_attention(Q[:1, :60], *LONG, mask=masks.documents(np.arange(60) * 0, np.zeros(9000, int)))
            except MemoryError:
                failures += 1
            else:
                break
    assert failures >= 3
