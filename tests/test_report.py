"""The main job: its numbers against a dense computation, its files, its tables, its errors."""

import io
import json
import os
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

import attnkit
from attnkit import datasets
from attnkit.__main__ import main
from attnkit.report import HEAD_MEASURES, head_report

RNG = np.random.default_rng(20260)


def dense(q, k, *, scale, causal):
    """Every number of a report from the whole map, in float64 and straight from the definitions."""
    q, k = np.asarray(q, dtype=np.float64), np.asarray(k, dtype=np.float64)
    n_layers, n_heads, n_queries, _ = q.shape
    n_keys, group = k.shape[2], q.shape[1] // k.shape[1]
    numbers = {
        m: np.zeros((n_layers, n_heads))
        for m in ("entropy", "normalised_entropy", "sink_mass", "distance", "effective_keys")
    }
    mean, largest = np.zeros((2, n_layers, n_heads, n_keys))
    i, j = np.ogrid[:n_queries, :n_keys]
    position = i + n_keys - n_queries
    allowed = (j <= position) if causal else np.ones((n_queries, n_keys), bool)
    for layer in range(n_layers):
        for head in range(n_heads):
            s = scale * (q[layer, head] @ k[layer, head // group].T)
            e = np.where(allowed, np.exp(s - s.max()), 0.0)
            total = e.sum(1)
            p = e / np.where(total > 0, total, 1)[:, None]
            seen = allowed.sum(1)
            entropy = np.array([-sum(x * np.log(x) for x in row if x > 0) for row in p])
            some, several = seen > 0, seen > 1
            numbers["entropy"][layer, head] = entropy[some].mean()
            ratio = entropy[several] / np.log(seen[several])
            numbers["normalised_entropy"][layer, head] = ratio.mean() if several.any() else np.nan
            numbers["sink_mass"][layer, head] = p[some, 0].mean()
            numbers["distance"][layer, head] = (p * abs(position - j)).sum(1)[some].mean()
            numbers["effective_keys"][layer, head] = np.exp(entropy[some]).mean()
            mean[layer, head] = p.sum(0) / np.maximum(allowed.sum(0), 1)
            largest[layer, head] = p.max(0)
    return numbers, mean, largest, allowed.sum(0)


def assert_equals_dense(report, q, k, *, scale, causal, rtol, atol):
    numbers, mean, largest, visible = dense(q, k, scale=scale, causal=causal)
    assert set(numbers) == {m.key for m in HEAD_MEASURES} == set(report.heads)
    for key, expected in numbers.items():
        np.testing.assert_allclose(report.heads[key], expected, rtol=rtol, atol=atol, err_msg=key)
    np.testing.assert_allclose(report.received_mean, mean, rtol=rtol, atol=atol)
    np.testing.assert_allclose(report.received_max, largest, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(report.visible, visible)


@pytest.mark.parametrize("name", datasets.list_recorded())
def test_recorded_models_equal_the_dense_computation(name):
    r = datasets.load_recorded(name)
    report = head_report(r.q, r.k, r.v, causal=r.causal, scale=r.scale, tokens=r.tokens, layers=r.layers)
    # float16 arrays are computed in float32; logits reach about 40, and the error grows with them
    assert_equals_dense(report, r.q, r.k, scale=r.scale, causal=r.causal, rtol=5e-5, atol=5e-6)
    assert report.tokens == r.tokens and report.layers == r.layers


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape_q, shape_k",
    [
        ((2, 4, 9, 5), (2, 2, 9, 5)),
        ((1, 3, 5, 8), (1, 1, 11, 8)),  # fewer queries than keys
        ((1, 2, 7, 4), (1, 2, 3, 4)),  # more: under a causal mask the first four see nothing
        ((1, 1, 1, 1), (1, 1, 1, 1)),
    ],
)
def test_float64_shapes(shape_q, shape_k, causal):
    q, k = RNG.standard_normal(shape_q) * 3, RNG.standard_normal(shape_k)
    report = head_report(q, k, causal=causal)
    assert_equals_dense(report, q, k, scale=shape_q[-1] ** -0.5, causal=causal, rtol=1e-12, atol=1e-13)
    assert report.shape == {
        "layers": shape_q[0],
        "heads": shape_q[1],
        "kv_heads": shape_k[1],
        "queries": shape_q[2],
        "keys": shape_k[2],
        "features": shape_q[3],
    }


def test_uniform_attention_by_hand():
    """With equal logits under a causal mask query i has weight 1/(i + 1) on each of its i + 1 keys."""
    n = 6
    report = head_report(np.zeros((n, 3)), np.zeros((n, 3)), causal=True)
    seen = np.arange(1, n + 1)
    value = {key: float(array[0, 0]) for key, array in report.heads.items()}
    assert value["entropy"] == pytest.approx(np.log(seen).mean(), rel=1e-14)
    assert value["normalised_entropy"] == pytest.approx(1, rel=1e-14)
    assert value["sink_mass"] == pytest.approx((1 / seen).mean(), rel=1e-14)
    assert value["distance"] == pytest.approx(((seen - 1) / 2).mean(), rel=1e-14)
    assert value["effective_keys"] == pytest.approx(seen.mean(), rel=1e-14)
    np.testing.assert_allclose(report.received_mean[0, 0], [(1 / seen[j:]).mean() for j in range(n)], rtol=1e-14)
    assert report.visible.tolist() == [6, 5, 4, 3, 2, 1]


def test_per_query_values_and_what_does_not_count():
    report = head_report(np.zeros((3, 2)), np.zeros((2, 2)), causal=True)  # the first query sees no key
    entropy, share = report.queries["entropy"][0, 0], report.queries["normalised_entropy"][0, 0]
    assert report.queries["n_allowed"][0, 0].tolist() == [0, 1, 2]
    assert np.isnan(entropy[0]) and entropy[1] == 0 and entropy[2] == pytest.approx(np.log(2))
    assert np.isnan(share[:2]).all() and share[2] == pytest.approx(1)


def test_fewer_axes_are_one_layer_and_one_head():
    q = RNG.standard_normal((1, 3, 6, 4))
    k = RNG.standard_normal((1, 1, 6, 4))
    np.testing.assert_array_equal(head_report(q[0], k[0]).heads["entropy"], head_report(q, k).heads["entropy"])
    np.testing.assert_array_equal(
        head_report(q[0, 0], k[0, 0]).heads["entropy"], head_report(q, k).heads["entropy"][:, :1]
    )


def test_scale_and_causal_matter_and_scale_none_is_the_usual_one():
    q, k = RNG.standard_normal((2, 1, 2, 8, 4))
    entropy = head_report(q, k).heads["entropy"]
    np.testing.assert_array_equal(entropy, head_report(q, k, scale=0.5).heads["entropy"])
    assert not np.allclose(entropy, head_report(q, k, scale=2.0).heads["entropy"])
    assert not np.allclose(entropy, head_report(q, k, causal=True).heads["entropy"])


def good():
    return {"q": np.ones((2, 4, 5, 8)), "k": np.ones((2, 2, 5, 8)), "v": np.ones((2, 2, 5, 3))}


def with_value(array, value):
    array = array.copy()
    array[1, 0, 2, 1] = value
    return array


BAD = [
    (
        {"q": with_value(good()["q"], np.nan)},
        ValueError,
        r"q: 1 of 320 .* NaN or infinite, the first at \(1, 0, 2, 1\)",
    ),
    ({"k": with_value(good()["k"], np.inf)}, ValueError, "k: 1 of 160"),
    ({"v": with_value(good()["v"], -np.inf)}, ValueError, "v: 1 of 60"),
    ({"q": np.ones((2, 3, 5, 8))}, ValueError, r"k: .*heads must divide.*q \(2, 3, 5, 8\), k \(2, 2, 5, 8\)"),
    ({"k": np.ones((1, 2, 5, 8))}, ValueError, "k: .*layers"),
    ({"k": np.ones((2, 2, 5, 7))}, ValueError, "k: .*features"),
    ({"k": np.ones((2, 5, 8))}, ValueError, "q, k, v: .*same number of axes"),
    ({"v": np.ones((2, 2, 4, 8))}, ValueError, "v: .*length of k"),
    ({"v": np.ones((2, 1, 5, 8))}, ValueError, "v: .*heads"),
    ({"q": np.ones(8)}, ValueError, r"q: expected shape .*got \(8,\)"),
    ({"q": np.ones((2, 4, 0, 8))}, ValueError, r"q: is empty, shape \(2, 4, 0, 8\)"),
    ({"q": np.ones((2, 4, 5, 8), complex)}, TypeError, "q: .*complex128"),
    ({"q": np.ones((2, 4, 5, 8), object)}, TypeError, "q: .*object"),
    ({"k": np.full((2, 2, 5, 8), "1")}, TypeError, "k: .*<U1"),
    ({"k": np.ma.ones((2, 2, 5, 8))}, TypeError, "k: masked"),
    ({"tokens": ["a"] * 4}, ValueError, "tokens: expected one for each of the 5 keys, got 4"),
    ({"tokens": "abcde"}, TypeError, "tokens: .*single string"),
    ({"layers": [1]}, ValueError, "layers: expected 2 numbers, got 1"),
    ({"scale": np.nan}, ValueError, "scale: .*nan"),
    ({"scale": "big"}, ValueError, "scale: .*'big'"),
    ({"causal": "upper_left"}, TypeError, "causal: .*'upper_left'"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_library_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        head_report(**{**good(), **change})


# ----------------------------------------------------------------------------------------------------------------
# Display
# ----------------------------------------------------------------------------------------------------------------
def test_text_shows_every_number_in_100_columns():
    q, k = RNG.standard_normal((3, 14, 30, 4)), RNG.standard_normal((3, 7, 30, 4))
    report = head_report(q, k, tokens=[f"word{i}" for i in range(30)], layers=[0, 7, 31], name="mine")
    text = report.text()
    assert max(map(len, text.splitlines())) <= 100
    for measure in HEAD_MEASURES:
        assert f"{measure.title} ({measure.unit})" in text
        for value in report.heads[measure.key].ravel():
            assert f" {value:.3f}" in text
    assert "the 20 of 30 tokens that receive most" in text
    everything = report.text(all_tokens=True)
    positions = [everything.index(f" word{i} ") for i in range(30)]
    assert positions == sorted(positions)


def test_text_survives_odd_tokens_large_numbers_and_nan():
    tokens = [
        "line\nbreak",
        "\x1b[31m",
        "\u6f22\u5b57\u6f22\u5b57\u6f22\u5b57\u6f22\u5b57",
        "<script>alert(1)</script>",
        "e\u0301",
    ]
    report = head_report(np.ones((5, 2)), np.ones((5, 2)), tokens=tokens)
    text = report.text()
    assert "line\\nbreak" in text and "\x1b" not in text
    alone = head_report(np.ones((1, 2)), np.ones((1, 2)))
    assert np.isnan(alone.heads["normalised_entropy"]).all()
    assert "-" in alone.text() and "nan" not in alone.text()
    far = head_report(np.zeros((1, 2)), np.zeros((1, 2)))
    far.heads["distance"][:] = 123456789.0
    assert "1e8" in far.text()


def test_html_is_escaped_and_small():
    tokens = ["<script>" * 50] * 40
    report = head_report(
        RNG.standard_normal((40, 2, 40, 2)), RNG.standard_normal((40, 1, 40, 2)), tokens=tokens, name="<b>&" * 200
    )
    text = report._repr_html_()
    assert "<script>" not in text and "&lt;script&gt;" in text and "<b>&amp;" not in text
    assert len(text.encode()) <= 10_000
    assert "40 layers x 2 heads" in text and "28 more layers" in text


def test_repr():
    assert repr(head_report(np.ones((4, 2)), np.ones((5, 2)), causal=True, name="a")) == (
        "<Report a: 1 layers x 1 heads, 4 queries x 5 keys, causal>"
    )


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from attnkit import plot

    q, k = RNG.standard_normal((2, 3, 6, 4)), RNG.standard_normal((2, 1, 6, 4))
    report = head_report(q, k, tokens=["$a$", "b", "\n", "d", "", "f"], name="$x$")
    for draw in (plot.entropy_map, plot.sink_map, plot.received_map):
        ax = Figure().subplots()
        assert draw(report, ax=ax) is ax
        assert ax.get_title() and ax.get_ylabel() == "layer"
    ax = Figure().subplots()
    assert plot.entropy_map(report, normalised=True, ax=ax) is ax
    np.testing.assert_allclose(ax.images[0].get_array(), report.heads["normalised_entropy"])
    figure = report.plot()
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    # nothing to see, and too much to label
    head_report(np.ones((1, 2)), np.ones((1, 2))).plot()
    head_report(np.ones((40, 1, 120, 2)), np.ones((40, 1, 120, 2)), tokens=["x"] * 120).plot()


# ----------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------
def test_without_arguments_it_reports_the_recorded_models(tmp_path, capsys):
    assert main(["report", "--out", str(tmp_path), "--no-plot"]) == 0
    out = capsys.readouterr().out
    assert "minilm-l6" in out and "smollm2-135m" in out and "[CLS]" in out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json"]
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["schema"] == "attnkit.report" and content["schema_version"] == 1
    assert content["attnkit_version"] == attnkit.__version__
    assert [r["name"] for r in content["reports"]] == ["minilm-l6", "smollm2-135m"]


def test_json_holds_everything_in_full_precision(tmp_path):
    assert main(["report", "--recorded", "smollm2-135m", "--out", str(tmp_path), "--no-plot", "--per-query"]) == 0
    (content,) = json.loads((tmp_path / "report.json").read_text())["reports"]
    r = datasets.load_recorded("smollm2-135m")
    report = head_report(r.q, r.k, causal=True, scale=r.scale)
    assert content["tokens"] == r.tokens and content["layers"] == r.layers
    assert content["causal"] is True and content["scale"] == r.scale
    assert content["shape"] == {"layers": 6, "heads": 9, "kv_heads": 3, "queries": 64, "keys": 64, "features": 64}
    assert "Apache-2.0" in content["info"]["model"] and content["info"]["text"] == r.text
    for key, values in report.heads.items():
        np.testing.assert_array_equal(np.array(content["heads"][key]["values"]), values)
        assert content["heads"][key]["unit"] and content["heads"][key]["definition"]
    np.testing.assert_array_equal(np.array(content["received"]["mean"]), report.received_mean)
    np.testing.assert_array_equal(np.array(content["received"]["max"]), report.received_max)
    assert content["received"]["visible"] == list(range(64, 0, -1))
    for key, values in report.queries.items():
        np.testing.assert_array_equal(np.array(content["queries"][key], dtype=float), values)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_npz_round_trip(tmp_path, capsys):
    q, k, v = (RNG.standard_normal((2, n, 6, 4)).astype(np.float32) for n in (4, 2, 2))
    file = save(tmp_path / "mine.npz", q=q, k=k, v=v, tokens=np.array(list("abcdef")))
    target = tmp_path / "new" / "folder" / "numbers.json"
    arguments = ["report", "--npz", file, "--causal", "--scale", "0.25", "--no-plot", "--json", str(target)]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "mine.npz" in capsys.readouterr().out
    (content,) = json.loads(target.read_text())["reports"]
    numbers, mean, _, _ = dense(q, k, scale=0.25, causal=True)
    np.testing.assert_allclose(content["heads"]["entropy"]["values"], numbers["entropy"], rtol=1e-5)
    np.testing.assert_allclose(content["received"]["mean"], mean, rtol=1e-5)
    assert content["tokens"] == list("abcdef")


def test_npz_knows_its_own_options_and_the_command_overrides_them(tmp_path):
    q = RNG.standard_normal((1, 1, 4, 2))
    file = save(tmp_path / "a.npz", q=q, k=q, v=q, causal=np.array(True), scale=np.array(3.0), layers=np.array([9]))
    base = ["report", "--npz", file, "--no-plot", "--out", str(tmp_path)]

    def read(*more):
        assert main([*base, *more]) == 0
        (content,) = json.loads((tmp_path / "report.json").read_text())["reports"]
        return content["causal"], content["scale"], content["layers"]

    assert read() == (True, 3.0, [9])
    assert read("--no-causal", "--scale", "0.5") == (False, 0.5, [9])


def test_a_recording_is_a_valid_npz(tmp_path):
    file = os.path.join(os.path.dirname(datasets.__file__), "smollm2-135m.npz")
    assert main(["report", "--npz", file, "--no-plot", "--out", str(tmp_path / "a")]) == 0
    assert main(["report", "--recorded", "smollm2-135m", "--no-plot", "--out", str(tmp_path / "b")]) == 0
    a, b = (json.loads((tmp_path / x / "report.json").read_text())["reports"][0] for x in "ab")
    assert a["heads"] == b["heads"] and a["received"] == b["received"] and a["tokens"] == b["tokens"]


def test_a_head_without_a_number_is_null(tmp_path):
    one = np.ones((1, 1, 1, 2))
    assert (
        main(["report", "--npz", save(tmp_path / "a.npz", q=one, k=one, v=one), "--no-plot", "--out", str(tmp_path)])
        == 0
    )
    (content,) = json.loads((tmp_path / "report.json").read_text())["reports"]
    assert content["heads"]["normalised_entropy"]["values"] == [[None]]


def fails(capsys, *arguments):
    """Run the job, which must say one line and exit with 2; returns the line."""
    try:
        code = main(["report", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == ""
    assert err.startswith("attnkit report: error: ") and err.endswith("\n") and err.count("\n") == 1
    return err


# what an .npz file can hold: no options, and no mask
BAD_IN_FILE = [
    row for row in BAD if set(row[0]) <= {"q", "k", "v"} and not isinstance(row[0].get("k"), np.ma.MaskedArray)
]


@pytest.mark.parametrize("change, error, message", BAD_IN_FILE)
def test_bad_arrays_in_a_file(tmp_path, capsys, change, error, message):
    line = fails(capsys, "--npz", save(tmp_path / "bad.npz", **{**good(), **change}))
    assert "bad.npz" in line
    assert (
        "Python objects" in line
        if change.get("q", np.empty(0)).dtype == object
        else f"{message.split(':')[0]}:" in line
    )


def test_bad_files(tmp_path, capsys):
    arrays = good()
    assert "No such file" in fails(capsys, "--npz", tmp_path / "absent.npz")
    assert "directory" in fails(capsys, "--npz", tmp_path)
    (tmp_path / "text.npz").write_text("hello, this is no archive")
    assert "is not an .npz file" in fails(capsys, "--npz", tmp_path / "text.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    assert "is not an .npz file" in fails(capsys, "--npz", tmp_path / "empty.npz")
    np.save(tmp_path / "one.npy", arrays["q"])
    assert "single array" in fails(capsys, "--npz", tmp_path / "one.npy")
    whole = tmp_path / "whole.npz"
    save(whole, **arrays)
    data = bytearray(whole.read_bytes())
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    assert "is not an .npz file" in fails(capsys, "--npz", tmp_path / "cut.npz")
    data[400:420] = bytes(20)
    (tmp_path / "damaged.npz").write_bytes(data)
    assert "q: cannot be read" in fails(capsys, "--npz", tmp_path / "damaged.npz")
    assert "has no array k, v (found: q)" in fails(capsys, "--npz", save(tmp_path / "q.npz", q=arrays["q"]))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**4, 10**4, 10**4, 8)}
    )
    for content, message in [
        (header.getvalue(), "q: does not fit in memory"),
        (header.getvalue().replace(b"}", b"{"), "q: cannot be read"),
        (b"hello", "q: expected an array of real numbers"),
    ]:
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "member.npz", "w") as target:
            for name in source.namelist():
                target.writestr(name, content if name == "q.npy" else source.read(name))
        assert message in fails(capsys, "--npz", tmp_path / "member.npz")
    for name, value, message in [
        ("tokens", np.array(["a"] * 4), "tokens: expected one for each of the 5 keys, got 4"),
        ("tokens", np.arange(5), "tokens: expected a 1-D array of strings"),
        ("tokens", np.array(["a", None, "b", "c", "d"], object), "tokens: is an array of Python objects"),
        ("layers", np.array([1.5, 2.5]), "layers: expected a 1-D array of integers"),
        ("layers", np.arange(3), "layers: expected 2 numbers, got 3"),
        ("causal", np.array([True, False]), "causal: expected one bool"),
        ("scale", np.array(np.nan), "scale: expected a finite number"),
    ]:
        file = save(tmp_path / "option.npz", **arrays, **{name: value})
        assert message in fails(capsys, "--npz", file)


def test_bad_options(tmp_path, capsys):
    file = save(tmp_path / "a.npz", **good())
    assert "invalid float value" in fails(capsys, "--npz", file, "--scale", "big")
    assert "scale: expected a finite number" in fails(capsys, "--npz", file, "--scale", "nan")
    assert "--causal goes with --npz" in fails(capsys, "--causal")
    assert "choose one of minilm-l6, smollm2-135m" in fails(capsys, "--recorded", "gpt")
    assert "unrecognized" in fails(capsys, "--npz", file, "--colour")
    assert "not allowed with" in fails(capsys, "--npz", file, "--recorded", "minilm-l6")


def test_a_result_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = [
        "report",
        "--npz",
        save(tmp_path / "a.npz", **good()),
        "--no-plot",
        "--out",
        str(tmp_path / "file" / "x"),
    ]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("attnkit report: error: ") and err.count("\n") == 1 and str(tmp_path / "file") in err


def test_json_into_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "attnkit", "report", "--recorded", "minilm-l6", "--no-plot"]
    job = subprocess.Popen(
        [*command, "--json", str(tmp_path / "pipe"), "--out", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    content = json.loads((tmp_path / "pipe").read_text())
    assert job.wait(timeout=60) == 0 and content["schema"] == "attnkit.report"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def run_python(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from /proc")
@pytest.mark.parametrize("causal", [False, True])
def test_no_map_is_built(causal):
    """12288 x 12288 weights would take 604 MB; the report may not even take a tenth of that."""
    code = """
import sys
import numpy as np
from attnkit.report import head_report

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

q = np.random.default_rng(0).standard_normal((1, 1, 12288, 16), dtype=np.float32)
head_report(q[:, :, :300], q[:, :, :300])
before = peak()
report = head_report(q, q, causal=sys.argv[1] == "True")
assert abs((report.received_mean * report.visible).sum() - 12288) < 1
print(peak() - before)
"""
    done = run_python(code, causal)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 60e6


def test_without_matplotlib_there_is_no_picture_and_no_failure(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None; from attnkit.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = run_python(code, "report", "--recorded", "minilm-l6", "--out", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "matplotlib is not installed" in done.stdout.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json"]


def test_tokens_that_the_font_lacks_cause_no_warnings(tmp_path):
    pytest.importorskip("matplotlib")
    file = save(tmp_path / "a.npz", **good(), tokens=np.array(["\u6f22", "a", "b", "c", "d"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["report", "--npz", file, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.png").exists()


def test_as_a_module_with_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "attnkit", "report", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "report.png" in done.stdout.splitlines()[-1]


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = f"'{sys.executable}' -m attnkit report --no-plot --out '{tmp_path}' | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout == "minilm-l6\n" and done.stderr == "" and done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_behind_standard_output(tmp_path):
    command = [sys.executable, "-m", "attnkit", "report", "--no-plot", "--out", str(tmp_path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("attnkit report: error: standard output: ") and done.stderr.count("\n") == 1


def test_help_describes_the_format(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "(layers, kv_heads, length, features)" in out and "--all-tokens" in out
