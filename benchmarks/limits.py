"""The machine's own limits: fused multiply-adds per second and bytes read per second, from peak.c compiled on the spot."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-shared", "-fPIC"]
READ_BYTES = 256 << 20  # beyond every cache
FMA_SECONDS = 0.01  # length of one measurement


class NoLimits(RuntimeError):
    """The limits cannot be measured here; the message says why."""


def compile_library(folder):
    """Build peak.c for this processor; returns (loaded library, words that describe the build)."""
    words = shlex.split(os.environ.get("CC", "")) or [shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")]
    if words[0] is None:
        raise NoLimits("no C compiler found")
    target = Path(folder) / "peak.so"
    native = "-mcpu=native" if os.uname().machine == "aarch64" else "-march=native"
    command = [*words, *FLAGS, native, str(SOURCE), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoLimits(f"{words[-1]} does not compile peak.c: {done.stderr.strip().splitlines()[:1]}")
    library = ctypes.CDLL(str(target))
    for name in ("bench_fma32", "bench_fma64"):
        getattr(library, name).restype = ctypes.c_double
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
        getattr(library, name + "_flops").restype = ctypes.c_double
        getattr(library, name + "_values").restype = ctypes.c_ssize_t
    library.bench_read.restype = ctypes.c_uint32
    library.bench_read.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
    return library, f"{words[-1]} {native}, {8 * library.bench_vector_bytes()}-bit vectors"


class Limits:
    """Measures on request; every measurement is short, so that it can stand between the timings it is compared with."""

    def __init__(self, clock=time.perf_counter):
        self.clock = clock
        with tempfile.TemporaryDirectory() as folder:
            self.library, self.build = compile_library(folder)
        self.buffer = None
        self.rounds = {}

    def measure(self, what, threads):
        """`what` is "float32", "float64" (flop/s) or "read" (bytes/s), summed over `threads` threads that run at once."""
        with ThreadPoolExecutor(threads) as pool:  # ctypes calls leave the interpreter lock
            if what == "read":
                return self._read(pool, threads)
            return self._fma(pool, threads, what)

    def _fma(self, pool, threads, dtype):
        name = "bench_fma32" if dtype == "float32" else "bench_fma64"
        run = getattr(self.library, name)
        flops = getattr(self.library, name + "_flops")()
        start = np.linspace(0.1, 0.9, getattr(self.library, name + "_values")(), dtype=dtype)

        def timed(rounds):
            begin = self.clock()
            total = run(start.ctypes.data, rounds)
            seconds = self.clock() - begin
            if not np.isfinite(total):
                raise NoLimits("the multiply-add loop overflowed")
            return seconds

        if dtype not in self.rounds:
            self.rounds[dtype] = int(FMA_SECONDS / min(timed(20_000) for _ in range(5)) * 20_000)
        rounds = self.rounds[dtype]
        return sum(rounds * flops / seconds for seconds in pool.map(timed, [rounds] * threads))

    def _read(self, pool, threads):
        if self.buffer is None:
            self.buffer = np.ones(READ_BYTES // 4, np.uint32)
        share = READ_BYTES // threads // 512 * 512

        def timed(i):
            begin = self.clock()
            total = self.library.bench_read(self.buffer.ctypes.data + i * share, share)
            seconds = self.clock() - begin
            if total != share // 4 % 2**32:
                raise NoLimits("the read loop lost words")
            return seconds

        return sum(share / seconds for seconds in pool.map(timed, range(threads)))
