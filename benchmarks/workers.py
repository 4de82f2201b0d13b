"""One long-lived process per library, asked in turn to time one repetition, so that no library's idle threads, caches or
settings disturb another's. The same processes measure the machine's limits and, started afresh, peak memory.

Parent and worker exchange pickles over pipes: a request (method name, arguments), a reply ("ok", value) or ("no", reason).
"""

import contextlib
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np

from .grid import numpy_dtype

MIN_SECONDS = 0.02  # shortest repetition; shorter calls are repeated within it
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}  # a call with one thread stays on the thread that makes it


class WorkerError(RuntimeError):
    """The worker could not do what was asked; the message says why."""


class Worker:
    """Parent's side: `worker.ask(method, *arguments)`."""

    def __init__(self, name, threads, clock="wall"):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers", name, str(threads), clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(threads),
        )
        self.pid = self.process.pid
        try:
            self.version = self.ask("hello")
        except WorkerError:
            self.close()
            raise

    def ask(self, method, *arguments):
        try:
            pickle.dump((method, arguments), self.process.stdin)
            self.process.stdin.flush()
            status, value = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise WorkerError(f"the {self.name} process ended with code {self.process.wait()}") from None
        if status != "ok":
            raise WorkerError(value)
        return value

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def environment(threads):
    """Environment of a worker: the parent's search path, and the thread count for libraries that read it from here."""
    env = dict(os.environ)
    env.pop("OPENBLAS_CORETYPE", None)  # NumPy's BLAS shall choose for this processor
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(threads)
    env.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")  # its idle threads spin for 2^20 cycles instead of 2^26, longer than any gap
    root = str(Path(__file__).resolve().parent.parent)
    path = [os.path.abspath(entry) for entry in sys.path]
    env["PYTHONPATH"] = os.pathsep.join([*path, *([] if root in path else [root])])
    return env


# ---- the worker's side -------------------------------------------------------------------------------------------


class LibraryServer:
    """Computes and times cases with one library."""

    def __init__(self, name, threads, clock):
        from .peers import LIBRARIES

        self.library = LIBRARIES[name](threads)
        self.clock = clock
        self.timed = {}

    def hello(self):
        return self.library.version

    def load(self, case, files):
        """Prepare a case and run it once: {call: {array: sampled values}} for the comparison with the reference."""
        self.timed = {}
        rows = case.sample()
        results = {}
        for call, (run, collect) in self.library.calls(case, read(files)).items():
            arrays = {name: np.asarray(array) for name, array in collect(run()).items()}
            results[call] = {name: sampled(name, array, rows) for name, array in arrays.items()}
            self.timed[call] = run
        return results

    def calibrate(self, call):
        """(calls in a repetition, seconds of one repetition)."""
        n = 1
        while True:
            seconds = self.time(call, n)
            if n * seconds >= MIN_SECONDS:
                return n, n * seconds
            n = max(2 * n, int(1.2 * MIN_SECONDS / max(seconds, 1e-9))) if n * seconds > MIN_SECONDS / 20 else 8 * n

    def time(self, call, n):
        """Mean seconds of `n` calls in a row; short ones get a call before, which wakes threads and fills caches."""
        run = self.timed[call]
        if n > 1:
            run()
        clock = self.clock
        begin = clock()
        for _ in repeat(None, n):
            run()
        return (clock() - begin) / n

    def peak_memory(self, case, call, files):
        """Bytes that the call of a plain case adds to the peak of this process, inputs included."""
        small = replace(case, lq=16, lk=16)
        few = {name: np.ones((case.heads, 16, case.d), case.dtype) for name in "qkv"}
        self.library.calls(small, few)[call][0]()  # what a library sets up once is not the call's
        baseline = high_water()
        arrays = read(files)
        run, _ = self.library.calls(case, arrays)[call]
        run()
        return high_water() - baseline


class LimitServer:
    """Measures the machine's limits."""

    def __init__(self, _, threads, clock):
        from .limits import Limits

        self.threads = threads
        self.limits = Limits(clock)

    def hello(self):
        return self.limits.build

    def measure(self, what):
        return self.limits.measure(what, self.threads)


def sampled(name, array, rows):
    """The compared part of a result in a dtype that every process knows: sampled rows, or all of a column statistic."""
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if name == "received":
        return array
    return np.take(array, rows, axis=-2 if name == "out" else -1)


def write(folder, arrays):
    """Store arrays for the workers: {name: (path, dtype name, shape)}."""
    files = {}
    for name, array in arrays.items():
        path = str(Path(folder) / name)
        array.tofile(path)
        files[name] = (path, array.dtype.name, array.shape)
    return files


def read(files):
    return {name: np.fromfile(path, numpy_dtype(dtype)).reshape(shape) for name, (path, dtype, shape) in files.items()}


def high_water():
    """Peak resident bytes of this process. VmHWM, because ru_maxrss starts at the peak of the parent."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(name, threads, clock):
    # Replies go through a copy of standard output; what a library prints goes to standard error.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def reply(status, value):
        pickle.dump((status, value), replies)
        replies.flush()

    server, reason = None, ""
    try:
        server = (LimitServer if name == "limits" else LibraryServer)(name, threads, CLOCKS[clock])
    except Exception as error:  # a missing or broken library is reported, not fatal
        reason = f"{type(error).__name__}: {error}"
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if server is None:
            reply("no", reason)
            continue
        try:
            reply("ok", getattr(server, method)(*arguments))
        except Exception as error:
            reply("no", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
