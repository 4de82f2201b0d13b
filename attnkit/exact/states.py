"""Row states: everything a row of attention accumulates, as a value that can be kept, sent and merged.

A state is a dict of NumPy arrays with one leading axis of n rows:

====== ========= =====================================================================
key    shape     meaning, over the keys seen so far
====== ========= =====================================================================
m      (n,)      largest logit (-inf: no key yet)
am     (n,)      index of that key, the lowest among equals (-1: none); int64
l      (n,)      sum of e^(s - m)
l1     (n,)      l without its one largest term, so that l = 1 + l1 keeps small parts
t      (n,)      sum of e^(s - m) (s - m)
r2     (n,)      sum of e^(2 (s - m))
d1, d2 (n,)      sums of e^(s - m) delta and delta^2, delta = position of query - key
g      (n, G)    sums of e^(s - m) per group of keys
acc    (n, dv)   sum of e^(s - m) v
tv, ti (n, K)    the K largest logits, descending, and their keys (-inf, -1: none)
====== ========= =====================================================================

The merge is associative and commutative with the empty state as identity, so one function serves tiles,
threads, split-KV decode, memory-mapped keys and workers alike.
"""

import numpy as np

from .._arguments import as_int, as_integers, as_reals, float_types
from .._engine import check_out

_SCALARS = ("l", "l1", "t", "r2", "d1", "d2")
_MATRICES = ("g", "acc", "tv", "ti")
_KEYS = ("m", "am", *_SCALARS, *_MATRICES)
_INDICES = ("am", "ti", "argmax", "topk_index")


def row_state_init(n_rows, *, dv=0, n_groups=0, topk=0):
    """Make the state of rows that have seen no key yet.

    Parameters
    ----------
    n_rows : int
        Number of rows n (queries).
    dv : int, optional
        Features of the values to accumulate; 0 keeps statistics only.
    n_groups : int, optional
        Number of groups of keys whose mass is accumulated.
    topk : int, optional
        How many of the largest logits are kept.

    Returns
    -------
    dict of ndarray
        m = -inf, am = ti = -1, tv = -inf and zeros elsewhere; float64, indices int64.

    Raises
    ------
    TypeError, ValueError
        For a count that is not a non-negative integer.

    See Also
    --------
    row_state_update, row_state_merge, row_state_finish

    Notes
    -----
    The empty state is the identity of `row_state_merge`.  Memory is O(n (dv + G + K)).

    Examples
    --------
    >>> from attnkit.exact.states import row_state_init
    >>> state = row_state_init(2, dv=3)
    >>> state["m"], state["acc"].shape
    (array([-inf, -inf]), (2, 3))
    """
    n = as_int("n_rows", n_rows, minimum=0)
    dv = as_int("dv", dv, minimum=0)
    n_groups = as_int("n_groups", n_groups, minimum=0)
    topk = as_int("topk", topk, minimum=0)
    state = {key: np.zeros(n) for key in _SCALARS}
    state["m"] = np.full(n, -np.inf)
    state["am"] = np.full(n, -1, np.int64)
    state["g"] = np.zeros((n, n_groups))
    state["acc"] = np.zeros((n, dv))
    state["tv"] = np.full((n, topk), -np.inf)
    state["ti"] = np.full((n, topk), -1, np.int64)
    return state


@np.errstate(all="ignore")
def row_state_update(state, s_block, j0, pos, *, v_block=None, groups_block=None):
    """Absorb a block of logits into a state.

    Parameters
    ----------
    state : dict of ndarray
        State of R rows; it is not modified.
    s_block : (R, C) array_like
        Logits of keys j0 .. j0+C-1; -inf means "not allowed" and the key is skipped.
    j0 : int
        Index of the first key of the block.
    pos : (R,) array_like of int
        Position of each row's query, i + off; a scalar serves all rows.
    v_block : (C, dv) array_like, optional
        Values of the block; needed exactly when the state has dv > 0.
    groups_block : (C,) array_like of int, optional
        Group of each key; needed exactly when the state has groups.  A number outside 0 .. G-1 belongs
        to no group.

    Returns
    -------
    dict of ndarray
        The new state.

    Raises
    ------
    TypeError, ValueError
        For wrong types, shapes that do not fit the state, or a missing or superfluous block.

    See Also
    --------
    row_state_merge

    Notes
    -----
    The block's own state, taken with its own maximum, is merged into `state`: O(R C (dv + G)) work.  A NaN
    logit spoils its row (statistics NaN, indices -1) and no other; +inf logits share the row's mass.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit.exact.states import row_state_finish, row_state_init, row_state_update
    >>> logits = np.log([[1.0, 2.0, 1.0]])
    >>> state = row_state_update(row_state_init(1), logits[:, :2], 0, [2])
    >>> state = row_state_update(state, logits[:, 2:], 2, [2])
    >>> row_state_finish(state)["max_weight"]
    array([0.5])
    """
    state = _checked("state", state)
    n, topk = state["tv"].shape
    dv, n_groups = state["acc"].shape[1], state["g"].shape[1]
    s = as_reals("s_block", s_block, ndim=2).astype(np.float64, copy=False)
    n_keys = s.shape[1]
    if s.shape[0] != n:
        raise ValueError(f"s_block must have shape ({n}, C) for a state of {n} rows, got {s.shape}")
    j0 = as_int("j0", j0)
    pos = as_integers("pos", pos)
    if pos.shape not in ((), (n,)):
        raise ValueError(f"pos must have shape ({n},), got {pos.shape}")
    _same_presence("v_block", v_block, "dv", dv)
    _same_presence("groups_block", groups_block, "n_groups", n_groups)

    use = s != -np.inf
    m = s.max(axis=1, initial=-np.inf)
    e, fall = shifted_exp(s, m[:, None])
    best = s.argmax(axis=1) if n_keys else np.zeros(n, np.int64)
    delta = pos[..., None] - (j0 + np.arange(n_keys))
    rest = e.copy()
    if n_keys:
        np.put_along_axis(rest, best[:, None], 0.0, axis=1)
    block = row_state_init(n, dv=dv, n_groups=n_groups, topk=topk)
    block["m"] = m
    block["am"] = np.where(use.any(axis=1), j0 + best, -1)
    block["l"], block["l1"] = e.sum(axis=1), rest.sum(axis=1)
    block["t"], block["r2"] = (e * fall).sum(axis=1), (e * e).sum(axis=1)
    block["d1"], block["d2"] = (e * delta).sum(axis=1), (e * delta.astype(np.float64) ** 2).sum(axis=1)
    if n_groups:
        groups = as_integers("groups_block", groups_block)
        if groups.shape != (n_keys,):
            raise ValueError(f"groups_block must have shape ({n_keys},), got {groups.shape}")
        block["g"] = e @ (groups[:, None] == np.arange(n_groups)).astype(np.float64)
    if dv:
        v = as_reals("v_block", v_block, ndim=2).astype(np.float64, copy=False)
        if v.shape != (n_keys, dv):
            raise ValueError(f"v_block must have shape ({n_keys}, {dv}), got {v.shape}")
        block["acc"] = weighted_rows(e, use, v)
    if topk and n_keys:
        order = np.argsort(-s, axis=1, kind="stable")[:, :topk]
        top = np.take_along_axis(s, order, axis=1)
        block["tv"][:, : top.shape[1]] = top
        block["ti"][:, : top.shape[1]] = np.where(top == -np.inf, -1, j0 + order)
    return row_state_merge(state, _spoiled(block, np.isnan(m)))


@np.errstate(all="ignore")
def row_state_merge(x, y):
    """Merge the states of two disjoint sets of keys.

    Parameters
    ----------
    x, y : dict of ndarray
        States of the same rows with the same shapes; neither is modified.

    Returns
    -------
    dict of ndarray
        State of the union of the keys.

    Raises
    ------
    TypeError, ValueError
        When an argument is not a state, or the shapes differ.

    See Also
    --------
    merge_partials : merges finished outputs instead of raw states.

    Notes
    -----
    With M = max(m_x, m_y), a = e^(m - M) and D = m - M per side: l, d1, d2, g and acc are scaled by a, r2 by
    a^2, t becomes a (t + D l), and all sums add up.  am and l1 come from the side that holds the maximum; on
    equality from the side with the lower index, its l1 plus the other's l.  The K best of the 2K candidates
    by (-logit, index) remain.  The operation is commutative to the bit and associative up to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit.exact.states import row_state_finish, row_state_init, row_state_merge, row_state_update
    >>> empty = row_state_init(1)
    >>> left = row_state_update(empty, [[0.0, 0.0]], 0, [3])
    >>> right = row_state_update(empty, [[0.0, 0.0]], 2, [3])
    >>> float(np.exp(row_state_finish(row_state_merge(left, right))["entropy"][0]))
    4.0
    """
    x, y = _checked("x", x), _checked("y", y)
    for key in _MATRICES + ("m",):
        if x[key].shape != y[key].shape:
            raise ValueError(f"x and y must have the same shapes: {key} is {x[key].shape} in x and "
                             f"{y[key].shape} in y")
    m = np.maximum(x["m"], y["m"])
    x_first = (x["m"] > y["m"]) | ((x["m"] == y["m"]) & (x["am"] <= y["am"]))
    xs, ys = _rescaled(x, m), _rescaled(y, m)
    z = {key: xs[key] + ys[key] for key in _SCALARS + ("g", "acc")}
    z["m"] = m
    z["am"] = np.where(x_first, x["am"], y["am"])
    z["l1"] = np.where(x_first, xs["l1"] + ys["l"], ys["l1"] + xs["l"])
    topk = x["tv"].shape[1]
    tv, ti = (np.concatenate([x[key], y[key]], axis=1) for key in ("tv", "ti"))
    order = np.lexsort((ti, -tv), axis=1)[:, :topk]
    z["tv"], z["ti"] = (np.take_along_axis(a, order, axis=1) for a in (tv, ti))
    return _spoiled(z, np.isnan(m))


@np.errstate(all="ignore")
def row_state_finish(st, *, sink_logits=None):
    """Turn a state into the statistics of its rows.

    Parameters
    ----------
    st : dict of ndarray
        State of n rows; it is not modified.
    sink_logits : float or (n,) array_like, optional
        Logit of one virtual key with value zero.  It joins the normaliser, the entropy and the purity;
        argmax, top-k and max_weight keep to real keys, and mean_logit counts real keys only.

    Returns
    -------
    dict of ndarray
        lse, entropy (nats), purity, max_weight, argmax, distance, distance_sq, mean_logit, each (n,);
        group_mass (n, G), out (n, dv), topk_index and topk_weight (n, K).

    Raises
    ------
    TypeError, ValueError
        When `st` is not a state or `sink_logits` does not fit its rows.

    Notes
    -----
    entropy = log1p(l1) - t / l, which does not cancel on peaked rows.  Rows without a key: lse -inf (or the
    sink logit), indices -1, everything else 0.

    Examples
    --------
    >>> from attnkit.exact.states import row_state_finish, row_state_init, row_state_update
    >>> state = row_state_update(row_state_init(1, dv=1), [[0.0, 0.0]], 0, [1], v_block=[[2.0], [4.0]])
    >>> row_state_finish(state)["out"]
    array([[3.]])
    >>> row_state_finish(state, sink_logits=0.0)["out"]
    array([[2.]])
    """
    st = _checked("st", st)
    n = st["m"].shape[0]
    sink = np.full(n, -np.inf)
    if sink_logits is not None:
        sink = as_reals("sink_logits", sink_logits).astype(np.float64)
        if sink.shape not in ((), (1,), (n,)):
            raise ValueError(f"sink_logits must be a number or have shape ({n},), got {sink.shape}")
        sink = np.broadcast_to(sink, (n,))
    m = np.maximum(st["m"], sink)
    keys = _rescaled(st, m)
    e_keys, _ = shifted_exp(st["m"], m)
    e_sink, sink_fall = shifted_exp(sink, m)
    some = m != -np.inf
    with np.errstate(all="ignore"):
        l1 = np.where(st["m"] == m, keys["l1"] + e_sink, keys["l"])
        total = np.where(some, 1.0 + l1, 1.0)
        columns = total[:, None]
        top, _ = shifted_exp(st["tv"], m[:, None])
        own_mean = st["m"] + st["t"] / np.where(st["l"] > 0, st["l"], 1.0)
        result = {
            "lse": m + np.where(some, np.log1p(l1), 0.0),
            "entropy": np.where(some, np.log1p(l1) - (keys["t"] + e_sink * sink_fall) / total, 0.0),
            "purity": (keys["r2"] + e_sink**2) / total**2,
            "max_weight": e_keys / total,
            "argmax": st["am"].copy(),
            "distance": keys["d1"] / total,
            "distance_sq": keys["d2"] / total,
            "mean_logit": np.where(e_keys > 0, keys["l"] / total * own_mean, 0.0),
            "group_mass": keys["g"] / columns,
            "out": keys["acc"] / columns,
            "topk_index": st["ti"].copy(),
            "topk_weight": top / columns,
        }
    return _spoiled(result, np.isnan(m))


def merge_partials(outs, lses, *, axis=0, return_lse=True, out=None):
    """Merge attention outputs over disjoint sets of keys.

    Parameters
    ----------
    outs : (n, ..., Lq, dv) array_like or sequence of arrays
        Normalised partial outputs.
    lses : (n, ..., Lq) array_like or sequence of arrays
        Their log-sum-exp; -inf marks a row without keys, whose output is skipped whatever it holds.
    axis : int, optional
        Axis of `lses`, and the same axis of `outs`, that counts the parts.  Negative values count from the
        end of `lses`.
    return_lse : bool, optional
        Whether the merged log-sum-exp is returned too.
    out : ndarray, optional
        Where to put the output: exact shape and dtype. It may overlap the inputs.

    Returns
    -------
    out : (..., Lq, dv) ndarray
        float32 for float32 input, half for half `outs` (computed in float32), else float64.
    lse : (..., Lq) ndarray
        Only with ``return_lse=True``; float32 for half `outs`.

    Raises
    ------
    TypeError, ValueError
        For types that are not real numbers, or shapes that do not belong together.

    See Also
    --------
    row_state_merge : merges raw states, which loses nothing.

    Notes
    -----
    M = max_n lse_n, w_n = exp(lse_n - M), out = sum w_n out_n / sum w_n, lse = M + ln sum w_n.  The operation
    is associative up to rounding with identity (0, -inf); a row that is -inf in every part gives 0, -inf.
    Parts with lse = +inf share a row equally.  A sink logit must be in exactly one part.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit.exact.states import merge_partials
    >>> out, lse = merge_partials([[[1.0]], [[4.0]]], [[np.log(2.0)], [0.0]])
    >>> out.round(6), lse.round(6)
    (array([[2.]]), array([1.098612]))
    """
    outs, lses = _stacked("outs", outs), _stacked("lses", lses)
    axis = as_int("axis", axis)
    if outs.ndim < 2 or outs.shape[:-1] != lses.shape:
        raise ValueError(f"outs must have the shape of lses and one more axis at the end, got outs {outs.shape} "
                         f"and lses {lses.shape}")
    if not -lses.ndim <= axis < lses.ndim:
        raise ValueError(f"axis {axis} is out of bounds for lses of shape {lses.shape}")
    compute, _ = float_types(outs=outs, lses=lses)
    stored = outs.dtype if outs.dtype.name in ("float16", "bfloat16") else compute
    outs = np.moveaxis(outs, axis % lses.ndim, 0)
    lses = np.moveaxis(lses, axis % lses.ndim, 0).astype(compute, copy=False)
    if out is not None:
        check_out(out, outs.shape[1:], stored, ())
    top = lses.max(axis=0, initial=-np.inf)
    total, found = np.zeros(top.shape, compute), np.zeros(outs.shape[1:], compute)
    with np.errstate(all="ignore"):
        for part, lse in zip(outs, lses):
            w, _ = shifted_exp(lse, top)
            total += w
            found += np.where((lse == -np.inf)[..., None], 0, w[..., None] * part.astype(compute, copy=False))
        filled = top != -np.inf
        found /= np.where(filled, total, 1)[..., None]
        merged = np.where(filled, top + np.log(total), top).astype(compute, copy=False)
        found = found.astype(stored, copy=False)
    if out is None:
        out = found
    else:
        np.copyto(out, found)
    return (out, merged) if return_lse else out


def shifted_exp(s, m):
    """e^(s - m) and s - m for s <= m, in the limit where either is infinite.

    s = m gives 1 and 0 also for +inf; s = -inf gives 0 and 0; a fall that leaves e^ no digits counts as 0 in
    the second result, so that their product never is 0 * inf.
    """
    with np.errstate(all="ignore"):
        fall = np.where(s == m, 0, s - m)
        e = np.where(s == -np.inf, 0, np.exp(fall))
    return e, np.where(e == 0, 0, fall)


def weighted_rows(e, use, v):
    """e @ v over the pairs with `use` True: what a skipped row of `v` holds does not matter."""
    finite = np.isfinite(v)
    if finite.all():
        return e @ v
    with np.errstate(all="ignore"):
        out = e @ np.where(finite, v, 0)
        for j in np.flatnonzero(~finite.all(axis=1)):
            special = np.where(finite[j], 0, v[j])
            out += np.where(use[:, j, None], e[:, j, None] * special, 0)
    return out


def _rescaled(st, m):
    """The sums of a state with reference maximum m >= its own."""
    with np.errstate(all="ignore"):
        a, shift = shifted_exp(st["m"], m)
        sums = {key: a * st[key] for key in ("l", "l1", "d1", "d2")}
        sums["t"] = a * (st["t"] + shift * st["l"])
        sums["r2"] = a * a * st["r2"]
        sums["g"], sums["acc"] = a[:, None] * st["g"], a[:, None] * st["acc"]
    return sums


def _spoiled(arrays, rows):
    """The dict with NaN (index -1) in the given rows; its arrays are fresh, so they are written in place."""
    if rows.any():
        for key, value in arrays.items():
            value[rows] = -1 if key in _INDICES else np.nan
    return arrays


def _checked(name, st):
    """`st` as float64 and int64 arrays whose shapes belong together."""
    if not isinstance(st, dict):
        raise TypeError(f"{name} must be a row state, a dict as row_state_init makes it, got {type(st).__name__}")
    missing = [key for key in _KEYS if key not in st]
    if missing:
        raise ValueError(f"{name} is not a row state: it lacks {', '.join(missing)}")
    st = {key: np.asarray(st[key], dtype=np.int64 if key in _INDICES else np.float64) for key in _KEYS}
    n = st["m"].shape
    for key in _KEYS:
        if st[key].ndim != (2 if key in _MATRICES else 1) or st[key].shape[:1] != n:
            raise ValueError(f"{name}: {key} has shape {st[key].shape}, but m has shape {n}")
    if st["tv"].shape != st["ti"].shape:
        raise ValueError(f"{name}: tv has shape {st['tv'].shape}, but ti has shape {st['ti'].shape}")
    return st


def _same_presence(name, block, size_name, size):
    """A block must come exactly when the state has room for it; anything else loses data silently."""
    if (block is None) != (size == 0):
        raise ValueError(f"{name} must be given exactly when the state has {size_name} > 0; here {size_name} = {size}")


def _stacked(name, parts):
    """An array, or a sequence of arrays as one array with a new first axis."""
    if not isinstance(parts, (list, tuple)):
        return as_reals(name, parts)
    parts = [as_reals(name, part) for part in parts]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"{name} must have parts of one shape, got {', '.join(str(p.shape) for p in parts)}")
    if len({part.dtype for part in parts}) > 1:
        compute, _ = float_types(**{f"{name}[{i}]": part for i, part in enumerate(parts)})
        parts = [part.astype(compute) for part in parts]
    return np.stack(parts) if parts else np.zeros(0)
