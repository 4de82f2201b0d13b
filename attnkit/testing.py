"""Checks that users can run on their own calls."""

import numpy as np

from . import _core
from ._runtime import threads as _threads

__all__ = ["assert_same_bits"]


def _strided(array):
    """Every second element of a larger array, the last two axes stored the other way round."""
    order = list(range(array.ndim))
    order[-2:] = order[-2:][::-1]
    store = np.zeros([2 * array.shape[axis] for axis in order], array.dtype)
    view = store.transpose(np.argsort(order))[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def _reversed(array):
    """Negative strides on every axis."""
    back = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[back])[back]


def _misaligned(array):
    """Data one byte past an aligned address."""
    store = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = store.view(array.dtype).reshape(array.shape) if array.size else array.copy()
    view[...] = array
    return view


def _read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


_LAYOUTS = {
    "strided": _strided,
    "negative strides": _reversed,
    "misaligned": _misaligned,
    "read-only": _read_only,
}


def _relayout(value, change):
    """`value` with every array in it (also inside tuples, lists and dicts) laid out anew."""
    if type(value) is np.ndarray:
        return change(value) if value.ndim else value
    if type(value) in (tuple, list):
        return type(value)(_relayout(item, change) for item in value)
    if type(value) is dict:
        return {key: _relayout(item, change) for key, item in value.items()}
    return value


def _leaves(result, path="result"):
    """(path, array) for every array or number in a nested result."""
    if isinstance(result, dict):
        for key, item in result.items():
            yield from _leaves(item, f"{path}[{key!r}]")
    elif isinstance(result, (tuple, list)):
        for index, item in enumerate(result):
            yield from _leaves(item, f"{path}[{index}]")
    elif result is not None:
        array = np.asarray(result)
        if array.dtype.hasobject:
            raise TypeError(f"{path} is a {type(result).__name__}: only arrays and numbers can be compared byte by byte")
        yield path, array


def _compare(expected, found, variation):
    """Raise AssertionError at the first byte that differs."""
    if [path for path, _ in expected] != [path for path, _ in found]:
        raise AssertionError(f"{variation}: the structure of the result changed")
    for (path, a), (_, b) in zip(expected, found):
        if a.dtype != b.dtype or a.shape != b.shape:
            raise AssertionError(f"{variation}: {path} is {b.dtype}{b.shape}, was {a.dtype}{a.shape}")
        a_bytes, b_bytes = a.tobytes(), b.tobytes()
        if a_bytes == b_bytes:
            continue
        size = a.dtype.itemsize
        differs = np.frombuffer(a_bytes, np.uint8) != np.frombuffer(b_bytes, np.uint8)
        wrong = np.flatnonzero(differs.reshape(-1, size).any(axis=1))
        at = int(wrong[0])
        index = tuple(int(i) for i in np.unravel_index(at, a.shape))
        raise AssertionError(
            f"{variation}: {path} differs in {wrong.size} of {a.size} elements, first at index {index}: "
            f"{b[index]!r} (bytes {b_bytes[at * size : (at + 1) * size].hex()}), "
            f"was {a[index]!r} (bytes {a_bytes[at * size : (at + 1) * size].hex()})"
        )


def assert_same_bits(f, *args, threads=(1, 2, 3, 7), targets=None, layouts=True, **kwargs):
    """Assert that a call gives the same bytes however it is run.

    Parameters
    ----------
    f : callable
        Called as ``f(*args, **kwargs)``. It returns arrays or numbers, or tuples, lists or dicts of them.
    *args : object
        Positional arguments of `f`.
    threads : sequence of int, default (1, 2, 3, 7)
        Thread counts to try.
    targets : sequence of str, optional
        Instruction-set targets to try; all that this machine can run if None (see `attnkit.cpu_info`).
    layouts : bool, default True
        Also lay out the array arguments anew: strided with the last two axes stored the other way round, with negative
        strides, misaligned, and read-only.
    **kwargs : object
        Keyword arguments of `f`. `out` is refused: the calls would overwrite one another's result.

    Returns
    -------
    None
        The threads and the target are as before, also after a failure.

    Raises
    ------
    AssertionError
        If any byte differs from the first call's (first thread count, first target, C-contiguous arrays). The message
        names the variation, the part of the result and the first differing index. NaNs are compared by their bytes too.
    TypeError
        If `out` is given or the result holds something that is not a number.

    Notes
    -----
    Every thread count runs on every target, and every layout on every target with the last thread count:
    ``len(targets) * (len(threads) + 4)`` calls. The target is a setting of the whole process, so no other thread should
    be calling attnkit meanwhile.

    Examples
    --------
    >>> import numpy as np
    >>> import attnkit
    >>> from attnkit.testing import assert_same_bits
    >>> q = np.random.default_rng(0).standard_normal((3, 40, 16), dtype=np.float32)
    >>> assert_same_bits(attnkit.softmax_attention, q, q, q, causal=True)
    """
    if "out" in kwargs:
        raise TypeError("out= cannot be checked: every call needs an output of its own")
    counts = tuple(threads)
    if not counts:
        raise ValueError("threads must name at least one thread count")
    if targets is None:
        targets = [word for word, _, usable in _core.isa_table() if usable]
    elif not targets:
        raise ValueError("targets must name at least one target")

    def call(n, target, layout):
        change = _LAYOUTS.get(layout, np.ascontiguousarray)
        _core.isa_force(target)
        with _threads(n):
            return list(_leaves(f(*_relayout(args, change), **_relayout(kwargs, change))))

    def variations():
        for target in targets:
            for n in counts:
                yield n, target, "C-contiguous"
            for layout in _LAYOUTS if layouts else ():
                yield counts[-1], target, layout

    before = _core.isa_chosen()
    try:
        runs = iter(variations())
        expected = [(path, array.copy()) for path, array in call(*next(runs))]
        for n, target, layout in runs:
            _compare(expected, call(n, target, layout), f"threads={n}, target={target}, {layout} arrays")
    finally:
        _core.isa_force(before)
