"""A `Report` as text of at most 100 columns, and as a small piece of HTML."""

from __future__ import annotations

import html
import math
import unicodedata

import numpy as np

from attnkit.report.measure import HEAD_MEASURES

CELL = 7  # columns of one number
HEADS_PER_BLOCK = 12
LONG_TOKEN_LIST = 24
SHOWN_TOKENS = 20
TOKEN_LAYERS = 7
TOKEN_WIDTH = 13


def _number(x, width=CELL):
    """As many decimals, up to three, as fit with a space in front; "-" for NaN."""
    if math.isnan(x):
        return "-".rjust(width)
    for digits in (3, 2, 1, 0):
        text = f"{x:.{digits}f}"
        if len(text) < width:
            return text.rjust(width)
    return f"{x:.0e}".replace("e+0", "e").replace("e+", "e").rjust(width)


def _columns_of(character):
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(token):
    """The token with control and other invisible characters written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token)


def _cell_of_text(text, width):
    """`text` cut and padded to `width` columns of a terminal."""
    text = printable(text)
    if sum(map(_columns_of, text)) > width:
        kept = ""
        for character in text:
            if sum(map(_columns_of, kept)) + _columns_of(character) > width - 2:
                break
            kept += character
        text = kept + ".."
    return text + " " * (width - sum(map(_columns_of, text)))


def _heading(report):
    s = report.shape
    kv = "" if s["kv_heads"] == s["heads"] else f" ({s['kv_heads']} of keys)"
    sees = "each query sees the keys up to its own position" if report.causal else "each query sees every key"
    lines = [report.name or "attention", "=" * min(100, len(report.name or "attention"))]
    lines += [_clip(f"{key}: {printable(value)}") for key, value in report.info.items()]
    lines.append(
        f"{s['layers']} layers x {s['heads']} heads{kv}, {s['queries']} queries x {s['keys']} keys, "
        f"{s['features']} features, scale {report.scale:.6g}"
    )
    lines.append(f"{sees}; numbers of a head are means over its queries")
    return lines


def _clip(line, width=100):
    return line if len(line) <= width else line[: width - 3] + "..."


def _mean(values):
    """Mean of the numbers that are there, NaN if none is."""
    values = np.asarray(values)
    there = ~np.isnan(values)
    return float(values[there].mean()) if there.any() else math.nan


def _head_table(report, measure):
    """Layers down, heads across; wide models in several blocks, the layer's mean in the last."""
    values = report.heads[measure.key]
    n_heads = values.shape[1]
    lines = [f"{measure.title} ({measure.unit}): {measure.definition}"]
    for start in range(0, n_heads, HEADS_PER_BLOCK):
        stop = min(start + HEADS_PER_BLOCK, n_heads)
        last = stop == n_heads
        head = "layer".rjust(6) + "".join(f"h{h}".rjust(CELL) for h in range(start, stop))
        lines.append(head + (" |  mean" if last else ""))
        for number, row in zip(report.layers, values, strict=True):
            line = str(number).rjust(6) + "".join(_number(x) for x in row[start:stop])
            lines.append(line + (" |" + _number(_mean(row), CELL - 1) if last else ""))
    return lines


def _extremes(report):
    """Which head is the most and the least of everything; nothing to say about a single head."""
    if report.shape["layers"] * report.shape["heads"] == 1:
        return []
    lines = ["Extremes"]
    for measure in HEAD_MEASURES:
        values = report.heads[measure.key]
        if np.isnan(values).all():
            continue
        found = []
        for word, index in (("lowest", np.nanargmin(values)), ("highest", np.nanargmax(values))):
            layer, head = np.unravel_index(index, values.shape)
            found.append(f"{word}{_number(values[layer, head])} in layer {report.layers[layer]} head {head}".ljust(36))
        lines.append(f"  {measure.title.lower():<24}{'  '.join(found)}".rstrip())
    return lines


def _shown_layers(n):
    """At most TOKEN_LAYERS layer positions, evenly spread, with the first and the last."""
    if n <= TOKEN_LAYERS:
        return list(range(n))
    return [round(i * (n - 1) / (TOKEN_LAYERS - 1)) for i in range(TOKEN_LAYERS)]


def _token_table(report, all_tokens):
    received = report.received_mean
    n_keys = received.shape[-1]
    mean, per_layer = received.mean((0, 1)), received.mean(1)
    order, cut = np.arange(n_keys), []
    if n_keys > LONG_TOKEN_LIST and not all_tokens:
        order = np.argsort(-mean, kind="stable")[:SHOWN_TOKENS]
        cut = [f"the {SHOWN_TOKENS} of {n_keys} tokens that receive most (--all-tokens lists all, in order):"]
    shown = _shown_layers(received.shape[0])
    part = "" if len(shown) == received.shape[0] else f" ({len(shown)} of {received.shape[0]} layers)"
    lines = [
        f"Attention received by each token: mean over the queries that may see it and over heads{part}",
        "'seen by' counts those queries; 'strongest' is the head that attends to the token most",
        *cut,
        "   key "
        + "token".ljust(TOKEN_WIDTH)
        + "seen by".rjust(8)
        + "mean".rjust(CELL)
        + " |"
        + "".join(f"L{report.layers[i]}".rjust(CELL) for i in shown)
        + " | strongest",
    ]
    for key in order:
        layer, head = np.unravel_index(np.argmax(received[..., key]), received.shape[:2])
        lines.append(
            f"{key:>6} "
            + _cell_of_text(report.tokens[key], TOKEN_WIDTH)
            + f"{report.visible[key]:>8}"
            + _number(mean[key])
            + " |"
            + "".join(_number(per_layer[i, key]) for i in shown)
            + f" |{_number(received[layer, head, key])} L{report.layers[layer]}.h{head}"
        )
    return lines


def render(report, *, all_tokens=False):
    """The whole report; blocks are separated by empty lines."""
    blocks = [_heading(report)]
    blocks += [_head_table(report, measure) for measure in HEAD_MEASURES]
    blocks += [_extremes(report), _token_table(report, all_tokens)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def render_html(report, *, max_layers=12, max_tokens=8):
    """Layer means and the tokens that receive most, below 10 kB whatever the size of the model."""
    cell = '<td style="text-align:right">{}</td>'.format
    shown = range(min(max_layers, report.shape["layers"]))
    rows = [
        "<tr>"
        + cell(report.layers[i])
        + "".join(cell(_number(_mean(report.heads[m.key][i]))) for m in HEAD_MEASURES)
        + "</tr>"
        for i in shown
    ]
    more = report.shape["layers"] - len(shown)
    if more:
        rows.append(f'<tr><td colspan="{len(HEAD_MEASURES) + 1}">and {more} more layers</td></tr>')
    titles = "".join(f"<th>{html.escape(m.title)}<br>({html.escape(m.unit)})</th>" for m in HEAD_MEASURES)
    mean = report.received_mean.mean((0, 1))
    top = ", ".join(
        f"{key} <code>{html.escape(_clip(printable(report.tokens[key]), 24))}</code> {mean[key]:.3f}"
        for key in np.argsort(-mean, kind="stable")[:max_tokens]
    )
    return (
        f"<p><b>{html.escape(_clip(report.name or 'attention'))}</b>: {report.summary()}</p>"
        f"<table><thead><tr><th>layer</th>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<p>Means over heads and queries. Most attention received: {top}</p>"
    )
