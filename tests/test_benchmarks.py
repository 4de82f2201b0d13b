"""The benchmark runner: it times what is right, and refuses to time what is wrong. No speed is asserted."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)  # last, so that the package under test stays the one that conftest.py chose

from benchmarks import check, grid, limits, measure, report, run, workers  # noqa: E402

FAST = ("--least", "1", "--most", "2", "--budget", "0.01", "--gap", "0")
TINY = ("grid", "--only", "causal/L16/d32/h1/f32/t1$")


@pytest.fixture
def command(tmp_path, capsys):
    """Run the command; returns (exit code, what it printed, results.json)."""

    def call(*arguments, start=workers.Worker):
        code = run.main([*arguments, *FAST, "--out", str(tmp_path)], start=start)
        return code, capsys.readouterr().out, json.loads((tmp_path / "results.json").read_text())

    return call


class Faulty:
    """Stands in for the worker of one library; `spoil` changes its results."""

    def __init__(self, name, spoil):
        self.name, self.spoil, self.version, self.pid = name, spoil, "a stand-in", os.getpid()
        self.asked = []

    def ask(self, method, *arguments):
        self.asked.append(method)
        if method != "load":
            return {"calibrate": (1, 1e-3), "time": 1e-3, "measure": 1e9}[method]
        case, files = arguments
        arrays = workers.read(files)
        reference = check.Reference(case, arrays)
        return {self.name: {"out": self.spoil(reference.values["out"].astype(np.float32))}}

    def close(self):
        pass


def test_a_case_from_end_to_end(command):
    code, text, result = command(*TINY, "--peers", "numpy")
    assert code == 0
    (cell,) = result["cells"]
    assert cell["id"] == "grid/causal/L16/d32/h1/f32/t1"
    assert set(cell["seconds"]) == {"attnkit", "numpy"} and not cell["wrong"]
    assert all(0 < seconds < 10 for times in cell["seconds"].values() for seconds in times)
    assert all(error <= 1 for error in cell["errors"].values())
    assert result["machine"]["target"] in text and "geometric mean over 1 cells" in text


@pytest.mark.parametrize("kind", ["statistics", "received", "half", "scaling", "double", "tiny", "decode", "curve"])
def test_every_kind_of_case(kind, command, monkeypatch):
    dtype = {"half": "float16", "double": "float64"}.get(kind, "float32")
    lq = 1 if kind == "decode" else 70
    monkeypatch.setattr(run, "cases", lambda name, quick: [grid.Case(kind, "plain", lq, 70, 8, 2, dtype)])
    code, _, result = command(kind, "--peers", "numpy")
    assert code == 0
    (cell,) = result["cells"]
    own = {"statistics": "attnkit.stats", "half": "attnkit.f32", "scaling": "attnkit.one"}.get(kind)
    assert set(cell["seconds"]) == {"attnkit"} | ({own} if own else set()) | (set() if kind == "half" else {"numpy"})
    assert ("memory" in cell) == (kind == "curve")


def one_value(out):
    out[0, 3, 5] += 1e-4
    return out


def nan(out):
    out[0, 0, 0] = np.nan
    return out


@pytest.mark.parametrize("spoil", [one_value, nan, lambda out: out[:, 1:]])
@pytest.mark.parametrize("culprit", ["attnkit", "numpy"])
def test_no_speed_for_a_wrong_result(command, spoil, culprit):
    started = {}

    def start(name, threads, clock):
        started[name] = Faulty(name, spoil if name == culprit else lambda out: out)
        return started[name]

    code, text, result = command(*TINY, "--peers", "numpy", start=start)
    assert code == 1
    (cell,) = result["cells"]
    assert cell["wrong"] == [culprit]
    other = {"attnkit": "numpy", "numpy": "attnkit"}[culprit]
    assert set(cell["seconds"]) == {other}
    assert "time" in started[other].asked and not {"time", "calibrate"} & set(started[culprit].asked)
    (row,) = [line for line in text.splitlines() if line.startswith("causal/L16")]
    assert "WRONG" in row and "x" not in row.partition("t1")[2]  # no ratio either


def test_an_absent_library_is_named(command):
    def start(name, threads, clock):
        if name in ("numpy", "limits"):
            raise workers.WorkerError("ModuleNotFoundError: no such thing")
        return Faulty(name, lambda out: out)

    code, text, result = command(*TINY, "--peers", "numpy", start=start)
    assert code == 0
    assert "numpy: absent (ModuleNotFoundError: no such thing)" in text and "limits: absent" in text
    assert set(result["cells"][0]["seconds"]) == {"attnkit"}


def test_an_unknown_word_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["grids"])
    assert "choose from grid," in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["--peers", "jax"])


def test_a_dead_worker_is_an_error_not_a_hang():
    worker = workers.Worker("numpy", 1)
    worker.process.kill()
    with pytest.raises(workers.WorkerError, match="ended with code"):
        worker.ask("hello")
    worker.close()


def test_the_grid_is_the_whole_grid():
    rows = grid.cases("grid")
    assert len({case.id for case in rows}) == len(rows)
    assert {case.lq for case in rows} == {1, 16, 128, 1024, 4096} and {case.d for case in rows} == {32, 64, 80, 128, 256}
    assert {case.variant for case in rows} == set(grid.test_rows().KINDS) and {case.threads for case in rows} == {1, 2}
    assert max(case.flops for case in rows) <= grid.MAX_FLOPS
    # At L = 4096, d = 256 both grouped cells are cut to the same number of heads, for each thread count.
    assert len(rows) == 5 * 5 * 2 * 6 * 2 - 2


@pytest.mark.parametrize("variant", grid.VARIANTS)
def test_flops_count_what_the_variant_allows(variant):
    case = grid.Case("grid", variant, 600, 600, 8, 4)
    allowed = case.allowed(np.arange(600))
    pairs = 600 * 600 if allowed is None else int(allowed.sum())
    assert case.flops == 4 * pairs * 8 * 4


def test_the_reference_is_the_definition():
    case = grid.Case("statistics", "causal", 40, 40, 8, 2)
    arrays = case.inputs()
    reference = check.Reference(case, arrays)
    q, k, v = (arrays[name].astype(np.float64) for name in "qkv")
    s = np.where(np.tri(40, dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(8), -np.inf)
    p = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)
    exact = {"out": p @ v, "lse": np.log(np.exp(s).sum(-1)), "entropy": -terms.sum(-1), "max_weight": p.max(-1), "purity": (p * p).sum(-1)}
    assert reference.error(exact) < 1e-6
    for name in exact:
        assert reference.error({**exact, name: exact[name] * 1.001}) > 1, name


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_arrays_reach_the_workers_unchanged(dtype, tmp_path):
    if not grid.known(dtype):
        pytest.skip("needs ml_dtypes")
    arrays = grid.Case("grid", "mask", 5, 5, 3, 2, dtype).inputs()
    back = workers.read(workers.write(tmp_path, arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape and back[name].tobytes() == array.tobytes()


def test_the_table_fits_a_terminal():
    for kind in grid.KINDS:
        for case in grid.cases(kind) if kind != "import" else ():
            seconds = {call: [123.4] for call in (*report.PEERS, *report.OWN)} | {"attnkit": [0.01]}
            cell = {"id": case.id, "case": {"kind": kind}, "seconds": seconds, "limits": [], "wrong": [], "skipped": {}}
            assert len(report.line(cell)) <= 110
    assert len(report.HEADER) <= 110


def test_ratios_are_taken_pair_by_pair():
    cell = {"seconds": {"attnkit": [1.0, 2.0, 4.0], "torch": [3.0, 2.0, 8.0]}, "limit": "float32", "flops": 8.0, "limits": [8.0, 8.0, 2.0]}
    assert report.ratio(cell, "torch") == 2.0 and report.ratio(cell, "numpy") is None
    assert report.fraction(cell) == 1.0
    assert report.slow({**cell, "seconds": {"attnkit": [1.0], "torch": [0.9]}})
    assert not report.slow({"seconds": {"attnkit": [1.0], "torch": [0.9]}, "again": cell})
    assert report.geometric_mean([0.5, 8.0]) == pytest.approx(2.0)


@pytest.mark.skipif(not any(map(shutil.which, ("gcc", "clang", "cc"))), reason="needs a C compiler")
def test_limits_are_positive_and_finite():
    machine = limits.Limits()
    for what in ("float32", "float64", "read"):
        for threads in (1, 2):
            assert 1e7 < machine.measure(what, threads) < 1e15


def test_noise_tells_waiting_workers_from_the_one_at_work():
    noise = measure.Noise({os.getpid()})
    with noise.turn(os.getpid()):
        sum(range(200_000))
    assert noise.summary()["waiting_workers"] == 0.0


def test_nothing_to_draw_is_said(tmp_path):
    assert report.plot(tmp_path / "curve.png", {"cells": []}) == "no curve was measured"
