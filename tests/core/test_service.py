"""Inside a busy service: forks, process pools, other OpenMP users, limits, months of calls."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from importlib import metadata
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.numeric import assert_same_bits
from helpers.threads import in_threads

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

# What the scripts below begin with: a layer that is large enough for several threads, and what it
# gives.
LAYER = """
import os, sys, threading, time
import numpy as np
import lstmcore as lc

lstm = lc.LSTM(64, 96, num_layers=2, seed=0)
x = np.random.default_rng(0).standard_normal((40, 32, 64)).astype("float32")
expected = lstm(x)[0]

def right():
    y, state, tape = lstm.forward(x)
    lstm.backward(tape, y)
    stream = lstm.stream(32)
    return all(np.array_equal(z, expected) for z in (lstm(x)[0], y, stream.process(x)))
"""


def run(script: str, **environment: str) -> str:
    """Run a script in a process of its own, and return what it prints. It must not hang."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Fork ---------------------------------------------------------------------------------------------

IN_THE_MIDDLE = """
import multiprocessing

stop = False
wrong = []

def use():
    while not stop:
        if not np.array_equal(lstm(x)[0], expected):
            wrong.append(1)

threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
fork = multiprocessing.get_context("fork")
for _ in range(8):
    time.sleep(0.01)
    children = [fork.Process(target=lambda: sys.exit(0 if right() else 1)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0, child.exitcode
    assert right()
stop = True
for thread in threads:
    thread.join()
assert not wrong
print("ok")
"""

PRELOADED = """
# As gunicorn does with --preload: the layer is loaded and used, then workers are forked that serve
# for a while, and are replaced.
def serve(requests):
    for _ in range(requests):
        if not right():
            os._exit(1)
    os._exit(0)

def start():
    worker = os.fork()
    return worker or serve(5)

workers = [start() for _ in range(3)]
for _ in range(3):
    assert right()
    worker, status = os.wait()
    assert status == 0, status
    workers.remove(worker)
    workers.append(start())
for worker in workers:
    assert os.waitpid(worker, 0)[1] == 0

# A worker that forks in its turn.
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if right() else 1)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) or not right())
assert os.waitpid(child, 0)[1] == 0
print("ok")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("script", [IN_THE_MIDDLE, PRELOADED], ids=["in the middle", "preloaded"])
def test_fork(script: str) -> None:
    assert run(LAYER + script) == "ok"


DATA_LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Encoded(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return torch.from_numpy(lstm(x)[0][:, i])

torch.ones(300, 300) @ torch.ones(300, 300)  # its threads are there
for _ in range(2):
    loaded = torch.cat(list(DataLoader(Encoded(), batch_size=3, num_workers=2)))
    assert np.array_equal(loaded.numpy(), expected[:, :12].swapaxes(0, 1))
    assert right()
print("ok")
"""


def test_workers_of_a_data_loader() -> None:
    peers.require("torch")
    assert run(LAYER + DATA_LOADER) == "ok"


# Process pools ------------------------------------------------------------------------------------


def call(layer: Any, x: np.ndarray) -> np.ndarray:
    y: np.ndarray = layer(x)[0]
    return y


def process(stream: Any, x: np.ndarray) -> Any:
    return stream.process(x), stream


def layer_and_input() -> tuple[Any, np.ndarray]:
    layer = lc.LSTM(5, 7, num_layers=2, peephole=True, seed=0)
    return layer, np.random.default_rng(0).standard_normal((9, 2, 5)).astype("float32")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_layers_and_streams_go_to_a_process_pool(method: str) -> None:
    layer, x = layer_and_input()
    expected = layer(x)[0]
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        for y in pool.map(call, [layer] * 4, [x] * 4):
            assert_same_bits(y, expected)
        stream = layer.stream(2)
        stream.process(x[:4])
        y, moved = pool.submit(process, stream, x[4:6]).result()
        assert_same_bits(y, expected[4:6])
        assert_same_bits(moved.process(x[6:]), expected[6:])  # with the state it has there
        assert_same_bits(stream.process(x[4:]), expected[4:])


def test_layers_and_streams_pickle_and_copy() -> None:
    layer, x = layer_and_input()
    expected = layer(x)[0]
    stream = layer.stream(2)
    stream.process(x[:4])
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        one, other = pickle.loads(pickle.dumps((layer, stream), protocol))
        assert one == layer
        assert_same_bits(other.process(x[4:]), expected[4:])
    one, other = copy.deepcopy((layer, stream))
    assert one == layer
    assert_same_bits(other.process(x[4:]), expected[4:])


def test_cloudpickle() -> None:
    cloudpickle = peers.require("cloudpickle")
    layer, x = layer_and_input()
    stream = layer.stream(2)
    function = pickle.loads(cloudpickle.dumps(lambda x: (layer(x)[0], stream.process(x))))
    for y in function(x):
        assert_same_bits(y, layer(x)[0])


DASK = """
from distributed import Client, LocalCluster

if __name__ == "__main__":
    with LocalCluster(2, threads_per_worker=2, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            layer = client.scatter(lstm)
            for y in client.gather(client.map(lambda i, layer: layer(x)[0], range(6), layer=layer)):
                assert y.tobytes() == expected.tobytes()
    print("ok")
"""

RAY = """
import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote
class Server:
    def __init__(self, layer):
        self.stream = layer.stream(32)

    def process(self, x):
        return self.stream.process(x)

server = Server.remote(lstm)
y = [ray.get(server.process.remote(part)) for part in (x[:30], x[30:])]
assert np.concatenate(y).tobytes() == expected.tobytes()
print("ok")
"""


@pytest.mark.parametrize(("package", "script"), [("distributed", DASK), ("ray", RAY)])
def test_workers_of_dask_and_ray(package: str, script: str) -> None:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert run(LAYER + script) == "ok"


# Threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_sixteen_threads_share_a_layer(isa: str, threads: None, count: int) -> None:
    """While others train layers of their own, with calls that use several threads each."""
    lc.set_num_threads(count)
    shared = lc.GRU(32, 64, bidirectional=True, seed=0)
    x = np.random.default_rng(0).standard_normal((8, 25, 12, 32)).astype("float32")
    expected = [shared(v)[0] for v in x]
    gradients = train(x[0])
    wrong: list[int] = []

    def work(i: int) -> None:
        for step in range(6):
            if i % 4 == 3:
                same = train(x[0]) == gradients
            else:
                k = (i + step) % 8
                same = np.array_equal(shared(x[k])[0], expected[k])
            if not same:
                wrong.append(i)

    in_threads(work, 16)
    assert not wrong


def train(x: np.ndarray) -> list[bytes]:
    layer = lc.LSTM(32, 48, seed=1)
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
    return [p.grad.tobytes() for p in layer.parameters()]


NEIGHBOURS = """
def others():
    a = np.ones((400, 400), "float32")
    t = torch.ones(400, 400)
    while not stop:
        a @ a
        (t @ t).tanh()

stop = False
threads = [threading.Thread(target=others) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(20):
    assert right()
    torch.nn.LSTM(64, 96)(torch.from_numpy(x))[0].sum().backward()
stop = True
for thread in threads:
    thread.join()
print("ok")
"""


@pytest.mark.parametrize("order", ["torch first", "torch last"])
def test_other_users_of_threads(order: str) -> None:
    peers.require("torch")
    parts = ["import torch\n", LAYER] if order == "torch first" else [LAYER, "import torch\n"]
    assert run("".join(parts) + NEIGHBOURS) == "ok"


def test_threadpoolctl_sees_and_limits_us(threads: None) -> None:
    threadpoolctl = peers.require("threadpoolctl")
    if lc.info()["openmp"] == "none":
        pytest.skip("built without OpenMP")
    if os.environ.get("OMP_NUM_THREADS") == "1":
        pytest.skip("OMP_NUM_THREADS=1 leaves nothing to limit")
    openmp = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "openmp"]
    assert openmp
    lc.set_num_threads(2**20)
    free = lc.get_num_threads()
    for limits in (1, {"openmp": 1}):
        with threadpoolctl.threadpool_limits(limits):
            assert lc.get_num_threads() == 1
            lc.set_num_threads(2**20)
            assert lc.get_num_threads() == 1
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert lc.get_num_threads() == free
    assert lc.get_num_threads() == free


@linux
def test_the_affinity_is_kept_to() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "import lstmcore as lc; lc.set_num_threads(64); print(lc.get_num_threads())"
    assert run(script) == "1"


# Months -------------------------------------------------------------------------------------------


@linux
def test_ten_thousand_calls_leave_the_memory_where_it_was(threads: None) -> None:
    lc.set_num_threads(2)
    rng = np.random.default_rng(0)
    layers = [
        lc.LSTM(5, 24, num_layers=2, bidirectional=True),
        lc.GRU(5, 33, batch_first=True),
        lc.RNN(5, 8, dtype="float64"),
    ]

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def calls(count: int) -> None:
        for i in range(count):
            layer: Any = layers[i % 3]
            first, second = (int(n) for n in rng.integers(1, [30, 12]))
            x = np.ones((first, second, 5), layer.dtype)
            if i % 5 == 0:
                y, _, tape = layer.forward(x)
                layer.backward(tape, y)
            elif i % 5 == 1 and not layer.bidirectional:
                layer.stream(second).process(x)
            else:
                lengths = rng.integers(0, x.shape[1 if layer.batch_first else 0] + 1, None)
                batch = x.shape[0 if layer.batch_first else 1]
                layer(x, lengths=np.full(batch, lengths))

    calls(1000)
    before = resident()
    calls(10_000)
    assert resident() - before < 4 * 2**20
