"""Nothing of size Lq x Lk is allocated unless the map was asked for: calls under a limit of the address space.

Each program first runs a small call, so that libraries, threads and their stacks are there, then limits the address space to what is in
use plus a budget. The budgets are the arrays that a call must hold, each O(L): packed keys and values, one copy of them, the
results and a fixed workspace; a map of one byte a pair would exceed every one of them many times.
"""

import os


import numpy as np
import pytest

import attnkit
from attnkit import _core, masks

MIB = 1 << 20

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc"),
    pytest.mark.skipif(bool(_core.build_info()["sanitizers"]), reason="sanitizers reserve terabytes of addresses"),
]

PROLOGUE = """
import resource, sys
import numpy as np
import attnkit
from attnkit import masks
MIB = 1 << 20
attnkit.set_num_threads(2)

def limit(budget):
    with open("/proc/self/statm") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + budget, used + budget))

def data(L, d, n=3):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, L, d), dtype=np.float32) for _ in range(n)]

q, k, v = data(3000, 8)  # long enough for two threads
attnkit.softmax_attention(q, k, v, mask=masks.window(8), stats="entropy", return_weights=True)
attnkit.attention_column_stats(q, k)
"""


def budget_of(length, numbers_per_token, dtype=np.float32):
    """Bytes of the O(L) arrays of a call, twice, and a fixed 24 MiB for workspaces, the stack and the allocator's rounding."""
    return 2 * length * numbers_per_token * np.dtype(dtype).itemsize + 24 * MIB


# ---- a window over 200,000 tokens ----------------------------------------------------------------------------------------

L_WINDOW, D_WINDOW = 200_000, 8
# packed K and V, the output, four statistics
WINDOW_BUDGET = budget_of(L_WINDOW, 3 * 16 + 4)


@pytest.mark.parametrize("option", ["window=(256, 0)", "mask=masks.window(256)", "mask=masks.window(256) & masks.causal()",
                                    "mask=masks.window(128, 128, sinks=4)", "mask=masks.documents(np.arange(L) // 300)"])
def test_a_window_over_200_000_tokens(option, run_python):
    assert WINDOW_BUDGET < L_WINDOW**2 // 300  # a map of bytes: 40 GB
    program = PROLOGUE + f"""
L = {L_WINDOW}
q, k, v = data(L, {D_WINDOW})
option = dict({option})
limit({WINDOW_BUDGET})
out, lse, stats = attnkit.softmax_attention(q, k, v, return_lse=True, stats=("entropy", "n_allowed"), **option)
row = L - 1
seen = slice(L - int(stats["n_allowed"][0, row]), L) if "sinks" not in "{option}" else np.r_[0:4, L - 129 : L]
s = q[0, row].astype(float) @ k[0, seen].astype(float).T / {D_WINDOW} ** 0.5
p = np.exp(s - s.max())
assert abs(out[0, row] - p @ v[0, seen] / p.sum()).max() < 1e-5
try:
    attnkit.softmax_attention(q, k, v, return_weights=True, **option)
except MemoryError as error:
    print(error)
"""
    message = run_python(program)
    n_bytes = f"{L_WINDOW**2 * 4:,} bytes"
    assert n_bytes in message and "attention_row_stats" in message and "attention_column_stats" in message, message


# ---- full rows of statistics over 32,768 tokens ---------------------------------------------------------------------------

L_FULL, D_FULL = 32_768, 8
FULL_BUDGET = budget_of(L_FULL, 3 * 16 + 16)


@pytest.mark.parametrize("call, results", [
    ('attnkit.softmax_attention(q, k, v, stats=("lse", "entropy", "purity", "max_weight", "argmax"))[1]', ("lse", "entropy", "argmax")),
    ("attnkit.attention_row_stats(q, k)", ("lse", "entropy", "purity", "max_weight", "distance")),
    ("attnkit.attention_column_stats(q, k)", ("received", "received_max", "received_mean")),
], ids=["stats=", "attention_row_stats", "attention_column_stats"])
def test_statistics_of_full_rows_over_32_768_tokens(call, results, run_python):
    assert FULL_BUDGET < L_FULL**2 // 16  # a map of bytes: 1 GiB; of float32: 4 GiB
    program = PROLOGUE + f"""
L = {L_FULL}
q, k, v = data(L, {D_FULL})
limit({FULL_BUDGET})
stats = {call}
for name in {results}:
    assert stats[name].shape == (1, L) and np.isfinite(stats[name]).all(), name
if "received" in stats:
    assert abs(stats["received"].sum() / L - 1) < 1e-5
for name, call in dict(weights=lambda: attnkit.softmax_attention(q, k, v, return_weights=True), logits=lambda: attnkit.attention_logits(q, k),
                       window=lambda: attnkit.attention_weights(q, k)).items():
    try:
        call()
    except MemoryError as error:
        print(error)
"""
    lines = run_python(program).splitlines()
    assert len(lines) == 3
    for line, words in zip(lines, ["attention_row_stats", "attention_row_stats", "rows, cols or heads"]):
        assert f"{L_FULL**2 * 4:,} bytes" in line and str((1, L_FULL, L_FULL)) in line and words in line


def test_the_limit_bites(run_python):
    """The same limit stops a call that holds the map."""
    program = PROLOGUE + f"""
q, k, v = data({L_FULL}, {D_FULL})
limit({FULL_BUDGET})
try:
    s = q[0] @ k[0].T
except MemoryError:
    print("stopped")
"""
    assert run_python(program) == "stopped\n"


# ---- masks -------------------------------------------------------------------------------------------------------------------


def test_masks_of_a_million_tokens_cost_bytes(run_python):
    n = 1_000_000
    plans = {"causal": masks.causal(), "window": masks.window(256), "prefix": masks.causal() | masks.prefix(64),
             "dilated": masks.window(1024, dilation=4, sinks=8) & ~masks.prefix(2)}
    for name, plan in plans.items():
        assert plan.nbytes < 1000, name
        assert plan.at(n).nbytes < 1000, name
    assert masks.documents(np.arange(n) // 1000).nbytes <= 16 * n  # the ids themselves
    blocks = np.tri(200, dtype=bool)
    assert masks.blocks(blocks, n // 200, n // 200).nbytes <= blocks.size + 100
    program = PROLOGUE + f"""
limit(64 * MIB)
for plan in (masks.causal(), masks.window(256), masks.causal() | masks.prefix(64), masks.window(1024, sinks=8)):
    stats = plan.tile_stats({n})
    assert stats["visited"] > 0
    str(plan.at({n}))
print("small")
"""
    assert run_python(program) == "small\n"


def test_a_map_beyond_the_address_space_names_its_size():
    big = np.broadcast_to(np.zeros(8, np.float32), (1 << 40, 8))
    for call in (lambda: attnkit.attention_logits(big, big), lambda: attnkit.attention_weights(big, big),
                 lambda: attnkit.softmax_attention(big, big, big, return_weights=True)):
        with pytest.raises(MemoryError, match=f"{(1 << 80) * 4:,} bytes"):
            call()


def test_an_output_beyond_the_address_space_is_a_memory_error():
    big = np.broadcast_to(np.zeros(8, np.float32), (1 << 50, 1, 1, 8))
    x = np.zeros((1, 8), np.float32)
    for call in (lambda: attnkit.softmax_attention(big, x, x), lambda: attnkit.attention_row_stats(big, x),
                 lambda: attnkit.attention_column_stats(big, x), lambda: attnkit.attention_block_mass(big, x, block_q=1, block_k=1)):
        with pytest.raises(MemoryError):
            call()


