"""Argument checks: one line per argument at the call, messages that name it."""

import operator

import numpy as np

_HALF_NAMES = ("float16", "bfloat16")


def _plain(name, x):
    """`x` as an ndarray; a MaskedArray, whose mask would be lost, is a TypeError."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a MaskedArray; pass its mask as mask=")
    return np.asarray(x)


def as_int(name, x, minimum=None):
    """`x` as a Python int; TypeError for bool and non-integers, ValueError below `minimum`."""
    if isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got a bool")
    try:
        x = operator.index(x)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(x).__name__}") from None
    if minimum is not None and x < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {x}")
    return x


def as_flag(name, x):
    """`x` as a Python bool; anything that is not a bool is a TypeError."""
    if not isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(x).__name__}")
    return bool(x)


def as_scale(scale, d):
    """The factor of the logits: `scale`, or 1/sqrt(d) when it is None (1 without features)."""
    if scale is None:
        return d**-0.5 if d else 1.0
    if isinstance(scale, (bool, np.bool_)) or not isinstance(scale, (int, float, np.integer, np.floating)):
        raise TypeError(f"scale must be a real number or None, got {type(scale).__name__}")
    if not np.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    return float(scale)


def as_integers(name, x):
    """`x` as an int64 array without a needless copy; a list without entries counts as integers."""
    x = _plain(name, x)
    if x.dtype.kind not in "iu" and x.size:
        raise TypeError(f"{name} must hold integers, got dtype {x.dtype}")
    return x.astype(np.int64, copy=False)


def as_mask(name, x):
    """`x` as a boolean array (True = may attend): bool, 0/1 integers, or an object with __array__."""
    x = _plain(name, x)
    if x.dtype.kind in "iu":
        if x.size and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"{name} of integers must hold 0 and 1 only")
        x = x.astype(bool)
    if x.dtype.kind != "b":
        raise TypeError(f"{name} must be boolean (True = may attend), got dtype {x.dtype}; "
                        "additive values belong in bias=")
    return x


def is_half(dtype):
    """True for float16 and bfloat16, the types that are stored but not computed in."""
    return dtype.name in _HALF_NAMES


def as_reals(name, x, *, ndim=None):
    """`x` as an array of real numbers in its own dtype, with `ndim` axes when given."""
    x = _plain(name, x)
    if x.dtype.kind not in "biuf" and not is_half(x.dtype):
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {x.shape}")
    return x


def float_types(**arrays):
    """(computed, stored) dtypes for named arrays: half types compute in float32, integers in float64.

    The stored dtype is the half type when every array has that half type, else the computed one.
    """
    dtypes = {name: x.dtype for name, x in arrays.items()}
    halves = {t.name for t in dtypes.values() if is_half(t)}
    if len(halves) == 2:
        listed = ", ".join(f"{name} {t}" for name, t in dtypes.items())
        raise TypeError(f"float16 and bfloat16 do not mix: {listed}")
    compute = np.dtype(np.float32)
    for t in dtypes.values():
        if not is_half(t) and t != np.float32:
            compute = np.dtype(np.float64)
    only_half = all(is_half(t) for t in dtypes.values())
    return compute, next(iter(dtypes.values())) if only_half else compute
