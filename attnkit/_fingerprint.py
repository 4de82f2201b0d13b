"""One number for the numerics of this build: equal on every machine, target and thread count, or something is broken."""

import functools
import hashlib
import itertools

import numpy as np

from . import exact, masks

_SHAPES = ((1, 1, 1, 1), (1, 70, 8, 5), (3, 17, 16, 16), (7, 64, 20, 24), (50, 50, 32, 8), (13, 300, 4, 40))  # Lq, Lk, d, dv
_OPTIONS = ("plain", "causal", "window", "softcap", "alibi", "bias", "sink", "mask", "upper_left", "offset")


def _numbers(n, seed):
    """n numbers in [-2, 2), multiples of 2^-20: exact in float32, made by integer arithmetic alone."""
    x = np.arange(n, dtype=np.uint32) + np.uint32(seed * 7919 % 2**32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return ((x >> np.uint32(10)).astype(np.float64) - 2.0**21) * 2.0**-20


def _options(word, lq, lk, seed):
    return {
        "plain": {},
        "causal": {"causal": True},
        "window": {"window": (5, 2)},
        "softcap": {"softcap": 1.5},
        "alibi": {"alibi_slopes": [0.25, 0.0625], "causal": True},
        "bias": {"bias": np.where(_numbers(lq * lk, seed) > 1.5, -np.inf, _numbers(lq * lk, seed + 1)).reshape(lq, lk)},
        "sink": {"sink_logits": [0.5, -1.0]},
        "mask": {"mask": masks.window(9, sinks=2, dilation=2) | masks.prefix(3)},
        "upper_left": {"causal": "upper_left"},
        "offset": {"causal": True, "q_offset": lk // 2},
    }[word]


@functools.cache
def fingerprint():
    """SHA-256 over the results of 1,080 small problems.

    Returns
    -------
    str
        Hexadecimal digest. A change of any bit of any result changes it; it is part of the release notes.

    Examples
    --------
    >>> from attnkit._fingerprint import fingerprint
    >>> len(fingerprint())
    64
    """
    digest = hashlib.sha256()
    cases = itertools.product(_SHAPES, _OPTIONS, (np.float32, np.float64, np.float16), (0.25, 1.0, 8.0), (0, 1))
    for seed, ((lq, lk, d, dv), word, dtype, scale, grouped) in enumerate(cases):
        heads = 1 if grouped else 2
        q = _numbers(2 * lq * d, seed).reshape(2, lq, d).astype(dtype)
        k = _numbers(heads * lk * d, seed + 1).reshape(heads, lk, d).astype(dtype)
        v = _numbers(heads * lk * dv, seed + 2).reshape(heads, lk, dv).astype(dtype)
        options = _options(word, lq, lk, seed)
        out, stats = exact.softmax_attention(q, k, v, scale=scale, stats=("lse", "entropy", "purity", "max_weight", "argmax", "distance"), **options)
        digest.update(out.tobytes())
        for value in stats.values():
            digest.update(value.tobytes())
        for value in exact.attention_column_stats(q, k, scale=scale, **options).values():
            digest.update(value.tobytes())
    return digest.hexdigest()
