"""Time one case: check the results, then take repetitions in turn."""

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from .check import Reference
from .peers import LIBRARIES
from .report import slow
from .workers import Worker, WorkerError, write


class Session:
    """The workers of one thread count, and the settings of a run."""

    def __init__(self, threads, peers, settings, start=Worker):
        self.settings, self.start = settings, start
        self.workers, self.versions, self.limits = {}, {}, None
        self.stack = ExitStack()
        for name in [name for name in LIBRARIES if name == "attnkit" or name in peers] + ["limits"]:
            try:
                worker = start(name, threads, settings.clock)
            except WorkerError as error:
                self.versions[name] = f"absent ({error})"
                continue
            self.stack.callback(worker.close)
            self.versions[name] = worker.version
            if name == "limits":
                self.limits = worker
            else:
                self.workers[name] = worker

    def close(self):
        self.stack.close()

    def measure(self, case):
        """A cell: the case, errors, skipped calls with reasons, and the seconds of every repetition."""
        with tempfile.TemporaryDirectory() as folder:
            arrays = case.inputs()
            return self._measure(case, Reference(case, arrays), write(folder, arrays))

    def _measure(self, case, reference, files, again=True):
        cell = {"id": case.id, "case": asdict(case), "flops": case.flops, "key_bytes": case.key_bytes, "limit": case.limit}
        cell |= {"errors": {}, "wrong": [], "skipped": {}, "calls": {}, "seconds": {}, "limits": []}
        turns = []
        for name, worker in self.workers.items():
            try:
                results = worker.ask("load", case, files)
                for call, result in results.items():
                    error = cell["errors"][call] = reference.error(result)
                    if not error <= 1.0:
                        cell["wrong"].append(call)
                        continue
                    n, seconds = worker.ask("calibrate", call)
                    cell["calls"][call], cell["seconds"][call] = n, []
                    turns.append((worker, call, n, seconds))
            except WorkerError as error:
                cell["skipped"][name] = str(error)
        self._repeat(cell, turns)
        if case.kind == "curve":
            cell["memory"] = self._memory(case, cell, files)
        if case.kind == "grid" and slow(cell) and again:
            cell["again"] = self._measure(case, reference, files, again=False)
        return cell

    def _memory(self, case, cell, files):
        """Bytes of peak memory by call, each in a process of its own."""
        found = {}
        for call in cell["seconds"]:
            try:
                with self.start(call.partition(".")[0], case.threads, self.settings.clock) as worker:
                    found[call] = worker.ask("peak_memory", case, call, files)
            except WorkerError as error:
                cell["skipped"][f"memory of {call}"] = str(error)
        return found

    def _repeat(self, cell, turns):
        settings = self.settings
        one_round = sum(seconds + settings.gap for *_, seconds in turns) or 1.0
        rounds = min(max(int(settings.budget / one_round), settings.least), settings.most)
        noise = Noise({worker.pid for worker, *_ in turns})
        for i in range(rounds):
            for worker, call, n, _ in turns[:: 1 if i % 2 == 0 else -1]:
                time.sleep(settings.gap)  # the last library's threads go to sleep
                with noise.turn(worker.pid):
                    cell["seconds"][call].append(worker.ask("time", call, n))
            if self.limits and cell["limit"]:
                time.sleep(settings.gap)
                cell["limits"].append(self.limits.ask("measure", cell["limit"]))
        cell["noise"] = noise.summary()


class Noise:
    """What ran beside the timings, from Linux's counters: other workers that should be idle, and other programs."""

    def __init__(self, pids):
        self.pids = pids
        self.seconds = self.idle_workers = self.others = 0.0

    def turn(self, pid):
        self.pid = pid
        return self

    def __enter__(self):
        self.begin = time.perf_counter()
        self.before = self._counters()

    def __exit__(self, *error):
        waiting, own, machine = (after - before for after, before in zip(self._counters(), self.before))
        self.seconds += time.perf_counter() - self.begin
        self.idle_workers += waiting
        self.others += machine - own - waiting

    def _counters(self):
        """CPU seconds of the workers whose turn it is not, of the one whose turn it is, and of the machine."""
        used = {pid: cpu_seconds(pid) for pid in self.pids}
        own = used.pop(self.pid)
        return sum(used.values()), own, machine_seconds()

    def summary(self):
        """Average number of cores used by waiting workers and by other programs while a repetition was timed."""
        span = max(self.seconds, 1e-9)
        return {"waiting_workers": self.idle_workers / span, "other_programs": max(self.others / span, 0.0)}


def cpu_seconds(pid):
    """CPU seconds of all threads of a process; 0 where Linux's counters are absent."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0])
        except OSError:  # the thread has just ended
            continue
    return total * 1e-9


def machine_seconds():
    """CPU seconds that the machine has spent on programs."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=4)
    except OSError:
        return 0.0
    return sum(map(int, fields[1:4])) / os.sysconf("SC_CLK_TCK")
