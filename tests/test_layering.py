"""The architecture, as a test: what may appear where in csrc/, and what every public name must have."""

import inspect
import re
import types
from pathlib import Path

import pytest

import attnkit
import attnkit.reference

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
C_FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".c", ".h", ".def"})

# What the files of a folder may include from other folders: layers below only, intrinsics two floors away from drivers.
MAY_INCLUDE = {
    "core": {"core"},
    "simd": {"simd", "core"},
    "kernels": {"kernels", "simd", "core"},
    "attend": {"attend", "kernels", "core"},
    "scan": {"scan", "kernels", "core"},
    "select": {"select", "kernels", "core"},
    "reduce": {"reduce", "kernels", "core"},
    "python": {"python", "attend", "scan", "select", "reduce", "kernels", "core"},
}


def name(path):
    return path.relative_to(CSRC).as_posix()


def code(path):
    """Text of a C file without comments and string contents, line numbers kept."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'

    def blank(match):
        text = match.group(0)
        return '""' if text[0] == '"' else "\n" * text.count("\n")

    return re.sub(pattern, blank, path.read_text(), flags=re.S)


def includes(path):
    return re.findall(r'^\s*#\s*include\s+([<"][^>"]+[>"])', path.read_text(), re.M)


def hits(pattern, allowed):
    """file:line of every match of `pattern` in the code of files outside `allowed` (folder or file names)."""
    found = []
    for path in C_FILES:
        if any(name(path) == entry or name(path).startswith(entry + "/") for entry in allowed):
            continue
        text = code(path)
        found += [f"{name(path)}:{text.count(chr(10), 0, match.start()) + 1}" for match in re.finditer(pattern, text)]
    return found


def test_the_sources_are_here():
    assert {path.parent.name for path in C_FILES} <= set(MAY_INCLUDE)
    assert len(C_FILES) > 10


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_a_layer_includes_only_layers_below(path):
    allowed = MAY_INCLUDE[path.parent.name]
    for include in includes(path):
        if include[0] == "<":
            continue
        target = (path.parent / include[1:-1]).resolve()
        assert target.is_file(), f"{include} does not exist beside {name(path)}"
        assert target.parent.name in allowed, f"{name(path)} must not include {name(target)}"


def test_python_headers_only_in_the_binding():
    bad = [(name(p), i) for p in C_FILES for i in includes(p) if re.search(r"Python\.h|numpy/", i)]
    assert {entry.split("/")[0] for entry, _ in bad} <= {"python"}, bad


def test_intrinsics_only_in_simd():
    headers = r"(imm|xmm|emm|pmm|tmm|smm|nmm|wmm|x86)intrin\.h|arm_\w+\.h|simde"
    bad = [(name(p), i) for p in C_FILES for i in includes(p) if re.search(headers, i) and p.parent.name != "simd"]
    assert not bad
    assert not hits(r"\b_mm\d*_\w+|\b__m(128|256|512)[di]?\b|\bfloat32x4_t\b|\bfloat64x2_t\b", ["simd"])


def test_memory_only_through_the_scratch_allocator():
    calls = r"\b(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|strdup|alloca|mmap)\s*\("
    assert not hits(calls, ["core/memory.c"])


def test_openmp_only_in_threads():
    assert not [name(p) for p in C_FILES if "<omp.h>" in includes(p) and name(p) != "core/threads.c"]
    assert not hits(r"#\s*pragma\s+omp|\bomp_\w+\s*\(", ["core/threads.c"])


def test_nothing_aborts_or_prints():
    assert not hits(r"\b(abort|exit|_exit|quick_exit|raise|assert|printf|fprintf|puts|perror)\s*\(", [])


def test_no_fast_math_and_no_native_code():
    build = (ROOT / "setup.py").read_text() + (CSRC / "core" / "isa.def").read_text()
    flags = set(re.findall(r"(?<![\w-])-f?[mf][\w=-]+", build))
    assert not {flag for flag in flags if flag in {"-ffast-math", "-Ofast", "-march=native", "-funsafe-math-optimizations"}} - {
        "-ffast-math"  # named once, in the comment of the flag that takes it back
    }
    assert '"-ffast-math"' not in build and '"-ffp-contract=off"' in build
    assert not hits(r"#\s*pragma\s+(GCC|clang)\s+(optimize|fp)|__attribute__\s*\(\(\s*optimize", [])


def test_every_target_has_its_source():
    rows = re.findall(r'^AK_ISA\((\w+), "(\w+)", "(\w+)", "([^"]*)"\)$', (CSRC / "core" / "isa.def").read_text(), re.M)
    assert [word for _, word, _, _ in rows] == [word for word, _, _ in attnkit._core.isa_table()]
    for upper, word, machine, _ in rows:
        assert upper.lower() == word and machine in {"any", "x86_64", "aarch64"}
        assert (CSRC / "kernels" / f"target_{word}.c").is_file()


def test_files_stay_readable():
    folders = ["csrc", "attnkit", "tests", "benchmarks", "docs", "examples", "tools"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".c", ".h", ".def", ".py"}]
    long = {path.name: n for path in files if (n := path.read_text().count("\n")) > 1000}
    assert not long


# ---- the public face --------------------------------------------------------------------------------------------

# Functions about the machine or the package have no mathematics to repeat in NumPy. The engine's raw states are its own
# representation: what they promise is the bytes of one softmax_attention call, which has a twin.
WITHOUT_TWIN = {
    *("catalog", "cpu_info", "get_num_threads", "set_num_threads", "show_versions", "threads"),
    *("AttentionState", "attention_state", "merge_states"),
}
WITHOUT_RESULT = {"set_num_threads", "show_versions", "threads"}

PUBLIC = {
    entry: getattr(attnkit, entry)
    for entry in attnkit.__all__
    if not isinstance(getattr(attnkit, entry), (types.ModuleType, str))
}


def sections(doc):
    """Sections of a numpydoc docstring: title -> text."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", inspect.cleandoc(doc), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize("entry", sorted(PUBLIC))
def test_public_function_has_a_reference_twin(entry):
    if entry in WITHOUT_TWIN:
        assert not hasattr(attnkit.reference, entry), f"{entry} has a twin: take it off the list of exceptions"
        return
    assert callable(getattr(attnkit.reference, entry, None)), f"attnkit.reference.{entry} is missing"


@pytest.mark.parametrize("entry", sorted(PUBLIC))
def test_public_function_is_documented(entry):
    function = PUBLIC[entry]
    assert function.__doc__, f"{entry} has no docstring"
    found = sections(function.__doc__)
    parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    if inspect.isclass(function) and "Attributes" in found:
        assert ">>> " in found.get("Examples", ""), f"{entry} has no example"
        return  # a result type, not called by users
    if parameters:
        assert "Parameters" in found, f"{entry} has no Parameters section"
        for parameter in parameters:
            assert re.search(rf"^(.*\W)?{parameter}\b.* ?:", found["Parameters"], re.M), f"{entry}: {parameter} is undocumented"
    assert entry in WITHOUT_RESULT or "Returns" in found, f"{entry} has no Returns section"
    assert ">>> " in found.get("Examples", ""), f"{entry} has no example"


@pytest.mark.parametrize("entry", sorted(PUBLIC))
def test_no_option_is_swallowed(entry):
    kinds = {p.kind for p in inspect.signature(PUBLIC[entry]).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_all_is_complete():
    assert len(set(attnkit.__all__)) == len(attnkit.__all__)
    for entry in attnkit.__all__:
        assert hasattr(attnkit, entry)
    visible = {n for n, value in vars(attnkit).items() if not n.startswith("_") and inspect.isfunction(value)}
    assert visible - {"use_compiled"} <= set(attnkit.__all__)
