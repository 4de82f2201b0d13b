"""Targets, threads, quotas, the build, and attnkit.testing."""

import os
import platform
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import attnkit
from attnkit import _core
from attnkit.testing import assert_same_bits

openmp = pytest.mark.skipif(not _core.have_openmp(), reason="serial build")


# ---- targets --------------------------------------------------------------------------------------------------


def test_generic_runs_everywhere_and_the_best_target_is_chosen(usable_targets, run_python):
    assert "generic" in usable_targets
    program = "import attnkit; print(attnkit.cpu_info()['target'])"
    assert run_python(program, ATTNKIT_CPU="").strip() == usable_targets[0]


def test_environment_forces_a_target(usable_targets, run_python):
    for word in usable_targets:
        assert run_python("import attnkit; print(attnkit.cpu_info()['target'])", ATTNKIT_CPU=word).strip() == word


@pytest.mark.parametrize("word", ["avx3", "AVX2", "generic "])
def test_wrong_environment_word_lists_the_choices(word, run_python):
    result = run_python("import attnkit", ATTNKIT_CPU=word, check=False)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: environment variable ATTNKIT_CPU: ") and repr(word) in last
    for known, _, _ in _core.isa_table():
        assert known in last


def test_target_that_cannot_run_is_refused_and_nothing_changes():
    before = _core.isa_chosen()
    for word, _, usable in _core.isa_table():
        if not usable:
            with pytest.raises(ValueError, match=f"'{word}' cannot be used here"):
                _core.isa_force(word)
    assert _core.isa_chosen() == before


def test_cpu_info_agrees_with_the_system():
    info = attnkit.cpu_info()
    assert info["machine"] == platform.machine()
    assert info["cpus"] == len(os.sched_getaffinity(0))
    assert info["targets"][info["target"]] == "usable"
    assert info["openmp"] is _core.have_openmp()
    assert info["threads"] == attnkit.get_num_threads()


def test_usable_targets_match_what_the_kernel_reports(usable_targets):
    if platform.machine() != "x86_64":
        pytest.skip("reads the x86 flags of /proc/cpuinfo")
    flags = set(next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split())
    avx2 = {"avx", "avx2", "fma", "f16c", "popcnt", "bmi1", "bmi2", "abm"} <= flags
    avx512 = avx2 and {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags
    compiled = {word for word, built, _ in _core.isa_table() if built}
    assert ("avx2" in usable_targets) == (avx2 and "avx2" in compiled)
    assert ("avx512" in usable_targets) == (avx512 and "avx512" in compiled)


# ---- threads --------------------------------------------------------------------------------------------------


def test_set_and_return_to_the_default():
    default = attnkit.get_num_threads()
    attnkit.set_num_threads(np.int64(5))
    assert attnkit.get_num_threads() == 5
    attnkit.set_num_threads(None)
    assert attnkit.get_num_threads() == default


@pytest.mark.parametrize("n", [0, -1, 1025, 2**70])
def test_thread_count_out_of_range(n):
    with pytest.raises(ValueError, match="n must be in 1..1024"):
        attnkit.set_num_threads(n)
    with pytest.raises(ValueError, match="n must be in 1..1024"):
        attnkit.threads(n)


@pytest.mark.parametrize("n", [2.0, "2", [2]])
def test_thread_count_of_the_wrong_type(n):
    with pytest.raises(TypeError, match="n must be an integer or None"):
        attnkit.set_num_threads(n)


def test_context_manager_nests_and_restores_on_error():
    default = attnkit.get_num_threads()
    limit = attnkit.threads(3)
    with pytest.raises(KeyError), limit:
        assert attnkit.get_num_threads() == 3
        with attnkit.threads(1), limit:  # the same object again, inside itself
            assert attnkit.get_num_threads() == 3
            attnkit.set_num_threads(4)
        assert attnkit.get_num_threads() == 3
        raise KeyError
    assert attnkit.get_num_threads() == default


def test_context_manager_restores_the_default_itself_not_its_value():
    with attnkit.threads(3):
        pass
    with threadpool_limits(1):  # a default that was frozen as a number would ignore this
        assert attnkit.get_num_threads() == 1


def test_decorator_keeps_the_function():
    @attnkit.threads(2)
    def double(x, *, add=0):
        """Doc."""
        return 2 * x + add, attnkit.get_num_threads()

    assert double(3, add=1) == (7, 2)
    assert double.__name__ == "double" and double.__doc__ == "Doc."


def test_setting_belongs_to_its_thread():
    limit, inside, go = attnkit.threads(3), threading.Event(), threading.Event()
    seen = []

    def other():
        seen.append(attnkit.get_num_threads())
        with limit:
            attnkit.set_num_threads(6)
            inside.set()
            go.wait(10)
            seen.append(attnkit.get_num_threads())

    default = attnkit.get_num_threads()
    with attnkit.threads(5):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        with limit:
            assert attnkit.get_num_threads() == 3
        assert attnkit.get_num_threads() == 5
        go.set()
        thread.join()
    assert seen == [default, 6]


@openmp
def test_default_is_the_smallest_limit(run_python):
    program = """
import os, attnkit
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["CPUS"])])
print(attnkit.get_num_threads())
"""
    cpus = min(x for x in (len(os.sched_getaffinity(0)), _core.cgroup_quota("")) if x)
    assert int(run_python(program, OMP_NUM_THREADS="1", CPUS="64")) == 1
    assert int(run_python(program, OMP_NUM_THREADS="64", CPUS="64")) == cpus
    assert int(run_python(program, OMP_NUM_THREADS="64", CPUS="1")) == 1


def test_import_is_a_good_guest(run_python):
    program = """
import sys, numpy, threading, os
before = set(sys.modules)
import attnkit
heavy = {"importlib.metadata", "matplotlib", "ml_dtypes", "torch", "scipy", "onnxruntime", "hypothesis", "pytest"}
print(sorted(heavy & (set(sys.modules) - before)), len(os.listdir("/proc/self/task")))
"""
    assert run_python(program, OPENBLAS_NUM_THREADS="1").strip() == "[] 1"


# ---- quota ----------------------------------------------------------------------------------------------------

V2_MOUNT = "30 24 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = (
    "31 24 0:27 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 24 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)
CPU_V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    "group, mounts, files, expected",
    [
        ("0::/a/b\n", V2_MOUNT, {"sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", V2_MOUNT, {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 0),
        # a parent binds its children
        ("0::/a/b\n", V2_MOUNT, {"sys/fs/cgroup/a/b/cpu.max": "800000 100000", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        ("0::/\n", V2_MOUNT, {"sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ("0::/a\n", V2_MOUNT, {"sys/fs/cgroup/other/cpu.max": "100000 100000"}, 0),
        ("0::/a\n", V2_MOUNT, {"sys/fs/cgroup/a/cpu.max": "1000 100000"}, 1),
        # inside a container: only the subtree is mounted, the group has its host name
        ("0::/docker/x/in\n", V2_MOUNT.format(root="/docker/x"), {"sys/fs/cgroup/in/cpu.max": "200000 100000"}, 2),
        ("0::/docker/xy\n", V2_MOUNT.format(root="/docker/x"), {"sys/fs/cgroup/y/cpu.max": "200000 100000"}, 0),
        # version 1, two files
        (
            "5:memory:/m\n4:cpu,cpuacct:/c\n",
            V1_MOUNT,
            {f"{CPU_V1}/c/cpu.cfs_quota_us": "250000", f"{CPU_V1}/c/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu,cpuacct:/c\n", V1_MOUNT, {f"{CPU_V1}/c/cpu.cfs_quota_us": "-1", f"{CPU_V1}/c/cpu.cfs_period_us": "100000"}, 0),
        ("4:cpuset:/c\n", V1_MOUNT, {f"{CPU_V1}/c/cpu.cfs_quota_us": "100000", f"{CPU_V1}/c/cpu.cfs_period_us": "100000"}, 0),
        # both versions mounted: the smaller limit
        (
            "4:cpu:/c\n0::/u\n",
            V2_MOUNT + V1_MOUNT,
            {
                f"{CPU_V1}/c/cpu.cfs_quota_us": "400000",
                f"{CPU_V1}/c/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/u/cpu.max": "200000 100000",
            },
            2,
        ),
        ("0::/a\n", V2_MOUNT, {"sys/fs/cgroup/a/cpu.max": "garbage"}, 0),
        ("0::/a\n", "x" * 10000 + "\n" + V2_MOUNT, {"sys/fs/cgroup/a/cpu.max": "100000 100000"}, 1),
        ("0::/" + "a" * 5000 + "\n", V2_MOUNT, {"sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ("", "", {}, 0),
    ],
)
def test_quota_of_a_control_group(tmp_path, group, mounts, files, expected):
    texts = {"proc/self/cgroup": group, "proc/self/mountinfo": mounts.format(root="/"), **files}
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _core.cgroup_quota(str(tmp_path)) == expected


def test_quota_without_files(tmp_path):
    assert _core.cgroup_quota(str(tmp_path)) == 0


# ---- memory hooks ---------------------------------------------------------------------------------------------


def test_each_allocation_can_fail_and_nothing_leaks():
    rng = np.random.default_rng(5)
    q, k, v = rng.standard_normal((3, 2, 300, 32), dtype=np.float32)
    expected = attnkit.softmax_attention(q, k, v, causal=True)
    live = _core.alloc_live()
    for n in (1, 2):
        attnkit.set_num_threads(n)
        out = np.full_like(q, 7)
        for attempt in range(1, 200):
            _core.alloc_fail_after(attempt)
            try:
                attnkit.softmax_attention(q, k, v, causal=True, out=out)
            except MemoryError:
                assert (out == 7).all() and _core.alloc_live() == live
            else:
                break
        assert attempt > 1, "no allocation was made to fail"
        assert out.tobytes() == expected.tobytes()


# ---- the binary -----------------------------------------------------------------------------------------------


def test_extension_is_hardened():
    """64-bit little-endian ELF: the stack is not executable, relocations are read-only, symbols are bound at load."""
    blob = Path(_core.__file__).read_bytes()
    assert blob[:6] == b"\x7fELF\x02\x01"
    start, size, count = struct.unpack_from("<Q", blob, 32)[0], *struct.unpack_from("<HH", blob, 54)
    headers = [struct.unpack_from("<IIQQQQ", blob, start + i * size) for i in range(count)]
    kinds = {kind: (flags, offset, length) for kind, flags, offset, _, _, length in headers}
    PT_DYNAMIC, PT_GNU_STACK, PT_GNU_RELRO, EXECUTABLE = 2, 0x6474E551, 0x6474E552, 1
    assert not kinds[PT_GNU_STACK][0] & EXECUTABLE
    assert PT_GNU_RELRO in kinds
    _, offset, length = kinds[PT_DYNAMIC]
    dynamic = dict(struct.iter_unpack("<QQ", blob[offset : offset + length]))
    DT_FLAGS, DF_BIND_NOW = 30, 8
    assert dynamic[DT_FLAGS] & DF_BIND_NOW


def test_a_checkout_without_extension_runs_the_installed_package(tmp_path):
    package = Path(attnkit.__file__).parent
    shutil.copytree(package, tmp_path / "attnkit", ignore=shutil.ignore_patterns("_core.*", "__pycache__"))
    program = "import attnkit.testing as t, attnkit; print(attnkit.__file__); print(t.__file__); attnkit.cpu_info()"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    started, used = result.stdout.splitlines()
    assert Path(started).parent == tmp_path / "attnkit" and Path(used).parent == package


def test_a_checkout_alone_says_what_to_do(tmp_path):
    package = Path(attnkit.__file__).parent
    shutil.copytree(package, tmp_path / "attnkit", ignore=shutil.ignore_patterns("_core.*", "__pycache__"))
    program = """
import glob, sys
sys.path = [entry for entry in sys.path if not (entry and glob.glob(entry + "/attnkit/_core.*"))]
import attnkit
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
    )
    assert "ImportError" in result.stderr and "pip install ." in result.stderr


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert attnkit.__version__ == version("attnkit")


def test_show_versions_names_everything(capsys):
    attnkit.show_versions()
    text = capsys.readouterr().out
    info = attnkit.cpu_info()
    for piece in (attnkit.__version__, np.__version__, info["target"], info["processor"], "fingerprint", "methods section"):
        assert piece in text


# ---- attnkit.testing ------------------------------------------------------------------------------------------


def test_same_bits_tries_every_variation(usable_targets):
    seen = set()

    def f(a, pair, *, key):
        assert np.array_equal(a, [[1, 2, 3], [4, 5, 6]]) and np.array_equal(pair[0], [7, 8]) and pair[1] is None
        layout = (a.strides, a.flags.aligned, a.flags.writeable, key["b"].strides)
        seen.add((attnkit.get_num_threads(), _core.isa_chosen(), layout))
        return {"x": a.sum(), "y": [a * 2, (1.5, None)]}

    before = _core.isa_chosen(), attnkit.get_num_threads()
    a = np.array([[1.0, 2, 3], [4, 5, 6]])
    assert_same_bits(f, a, (np.array([7, 8]), None), key={"b": np.ones(3)}, threads=(1, 4))
    assert (_core.isa_chosen(), attnkit.get_num_threads()) == before
    assert {n for n, _, _ in seen} == {1, 4}
    assert {word for _, word, _ in seen} == set(usable_targets)
    layouts = {layout for _, _, layout in seen}
    assert {strides for strides, *_ in layouts} == {(24, 8), (16, 64), (-24, -8)}
    assert {(aligned, writeable) for _, aligned, writeable, _ in layouts} == {(True, True), (False, True), (True, False)}


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda a: a + (attnkit.get_num_threads() == 3) * np.eye(2)[1], r"threads=3.*C-contiguous.* result differs in 1 of 2 .*index \(1,\): "),
        (lambda a: (a, {"s": np.float32(a.strides[0] < 0)}), r"negative strides arrays: result\[1\]\['s'\] differs"),
        (lambda a: a if a.flags.writeable else a.astype(np.float32), r"read-only arrays: result is float32\(2,\), was float64"),
        (lambda a: [a] * attnkit.get_num_threads(), "the structure of the result changed"),
        (lambda a: np.copysign(0.0, 2.5 - attnkit.get_num_threads()), r"index \(\)"),
    ],
)
def test_same_bits_reports_what_differs(f, message):
    before = _core.isa_chosen(), attnkit.get_num_threads()
    with pytest.raises(AssertionError, match=message):
        assert_same_bits(f, np.array([0.0, 1.0]))
    assert (_core.isa_chosen(), attnkit.get_num_threads()) == before


def test_same_bits_tells_nan_patterns_apart():
    def f():
        bits = 0x7FC00000 + (attnkit.get_num_threads() == 7)
        return np.array([bits], np.uint32).view(np.float32)

    with pytest.raises(AssertionError, match="0100c07f"):
        assert_same_bits(f)
    assert_same_bits(f, threads=(1, 2))


def test_same_bits_names_the_target(usable_targets):
    if len(usable_targets) < 2:
        pytest.skip("one target only")
    with pytest.raises(AssertionError, match=f"target={usable_targets[1]}"):
        assert_same_bits(lambda: np.float64(_core.isa_chosen() == usable_targets[1]))
    assert_same_bits(lambda: np.float64(_core.isa_chosen() == usable_targets[1]), targets=usable_targets[:1])


def test_same_bits_refuses_what_it_cannot_check():
    with pytest.raises(TypeError, match="out="):
        assert_same_bits(lambda out: out, out=np.zeros(1))
    with pytest.raises(TypeError, match="only arrays and numbers"):
        assert_same_bits(object)
    with pytest.raises(ValueError, match="targets"):
        assert_same_bits(float, targets=[])
    with pytest.raises(ValueError, match="threads"):
        assert_same_bits(float, threads=())


def test_same_bits_on_attention():
    rng = np.random.default_rng(6)
    q, k, v = rng.standard_normal((3, 2, 70, 24), dtype=np.float32)
    assert_same_bits(attnkit.softmax_attention, q, k, v, causal=True, return_lse=True)


def test_a_tiny_call_stays_on_its_thread(run_python):
    program = """
import os, numpy as np, attnkit
q = np.ones((8, 8), np.float32)
attnkit.softmax_attention(q, q, q)
print(len(os.listdir("/proc/self/task")))
"""
    assert run_python(program, OPENBLAS_NUM_THREADS="1").strip() == "1"
