"""What is measured: case rows, their inputs, and the sample of rows on which results are compared."""

from dataclasses import dataclass, replace

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
    def pairs(self):
        """Pairs (query, key) of one head that count as useful work.

        Causal and window: the visible ones. A random mask leaves no tile empty, so all its pairs have to be computed.
        """
        rows = np.arange(self.lq, dtype=np.int64) + (self.lk - self.lq)  # position of each query
        if self.variant == "causal":
            return int((rows + 1).sum())
        if self.variant == "window":
            last = np.minimum(rows + WINDOW, self.lk - 1)
            return int((last - np.maximum(rows - WINDOW, 0) + 1).sum())
        return self.lq * self.lk

    @property
    def flops(self):
        """Useful floating-point operations of Q K^T and P V; the exponentials are not counted."""
        return 4.0 * self.pairs * self.d * self.heads

    @property
    def key_bytes(self):
        """Bytes of keys and values."""
        return 2 * self.key_heads * self.lk * self.d * itemsize(self.dtype)

    @property
    def limit(self):
        """Which of the machine's limits the case is held against."""
        if self.kind == "tiny":
            return None
        return "read" if self.lq == 1 and self.key_bytes >= 64 << 20 else "float64" if self.dtype == "float64" else "float32"

    def inputs(self):
        """Dict of q, k, v and, by variant, bias or mask: the same arrays in every process."""
        rng = np.random.default_rng([self.lq, self.lk, self.d, self.heads])
        dtype = numpy_dtype(self.dtype)
        real = np.float64 if self.dtype == "float64" else np.float32

        def normal(*shape):
            return rng.standard_normal(shape, dtype=real).astype(dtype, copy=False)

        arrays = {
            "q": normal(self.heads, self.lq, self.d),
            "k": normal(self.key_heads, self.lk, self.d),
            "v": normal(self.key_heads, self.lk, self.d),
        }
        if self.variant == "bias":
            arrays["bias"] = normal(self.lq, self.lk)
        if self.variant == "mask":
            arrays["mask"] = rng.random((self.lq, self.lk), dtype=np.float32) < 0.5
            own = np.arange(self.lq)
            arrays["mask"][own, own + self.lk - self.lq] = True  # no empty row: libraries differ on those
        return arrays

    def allowed(self, rows):
        """Boolean (rows, lk) of the pairs that the variant allows, or None for all; a given mask not included."""
        delta = rows[:, None] + (self.lk - self.lq) - np.arange(self.lk)
        if self.variant == "causal":
            return delta >= 0
        if self.variant == "window":
            return abs(delta) <= WINDOW
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


def grid(quick):
    lengths, features = ((16, 128, 1024, 4096), (64, 128)) if quick else ((1, 16, 128, 1024, 4096), (32, 64, 80, 128, 256))
    slow = ("grouped", "bias", "mask")
    for threads in (1, 2):
        for variant in VARIANTS:
            for length in lengths:
                for d in features:
                    for heads in (1, 8):
                        if quick and (threads == 2 or (heads == 8) == (length == 4096) or variant in slow and length == 4096):
                            continue
                        if variant == "grouped" and heads == 1:
                            heads = GROUP
                        yield capped(Case("grid", variant, length, length, d, heads, threads=threads))


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
