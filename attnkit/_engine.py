"""The one caller of the compiled engine: arrays and options in, positional arguments of ``_core`` out.

What all exact functions share is decided here once: which arrays are accepted, how types combine, what `causal`, `window`, `bias` and
the rest mean, and how results come back in the caller's dtype.
"""

import contextlib
import math
import operator
import sys

import numpy as np

from . import _core
from ._arguments import as_flag, as_int
from ._plans import MAX_EXTENT
from .masks import MaskPlan, _lower

_NATIVE = frozenset("efd")  # float16, float32, float64
_COMPUTED = frozenset(np.dtype(char) for char in _NATIVE)
_LN16 = 2.772588722239781


# ---- arrays ----------------------------------------------------------------------------------------------------------


def as_array(name, x):
    """Any CPU array as a NumPy array without a copy; what NumPy would turn into objects is a TypeError."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a MaskedArray; pass its data, and its mask as mask=")
    if isinstance(x, np.ndarray):
        return x
    if isinstance(x, (list, tuple)) and any(isinstance(part, np.ma.MaskedArray) for part in x):
        raise TypeError(f"{name} holds MaskedArrays; pass their data, and their masks as mask=")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _from_torch(name, x, torch)
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise TypeError(f"{name} is a sparse matrix ({type(x).__name__}); pass x.toarray()")
    if not hasattr(x, "__array__") and hasattr(x, "__dlpack__"):
        try:
            return np.from_dlpack(x)
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{name} cannot be viewed as a CPU array: {error}") from None
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be viewed as a CPU array: {error}") from None


def _from_torch(name, x, torch):
    if x.requires_grad:
        raise TypeError(f"{name} is a tensor that requires grad; pass {name}.detach()")
    if x.device.type != "cpu":
        raise TypeError(f"{name} is a tensor on {x.device}; pass {name}.cpu()")
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(_bfloat16(name))
    try:
        return x.numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be viewed as a CPU array: {error}") from None


def _bfloat16(name):
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(f"{name} is bfloat16, which needs the package ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def as_floats(name, x):
    """`x` as an array that the engine reads: float16, float32 or float64 in native order, or bfloat16.

    Integers and bool become float64; byte-swapped arrays are converted.
    """
    if type(x) is np.ndarray:
        dtype = x.dtype
        if dtype.char in _NATIVE and dtype.isnative:
            return x
    x = as_array(name, x)
    dtype = x.dtype
    if dtype.char in _NATIVE:
        return x if dtype.isnative else x.astype(dtype.newbyteorder("="))
    if dtype.name == "bfloat16":
        return x if dtype.isnative else x.astype(dtype.newbyteorder("="))
    if dtype.kind in "biu":
        with standard_arithmetic():  # integers beyond 2**53 round
            return x.astype(np.float64)
    raise TypeError(f"{name} must hold float16, bfloat16, float32, float64, integers or bool, got dtype {dtype}")


def as_float64(name, x):
    """`x` as float64, for small operands (slopes, sink logits, row weights)."""
    return np.asarray(as_floats(name, x), np.float64)


def coded(x):
    """An array as ``_core`` reads it: bfloat16 travels as its bits."""
    return x.view(np.uint16) if x.dtype.char not in _NATIVE else x


@contextlib.contextmanager
def standard_arithmetic():
    """Round to nearest, keep subnormals and raise no warning, whatever the caller has set: the little arithmetic outside the engine."""
    found = _core.fp_enter()
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _core.fp_leave(found)


# ---- options ---------------------------------------------------------------------------------------------------------


def as_real(name, x):
    if isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} must be a real number, got a bool")
    try:
        value = float(x) if isinstance(x, (int, float, np.integer, np.floating)) else float(operator.index(x))
    except TypeError:
        raise TypeError(f"{name} must be a real number, got {type(x).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name} must be finite, got an integer beyond the range of float64") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value


def _is_causal(causal):
    if isinstance(causal, (bool, np.bool_)):
        return bool(causal)
    if not isinstance(causal, str):
        raise TypeError(f"causal must be False, True, 'lower_right' or 'upper_left', got {type(causal).__name__}")
    if causal not in ("lower_right", "upper_left"):
        raise ValueError(f"causal must be False, True, 'lower_right' or 'upper_left', got {causal!r}")
    return True


def _window(window):
    """(left, right) with -1 for unbounded."""
    if isinstance(window, (str, bytes)) or not hasattr(window, "__len__"):
        raise TypeError(f"window must be a pair (left, right), got {type(window).__name__}")
    if len(window) != 2:
        raise ValueError(f"window must be a pair (left, right), got {len(window)} entries")
    return tuple(-1 if side is None else min(max(as_int("window", side), -1), MAX_EXTENT) for side in window)


class Problem:
    """Checked operands of one call, in the order that ``_core`` takes them.

    `inputs` are q, k, v (v may be None), `args` scale (None = 1/sqrt(d)), offset, steps and nodes, `batch` the broadcast leading axes.
    """

    __slots__ = ("args", "batch", "dtype", "lk", "lq", "offset", "q", "k", "v", "inputs")

    def __init__(self, q, k, v, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset):
        if type(q) is type(k) is type(v) is np.ndarray and (dtype := q.dtype) is k.dtype and dtype is v.dtype and dtype in _COMPUTED:
            # What nearly every call looks like: plain arrays of one type.
            self.dtype = dtype
            self.q, self.k, self.v = self.inputs = (q, k, v)
        else:
            q, k, v = as_floats("q", q), as_floats("k", k), None if v is None else as_floats("v", v)
            self.inputs = (q, k, v)
            self.dtype = _result_dtype(q, k, v)
            self.q, self.k, self.v = coded(q), coded(k), None if v is None else coded(v)
        if q.ndim < 2 or k.ndim < 2 or (v is not None and v.ndim < 2):
            _refuse_axes(q, k, v)
        lq, lk = q.shape[-2], k.shape[-2]
        self.lq, self.lk = lq, lk
        if scale is not None:
            scale = as_real("scale", scale)
        if q_offset is not None:
            offset = as_int("q_offset", q_offset)
            if abs(offset) >= 1 << 62:
                raise ValueError(f"q_offset must be below 2**62 in size, got {offset}")
        else:
            offset = 0 if isinstance(causal, str) and causal == "upper_left" else lk - lq
        self.offset = offset
        self.batch = None
        steps = None
        if softcap is not None or bias is not None or alibi_slopes is not None:
            steps = self._steps(softcap, bias, alibi_slopes)
        # Causality and a window are one band around the diagonal, which C takes as (left, right); masks need the general list.
        left = right = -1
        if window is not None:
            left, right = _window(window)
        if causal is not False and _is_causal(causal):
            right = 0
        nodes = None if left < 0 and right < 0 else (left, right)
        if mask is not None:
            nodes = [] if nodes is None else [("window", left, right, 0, 1, offset)]
            _and(nodes, self._mask_nodes(mask, offset))
        self.args = (scale, offset, steps, nodes)

    def _mask_nodes(self, mask, offset):
        if type(mask) is np.ndarray and mask.dtype == bool and mask.ndim == 2 and mask.shape == (self.lq, self.lk):
            return [("dense", mask)]
        if not isinstance(mask, MaskPlan):
            mask = as_array("mask", mask)
        return _lower(mask, self.lq, self.lk, self.leading(), offset=offset)

    def leading(self):
        """The broadcast leading axes: those of q, with the heads (axis -3) of k and v allowed to divide its own."""
        if self.batch is None:
            arrays = [x for x in self.inputs if x is not None]
            heads = arrays[0].shape[-3] if arrays[0].ndim > 2 else 1
            shapes = [arrays[0].shape[:-2]]
            for x in arrays[1:]:
                shape = x.shape[:-2]
                if shape and heads != 1 and shape[-1] > 0 and heads % shape[-1] == 0:
                    shape = (*shape[:-1], heads)
                shapes.append(shape)
            try:
                self.batch = np.broadcast_shapes(*shapes)
            except ValueError:
                names = ", ".join(f"{n} {x.shape}" for n, x in zip("qkv", self.inputs) if x is not None)
                raise ValueError(f"the leading axes do not broadcast (heads of k and v, axis -3, may divide those of q): {names}") from None
        return self.batch

    def reads(self):
        """Every array that the engine reads while it writes its results."""
        _, _, steps, nodes = self.args
        rows = [*(steps or ()), *(nodes if isinstance(nodes, list) else ())]
        return [*self.inputs, *(x for row in rows for x in row if isinstance(x, np.ndarray))]

    def _steps(self, softcap, bias, alibi_slopes):
        steps = []
        if softcap is not None:
            softcap = as_real("softcap", softcap)
            if softcap < 0:
                raise ValueError(f"softcap must not be negative, got {softcap}")
            if softcap:
                steps.append(("softcap", softcap))
        if bias is not None:
            steps.append(("bias", coded(as_floats("bias", bias))))
        if alibi_slopes is not None:
            steps.append(("alibi", as_float64("alibi_slopes", alibi_slopes)))
        return tuple(steps)

    def sinks(self, sink_logits):
        """Sink logits for ``_core``: a vector as long as the head axis is one logit per head."""
        if sink_logits is None:
            return None
        sink = as_float64("sink_logits", sink_logits)
        batch = self.leading()
        if sink.ndim == 1 and batch and sink.shape[0] == batch[-1]:
            sink = sink[:, None]
        return sink

    def attend(self, out, wanted, *, sink=None, keep=None, keep_scale=1.0, topk=0, sink_size=0, groups=None, n_groups=0, pages=None,
               row_weight=None):
        """The row pass: (out, *wanted)."""
        return _core.attend(self.q, self.k, self.v, out, *self.args, sink, keep, keep_scale, wanted, topk, sink_size, groups, n_groups, pages,
                            row_weight)

    def column_stats(self, received, largest, visible):
        """What the engine says of columns, as users get it."""
        real = self.real()
        with standard_arithmetic():
            return {
                "received": received.astype(real, copy=False),
                "received_max": largest.astype(real, copy=False),
                "visible": visible,
                "received_mean": (received / np.maximum(visible, 1)).astype(real, copy=False),
            }

    def norms(self, sink=None, lse=None):
        """Normalisers (m, 1/l) of every row, from the keys or from a given log-sum-exp."""
        if lse is None:
            return _core.attend(self.q, self.k, None, False, *self.args, sink, None, 1.0, ("norm_max", "norm_inv"), 0, 0, None, 0, None, None)[1:]
        real = self.real()
        lse = as_float64("lse", lse)
        rows = (*self.leading(), self.lq)
        try:
            lse = np.broadcast_to(lse, rows)
        except ValueError:
            raise ValueError(f"lse of shape {lse.shape} does not broadcast to the rows {rows}") from None
        with standard_arithmetic():
            return np.ascontiguousarray(lse / _LN16, real), np.ascontiguousarray(lse != -np.inf, real)

    def real(self):
        """The dtype that the engine computes in."""
        return np.dtype(np.float64 if self.dtype == np.float64 else np.float32)


def _and(nodes, more):
    """Append a postfix list to another; one of nothing but "every pair" adds nothing."""
    joined = bool(nodes)
    nodes.extend(more)
    if joined:
        nodes.append(("and",))


def _result_dtype(q, k, v):
    """NumPy's promotion of the inputs; float16 with bfloat16 has none."""
    dtype = q.dtype
    if k.dtype == dtype and (v is None or v.dtype == dtype):
        return dtype
    dtypes = {x.dtype.name for x in (q, k, v) if x is not None}
    if {"float16", "bfloat16"} <= dtypes:
        names = ", ".join(f"{n} {x.dtype}" for n, x in zip("qkv", (q, k, v)) if x is not None)
        raise TypeError(f"float16 and bfloat16 have no common type, convert one: {names}")
    return np.dtype(np.float64 if "float64" in dtypes else np.float32)


def _refuse_axes(q, k, v):
    for name, x in zip("qkv", (q, k, v)):
        if x is not None and x.ndim < 2:
            raise ValueError(f"{name} needs at least 2 axes (length, features), got shape {x.shape}")


# What the row pass needs to be asked for to give column statistics.
COLUMN_RESULTS = ("received", "received_max", "visible", "norm_max", "norm_inv")


# ---- outputs ---------------------------------------------------------------------------------------------------------


def check_out(out, shape, dtype, inputs):
    """Check `out=`; returns (array for the engine to write, array to copy to afterwards or None)."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out must have shape {shape} and dtype {dtype}, got shape {out.shape} and dtype {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if _overlaps_itself(out):
        raise ValueError(f"out overlaps itself: shape {out.shape} with strides {out.strides}")
    if any(x is not None and np.may_share_memory(out, x) for x in inputs):
        return np.empty(shape, dtype), out
    return out, None


def _overlaps_itself(x):
    """Do two elements share a byte?"""
    if x.size == 0:
        return False
    axes = sorted((abs(s), n) for s, n in zip(x.strides, x.shape) if n > 1)
    reach = x.itemsize
    for stride, size in axes:
        if stride < reach:
            break
        reach = stride * (size - 1) + reach
    else:
        return False  # the axes nest: each stride steps over all that the smaller ones reach
    if axes[0][0] < x.itemsize:
        return True
    # Axes that interlock, as strides 2 and 3 do, tell only by their addresses.
    starts = np.zeros(1, np.int64)
    for stride, size in axes:
        starts = (starts[:, None] + stride * np.arange(size)).ravel()
    starts.sort()
    return bool((np.diff(starts) < x.itemsize).any())


def new_map(shape, dtype, instead):
    """An array for a map; says what it costs, and what gives the numbers without it, when memory is short."""
    n_bytes = math.prod(shape) * dtype.itemsize
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):
        raise MemoryError(f"a map of shape {shape} and dtype {dtype} takes {n_bytes:,} bytes; {instead}") from None
