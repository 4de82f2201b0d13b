"""Exact softmax attention: output, logits and windows of the map, streamed through tiles."""

import numpy as np

from .. import _core
from .._engine import COLUMN_RESULTS, Problem, as_array, as_flag, as_float64, as_real, check_out, new_map, standard_arithmetic

ROW_STATISTICS = ("lse", "n_allowed", "entropy", "purity", "max_weight", "argmax", "sink_mass", "sink_logit_mass", "distance", "distance_sq",
                  "mean_logit", "abs_distance")
COLUMN_STATISTICS = ("received", "received_max", "visible", "received_mean")
SINK_SIZE = 4  # the default of attention_row_stats, also for stats= of softmax_attention
_CORE_NAMES = {"n_allowed": "count"}


def softmax_attention(q, k, v, *, scale=None, causal=False, mask=None, bias=None, window=None, alibi_slopes=None, softcap=None,
                      sink_logits=None, dropout_mask=None, dropout_p=0.0, q_offset=None, return_lse=False, return_weights=False,
                      stats=(), out=None):
    """Compute softmax attention exactly, in O(L) memory.

    **The head axis is -3, also in a 3-D array: (heads, length, features).** The heads of `k` and `v` may divide those of `q`
    (grouped heads); all other leading axes broadcast.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries. float16, bfloat16, float32 or float64; integers and bool compute in float64. Any strides, read-only
        arrays, memory maps and CPU tensors (DLPack or ``__array__``) are read in place.
    k : array_like, shape (..., Lk, d)
        Keys.
    v : array_like, shape (..., Lk, dv)
        Values.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query: j <= i + off with off = Lk - Lq (True, "lower_right") or 0 ("upper_left").
    mask : array_like of bool or 0/1 integers, or plan of `attnkit.masks`, optional
        True = may attend; an array broadcasts to (..., Lq, Lk).
    bias : array_like, optional
        Added to the logits; broadcasts to (..., Lq, Lk). -inf forbids a key as a mask does.
    window : (int or None, int or None), optional
        (left, right): allow i + off - left <= j <= i + off + right; None or a negative side is unbounded.
    alibi_slopes : array_like, optional
        Slopes that broadcast to the leading axes, usually (H,): subtracts slope * abs(i + off - j).
    softcap : float, optional
        c > 0 replaces s by c * tanh(s / c) before bias and masks; None or 0 is off.
    sink_logits : array_like, optional
        Logit of one virtual key without value: (H,) per head, or broadcasting to (..., Lq).
    dropout_mask : array_like of bool, optional
        True = keep; broadcasts to (..., Lq, Lk). Needs `dropout_p`.
    dropout_p : float
        Kept weights are multiplied by 1 / (1 - dropout_p), for the output only.
    q_offset : int, optional
        Position off of query 0, in place of Lk - Lq.
    return_lse : bool
        Also return the log-sum-exp of each row, sink included.
    return_weights : bool
        Also return the whole map, of size Lq x Lk, before dropout.
    stats : str or sequence of str
        Statistics folded into the same pass: row statistics by their names in `attention_row_stats`, "abs_distance", and column
        statistics by their names in `attention_column_stats` (shape (..., Lk)).
    out : ndarray, optional
        Where to put the output: exact shape and dtype. It may overlap the inputs.

    Returns
    -------
    out : ndarray, shape (..., Lq, dv)
        In NumPy's promotion of the input dtypes.
    lse : ndarray, shape (..., Lq)
        If asked for; float64 for float64, else float32.
    weights : ndarray, shape (..., Lq, Lk)
        If asked for.
    stats : dict of ndarray, shape (..., Lq) or (..., Lk)
        If asked for; always last.

    Raises
    ------
    TypeError
        For masked, complex, object or sparse arrays, tensors that require grad, and options of the wrong type.
    ValueError
        For shapes that do not fit; the message names the argument and shows the shapes.
    MemoryError
        When the map was asked for and does not fit.

    See Also
    --------
    attention_row_stats, attention_column_stats : statistics without the output.
    attention_weights : a window of the map.

    Notes
    -----
    s_ij = scale q_i.k_j, softcap, + bias_ij, - slope abs(i + off - j), in this order; with m_i = max_j s_ij,

        lse_i = m_i + ln sum_j exp(s_ij - m_i),    p_ij = exp(s_ij - lse_i),    out_i = sum_j p_ij v_j.

    A row without allowed key gives output 0 and lse -inf. Forbidden keys are skipped, so NaN in them does not matter. +inf logits
    share the row equally; NaN in a query spoils its row only. 2 Lq Lk (d + dv) floating-point operations, fewer under masks:
    only tiles that hold an allowed pair are visited. Results have the same bytes for any number of threads, batch, memory layout
    and instruction set. After Ctrl-C the contents of `out` are unspecified.

    References
    ----------
    Dao et al., FlashAttention, arXiv 2205.14135; Milakov and Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.standard_normal((3, 2, 8, 100, 64), dtype=np.float32)
    >>> out, stats = attnkit.softmax_attention(q, k, v, causal=True, stats=("lse", "entropy"))
    >>> out.shape, stats["entropy"].shape, float(stats["entropy"][0, 0, 0])
    ((2, 8, 100, 64), (2, 8, 100), 0.0)
    """
    if stats.__class__ is str:
        stats = (stats,)
    if v is None:
        raise TypeError("v must be an array, got None")
    problem = Problem(q, k, v, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    if (return_lse is False and return_weights is False and not stats and out is None and sink_logits is None and dropout_mask is None
            and not dropout_p):
        return _typed(problem.attend(None, ())[0], problem)
    return _with_extras(problem, sink_logits, dropout_mask, dropout_p, as_flag("return_lse", return_lse),
                        as_flag("return_weights", return_weights), _check_stats(stats), out)


def _typed(x, problem):
    """bfloat16 results come as their bits."""
    return x if x.dtype.char in "efd" else x.view(problem.dtype)


def _check_stats(stats):
    try:
        names = tuple(stats)
    except TypeError:
        raise TypeError(f"stats must be a name or a sequence of names, got {type(stats).__name__}") from None
    for name in names:
        if name not in ROW_STATISTICS and name not in COLUMN_STATISTICS:
            raise ValueError(f"stats: unknown name {name!r}, choose from {', '.join(ROW_STATISTICS + COLUMN_STATISTICS)}")
    return names


def _with_extras(problem, sink_logits, dropout_mask, dropout_p, return_lse, return_weights, names, out):
    sink = problem.sinks(sink_logits)
    keep, keep_scale = _dropout(dropout_mask, dropout_p)
    batch = problem.leading()
    columns = any(name in COLUMN_STATISTICS for name in names)
    target = back = None
    if out is not None:
        shape = (*batch, problem.lq, problem.v.shape[-1])
        target, back = check_out(out, shape, problem.dtype, (*problem.reads(), sink, keep))
        if (return_weights or columns) and back is None:  # a second pass may run out of memory when the output is there already
            target, back = np.empty(shape, problem.dtype), out
        target = target if target.dtype.char in "efd" else target.view(np.uint16)
    weights = None
    if return_weights:
        weights = new_map((*batch, problem.lq, problem.lk), problem.dtype,
                          "attention_row_stats and attention_column_stats give its statistics without it, attention_weights a window of it")
    # Each name once: the engine fills one array of it.
    wanted = dict.fromkeys(_CORE_NAMES.get(name, name) for name in names if name not in COLUMN_STATISTICS)
    if columns:
        wanted |= dict.fromkeys(COLUMN_RESULTS)
    if return_lse:
        wanted["lse"] = None
    if return_weights:
        wanted |= {"norm_max": None, "norm_inv": None}
    result, *rows = problem.attend(target, tuple(wanted), sink=sink, keep=keep, keep_scale=keep_scale, sink_size=SINK_SIZE)
    rows = dict(zip(wanted, rows))
    if return_weights:
        coded = weights if weights.dtype.char in "efd" else weights.view(np.uint16)
        _core.map_window(problem.q, problem.k, *problem.args, rows["norm_max"], rows["norm_inv"], None, None, None, coded)
    if back is not None:
        np.copyto(back, _typed(result, problem))
    results = [_typed(result, problem) if out is None else out]
    if return_lse:
        results.append(rows["lse"])
    if return_weights:
        results.append(weights)
    if names:
        if columns:
            rows |= problem.column_stats(*(rows[name] for name in COLUMN_RESULTS[:3]))
        results.append({name: rows[_CORE_NAMES.get(name, name)] for name in names})
    return tuple(results) if len(results) > 1 else results[0]


def _dropout(dropout_mask, dropout_p):
    p = as_real("dropout_p", dropout_p)
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout_p must be in [0, 1), got {p}")
    if dropout_mask is None:
        if p:
            raise ValueError("dropout_p needs dropout_mask, a boolean array with True = keep")
        return None, 1.0
    keep = as_array("dropout_mask", dropout_mask)
    if keep.dtype.kind in "iu" and (keep.size == 0 or (keep.min() >= 0 and keep.max() <= 1)):
        keep = keep.astype(bool)
    if keep.dtype != bool:
        raise TypeError(f"dropout_mask must be boolean (True = keep), got dtype {keep.dtype}")
    with standard_arithmetic():
        return keep, 1.0 / (1.0 - p)


def attention_logits(q, k, *, scale=None, causal=False, mask=None, bias=None, window=None, alibi_slopes=None, softcap=None, q_offset=None,
                     out=None):
    """Compute the logits of softmax attention, -inf where a pair is not allowed.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; all options mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys.
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
    out : ndarray, optional
        Where to put the result: exact shape and dtype.

    Returns
    -------
    ndarray, shape (..., Lq, Lk)
        In NumPy's promotion of the input dtypes.

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`.
    MemoryError
        When the map does not fit; the message says its size.

    See Also
    --------
    attention_weights : a window of the normalised map.

    Notes
    -----
    s_ij = scale q_i.k_j, softcap, + bias_ij, - slope abs(i + off - j), then -inf where not allowed. Lq Lk numbers of memory, 2 Lq Lk d
    operations.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> attnkit.attention_logits(np.eye(2), np.eye(2), scale=1.0, causal=True)
    array([[  1., -inf],
           [  0.,   1.]])
    """
    problem = Problem(q, k, None, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    shape = (*problem.leading(), problem.lq, problem.lk)
    back = None
    if out is None:
        out = target = new_map(shape, problem.dtype, "attention_row_stats and attention_column_stats give its statistics without it")
    else:
        target, back = check_out(out, shape, problem.dtype, problem.reads())
    coded = target if target.dtype.char in "efd" else target.view(np.uint16)
    _core.map_window(problem.q, problem.k, *problem.args, None, None, None, None, None, coded)
    if back is not None:
        np.copyto(back, target)
    return out


def attention_weights(q, k, *, rows=None, cols=None, heads=None, lse=None, scale=None, causal=False, mask=None, bias=None, window=None,
                      alibi_slopes=None, softcap=None, sink_logits=None, q_offset=None, out=None):
    """Compute an exact window of the attention map.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; options not described here mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys; all of them, for the normaliser.
    rows, cols, heads : int, slice or 1-D array_like of int or bool, optional
        Which queries (axis -2), keys and heads (axis -3) to show; None = all. An integer keeps its axis with one entry.
    lse : array_like, optional
        Row normaliser to use instead of the one over `k`; broadcasts to (..., Lq). Saves the pass over all keys.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query.
    mask : array_like of bool or plan of `attnkit.masks`, optional
        True = may attend; over the whole map.
    bias : array_like, optional
        Added to the logits; over the whole map.
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    alibi_slopes : array_like, optional
        Subtracts slope * distance.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    sink_logits : array_like, optional
        Virtual key; the weights then sum to less than 1.
    q_offset : int, optional
        Position of query 0.
    out : ndarray, optional
        Where to put the window: exact shape and dtype.

    Returns
    -------
    ndarray, shape (..., n_heads, n_rows, n_cols)
        p_ij = exp(s_ij - lse_i), 0 where not allowed and in rows without key; NumPy's promotion of the input dtypes.

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`.
    MemoryError
        When the window does not fit; the message says its size.

    See Also
    --------
    attention_row_stats, attention_column_stats : what is read off a map most often, without it.

    Notes
    -----
    Memory is that of the window plus O(Lq). The normaliser of the chosen heads takes one pass over the keys unless `lse` is given. A
    window has the bytes of the same part of the whole map.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> rng = np.random.default_rng(0)
    >>> q, k = rng.standard_normal((2, 4, 1000, 32), dtype=np.float32)
    >>> attnkit.attention_weights(q, k, heads=2, rows=[0, 999], cols=slice(0, 5), causal=True).shape
    (1, 2, 5)
    """
    problem = Problem(q, k, None, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    batch = problem.leading()
    row_list = _positions("rows", rows, problem.lq)
    col_list = _positions("cols", cols, problem.lk)
    head_list = None
    if heads is not None:
        if not batch:
            raise ValueError(f"heads needs a head axis (-3), but q has shape {problem.q.shape}")
        head_list = _positions("heads", heads, batch[-1])
    n_rows = problem.lq if row_list is None else len(row_list)
    n_cols = problem.lk if col_list is None else len(col_list)
    shape = (*batch[:-1], batch[-1] if head_list is None else len(head_list), n_rows, n_cols) if batch else (n_rows, n_cols)
    sink = problem.sinks(sink_logits)
    lse = None if lse is None else as_float64("lse", lse)
    back = None
    if out is None:
        out = target = new_map(shape, problem.dtype, "ask for fewer rows, cols or heads")
    else:
        target, back = check_out(out, shape, problem.dtype, (*problem.reads(), sink, lse))
        if head_list is not None and back is None:  # a later head may run out of memory when an earlier one is there already
            target, back = np.empty(shape, problem.dtype), out
    coded = target if target.dtype.char in "efd" else target.view(np.uint16)
    ordered = to = None
    if col_list is not None:
        to = np.argsort(col_list, kind="stable")
        ordered = np.ascontiguousarray(col_list[to])
    if head_list is None:
        _window_of(problem, problem.norms(sink, lse), row_list, ordered, to, coded)
    else:
        for i, head in enumerate(head_list):
            part = _one_head(problem, int(head))
            part_lse = None if lse is None else _head_of("lse", lse, batch, 1, int(head))
            part_sink = None if sink is None else _head_of("sink_logits", sink, batch, 1, int(head))
            _window_of(part, part.norms(part_sink, part_lse), row_list, ordered, to, coded[..., i : i + 1, :, :])
    if back is not None:
        np.copyto(back, target)
    return out


def _window_of(problem, norms, rows, cols, col_to, out):
    _core.map_window(problem.q, problem.k, *problem.args, *norms, rows, cols, col_to, out)


def _head_of(name, x, batch, n_tail, head):
    """The part of an operand (..., H, tail) that belongs to one head, its axis kept; operands without heads stay whole."""
    axis = x.ndim - n_tail - 1
    if axis < 0 or x.shape[axis] == 1:
        return x
    if x.shape[axis] != batch[-1]:
        raise ValueError(f"{name} of shape {x.shape} does not broadcast to the leading axes {batch}")
    return x[(slice(None),) * axis + (slice(head, head + 1),)]


def _one_head(problem, head):
    """The same problem for one query head: views, no copies."""
    batch = problem.leading()
    q, k, _ = problem.inputs
    scale, offset, steps, nodes = problem.args
    if k.ndim > 2 and k.shape[-3] > 1:
        k_head = head // (batch[-1] // k.shape[-3])
        k = k[..., k_head : k_head + 1, :, :]
    part = Problem(_head_of("q", q, batch, 2, head), k, None, scale, False, None, None, None, None, None, offset)
    if steps is not None:
        tails = {"bias": ("bias", 2), "alibi": ("alibi_slopes", 0)}
        steps = tuple((word, _head_of(tails[word][0], x, batch, tails[word][1], head) if word in tails else x) for word, x in steps)
    if isinstance(nodes, list):
        nodes = [(node[0], _head_of("mask", node[1], batch, 2, head), *node[2:]) if node[0] in ("blocks", "dense") else node for node in nodes]
    part.args = (scale, offset, steps, nodes)
    return part


def _positions(name, index, length):
    """Index as an int64 vector of positions, or None for all."""
    if index is None:
        return None
    if isinstance(index, slice):
        return np.arange(*index.indices(length), dtype=np.int64)
    index = np.asarray(index)
    if index.dtype == bool:
        if index.shape != (length,):
            raise ValueError(f"boolean {name} needs shape ({length},), got {index.shape}")
        return np.flatnonzero(index).astype(np.int64)
    if index.size == 0:
        index = index.astype(np.int64)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {index.dtype}")
    if index.ndim > 1:
        raise ValueError(f"{name} must be an integer, a slice or a vector of indices, got shape {index.shape}")
    index = np.atleast_1d(index).astype(np.int64)
    bad = (index < -length) | (index >= length)
    if bad.any():
        raise ValueError(f"{name} has index {int(index[bad][0])}, outside an axis of length {length}")
    return np.where(index < 0, index + length, index)
