"""Cases of the operators as plain data: one row says what is called, on what, in which types, and how much work that is.

Tests and benchmarks read the same rows. A row holds descriptions of arrays (`Draw`), not arrays; `Case.make_inputs` draws
them. `compare` holds every result against the float64 twin in `attnkit.reference` with the a-priori bounds of
docs/numerics.md, so that nobody needs a tolerance of his own.
"""

from dataclasses import dataclass, field

import numpy as np

import attnkit
import attnkit.reference

FLOATS = ("float32", "float64")
EVERY_DTYPE = (*FLOATS, "float16", "bfloat16", "int32", "bool", "float16/float32/float16", "float64/float32/int8", "bfloat16/bfloat16/float32")


def dtype_of(name):
    """NumPy dtype of a name; bfloat16 is ml_dtypes'."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Draw:
    """An array to draw.

    kind : "normal" (times `size`), "mask" (True with probability `size`), "integers" (0 .. size-1), "masking bias" (normal,
        -inf with probability `size`), "lse" (large enough to be a normaliser of anything, around `size`)
    shape : tuple of int
    dtype : name of the dtype; None = the dtype of the call (normal, masking bias, lse only)
    """

    kind: str
    shape: tuple
    size: float = 1.0
    dtype: str | None = None

    def make(self, rng, dtype):
        if self.kind == "mask":
            return (rng.random(self.shape) < self.size).astype(self.dtype or bool)
        if self.kind == "integers":
            return rng.integers(0, int(self.size), self.shape).astype(self.dtype or np.int64)
        dtype = dtype_of(self.dtype or dtype)
        x = rng.standard_normal(self.shape)
        if self.kind == "masking bias":
            x = np.where(rng.random(self.shape) < self.size, -np.inf, x)
            return x.astype(np.float64 if dtype.kind in "bi" else dtype)
        if self.kind == "lse":
            return (x + self.size).astype(np.float64 if dtype.kind in "bi" else dtype)
        if dtype.kind == "b":
            return x > 0
        return np.round(2 * x).astype(dtype) if dtype.kind == "i" else (x * self.size).astype(dtype)


@dataclass(frozen=True)
class Case:
    """One row.

    name : unique, readable
    function : name in `attnkit` and in `attnkit.reference`
    args : positional arguments, `Draw` or plain values
    options : keyword arguments, `Draw` or plain values; a callable without arguments makes the value (mask plans)
    dtypes : dtype names to run in; "a/b/c" gives q, k, v a dtype each
    tolerance : "a-priori" (bounds of docs/numerics.md, see `compare`) or "exact" (equal to the twin)
    flops : useful floating-point operations, 2 (d + dv) per visible pair (2 d without values). Pairs that causal, window
        and documents forbid do not count; pairs that an array forbids do, since every kernel has to look at them.
    """

    name: str
    function: str
    args: tuple
    options: dict = field(default_factory=dict)
    dtypes: tuple = FLOATS
    tolerance: str = "a-priori"
    flops: int = 0

    def make_inputs(self, rng, dtype):
        """(args, kwargs), drawn by `rng` in `dtype` (a name of `dtypes`)."""
        names = dtype.split("/")
        args = tuple(_made(x, rng, names[min(i, len(names) - 1)]) for i, x in enumerate(self.args))
        return args, {name: _made(x, rng, names[0]) for name, x in self.options.items()}

    def run(self, args, kwargs):
        return getattr(attnkit, self.function)(*args, **kwargs)

    def reference(self, args, kwargs):
        return getattr(attnkit.reference, self.function)(*args, **without_plans(args, kwargs))

    def check(self, got, args, kwargs, *, equal_terms=False):
        """AssertionError unless `got` is what the twin says, within the bounds; `equal_terms` as in `bounds`."""
        compare(self, got, self.reference(args, kwargs), args, without_plans(args, kwargs), equal_terms)


def without_plans(args, kwargs):
    """The options for the twins, which know arrays only."""
    if not isinstance(kwargs.get("mask"), attnkit.masks.MaskPlan):
        return kwargs
    return {**kwargs, "mask": kwargs["mask"].to_dense(args[0].shape[-2], args[1].shape[-2])}


def _made(x, rng, dtype):
    if isinstance(x, Draw):
        return x.make(rng, dtype)
    return x() if callable(x) else x


# ---- work ------------------------------------------------------------------------------------------------------------


def visible_pairs(lq, lk, *, causal=False, window=None, q_offset=None):
    """Number of (query, key) pairs that causal and window leave."""
    off = q_offset if q_offset is not None else 0 if causal == "upper_left" else lk - lq
    position = np.arange(lq, dtype=np.int64) + off
    left, right = (-1 if side is None else min(side, lq + lk + abs(off)) for side in window or (None, None))
    low = position - left if left >= 0 else np.zeros_like(position)
    high = position + right if right >= 0 else np.full_like(position, lk - 1)
    if causal:
        high = np.minimum(high, position)
    return int(np.maximum(np.minimum(high, lk - 1) - np.maximum(low, 0) + 1, 0).sum())


def attention_flops(q, k, v, options):
    """Useful operations of attention over shapes; v None = scores only."""
    known = {name: options[name] for name in ("causal", "window", "q_offset") if name in options}
    pairs = visible_pairs(q[-2], k[-2], **known)
    leading = np.broadcast_shapes(q[:-2], *(_grouped(x, q) for x in (k, v) if x is not None))
    return 2 * int(np.prod(leading, dtype=np.int64)) * pairs * (q[-1] + (v[-1] if v else 0))


def _grouped(shape, q):
    """Leading axes of k or v with its heads counted as those of q."""
    lead = shape[:-2]
    return (*lead[:-1], q[-3]) if lead and len(q) > 2 and q[-3] and lead[-1] not in (1, q[-3]) else lead


def attention_case(name, function, q, k, v=None, *, dtypes=FLOATS, size=1.0, **options):
    """The row of a function of q, k[, v] with normal entries of standard deviation `size`."""
    args = tuple(Draw("normal", shape, size) for shape in ((q, k) if v is None else (q, k, v)))
    return Case(name, function, args, options, dtypes, flops=attention_flops(q, k, v, options))


KINDS = ("plain", "causal", "window", "grouped", "bias", "mask")


def grid_case(length, d, heads, kind, dtype="float32"):
    """A row of the speed grid: `heads` heads of length x length with d features each, one of KINDS."""
    options = {
        "plain": {},
        "causal": {"causal": True},
        "window": {"causal": True, "window": (256, 0)},
        "grouped": {},
        "bias": {"bias": Draw("normal", (heads, length, length))},
        "mask": {"mask": Draw("mask", (heads, length, length), 0.5)},
    }[kind]
    q = (4 * heads if kind == "grouped" else heads, length, d)
    k = (heads, length, d)
    return attention_case(f"{kind} h{q[0]} L{length} d{d}", "softmax_attention", q, k, k, dtypes=(dtype,), **options)


# ---- the rows --------------------------------------------------------------------------------------------------------

_Q, _K, _V = (2, 4, 53, 24), (2, 2, 301, 24), (2, 2, 301, 20)  # grouped heads, ragged tails, several tiles
_STATS = ("lse", "n_allowed", "entropy", "purity", "max_weight", "argmax", "sink_mass", "sink_logit_mass", "distance", "distance_sq",
          "mean_logit", "abs_distance")


def _plan(make):
    """A mask plan as an option: made when used, since plans are objects."""
    return lambda: make(attnkit.masks)


# What can be asked of scores, by name. Shapes fit _Q and _K.
SCORE_OPTIONS = {
    "plain": {},
    "scale": {"scale": -0.75},
    "scale zero": {"scale": 0.0},
    "causal": {"causal": True},
    "causal lower right": {"causal": "lower_right"},
    "causal upper left": {"causal": "upper_left"},
    "causal offset": {"causal": True, "q_offset": 7},
    "all in the future": {"causal": True, "q_offset": -20},
    "window": {"window": (9, 4)},
    "window left": {"window": (9, None)},
    "window right": {"window": (None, 2), "q_offset": 100},
    "window unbounded": {"window": (-1, None)},
    "window and causal": {"window": (30, 30), "causal": True, "q_offset": 200},
    "window of a huge reach": {"window": (1 << 70, 0)},
    "mask": {"mask": Draw("mask", (2, 4, 53, 301), 0.5)},
    "mask of integers": {"mask": Draw("mask", (4, 1, 301), 0.5, "int64")},
    "mask of keys": {"mask": Draw("mask", (301,), 0.3)},
    "mask of queries": {"mask": Draw("mask", (53, 1), 0.5)},
    "mask without a key": {"mask": Draw("mask", (1, 1), 0.0)},
    "plan": {"mask": _plan(lambda m: m.causal() | m.prefix(13))},
    "plan of blocks": {"mask": _plan(lambda m: m.blocks(np.arange(4 * 7 * 10).reshape(4, 7, 10) % 3 == 0, 8, 32) & ~m.window(3, 3))},
    "plan of documents": {"mask": _plan(lambda m: m.documents(np.arange(53) // 20, np.arange(301) // 120)), "causal": "upper_left"},
    "bias": {"bias": Draw("normal", (2, 4, 53, 301))},
    "bias of heads": {"bias": Draw("normal", (4, 1, 1))},
    "bias with -inf": {"bias": Draw("masking bias", (4, 53, 301), 0.4)},
    "bias in float64": {"bias": Draw("masking bias", (53, 301), 0.1, "float64"), "causal": True},
    "bias in float16": {"bias": Draw("normal", (301,), 2.0, "float16"), "window": (50, 50)},
    "alibi": {"alibi_slopes": Draw("normal", (4,), 0.1)},
    "alibi of the batch": {"alibi_slopes": Draw("normal", (2, 1), 0.1, "float64"), "q_offset": -3},
    "softcap": {"softcap": 0.7},
    "softcap off": {"softcap": 0},
    "everything": {"scale": 0.2, "softcap": 3.0, "bias": Draw("masking bias", (4, 53, 301), 0.2), "alibi_slopes": Draw("normal", (4,), 0.05),
                   "causal": True, "window": (150, 0), "mask": Draw("mask", (2, 1, 53, 301), 0.8), "q_offset": 190},
}
SINKS = {
    "sink of heads": {"sink_logits": Draw("normal", (4,), 2.0)},
    "sink of rows": {"sink_logits": Draw("normal", (2, 4, 53), 2.0, "float64")},
    "sink off": {"sink_logits": Draw("masking bias", (4, 1), 1.0)},
    "sink and no key": {"sink_logits": Draw("normal", (4,)), "causal": True, "q_offset": -20},
    "sink above": {"sink_logits": Draw("lse", (4,), 30.0), "mask": Draw("mask", (53, 301), 0.5)},
}
DROPOUT = {
    "dropout": {"dropout_mask": Draw("mask", (2, 4, 53, 301), 0.7), "dropout_p": 0.3},
    "dropout of integers": {"dropout_mask": Draw("mask", (53, 301), 0.5, "int8"), "dropout_p": 0.5, "causal": True},
    "dropout and sink": {"dropout_mask": Draw("mask", (4, 1, 301), 0.9), "sink_logits": Draw("normal", (4,)), "mask": Draw("mask", (301,), 0.5)},
}
SHAPES = {
    "matrix": ((5, 3), (9, 3), (9, 4)),
    "one by one": ((1, 1), (1, 1), (1, 1)),
    "3-D": ((3, 17, 8), (3, 33, 8), (3, 33, 8)),
    "5-D": ((2, 1, 4, 6, 16), (2, 3, 2, 40, 16), (1, 1, 2, 40, 16)),
    "heads of k only": ((7, 16), (3, 40, 16), (3, 40, 16)),
    "keys for all": ((2, 3, 7, 16), (40, 16), (40, 16)),
    "values broadcast": ((3, 7, 16), (3, 40, 16), (1, 40, 16)),
    "more queries than keys": ((2, 70, 16), (2, 5, 16), (2, 5, 32)),
    "one query": ((4, 1, 64), (4, 700, 64), (4, 700, 64)),
    "one key": ((2, 60, 8), (2, 1, 8), (2, 1, 8)),
    "tile exactly": ((48, 16), (256, 16), (256, 16)),
    "tile and one": ((49, 16), (257, 16), (257, 17)),
    "no queries": ((2, 0, 8), (2, 5, 8), (2, 5, 8)),
    "no keys": ((2, 5, 8), (2, 0, 8), (2, 0, 8)),
    "no heads": ((0, 5, 8), (0, 6, 8), (0, 6, 8)),
    "no batch": ((0, 4, 5, 8), (1, 2, 6, 8), (1, 2, 6, 8)),
    "no values": ((2, 5, 8), (2, 6, 8), (2, 6, 0)),
    "no features": ((2, 5, 0), (2, 6, 0), (2, 6, 3)),
    "many features": ((3, 300), (10, 300), (10, 3)),
}


def _crossed(function, values, *tables, **more):
    shapes = (_Q, _K, _V) if values else (_Q, _K)
    return [attention_case(f"{function}: {name}", function, *shapes, **more, **options)
            for table in tables for name, options in table.items()]


_ALL = {"return_lse": True, "return_weights": True, "stats": _STATS}
_WINDOWS = {
    "rows": {"rows": slice(50, 3, -4)},
    "a row": {"rows": -1, "causal": True},
    "cols": {"cols": np.array([300, 0, 0, 256, -2]), "window": (40, 0)},
    "no cols": {"cols": []},
    "chosen rows and cols": {"rows": np.arange(53) % 3 == 0, "cols": slice(None, None, 7)},
    "heads": {"heads": [3, 0, 3], "sink_logits": Draw("normal", (4,)), "alibi_slopes": Draw("normal", (4,), 0.1)},
    "a head": {"heads": 1, "rows": [1, 1], "mask": Draw("mask", (2, 4, 53, 301), 0.5), "bias": Draw("normal", (4, 53, 1))},
    "a head of a plan": {"heads": [2], "mask": _plan(lambda m: m.blocks(np.arange(4 * 7 * 10).reshape(4, 7, 10) % 3 == 0, 8, 32))},
    "lse": {"lse": Draw("lse", (2, 4, 53), 9.0), "heads": slice(1, 3), "cols": 5},
    "lse of rows": {"lse": Draw("lse", (53,), 9.0)},
}
_BLOCKS = {f"{reduce} {q}x{k}": {"reduce": reduce, "block_q": q, "block_k": k}
           for reduce, q, k in (("sum", 64, 64), ("max", 50, 7), ("mean", 10, 300), ("row_mean", 1, 1), ("sum", 1000, 1000))}
_PAGES = (Draw("normal", (3, 4, 5, 8)), Draw("normal", (6, 2, 16, 8)), Draw("normal", (6, 2, 16, 12)), [[5, 0, 3], [2, 2, 1], [0, 0, 0]], [40, 17, 0])


def _all_cases():
    yield from _crossed("softmax_attention", True, SCORE_OPTIONS, SINKS, DROPOUT, dtypes=("float32", "float64", "float16"))
    for name, options in (SCORE_OPTIONS | SINKS | DROPOUT).items():
        yield attention_case(f"softmax_attention with all results: {name}", "softmax_attention", _Q, _K, _V, **options, **_ALL)
    yield from _crossed("attention_logits", False, SCORE_OPTIONS, dtypes=("float32", "float64", "bfloat16"))
    yield from _crossed("attention_row_stats", False, SCORE_OPTIONS, SINKS, topk=5, sink_size=3, extra="abs_distance",
                        groups=Draw("integers", (301,), 4), n_groups=3)
    yield from _crossed("attention_column_stats", False, SCORE_OPTIONS, SINKS)
    yield from _crossed("attention_block_mass", False, SCORE_OPTIONS, SINKS, block_q=20, block_k=33)
    yield from _crossed("attention_weights", False, SCORE_OPTIONS, SINKS, _WINDOWS, dtypes=("float32", "float64", "float16"))
    yield from _crossed("attention_block_mass", False, _BLOCKS)
    yield from _crossed("attention_column_stats", False, {
        "rows": {"rows": slice(2, 50, 3), "causal": True, "q_offset": 100},
        "last rows": {"rows": np.arange(-5, 0)},
        "chosen rows": {"rows": np.arange(53) % 2 == 0, "row_weights": Draw("normal", (4, 53))},
        "row weights": {"row_weights": Draw("normal", (2, 1, 53), 1.0, "float64"), "window": (20, 20)},
        "weight of all": {"row_weights": 0.5},
        "lse": {"lse": Draw("lse", (2, 4, 53), 9.0)},
        "no rows": {"rows": []},
    })
    yield from _crossed("attention_block_mass", False, {"lse": {"lse": Draw("lse", (4, 1), 9.0), "block_q": 53, "block_k": 1, "causal": True}})
    yield from _crossed("attention_row_stats", False, {
        "topk beyond": {"topk": 400, "window": (5, 0), "q_offset": 3},
        "groups": {"groups": Draw("integers", (301,), 6, "int8")},
        "no groups": {"groups": Draw("integers", (301,), 6), "n_groups": 0, "sink_size": 0},
        "sink size beyond": {"sink_size": 1000, "mask": Draw("mask", (53, 301), 0.2)},
    })
    for name, (q, k, v) in SHAPES.items():
        yield attention_case(f"softmax_attention: {name}", "softmax_attention", q, k, v, dtypes=EVERY_DTYPE, causal=True, **_ALL)
        yield attention_case(f"attention_row_stats: {name}", "attention_row_stats", q, k, topk=3)
        yield attention_case(f"attention_column_stats: {name}", "attention_column_stats", q, k, causal="upper_left")
        yield attention_case(f"attention_block_mass: {name}", "attention_block_mass", q, k, block_q=3, block_k=5)
        yield attention_case(f"attention_weights: {name}", "attention_weights", q, k, dtypes=(*FLOATS, "float16", "int32", "bool"))
        yield attention_case(f"attention_logits: {name}", "attention_logits", q, k, dtypes=(*FLOATS, "float16", "int32", "bool"))
    for name, options in {"plain": {}, "causal": {"causal": True}, "upper left": {"causal": "upper_left", "window": (2, 2)},
                          "options": {"scale": 0.5, "softcap": 2.0, "alibi_slopes": Draw("normal", (4,), 0.1), "sink_logits": Draw("normal", (4,))}}.items():
        yield attention_case(f"varlen_attention: {name}", "varlen_attention", _Q, _K, _V, dtypes=(*FLOATS, "bfloat16"),
                             cu_seqlens_q=[0, 0, 10, 50, 53], cu_seqlens_k=[0, 100, 101, 301, 301], return_lse=True, **options)
        yield Case(f"paged_attention: {name}", "paged_attention", _PAGES, {"return_lse": True, **options}, (*FLOATS, "float16"))
    blocks = Draw("mask", (4, 6, 5), 0.4)
    shapes = tuple(Draw("normal", shape) for shape in (_Q, _K, _V))
    for name, options in {"plain": {}, "causal": {"causal": True, "mask": Draw("mask", (53, 301), 0.7)},
                          "all results": {**_ALL, "window": (100, 3), "bias": Draw("masking bias", (301,), 0.1)}}.items():
        yield Case(f"block_sparse_attention: {name}", "block_sparse_attention", (*shapes, blocks), {"block_q": 10, "block_k": 64, **options},
                   (*FLOATS, "float16"))
    yield Case("block_sparse_attention: default blocks", "block_sparse_attention", (*shapes, Draw("mask", (1, 5), 0.5, "int32")))
    parts = (Draw("normal", (3, 2, 7, 5)), Draw("normal", (3, 2, 7), 5.0))
    yield Case("merge_partials", "merge_partials", parts, dtypes=(*FLOATS, "float16", "bfloat16"))
    yield Case("merge_partials on an inner axis", "merge_partials", (Draw("normal", (2, 4, 7, 5)), Draw("masking bias", (2, 4, 7), 0.5)), {"axis": -2})
    yield Case("merge_partials without lse", "merge_partials", parts, {"return_lse": False})


CASES = list(_all_cases())


# ---- the comparison --------------------------------------------------------------------------------------------------


def finite(x):
    """float64 with 0 for NaN and infinities."""
    x = np.asarray(x).astype(np.float64)
    return np.where(np.isfinite(x), x, 0.0)


def logit_size(q, k, *, scale=None, bias=None, alibi_slopes=None, q_offset=None, **_other):
    """A = |scale| max_ij sum_c |q_ic k_jc|, plus the largest bias and distance penalty: the size that errors of logits follow."""
    q, k = np.abs(finite(q)), np.abs(finite(k))
    if q.size == 0 or k.size == 0:
        return 0.0
    lq, lk, d = q.shape[-2], k.shape[-2], q.shape[-1]
    scale = d**-0.5 if scale is None else abs(scale)
    # Per head, the largest product over all pairs; heads are grouped by axis -3.
    if q.ndim > 2 and k.ndim > 2 and k.shape[-3] not in (1, q.shape[-3]) and q.shape[-3] != 1:
        k = np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    size = scale * float((q @ np.swapaxes(k, -1, -2)).max(initial=0.0))
    size += float(np.abs(finite(bias)).max(initial=0.0)) if bias is not None else 0.0
    if alibi_slopes is not None:
        size += float(np.abs(finite(alibi_slopes)).max()) * largest_distance(lq, lk, q_offset)
    return size


def largest_distance(lq, lk, q_offset):
    off = lk - lq if q_offset is None else q_offset
    return max(abs(off - lk + 1), abs(off), abs(lq - 1 + off), abs(lq + off - lk))


HALF_STEP = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}  # half a unit in the last place: relative, and near 0


def bounds(args, kwargs, equal_terms=False):
    """name of a result -> largest error allowed, as a number or a function of the expected value.

    With e = eps (1 + A) of the type that is computed in: out e max|v| and lse e sqrt(d) are the tested bounds of
    docs/numerics.md; weights and masses follow p's relative error, which is that of a logit twice. Sums of equal terms round the
    same way at every step: with `equal_terms` errors may grow with the number of terms, d of a logit and 256 of a tile's values.
    """
    q, k = args[:2]
    if len(args) == 5 and np.ndim(k) == 4:  # pages of keys
        k = np.reshape(k, (-1, k.shape[-1]))
    wide = any(np.asarray(x).dtype.kind in "bi" or np.asarray(x).dtype == np.float64 for x in args[:3] if hasattr(x, "dtype"))
    eps = 2.0**-51 if wide else 2.0**-23  # the twin itself rounds in float64
    e = eps * (1 + logit_size(q, k, **{n: x for n, x in kwargs.items() if n in ("scale", "bias", "alibi_slopes", "q_offset")}))
    lq, lk, d = q.shape[-2], k.shape[-2], q.shape[-1]
    if equal_terms:
        e = e * max(d, 1) + eps / 2 * min(lk, 256)
    logits = e * max(d, 1) ** 0.5
    far = 1 + largest_distance(lq, lk, kwargs.get("q_offset"))
    spread = 1 + np.log(lk + 1.0)
    vmax = float(np.abs(finite(args[2])).max(initial=0.0)) / (1 - kwargs.get("dropout_p", 0.0)) if len(args) > 2 else 1.0
    weight = float(np.abs(finite(kwargs.get("row_weights", 1.0))).max(initial=0.0))
    rows = max(lq * weight, 1)
    mass = 2 * e
    return {
        "out": e * vmax, "lse": logits + eps * spread, "logits": logits, "weights": mass, "entropy": mass * spread, "purity": mass, "max_weight": mass,
        "sink_mass": mass, "sink_logit_mass": mass, "group_mass": mass, "topk_weight": mass, "distance": mass * far,
        "abs_distance": mass * far, "distance_sq": mass * far**2, "mean_logit": logits + mass * (e / eps), "received": mass * rows,
        "received_max": mass, "received_mean": mass * max(weight, 1.0), "blocks": mass * rows,
    }


RESULTS = {"attention_logits": ("logits",), "attention_weights": ("weights",), "attention_block_mass": ("blocks",)}


def named_results(function, result, kwargs):
    """(name, array) of everything in a result, in order."""
    if isinstance(result, dict):
        return list(result.items())
    if function in RESULTS:
        return list(zip(RESULTS[function], [result], strict=True))
    if function == "merge_partials":
        asked = ["lse"] if kwargs.get("return_lse", True) else []
    else:
        asked = ["lse"] if kwargs.get("return_lse") else []
        asked += ["weights"] if kwargs.get("return_weights") else []
        asked += ["stats"] if kwargs.get("stats") else []
    parts = result if asked else (result,)
    named = list(zip(["out", *asked], parts, strict=True))
    if named[-1][0] == "stats":
        named[-1:] = named[-1][1].items()
    return named


INDICES = ("argmax", "topk_index")
COUNTS = ("n_allowed", "visible")
AS_INPUT = ("out", "logits", "weights")  # results in the type of the inputs; all others are float32 for half inputs


def expected_dtype(name, args):
    """The dtype of a result under the rule that all functions share."""
    if name in INDICES + COUNTS:
        return np.dtype(np.int64)
    names = {np.asarray(x).dtype.name for x in args if hasattr(x, "dtype") and np.asarray(x).dtype.name != "int64"}
    if len(names) == 1 and (half := names & set(HALF_STEP)):
        return dtype_of(half.pop()) if name in AS_INPUT else np.dtype(np.float32)
    return np.dtype(np.float32 if names <= {"float32", *HALF_STEP} else np.float64)


def compare(case, got, want, args, kwargs, equal_terms=False):
    """Names, order, shapes, dtypes and values of a result against the twin's."""
    got, want = (named_results(case.function, x, kwargs) for x in (got, want))
    assert [name for name, _ in got] == [name for name, _ in want]
    floats = args[:3] if len(args) > 2 and case.function != "merge_partials" else args[:2]
    limits = bounds(args, kwargs, equal_terms) if case.function != "merge_partials" else None
    expected = dict(want)
    for name, x in got:
        y = expected[name]
        assert x.shape == y.shape, (name, x.shape, y.shape)
        assert x.dtype == expected_dtype(name, floats), (name, x.dtype)
        if name in COUNTS:
            np.testing.assert_array_equal(x, y, err_msg=name)
        elif name in INDICES:
            _compare_indices(name, x, y, case, args, kwargs, limits)
        else:
            limit = limits[name] if limits else _merge_limit(x.dtype, args)
            assert_within(name, x, y, limit)


def _merge_limit(dtype, args):
    eps = 2.0**-51 if dtype == np.float64 else 2.0**-23
    return 4 * eps * (1 + float(np.abs(finite(args[1])).max(initial=0.0))) * (1 + float(np.abs(finite(args[0])).max(initial=0.0)))


def assert_within(name, got, want, limit):
    """|got - want| <= limit, plus half a step of a half type; NaN and infinities at the same places."""
    relative, absolute = HALF_STEP.get(got.dtype.name, (0.0, 0.0))
    got = got.astype(np.float64)
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{name}: NaN at other places"
    infinite = np.isinf(want)
    assert np.array_equal(got[infinite], want[infinite]) and not np.isinf(got[~infinite]).any(), f"{name}: infinities at other places"
    with np.errstate(invalid="ignore"):
        error = np.where(np.isfinite(want), np.abs(got - want), 0.0)
        allowed = limit + np.where(np.isfinite(want), np.maximum(relative * (1 + 2 * limit) * np.abs(want), absolute), 0.0)
    if error.size:
        worst = np.unravel_index(np.argmax(error - allowed), error.shape)
        assert (error <= allowed).all(), f"{name}{worst}: {got[worst]!r} instead of {want[worst]!r}, off by {error[worst]:.3g} with {limit:.3g} allowed"


def _compare_indices(name, got, want, case, args, kwargs, limits):
    """The same keys, but for keys whose logits are closer than rounding."""
    assert np.array_equal(got < 0, want < 0), name
    names = set("scale causal mask bias window alibi_slopes softcap q_offset".split())
    s = attnkit.reference.attention_logits(*args[:2], **{n: x for n, x in kwargs.items() if n in names})
    if case.function == "block_sparse_attention":
        s = np.broadcast_to(s, (*want.shape, s.shape[-1]))
    if name == "argmax":
        got, want = got[..., None], want[..., None]
    if s.shape[-1] == 0:
        return
    a, b = (np.take_along_axis(s, np.maximum(x, 0), axis=-1) for x in (got, want))
    with np.errstate(invalid="ignore"):
        assert (np.where(got == want, 0.0, np.abs(a - b)) <= 2 * limits["logits"]).all(), name
