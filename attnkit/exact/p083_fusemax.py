"""FuseMax (arXiv 2406.10491): softmax attention as cascades of one, two or three passes, and their costs."""

import numpy as np

from .._arguments import as_flag, as_int, as_reals, as_scale, float_types
from .._engine import check_out
from .states import shifted_exp, weighted_rows


def attention_cascade(q, k, v, *, passes=1, block=64, defer_division=True, scale=None, out=None):
    """Softmax attention as a cascade of reductions that traverses each row of scores `passes` times.

    Parameters
    ----------
    q : (Lq, d) array_like
    k : (Lk, d) array_like
    v : (Lk, dv) array_like
    passes : {1, 2, 3}, optional
        Traversals of a row: running statistics, block-local maxima, or the global maximum first.
    block : int, optional
        Keys per block (1 and 2 passes); the last block may be short.
    defer_division : bool, optional
        Divide the output instead of every weight; one pass always does.
    scale : float, optional
        Factor of the logits; None = 1/sqrt(d).
    out : ndarray, optional
        Where to put the output: exact shape and dtype. It may overlap the inputs.

    Returns
    -------
    (Lq, dv) ndarray
        float32 and float64 in their own precision; half types computed in float32; integers in float64.

    Raises
    ------
    TypeError, ValueError
        For wrong types or shapes; the message names the argument.

    See Also
    --------
    cascade_counts : operations and live storage of each cascade.

    Notes
    -----
    - 3 passes: M = max s; N = exp(s - M), D = sum N; A = N / D, out = A V, or out = N V / D when deferred
      (which makes the third pass unnecessary).
    - 2 passes: per block b, lm_b = max s, n = exp(s - lm_b), ld_b = sum n; then M = max lm_b,
      c_b = exp(lm_b - M), D = sum c_b ld_b and A = n (c_b / D), or out = sum_b c_b (n V_b) / D.
    - 1 pass: per block RM' = max(RM, max s), e = exp(s - RM'), c = exp(RM - RM'), RD' = c RD + sum e,
      RNV' = c RNV + e V_b; out = RNV / RD.

    All cost O(Lq Lk (d + dv)); the live scores per row are Lk, or `block` in one pass.  The one-pass form is
    the paper's, three passes the usual library form; the two-pass form is derived here.

    References
    ----------
    Nayak et al., FuseMax: Leveraging Extended Einsums to Optimize Attention Accelerator Design,
    arXiv:2406.10491.

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit.exact.p083_fusemax import attention_cascade
    >>> q, k, v = np.ones((1, 1)), np.log([[1.0], [3.0]]), np.array([[0.0], [4.0]])
    >>> [attention_cascade(q, k, v, passes=n, block=1).round(6).item() for n in (1, 2, 3)]
    [3.0, 3.0, 3.0]
    """
    q, k, v = as_reals("q", q, ndim=2), as_reals("k", k, ndim=2), as_reals("v", v, ndim=2)
    if q.shape[1] != k.shape[1]:
        raise ValueError(f"q and k must have the same features (axis -1), got q {q.shape} and k {k.shape}")
    if k.shape[0] != v.shape[0]:
        raise ValueError(f"k and v must have the same length (axis -2), got k {k.shape} and v {v.shape}")
    passes, block = _passes(passes), as_int("block", block, minimum=1)
    defer_division = as_flag("defer_division", defer_division)
    scale = as_scale(scale, q.shape[1])
    compute, stored = float_types(q=q, k=k, v=v)
    q, k, v = (x.astype(compute, copy=False) for x in (q, k, v))
    if out is not None:
        check_out(out, (q.shape[0], v.shape[1]), stored, ())
    with np.errstate(all="ignore"):
        scores = scale * (q @ k.T)
        blocks = [slice(j, j + block) for j in range(0, k.shape[0], block)]
        if passes == 3:
            found = _three_passes(scores, v, defer_division)
        elif passes == 2:
            found = _two_passes(scores, v, blocks, defer_division)
        else:
            found = _one_pass(scores, v, blocks)
        found = found.astype(stored, copy=False)
    if out is None:
        return found
    np.copyto(out, found)
    return out


def cascade_counts(Lq, Lk, d, dv, *, passes=1, block=64, defer_division=True):
    """Count the operations of a cascade for one head without a mask.

    Parameters
    ----------
    Lq, Lk, d, dv : int
        Queries, keys, features of q and k, features of v.
    passes, block, defer_division : optional
        As in `attention_cascade`.

    Returns
    -------
    dict of int
        mac, max, exp, add, mul, div; row_footprint, the scores per row that must stay live; passes, which is
        2 for the three-pass cascade with deferred division.

    Raises
    ------
    TypeError, ValueError
        For counts that are not integers or out of range.

    Notes
    -----
    With B = ceil(Lk / block): mac = Lq Lk (d + dv) and max = exp = add = Lq Lk, plus

    - 3 passes: div = Lq dv if deferred else Lq Lk;
    - 2 passes: exp and max += Lq B, mul = Lq B + (Lq B dv if deferred else Lq Lk),
      div = Lq dv if deferred else Lq B;
    - 1 pass: exp and max += Lq B, mul = Lq B + Lq B dv, div = Lq dv, row_footprint = block.

    The formulas are derived here from the cascades.

    References
    ----------
    arXiv:2406.10491.

    Examples
    --------
    >>> from attnkit.exact.p083_fusemax import cascade_counts
    >>> counts = cascade_counts(64, 4096, 64, 64, block=256)
    >>> counts["exp"], counts["div"], counts["row_footprint"]
    (263168, 4096, 256)
    """
    lq, lk = as_int("Lq", Lq, minimum=0), as_int("Lk", Lk, minimum=0)
    d, dv = as_int("d", d, minimum=0), as_int("dv", dv, minimum=0)
    passes, block = _passes(passes), as_int("block", block, minimum=1)
    deferred = as_flag("defer_division", defer_division) or passes == 1
    scores, factors = lq * lk, lq * -(-lk // block)
    counts = {"mac": scores * (d + dv), "max": scores, "exp": scores, "add": scores, "mul": 0,
              "div": lq * dv if deferred else scores, "row_footprint": block if passes == 1 else lk,
              "passes": 2 if passes == 3 and deferred else passes}
    if passes < 3:
        counts["exp"] += factors
        counts["max"] += factors
        counts["mul"] = factors + (factors * dv if deferred else scores)
        if not deferred:
            counts["div"] = factors
    return counts


def _passes(passes):
    passes = as_int("passes", passes)
    if passes not in (1, 2, 3):
        raise ValueError(f"passes must be 1, 2 or 3, got {passes}")
    return passes


def _numerators(scores, top):
    """exp(s - top) row by row, in the limit for infinite scores."""
    return shifted_exp(scores, top[:, None])[0]


def _quotient(out, total):
    """out / total per row, 0 for a row without keys."""
    return out / np.where(total == 0, 1, total)[:, None]


def _three_passes(scores, v, defer_division):
    top = scores.max(axis=1, initial=-np.inf)
    n = _numerators(scores, top)
    total = n.sum(axis=1)
    if defer_division:
        return _quotient(weighted_rows(n, scores != -np.inf, v), total)
    return weighted_rows(_quotient(n, total), scores != -np.inf, v)


def _two_passes(scores, v, blocks, defer_division):
    tops = [scores[:, b].max(axis=1) for b in blocks]
    parts = [_numerators(scores[:, b], top) for b, top in zip(blocks, tops)]
    top = np.full(scores.shape[0], -np.inf, scores.dtype)
    for block_top in tops:
        top = np.maximum(top, block_top)
    factors = [shifted_exp(block_top, top)[0] for block_top in tops]
    total = np.zeros_like(top)
    for c, n in zip(factors, parts):
        total += c * n.sum(axis=1)
    out = np.zeros((scores.shape[0], v.shape[1]), scores.dtype)
    for b, c, n in zip(blocks, factors, parts):
        use = scores[:, b] != -np.inf
        if defer_division:
            out += c[:, None] * weighted_rows(n, use, v[b])
        else:
            out += weighted_rows(n * _quotient(c[:, None], total), use, v[b])
    return _quotient(out, total) if defer_division else out


def _one_pass(scores, v, blocks):
    running_max = np.full(scores.shape[0], -np.inf, scores.dtype)
    denominator = np.zeros_like(running_max)
    numerator = np.zeros((scores.shape[0], v.shape[1]), scores.dtype)
    for b in blocks:
        new_max = np.maximum(running_max, scores[:, b].max(axis=1))
        e = _numerators(scores[:, b], new_max)
        c, _ = shifted_exp(running_max, new_max)
        denominator = c * denominator + e.sum(axis=1)
        numerator = c[:, None] * numerator + weighted_rows(e, scores[:, b] != -np.inf, v[b])
        running_max = new_max
    return _quotient(numerator, denominator)
