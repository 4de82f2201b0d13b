"""From cells to numbers: the table, the summary, the JSON file and the plots."""

import json
import math
import os
import platform
from statistics import median

from .peers import COLUMNS

SLOW = 0.95  # below this the peer counts as faster
NOISY = 0.2  # cores used by others while a repetition was timed
OWN = {"attnkit.stats": "stats", "attnkit.f32": "own f32", "attnkit.one": "1 thread"}
PEERS = COLUMNS[1:]


def ratio(cell, call, base="attnkit"):
    """Median of time(call) / time(base), repetition by repetition: above 1, base is faster. None if either is missing."""
    times, own = cell["seconds"].get(call), cell["seconds"].get(base)
    return median(a / b for a, b in zip(times, own)) if times and own else None


def fraction(cell):
    """Median fraction of the machine's limit that attnkit reaches, or None."""
    times = cell["seconds"].get("attnkit")
    if not times or not cell["limits"]:
        return None
    work = cell["key_bytes"] if cell["limit"] == "read" else cell["flops"]
    return median(work / seconds / limit for seconds, limit in zip(times, cell["limits"]))


def duration(seconds):
    for unit, scale in (("s ", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1.0 or unit == "us":
            return f"{seconds * scale:.3g} {unit}"


def multiple(times):
    return f"{times:.2f}x" if times < 100 else f"{times:.0f}x"


HEADER = f"{'case':<35}{'attnkit':>10}{'limit':>7}" + "".join(f"{name:>8}" for name in ("torch", "eager", "onnx", "numpy")) + "  note"


def line(cell):
    """One row of the table: time, fraction of the limit, and how many times longer each peer takes."""
    text = f"{cell['id'].partition('/')[2]:<35}"
    if "attnkit" in cell["seconds"]:
        share = fraction(cell)
        text += f"{duration(median(cell['seconds']['attnkit'])):>10}" + (f"{share:>7.3f}" if share else f"{'-':>7}")
    else:
        text += f"{'WRONG' if 'attnkit' in cell['wrong'] else 'failed':>10}{'-':>7}"
    for call in PEERS:
        times = ratio(cell, call)
        text += f"{'WRONG' if call in cell['wrong'] else '-' if times is None else multiple(times):>8}"
    return f"{text}  {note(cell)}".rstrip()[:110]


def note(cell):
    words = []
    for call, meaning in OWN.items():
        if call in cell["wrong"]:
            words.append(f"{meaning}: WRONG")
        elif (times := ratio(cell, call)) is not None:
            words.append(f"{meaning} {times:.3f}x")
    if "attnkit" in cell["skipped"]:
        words.append(cell["skipped"]["attnkit"])
    if noisy(cell):
        words.append("noisy")
    return ", ".join(words)


def noisy(cell):
    return cell.get("noise", {}).get("other_programs", 0.0) > NOISY


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def slow(cell, call="torch"):
    """Slower than a peer in the first run, and in the second if there was one."""
    runs = [cell, *([cell["again"]] if "again" in cell else [])]
    ratios = [ratio(run, call) for run in runs]
    return all(r is not None and r < SLOW for r in ratios)


def summary(cells):
    """Lines below the table."""
    lines = []
    on_grid = [cell for cell in cells if cell["case"]["kind"] == "grid"]
    for call in PEERS:
        ratios = {cell["id"]: r for cell in on_grid if (r := ratio(cell, call)) is not None}
        if not ratios:
            continue
        lines.append(f"grid, {call}: {geometric_mean(ratios.values()):.2f}x in geometric mean over {len(ratios)} cells")
        quiet = [ratios[cell["id"]] for cell in on_grid if cell["id"] in ratios and not noisy(cell)]
        if 0 < len(quiet) < len(ratios):
            lines.append(f"    without noisy cells: {geometric_mean(quiet):.2f}x over {len(quiet)}")
        for field in ("variant", "lq", "threads"):
            groups = {}
            for cell in on_grid:
                if cell["id"] in ratios:
                    groups.setdefault(cell["case"][field], []).append(ratios[cell["id"]])
            parts = [f"{key} {geometric_mean(values):.2f}x" for key, values in groups.items()]
            lines.append(f"    by {field}: " + ", ".join(parts))
    losers = [cell for cell in on_grid if slow(cell)]
    if any("torch" in cell["seconds"] for cell in on_grid):
        lines.append(f"slower than {SLOW} of torch: {len(losers)} cells")
    for cell in losers:
        again = f", again {ratio(cell['again'], 'torch'):.2f}x" if "again" in cell else ""
        lines.append(f"    {cell['id']}: {ratio(cell, 'torch'):.2f}x{again}")
    wrong = [f"{cell['id']} {call}: error {cell['errors'][call]:.3g} of the bound" for cell in cells for call in cell["wrong"]]
    if wrong:
        lines += ["WRONG results, not timed:", *(f"    {entry}" for entry in wrong)]
    noises = [cell["noise"] for cell in cells if cell.get("noise")]
    if noises:
        waiting, others = (max(noise[key] for noise in noises) for key in ("waiting_workers", "other_programs"))
        share = sum(map(noisy, cells)) / len(cells)
        lines.append(f"during timings, cores used by waiting workers: at most {waiting:.2f}; by other programs: at most {others:.2f},")
        lines.append(f"    above {NOISY} in {share:.0%} of the cells (marked noisy: repeat those on a quiet machine)")
    return lines


def machine():
    """What a reader needs to know to judge the numbers."""
    import numpy as np

    import attnkit

    info = attnkit.cpu_info()
    return {
        "processor": info["processor"],
        "cpus": os.cpu_count(),
        "affinity": info["cpus"],
        "quota": info["cpu_quota"],
        "target": info["target"],
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load_at_start": list(os.getloadavg()),
    }


def write_json(path, result):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def plot(path, result):
    """Time and peak memory against the length; returns the reason when nothing was drawn."""
    cells = [cell for cell in result["cells"] if cell["case"]["kind"] == "curve"]
    if not cells:
        return "no curve was measured"
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "matplotlib is not installed"
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = {"attnkit": "attnkit", "torch": "PyTorch, fused", "torch.eager": "PyTorch, with the map"}
    for (call, label), marker in zip(names.items(), "os^"):
        points = [(c["case"]["lq"], median(c["seconds"][call])) for c in cells if c["seconds"].get(call)]
        memory = [(c["case"]["lq"], max(c["memory"][call], 4096)) for c in cells if call in c.get("memory", {})]
        if points:
            left.loglog(*zip(*points), marker=marker, label=label)
        if memory:
            right.loglog(*zip(*((length, size / 2**20) for length, size in memory)), marker=marker, label=label)
    left.set(title="Time of one call", xlabel="length", ylabel="seconds")
    right.set(title="Peak memory of the call and its inputs", xlabel="length", ylabel="MiB")
    for axes in (left, right):
        axes.grid(True, which="major", alpha=0.3)
        axes.set_xscale("log", base=2)
    left.legend()
    case = cells[0]["case"]
    figure.suptitle(f"{case['heads']} head, d = {case['d']}, {case['dtype']}, {case['threads']} thread, {result['machine']['processor']}",
                    fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return None
