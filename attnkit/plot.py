"""Pictures of a report. Every function draws on the axes `ax` (its own if None) and returns them.

matplotlib is imported when a function is called, never before.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["entropy_map", "head_map", "received_map", "report_figure", "sink_map"]

ANNOTATED_CELLS = 200  # larger maps carry no numbers: they would not be readable
LABELLED_TOKENS = 96


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _ticks(n, most):
    """At most about `most` positions out of n, evenly spaced by a round step."""
    step = max(1, math.ceil(n / most))
    return np.arange(0, n, step)


def head_map(values, *, layers=None, label="", title="", vmin=None, vmax=None, cmap="viridis", ax=None):
    """Heat map of one number per layer and head.

    Parameters
    ----------
    values : array_like, shape (layers, heads)
        NaN cells stay grey.
    layers : sequence of int, optional
        Numbers of the layers; None counts from 0.
    label : str
        Name and unit of the numbers, written beside the colour bar.
    title : str
        Title of the axes.
    vmin, vmax : float, optional
        Ends of the colour scale; None takes them from the values.
    cmap : str
        Name of a matplotlib colour map.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    values = np.asarray(values, dtype=np.float64)
    n_layers, n_heads = values.shape
    layers = range(n_layers) if layers is None else layers
    image = ax.imshow(values, aspect="auto", cmap=cmap, vmin=vmin, vmax=vmax, interpolation="nearest")
    ax.set_facecolor("0.8")
    ax.figure.colorbar(image, ax=ax, label=label)
    ax.set_title(title)
    ax.set_xlabel("head")
    ax.set_ylabel("layer")
    ax.set_xticks(_ticks(n_heads, 16))
    rows = _ticks(n_layers, 16)
    ax.set_yticks(rows, [str(layers[i]) for i in rows])
    if values.size <= ANNOTATED_CELLS:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                text = f"{value:.2f}".removeprefix("0") if abs(value) < 1 else f"{value:.1f}"
                ax.text(column, row, text, ha="center", va="center", fontsize=7, color="black" if bright else "white")
    return ax


def entropy_map(report, *, normalised=False, ax=None):
    """Heat map of the entropy of every head, in nats or as a share of the largest possible.

    Parameters
    ----------
    report : attnkit.report.Report
    normalised : bool
        Divide by the logarithm of the visible keys.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    if normalised:
        return head_map(
            report.heads["normalised_entropy"],
            layers=report.layers,
            vmin=0,
            vmax=1,
            label="entropy / ln(visible keys)",
            title="Normalised entropy",
            ax=ax,
        )
    # One shared scale from 0 to uniform attention, so that pictures of one length compare.
    most = math.log(max(report.shape["keys"], 2))
    return head_map(
        report.heads["entropy"],
        layers=report.layers,
        vmin=0,
        vmax=most,
        label="entropy (nats)",
        title="Entropy, mean over queries",
        ax=ax,
    )


def sink_map(report, *, ax=None):
    """Heat map of the mass that every head puts on key 0.

    Parameters
    ----------
    report : attnkit.report.Report
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    return head_map(
        report.heads["sink_mass"],
        layers=report.layers,
        vmin=0,
        vmax=1,
        cmap="magma",
        label="weight on key 0",
        title="Sink mass, mean over queries",
        ax=ax,
    )


def received_map(report, *, ax=None):
    """Heat map of the attention that every token receives in every layer, mean over heads, logarithmic colours.

    Parameters
    ----------
    report : attnkit.report.Report
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib.colors import LogNorm

    from attnkit.report.text import printable

    ax = _axes(ax)
    values = report.received_mean.mean(1)
    n_layers, n_keys = values.shape
    # Three decades below the largest value: what lies lower is one dark colour, zero included.
    top = values.max() if values.max() > 0 else 1.0
    low = max(top * 1e-3, values[values > 0].min(initial=top)) if top > 0 else 1e-3
    if low >= top:
        low = top / 10
    norm = LogNorm(low, top, clip=True)
    image = ax.imshow(np.maximum(values, low), aspect="auto", cmap="magma", norm=norm, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="mean weight", pad=0.01)
    ax.set_title("Attention received by each token, mean over heads and over the queries that may see it")
    ax.set_ylabel("layer")
    rows = _ticks(n_layers, 16)
    ax.set_yticks(rows, [str(report.layers[i]) for i in rows])
    if any(report.tokens) and n_keys <= LABELLED_TOKENS:
        labels = [printable(token).strip()[:16] for token in report.tokens]
        ax.set_xticks(np.arange(n_keys), labels, rotation=90, fontsize=7)
        for label in ax.get_xticklabels():
            label.set_parse_math(False)  # a token with two dollar signs is no formula
    else:
        ax.set_xticks(_ticks(n_keys, 16))
        ax.set_xlabel("key")
    return ax


def report_figure(reports):
    """One figure of several reports: entropy, sink mass and received attention of each.

    Parameters
    ----------
    reports : sequence of attnkit.report.Report

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot, so nothing has to be closed.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    reports = list(reports)
    figure = Figure(figsize=(12, 6.6 * len(reports)), layout="constrained")
    parts = figure.subfigures(len(reports), 1, squeeze=False, hspace=0.06)[:, 0]
    for part, report in zip(parts, reports, strict=True):
        kind = "causal" if report.causal else "bidirectional"
        s = report.shape
        title = f"{report.name or 'attention'}: {s['layers']} layers x {s['heads']} heads, {s['keys']} keys, {kind}"
        part.suptitle(title, fontsize=13, weight="bold").set_parse_math(False)
        axes = part.subplot_mosaic([["entropy", "sink"], ["received", "received"]])
        entropy_map(report, ax=axes["entropy"])
        sink_map(report, ax=axes["sink"])
        received_map(report, ax=axes["received"])
    return figure
