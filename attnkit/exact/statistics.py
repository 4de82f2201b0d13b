"""What is read off an attention map most often, without the map: statistics of rows, columns and blocks."""

import numpy as np

from .. import _core
from .._engine import COLUMN_RESULTS, Problem, as_array, as_float64, as_int, standard_arithmetic
from .softmax import _positions

_SCALARS = ("lse", "n_allowed", "entropy", "purity", "max_weight", "argmax", "sink_mass", "sink_logit_mass", "distance", "distance_sq", "mean_logit")
_EXTRA = ("abs_distance",)


def attention_row_stats(q, k, *, topk=0, sink_size=4, groups=None, n_groups=None, sink_logits=None, scale=None, causal=False, mask=None,
                        bias=None, window=None, alibi_slopes=None, softcap=None, q_offset=None, extra=()):
    """Compute statistics of every row of the attention map in one pass over the keys, in O(Lq) memory.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; options not described here mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys.
    topk : int
        How many of the largest weights to return.
    sink_size : int
        `sink_mass` is the mass on the first `sink_size` keys.
    groups : array_like of int, shape (Lk,), optional
        Group of each key for `group_mass`; numbers outside 0 .. n_groups-1 belong to no group.
    n_groups : int, optional
        Number of groups; None is the largest number plus one.
    sink_logits : array_like, optional
        Virtual key: (H,) or broadcasting to (..., Lq).
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query.
    mask : array_like of bool or plan of `attnkit.masks`, optional
        True = may attend.
    bias : array_like, optional
        Added to the logits.
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    alibi_slopes : array_like, optional
        Subtracts slope * distance.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    q_offset : int, optional
        Position of query 0.
    extra : sequence of str
        More statistics: "abs_distance".

    Returns
    -------
    dict of ndarray
        Arrays of shape (..., Lq), float64 for float64 input, else float32; counts and indices int64.

        - lse: ln sum exp s, sink included; -inf for a row without key, where everything else is 0 and indices are -1
        - n_allowed: number of allowed keys
        - entropy: -sum p ln p in nats, sink included
        - purity: sum p^2, sink included; 1/purity is the effective number of keys
        - max_weight, argmax: largest weight of a key, and the lowest index that has it
        - sink_mass: mass on keys j < sink_size
        - sink_logit_mass: weight of the sink logit
        - distance, distance_sq: sum p delta, sum p delta^2 with the signed delta = i + off - j
        - mean_logit: sum p s over the keys
        - group_mass, shape (..., Lq, n_groups): mass by group
        - topk_index, topk_weight, shape (..., Lq, topk): the largest weights in descending order, lower index first among equals; -1
          and 0 beyond the allowed keys
        - abs_distance (on request): sum p abs(delta)

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`.

    See Also
    --------
    softmax_attention : the same numbers beside the output, with ``stats=``.
    attention_column_stats : attention received.

    Notes
    -----
    With m the row maximum, l = sum e^(s-m), l1 = l without its one largest term and T = sum e^(s-m) (m-s), entropy is
    log1p(l1) + T/l: no cancellation on peaked rows. 2 Lq Lk d operations.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> stats = attnkit.attention_row_stats(np.zeros((3, 4)), np.zeros((5, 4)), topk=2)
    >>> stats["entropy"].round(4), stats["topk_index"][0]
    (array([1.6094, 1.6094, 1.6094]), array([0, 1]))
    """
    topk = as_int("topk", topk, 0)
    sink_size = as_int("sink_size", sink_size, 0)
    extra = (extra,) if isinstance(extra, str) else tuple(extra)
    for name in extra:
        if name not in _EXTRA:
            raise ValueError(f"extra: unknown name {name!r}, choose from {', '.join(_EXTRA)}")
    problem = Problem(q, k, None, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    if topk > 1 << 20:
        raise ValueError(f"topk must be at most 2**20, got {topk}")
    groups, n_groups = _groups(groups, n_groups, problem.lk)
    names = [*_SCALARS, *extra]
    wanted = ["count" if name == "n_allowed" else name for name in names]
    if n_groups:
        wanted.append("group_mass")
    if topk:
        wanted += ["topk_index", "topk_weight"]
    _, *found = problem.attend(False, tuple(wanted), sink=problem.sinks(sink_logits), topk=topk, sink_size=min(sink_size, problem.lk),
                               groups=groups, n_groups=n_groups)
    results = dict(zip(names, found))
    rows = (*problem.leading(), problem.lq)
    results["group_mass"] = found[len(names)] if n_groups else np.zeros((*rows, 0), problem.real())
    results["topk_index"], results["topk_weight"] = found[-2:] if topk else (np.zeros((*rows, 0), np.int64), np.zeros((*rows, 0), problem.real()))
    return results


def _groups(groups, n_groups, lk):
    """Group numbers as int32 with -1 for none, and how many groups there are."""
    if groups is None:
        if n_groups is not None:
            raise ValueError("n_groups needs groups, one integer per key")
        return None, 0
    groups = as_array("groups", groups)
    if groups.size == 0:
        groups = groups.astype(np.int64)
    if groups.dtype.kind not in "iu":
        raise TypeError(f"groups must hold integers, got dtype {groups.dtype}")
    if groups.shape != (lk,):
        raise ValueError(f"groups needs shape ({lk},), one integer per key, got {groups.shape}")
    n_groups = max(int(groups.max(initial=-1)) + 1, 0) if n_groups is None else as_int("n_groups", n_groups, 0)
    if n_groups > 1 << 24:
        raise ValueError(f"n_groups must be at most 2**24, got {n_groups}")
    return np.where((groups >= 0) & (groups < n_groups), groups, -1).astype(np.int32), n_groups


def attention_column_stats(q, k, *, rows=None, row_weights=None, sink_logits=None, lse=None, scale=None, causal=False, mask=None, bias=None,
                           window=None, alibi_slopes=None, softcap=None, q_offset=None):
    """Compute the attention that each key receives, in O(Lq + Lk) memory.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; options not described here mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys.
    rows : int, slice or 1-D array_like, optional
        Queries that count; None = all.
    row_weights : array_like, optional
        Weight of each query in `received`; broadcasts to (..., Lq). Default 1.
    sink_logits : array_like, optional
        Virtual key: (H,) or broadcasting to (..., Lq).
    lse : array_like, optional
        Row normaliser, broadcasting to (..., Lq). Pass the log-sum-exp over all keys when `k` is a shard of them: the results of
        shards then concatenate.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query.
    mask : array_like of bool or plan of `attnkit.masks`, optional
        True = may attend.
    bias : array_like, optional
        Added to the logits.
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    alibi_slopes : array_like, optional
        Subtracts slope * distance.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    q_offset : int, optional
        Position of query 0.

    Returns
    -------
    dict of ndarray, shape (..., Lk)
        - received: sum over the rows of w_i p_ij
        - received_max: largest p_ij over the rows
        - visible: number of the rows that may see key j, int64
        - received_mean: received / max(visible, 1)

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`; an index outside its axis.

    See Also
    --------
    attention_block_mass, attention_row_stats

    Notes
    -----
    p_ij = exp(s_ij - lse_i) once the row is normalised. Scores of one block of rows per thread are kept until then (48 Lk numbers; a second score
    pass for few rows, chosen rows, a given `lse` and rows of more than 64 MB). 2 Lq Lk d operations, 4 Lq Lk d with a second pass. Rows
    are added in order, so the bytes do not depend on threads or on the way.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> attnkit.attention_column_stats(np.zeros((2, 4)), np.zeros((2, 4)), causal=True)["received"]
    array([1.5, 0.5])
    """
    problem = Problem(q, k, None, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    row_list = _positions("rows", rows, problem.lq)
    real = problem.real()
    weights = None
    if row_weights is not None:
        weights = as_float64("row_weights", row_weights)
        shape = (*problem.leading(), problem.lq)
        try:
            weights = np.broadcast_to(weights, shape)
        except ValueError:
            raise ValueError(f"row_weights of shape {weights.shape} does not broadcast to the rows {shape}") from None
        with standard_arithmetic():
            weights = np.ascontiguousarray(weights if row_list is None else weights[..., row_list], real)
    sink = problem.sinks(sink_logits)
    if lse is None and row_list is None:
        _, received, largest, visible, _, _ = problem.attend(False, COLUMN_RESULTS, sink=sink, row_weight=weights)
    else:
        received, largest, visible = _core.map_columns(problem.q, problem.k, *problem.args, *problem.norms(sink, lse), row_list, weights)
    return problem.column_stats(received, largest, visible)


def attention_block_mass(q, k, *, block_q, block_k, reduce="sum", lse=None, scale=None, causal=False, mask=None, bias=None, window=None,
                         alibi_slopes=None, softcap=None, sink_logits=None, q_offset=None):
    """Compute the attention mass of blocks of the map, without the map.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; options not described here mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys.
    block_q, block_k : int
        Block sizes; the last blocks may be short.
    reduce : {"sum", "max", "mean", "row_mean"}
        "mean" divides the sum by block_q * block_k (short blocks count as padded with zeros), "row_mean" by the number of rows of the
        block, so that the rows of the result sum to 1.
    lse : array_like, optional
        Row normaliser, broadcasting to (..., Lq); for shards of keys.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query.
    mask : array_like of bool or plan of `attnkit.masks`, optional
        True = may attend.
    bias : array_like, optional
        Added to the logits.
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    alibi_slopes : array_like, optional
        Subtracts slope * distance.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    sink_logits : array_like, optional
        Virtual key: (H,) or broadcasting to (..., Lq).
    q_offset : int, optional
        Position of query 0.

    Returns
    -------
    ndarray, shape (..., ceil(Lq / block_q), ceil(Lk / block_k))
        float64 for float64 input, else float32.

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`; an unknown `reduce`.

    See Also
    --------
    attention_column_stats

    Notes
    -----
    sum over the block of p_ij = exp(s_ij - lse_i). 4 Lq Lk d operations, 2 Lq Lk d with `lse`.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> attnkit.attention_block_mass(np.zeros((4, 8)), np.zeros((4, 8)), block_q=2, block_k=2, causal=True, reduce="row_mean").round(3)
    array([[1.   , 0.   ],
           [0.583, 0.417]])
    """
    block_q, block_k = as_int("block_q", block_q, 1), as_int("block_k", block_k, 1)
    if reduce not in ("sum", "max", "mean", "row_mean"):
        raise ValueError(f"reduce must be 'sum', 'max', 'mean' or 'row_mean', got {reduce!r}")
    problem = Problem(q, k, None, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    norms = problem.norms(problem.sinks(sink_logits), lse)
    total, largest = _core.map_blocks(problem.q, problem.k, *problem.args, *norms, block_q, block_k)
    with standard_arithmetic():
        if reduce == "max":
            total = largest
        elif reduce == "mean":
            total /= float(block_q) * float(block_k)
        elif reduce == "row_mean":
            starts = np.arange(total.shape[-2]) * block_q
            total /= np.minimum(block_q, problem.lq - starts)[:, None]
        return total.astype(problem.real(), copy=False)
