"""Masks as boolean arrays (True = may attend), literally from their definitions, and attention over blocks."""

import numpy as np

from . import _common as c
from .softmax import softmax_attention


def positions(lq, lk, offset):
    """Checked lengths and the (Lq, Lk) array delta = i + offset - j; offset None = Lk - Lq."""
    lq = c.as_int("Lq", lq, minimum=0)
    lk = lq if lk is None else c.as_int("Lk", lk, minimum=0)
    offset = lk - lq if offset is None else c.as_int("offset", offset)
    return c.deltas(lq, lk, offset)


def causal_mask(Lq, Lk=None, *, offset=None):
    """j <= i + offset."""
    return positions(Lq, Lk, offset) >= 0


def sliding_window_mask(Lq, Lk=None, *, left, right=0, sinks=0, dilation=1, offset=None):
    """-right*dilation <= delta <= left*dilation, delta divisible by dilation; or j < sinks, not beyond the right."""
    delta = positions(Lq, Lk, offset)
    dilation = c.as_int("dilation", dilation, minimum=1)
    sinks = c.as_int("sinks", sinks, minimum=0)
    left, right = c.check_window((left, right))
    inside = np.full(delta.shape, True) if right is None else delta >= -right * dilation
    near = delta % dilation == 0
    if left is not None:
        near &= delta <= left * dilation
    sink = np.arange(delta.shape[1]) < sinks
    return inside & (near | sink)


def document_mask(seg_q, seg_k=None, *, causal=False):
    """seg_q[i] == seg_k[j], and lower-right causal when asked."""
    seg_q = c.as_int_array("seg_q", seg_q)
    seg_k = seg_q if seg_k is None else c.as_int_array("seg_k", seg_k)
    if seg_q.ndim < 1 or seg_k.ndim < 1:
        raise ValueError(f"seg_q and seg_k need an axis of tokens, got shapes {seg_q.shape} and {seg_k.shape}")
    try:
        same = seg_q[..., :, None] == seg_k[..., None, :]
        if causal:
            same &= positions(*same.shape[-2:], None) >= 0
    except ValueError:
        raise ValueError(f"seg_q {seg_q.shape} and seg_k {seg_k.shape} do not broadcast") from None
    return same


def block_mask_to_dense(block_mask, Lq, Lk, *, block_q, block_k, causal=False):
    """Entry (i, j) is block_mask[i // block_q, j // block_k], and lower-right causal when asked."""
    block_mask, lq, lk, block_q, block_k = check_blocks(block_mask, Lq, Lk, block_q, block_k)
    dense = block_mask.repeat(block_q, axis=-2).repeat(block_k, axis=-1)[..., :lq, :lk]
    return dense & causal_mask(lq, lk) if causal else dense


def check_blocks(block_mask, lq, lk, block_q, block_k):
    """Checked arguments; the blocks must cover (Lq, Lk), what lies beyond is cropped."""
    block_mask = c.as_bool_array("block_mask", block_mask)
    lq, lk = c.as_int("Lq", lq, minimum=0), c.as_int("Lk", lk, minimum=0)
    block_q, block_k = c.as_int("block_q", block_q, minimum=1), c.as_int("block_k", block_k, minimum=1)
    if block_mask.ndim < 2:
        raise ValueError(f"block_mask needs shape (nQ, nK) or (H, nQ, nK), got {block_mask.shape}")
    if block_mask.shape[-2] * block_q < lq or block_mask.shape[-1] * block_k < lk:
        raise ValueError(f"block_mask {block_mask.shape} in blocks of ({block_q}, {block_k}) does not cover "
                         f"Lq = {lq}, Lk = {lk}")
    return block_mask, lq, lk, block_q, block_k


def block_mask_to_csr(block_mask):
    """(indptr (nQ+1,), indices) of the allowed key blocks per query block; a list of pairs for 3-D input."""
    block_mask = c.as_bool_array("block_mask", block_mask)
    if block_mask.ndim == 3:
        return [block_mask_to_csr(head) for head in block_mask]
    if block_mask.ndim != 2:
        raise ValueError(f"block_mask needs shape (nQ, nK) or (H, nQ, nK), got {block_mask.shape}")
    indptr, indices = [0], []
    for row in block_mask:
        indices += [j for j, on in enumerate(row) if on]
        indptr.append(len(indices))
    return np.array(indptr, np.int64), np.array(indices, np.int64)


def block_sparse_attention(q, k, v, block_mask, *, block_q=64, block_k=64, causal=False, mask=None, scale=None,
                           bias=None, window=None, alibi_slopes=None, softcap=None, sink_logits=None,
                           dropout_mask=None, dropout_p=0.0, q_offset=None, return_lse=False,
                           return_weights=False, stats=()):
    """softmax_attention over the allowed blocks (AND causal AND mask)."""
    q64, k64, v64 = c.check_qk(q, k, v)
    lq, lk = q64.shape[-2], k64.shape[-2]
    dense = block_mask_to_dense(block_mask, lq, lk, block_q=block_q, block_k=block_k)
    blocks = (-(-lq // block_q), -(-lk // block_k))
    if np.shape(block_mask)[-2:] != blocks:
        raise ValueError(f"block_mask of shape {np.shape(block_mask)} needs {blocks} blocks of {block_q} x {block_k} for q, k of lengths {lq}, {lk}")
    if mask is not None:
        dense = dense & c.broadcast("mask", c.as_bool_array("mask", mask), q64.shape[:-1] + (lk,))
    return softmax_attention(q64, k64, v64, scale=scale, causal=causal, mask=dense, bias=bias, window=window,
                             alibi_slopes=alibi_slopes, softcap=softcap, sink_logits=sink_logits,
                             dropout_mask=dropout_mask, dropout_p=dropout_p, q_offset=q_offset,
                             return_lse=return_lse, return_weights=return_weights, stats=stats)


def mask_tile_stats(mask, block_q, block_k):
    """Counts of tiles of a boolean (Lq, Lk) mask, tile by tile."""
    mask = c.as_bool_array("mask", mask)
    if mask.ndim != 2:
        raise ValueError(f"mask needs shape (Lq, Lk), got {mask.shape}")
    block_q, block_k = c.as_int("block_q", block_q, minimum=1), c.as_int("block_k", block_k, minimum=1)
    lq, lk = mask.shape
    n_q, n_k = -(-lq // block_q), -(-lk // block_k)
    visited = full = entries = allowed = max_row = 0
    for a in range(n_q):
        in_row = 0
        for b in range(n_k):
            tile = mask[a * block_q:(a + 1) * block_q, b * block_k:(b + 1) * block_k]
            if tile.any():
                in_row += 1
                full += bool(tile.all())
                entries += tile.size
                allowed += int(tile.sum())
        visited += in_row
        max_row = max(max_row, in_row)
    return {
        "tiles": n_q * n_k,
        "visited": visited,
        "full": full,
        "density": float(mask.mean()) if mask.size else 0.0,
        "wasted": (entries - allowed) / entries if entries else 0.0,
        "max_row_tiles": max_row,
        "speedup_bound": n_q * n_k / visited if visited else (np.inf if n_q * n_k else 1.0),
        "speedup_worst_row": n_k / max_row if max_row else (np.inf if n_q * n_k else 1.0),
    }


def receptive_field(mask, layers):
    """Boolean I M^layers: [i, j] True when input j reaches output i in exactly `layers` steps."""
    mask = square(mask)
    reach = np.eye(len(mask), dtype=bool)
    for _ in range(c.as_int("layers", layers, minimum=0)):
        reach = boolean_product(reach, mask)
    return reach


def receptive_depth(mask):
    """Fewest layers for input j to reach output i: 0 on the diagonal, -1 never."""
    mask = square(mask)
    reach = np.eye(len(mask), dtype=bool)
    depth = np.where(reach, 0, -1)
    for layers in range(1, len(mask)):
        reach = boolean_product(reach, mask)
        depth[reach & (depth < 0)] = layers
    return depth.astype(np.int64)


def square(mask):
    mask = c.as_bool_array("mask", mask)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"mask needs shape (L, L), got {mask.shape}")
    return mask


def boolean_product(a, b):
    """[i, j] = any over k of a[i, k] and b[k, j]."""
    return (a[:, :, None] & b[None, :, :]).any(axis=1) if a.size else a
