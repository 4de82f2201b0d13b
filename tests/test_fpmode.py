"""The caller's floating-point mode changes no byte and comes back; no call raises a floating-point warning."""

import ctypes
import os
import shutil
import subprocess


import numpy as np
import pytest

import attnkit
from attnkit import _core, masks

SOURCE = r"""
#include <stdint.h>
#if defined(__x86_64__)
uint64_t get_mode(void) { uint32_t x; __asm__ volatile("stmxcsr %0" : "=m"(x)); return x; }
void set_mode(uint64_t mode) { uint32_t x = (uint32_t)mode; __asm__ volatile("ldmxcsr %0" : : "m"(x)); }
#elif defined(__aarch64__)
uint64_t get_mode(void) { uint64_t x; __asm__ volatile("mrs %0, fpcr" : "=r"(x)); return x; }
void set_mode(uint64_t x) { __asm__ volatile("msr fpcr, %0" : : "r"(x)); }
#endif
"""
if os.uname().machine == "aarch64":
    DEFAULT = 0
    MODES = {"flush to zero": 1 << 24, "round up": 1 << 22, "round down": 2 << 22, "round to zero and flush": 3 << 22 | 1 << 24}
else:  # exceptions masked; the six low bits are flags
    DEFAULT = 0x1F80
    MODES = {"flush to zero": 0x9F80, "denormals are zero": 0x1FC0, "flush and denormals": 0x9FC0, "round up": 0x5F80, "round down": 0x3F80,
             "round to zero and flush": 0xFFC0, "flags set": 0x1FBF}


@pytest.fixture(scope="module")
def mode(tmp_path_factory):
    """get_mode and set_mode of the running thread."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("needs a C compiler on x86-64 or AArch64")
    folder = tmp_path_factory.mktemp("mode")
    (folder / "mode.c").write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "mode.so", folder / "mode.c"], check=True)
    library = ctypes.CDLL(str(folder / "mode.so"))
    library.get_mode.restype = ctypes.c_uint64
    library.set_mode.argtypes = [ctypes.c_uint64]
    before = library.get_mode()
    yield library
    library.set_mode(before)


def operands(dtype):
    """Numbers whose products and weights reach into the subnormals, and a length that needs 1/sqrt(d) rounded."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 1100, 24))
    v[:, ::3] *= 1e-40 if dtype == np.float32 else 1e-310
    v[:, ::7] *= 1e-3
    k[:, 5:700] *= 60.0  # far logits: weights down to the smallest subnormal
    return [x.astype(dtype) for x in (q, k, v)]


def calls(dtype):
    q, k, v = operands(dtype)
    lse = attnkit.softmax_attention(q, k, v, return_lse=True)[1]
    tiny = np.full(1100, 1e-42, dtype)
    half = slice(0, 40)
    return {
        "softmax_attention": lambda: attnkit.softmax_attention(q, k, v, causal=True, bias=tiny, alibi_slopes=[0.1, 0.2], softcap=30.0,
                                                               sink_logits=[0.1, 0.3], return_lse=True, stats=("entropy", "purity", "mean_logit")),
        "dropout": lambda: attnkit.softmax_attention(q, k, v, dropout_mask=np.arange(1100) % 3 > 0, dropout_p=0.3),
        "attention_logits": lambda: attnkit.attention_logits(q, k[:, half]),
        "attention_weights": lambda: attnkit.attention_weights(q, k, rows=half, lse=lse),
        "attention_row_stats": lambda: attnkit.attention_row_stats(q, k, topk=3, groups=np.arange(1100) % 4, extra="abs_distance"),
        "attention_column_stats": lambda: attnkit.attention_column_stats(q, k, row_weights=np.full(1100, 1 / 3)),
        "attention_column_stats tiny": lambda: attnkit.attention_column_stats(q, k, row_weights=np.full(1100, 1e-40)),
        "attention_block_mass": lambda: attnkit.attention_block_mass(q, k, block_q=37, block_k=41, reduce="row_mean"),
        "block_sparse_attention": lambda: attnkit.block_sparse_attention(q, k, v, np.tri(11, dtype=bool), block_q=100, block_k=100),
        "window": lambda: attnkit.softmax_attention(q, k, v, mask=masks.window(70, 20)),
        "varlen_attention": lambda: attnkit.varlen_attention(q, k, v, [0, 300, 1100], [0, 500, 1100], causal=True),
        "paged_attention": lambda: attnkit.paged_attention(q[:, None, half], k[:, None], v[:, None], [[1, 0], [0, 1]], [1500, 900]),
        "merge_states": lambda: attnkit.merge_states([attnkit.attention_state(q[:, half], k[:, i : i + 300], v[:, i : i + 300])
                                                      for i in (0, 300, 600)]).finish(sink_logits=[0.1, 0.2]),
    }


def contents(x):
    if isinstance(x, dict):
        return {name: contents(part) for name, part in x.items()}
    if isinstance(x, tuple):
        return [contents(part) for part in x]
    return (x.dtype, x.shape, x.tobytes())


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_any_mode_gives_the_same_bytes_and_comes_back(mode, dtype, n_threads):
    with attnkit.threads(n_threads):
        for name, call in calls(dtype).items():
            expected = contents(call())
            for word, setting in MODES.items():
                mode.set_mode(setting)
                try:
                    found = call()
                    after = mode.get_mode()
                finally:
                    mode.set_mode(DEFAULT)
                assert after & ~0x3F == setting & ~0x3F, (name, word, hex(after))
                assert contents(found) == expected, (name, word)


def test_the_operands_would_show_a_flush(mode):
    """The cases hold subnormals in and out: a library that left the mode alone would fail the test above."""
    q, k, v = operands(np.float32)
    out = attnkit.softmax_attention(q, k, v)
    tiny = np.finfo(np.float32).tiny
    assert ((v != 0) & (np.abs(v) < tiny)).any()
    weights = attnkit.attention_weights(q, k)
    assert ((weights > 0) & (weights < tiny)).any()
    received = attnkit.attention_column_stats(q, k, row_weights=np.full(1100, 1e-40))["received"]
    assert ((received > 0) & (received < tiny)).any()
    assert out.dtype == np.float32
    mode.set_mode(MODES["round up"])
    rounded = 1 / np.sqrt(np.float64(24))
    mode.set_mode(DEFAULT)
    assert rounded != 1 / np.sqrt(np.float64(24))  # the default scale, left to the caller's mode, would differ


def test_mode_survives_errors(mode):
    q, k, v = operands(np.float32)
    mode.set_mode(0xFFC0 if DEFAULT else MODES["round to zero and flush"])
    before = mode.get_mode()
    try:
        _core.alloc_fail_after(1)
        with pytest.raises(MemoryError):
            attnkit.softmax_attention(q, k, v)
        with pytest.raises(ValueError):
            attnkit.attention_column_stats(q, k, row_weights=np.ones(7))
        with pytest.raises(ValueError):
            attnkit.softmax_attention(q, k, v, bias=np.ones(7))
        after = mode.get_mode()
    finally:
        mode.set_mode(DEFAULT)
    assert after & ~0x3F == before & ~0x3F


SPECIAL = """
import numpy as np, attnkit, warnings
from attnkit import masks
warnings.simplefilter("error")
for dtype in (np.float16, np.float32, np.float64):
    for n_threads in (1, 2):
        rng = np.random.default_rng(0)
        q, k, v = (rng.standard_normal((2, 700, 16)).astype(dtype) for _ in range(3))
        big = np.finfo(dtype).max
        q[:, 1] = np.nan
        q[:, 2] = big
        k[:, 3] = big
        k[0, 4] = -np.inf
        v[:, 5] = np.inf
        v[:, 6] = -np.inf
        v[:, 7] = np.nan
        v[:, 8] = np.finfo(dtype).smallest_subnormal
        k[0, 9:300] *= 50
        mask = rng.integers(0, 2, (700, 700)).astype(bool)
        mask[10:20] = False
        bias = rng.standard_normal((700, 700)).astype(dtype)
        bias[20] = -np.inf
        bias[21, 30] = np.inf
        bias[22] = big
        weights = np.full(700, 1e300)
        weights[::2] = 1e-300
        with np.errstate(all="raise"), attnkit.threads(n_threads):
            for options in ({}, dict(causal=True), dict(mask=mask), dict(bias=bias), dict(mask=masks.window(3) & ~masks.prefix(9)), dict(softcap=2.0),
                            dict(alibi_slopes=[1e-3, 1e30])):
                out = attnkit.softmax_attention(q, k, v, return_weights=True, return_lse=True, stats=("entropy", "purity", "distance_sq"),
                                                sink_logits=[0.5, -np.inf], **options)
                attnkit.softmax_attention(q, k, v, dropout_mask=mask, dropout_p=0.999999, **options)
                attnkit.attention_logits(q, k, **options)
                lse = np.where(np.arange(700) % 3, out[1], 1e300 if dtype == np.float64 else 1e30)
                attnkit.attention_weights(q, k, rows=[0, 3], heads=1, lse=lse, **options)
                attnkit.attention_weights(q, k, lse=np.float64(1e300), **options)
                attnkit.attention_row_stats(q, k, topk=2, groups=np.arange(700) % 3, **options)
                attnkit.attention_column_stats(q, k, row_weights=weights, **options)
                for reduce in ("sum", "max", "mean", "row_mean"):
                    attnkit.attention_block_mass(q, k, block_q=33, block_k=65, reduce=reduce, **options)
                state = attnkit.attention_state(q, k, v, **options)
                attnkit.merge_states([state] * 3).finish(sink_logits=[1e300, -1e300])
            attnkit.varlen_attention(q, k, v, [0, 0, 300, 700], [0, 300, 300, 700], causal=True)
            attnkit.paged_attention(q[:, None], k[:, None], v[:, None], [[0, 1], [1, 0]], [1400, 10])
            attnkit.merge_partials(np.stack([out[0], out[0]]), np.stack([out[1], out[1]]))
            attnkit.flash_attention_tiled(q[0], k[0], v[0], mask=mask)
            for passes in (1, 2, 3):
                attnkit.attention_cascade(q[0], k[0], v[0], passes=passes)
                attnkit.attention_cascade(q[0], k[0], v[0], passes=passes, defer_division=False)
            empty = attnkit.row_state_init(4, dv=16, n_groups=2, topk=3)
            s = rng.standard_normal((4, 700)) * 300
            s[0] = -np.inf
            s[1, 5] = np.nan
            s[2, 6] = np.inf
            kinds = np.arange(700) % 3
            state = attnkit.row_state_update(empty, s, 0, [3, 4, 5, 6], v_block=v[0], groups_block=kinds)
            state = attnkit.row_state_merge(state, attnkit.row_state_update(state, s, 700, 9, v_block=v[0], groups_block=kinds))
            attnkit.row_state_finish(state)
            attnkit.row_state_finish(state, sink_logits=[-np.inf, 1e300, -1e300, np.inf])
print("silent")
"""


def test_no_warning_reaches_the_caller(run_python):
    """errstate(all="raise"): NaN, infinities, overflow, underflow and empty rows, one thread and two."""
    assert run_python(SPECIAL) == "silent\n"
