"""What is measured: cases made of the rows of tests/cases.py, and the sample of rows on which results are compared."""

import importlib.util
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

MAX_FLOPS = 1.1e11  # about a second on one core; larger cells get fewer heads
WINDOW = 256
GROUP = 4  # query heads per key head in grouped cases
VARIANTS = ("plain", "causal", "window", "grouped", "bias", "mask")
STATISTICS = ("lse", "entropy", "max_weight", "purity")
SHORT = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}
KINDS = {
    "grid": "the forward pass over lengths, features, heads, variants and threads",
    "decode": "one query against keys and values beyond every cache",
    "statistics": "what four row statistics add to the forward pass",
    "received": "output, entropy and received attention at once, against the map in PyTorch and NumPy",
    "double": "the forward pass in float64",
    "half": "float16 and bfloat16 in and out, against float32",
    "tiny": "calls that are all overhead",
    "scaling": "two threads against one",
    "curve": "time and memory against the length, with plots",
    "import": "import attnkit after import numpy",
}


@cache
def test_rows():
    """The module tests/cases.py. It imports attnkit, so only the parent process loads it."""
    path = Path(__file__).resolve().parent.parent / "tests" / "cases.py"
    spec = importlib.util.spec_from_file_location("benchmarks.test_rows", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Case:
    """One problem: `heads` query heads of `lq` x `lk` pairs with `d` features, on `threads` threads."""

    kind: str
    variant: str
    lq: int
    lk: int
    d: int
    heads: int
    dtype: str = "float32"
    threads: int = 1

    @property
    def id(self):
        length = f"L{self.lk}" if self.lq == self.lk else f"L{self.lq}x{self.lk}"
        return f"{self.kind}/{self.variant}/{length}/d{self.d}/h{self.heads}/{SHORT[self.dtype]}/t{self.threads}"

    @property
    def key_heads(self):
        return self.heads // GROUP if self.variant == "grouped" else self.heads

    @property
    def row(self):
        """The row of tests/cases.py that says what is called on what."""
        rows = test_rows()
        if self.lq == self.lk:
            return rows.grid_case(self.lk, self.d, self.key_heads, self.variant, self.dtype)
        shapes = (self.heads, self.lq, self.d), (self.key_heads, self.lk, self.d)
        return rows.attention_case(self.id, "softmax_attention", *shapes, shapes[1], dtypes=(self.dtype,), **self.options)

    @property
    def options(self):
        """Options of `softmax_attention` that are not arrays."""
        return {"causal": {"causal": True}, "window": {"causal": True, "window": (WINDOW, 0)}}.get(self.variant, {})

    @property
    def key_bytes(self):
        """Bytes of keys and values."""
        return 2 * self.key_heads * self.lk * self.d * itemsize(self.dtype)

    @property
    def flops(self):
        """Useful floating-point operations of Q K^T and P V, as the row counts them; the exponentials are not in it."""
        return self.row.flops

    @property
    def limit(self):
        """Which of the machine's limits the case is held against."""
        if self.kind == "tiny":
            return None
        return "read" if self.lq == 1 and self.key_bytes >= 64 << 20 else "float64" if self.dtype == "float64" else "float32"

    def inputs(self):
        """Dict of q, k, v and, by variant, bias or mask, drawn for the row."""
        args, options = self.row.make_inputs(np.random.default_rng([self.lq, self.lk, self.d, self.heads]), self.dtype)
        arrays = dict(zip("qkv", args, strict=True))
        arrays |= {name: options.pop(name) for name in ("bias", "mask") if name in options}
        if options != self.options:
            raise ValueError(f"{self.id} is timed with {self.options}, but tests/cases.py says {options}")
        if "mask" in arrays:
            own = np.arange(self.lq)
            arrays["mask"][..., own, own + self.lk - self.lq] = True  # no empty row: libraries differ on those
        return arrays

    def allowed(self, rows):
        """Boolean (rows, lk) of the pairs that causal and window allow, or None for all."""
        delta = rows[:, None] + (self.lk - self.lq) - np.arange(self.lk)
        if self.variant == "causal":
            return delta >= 0
        if self.variant == "window":
            return (delta >= 0) & (delta <= WINDOW)
        return None

    def sample(self):
        """Rows on which results are compared: all of a short case, else both ends, the middle and 24 drawn ones."""
        if self.lq <= 64:
            return np.arange(self.lq)
        drawn = np.random.default_rng(self.lq).integers(0, self.lq, 24)
        fixed = [0, 1, self.lq // 2 - 1, self.lq // 2, self.lq - 2, self.lq - 1]
        return np.unique(np.concatenate([drawn, fixed]))


def itemsize(dtype):
    return {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[dtype]


def numpy_dtype(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def known(dtype):
    """Whether NumPy knows the dtype here; bfloat16 needs ml_dtypes."""
    try:
        numpy_dtype(dtype)
    except ImportError:
        return False
    return True


def machine_epsilon(name):
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}[name]


def capped(case):
    """The case with as many heads as fit into MAX_FLOPS."""
    while case.flops > MAX_FLOPS and case.key_heads > 1:
        case = replace(case, heads=case.heads // 2)
    return case


def in_quick(variant, length, d, heads, threads):
    """A cell of the grid in each corner that differs, none of them long."""
    few_heads = length == 4096 or length == 1024 and variant == "grouped"
    return threads == 1 and length > 1 and d in ((64, 128) if variant in ("plain", "causal") else (64,)) and heads == (1 if few_heads else 8)


def grid(quick):
    for threads in (1, 2):
        for variant in VARIANTS:
            for length in (1, 16, 128, 1024, 4096):
                for d in (32, 64, 80, 128, 256):
                    for heads in (1, 8):
                        if quick and not in_quick(variant, length, d, heads, threads):
                            continue
                        queries = heads * GROUP if variant == "grouped" else heads
                        yield capped(Case("grid", variant, length, length, d, queries, threads=threads))


def cases(kind, quick=False):
    """List of the cases of one kind, without repetitions."""
    both = (1,) if quick else (1, 2)
    if kind == "grid":
        rows = grid(quick)
    elif kind == "decode":
        shapes = [("plain", 8, 32768, 128, "float32"), ("grouped", 32, 32768, 128, "float32"), ("plain", 8, 65536, 64, "float32")]
        shapes += [("plain", 8, 65536, 128, "float16"), ("plain", 8, 65536, 128, "bfloat16"), ("plain", 8, 16384, 128, "float64")]
        rows = [Case(kind, v, 1, n, d, h, dtype, t) for v, h, n, d, dtype in shapes[: 1 if quick else None] for t in both]
    elif kind == "statistics":
        shapes = [("plain", 4096, 1), ("causal", 4096, 1), ("plain", 1024, 8), ("plain", 128, 8)]
        rows = [Case(kind, v, n, n, d, h) for v, n, h in shapes[: 1 if quick else None] for d in (64, 128)]
    elif kind == "received":
        rows = [Case(kind, v, 8192, 8192, 64, 1, threads=t) for v in ("plain", "causal")[: len(both)] for t in both]
    elif kind == "double":
        shapes = [("plain", 4096, 1), ("causal", 4096, 1), ("plain", 128, 8)]
        rows = [Case(kind, v, n, n, d, h, "float64") for v, n, h in shapes[: 1 if quick else None] for d in (64, 128)]
    elif kind == "half":
        shapes = [("plain", 4096, 1), ("causal", 4096, 1), ("plain", 128, 8)]
        dtypes = ("float16", "bfloat16")
        rows = [Case(kind, v, n, n, d, h, t) for t in dtypes for v, n, h in shapes[: 1 if quick else None] for d in (64, 128)]
    elif kind == "tiny":
        rows = [Case(kind, "plain", n, n, d, 1) for n, d in ((8, 8), (16, 64))]
    elif kind == "scaling":
        shapes = [("plain", 4096, 1), ("causal", 4096, 1), ("plain", 1024, 8), ("plain", 128, 8)]
        rows = [Case(kind, v, n, n, d, h, threads=2) for v, n, h in shapes[: 1 if quick else None] for d in (64, 128)]
    elif kind == "curve":
        lengths = (256, 1024, 4096) if quick else (256, 512, 1024, 2048, 4096, 8192, 16384)
        rows = [Case(kind, "plain", n, n, 64, 1) for n in lengths]
    else:
        raise ValueError(f"no cases of kind {kind!r}")
    return list(dict.fromkeys(rows))
