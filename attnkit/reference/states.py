"""The streaming form of the row statistics: a state per row, updates, merges and the final formulas.

One row at a time and one key at a time, as the definitions read.  A state is a dict of arrays with a leading
axis of rows: m (largest logit), am (its key), l = sum e^(s-m), l1 = l without the term of am,
t = sum e^(s-m) (s-m), r2 = sum e^(2(s-m)), d1 and d2 = sum e^(s-m) delta and delta^2, g (n, G) sums per group,
acc (n, dv) = sum e^(s-m) v, tv and ti (n, K) the K largest logits and their keys.
"""

import math

import numpy as np

from . import _common as c

SUMS = ("l", "l1", "t", "r2", "d1", "d2", "g", "acc")
KEYS = ("m", "am", *SUMS, "tv", "ti")


def row_state_init(n_rows, *, dv=0, n_groups=0, topk=0):
    """The state of no keys: the identity of row_state_merge."""
    n = c.as_int("n_rows", n_rows, minimum=0)
    dv, n_groups, topk = (c.as_int(name, x, minimum=0)
                          for name, x in (("dv", dv), ("n_groups", n_groups), ("topk", topk)))
    state = {name: np.zeros(n) for name in ("l", "l1", "t", "r2", "d1", "d2")}
    state |= {"m": np.full(n, -np.inf), "am": np.full(n, -1, np.int64), "g": np.zeros((n, n_groups)),
              "acc": np.zeros((n, dv)), "tv": np.full((n, topk), -np.inf), "ti": np.full((n, topk), -1, np.int64)}
    return state


def check_state(name, st):
    """The state as a dict of float64 (int64 for am, ti) arrays with consistent shapes."""
    if not isinstance(st, dict):
        raise TypeError(f"{name} must be a row state (a dict), got {type(st).__name__}")
    missing = [key for key in KEYS if key not in st]
    if missing:
        raise ValueError(f"{name} lacks the entries {', '.join(missing)}")
    st = {key: np.asarray(st[key], np.int64 if key in ("am", "ti") else np.float64) for key in KEYS}
    n = st["m"].shape
    for key in KEYS:
        if st[key].shape[:1] != n or st[key].ndim != (2 if key in ("g", "acc", "tv", "ti") else 1):
            raise ValueError(f"{name}[{key!r}] has shape {st[key].shape}, which does not fit {n} rows of m")
    if st["tv"].shape != st["ti"].shape:
        raise ValueError(f"{name}: tv {st['tv'].shape} and ti {st['ti'].shape} differ")
    return st


def row_state_update(state, s_block, j0, pos, *, v_block=None, groups_block=None):
    """Absorb logits (R, C) of keys j0 .. j0+C-1 for rows at positions pos: the block's own state, merged."""
    state = check_state("state", state)
    n, dv, n_groups, topk = len(state["m"]), state["acc"].shape[1], state["g"].shape[1], state["tv"].shape[1]
    s = c.as_float64("s_block", s_block)
    if s.ndim != 2 or len(s) != n:
        raise ValueError(f"s_block needs shape ({n}, C), got {s.shape}")
    j0 = c.as_int("j0", j0)
    pos = c.broadcast("pos", c.as_int_array("pos", pos), (n,))
    if (dv > 0) != (v_block is not None):
        raise ValueError(f"v_block must be given exactly when the state has values (dv = {dv})")
    if (n_groups > 0) != (groups_block is not None):
        raise ValueError(f"groups_block must be given exactly when the state has groups (n_groups = {n_groups})")
    v = np.zeros((s.shape[1], 0)) if v_block is None else c.as_float64("v_block", v_block)
    if v.shape != (s.shape[1], dv):
        raise ValueError(f"v_block needs shape ({s.shape[1]}, {dv}), got {v.shape}")
    groups = np.full(s.shape[1], -1) if groups_block is None else c.as_int_array("groups_block", groups_block)
    if groups.shape != (s.shape[1],):
        raise ValueError(f"groups_block needs shape ({s.shape[1]},), got {groups.shape}")

    block = row_state_init(n, dv=dv, n_groups=n_groups, topk=topk)
    for i in range(n):
        keys = [j for j in range(s.shape[1]) if s[i, j] != -np.inf]
        if any(np.isnan(s[i, j]) for j in keys):
            spoil(block, i)
        elif keys:
            absorb(block, i, s[i], keys, j0, int(pos[i]), v, groups)
    return row_state_merge(state, block)


def absorb(block, i, s, keys, j0, pos, v, groups):
    """State of one row over its allowed keys, none of them NaN."""
    best = max(keys, key=lambda j: (s[j], -j))
    m = block["m"][i] = s[best]
    block["am"][i] = j0 + best
    for j in keys:
        fall = 0.0 if s[j] == m else s[j] - m
        e, delta = math.exp(fall), pos - (j0 + j)
        block["l"][i] += e
        block["l1"][i] += 0.0 if j == best else e
        block["t"][i] += e * fall if e > 0 else 0.0
        block["r2"][i] += e * e
        block["d1"][i] += e * delta
        block["d2"][i] += e * delta**2
        if 0 <= groups[j] < block["g"].shape[1]:
            block["g"][i, groups[j]] += e
        with np.errstate(all="ignore"):
            block["acc"][i] += e * v[j]
    top = sorted(keys, key=lambda j: (-s[j], j))[: block["tv"].shape[1]]
    block["tv"][i, : len(top)] = [s[j] for j in top]
    block["ti"][i, : len(top)] = [j0 + j for j in top]


def spoil(state, i):
    """The state of a row that has met a NaN."""
    for key in ("m", *SUMS, "tv"):
        state[key][i] = np.nan
    state["am"][i] = state["ti"][i] = -1


def row_state_merge(x, y):
    """Merge the states of two disjoint sets of keys."""
    x, y = check_state("x", x), check_state("y", y)
    for key in KEYS:
        if x[key].shape != y[key].shape:
            raise ValueError(f"x[{key!r}] has shape {x[key].shape} but y[{key!r}] has {y[key].shape}")
    n, topk = x["tv"].shape
    z = row_state_init(n, dv=x["acc"].shape[1], n_groups=x["g"].shape[1], topk=topk)
    for i in range(n):
        if np.isnan(x["m"][i]) or np.isnan(y["m"][i]):
            spoil(z, i)
            continue
        sides = [st for st in (x, y) if st["m"][i] != -np.inf]
        if not sides:
            continue
        winner = min(sides, key=lambda st: (-st["m"][i], st["am"][i]))
        m = z["m"][i] = winner["m"][i]
        z["am"][i] = winner["am"][i]
        for st in sides:
            r = rescaled(st, i, m)
            for key in SUMS:
                z[key][i] += r["l" if key == "l1" and st is not winner else key]
        top = sorted(((-st["tv"][i, a], st["ti"][i, a]) for st in sides for a in range(topk)
                      if st["ti"][i, a] >= 0))[:topk]
        for a, (value, j) in enumerate(top):
            z["tv"][i, a], z["ti"][i, a] = -value, j
    return z


def rescaled(st, i, m):
    """The sums of row i with reference maximum m >= its own."""
    own = st["m"][i]
    with np.errstate(all="ignore"):
        a = 1.0 if own == m else math.exp(own - m)
        shift = 0.0 if own == m or a == 0.0 else own - m
        r = {key: a * st[key][i] for key in ("l", "l1", "d1", "d2", "g", "acc")}
        r["t"] = a * (st["t"][i] + shift * st["l"][i])
        r["r2"] = a * a * st["r2"][i]
    return r


def row_state_finish(st, *, sink_logits=None):
    """Final statistics of every row; a sink logit joins the normaliser, the entropy and the purity only."""
    st = check_state("st", st)
    n, topk = st["tv"].shape
    sink = np.full(n, -np.inf) if sink_logits is None else c.broadcast(
        "sink_logits", c.as_float64("sink_logits", sink_logits), (n,))
    result = {name: np.zeros(n) for name in ("lse", "entropy", "purity", "max_weight", "distance", "distance_sq",
                                             "mean_logit")}
    result |= {"argmax": st["am"].copy(), "group_mass": np.zeros(st["g"].shape), "out": np.zeros(st["acc"].shape),
               "topk_index": st["ti"].copy(), "topk_weight": np.zeros((n, topk))}
    for i in range(n):
        a, own = sink[i], st["m"][i]
        if np.isnan(a) or np.isnan(own):
            for name, value in result.items():
                value[i] = -1 if name in ("argmax", "topk_index") else np.nan
            continue
        m = max(own, a)
        if m == -np.inf:
            result["lse"][i] = -np.inf
            continue
        r = rescaled(st, i, m) if own != -np.inf else {key: 0.0 * st[key][i] for key in SUMS}
        e_sink = 0.0 if a == -np.inf else 1.0 if a == m else math.exp(a - m)
        fall = 0.0 if e_sink == 0.0 or a == m else a - m
        l1 = r["l1"] + e_sink if own == m else r["l"]
        total = 1.0 + l1
        e_keys = 0.0 if own == -np.inf else 1.0 if own == m else math.exp(own - m)
        result["lse"][i] = m + math.log1p(l1)
        result["entropy"][i] = math.log1p(l1) - (r["t"] + e_sink * fall) / total
        result["purity"][i] = (r["r2"] + e_sink**2) / total**2
        result["max_weight"][i] = e_keys / total
        result["distance"][i], result["distance_sq"][i] = r["d1"] / total, r["d2"] / total
        result["group_mass"][i] = r["g"] / total
        with np.errstate(all="ignore"):
            result["out"][i] = r["acc"] / total
        if e_keys > 0:
            # sum p s = (mass of the keys) * (their mean logit)
            result["mean_logit"][i] = r["l"] / total * (own + st["t"][i] / st["l"][i])
        for b in range(topk):
            if st["ti"][i, b] >= 0:
                s = st["tv"][i, b]
                result["topk_weight"][i, b] = (1.0 if s == m else math.exp(s - m)) / total
    return result
