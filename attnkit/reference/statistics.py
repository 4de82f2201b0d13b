"""Statistics of the rows, columns and blocks of the attention map, from the map itself."""

import numpy as np

from . import _common as c

EXTRA_STATISTICS = ("abs_distance",)
ROW_STATISTICS = ("lse", "n_allowed", "entropy", "purity", "max_weight", "argmax", "sink_mass", "sink_logit_mass",
                  "distance", "distance_sq", "mean_logit", *EXTRA_STATISTICS)

COLUMN_STATISTICS = ("received", "received_max", "visible", "received_mean")


def attention_row_stats(q, k, *, topk=0, sink_size=4, groups=None, n_groups=None, sink_logits=None, scale=None,
                        causal=False, mask=None, bias=None, window=None, alibi_slopes=None, softcap=None,
                        q_offset=None, extra=()):
    """Dict of row statistics, arrays of shape (..., Lq); group_mass has an axis (G,), topk_* an axis (topk,).

    abs_distance = sum p abs(delta) comes only when `extra` names it.
    """
    q, k = c.check_qk(q, k)
    extra = check_names("extra", extra, EXTRA_STATISTICS)
    topk = c.as_int("topk", topk, minimum=0)
    sink_size = c.as_int("sink_size", sink_size, minimum=0)
    groups, n_groups = check_groups(groups, n_groups, k.shape[-2])
    s, delta = c.logits(q, k, scale=scale, causal=causal, mask=mask, bias=bias, window=window,
                        alibi_slopes=alibi_slopes, softcap=softcap, q_offset=q_offset)
    sink = c.sink_column(sink_logits, s.shape[:-1])
    stats = row_statistics(s, delta, sink, topk=topk, sink_size=sink_size, groups=groups, n_groups=n_groups)
    return {name: x for name, x in stats.items() if name not in EXTRA_STATISTICS or name in extra}


def check_names(argument, names, known):
    """Tuple of names of statistics; an unknown name lists the known ones."""
    if isinstance(names, str):
        names = (names,)
    if not hasattr(names, "__iter__"):
        raise TypeError(f"{argument} must be a name or a sequence of names, got {type(names).__name__}")
    names = tuple(names)
    for name in names:
        if name not in known:
            raise ValueError(f"{argument}: unknown name {name!r}, choose from {', '.join(known)}")
    return names


def row_statistics(s, delta, sink, *, topk, sink_size, groups, n_groups):
    """All row statistics of logits s (..., Lq, Lk) with a sink logit per row.

    In a row with a NaN logit every floating-point statistic is NaN, indices are -1 and counts stay counts.
    """
    p, p_sink, lse = c.normalised(s, sink)
    allowed = s != -np.inf
    lk = s.shape[-1]
    nan_row = np.isnan(lse)
    any_key = allowed.any(axis=-1)

    def over_keys(terms):
        return np.where(allowed, terms, 0.0).sum(axis=-1)

    with np.errstate(all="ignore"):
        stats = {
            "lse": lse,
            "n_allowed": allowed.sum(axis=-1),
            "entropy": row_entropy(s, sink),
            "purity": over_keys(p**2) + p_sink**2,
            "max_weight": p.max(axis=-1, initial=0.0),
            "argmax": np.where(any_key, s.argmax(axis=-1), -1) if lk else np.full(lse.shape, -1),
            "sink_mass": over_keys(np.where(np.arange(lk) < sink_size, p, 0.0)),
            "sink_logit_mass": p_sink,
            "distance": over_keys(p * delta),
            "distance_sq": over_keys(p * delta.astype(float) ** 2),
            "mean_logit": over_keys(np.where(p > 0, p * s, 0.0)),
            "abs_distance": over_keys(p * abs(delta)),
        }
    stats["group_mass"] = np.stack(
        [over_keys(np.where(groups == g, p, 0.0)) for g in range(n_groups)], axis=-1
    ) if n_groups else np.zeros(lse.shape + (0,))
    stats["topk_index"], stats["topk_weight"] = largest(s, p, topk)

    no_sink = sink == -np.inf
    for name, value in stats.items():
        rows = nan_row.reshape(nan_row.shape + (1,) * (value.ndim - nan_row.ndim))
        if name in ("argmax", "topk_index"):
            stats[name] = np.where(rows, -1, value).astype(np.int64)
        elif name == "n_allowed":
            stats[name] = value.astype(np.int64)
        elif name == "sink_logit_mass":
            stats[name] = np.where(rows & ~no_sink, np.nan, np.where(no_sink, 0.0, value))
        else:
            stats[name] = np.where(rows, np.nan, value)
    return stats


def row_entropy(s, sink):
    """-sum p ln p over the keys and the sink.

    Written as log1p(l - 1) + sum e (m - s) / l with e = exp(s - m), l = sum e: -p ln p itself loses all
    digits of a row whose mass sits on one key.
    """
    terms = np.concatenate([s, sink[..., None]], axis=-1)
    e, _, m = c.exponentials(terms, np.full(sink.shape, -np.inf))
    with np.errstate(all="ignore"):
        fall = np.where(e > 0, np.where(terms == m[..., None], 0.0, m[..., None] - terms), 0.0)
        first = np.arange(terms.shape[-1]) == terms.argmax(axis=-1)[..., None]
        rest = np.where(first, 0.0, e).sum(axis=-1)
        h = np.log1p(rest) + (e * fall).sum(axis=-1) / (1.0 + rest)
    return np.where(m == -np.inf, 0.0, np.where(np.isnan(m), np.nan, h))


def largest(s, p, topk):
    """Indices and weights of the topk largest logits per row, lower index first among equals."""
    order = np.argsort(-s, axis=-1, kind="stable")[..., :topk]
    some = np.take_along_axis(s, order, axis=-1) != -np.inf
    beyond = [(0, 0)] * (s.ndim - 1) + [(0, topk - order.shape[-1])]
    index = np.pad(np.where(some, order, -1), beyond, constant_values=-1)
    weight = np.pad(np.where(some, np.take_along_axis(p, order, axis=-1), 0.0), beyond)
    return index, weight


def check_groups(groups, n_groups, lk):
    """Group number per key (or None) and the number of groups; numbers outside 0..G-1 belong to no group."""
    if groups is None:
        if n_groups is not None:
            raise ValueError("n_groups needs groups, one integer per key")
        return None, 0
    groups = c.as_int_array("groups", groups)
    if groups.shape != (lk,):
        raise ValueError(f"groups needs shape ({lk},), one integer per key, got {groups.shape}")
    if n_groups is None:
        return groups, max(int(groups.max(initial=-1)) + 1, 0)
    return groups, c.as_int("n_groups", n_groups, minimum=0)


def attention_column_stats(q, k, *, rows=None, row_weights=None, sink_logits=None, lse=None, scale=None,
                           causal=False, mask=None, bias=None, window=None, alibi_slopes=None, softcap=None,
                           q_offset=None):
    """Dict of (..., Lk): received = sum_i w_i p_ij, received_max, visible, received_mean over the rows."""
    q, k = c.check_qk(q, k)
    s, _ = c.logits(q, k, scale=scale, causal=causal, mask=mask, bias=bias, window=window,
                    alibi_slopes=alibi_slopes, softcap=softcap, q_offset=q_offset)
    p = column_weights(s, c.sink_column(sink_logits, s.shape[:-1]), lse)
    w = np.ones(()) if row_weights is None else c.as_float64("row_weights", row_weights)
    w = c.broadcast("row_weights", w, s.shape[:-1])
    rows = c.select("rows", rows, s.shape[-2])
    return column_statistics((s != -np.inf)[..., rows, :], p[..., rows, :], w[..., rows])


def column_statistics(allowed, p, w):
    """All column statistics of weights p (..., Lq, Lk) with a weight w (..., Lq) of each row."""
    with np.errstate(all="ignore"):
        received = np.where(allowed, w[..., None] * p, 0.0).sum(axis=-2)
    visible = allowed.sum(axis=-2).astype(np.int64)
    return {
        "received": received,
        "received_max": p.max(axis=-2, initial=0.0),
        "visible": visible,
        "received_mean": received / np.maximum(visible, 1),
    }


def column_weights(s, sink, lse):
    """The map, normalised by its own lse or by the one given."""
    if lse is None:
        return c.normalised(s, sink)[0]
    return c.weights_with_lse(s, c.broadcast("lse", c.as_float64("lse", lse), s.shape[:-1]))


def attention_block_mass(q, k, *, block_q, block_k, reduce="sum", lse=None, scale=None, causal=False, mask=None,
                         bias=None, window=None, alibi_slopes=None, softcap=None, sink_logits=None, q_offset=None):
    """(..., ceil(Lq/block_q), ceil(Lk/block_k)): sum, max, mean (zero-padded) or row_mean of the block's weights."""
    block_q = c.as_int("block_q", block_q, minimum=1)
    block_k = c.as_int("block_k", block_k, minimum=1)
    if reduce not in ("sum", "max", "mean", "row_mean"):
        raise ValueError(f"reduce must be 'sum', 'max', 'mean' or 'row_mean', got {reduce!r}")
    q, k = c.check_qk(q, k)
    s, _ = c.logits(q, k, scale=scale, causal=causal, mask=mask, bias=bias, window=window,
                    alibi_slopes=alibi_slopes, softcap=softcap, q_offset=q_offset)
    p = column_weights(s, c.sink_column(sink_logits, s.shape[:-1]), lse)
    lq, lk = s.shape[-2:]
    mass = np.zeros(s.shape[:-2] + (-(-lq // block_q), -(-lk // block_k)))
    for a in range(mass.shape[-2]):
        for b in range(mass.shape[-1]):
            block = p[..., a * block_q:(a + 1) * block_q, b * block_k:(b + 1) * block_k]
            total = block.sum(axis=(-2, -1))
            mass[..., a, b] = {
                "sum": total,
                "max": block.max(axis=(-2, -1)),
                "mean": total / (block_q * block_k),
                "row_mean": total / block.shape[-2],
            }[reduce]
    return mass
