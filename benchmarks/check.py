"""Is a result right? Every call is compared with attnkit's float64 reference before its speed is taken."""

import numpy as np

from attnkit import reference

from .grid import STATISTICS, machine_epsilon, test_rows

RELATIVE = {"purity", "max_weight", "received"}  # always positive: the error is held against the value itself
ROW_BLOCK = 512


class Reference:
    """Sampled rows of a case in float64, and how far a result may be from them.

    The bound of an output is 2 eps (1 + A) max|v| with A the size of the logits as tests/cases.py defines it, over the
    sampled rows, and eps of the dtype: twice what attnkit promises, because libraries differ in their order of summation.
    Statistics are sums of the same terms and get four times as much, of the value or of 1 where the value may vanish.
    """

    def __init__(self, case, arrays):
        rows = case.sample()
        heads = range(case.key_heads)
        parts = [self._rows(case, arrays, rows, head) for head in heads]
        self.values = {name: np.concatenate([part[name] for part in parts]) for name in ("out", *STATISTICS)}
        self.size = max(part["size"] for part in parts)
        self.largest = max(part["largest"] for part in parts)
        self.epsilon = machine_epsilon(case.dtype)
        if case.kind == "received":
            blocks = [np.arange(i, min(i + ROW_BLOCK, case.lq)) for i in range(0, case.lq, ROW_BLOCK)]
            received = [sum(self._rows(case, arrays, block, head, columns=True) for block in blocks) for head in heads]
            self.values["received"] = np.concatenate(received)

    def _rows(self, case, arrays, rows, head, columns=False):
        """The reference on some rows of the queries that share key head `head`."""
        group = case.heads // case.key_heads
        these = slice(head * group, (head + 1) * group)
        q = arrays["q"][these, rows].astype(np.float64)
        k, v = (arrays[name][head : head + 1].astype(np.float64) for name in "kv")
        allowed = arrays["mask"][these, rows] if "mask" in arrays else case.allowed(rows)
        bias = arrays["bias"][these, rows].astype(np.float64) if "bias" in arrays else None
        if columns:
            _, p = reference.softmax_attention(q, k, v, mask=allowed, bias=bias, return_weights=True)
            return p.sum(axis=-2)
        out, stats = reference.softmax_attention(q, k, v, mask=allowed, bias=bias, stats=STATISTICS)
        return {"out": out, "size": test_rows().logit_size(q, k, bias=bias), "largest": np.abs(v).max(), **stats}

    def error(self, result):
        """Largest error of a result (dict of arrays) in units of the bound: above 1, or NaN, is wrong."""
        worst = 0.0
        for name, array in result.items():
            expected = self.values[name]
            if array.shape != expected.shape:
                return np.inf
            unit = self.epsilon * (1.0 + self.size)
            if name == "out":
                bound = 2 * unit * self.largest
            else:
                bound = 8 * unit * (expected if name in RELATIVE else np.maximum(1.0, np.abs(expected)))
            worst = np.maximum(worst, np.max(np.abs(array - expected) / bound))  # keeps NaN
        return float(worst)
