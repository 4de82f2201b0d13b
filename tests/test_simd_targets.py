"""The vector layer compiled by hand for every target this machine has a compiler for: one checksum for all.

AVX-512 runs in plain code through SIMDe where the processor lacks it, AArch64 under qemu. The exhaustive accuracy
tests (all 2^32 inputs of a function, a few minutes each) run with --exhaustive.
"""

import functools
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from attnkit import _core

CSRC = Path(__file__).resolve().parent.parent / "csrc"
PROGRAMS = Path(__file__).resolve().parent / "csrc"
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
COMMON = ["-std=gnu11", "-ffp-contract=off", f"-I{CSRC}", f"-I{PROGRAMS}"]
ROWS = re.findall(r'^AK_ISA\((\w+), "(\w+)", "(\w+)", "([^"]*)"\)$', (CSRC / "core" / "isa.def").read_text(), re.M)
FLAGS = {word: flags.split() for _, word, _, flags in ROWS}
USABLE = [word for word, _, usable in _core.isa_table() if usable]
BEST = USABLE[0]
# Intrinsics of 512 bits on 256-bit registers pass vectors in memory: the note about that calling convention is moot.
EMULATED = ["-Wno-psabi", "-include", "avx512_emulated.h", "-DAK_TARGET_AVX512", *FLAGS["avx2"]]
VECTORS = ["avx512", "avx2", "neon"]
FUNCTIONS = ["exp", "exp2", "exp2_neg", "log", "log1p", "tanh"]


def tool(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here")
    return path


def build(folder, program, compiler, flags, optimise="-O2"):
    binary = folder / f"{program}_{len(list(folder.iterdir()))}"
    source = str(PROGRAMS / f"{program}.c")
    command = [tool(compiler), optimise, *WARNINGS, *COMMON, *flags, source, "-o", str(binary), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return binary


def run(*command, timeout=120):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def natively(program, compiler, word, folder, optimise="-O2"):
    if word not in USABLE:
        pytest.skip(f"this machine cannot run {word}")
    return build(folder, program, compiler, [f"-DAK_TARGET_{word.upper()}", *FLAGS[word]], optimise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simd")


@pytest.fixture(scope="module")
def checksum(folder):
    """Of plain C, by the compiler at hand: what every other build must give."""
    compiler = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), "gcc")
    output = run(build(folder, "simd_hash", compiler, ["-DAK_TARGET_GENERIC"]))
    assert re.fullmatch(r"[0-9a-f]{16} \d{3} operations, 0 wrong tails\n", output)
    return output


# Plain C takes compilers many seconds; gcc's is the checksum itself.
@pytest.mark.parametrize("compiler, word", [*itertools.product(("gcc", "clang"), VECTORS), ("clang", "generic")])
def test_one_checksum_on_this_processor(compiler, word, folder, checksum):
    assert run(natively("simd_hash", compiler, word, folder, "-O3")) == checksum


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_one_checksum_avx512_emulated(compiler, folder, checksum):
    if "avx2" not in USABLE:
        pytest.skip("emulation wants AVX2")
    if not Path("/usr/include/simde").is_dir():
        pytest.skip("no SIMDe headers here")
    assert run(build(folder, "simd_hash", compiler, EMULATED)) == checksum


@pytest.mark.parametrize("word", ["neon", pytest.param("generic", marks=pytest.mark.exhaustive)])
def test_one_checksum_aarch64_under_qemu(word, folder, checksum):
    qemu = tool("qemu-aarch64")
    binary = build(folder, "simd_hash", "aarch64-linux-gnu-gcc", ["-static", f"-DAK_TARGET_{word.upper()}", *FLAGS[word]])
    assert run(qemu, binary) == checksum


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_avx512_compiles_for_the_real_thing(compiler, folder):
    if "avx2" not in USABLE:
        pytest.skip("not an x86-64 machine")
    build(folder, "simd_hash", compiler, ["-DAK_TARGET_AVX512", *FLAGS["avx512"]], "-O3")


def measured(output):
    found = re.search(r"tested (\d+) max_ulp ([\d.]+) at \S+ wrong (\d+) .*checksum (\w+)", output)
    assert found, output
    assert float(found[2]) <= 1 and found[3] == "0"
    return output


@pytest.fixture(scope="module")
def programs(folder):
    """The accuracy program of a target, built when first asked for."""
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), "gcc")
    return functools.cache(lambda program, word: natively(program, compiler, word, folder, "-O3"))


@pytest.mark.parametrize("program, arguments", [("simd_exhaustive", [20011]), ("simd_float64", [100_000, 5])])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_accuracy_sampled(function, program, arguments, programs):
    # One target, the best: the checksums above and test_simd.py tie the others to it.
    measured(run(programs(program, BEST), function, *arguments))


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("program, arguments", [("simd_exhaustive", [1]), ("simd_float64", [20_000_000, 7])])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_accuracy_exhaustive(function, program, arguments, programs):
    """All 2^32 float32 inputs, and 2 * 10^7 float64 points, per target."""
    lines = {word: measured(run(programs(program, word), function, *arguments, timeout=7000)) for word in sorted(USABLE)}
    for word, line in lines.items():
        print(word, line, end="")
    assert len(set(lines.values())) == 1
