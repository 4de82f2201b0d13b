"""Ctrl-C: KeyboardInterrupt within 0.2 s of the signal, once, and the next call is correct.

The promise is about attnkit, the measurement is about a machine that does other things too: the bound is asked of the 95th percentile,
and five times the bound of the slowest. Each number is the time from the signal to the `except` clause.

ATTNKIT_SIGNALS: signals for each pass and number of threads (10 by default, 200 for a release).
"""

import json
import os
import time
import warnings

import pytest

from attnkit import _core

SIGNALS = int(os.environ.get("ATTNKIT_SIGNALS", "10"))
BOUND = 0.2 if not _core.build_info()["sanitizers"] else 2.0

# Calls of 10 seconds or much more on one core, so that no signal comes too late; zero strides keep them small in memory.
PASSES = {
    "row pass": "attnkit.softmax_attention(q, q, q)",
    "column pass": "attnkit.attention_column_stats(q, q, lse=1.0)",
    "window pass": "attnkit.attention_weights(tall, q, cols=[7], lse=1.0, out=window)",
    "packing by head": "attnkit.softmax_attention(heads, heads, heads)",
    "everything in float64": "attnkit.softmax_attention(q.astype(float), q, q, causal=True, softcap=3.0, alibi_slopes=0.01, sink_logits=1.0, "
                             "stats=('entropy', 'purity', 'argmax', 'distance'))",
    "decoding": "attnkit.softmax_attention(few, shared, shared)",
    "decoding one row": "attnkit.softmax_attention(q[:1], long, long)",
    "block pass": "attnkit.attention_block_mass(q, q, block_q=64, block_k=1000, lse=1.0)",
    "top lists": "attnkit.attention_row_stats(q, q, topk=512)",
    "dense mask": "attnkit.softmax_attention(q, q, q, mask=allowed)",
    "many short calls": "attnkit.varlen_attention(heads[:, :4], heads[:, :4], heads[:, :4], [0] * 10_000_000 + [4], [0] * 10_000_000 + [4])",
}
MAIN_PASSES = ["row pass", "column pass", "window pass"]

PROGRAM = """
import json, random, signal, sys, threading, time
import numpy as np
import attnkit
from attnkit import _core

rng = np.random.default_rng(0)
small = rng.standard_normal((2, 300, 64)).astype(np.float32)
row = rng.standard_normal((1, 64)).astype(np.float32)
q = np.broadcast_to(row, (200_000, 64))
tall = np.broadcast_to(row, (50, 200_000, 64))
long = np.broadcast_to(row, (1 << 31, 64))
heads = np.broadcast_to(rng.standard_normal((64, 1, 64)).astype(np.float32), (64, 10_000, 64))
few = np.broadcast_to(rng.standard_normal((5000, 1, 64)).astype(np.float32), (5000, 4, 64))
shared = np.broadcast_to(few[:, :1], (5000, 400_000, 64))
brief = np.broadcast_to(few[:250, :1], (250, 1200, 64))
allowed = np.broadcast_to(rng.integers(0, 2, 200_000).astype(bool), (200_000, 200_000))
window = np.zeros((50, 200_000, 1), np.float32)

def reference():
    return [x.tobytes() for x in attnkit.softmax_attention(small, small, small, return_lse=True, causal=True)]

expected = reference()
attnkit.set_num_threads(int(sys.argv[1]))
random.seed(int(sys.argv[1]))
main = threading.get_ident()
times, kinds = [], []
for _ in range(int(sys.argv[2])):
    sent = []
    def send(delay=random.uniform(0.02, 0.5)):
        time.sleep(delay)
        sent.append(time.perf_counter())
        signal.pthread_kill(main, signal.SIGINT)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        PLACEHOLDER
        kinds.append("finished")
    except KeyboardInterrupt:
        times.append(time.perf_counter() - sent[0])
        kinds.append("interrupted")
    sender.join()
    time.sleep(0.01)  # a second KeyboardInterrupt would come here
    assert reference() == expected
    assert _core.alloc_live() == 0
print(json.dumps([times, kinds]))
"""


def measure(run_python, call, n_threads, n_signals):
    program = PROGRAM.replace("PLACEHOLDER", call)
    times, kinds = json.loads(run_python(program, n_threads, n_signals, timeout=60 + 4 * n_signals))
    assert kinds == ["interrupted"] * n_signals
    times.sort()
    assert times[int(0.95 * (len(times) - 1))] < BOUND, times
    assert times[-1] < 5 * BOUND, times


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("name", MAIN_PASSES)
def test_an_interrupt_stops_a_long_call(name, n_threads, run_python):
    measure(run_python, PASSES[name], n_threads, SIGNALS)


@pytest.mark.parametrize("name", [name for name in PASSES if name not in MAIN_PASSES])
def test_every_other_pass_stops_too(name, run_python):
    measure(run_python, PASSES[name], 2, max(SIGNALS // 4, 2))


def test_runs_that_are_each_shorter_than_the_interval_between_polls(run_python):
    """Many heads that all threads share out one after the other: the clock goes on from one to the next."""
    measure(run_python, "attnkit.softmax_attention(brief, brief, brief)", 64, 3)


HANDLERS = """
import signal, sys, threading, time
import numpy as np
import attnkit

attnkit.set_num_threads(2)
rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 9000, 64)).astype(np.float32)
expected = attnkit.softmax_attention(q, k, v).tobytes()
main = threading.get_ident()

def send():
    time.sleep(0.05)
    signal.pthread_kill(main, signal.SIGUSR1)

seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(attnkit.softmax_attention(q[:, :50], k, v).tobytes()))
sender = threading.Thread(target=send)
sender.start()
result = attnkit.softmax_attention(q, k, v)
sender.join()
assert result.tobytes() == expected and len(seen) == 1, seen
assert seen[0] == result[:, :50].tobytes()  # a call inside a call, from a handler that returns

class Mine(Exception):
    pass

def raises(*_):
    raise Mine("from the handler")

signal.signal(signal.SIGUSR1, raises)
sender = threading.Thread(target=send)
sender.start()
try:
    for _ in range(100):
        attnkit.softmax_attention(q, k, v)
except Mine:
    print("mine")
sender.join()
"""


def test_handlers_that_return_and_handlers_that_raise_their_own(run_python):
    assert run_python(HANDLERS) == "mine\n"


OFF_MAIN = """
import signal, sys, threading, time
import numpy as np
import attnkit

rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 12_000, 64)).astype(np.float32)
attnkit.set_num_threads(2)
expected = attnkit.softmax_attention(q, k, v).tobytes()
results, errors = [], []

def work():
    try:
        with attnkit.threads(2):
            results.append(attnkit.softmax_attention(q, k, v).tobytes())
    except BaseException as error:
        errors.append(error)

main = threading.get_ident()
for _ in range(3):
    worker = threading.Thread(target=work)
    sent = []
    def send():
        time.sleep(0.1)
        sent.append(time.perf_counter())
        signal.pthread_kill(main, signal.SIGINT)
    sender = threading.Thread(target=send)
    sender.start()
    worker.start()
    try:
        time.sleep(20)
    except KeyboardInterrupt:
        took = time.perf_counter() - sent[0]
    assert took < 5, took
    sender.join()
    worker.join()
assert not errors, errors
assert results == [expected] * 3
print("done")
"""


def test_a_call_off_the_main_thread_goes_on_and_holds_nothing_up(run_python):
    """Python gives signals to the main thread only, which is free to see them while the call runs."""
    assert run_python(OFF_MAIN) == "done\n"


def test_an_interrupt_of_a_jupyter_kernel():
    """The stop button: the kernel's own process, its own way of sending the signal."""
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own dependencies
        kernel, client = manager.start_new_kernel(kernel_name="python3", env=environment)
        try:
            times = []
            run_cell(client, "import numpy as np, attnkit, time\n"
                             "q = np.broadcast_to(np.ones((1, 64), np.float32), (200_000, 64))\n"
                             "s = np.random.default_rng(0).standard_normal((1, 300, 64)).astype(np.float32)\n"
                             "expected = attnkit.softmax_attention(s, s, s).tobytes()")
            for n_threads in (1, 2):
                for _ in range(max(SIGNALS // 4, 2)):
                    cell = f"attnkit.set_num_threads({n_threads})\nprint('begin', flush=True)\nattnkit.softmax_attention(q, q, q)"
                    sent, content = run_cell(client, cell, interrupt=kernel)
                    times.append(time.perf_counter() - sent)
                    assert content["ename"] == "KeyboardInterrupt"
                    for _ in range(50):  # a kernel turns away what arrives while it tidies up after an error
                        _, content = run_cell(client, "assert attnkit.softmax_attention(s, s, s).tobytes() == expected")
                        if content["status"] != "aborted":
                            break
                        time.sleep(0.1)
                    assert content["status"] == "ok", content
        finally:
            client.stop_channels()
            kernel.shutdown_kernel(now=True)
    times.sort()
    # The message travels through the kernel's own queues and formats a traceback on its way.
    assert times[len(times) // 2] < BOUND + 0.1, times
    assert times[-1] < 5 * BOUND + 0.5, times


def run_cell(client, code, interrupt=None):
    """Run a cell; with `interrupt` press stop soon after it has printed. Returns (time of that, the reply)."""
    sent = None
    message = client.execute(code)
    if interrupt is not None:
        while True:
            said = client.get_iopub_msg(timeout=60)
            if said["parent_header"].get("msg_id") == message and said["msg_type"] == "stream":
                break
        time.sleep(0.2)
        sent = time.perf_counter()
        interrupt.interrupt_kernel()
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == message:
            return sent, reply["content"]
