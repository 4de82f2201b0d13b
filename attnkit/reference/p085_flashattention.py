"""FlashAttention (arXiv 2205.14135): what its tiled algorithm computes, and its counts, step by step."""

import math

import numpy as np

from . import _common as c
from .masks import mask_tile_stats
from .softmax import softmax_attention


def flash_attention_tiled(q, k, v, *, block_q=64, block_k=64, scale=None, causal=False, mask=None,
                          return_lse=False, return_tiles=False):
    """The plain map's output and lse (tiling changes neither), and the number of tiles with an allowed pair."""
    c.refuse_mixed_halves(q=q, k=k, v=v)
    q, k, v = (c.as_float64(name, x) for name, x in (("q", q), ("k", k), ("v", v)))
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 2:
            raise ValueError(f"{name} needs shape (length, features), got {x.shape}")
    out, lse = softmax_attention(q, k, v, scale=scale, causal=causal, mask=mask, return_lse=True)
    shape = (len(q), len(k))
    allowed = np.full(shape, True)
    if mask is not None:
        allowed &= c.as_bool_array("mask", mask)
    if c.check_causal(causal):
        allowed &= c.deltas(*shape, c.first_position(*shape, causal, None)) >= 0
    results = [out]
    if return_lse:
        results.append(lse)
    tiles = mask_tile_stats(allowed, block_q, block_k)["visited"]
    if return_tiles:
        results.append(tiles)
    return tuple(results) if len(results) > 1 else out


def flash_block_sizes(sram_elems, d):
    """(Br, Bc) of the first version: Bc = ceil(M / 4d), Br = min(Bc, d)."""
    m, d = c.as_int("sram_elems", sram_elems, minimum=1), c.as_int("d", d, minimum=1)
    b_c = math.ceil(m / (4 * d))
    return min(b_c, d), b_c


def flash_traffic(Lq, Lk, d, dv=None, *, block_q=64, block_k=64, algo="fa2"):
    """Elements moved between slow and fast memory, added up load by load and store by store."""
    lq, lk, d = (c.as_int(n, x, minimum=0) for n, x in (("Lq", Lq), ("Lk", Lk), ("d", d)))
    dv = d if dv is None else c.as_int("dv", dv, minimum=0)
    block_q, block_k = c.as_int("block_q", block_q, minimum=1), c.as_int("block_k", block_k, minimum=1)
    if algo not in ("standard", "fa1", "fa2"):
        raise ValueError(f"algo must be 'standard', 'fa1' or 'fa2', got {algo!r}")
    moved = 0
    if algo == "standard":
        moved += lq * d + lk * d + lq * lk          # read Q, K; write S
        moved += lq * lk + lq * lk                  # read S; write P
        moved += lq * lk + lk * dv + lq * dv        # read P, V; write O
    elif algo == "fa1":
        for j in range(0, lk, block_k):
            moved += min(block_k, lk - j) * (d + dv)    # K and V once
            for i in range(0, lq, block_q):
                rows = min(block_q, lq - i)
                moved += rows * (d + 2 * dv + 4)        # read Q; read and write O, m, l
    else:
        for i in range(0, lq, block_q):
            rows = min(block_q, lq - i)
            moved += rows * d                           # Q once
            for j in range(0, lk, block_k):
                moved += min(block_k, lk - j) * (d + dv)
            moved += rows * dv + rows                   # write O and lse
    return moved


def butterfly_block_mask(n_blocks, *, max_stride=None, global_blocks=0):
    """Block (i, j) allowed when i xor j is 0 or a power of two <= max_stride, or i or j < global_blocks."""
    n = c.as_int("n_blocks", n_blocks, minimum=0)
    max_stride = None if max_stride is None else c.as_int("max_stride", max_stride, minimum=0)
    global_blocks = c.as_int("global_blocks", global_blocks, minimum=0)
    mask = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            stride = i ^ j
            power = stride > 0 and bin(stride).count("1") == 1
            mask[i, j] = (stride == 0 or power and (max_stride is None or stride <= max_stride)
                          or i < global_blocks or j < global_blocks)
    return mask
