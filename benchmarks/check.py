"""Is a result right? Every call is compared with attnkit's float64 reference before its speed is taken."""

import numpy as np

from attnkit import reference

from .grid import STATISTICS, machine_epsilon

RELATIVE = {"purity", "max_weight", "received"}  # always positive: the error is held against the value itself
ROW_BLOCK = 512


class Reference:
    """Sampled rows of a case in float64, and how far a result may be from them.

    The bound of an output is 2 eps (1 + A) max|v| with A = scale * max_ij sum_c |q_ic k_jc| over the sampled rows and eps
    of the dtype: twice what attnkit promises, because the libraries differ in their order of summation. Statistics are sums of the
    same terms and get four times as much, of the value or of 1 where the value may vanish.
    """

    def __init__(self, case):
        arrays = {name: array if array.dtype == bool else array.astype(np.float64) for name, array in case.inputs().items()}
        rows = case.sample()
        parts = [self._rows(case, arrays, rows, head) for head in range(case.key_heads)]
        self.values = {name: np.concatenate([part[name] for part in parts]) for name in ("out", *STATISTICS)}
        self.size = max(part["size"] for part in parts)  # A of the class docstring
        self.largest = np.abs(arrays["v"]).max()
        self.epsilon = machine_epsilon(case.dtype)
        if case.kind == "received":
            blocks = [np.arange(i, min(i + ROW_BLOCK, case.lq)) for i in range(0, case.lq, ROW_BLOCK)]
            received = [
                sum(self._rows(case, arrays, block, head, columns=True)["received"] for block in blocks)
                for head in range(case.key_heads)
            ]
            self.values["received"] = np.concatenate(received)

    def _rows(self, case, arrays, rows, head, columns=False):
        group = case.heads // case.key_heads
        q = arrays["q"][head * group : (head + 1) * group][:, rows]
        k, v = arrays["k"][head : head + 1], arrays["v"][head : head + 1]
        allowed = arrays["mask"][rows] if "mask" in arrays else case.allowed(rows)
        bias = arrays["bias"][rows] if "bias" in arrays else None
        if columns:
            _, p = reference.softmax_attention(q, k, v, mask=allowed, bias=bias, return_weights=True)
            return {"received": p.sum(axis=-2)}
        out, stats = reference.softmax_attention(q, k, v, mask=allowed, bias=bias, stats=STATISTICS)
        size = (np.abs(q) @ np.abs(k).swapaxes(-1, -2)).max() / case.d**0.5
        return {"out": out, "size": size, **stats}

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
