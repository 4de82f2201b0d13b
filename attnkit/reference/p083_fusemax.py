"""FuseMax (arXiv 2406.10491): attention as a cascade, and its operations counted one by one."""

import numpy as np

from . import _common as c
from .softmax import softmax_attention


def attention_cascade(q, k, v, *, passes=1, block=64, defer_division=True, scale=None):
    """softmax_attention of 2-D arrays: passes, block and defer_division change the order of work, not the result."""
    check_passes(passes)
    c.as_int("block", block, minimum=1)
    check_flag("defer_division", defer_division)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if np.ndim(x) != 2:
            raise ValueError(f"{name} needs shape (length, features), got {np.shape(x)}")
    return softmax_attention(q, k, v, scale=scale)


def check_passes(passes):
    passes = c.as_int("passes", passes)
    if passes not in (1, 2, 3):
        raise ValueError(f"passes must be 1, 2 or 3, got {passes}")
    return passes


def check_flag(name, flag):
    if not isinstance(flag, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {type(flag).__name__}")
    return bool(flag)


def cascade_counts(Lq, Lk, d, dv, *, passes=1, block=64, defer_division=True):
    """Operations of one head without a mask, counted by walking through the cascade of one row."""
    lq, lk, d, dv = (c.as_int(n, x, minimum=0) for n, x in (("Lq", Lq), ("Lk", Lk), ("d", d), ("dv", dv)))
    block = c.as_int("block", block, minimum=1)
    passes, defer = check_passes(passes), check_flag("defer_division", defer_division)
    row = dict.fromkeys(("mac", "max", "exp", "add", "mul", "div"), 0)
    for start in range(0, lk, block):
        for _ in range(start, min(start + block, lk)):
            row["mac"] += d + dv            # a logit, and its share of the output
            row["max"] += 1
            row["exp"] += 1
            row["add"] += 1                 # into the denominator
            if passes == 3 and not defer:
                row["div"] += 1             # N / D
            if passes == 2 and not defer:
                row["mul"] += 1             # n times its block's factor c / D
        if passes < 3:
            row["max"] += 1                 # local maximum into the row's
            row["exp"] += 1                 # factor of the block
            row["mul"] += 1                 # times the denominator
        if passes == 1 or passes == 2 and defer:
            row["mul"] += dv                # times the partial output
        if passes == 2 and not defer:
            row["div"] += 1                 # c / D
    if defer or passes == 1:
        row["div"] += dv
    counts = {name: lq * n for name, n in row.items()}
    counts["row_footprint"] = block if passes == 1 else lk
    counts["passes"] = 2 if passes == 3 and defer else passes
    return counts
