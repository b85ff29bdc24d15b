"""What a process may do beside a call: end, fork, run many threads."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.threads import in_threads

EXIT_WITH_DAEMONS = """
import threading, time
import numpy as np
import lstmcore as lc

lstm, x = lc.LSTM(8, 16), np.ones((20, 4, 8), "float32")

def work():
    while True:
        y, state, tape = lstm.forward(x)
        lstm.backward(tape, y)
        lstm(x)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""


def test_exit_with_daemon_threads_in_calls() -> None:
    for _ in range(5):
        run = subprocess.run([sys.executable, "-c", EXIT_WITH_DAEMONS], capture_output=True)
        assert (run.returncode, run.stderr) == (0, b"")


def test_threads_share_a_layer(isa: str) -> None:
    lstm = lc.LSTM(12, 24, num_layers=2, bidirectional=True, seed=0)
    xs = np.random.default_rng(0).standard_normal((8, 30, 5, 12)).astype("float32")
    expected = [lstm(x)[0] for x in xs]
    lstm.zero_grad()
    lstm.parameters()[0].data *= 1  # so that the threads meet a layer to be packed again
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(lstm(xs[i % 8])[0], expected[i % 8]):
                wrong.append(i)

    in_threads(work, 16)
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_after_threads_were_used() -> None:
    """The child works, on one thread, and the parent goes on."""
    lstm = lc.LSTM(64, 64, seed=0)
    x = np.random.default_rng(0).standard_normal((50, 16, 64)).astype("float32")
    expected = lstm(x)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if child == 0:
        right = np.array_equal(lstm(x)[0], expected) and lc.get_num_threads() == 1
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same_bits(lstm(x)[0], expected)


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
import warnings
warnings.simplefilter("ignore")
try:
    import lstmcore
except ImportError as error:
    print(error)
'''
other = interpreters.create()
run = getattr(interpreters, "run_string", None) or interpreters.exec
run(other, code)
import lstmcore
print(lstmcore.GRU(2, 3))
"""


def test_subinterpreters_are_refused() -> None:
    """Where importing would wait for ever; in the main interpreter all is well."""
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETER], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "GRU(2, 3)"
    assert "main interpreter of a process only" in lines[0]
