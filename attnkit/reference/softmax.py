"""Softmax attention from its definition: logits, output, weights."""

import numpy as np

from . import _common as c
from .statistics import COLUMN_STATISTICS, ROW_STATISTICS, check_names, column_statistics, row_statistics


def attention_logits(q, k, *, scale=None, causal=False, mask=None, bias=None, window=None, alibi_slopes=None,
                     softcap=None, q_offset=None):
    """Logits s_ij (..., Lq, Lk): scale q.k, softcap, + bias, - slope abs(i + off - j), -inf where not allowed."""
    q, k = c.check_qk(q, k)
    s, _ = c.logits(q, k, scale=scale, causal=causal, mask=mask, bias=bias, window=window,
                    alibi_slopes=alibi_slopes, softcap=softcap, q_offset=q_offset)
    return s


def softmax_attention(q, k, v, *, scale=None, causal=False, mask=None, bias=None, window=None, alibi_slopes=None,
                      softcap=None, sink_logits=None, dropout_mask=None, dropout_p=0.0, q_offset=None,
                      return_lse=False, return_weights=False, stats=()):
    """out_i = sum_j p_ij v_j with p_ij = exp(s_ij - lse_i); results (out[, lse][, weights][, stats]).

    A sink logit a adds exp(a) to the normaliser and nothing to the output.  Dropout multiplies the weights of
    the output (not the returned ones) by keep / (1 - dropout_p).
    """
    names = check_names("stats", stats, ROW_STATISTICS + COLUMN_STATISTICS)
    return_lse, return_weights = c.as_flag("return_lse", return_lse), c.as_flag("return_weights", return_weights)
    q, k, v = c.check_qk(q, k, v)
    s, delta = c.logits(q, k, scale=scale, causal=causal, mask=mask, bias=bias, window=window,
                        alibi_slopes=alibi_slopes, softcap=softcap, q_offset=q_offset)
    sink = c.sink_column(sink_logits, s.shape[:-1])
    p, _, lse = c.normalised(s, sink)
    keep = dropout_keep(dropout_mask, dropout_p, s.shape)
    out = c.weighted_values(p / (1.0 - float(dropout_p)), v, keep & (s != -np.inf))

    results = [out]
    if return_lse:
        results.append(lse)
    if return_weights:
        results.append(p)
    if names:
        every = row_statistics(s, delta, sink, topk=0, sink_size=4, groups=None, n_groups=0)
        every |= column_statistics(s != -np.inf, p, np.ones(s.shape[:-1]))
        results.append({name: every[name] for name in names})
    return tuple(results) if len(results) > 1 else out


def attention_weights(q, k, *, rows=None, cols=None, heads=None, lse=None, scale=None, causal=False, mask=None,
                      bias=None, window=None, alibi_slopes=None, softcap=None, sink_logits=None, q_offset=None):
    """An exact window p[..., heads, rows, cols] of the map; `lse` replaces the row normaliser."""
    q, k = c.check_qk(q, k)
    s, _ = c.logits(q, k, scale=scale, causal=causal, mask=mask, bias=bias, window=window,
                    alibi_slopes=alibi_slopes, softcap=softcap, q_offset=q_offset)
    sink = c.sink_column(sink_logits, s.shape[:-1])
    if lse is None:
        p, _, _ = c.normalised(s, sink)
    else:
        p = c.weights_with_lse(s, c.broadcast("lse", c.as_float64("lse", lse), s.shape[:-1]))
    if heads is not None:
        if p.ndim < 3:
            raise ValueError(f"heads needs a head axis (-3), but q has shape {q.shape}")
        p = p[..., c.select("heads", heads, p.shape[-3]), :, :]
    p = p[..., c.select("rows", rows, p.shape[-2]), :]
    return p[..., c.select("cols", cols, p.shape[-1])]


def dropout_keep(dropout_mask, dropout_p, shape):
    """Boolean keep array of the shape of the map."""
    p = c.as_real("dropout_p", dropout_p)
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout_p must be in [0, 1), got {p}")
    if dropout_mask is None:
        if p:
            raise ValueError("dropout_p needs dropout_mask, a boolean array with True = keep")
        return np.ones(shape, bool)
    return c.broadcast("dropout_mask", c.as_bool_array("dropout_mask", dropout_mask), shape)
