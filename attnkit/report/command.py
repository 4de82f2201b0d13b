"""The job ``python -m attnkit report``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

from attnkit import datasets
from attnkit.report.inputs import InputError, read_npz
from attnkit.report.measure import SCHEMA, SCHEMA_VERSION, check_inputs, head_report

DESCRIPTION = """\
Measure what every attention head looks at, from q and k alone and without building a map:
entropy (nats, and divided by the logarithm of the visible keys), mass on key 0 (the sink), mean
absolute distance and effective keys exp(entropy) per layer and head, and the attention received by
every token. Prints tables, writes report.json, and draws report.png if matplotlib is installed.

Without arguments it reads the recordings of two pretrained models that ship with attnkit.
"""

EPILOG = """\
format of --npz FILE:
  q        (layers, heads, length, features); (heads, length, features) and (length, features) are
           taken as one layer, and one head
  k, v     (layers, kv_heads, length, features) with as many axes as q; kv_heads divides heads
  tokens   optional, one string for each key
  layers   optional, the number of each layer
  causal   optional, one bool (default False)
  scale    optional, one number (default 1/sqrt(features))
"""


def add_parser(subparsers):
    """Add the job and its options to the subparsers of ``python -m attnkit``."""
    parser = subparsers.add_parser(
        "report",
        help="what every attention head looks at: tables, report.json and a picture",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--npz", metavar="FILE", help="your own arrays; the format is described below")
    source.add_argument(
        "--recorded",
        metavar="NAME",
        help=f"only this recording that ships with attnkit: {', '.join(datasets.list_recorded())}",
    )
    parser.add_argument(
        "--causal",
        action=argparse.BooleanOptionalAction,
        help="with --npz: whether a query sees only the keys up to its own position (overrides the file)",
    )
    parser.add_argument("--scale", type=float, help="with --npz: factor on the dot products (overrides the file)")
    parser.add_argument(
        "--out", metavar="DIR", default=".", help="folder of report.json and report.png (default: here)"
    )
    parser.add_argument("--json", metavar="PATH", help="write the JSON file here instead")
    parser.add_argument("--no-plot", action="store_true", help="draw no picture")
    parser.add_argument("--all-tokens", action="store_true", help="list every token, however many")
    parser.add_argument("--per-query", action="store_true", help="JSON: also the values of every query")
    parser.set_defaults(run=run)


def run(options):
    """Carry the job out; returns the exit code, raises `InputError` for what the user can mend."""
    # Tokens may be in any script; a terminal that cannot show one gets an escape instead of an exception.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    reports = [_measure(arguments) for arguments in _inputs(options)]
    for report in reports:
        print(report.text(all_tokens=options.all_tokens))

    folder = Path(options.out)
    json_path = Path(options.json) if options.json else folder / "report.json"
    try:
        for directory in {folder, json_path.parent}:
            directory.mkdir(parents=True, exist_ok=True)
        _write_json(reports, json_path, per_query=options.per_query)
        print(f"wrote {json_path}")
        if not options.no_plot:
            print(_draw(reports, folder / "report.png"))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"{error.filename or 'writing the results'}: {error.strerror or error}") from None
    return 0


def _inputs(options):
    """Keyword arguments of `head_report` for every report to make."""
    if options.npz is None:
        for name in ("causal", "scale"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} goes with --npz; the recordings know their own")
        known = datasets.list_recorded()
        if options.recorded is not None and options.recorded not in known:
            raise InputError(
                f"--recorded: there is no recording {options.recorded!r}; choose one of {', '.join(known)}"
            )
        return [_recorded(name) for name in ([options.recorded] if options.recorded else known)]
    arguments = read_npz(options.npz)
    for name in ("causal", "scale"):
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    checked = ("q", "k", "v", "causal", "scale", "tokens", "layers")
    try:
        check_inputs(**{key: arguments[key] for key in checked if key in arguments})
    except (TypeError, ValueError) as error:
        raise InputError(f"{options.npz}: {error}") from None
    return [{**arguments, "name": Path(options.npz).name}]


def _recorded(name):
    recording = datasets.load_recorded(name)
    return {
        "q": recording.q,
        "k": recording.k,
        "v": recording.v,
        "causal": recording.causal,
        "scale": recording.scale,
        "tokens": recording.tokens,
        "layers": recording.layers,
        "name": recording.name,
        "info": {
            "model": f"{recording.model} (licence {recording.licence})",
            "source": recording.source,
            "text": recording.text,
        },
    }


def _measure(arguments):
    try:
        return head_report(**arguments)
    except MemoryError as error:
        raise InputError(f"{arguments['name']}: not enough memory ({error})") from None


def _write_json(reports, path, *, per_query):
    from attnkit import __version__

    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "attnkit_version": __version__,
        "reports": [report.as_dict(per_query=per_query) for report in reports],
    }
    text = json.dumps(content, ensure_ascii=True, allow_nan=False) + "\n"
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="ascii")  # a pipe or a device must stay what it is
        return
    # Written beside the target and moved, so that an interrupted run leaves no half file.
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="ascii")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _draw(reports, path):
    """Draw the picture and say what happened."""
    try:
        from attnkit.plot import report_figure

        figure = report_figure(reports)
    except ImportError:
        return "no picture: matplotlib is not installed (pip install 'attnkit[plot]')"
    with warnings.catch_warnings():
        # Tokens in scripts that the font lacks are drawn as boxes; a warning for each would drown the report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=130)
    return f"drew {path}"
