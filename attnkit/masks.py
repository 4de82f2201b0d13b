"""Mask plans: which (query, key) pairs exist, said as patterns instead of as an array.

A plan is a small immutable object such as ``causal() & window(256)``. It is accepted as ``mask=`` wherever a boolean
array is, costs bytes instead of Lq x Lk of them, and the engine visits only the tiles that it allows. Plans combine
with ``&``, ``|`` and ``~``, also with boolean NumPy arrays on either side.

Query i sits at position i + offset, key j at position j, and delta = i + offset - j. Without an offset of its own a
pattern takes offset = Lk - Lq, so that the last query meets the last key ("lower_right"); "upper_left" is offset 0.

Examples
--------
>>> from attnkit import masks
>>> plan = masks.causal() & masks.window(3, sinks=1)
>>> plan
causal() & window(left=3, sinks=1)
>>> print(plan.picture(8))
#.......
##......
###.....
####....
#####...
#.####..
#..####.
#...####
"""

import numpy as np

from attnkit import _plans
from attnkit._arguments import as_int
from attnkit._plans import MaskPlan
from attnkit._plans import lower as _lower

__all__ = ["MaskPlan", "blocks", "causal", "dense", "documents", "full", "none", "prefix", "window"]

_OFFSET_WORDS = ("lower_right", "upper_left")


def full():
    """Allow every pair.

    Returns
    -------
    MaskPlan

    Examples
    --------
    >>> from attnkit import masks
    >>> masks.full() & masks.causal()
    causal()
    """
    return _plans.All()


def none():
    """Allow no pair; every row is then empty (output 0, log-sum-exp -inf).

    Returns
    -------
    MaskPlan

    Examples
    --------
    >>> from attnkit import masks
    >>> int(masks.none().to_dense(4).sum())
    0
    """
    return ~_plans.All()


def causal(offset=None):
    """Allow the keys at or before the query: delta = i + offset - j >= 0.

    Parameters
    ----------
    offset : int or {"lower_right", "upper_left"}, optional
        Position of query 0. None and "lower_right" mean Lk - Lq, "upper_left" means 0.

    Returns
    -------
    MaskPlan

    Raises
    ------
    TypeError, ValueError
        If `offset` is neither an integer nor one of the words, or exceeds 2**62.

    Notes
    -----
    The engine visits half of the tiles of a square problem.

    Examples
    --------
    >>> from attnkit import masks
    >>> masks.causal().to_dense(2, 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    >>> masks.causal("upper_left").to_dense(2, 4).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0]])
    """
    return _plans.Causal(_check_offset(offset))


def window(left, right=0, sinks=0, dilation=1, offset=None):
    """Allow a band of keys around the query, every `dilation`-th of them, and optional sink keys.

    Parameters
    ----------
    left, right : int or None
        Steps behind and ahead of the query. None or a negative number is unbounded.
    sinks : int
        The first `sinks` keys stay visible at any distance behind the query.
    dilation : int
        Step between the keys of the band.
    offset : int or {"lower_right", "upper_left"}, optional
        Position of query 0, as for `causal`.

    Returns
    -------
    MaskPlan

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range.

    Notes
    -----
    With delta = i + offset - j: allowed are -right * dilation <= delta <= left * dilation with delta divisible by
    `dilation`, and j < sinks with delta >= -right * dilation (sink keys stay causal). Work is proportional to the
    width.

    Examples
    --------
    >>> from attnkit import masks
    >>> masks.window(1, sinks=1).to_dense(4).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 0, 1, 1]])
    >>> masks.window(1, right=1, dilation=2).to_dense(4).astype(int)
    array([[1, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 1, 0],
           [0, 1, 0, 1]])
    """
    left = None if left is None or as_int("left", left) < 0 else as_int("left", left)
    right = None if right is None or as_int("right", right) < 0 else as_int("right", right)
    dilation = min(as_int("dilation", dilation, minimum=1), _plans.MAX_EXTENT)
    return _plans.Window(left, right, as_int("sinks", sinks, minimum=0), dilation, _check_offset(offset))


def documents(seg_q, seg_k=None, causal=False):
    """Allow the pairs of one document: seg_q[i] == seg_k[j].

    Parameters
    ----------
    seg_q : array_like of int, shape (Lq,)
        Document number of every query. Any numbers; sorted ones are the fastest.
    seg_k : array_like of int, shape (Lk,), optional
        Document number of every key; None means those of the queries.
    causal : bool or {"lower_right", "upper_left"}
        Combine with a causal plan.

    Returns
    -------
    MaskPlan

    Raises
    ------
    TypeError
        If the numbers are not integers.
    ValueError
        If an array is not one-dimensional or does not fit int64.

    Notes
    -----
    The numbers are copied as int64. Costs O(Lq + Lk) memory; of sorted numbers the engine visits only the tiles on
    the diagonal blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit import masks
    >>> np.asarray(masks.documents([0, 0, 1], causal=True)).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 0, 1]])
    """
    seg_q = _segments(seg_q, "seg_q")
    plan = _plans.Documents(seg_q, seg_q if seg_k is None else _segments(seg_k, "seg_k"))
    if isinstance(causal, (bool, np.bool_)):
        return plan & _plans.Causal(None) if causal else plan
    return plan & _plans.Causal(_check_offset(causal, "causal"))


def prefix(n):
    """Allow the first `n` keys to every query: j < n.

    Parameters
    ----------
    n : int
        Number of keys.

    Returns
    -------
    MaskPlan

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer or negative.

    Notes
    -----
    A prefix language model is ``causal() | prefix(n)``.

    Examples
    --------
    >>> from attnkit import masks
    >>> (masks.causal() | masks.prefix(2)).to_dense(3).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    return _plans.Prefix(as_int("n", n, minimum=0))


def blocks(block_mask, block_q=64, block_k=64):
    """Allow whole blocks: block_mask[i // block_q, j // block_k].

    Parameters
    ----------
    block_mask : array_like of bool or 0/1 integers, shape (..., nQ, nK)
        Leading axes, if any, broadcast with those of the attention call, (H, nQ, nK) being a mask for each head.
    block_q, block_k : int
        Size of a block in queries and keys.

    Returns
    -------
    MaskPlan
        Fits Lq and Lk with ceil(Lq / block_q) = nQ and ceil(Lk / block_k) = nK.

    Raises
    ------
    TypeError
        If `block_mask` is not boolean.
    ValueError
        If it has fewer than two axes, holds other integers than 0 and 1, or a block size is below 1.

    Notes
    -----
    The block mask is copied: one byte for each block.

    Examples
    --------
    >>> from attnkit import masks
    >>> masks.blocks([[1, 0], [1, 1]], block_q=2, block_k=2).to_dense(3).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    array = _plans.boolean(block_mask, "block_mask")
    if array.ndim < 2:
        raise ValueError(f"block_mask must have the shape (..., nQ, nK), got {array.shape}")
    return _plans.Blocks(array.copy(), as_int("block_q", block_q, minimum=1), as_int("block_k", block_k, minimum=1))


def dense(mask):
    """Allow the True entries of an array, so that it combines with other plans.

    Parameters
    ----------
    mask : array_like of bool or 0/1 integers, shape (..., Lq, Lk)
        Any strides; axes of length 1 broadcast. Boolean and one-byte arrays are not copied and must not change while
        the plan is in use.

    Returns
    -------
    MaskPlan

    Raises
    ------
    TypeError
        If `mask` is not boolean (an additive float mask is a bias).
    ValueError
        If it holds integers other than 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit import masks
    >>> keep = np.array([True, False, True])  # keys that are not padding
    >>> (masks.causal() & keep).to_dense(3).astype(int)
    array([[1, 0, 0],
           [1, 0, 0],
           [1, 0, 1]])
    """
    return _plans.dense_plan(mask)


# ---- arguments -------------------------------------------------------------------------------------------------------


def _check_offset(offset, name="offset"):
    if offset is None or offset == "lower_right":
        return None
    if isinstance(offset, str):
        if offset not in _OFFSET_WORDS:
            raise ValueError(f"{name} must be an integer, None or one of {_OFFSET_WORDS}, got {offset!r}")
        return offset
    offset = as_int(name, offset)
    if abs(offset) > _plans.MAX_EXTENT:
        raise ValueError(f"{name} must lie within -2**62 .. 2**62, got {offset}")
    return offset


def _segments(values, name):
    array = _plans.plain_array(values, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got the shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {array.dtype}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds numbers that do not fit int64")
    return np.array(array, np.int64, order="C")
