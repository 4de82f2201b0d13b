"""attnkit: exact attention, its statistics and its variants on NumPy arrays, at C speed on a CPU."""

from ._installed import use_compiled

use_compiled(__path__)

from . import exact, masks  # noqa: E402
from ._runtime import cpu_info, get_num_threads, set_num_threads, show_versions, threads  # noqa: E402
from ._version import __version__  # noqa: E402
from .exact import *  # noqa: E402, F403

_LAZY = {"catalog": "catalogue"}
_LAZY_MODULES = ("datasets", "plot", "reference", "report", "testing", "catalogue")

__all__ = [*exact.__all__, "catalog", "cpu_info", "get_num_threads", "masks", "set_num_threads", "show_versions", "threads"]


def __getattr__(name):
    """Load what is not needed for the operators when it is first asked for."""
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    if name in _LAZY_MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY, *_LAZY_MODULES})
