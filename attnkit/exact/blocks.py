"""Attention over a list of blocks of the map."""

from .. import masks
from .._engine import as_int
from .softmax import softmax_attention


def block_sparse_attention(q, k, v, block_mask, *, block_q=64, block_k=64, causal=False, mask=None, scale=None, bias=None, window=None,
                           alibi_slopes=None, softcap=None, sink_logits=None, dropout_mask=None, dropout_p=0.0, q_offset=None,
                           return_lse=False, return_weights=False, stats=(), out=None):
    """Compute softmax attention over the allowed blocks of the map only.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; options not described here mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys.
    v : array_like, shape (..., Lk, dv)
        Values.
    block_mask : array_like of bool or 0/1 integers, shape (..., ceil(Lq / block_q), ceil(Lk / block_k))
        True = the block may be attended; leading axes broadcast, usually (H, nQ, nK).
    block_q, block_k : int
        Block sizes.
    causal : bool or {"lower_right", "upper_left"}
        Combined with the blocks by AND.
    mask : array_like of bool or plan of `attnkit.masks`, optional
        Combined with the blocks by AND.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    bias : array_like, optional
        Added to the logits.
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    alibi_slopes : array_like, optional
        Subtracts slope * distance.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    sink_logits : array_like, optional
        Virtual key.
    dropout_mask : array_like of bool, optional
        True = keep.
    dropout_p : float
        Dropout probability.
    q_offset : int, optional
        Position of query 0.
    return_lse : bool
        Also return the log-sum-exp.
    return_weights : bool
        Also return the map.
    stats : str or sequence of str
        Row statistics to return last.
    out : ndarray, optional
        Where to put the output.

    Returns
    -------
    out, lse, weights, stats
        As `softmax_attention`.

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`; a block mask whose shape does not fit.

    See Also
    --------
    attnkit.masks.blocks : the same as a plan, to combine with others.

    Notes
    -----
    Work is proportional to the tiles (48 rows by 256 keys) that hold an allowed pair.

    References
    ----------
    Dao et al., FlashAttention, arXiv 2205.14135, section 3.3.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> x = np.eye(4, dtype=np.float32)
    >>> attnkit.block_sparse_attention(x, x, x, np.eye(2, dtype=bool), block_q=2, block_k=2, scale=0.0)[0]
    array([0.5, 0.5, 0. , 0. ], dtype=float32)
    """
    plan = masks.blocks(block_mask, as_int("block_q", block_q, 1), as_int("block_k", block_k, 1))
    if mask is not None:
        plan = plan & mask
    return softmax_attention(q, k, v, scale=scale, causal=causal, mask=plan, bias=bias, window=window, alibi_slopes=alibi_slopes, softcap=softcap,
                             sink_logits=sink_logits, dropout_mask=dropout_mask, dropout_p=dropout_p, q_offset=q_offset, return_lse=return_lse,
                             return_weights=return_weights, stats=stats, out=out)
