"""Shared fixtures. The suite tests the installed package, not the sources beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# "python -m pytest" puts the current directory first on the path, where attnkit/ has no compiled extension unless it
# was built in place. Child interpreters would do the same; PYTHONSAFEPATH keeps them from it.
if not any((ROOT / "attnkit").glob("_core.*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]
    os.environ["PYTHONSAFEPATH"] = "1"

from attnkit import _core  # noqa: E402

settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="also run the tests marked exhaustive (minutes to hours)")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--exhaustive"):
        return
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.skip(reason="runs only with --exhaustive"))


def pytest_report_header():
    info = _core.build_info()
    threads = f"threads {_core.threads_get()}, openmp {info['openmp']}"
    return f"attnkit: {_core.__file__}, target {_core.isa_chosen()}, {threads}, {info['compiler']}"


@pytest.fixture(autouse=True)
def runtime_as_before():
    """No test leaves another target, thread count or allocation hook behind, or a scratch block unfreed."""
    target, live = _core.isa_chosen(), _core.alloc_live()
    yield
    _core.alloc_fail_after(0)
    _core.threads_set(0)
    _core.isa_force(target)
    assert _core.alloc_live() == live, "scratch memory was not freed"


@pytest.fixture(scope="session")
def usable_targets():
    """Words of the targets that run on this machine, best first."""
    return [word for word, _, usable in _core.isa_table() if usable]


@pytest.fixture
def run_python(tmp_path):
    """Run a program in a fresh interpreter away from the sources; returns its standard output."""

    def run(program, *args, timeout=120, check=True, **environment):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if not check:
            return result
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
