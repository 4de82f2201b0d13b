"""The same bytes for any thread count, target, batch position, block of rows, layout, shard and form of mask.

A case proves nothing unless it crosses what could make bytes differ: `assert_crosses` demands three chunks of keys, a ragged tail
and a partial tile of each case.
"""

import hashlib

import numpy as np
import pytest

import attnkit
from attnkit import _core, masks
from attnkit.testing import assert_same_bits

CHUNK, TILE, BLOCK = 4096, 256, 48  # keys, keys, rows: the units of the engine
STATS = ("lse", "n_allowed", "entropy", "purity", "max_weight", "argmax", "sink_mass", "sink_logit_mass", "distance", "distance_sq", "mean_logit",
         "abs_distance")
LK = 2 * CHUNK + 3 * TILE + 77


def sha(*arrays):
    """SHA-256 of arrays, dicts and tuples of arrays."""
    digest = hashlib.sha256()
    for x in arrays:
        for part in x.values() if isinstance(x, dict) else x if isinstance(x, tuple) else [x]:
            digest.update(sha(part).encode() if isinstance(part, (dict, tuple)) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def assert_crosses(lk, plan=None, lq=1):
    """Three chunks, a ragged tail, and a tile of which only part is allowed (the last one, or one of a plan)."""
    assert -(-lk // CHUNK) >= 3 and lk % TILE and lk % 16, lk
    if plan is not None:
        assert plan.tile_stats(lq, lk, block_q=BLOCK, block_k=TILE)["partial"] > 0
        dense = plan.to_dense(lq, lk)
        chunks = {j // CHUNK for j in np.flatnonzero(dense.reshape(-1, lk).any(axis=0))}
        assert len(chunks) >= 3, chunks


def draw(rng, lq, lk=LK, heads=2, d=5, dv=3, dtype="float32", kv_heads=None):
    import cases

    dtype = cases.dtype_of(dtype)
    kv_heads = kv_heads or heads
    return [rng.standard_normal(shape).astype(dtype) for shape in ((heads, lq, d), (kv_heads, lk, d), (kv_heads, lk, dv))]


PLANS = {
    "full": None,
    "causal": masks.causal(),
    "window with sinks": masks.window(3000, right=10, sinks=300, offset=8300),
    "dilated": masks.window(60, dilation=151, offset=LK - 200),
    "documents and prefix": masks.prefix(5000) | masks.window(0, right=LK, offset=8500),
    "holes": ~masks.window(200, right=4000, offset=3000),
}
OPTIONS = {"softcap": {"softcap": 3.0}, "alibi": {"alibi_slopes": [0.001, 0.01]}, "sink": {"sink_logits": [0.5, 3.0]},
           "bias": {"bias": np.where(np.arange(LK) % 7 == 0, -np.inf, np.sin(np.arange(LK))).astype(np.float32)},
           "mask": {"mask": np.arange(LK) * 7 % 3 > 0}, "dropout": {"dropout_mask": np.arange(LK) % 5 > 0, "dropout_p": 0.2}}


def attend(q, k, v, **options):
    return attnkit.softmax_attention(q, k, v, return_lse=True, stats=STATS, **options)


# ---- threads and targets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("lq", [1, 3, 50])
def test_threads_targets_and_layouts(lq, dtype):
    """Streaming (one block) and packed keys (two blocks), each on every target with 1, 2, 3 and 7 threads."""
    assert_crosses(LK)
    q, k, v = draw(np.random.default_rng(0), lq, dtype=dtype)
    if lq > 1:  # the thread counts below mean something: the call is long enough for a team
        assert 2 * 2 * lq * LK * 8 > 4e5
    assert_same_bits(attend, q, k, v, threads=(1, 2, 3, 7))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("lq", [2, 53])
def test_plans_and_options(plan, lq, usable_targets):
    """On the best target; the others get two plans each below."""
    if plan is not None:
        assert_crosses(LK, plan, lq)
    q, k, v = draw(np.random.default_rng(1), lq, d=16, dv=16)
    for options in OPTIONS.values():
        if "mask" in options:
            options = {"mask": options["mask"]} if plan is None else {"mask": plan & options["mask"]}
        elif plan is not None:
            options = {**options, "mask": plan}
        assert_same_bits(attend, q, k, v, targets=usable_targets[:1], threads=(1, 2, 3, 7), layouts=False, **options)


@pytest.mark.parametrize("name", ["window with sinks", "holes"])
def test_plans_on_every_target(name):
    assert_crosses(LK, PLANS[name], 9)
    q, k, v = draw(np.random.default_rng(2), 9)
    for options in OPTIONS.values():
        if "mask" not in options:
            assert_same_bits(attend, q, k, v, threads=(2,), layouts=False, mask=PLANS[name], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_map_functions_on_every_target(dtype):
    q, k, v = draw(np.random.default_rng(3), 50, dtype=dtype)
    assert_crosses(LK)
    options = {"causal": True, "alibi_slopes": [0.001, 0.0002], "q_offset": LK - 60}
    assert_same_bits(attnkit.attention_row_stats, q, k, topk=7, groups=np.arange(LK) % 5, extra="abs_distance", threads=(1, 3), layouts=False, **options)
    assert_same_bits(attnkit.attention_column_stats, q, k, row_weights=np.linspace(0, 1, 50), threads=(1, 3), **options)
    assert_same_bits(attnkit.attention_block_mass, q, k, block_q=7, block_k=1000, threads=(1, 3), layouts=False, **options)
    assert_same_bits(attnkit.attention_weights, q, k, rows=[0, 49, 7], cols=slice(LK - 300, None, 3), heads=[1, 0], threads=(1, 3), **options)
    assert_same_bits(attnkit.attention_logits, q[:, :3], k, softcap=4.0, threads=(1, 3), layouts=False, **options)


def test_long_enough_for_a_team():
    """The thread counts are used: work beyond the limits below which a call stays on one thread, in every way of sharing it."""
    for heads, kv_heads, lq in [(1, 1, 8), (2, 2, 100), (16, 16, 50), (32, 1, 1), (3, 3, 1), (8, 2, 20)]:
        q, k, v = draw(np.random.default_rng(4), lq, heads=heads, kv_heads=kv_heads, d=32, dv=32)
        assert 2 * heads * lq * LK * 64 > 8e6 or lq == 1
        assert_same_bits(attnkit.softmax_attention, q, k, v, targets=[_core.isa_chosen()], layouts=False, return_lse=True)


# ---- position --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["full", "window with sinks", "holes"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_one_row_alone_has_the_bytes_of_the_block(dtype, plan):
    """A block of 61 rows packs its keys; 1, 2, 5 and 48 rows stream them, in other register blocks."""
    assert_crosses(LK, PLANS[plan], 61)
    q, k, v = draw(np.random.default_rng(5), 61, heads=1, d=19, dv=33, dtype=dtype)
    dense = np.ones((61, LK), bool) if PLANS[plan] is None else PLANS[plan].to_dense(61, LK)
    bias = np.sin(np.arange(61 * LK)).reshape(61, LK).astype(np.float32)
    out, lse, stats = attend(q, k, v, mask=PLANS[plan], bias=bias, q_offset=LK - 61)
    for rows in [slice(i, i + 1) for i in (0, 5, 6, 47, 48, 60)] + [slice(3, 5), slice(45, 50), slice(7, 55)]:
        part = attend(q[:, rows], k, v, mask=dense[rows], bias=bias[rows], q_offset=LK - 61 + rows.start)
        assert sha(*part) == sha(out[:, rows], lse[:, rows], {n: x[:, rows] for n, x in stats.items()}), rows


def test_batch_position_does_not_matter():
    assert_crosses(LK)
    q, k, v = draw(np.random.default_rng(6), 7, heads=1, d=16, dv=16)
    alone = sha(*attend(q, k, v, causal=True))
    rng = np.random.default_rng(7)
    for batch, at in [((5,), (3,)), ((2, 3), (1, 0)), ((70,), (69,))]:
        big = [np.broadcast_to(x[0], (*batch, *x.shape[1:])).copy() for x in (q, k, v)]
        for x in big:
            for index in np.ndindex(*batch):
                if index != at:
                    x[index] = rng.standard_normal(x.shape[-2:])
        out, lse, stats = attend(*big, causal=True)
        assert sha(out[at][None], lse[at][None], {n: x[at][None] for n, x in stats.items()}) == alone, batch


@pytest.mark.parametrize("lq", [1, 12, 60])
def test_grouped_heads_are_repeated_heads(lq):
    """Eight heads on two: the query heads of a group share blocks of rows."""
    assert_crosses(LK)
    q, k, v = draw(np.random.default_rng(8), lq, heads=8, kv_heads=2, d=16, dv=24)
    options = {"causal": True, "alibi_slopes": np.linspace(0, 0.01, 8), "sink_logits": np.arange(8.0)}
    grouped = attend(q, k, v, **options)
    assert sha(*grouped) == sha(*attend(q, k.repeat(4, axis=0), v.repeat(4, axis=0), **options))
    shared = attend(q, k[:1], v[:1], **options)
    assert sha(*shared) == sha(*attend(q, k[0], v[0], **options)) == sha(*attend(q, k[:1].repeat(8, axis=0), v[:1].repeat(8, axis=0), **options))
    columns = attnkit.attention_column_stats(q, k, **options)
    assert sha(columns) == sha(attnkit.attention_column_stats(q, k.repeat(4, axis=0), **options))


# ---- layout ----------------------------------------------------------------------------------------------------------


def layouts_of(x):
    """The same numbers in every kind of memory."""
    fortran = np.asfortranarray(x)
    swapped_axes = np.ascontiguousarray(np.swapaxes(x, -3, -2)).swapaxes(-3, -2)
    padded = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)[..., :-3]
    sparse = np.zeros((*x.shape[:-1], 3 * x.shape[-1]), x.dtype)[..., ::3]
    back = np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]
    odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    odd_rows = np.zeros((*x.shape[:-1], x.shape[-1] * x.itemsize + 1), np.uint8)  # rows at every alignment
    odd_rows = np.lib.stride_tricks.as_strided(odd_rows.view(np.uint8), (*x.shape, x.itemsize), (*odd_rows.strides[:-1], x.itemsize, 1)).view(x.dtype)[..., 0]
    for y in (padded, sparse, odd, odd_rows):
        y[...] = x
    return {"fortran": fortran, "axes": swapped_axes, "padded": padded, "sparse": sparse, "reversed": back, "odd": odd, "odd rows": odd_rows}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("lq, dv", [(1, 32), (50, 32), (50, 20)])
def test_any_memory_layout(lq, dv, dtype):
    """Values in place, values packed, keys transposed directly or one by one."""
    assert_crosses(LK)
    q, k, v = draw(np.random.default_rng(9), lq, d=32, dv=dv, dtype=dtype)
    bias = np.sin(np.arange(lq * LK)).reshape(1, lq, LK).astype(q.dtype)
    expected = sha(*attend(q, k, v, bias=bias))
    kinds = [layouts_of(x) for x in (q, k, v, bias)]
    for name in kinds[0]:
        assert sha(*attend(*(x[name] for x in kinds[:3]), bias=kinds[3][name])) == expected, name
    out = layouts_of(np.empty((2, lq, dv), q.dtype))
    plain = attnkit.softmax_attention(q, k, v)
    for name, target in out.items():
        assert attnkit.softmax_attention(q, k, v, out=target) is target
        assert sha(target) == sha(plain), name


def test_broadcast_zero_strides():
    assert_crosses(LK)
    q, k, v = draw(np.random.default_rng(10), 50, d=16, dv=16)
    for axis in range(3):
        views = [np.broadcast_to(x.take([0], axis), x.shape) for x in (q, k, v)]
        assert all(x.strides[axis] == 0 for x in views)
        assert sha(*attend(*views)) == sha(*attend(*(x.copy() for x in views))), axis


# ---- shards, masks, windows, extras ----------------------------------------------------------------------------------


# Ways to cut seven chunks (the last one short) into subtrees: pairs of numbers are shards from chunk to chunk, lists merge.
TREES = {
    "chunks": [(i, i + 1) for i in range(7)],
    "pairs": [(0, 2), (2, 4), (4, 6), (6, 7)],
    "fours": [(0, 4), (4, 7)],
    "four, two, one": [(0, 4), [(4, 6), (6, 7)]],
    "by hand": [[[(0, 1), (1, 2)], (2, 4)], [[(4, 5), (5, 6)], (6, 7)]],
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("lq, dtype", [(1, "float32"), (5, "float64"), (60, "float32"), (60, "float16")])
def test_aligned_shards_merge_to_the_bytes_of_one_call(lq, dtype, tree):
    lk = 6 * CHUNK + 333
    assert_crosses(lk)
    q, k, v = draw(np.random.default_rng(11), lq, lk, d=8, dv=8, dtype=dtype)
    options = {"alibi_slopes": [0.01, 0.001], "softcap": 5.0, "causal": True}

    def state(node):
        if isinstance(node, list):
            return attnkit.merge_states([state(part) for part in node])
        keys = slice(node[0] * CHUNK, node[1] * CHUNK)
        return attnkit.attention_state(q, k[:, keys], v[:, keys], q_offset=lk - lq - keys.start, **options)

    for sink in (None, [1.0, 9.0]):
        whole = attnkit.softmax_attention(q, k, v, return_lse=True, sink_logits=sink, **options)
        assert sha(*state(tree).finish(sink_logits=sink)) == sha(*whole)


def test_an_empty_shard_changes_nothing():
    q, k, v = draw(np.random.default_rng(12), 5, 2 * CHUNK)
    first = attnkit.attention_state(q, k[:, :CHUNK], v[:, :CHUNK])
    nothing = attnkit.attention_state(q, k[:, CHUNK:], v[:, CHUNK:], mask=False)
    for states in ([first, nothing], [nothing, first]):
        assert sha(*attnkit.merge_states(states).finish()) == sha(*first.finish())


@pytest.mark.parametrize("name", [n for n in PLANS if n != "full"])
@pytest.mark.parametrize("lq", [2, 53])
def test_a_plan_has_the_bytes_of_its_array(name, lq):
    assert_crosses(LK, PLANS[name], lq)
    q, k, v = draw(np.random.default_rng(13), lq, d=16, dv=16)
    dense = PLANS[name].to_dense(lq, LK)
    for mask in (dense, dense.astype(np.int8), np.broadcast_to(dense, (2, lq, LK)), np.where(dense, 0.0, -np.inf)):
        options = {"bias": mask} if mask.dtype == np.float64 else {"mask": mask}
        assert sha(*attend(q, k, v, **options)) == sha(*attend(q, k, v, mask=PLANS[name]))
    for function, more in ((attnkit.attention_column_stats, {}), (attnkit.attention_block_mass, {"block_q": 10, "block_k": 100})):
        assert sha(function(q, k, mask=dense, **more)) == sha(function(q, k, mask=PLANS[name], **more))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_window_of_the_map_is_that_part_of_the_map(dtype):
    assert_crosses(LK)
    q, k, _ = draw(np.random.default_rng(14), 53, heads=4, kv_heads=2, d=8, dtype=dtype)
    options = {"causal": True, "window": (8000, 0), "alibi_slopes": np.arange(4) * 1e-3, "sink_logits": np.arange(4.0)}
    whole = attnkit.attention_weights(q, k, **options)
    rows, cols, heads = np.array([52, 0, 7, 7]), np.r_[LK - 1, 0, 5000:5300, 4096, 256], np.array([3, 0])
    assert sha(attnkit.attention_weights(q, k, rows=rows, cols=cols, heads=heads, **options)) == sha(whole[heads][:, rows][:, :, cols])
    assert sha(attnkit.attention_weights(q, k, rows=slice(10, 20), **options)) == sha(whole[:, 10:20])
    assert sha(attnkit.attention_weights(q, k, cols=-5, **options)) == sha(whole[:, :, -5:-4])
    assert sha(attnkit.attention_weights(q, k, heads=2, **options)) == sha(whole[2:3])
    v = np.zeros((2, LK, 1), q.dtype)
    assert sha(attnkit.softmax_attention(q, k, v, return_weights=True, **options)[1]) == sha(whole)


@pytest.mark.parametrize("lq", [1, 50])
def test_what_else_is_asked_leaves_the_output_alone(lq):
    assert_crosses(LK)
    q, k, v = draw(np.random.default_rng(15), lq, d=16, dv=16)
    plain = attnkit.softmax_attention(q, k, v, causal=True)
    for more in ({"return_lse": True}, *({"stats": name} for name in STATS), {"stats": STATS}, {"return_weights": True}, {"stats": STATS[::-1], "return_lse": True}):
        assert sha(attnkit.softmax_attention(q, k, v, causal=True, **more)[0]) == sha(plain), more
    alone = attnkit.attention_row_stats(q, k, causal=True, extra="abs_distance")
    beside = attnkit.softmax_attention(q, k, v, causal=True, stats=STATS)[1]
    for name in STATS:
        assert sha(alone[name]) == sha(beside[name]) == sha(attnkit.softmax_attention(q, k, v, causal=True, stats=name)[1][name]), name


def test_packed_sequences_and_pages_have_the_bytes_of_their_own_call():
    q, k, v = draw(np.random.default_rng(16), 60, d=16, dv=16)
    assert_crosses(LK)
    out, lse = attnkit.varlen_attention(q, k, v, [0, 7, 60], [0, 100, LK], causal=True, return_lse=True)
    for rows, keys in ((slice(0, 7), slice(0, 100)), (slice(7, 60), slice(100, LK))):
        own = attnkit.softmax_attention(q[:, rows], k[:, keys], v[:, keys], causal=True, return_lse=True)
        assert sha(out[:, rows], lse[:, rows]) == sha(*own)
    page, n = 100, -(-LK // 100)
    pages = [np.zeros((n + 3, 2, page, 16), np.float32) for _ in range(2)]
    table = np.random.default_rng(17).permutation(n + 3)[:n]
    for store, x in zip(pages, (k, v)):
        for i, number in enumerate(table):
            part = x[:, i * page : (i + 1) * page]
            store[number, :, : part.shape[1]] = part
    own = attnkit.softmax_attention(q, k, v, causal=True, return_lse=True)
    paged = attnkit.paged_attention(q[None], *pages, table[None], [LK], return_lse=True)
    assert sha(*(x[0] for x in paged)) == sha(*own)


# ---- the checks can fail ---------------------------------------------------------------------------------------------


def test_another_chunk_tree_has_other_bytes():
    """What the shard test would see if states merged in another order: the cases are not too easy."""
    q, k, v = draw(np.random.default_rng(18), 5, 3 * CHUNK + 77, d=16, dv=16)
    k[:, CHUNK : 2 * CHUNK] += 0.5
    parts = [attnkit.attention_state(q, k[:, a : a + CHUNK], v[:, a : a + CHUNK]) for a in range(0, 3 * CHUNK + 77, CHUNK)]
    whole = attnkit.softmax_attention(q, k, v)
    other = attnkit.merge_states([parts[0], attnkit.merge_states([parts[1], attnkit.merge_states(parts[2:])])]).finish()[0]
    assert sha(attnkit.merge_states(parts).finish()[0]) == sha(whole) != sha(other)
    np.testing.assert_allclose(other, whole, atol=1e-6)
