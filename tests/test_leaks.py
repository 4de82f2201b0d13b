"""Calls and refusals give back every reference and every byte."""

import gc
import os
import sys

import numpy as np
import pytest

import attnkit
from attnkit import _core, masks

Q, K, V = np.random.default_rng(0).standard_normal((3, 2, 40, 8)).astype(np.float32)
BIAS = np.zeros((40, 40), np.float32)
MASK = np.tri(40, dtype=bool)
KEEP = np.ones((40, 40), bool)
SLOPES = np.array([0.5, 0.25])
SINKS = np.array([0.1, 0.2])
LSE = np.zeros((2, 40))
GROUPS = np.arange(40) % 3
BLOCKS = np.ones((2, 4, 4), bool)
PLAN = masks.documents(np.arange(40) // 9) & masks.blocks(BLOCKS, 10, 10) | masks.dense(MASK)
OUT = np.empty_like(V)
HALF = Q.astype(np.float16)
ARGUMENTS = dict(Q=Q, K=K, V=V, BIAS=BIAS, MASK=MASK, KEEP=KEEP, SLOPES=SLOPES, SINKS=SINKS, LSE=LSE, GROUPS=GROUPS, BLOCKS=BLOCKS, PLAN=PLAN, OUT=OUT,
                 HALF=HALF)
STATE = attnkit.attention_state(Q, K, V)

SUCCESS = {
    "plain": lambda: attnkit.softmax_attention(Q, K, V),
    "half": lambda: attnkit.softmax_attention(HALF, HALF, HALF),
    "everything": lambda: attnkit.softmax_attention(Q, K, V, causal=True, mask=MASK, bias=BIAS, window=(5, 0), alibi_slopes=SLOPES, softcap=9.0,
                                                    sink_logits=SINKS, dropout_mask=KEEP, dropout_p=0.5, return_lse=True, return_weights=True,
                                                    stats=("entropy", "argmax", "lse"), out=OUT),
    "plan": lambda: attnkit.softmax_attention(Q, K, V, mask=PLAN),
    "logits": lambda: attnkit.attention_logits(Q, K, bias=BIAS, mask=PLAN, out=np.empty((2, 40, 40), np.float32)),
    "weights": lambda: attnkit.attention_weights(Q, K, heads=[1], rows=[0, 3], cols=[7, 2], lse=LSE, mask=PLAN, sink_logits=SINKS),
    "row stats": lambda: attnkit.attention_row_stats(Q, K, topk=3, groups=GROUPS, sink_logits=SINKS, extra="abs_distance"),
    "column stats": lambda: attnkit.attention_column_stats(Q, K, rows=[1, 2], row_weights=LSE, mask=MASK),
    "block mass": lambda: attnkit.attention_block_mass(Q, K, block_q=7, block_k=9, lse=LSE),
    "blocks": lambda: attnkit.block_sparse_attention(Q, K, V, BLOCKS, block_q=10, block_k=10),
    "varlen": lambda: attnkit.varlen_attention(Q, K, V, [0, 10, 40], [0, 20, 40], return_lse=True),
    "paged": lambda: attnkit.paged_attention(Q[:, None], K[:, None], V[:, None], [[1, 0], [0, 1]], [60, 9]),
    "states": lambda: attnkit.merge_states([STATE, STATE, STATE]).finish(sink_logits=SINKS),
    "dense": lambda: PLAN.to_dense(),
    "tile stats": lambda: PLAN.tile_stats(40),
    "picture": lambda: str(PLAN.at(40)),
}
ERRORS = {
    "features": lambda: attnkit.softmax_attention(Q, K[..., :7], V),
    "heads": lambda: attnkit.softmax_attention(Q, np.repeat(K, 2, 0)[:3], V),
    "length": lambda: attnkit.softmax_attention(Q, K, V[:, :9]),
    "dtype": lambda: attnkit.softmax_attention(Q, K, V.astype(complex)),
    "bias": lambda: attnkit.softmax_attention(Q, K, V, bias=BIAS[:, :9]),
    "mask": lambda: attnkit.softmax_attention(Q, K, V, mask=MASK[:, :9]),
    "plan": lambda: attnkit.softmax_attention(Q[:, :9], K, V, mask=PLAN),
    "slopes": lambda: attnkit.softmax_attention(Q, K, V, alibi_slopes=LSE, mask=PLAN),
    "sinks": lambda: attnkit.softmax_attention(Q, K, V, sink_logits=LSE[:, :7], mask=PLAN, out=OUT),
    "keep": lambda: attnkit.softmax_attention(Q, K, V, dropout_mask=KEEP[:9], dropout_p=0.1, mask=PLAN),
    "stats": lambda: attnkit.softmax_attention(Q, K, V, stats="nothing"),
    "out": lambda: attnkit.softmax_attention(Q, K, V, out=OUT[:1]),
    "rows": lambda: attnkit.attention_weights(Q, K, rows=[40], mask=PLAN),
    "lse": lambda: attnkit.attention_block_mass(Q, K, block_q=7, block_k=9, lse=LSE[:, :7], mask=PLAN),
    "groups": lambda: attnkit.attention_row_stats(Q, K, groups=GROUPS[:7]),
    "weights": lambda: attnkit.attention_column_stats(Q, K, row_weights=LSE[:, :7]),
    "core row result": lambda: _core.attend(Q, K, V, None, None, 0, None, PLAN_NODES, None, None, 1.0, ("lse", "nothing"), 0, 0, None, 0, None, None),
    "core step": lambda: _core.attend(Q, K, V, None, None, 0, (("nothing", 1.0),), PLAN_NODES, None, None, 1.0, (), 0, 0, None, 0, None, None),
    "core node": lambda: _core.attend(Q, K, V, None, None, 0, None, [*PLAN_NODES, ("nothing",)], None, None, 1.0, (), 0, 0, None, 0, None, None),
    "core rows": lambda: _core.map_window(Q, K, None, 0, None, PLAN_NODES, None, None, np.array([99]), None, None, np.empty((2, 1, 40))),
    "core columns": lambda: _core.map_columns(Q, K, None, 0, None, PLAN_NODES, LSE, LSE, None, None),
    "core blocks": lambda: _core.map_blocks(Q, K, None, 0, None, PLAN_NODES, None, None, 0, 9),
}
PLAN_NODES = [("document", np.arange(40), np.arange(40)), ("dense", np.broadcast_to(MASK, (2, 40, 40))), ("and",)]


def core_attend(steps=None, nodes=None, wanted=(), pages=None, weight=None):
    """The extension's own checks, which the functions above never reach."""
    return _core.attend(Q, K, V, None, None, 0, steps, PLAN_NODES if nodes is None else nodes, None, None, 1.0, wanted, 0, 0, None, 0, pages, weight)


def test_the_extension_takes_the_arguments_of_these_tests():
    out, lse = core_attend(wanted=("lse",))
    assert out.shape == V.shape and lse.shape == V.shape[:2]
    assert _core.map_columns(Q, K, None, 0, None, PLAN_NODES, LSE.astype(np.float32), LSE.astype(np.float32), None, None)[0].shape == (2, 40)


def no_memory(call):
    """The call with each of its first allocations failing."""
    for k in (1, 2, 3, 4):
        _core.alloc_fail_after(k)
        try:
            call()
        except MemoryError:
            continue
        finally:
            _core.alloc_fail_after(0)


def refused(call):
    with pytest.raises((TypeError, ValueError)):
        call()


CASES = {**{f"ok: {name}": call for name, call in SUCCESS.items()},
         **{f"error: {name}": (lambda call=call: refused(call)) for name, call in ERRORS.items()},
         **{f"no memory: {name}": (lambda call=call: no_memory(call)) for name, call in SUCCESS.items()}}


@pytest.mark.parametrize("name", CASES)
def test_arguments_keep_their_reference_counts(name):
    call = CASES[name]
    call()
    gc.collect()
    # Not float64: np.empty(shape) of NumPy 2.4 takes a reference to that type for ever.
    shared = {**ARGUMENTS, "float32": np.dtype(np.float32), "nodes": PLAN_NODES[0][1], "state": STATE.m}
    before = {word: sys.getrefcount(x) for word, x in shared.items()}
    for _ in range(10):
        call()
    gc.collect()
    after = {word: sys.getrefcount(x) for word, x in shared.items()}
    assert {word: after[word] - n for word, n in before.items() if abs(after[word] - n) >= 10} == {}


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.skipif("address" in _core.build_info()["sanitizers"], reason="the sanitizer keeps freed memory back")
def test_memory_does_not_grow():
    """Less than 1 MiB over thousands of calls. A leak of one small array a call would be several."""
    number = int(os.environ.get("ATTNKIT_LEAK_CALLS", "300"))  # of each kind; 100,000 for a release

    def rounds(n):
        for call in CASES.values():
            for _ in range(n):
                call()

    with attnkit.threads(1):
        rounds(20)
        gc.collect()
        before = resident()
        rounds(number)
        gc.collect()
        grown = resident() - before
    assert grown < 1 << 20, f"{grown / len(CASES) / number:.0f} bytes a call"
