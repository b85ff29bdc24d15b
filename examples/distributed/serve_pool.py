"""Serve streams with Ray Serve: replicas that step many callers together, on one host or many.

    python examples/distributed/serve_pool.py                      # two replicas here, and callers
    python examples/distributed/serve_pool.py --address auto --replicas 16     # in a Ray cluster

What arrives within two milliseconds is one step of a stream pool, whatever its callers are. The
state of a stream travels with its frames: a reply has it, and the next request brings it along.
So any replica serves any caller, Ray can add and remove replicas, and when one dies, a request
without a reply is simply sent again: no frame is lost, and none counts twice.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from typing import Any

import numpy as np

import lstmcore as lc

try:
    import ray
    from ray import serve
    from ray.exceptions import RayError
except ImportError as error:
    raise SystemExit('this needs Ray: pip install "ray[serve]"') from error

FEATURES, TOGETHER = 40, 64


def make_model() -> lc.Sequential:
    """Return the network; yours comes from `lc.load`."""
    return lc.Sequential(lc.LSTM(FEATURES, 128, seed=0), lc.Linear(128, 8, seed=1))


@serve.deployment(max_ongoing_requests=4 * TOGETHER, logging_config={"enable_access_log": False})
class Streams:
    """A replica: a pool that is as large as what it steps together."""

    def __init__(self) -> None:
        lc.set_num_threads(1)  # replicas share the cores
        self.pool = make_model().stream_pool(TOGETHER)

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=0.002)
    async def step(self, frames: list[Any], states: list[Any]) -> list[Any]:
        """Take a step of each of these streams; Ray puts the lists together."""
        ids = [self.pool.open(state=state) for state in states]
        y = self.pool.step(ids, np.stack(frames))
        replies = [(row, self.pool.state(i)) for row, i in zip(y, ids, strict=True)]
        for i in ids:
            self.pool.close(i)
        return replies

    async def __call__(self, frame: Any, state: Any) -> Any:
        """Return the output of a frame, and the state after it."""
        return await self.step(frame, state)


async def call(streams: Any, frames: Any, report: bool) -> tuple[Any, int]:
    """Send one stream's frames (T, FEATURES); return its outputs, and how often it sent again."""
    state, outputs, again = None, [], 0
    for t, frame in enumerate(frames):
        if report and t == len(frames) // 2:
            print("half of the frames have a reply", flush=True)
        while True:
            try:
                y, state = await streams.remote(frame, state)
                break
            except RayError:  # the replica has died
                again += 1
                await asyncio.sleep(0.1)
        outputs.append(y)
    return np.stack(outputs), again


async def load(streams: Any, callers: int, steps: int) -> tuple[list[Any], list[Any], int]:
    """Let callers send at once; return their frames, their outputs, and how many were repeated."""
    rng = np.random.default_rng(0)
    frames = list(rng.standard_normal((callers, steps, FEATURES), dtype=np.float32))
    replies = await asyncio.gather(*(call(streams, x, i == 0) for i, x in enumerate(frames)))
    return frames, [y for y, _ in replies], sum(again for _, again in replies)


def deploy(address: str | None, replicas: int) -> Any:
    """Start Ray, or join it, and return the handle of the deployment."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    here: dict[str, Any] = {"num_cpus": replicas, "include_dashboard": False}
    here |= {"_node_ip_address": "127.0.0.1"}  # nobody from elsewhere
    here = {} if address else here
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **here)
    serve.start(proxy_location="Disabled")  # callers have the handle; no HTTP
    options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.5}}
    return serve.run(Streams.options(**options).bind(), name="streams", route_prefix=None)


def main() -> None:
    """Serve callers, compare what they got, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help='of a Ray cluster, "auto" for the one of this host')
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50, help="frames of each caller")
    args = parser.parse_args()
    streams = deploy(args.address, args.replicas)
    print(f"{args.replicas} replicas are up", flush=True)
    start = time.perf_counter()
    frames, outputs, again = asyncio.run(load(streams, args.callers, args.steps))
    speed = args.callers * args.steps / (time.perf_counter() - start)
    serve.shutdown()
    ray.shutdown()
    print(f"{args.replicas} replicas, {args.callers} callers: {speed:.0f} frames per second")
    print(f"{again} requests were sent again")

    pool = make_model().stream_pool(args.callers)
    ids = [pool.open() for _ in range(args.callers)]
    start = time.perf_counter()
    alone = np.stack([pool.step(ids, x) for x in np.stack(frames, axis=1)], axis=1)
    speed = args.callers * args.steps / (time.perf_counter() - start)
    print(f"one process without requests: {speed:.0f} frames per second")
    same = np.array_equal(alone, np.stack(outputs))
    print("every output is that of a lone stream, to the bit" if same else "OUTPUTS DIFFER")


if __name__ == "__main__":
    main()
