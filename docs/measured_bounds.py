"""Print measured errors beside the bounds of docs/numerics.md: python docs/measured_bounds.py

Each line is the largest error over a few seeds, as a fraction of the tested bound (column "tested") and of the proved one
(column "proved"). The tested bound of the log-sum-exp adds half an ULP of it. References are NumPy's: float64 for float32, extended precision for float64.
"""

import math

import numpy as np

import attnkit

CHUNK = 4096
SEEDS = 5
CASES = [(lk, d, size, kind)
         for kind in ("random", "cancelling", "equal") for lk in (256, 4096, 32768) for d in (16, 128) for size in (0.3, 1.0, 4.0)]


def gamma(n, u):
    return n * u / (1 - n * u)


def problem(lk, d, size, kind, seed, dtype):
    rng = np.random.default_rng(seed)
    q, k, v = (size * rng.standard_normal((n, d)) for n in (8, lk, lk))
    if kind == "equal":  # every term of a sum rounds the same way
        q, k, v = (np.ones_like(x) * rng.uniform(0.5, 2) * (size if x is q else 1) for x in (q, k, v))
    if kind == "cancelling":  # products of a hundred times the size whose sum is small: |s| says nothing about the error
        half = d // 2
        q[:, half:] = q[:, :half] = 100 * q[:, :half]
        k[:, half:] = -k[:, :half] + 1e-3 * k[:, half:]
    return [x.astype(dtype) for x in (q, k, v)]


def exact(q, k, v, scale):
    s = scale * (q @ k.T)
    top = s.max(-1, keepdims=True)
    e = np.exp(s - top)
    total = e.sum(-1, keepdims=True)
    p = e / total
    entropy = np.log(total) + (p * (top - s)).sum(-1, keepdims=True)
    return p @ v, (top + np.log(total))[:, 0], entropy[:, 0]


def fractions(lk, d, size, kind, dtype, wide):
    eps = np.finfo(dtype).eps
    u = float(eps) / 2
    levels = math.ceil(math.log2(-(-lk // CHUNK)))
    constant = (341 if dtype is np.float32 else 356) + 5 * levels
    worst = np.zeros(4)
    for seed in range(SEEDS):
        q, k, v = problem(lk, d, size, kind, seed, dtype)
        scale = d**-0.5
        a = scale * float((np.abs(q).astype(wide) @ np.abs(k).astype(wide).T).max())
        out, lse, _ = exact(q.astype(wide), k.astype(wide), v.astype(wide), wide(scale))
        got, got_lse = attnkit.softmax_attention(q, k, v, return_lse=True)
        err, err_lse = float(np.abs(got - out).max()), float(np.abs(got_lse - lse).max())
        largest = float(np.abs(v).max())
        worst = np.maximum(worst, [
            err / (eps * (1 + a) * largest),
            err / (largest * (gamma(d + 5, u) * a + gamma(constant, u))),
            max(err_lse - u * float(np.abs(lse).max()), 0) / (eps * math.sqrt(d) * (1 + a)),
            err_lse / (gamma(d + 5, u) * a + gamma(83 + 4 * levels, u) + gamma(5, u) * (a + math.log(lk))),
        ])
    return worst


def main():
    for dtype, wide in ((np.float32, np.float64), (np.float64, np.longdouble)):
        print(f"{np.dtype(dtype).name:8} {'':32} {'output':>14}   {'log-sum-exp':>14}")
        print(f"{'Lk':>6} {'d':>4} {'size':>5} {'kind':12}{'':13} tested  proved   tested  proved")
        cases = CASES if dtype is np.float32 else [c for c in CASES if c[0] <= 4096 and c[1] == 128]
        for case in cases:
            print("{:6} {:4} {:5} {:12}{:13}".format(*case, ""), "{:7.4f} {:7.4f}  {:7.4f} {:7.4f}".format(*fractions(*case, dtype, wide)))


if __name__ == "__main__":
    main()
