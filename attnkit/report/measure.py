"""Checks of the input, the measures, and the `Report` that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

SCHEMA = "attnkit.report"
SCHEMA_VERSION = 1


def _engine():
    """The two engine functions behind every number; imported at call time so that ``--help`` needs no engine."""
    from attnkit import attention_column_stats, attention_row_stats

    return attention_row_stats, attention_column_stats


# ----------------------------------------------------------------------------------------------------------------
# Measures
# ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class HeadMeasure:
    """One number per head: a value per query, averaged over the queries that see at least `min_keys` keys.

    `per_query` takes the row statistics, a dict of (layers, heads, queries) arrays in float64, and returns such an
    array; what it returns for queries that do not count is ignored.
    """

    key: str
    title: str
    unit: str
    definition: str
    per_query: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    min_keys: int = 1


HEAD_MEASURES = (
    HeadMeasure("entropy", "Entropy", "nats", "-sum p ln p", lambda s: s["entropy"]),
    HeadMeasure(
        "normalised_entropy",
        "Normalised entropy",
        "0 to 1",
        "entropy / ln(visible keys); queries that see one key are left out",
        lambda s: s["entropy"] / np.log(np.maximum(s["n_allowed"], 2)),
        min_keys=2,
    ),
    HeadMeasure("sink_mass", "Sink mass", "0 to 1", "weight on key 0", lambda s: s["sink_mass"]),
    HeadMeasure("distance", "Mean absolute distance", "tokens", "sum p |query - key|", lambda s: s["abs_distance"]),
    HeadMeasure("effective_keys", "Effective keys", "keys", "exp(entropy)", lambda s: np.exp(s["entropy"])),
)


def _row_statistics(q, k, *, scale, causal):
    """Row statistics as float64 (layers, heads, queries) arrays, with `abs_distance` always among them."""
    row_stats, _ = _engine()
    if causal:
        # Every visible key lies at or before its query (lower-right alignment), so the signed distance is it.
        stats = row_stats(q, k, sink_size=1, scale=scale, causal=True)
        stats["abs_distance"] = stats["distance"]
    else:
        stats = row_stats(q, k, sink_size=1, scale=scale, causal=False, extra=("abs_distance",))
    shape = q.shape[:-1]
    wanted = ("lse", "n_allowed", "entropy", "sink_mass", "abs_distance")
    return {key: np.broadcast_to(np.asarray(stats[key], dtype=np.float64), shape) for key in wanted}, stats["lse"]


def _mean_over(values, counts):
    """Mean of (layers, heads, queries) values over the queries that count; NaN for a head without any."""
    n = counts.sum(-1)
    total = np.where(counts, values, 0.0).sum(-1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


# ----------------------------------------------------------------------------------------------------------------
# Checks
# ----------------------------------------------------------------------------------------------------------------
def _number_array(name, value):
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: masked arrays are not supported; their mask would be lost")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        # bfloat16 and other half types from outside NumPy convert exactly; objects, text and complex do not.
        try:
            array = array.astype(np.float32, casting="safe")
        except TypeError:
            raise TypeError(f"{name}: expected an array of real numbers, got dtype {array.dtype}") from None
    if array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected at most 64 bits per number, got dtype {array.dtype}")
    if array.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name}: expected shape (layers, heads, length, features), (heads, length, features) or "
            f"(length, features), got {array.shape}"
        )
    if array.size == 0:
        raise ValueError(f"{name}: is empty, shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))
        first = tuple(int(i) for i in where[0])
        raise ValueError(f"{name}: {len(where)} of {array.size} values are NaN or infinite, the first at {first}")
    return array


def check_inputs(q, k, v=None, *, causal=False, scale=None, tokens=None, layers=None):
    """Check everything a report needs and bring it to four axes.

    Returns
    -------
    q, k, scale, tokens, layers
        `q` and `k` of shape (layers, heads, length, features), `scale` a float, `tokens` a list of str with one
        entry per key, `layers` a list of int.

    Raises
    ------
    TypeError, ValueError
        With a message that names the argument and shows the shapes.
    """
    arrays = {"q": _number_array("q", q), "k": _number_array("k", k)}
    if v is not None:
        arrays["v"] = _number_array("v", v)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    if len({array.ndim for array in arrays.values()}) != 1:
        raise ValueError(f"{', '.join(arrays)}: must have the same number of axes, got {shapes}")
    missing = 4 - arrays["q"].ndim
    arrays = {name: array[(np.newaxis,) * missing] for name, array in arrays.items()}
    q, k = arrays["q"], arrays["k"]
    for name, array in list(arrays.items())[1:]:
        if array.shape[0] != q.shape[0]:
            raise ValueError(f"{name}: must have as many layers as q, got {shapes}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"k: its number of heads must divide that of q, got {shapes}")
    if q.shape[3] != k.shape[3]:
        raise ValueError(f"k: must have as many features as q, got {shapes}")
    if v is not None and arrays["v"].shape[1:3] != k.shape[1:3]:
        raise ValueError(f"v: must have the heads and the length of k, got {shapes}")

    if not isinstance(causal, (bool, np.bool_)):
        raise TypeError(f"causal: expected True or False, got {causal!r}")
    if scale is None:
        scale = q.shape[3] ** -0.5
    elif isinstance(scale, (str, bytes)) or np.ndim(scale) != 0 or not np.isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale!r}")

    n_keys = k.shape[2]
    if tokens is None:
        tokens = [""] * n_keys
    elif isinstance(tokens, (str, bytes)):
        raise TypeError("tokens: expected a sequence of strings, one for each key, got a single string")
    else:
        tokens = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in tokens]
        if len(tokens) != n_keys:
            raise ValueError(f"tokens: expected one for each of the {n_keys} keys, got {len(tokens)} ({shapes})")
    if layers is None:
        layers = list(range(q.shape[0]))
    else:
        layers = [int(n) for n in layers]
        if len(layers) != q.shape[0]:
            raise ValueError(f"layers: expected {q.shape[0]} numbers, got {len(layers)} ({shapes})")
    return q, k, float(scale), tokens, layers


# ----------------------------------------------------------------------------------------------------------------
# The report
# ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """What `head_report` measured.

    Attributes
    ----------
    heads : dict of str to ndarray, each (layers, heads)
        One entry for each row of ``HEAD_MEASURES``: entropy, normalised_entropy, sink_mass, distance and
        effective_keys. NaN where no query counts.
    queries : dict of str to ndarray, each (layers, heads, queries)
        The same before averaging; NaN for the queries that do not count. Also ``n_allowed``, the visible keys.
    received_mean, received_max : ndarray, (layers, heads, keys)
        Mean and largest weight on each key over the queries that may see it.
    visible : ndarray of int64, (keys,)
        Number of queries that may see each key.
    tokens : list of str
        One for each key; empty strings if none were given.
    layers : list of int
        Numbers of the layers.
    causal : bool
    scale : float
    shape : dict of str to int
        layers, heads, kv_heads, queries, keys, features.
    name : str
    info : dict of str to str
        Whatever else the caller wants to see in the file and above the tables.
    """

    heads: dict[str, np.ndarray]
    queries: dict[str, np.ndarray]
    received_mean: np.ndarray
    received_max: np.ndarray
    visible: np.ndarray
    tokens: list[str]
    layers: list[int]
    causal: bool
    scale: float
    shape: dict[str, int]
    name: str = ""
    info: dict[str, str] = field(default_factory=dict)

    def as_dict(self, *, per_query: bool = False) -> dict:
        """Everything as plain Python objects that `json` can write; NaN becomes None.

        Parameters
        ----------
        per_query : bool
            Include the values of every query, not only their means.
        """
        result = {
            "name": self.name,
            "info": dict(self.info),
            "shape": dict(self.shape),
            "causal": self.causal,
            "scale": self.scale,
            "layers": list(self.layers),
            "tokens": list(self.tokens),
            "heads": {
                m.key: {
                    "title": m.title,
                    "unit": m.unit,
                    "definition": m.definition,
                    "mean_over": f"queries that see at least {m.min_keys} key{'s' * (m.min_keys > 1)}",
                    "values": _plain(self.heads[m.key]),
                }
                for m in HEAD_MEASURES
            },
            "received": {
                "definition": "weight on a key, over the queries that may see it; (layers, heads, keys)",
                "visible": self.visible.tolist(),
                "mean": _plain(self.received_mean),
                "max": _plain(self.received_max),
            },
        }
        if per_query:
            result["queries"] = {key: _plain(values) for key, values in self.queries.items()}
        return result

    def text(self, *, all_tokens: bool = False) -> str:
        """The report as tables of at most 100 columns.

        Parameters
        ----------
        all_tokens : bool
            List every token; otherwise a list of more than 24 is cut to the 20 that receive most.
        """
        from attnkit.report.text import render

        return render(self, all_tokens=all_tokens)

    def plot(self):
        """The report as a matplotlib figure: entropy, sink mass, and attention received by each token.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from attnkit.plot import report_figure

        return report_figure([self])

    def summary(self) -> str:
        """The sizes in one line."""
        s = self.shape
        return (
            f"{s['layers']} layers x {s['heads']} heads, {s['queries']} queries x {s['keys']} keys"
            f"{', causal' if self.causal else ''}"
        )

    def __repr__(self) -> str:
        return f"<Report{' ' + self.name if self.name else ''}: {self.summary()}>"

    def _repr_html_(self) -> str:
        from attnkit.report.text import render_html

        return render_html(self)


def _plain(array):
    """Nested lists of floats, NaN as None."""
    array = np.asarray(array, dtype=np.float64)
    if np.isfinite(array).all():
        return array.tolist()
    return np.where(np.isfinite(array), array.astype(object), None).tolist()


def head_report(q, k, v=None, *, causal=False, scale=None, tokens=None, layers=None, name="", info=None) -> Report:
    """Measure what every head of every layer attends to, without building a map.

    Parameters
    ----------
    q : array_like, shape (layers, heads, queries, features)
        Queries. (heads, queries, features) and (queries, features) are taken as one layer, and one head.
    k : array_like, shape (layers, kv_heads, keys, features)
        Keys, with as many axes as `q`; ``kv_heads`` divides ``heads``.
    v : array_like, shape (layers, kv_heads, keys, any), optional
        Values. They are checked; no measure of this report depends on them.
    causal : bool
        Whether a query sees only the keys at and before its own position, with the last query at the last key.
    scale : float, optional
        Factor on the dot products; None is 1/sqrt(features).
    tokens : sequence of str, optional
        One for each key.
    layers : sequence of int, optional
        Numbers of the layers; None counts from 0.
    name : str
        Title of the report.
    info : mapping of str to str, optional
        Further lines for the file and the heading.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or `causal` is not a bool.
    ValueError
        If shapes do not fit, an array is empty, or it holds NaN or infinity; the message names the argument.

    Notes
    -----
    With p_ij the attention weights of a head and n_i the number of keys that query i may see:

    * entropy H_i = -sum_j p_ij ln p_ij, and H_i / ln n_i, which is 1 for uniform attention;
    * sink mass p_i0;
    * distance sum_j p_ij abs(i + offset - j), with offset = keys - queries;
    * effective keys exp(H_i);
    * received by key j: the mean and the maximum of p_ij over the queries i that may see j.

    The numbers of a head are means over its queries; a query without a visible key does not count, nor, for the
    normalised entropy, one that sees a single key (0/0).
    Two passes over the scores, of 2 * features floating-point operations a pair each; memory O(queries + keys).

    Examples
    --------
    >>> import numpy as np
    >>> from attnkit.report import head_report
    >>> same = np.ones((1, 2, 4, 8), dtype=np.float32)
    >>> report = head_report(same, same, causal=True)
    >>> report
    <Report: 1 layers x 2 heads, 4 queries x 4 keys, causal>
    >>> report.heads["effective_keys"].round(4)
    array([[2.5, 2.5]])
    >>> report.received_mean[0, 0].round(4)
    array([0.5208, 0.3611, 0.2917, 0.25  ])
    """
    q, k, scale, tokens, layers = check_inputs(q, k, v, causal=causal, scale=scale, tokens=tokens, layers=layers)
    causal = bool(causal)
    rows, lse = _row_statistics(q, k, scale=scale, causal=causal)
    _, column_stats = _engine()
    columns = column_stats(q, k, lse=lse, scale=scale, causal=causal)

    queries, heads = {}, {}
    for measure in HEAD_MEASURES:
        counts = rows["n_allowed"] >= measure.min_keys
        values = np.where(counts, measure.per_query(rows), np.nan)
        queries[measure.key] = values
        heads[measure.key] = _mean_over(values, counts)
    queries["n_allowed"] = rows["n_allowed"].astype(np.int64)

    per_key = (*q.shape[:2], k.shape[2])
    visible = np.broadcast_to(np.asarray(columns["visible"]), per_key)[0, 0]
    return Report(
        heads=heads,
        queries=queries,
        received_mean=np.array(np.broadcast_to(columns["received_mean"], per_key), dtype=np.float64),
        received_max=np.array(np.broadcast_to(columns["received_max"], per_key), dtype=np.float64),
        visible=visible.astype(np.int64),
        tokens=tokens,
        layers=layers,
        causal=causal,
        scale=scale,
        shape={
            "layers": q.shape[0],
            "heads": q.shape[1],
            "kv_heads": k.shape[1],
            "queries": q.shape[2],
            "keys": k.shape[2],
            "features": q.shape[3],
        },
        name=name,
        info=dict(info or {}),
    )
