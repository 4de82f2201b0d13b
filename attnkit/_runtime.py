"""Targets, threads and versions: what runs here, and how to say so."""

import functools
import operator
import os
import threading

from . import _core
from ._version import __version__

__all__ = ["cpu_info", "get_num_threads", "set_num_threads", "show_versions", "threads"]

# ATTNKIT_CPU=<target> is read here, at import: a misspelt word must not run something else in silence.
try:
    _core.isa_force(os.environ.get("ATTNKIT_CPU") or None)
except ValueError as error:
    raise ValueError(f"environment variable ATTNKIT_CPU: {error}") from None


def get_num_threads():
    """Return the number of threads that a call from this thread may use.

    Returns
    -------
    int
        What `set_num_threads` or `threads` set in this thread; otherwise the smallest of the CPU affinity mask, the
        CPU quota of the process's control group (rounded up) and ``OMP_NUM_THREADS`` (or a limit that threadpoolctl
        has set in this thread). 1 in a build without OpenMP unless set.

    See Also
    --------
    set_num_threads, threads

    Notes
    -----
    The number never changes a result, only the time. Small calls use fewer threads.

    Examples
    --------
    >>> import attnkit
    >>> attnkit.get_num_threads() >= 1
    True
    """
    return _core.threads_get()


def set_num_threads(n):
    """Set the number of threads that calls from this thread may use.

    Parameters
    ----------
    n : int or None
        1 to 1024; more threads than CPUs are allowed and slow. None returns to the default (`get_num_threads`).

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is outside 1..1024.

    See Also
    --------
    threads : the same for one block of code.

    Notes
    -----
    The setting belongs to the thread that makes it, as OpenMP's own does: other Python threads keep theirs, new ones
    start with the default, and no lock is needed. It wins over ``OMP_NUM_THREADS`` and threadpoolctl.

    Examples
    --------
    >>> import attnkit
    >>> attnkit.set_num_threads(2)
    >>> attnkit.get_num_threads()
    2
    >>> attnkit.set_num_threads(None)
    """
    _core.threads_set(_thread_count(n))


def _thread_count(n):
    """`n` for ``_core.threads_set``: 0 stands for the default there, so the user's own 0 is refused here."""
    if n is None:
        return 0
    try:
        value = operator.index(n)
    except TypeError:
        raise TypeError(f"n must be an integer or None, got {type(n).__name__}") from None
    if not 1 <= value <= 1024:
        raise ValueError(f"n must be in 1..1024 or None, got {value}")
    return value


class threads:
    """Limit the number of threads inside a ``with`` block or a decorated function.

    Parameters
    ----------
    n : int or None
        As for `set_num_threads`.

    Raises
    ------
    TypeError, ValueError
        On construction, as `set_num_threads`.

    See Also
    --------
    set_num_threads, get_num_threads

    Notes
    -----
    The setting before is restored on every way out. One object may be entered again inside its own block and used from
    several Python threads at once: each thread has its own setting and its own stack of values to restore.

    Examples
    --------
    >>> import attnkit
    >>> with attnkit.threads(1):
    ...     attnkit.get_num_threads()
    1
    >>> @attnkit.threads(3)
    ... def inner():
    ...     return attnkit.get_num_threads()
    >>> inner()
    3
    """

    def __init__(self, n):
        self._n = _thread_count(n)
        self._local = threading.local()

    def __enter__(self):
        before = _core.threads_set(self._n)
        vars(self._local).setdefault("stack", []).append(before)
        return self

    def __exit__(self, *exc_info):
        _core.threads_set(self._local.stack.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def limited(*args, **kwargs):
            with self:
                return function(*args, **kwargs)

        return limited


def _processor_name():
    """The processor's marketing name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def cpu_info():
    """Describe the processor, the instruction-set targets and the threads.

    Returns
    -------
    dict
        ``machine`` and ``processor`` (str); ``target`` (str), the target whose kernels run; ``targets``, a dict from
        each target's word, best first, to "usable", "not on this machine" or "not in this build"; ``threads`` (int),
        as `get_num_threads`; ``cpus`` (int), the CPUs in the affinity mask; ``cpu_quota`` (int or None), the quota of
        the control group in whole CPUs; ``openmp`` (bool).

    Notes
    -----
    The best usable target is chosen at import; the environment variable ``ATTNKIT_CPU`` forces another. All targets
    give the same bytes.

    Examples
    --------
    >>> import attnkit
    >>> info = attnkit.cpu_info()
    >>> info["targets"][info["target"]]
    'usable'
    """
    state = {
        word: "usable" if usable else "not on this machine" if compiled else "not in this build"
        for word, compiled, usable in _core.isa_table()
    }
    return {
        "machine": os.uname().machine,
        "processor": _processor_name(),
        "target": _core.isa_chosen(),
        "targets": state,
        "threads": _core.threads_get(),
        "cpus": _core.cpus_affinity(),
        "cpu_quota": _core.cgroup_quota("") or None,
        "openmp": _core.have_openmp(),
    }


def show_versions():
    """Print versions, processor, targets, threads, build, the numerics fingerprint and a sentence for a methods section.

    See Also
    --------
    cpu_info : the same facts about the machine as a dict.

    Notes
    -----
    The fingerprint is the SHA-256 of the results of more than a thousand small fixed calls. Two installations with
    the same fingerprint compute the same bytes; a release that changes one says so in the change log.

    Examples
    --------
    >>> import attnkit
    >>> attnkit.show_versions()  # doctest: +ELLIPSIS
    attnkit      ...
    """
    # Imported here: import attnkit itself should cost next to nothing.
    import platform
    import textwrap

    import numpy as np

    from ._fingerprint import fingerprint

    info, build = cpu_info(), _core.build_info()
    digest = fingerprint()
    targets = ", ".join(f"{word} ({state})" for word, state in info["targets"].items())
    quota = "none" if info["cpu_quota"] is None else info["cpu_quota"]
    layer = "OpenMP" if info["openmp"] else "no OpenMP: serial"
    options = [f"sanitizers {build['sanitizers']}"] if build["sanitizers"] else []
    options += ["debug"] if build["debug"] else []
    rows = [
        ("attnkit", __version__),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("numpy", np.__version__),
        ("system", platform.platform()),
        ("processor", info["processor"]),
        ("target", f"{info['target']} of {targets}"),
        ("threads", f"{info['threads']} ({layer}; affinity {info['cpus']}, quota {quota})"),
        ("build", ", ".join([build["compiler"], *options])),
        ("flags", build["flags"]),
        ("fingerprint", digest),
    ]
    for name, value in rows:
        print(f"{name:<12} {value}")
    sentence = (
        f"Attention outputs and statistics were computed with attnkit {__version__} (numerics fingerprint "
        f"{digest[:16]}), whose results do not depend on the number of threads, the batch or the processor's "
        f"instruction set, under Python {platform.python_version()} and NumPy {np.__version__}."
    )
    print("\nFor a methods section:\n" + textwrap.fill(sentence, 100))
