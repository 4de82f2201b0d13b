"""What all twins share: inputs as float64, the position rules, the allowed pairs.

Everything here is written from the definitions, on the full (Lq, Lk) map, one array operation per line of
mathematics.  Nothing is shared with the compiled engine, so that the two can be compared.
"""

import operator

import numpy as np


def plain(name, x):
    """`x` as an ndarray; a MaskedArray, whose mask would be lost, is a TypeError."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a MaskedArray; pass a plain array and the mask as mask=")
    return np.asarray(x)


def refuse_mixed_halves(**arrays):
    """float16 together with bfloat16 has no common type to give back: TypeError."""
    found = {name: np.asarray(x).dtype.name for name, x in arrays.items()}
    if {"float16", "bfloat16"} <= set(found.values()):
        raise TypeError("float16 and bfloat16 do not mix: " + ", ".join(f"{n} {t}" for n, t in found.items()))


def as_float64(name, x, *, min_ndim=0):
    """Array `x` as float64; TypeError for anything that is not real numbers."""
    x = plain(name, x)
    if x.dtype.kind not in "biuf" and x.dtype.name != "bfloat16":
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.ndim < min_ndim:
        raise ValueError(f"{name} needs at least {min_ndim} axes, got shape {x.shape}")
    return x.astype(np.float64)


def as_real(name, x):
    """A finite Python float; bool, strings and arrays with axes are refused."""
    if isinstance(x, (bool, np.bool_)) or not isinstance(x, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a real number, got {type(x).__name__}")
    if not np.isfinite(x):
        raise ValueError(f"{name} must be finite, got {x}")
    return float(x)


def as_int(name, x, *, minimum=None):
    """A Python int; a float or bool is a TypeError, a value below `minimum` a ValueError."""
    if isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got bool")
    try:
        x = operator.index(x)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(x).__name__}") from None
    if minimum is not None and x < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {x}")
    return x


def as_flag(name, x):
    """A Python bool; anything that is not a bool is a TypeError."""
    if not isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(x).__name__}")
    return bool(x)


def as_int_array(name, x):
    """Integer array as int64; a float array is a TypeError (an empty list counts as integers)."""
    x = plain(name, x)
    if x.size == 0 and x.dtype.kind == "f":
        x = x.astype(np.int64)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {x.dtype}")
    return x.astype(np.int64)


def as_bool_array(name, x):
    """Boolean array; 0/1 integers are accepted, floats are a TypeError that names bias=."""
    x = plain(name, x)
    if x.dtype.kind in "iu":
        if not np.isin(x, (0, 1)).all():
            raise ValueError(f"{name} of integers must hold only 0 and 1")
        x = x.astype(bool)
    if x.dtype.kind != "b":
        raise TypeError(
            f"{name} must be boolean (True = may attend), got dtype {x.dtype}; "
            "additive values go into bias="
        )
    return x


def broadcast(name, x, shape):
    """`x` broadcast to exactly `shape`; ValueError with both shapes otherwise."""
    try:
        return np.broadcast_to(x, shape)
    except ValueError:
        raise ValueError(f"{name} of shape {np.shape(x)} does not broadcast to {shape}") from None


def grouped_heads(name, x, n_heads):
    """Repeat the heads (axis -3) of `x` so that each serves n_heads / its number of heads query heads."""
    if x.ndim < 3 or n_heads is None or x.shape[-3] in (1, n_heads) or n_heads == 1:
        return x
    h = x.shape[-3]
    if h == 0 or n_heads % h:
        raise ValueError(f"{name} has {h} heads (axis -3), which does not divide the {n_heads} heads of q")
    return np.repeat(x, n_heads // h, axis=-3)


def check_qk(q, k, v=None):
    """q, k[, v] as float64 with equal leading axes (grouped heads repeated, the rest broadcast)."""
    refuse_mixed_halves(**({"q": q, "k": k} if v is None else {"q": q, "k": k, "v": v}))
    q = as_float64("q", q, min_ndim=2)
    k = as_float64("k", k, min_ndim=2)
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q and k need the same last axis, got q {q.shape} and k {k.shape}")
    arrays = [q, grouped_heads("k", k, q.shape[-3] if q.ndim > 2 else None)]
    if v is not None:
        v = as_float64("v", v, min_ndim=2)
        if v.shape[-2] != k.shape[-2]:
            raise ValueError(f"k and v need the same length (axis -2), got k {k.shape} and v {v.shape}")
        arrays.append(grouped_heads("v", v, q.shape[-3] if q.ndim > 2 else None))
    try:
        lead = np.broadcast_shapes(*(a.shape[:-2] for a in arrays))
    except ValueError:
        shapes = ", ".join(f"{n} {a.shape}" for n, a in zip("qkv", (q, k) if v is None else (q, k, v)))
        raise ValueError(f"leading axes do not broadcast: {shapes}") from None
    return [np.broadcast_to(a, lead + a.shape[-2:]) for a in arrays]


def check_causal(causal):
    """True when causality applies; wrong types and words raise."""
    if isinstance(causal, (bool, np.bool_)):
        return bool(causal)
    if not isinstance(causal, str):
        raise TypeError(f"causal must be False, True, 'lower_right' or 'upper_left', got {type(causal).__name__}")
    if causal not in ("lower_right", "upper_left"):
        raise ValueError(f"causal must be False, True, 'lower_right' or 'upper_left', got {causal!r}")
    return True


def first_position(lq, lk, causal, q_offset):
    """Position of query 0: q_offset when given, 0 for "upper_left", else Lk - Lq (lower right)."""
    if q_offset is not None:
        return as_int("q_offset", q_offset)
    return 0 if isinstance(causal, str) and causal == "upper_left" else lk - lq


def deltas(lq, lk, off):
    """(Lq, Lk) array of i + off - j."""
    return np.arange(lq)[:, None] + off - np.arange(lk)[None, :]


def check_window(window):
    """(left, right) with None for unbounded."""
    if window is None:
        return None, None
    if isinstance(window, (str, bytes)) or not hasattr(window, "__len__"):
        raise TypeError(f"window must be a pair (left, right), got {type(window).__name__}")
    if len(window) != 2:
        raise ValueError(f"window must be a pair (left, right), got {len(window)} entries")
    sides = [None if side is None else as_int("window", side) for side in window]
    return tuple(None if side is None or side < 0 else side for side in sides)


def logits(q, k, *, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset):
    """Logits with -inf where a pair is not allowed, and the positions: (s, delta).

    q and k come from `check_qk`.  A logit of -inf is the one and only sign of "not allowed".
    """
    shape = q.shape[:-1] + k.shape[-2:-1]
    lq, lk, d = shape[-2], shape[-1], q.shape[-1]
    is_causal = check_causal(causal)
    delta = deltas(lq, lk, first_position(lq, lk, causal, q_offset))
    scale = (1.0 / np.sqrt(d) if d else 1.0) if scale is None else as_real("scale", scale)
    softcap = 0.0 if softcap is None else as_real("softcap", softcap)
    if softcap < 0:
        raise ValueError(f"softcap must not be negative, got {softcap}")

    allowed = np.ones(shape, bool)
    with np.errstate(all="ignore"):
        s = scale * (q @ np.swapaxes(k, -1, -2))
        if softcap:
            s = softcap * np.tanh(s / softcap)
        if bias is not None:
            bias = broadcast("bias", as_float64("bias", bias), shape)
            allowed &= bias != -np.inf
            s = s + bias
        if alibi_slopes is not None:
            slopes = broadcast("alibi_slopes", as_float64("alibi_slopes", alibi_slopes), shape[:-2])
            s = s - slopes[..., None, None] * np.abs(delta)
    if is_causal:
        allowed &= delta >= 0
    left, right = check_window(window)
    if left is not None:
        allowed &= delta <= left
    if right is not None:
        allowed &= delta >= -right
    if mask is not None:
        if hasattr(mask, "at"):  # a plan takes its extents from the call
            mask = mask.at(lq, lk)
        allowed &= broadcast("mask", as_bool_array("mask", mask), shape)
    return np.where(allowed, s, -np.inf), delta


def sink_column(sink_logits, shape):
    """Sink logits as an array of shape (..., Lq); -inf (no sink) when None.

    A 1-D array as long as the head axis holds one logit per head; everything else broadcasts to (..., Lq).
    """
    if sink_logits is None:
        return np.full(shape, -np.inf)
    a = as_float64("sink_logits", sink_logits)
    if a.ndim == 1 and len(shape) > 1 and a.shape[0] == shape[-2]:
        a = a[:, None]
    return broadcast("sink_logits", a, shape)


def exponentials(s, sink):
    """e^(s - m), e^(sink - m) and m, with m the largest logit of the row, the sink included.

    Limits: a row of -inf only has m = -inf and exponentials 0; in a row with +inf logits those have
    exponential 1 and all others 0; a NaN makes every exponential of a key that is not masked NaN.
    """
    m = np.maximum(s.max(axis=-1, initial=-np.inf), sink)

    def e(x, m):
        with np.errstate(all="ignore"):
            value = np.exp(x - m)
        value = np.where(x == m, 1.0, value)
        return np.where(x == -np.inf, 0.0, value)

    return e(s, m[..., None]), e(sink, m), m


def normalised(s, sink):
    """Weights p (..., Lq, Lk), the sink's weight (..., Lq) and lse (..., Lq)."""
    e, e_sink, m = exponentials(s, sink)
    total = e.sum(axis=-1) + e_sink
    with np.errstate(all="ignore"):
        lse = np.where(total == 0, -np.inf, m + np.log(total))
        safe = np.where(total == 0, 1.0, total)
        p = np.where(s == -np.inf, 0.0, e / safe[..., None])
        return p, e_sink / safe, lse


def weights_with_lse(s, lse):
    """p = exp(s - lse) for a normaliser from elsewhere; +inf keys of a +inf row share its mass, a -inf row has none."""
    with np.errstate(all="ignore"):
        p = np.exp(s - lse[..., None])
        plus = s == np.inf
        share = plus / np.maximum(plus.sum(axis=-1, keepdims=True), 1)
    p = np.where((lse == np.inf)[..., None] & ~np.isnan(s), share, p)
    return np.where((s == -np.inf) | (lse == -np.inf)[..., None], 0.0, p)


def weighted_values(p, v, use):
    """sum_j p_ij v_j over the pairs with `use` True; what a skipped key holds does not matter."""
    finite = np.isfinite(v)
    with np.errstate(all="ignore"):
        out = np.where(use, p, 0.0) @ np.where(finite, v, 0.0)
        bad = ~finite.all(axis=-1)
        for j in np.flatnonzero(bad.any(axis=tuple(range(bad.ndim - 1)))):
            special = np.where(finite[..., j, :], 0.0, v[..., j, :])[..., None, :]
            out += np.where(use[..., j, None], p[..., j, None] * special, 0.0)
    return out


def select(name, index, length):
    """Index array, slice or int (kept as one entry) over an axis of `length`, as positions."""
    if index is None:
        return np.arange(length)
    if isinstance(index, slice):
        return np.arange(length)[index]
    index = np.asarray(index)
    if index.dtype.kind == "b":
        if index.shape != (length,):
            raise ValueError(f"boolean {name} needs shape ({length},), got {index.shape}")
        return np.flatnonzero(index)
    index = np.atleast_1d(as_int_array(name, index))
    if index.ndim != 1:
        raise ValueError(f"{name} must be an integer, a slice or a 1-D index array, got shape {index.shape}")
    if ((index < -length) | (index >= length)).any():
        raise ValueError(f"{name} has an index outside an axis of length {length}")
    return index % max(length, 1)
