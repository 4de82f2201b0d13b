"""The command ``python -m benchmarks``."""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import report
from .grid import KINDS, cases, known
from .measure import Session
from .peers import LIBRARIES
from .workers import Worker, environment

RESULTS = Path(__file__).with_name("results")
IMPORT = "import time, numpy; begin = time.perf_counter(); import attnkit; print(time.perf_counter() - begin)"


@dataclass(frozen=True)
class Settings:
    gap: float  # seconds between two repetitions
    budget: float  # seconds that the repetitions of a case may take
    least: int  # repetitions, whatever they take
    most: int
    clock: str  # "wall" or "cpu"


def parse(arguments):
    kinds = "\n".join(f"  {kind:<12}{meaning}" for kind, meaning in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time attnkit against other libraries and the machine's limits.",
        epilog=f"kinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    peers = [name for name in LIBRARIES if name != "attnkit"]
    parser.add_argument("kinds", nargs="*", metavar="kind", help="what to measure; default everything")
    parser.add_argument("--only", metavar="REGEX", default="", help="only cases whose name matches, as in 'causal/L4096/d64/h1/f32/t1$'")
    parser.add_argument("--quick", action="store_true", help="a subset that takes about two minutes")
    parser.add_argument("--peers", default=",".join(peers), help=f"comma-separated, '' for none; default {','.join(peers)}")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="only cases with this many threads")
    parser.add_argument("--budget", type=float, help="seconds for the repetitions of a case; default 3, quick 0.7")
    parser.add_argument("--least", type=int, default=5, help="fewest repetitions")
    parser.add_argument("--most", type=int, default=25, help="most repetitions")
    parser.add_argument("--gap", type=float, default=0.015, help="seconds of rest between repetitions")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: processor time, which other programs hardly change; for cases with one thread")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results.json and curve.png")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of an earlier results.json and stop")
    options = parser.parse_args(arguments)
    options.peers = [name for name in options.peers.split(",") if name]
    for what, given, known in (("kind", options.kinds, KINDS), ("peer", options.peers, peers)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"unknown {what} {unknown[0]!r}; choose from {', '.join(known)}")
    return options


def main(arguments=None, start=Worker):
    """Run the command; 0, or 1 if a result was wrong or attnkit failed. `start` makes a worker."""
    options = parse(arguments)
    if options.show:
        result = json.loads(options.show.read_text())
        print_cells(result["cells"])
        print_end(result)
        return failed(result)
    kinds = options.kinds or list(KINDS)
    rows = [case for kind in kinds if kind != "import" for case in cases(kind, options.quick)]
    rows = [case for case in rows if re.search(options.only, case.id) and options.threads in (None, case.threads)]
    if unknown := {case.dtype for case in rows if not known(case.dtype)}:
        print(f"left out, because ml_dtypes is not installed: {', '.join(unknown)}")
        rows = [case for case in rows if case.dtype not in unknown]
    if options.list:
        print("\n".join(case.id for case in rows))
        return 0
    if options.clock == "cpu":
        rows = [case for case in rows if case.threads == 1]
    budget = options.budget or (0.7 if options.quick else 3.0)
    settings = Settings(options.gap, budget, min(options.least, 3) if options.quick else options.least, options.most, options.clock)
    result = {"machine": report.machine(), "settings": vars(settings), "versions": {}, "cells": [], "import_seconds": []}
    print(", ".join(f"{key} {result['machine'][key]}" for key in ("processor", "cpus", "target", "system", "python")))
    try:
        run(rows, options.peers, settings, result, start)
        if "import" in kinds and not options.only:
            result["import_seconds"] = import_seconds()
    except KeyboardInterrupt:
        print("\nstopped; what was measured so far:")
    report.write_json(options.out / "results.json", result)
    print_end(result)
    print(f"wrote {options.out / 'results.json'}")
    if any(cell["case"]["kind"] == "curve" for cell in result["cells"]):
        reason = report.plot(options.out / "curve.png", result)
        print(f"no plot: {reason}" if reason else f"wrote {options.out / 'curve.png'}")
    return failed(result)


def run(rows, peers, settings, result, start):
    """Measure the rows, thread count by thread count, and print each as it is there."""
    for threads in sorted({case.threads for case in rows}):
        session = Session(threads, peers, settings, start)
        try:
            for name, version in session.versions.items():
                if result["versions"].get(name) != version:
                    print(f"{name}: {version}")
            result["versions"] |= session.versions
            if "attnkit" not in session.workers:
                raise SystemExit(1)
            kind = None
            for case in (case for case in rows if case.threads == threads):
                if case.kind != kind:
                    kind = case.kind
                    print_header(kind, threads)
                cell = session.measure(case)
                result["cells"].append(cell)
                print(report.line(cell), flush=True)
        finally:
            session.close()


def import_seconds(runs=9):
    """Seconds of import attnkit after import numpy, in fresh interpreters."""
    command = [sys.executable, "-c", IMPORT]
    done = [subprocess.run(command, env=environment(1), capture_output=True, text=True, check=True) for _ in range(runs)]
    return [float(process.stdout) for process in done]


def print_header(kind, threads):
    print(f"\n{kind}: {KINDS[kind]} ({threads} thread{'s' if threads > 1 else ''}; peers: their time / attnkit's)")
    print(report.HEADER)


def print_cells(cells):
    group = None
    for cell in cells:
        if group != (cell["case"]["kind"], cell["case"]["threads"]):
            group = cell["case"]["kind"], cell["case"]["threads"]
            print_header(*group)
        print(report.line(cell))


def print_end(result):
    print()
    if result["import_seconds"]:
        times = sorted(1e3 * seconds for seconds in result["import_seconds"])
        print(f"import attnkit after numpy: {median(times):.1f} ms, at best {times[0]:.1f} ms")
    for cell in result["cells"]:
        if cell.get("memory"):
            sizes = ", ".join(f"{call} {size / 2**20:.1f} MiB" for call, size in cell["memory"].items())
            print(f"peak memory {cell['id']}: {sizes}")
    print("\n".join(report.summary(result["cells"])))


def failed(result):
    """Exit code: 1 if any result was wrong, or attnkit could not compute a case."""
    return int(any(cell["wrong"] or "attnkit" in cell["skipped"] for cell in result["cells"]))
