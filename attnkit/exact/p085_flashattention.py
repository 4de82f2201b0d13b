"""FlashAttention (arXiv 2205.14135): the tiled algorithm in executable form, its block sizes and its traffic.

`attnkit.softmax_attention` is the fast form of the same algorithm; this one shows every step and counts tiles.
"""

import numpy as np

from .._arguments import as_int, as_mask, as_reals, as_scale, float_types
from .._engine import check_out
from .states import shifted_exp, weighted_rows


def flash_attention_tiled(q, k, v, *, block_q=64, block_k=64, scale=None, causal=False, mask=None,
                          return_lse=False, return_tiles=False, out=None):
    """Softmax attention tile by tile with an online softmax.

    Parameters
    ----------
    q : (Lq, d) array_like
    k : (Lk, d) array_like
    v : (Lk, dv) array_like
    block_q, block_k : int, optional
        Tile sizes.
    scale : float, optional
        Factor of the logits; None = 1/sqrt(d).
    causal : {False, True, "lower_right", "upper_left"}, optional
        True is lower_right: the last query sees every key.
    mask : (Lq, Lk) array_like of bool or mask plan, optional
        True = may attend.
    return_lse, return_tiles : bool, optional
        Whether the log-sum-exp of the rows and the number of visited tiles are returned too.
    out : ndarray, optional
        Where to put the output: exact shape and dtype. It may overlap the inputs.

    Returns
    -------
    out : (Lq, dv) ndarray
        float32 and float64 in their own precision; half types computed in float32; integers in float64.
    lse : (Lq,) ndarray
        Only with ``return_lse=True``.
    tiles : int
        Only with ``return_tiles=True``: tiles with at least one allowed pair.

    Raises
    ------
    TypeError, ValueError
        For wrong types or shapes; the message names the argument.

    See Also
    --------
    flash_traffic : elements that this loop order moves.

    Notes
    -----
    For each query block, with m = -inf, l = 0, acc = 0, and for each key block in ascending order::

        S = scale Q K^T,  m' = max(m, rowmax S),  c = exp(m - m'),  E = exp(S - m')
        l = c l + rowsum E,  acc = c acc + E V,  m = m'

    and at the end out = acc / l, lse = m + ln l; a row without keys gives 0 and -inf.  This is the
    query-outer order of the second version; the first runs keys outermost and keeps out, m and l in slow
    memory.  2 Lq Lk (d + dv) operations, O(block_q (block_k + dv)) working memory.

    References
    ----------
    Dao, Fu, Ermon, Rudra, Re, FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness,
    arXiv:2205.14135.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit.exact.p085_flashattention import flash_attention_tiled
    >>> x = np.eye(4)
    >>> out, tiles = flash_attention_tiled(x, x, x, block_q=2, block_k=2, causal=True, return_tiles=True)
    >>> tiles
    3
    >>> out.sum(axis=1).round(6)
    array([1., 1., 1., 1.])
    """
    q, k, v = as_reals("q", q, ndim=2), as_reals("k", k, ndim=2), as_reals("v", v, ndim=2)
    _check_lengths(q, k, v)
    block_q, block_k = as_int("block_q", block_q, minimum=1), as_int("block_k", block_k, minimum=1)
    scale = as_scale(scale, q.shape[1])
    allowed = _allowed(q.shape[0], k.shape[0], causal, mask)
    compute, stored = float_types(q=q, k=k, v=v)
    q, k, v = (x.astype(compute, copy=False) for x in (q, k, v))
    if out is not None:
        check_out(out, (q.shape[0], v.shape[1]), stored, ())

    found = np.zeros((q.shape[0], v.shape[1]), compute)
    lse = np.full(q.shape[0], -np.inf, compute)
    tiles = 0
    for i in range(0, q.shape[0], block_q):
        rows = slice(i, i + block_q)
        m = np.full(q[rows].shape[0], -np.inf, compute)
        l, acc = np.zeros_like(m), np.zeros_like(found[rows])
        for j in range(0, k.shape[0], block_k):
            cols = slice(j, j + block_k)
            pairs = allowed[rows, cols]
            if not pairs.any():
                continue
            tiles += 1
            with np.errstate(all="ignore"):
                s = np.where(pairs, scale * (q[rows] @ k[cols].T), -np.inf).astype(compute, copy=False)
                m_new = np.maximum(m, s.max(axis=1))
                c, _ = shifted_exp(m, m_new)
                e, _ = shifted_exp(s, m_new[:, None])
                l = c * l + e.sum(axis=1)
                acc = c[:, None] * acc + weighted_rows(e, s != -np.inf, v[cols])
            m = m_new
        some = l != 0
        with np.errstate(all="ignore"):
            found[rows] = acc / np.where(some, l, 1)[:, None]
            lse[rows] = np.where(some, m + np.log(l), -np.inf)
    with np.errstate(all="ignore"):
        found = found.astype(stored, copy=False)
    if out is not None:
        np.copyto(out, found)
    results = [found if out is None else out]
    if return_lse:
        results.append(lse)
    if return_tiles:
        results.append(tiles)
    return tuple(results) if len(results) > 1 else results[0]


def flash_block_sizes(sram_elems, d):
    """Block sizes of the first version for a fast memory of `sram_elems` elements.

    Parameters
    ----------
    sram_elems : int
        Elements of fast memory, M.
    d : int
        Features of a head.

    Returns
    -------
    (Br, Bc) : tuple of int
        Rows of queries and of keys per block: Bc = ceil(M / (4 d)), Br = min(Bc, d).

    Raises
    ------
    TypeError, ValueError
        For arguments that are not positive integers.

    References
    ----------
    arXiv:2205.14135, Algorithm 1.

    Examples
    --------
    >>> from attnkit.exact.p085_flashattention import flash_block_sizes
    >>> flash_block_sizes(48 * 1024, 64)
    (64, 192)
    """
    sram_elems, d = as_int("sram_elems", sram_elems, minimum=1), as_int("d", d, minimum=1)
    b_c = -(-sram_elems // (4 * d))
    return min(b_c, d), b_c


def flash_traffic(Lq, Lk, d, dv=None, *, block_q=64, block_k=64, algo="fa2"):
    """Elements moved between slow and fast memory by one unmasked head.

    Parameters
    ----------
    Lq, Lk : int
        Numbers of queries and keys.
    d, dv : int
        Features of q and k, and of v; dv None = d.
    block_q, block_k : int, optional
        Tile sizes.
    algo : {"fa2", "fa1", "standard"}, optional
        Query-outer loops, key-outer loops, or the map written and read.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        For counts that are not integers or out of range, or an unknown `algo`.

    Notes
    -----
    With Tr = ceil(Lq / block_q) and Tc = ceil(Lk / block_k):

    - standard: Lq d + Lk d + 4 Lq Lk + Lk dv + Lq dv (S and P are written and read);
    - fa1: Lk (d + dv) + Tc (Lq d + 2 Lq dv + 4 Lq);
    - fa2: Lq d + Tr Lk (d + dv) + Lq dv + Lq.

    Asymptotically the first version moves Theta(L^2 d^2 / M) elements against Theta(L d + L^2).  The
    constants are this package's bookkeeping of the loops, not a measurement.

    References
    ----------
    arXiv:2205.14135, section 3.2.

    Examples
    --------
    >>> from attnkit.exact.p085_flashattention import flash_traffic
    >>> standard = flash_traffic(16384, 16384, 64, algo="standard")
    >>> round(standard / flash_traffic(16384, 16384, 64, block_q=128, block_k=128), 1)
    4.0
    """
    lq, lk = as_int("Lq", Lq, minimum=0), as_int("Lk", Lk, minimum=0)
    d = as_int("d", d, minimum=0)
    dv = d if dv is None else as_int("dv", dv, minimum=0)
    block_q, block_k = as_int("block_q", block_q, minimum=1), as_int("block_k", block_k, minimum=1)
    if algo == "standard":
        return lq * d + lk * d + 4 * lq * lk + lk * dv + lq * dv
    if algo == "fa1":
        return lk * (d + dv) + -(-lk // block_k) * (lq * d + 2 * lq * dv + 4 * lq)
    if algo == "fa2":
        return lq * d + -(-lq // block_q) * lk * (d + dv) + lq * dv + lq
    raise ValueError(f"algo must be 'standard', 'fa1' or 'fa2', got {algo!r}")


def butterfly_block_mask(n_blocks, *, max_stride=None, global_blocks=0):
    """Butterfly pattern of blocks for block-sparse attention.

    Parameters
    ----------
    n_blocks : int
        Blocks along each side.
    max_stride : int, optional
        Largest stride kept; None = all.
    global_blocks : int, optional
        Leading rows and columns that are allowed everywhere.

    Returns
    -------
    (n_blocks, n_blocks) ndarray of bool

    Raises
    ------
    TypeError, ValueError
        For arguments that are not non-negative integers.

    Notes
    -----
    Block (i, j) is allowed when i xor j is 0 or a power of two <= max_stride.  With n = 2^t blocks a row has
    t + 1 of them and t layers connect everything.  The stride and global setting of the paper's experiments
    is not published; the pattern family is.

    References
    ----------
    arXiv:2205.14135, section 3.3.

    Examples
    --------
    >>> from attnkit.exact.p085_flashattention import butterfly_block_mask
    >>> butterfly_block_mask(4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 0, 1],
           [1, 0, 1, 1],
           [0, 1, 1, 1]])
    """
    n = as_int("n_blocks", n_blocks, minimum=0)
    global_blocks = as_int("global_blocks", global_blocks, minimum=0)
    block = np.arange(n)
    stride = block[:, None] ^ block[None, :]
    mask = (stride & (stride - 1)) == 0
    if max_stride is not None:
        mask &= stride <= as_int("max_stride", max_stride, minimum=0)
    mask[:global_blocks] = True
    mask[:, :global_blocks] = True
    return mask


def _check_lengths(q, k, v):
    """Shapes of 2-D q, k, v that belong together."""
    if q.shape[1] != k.shape[1]:
        raise ValueError(f"q and k must have the same features (axis -1), got q {q.shape} and k {k.shape}")
    if k.shape[0] != v.shape[0]:
        raise ValueError(f"k and v must have the same length (axis -2), got k {k.shape} and v {v.shape}")


def _allowed(lq, lk, causal, mask):
    """Boolean (Lq, Lk) array of the pairs that may attend."""
    allowed = np.ones((lq, lk), bool)
    if isinstance(causal, (bool, np.bool_)):
        offset = lk - lq if causal else None
    elif isinstance(causal, str):
        if causal not in ("lower_right", "upper_left"):
            raise ValueError(f"causal must be False, True, 'lower_right' or 'upper_left', got {causal!r}")
        offset = lk - lq if causal == "lower_right" else 0
    else:
        raise TypeError(f"causal must be a bool or a string, got {type(causal).__name__}")
    if offset is not None:
        allowed = np.arange(lk)[None, :] <= np.arange(offset, offset + lq)[:, None]
    if mask is not None:
        mask = as_mask("mask", mask)
        try:
            allowed = allowed & np.broadcast_to(mask, (lq, lk))
        except ValueError:
            raise ValueError(f"mask of shape {mask.shape} does not broadcast to ({lq}, {lk})") from None
    return allowed
