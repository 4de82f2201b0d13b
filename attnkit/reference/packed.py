"""Packed, paged and split forms: many independent calls of softmax attention, or one call in parts."""

import numpy as np

from . import _common as c
from .softmax import softmax_attention


def varlen_attention(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, return_lse=False, scale=None,
                     window=None, softcap=None, alibi_slopes=None, sink_logits=None):
    """Segment b attends rows cu_q[b]:cu_q[b+1] to keys cu_k[b]:cu_k[b+1]; each segment is its own call."""
    q64, k64, v64 = c.check_qk(q, k, v)
    cu_q = check_cumulative("cu_seqlens_q", cu_seqlens_q, q64.shape[-2])
    cu_k = check_cumulative("cu_seqlens_k", cu_seqlens_k, k64.shape[-2])
    if len(cu_q) != len(cu_k):
        raise ValueError(f"cu_seqlens_q and cu_seqlens_k need one length, got {len(cu_q)} and {len(cu_k)}")
    out = np.zeros(q64.shape[:-1] + v64.shape[-1:])
    lse = np.full(q64.shape[:-1], -np.inf)
    for b in range(max(len(cu_q) - 1, 0)):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        out[..., rows, :], lse[..., rows] = softmax_attention(
            q64[..., rows, :], k64[..., keys, :], v64[..., keys, :], scale=scale, causal=causal, window=window,
            softcap=softcap, alibi_slopes=alibi_slopes, sink_logits=sink_logits, return_lse=True)
    return (out, lse) if return_lse else out


def check_cumulative(name, cu, length):
    """Ascending integers from 0 to `length`."""
    cu = c.as_int_array(name, cu)
    if cu.ndim != 1 or len(cu) < 1:
        raise ValueError(f"{name} must be 1-D with at least one entry, got shape {cu.shape}")
    if cu[0] != 0 or cu[-1] != length or (np.diff(cu) < 0).any():
        raise ValueError(f"{name} must ascend from 0 to the length {length} of axis -2, got {cu.tolist()}")
    return cu


def paged_attention(q, k_pages, v_pages, page_table, seq_lens, *, causal=True, return_lse=False, scale=None,
                    window=None, softcap=None, alibi_slopes=None, sink_logits=None):
    """Sequence b reads its first seq_lens[b] keys page by page; its queries are the last Lq positions."""
    c.refuse_mixed_halves(q=q, k_pages=k_pages, v_pages=v_pages)
    q = c.as_float64("q", q)
    k_pages, v_pages = c.as_float64("k_pages", k_pages), c.as_float64("v_pages", v_pages)
    for name, x in (("q", q), ("k_pages", k_pages), ("v_pages", v_pages)):
        if x.ndim != 4:
            raise ValueError(f"{name} needs 4 axes, got shape {x.shape}")
    if k_pages.shape[:3] != v_pages.shape[:3]:
        raise ValueError(f"k_pages {k_pages.shape} and v_pages {v_pages.shape} need the same first three axes")
    n_pages, _, page, _ = k_pages.shape
    table, lens = c.as_int_array("page_table", page_table), c.as_int_array("seq_lens", seq_lens)
    batch = q.shape[0]
    if table.ndim != 2 or table.shape[0] != batch:
        raise ValueError(f"page_table needs shape ({batch}, max_pages), got {table.shape}")
    if lens.shape != (batch,):
        raise ValueError(f"seq_lens needs shape ({batch},), got {lens.shape}")
    out = np.zeros(q.shape[:-1] + v_pages.shape[-1:])
    lse = np.full(q.shape[:-1], -np.inf)
    for b in range(batch):
        n = int(lens[b])
        if n < 0 or n > table.shape[1] * page:
            raise ValueError(f"seq_lens[{b}] = {n} does not fit {table.shape[1]} pages of {page} keys")
        used = table[b, :-(-n // page) if page else 0]
        if ((used < 0) | (used >= n_pages)).any():
            raise ValueError(f"page_table[{b}] names a page outside 0..{n_pages - 1}")
        k, v = (contiguous(pages[used])[:, :n] for pages in (k_pages, v_pages))
        out[b], lse[b] = softmax_attention(
            q[b], k, v, scale=scale, causal=causal, window=window, softcap=softcap, alibi_slopes=alibi_slopes,
            sink_logits=sink_logits, return_lse=True)
    return (out, lse) if return_lse else out


def contiguous(pages):
    """Pages (n, heads, page, d) one after the other: (heads, n * page, d)."""
    n, heads, page, d = pages.shape
    return np.swapaxes(pages, 0, 1).reshape(heads, n * page, d)


def merge_partials(outs, lses, *, axis=0, return_lse=True):
    """Softmax-weighted mean of partial outputs: w_n = exp(lse_n - M), out = sum w out / sum w, lse = M + ln sum w."""
    outs, lses = stack("outs", outs), stack("lses", lses)
    axis = c.as_int("axis", axis)
    if outs.shape[:-1] != lses.shape:
        raise ValueError(f"outs {outs.shape} must be lses {lses.shape} with one more last axis")
    if not -lses.ndim <= axis < lses.ndim:
        raise ValueError(f"axis {axis} is out of range for lses of shape {lses.shape}")
    axis %= lses.ndim
    outs, lses = np.moveaxis(outs, axis, 0), np.moveaxis(lses, axis, 0)
    top = np.full(lses.shape[1:], -np.inf)
    for x in lses:
        top = np.maximum(top, x)
    total, out = np.zeros(top.shape), np.zeros(outs.shape[1:])
    with np.errstate(all="ignore"):
        for o, x in zip(outs, lses):
            w = np.where(x == top, 1.0, np.exp(x - top))
            used = x != -np.inf
            total += np.where(used, w, 0.0)
            out += np.where(used[..., None], w[..., None] * o, 0.0)
        empty = top == -np.inf
        out = np.where(empty[..., None], 0.0, out / total[..., None])
        lse = np.where(empty, -np.inf, top + np.log(total))
    return (out, lse) if return_lse else out


def stack(name, parts):
    """An array, or a list of arrays stacked on a new first axis, as float64."""
    if isinstance(parts, (list, tuple)):
        parts = [c.as_float64(name, x) for x in parts]
        if len({x.shape for x in parts}) > 1:
            raise ValueError(f"{name} needs parts of one shape, got {[x.shape for x in parts]}")
        parts = np.stack(parts) if parts else np.zeros((0,))
    return c.as_float64(name, parts, min_ndim=1)
