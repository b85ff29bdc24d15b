"""Load the service of server.py: hundreds of callers, each with a frame of audio every 32 ms.

    pip install "lstmcore[server]"
    python examples/server_load.py [--connections 500] [--interval 32] [--seconds 10] [--url URL]

Without --url it starts a service of its own, in another process. Every caller sends the recording
that comes with voice_activity.py, from another place on, over and over; callers take turns, so
that frames come evenly spread over the interval. At the end it prints how long replies took, from
the moment when a frame was sent, and compares every reply with that of a lone stream: any
difference, to the bit, is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from server import HOP, Latencies, WebSocket
from voice_activity import WEIGHTS, listen
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

RECORDING = np.round(WEIGHTS["recording"] * 32768).clip(-32768, 32767).astype("<i2")
STARTS = 16  # different places in the recording


class Caller(WebSocket):
    """A connection that sends frames and keeps the replies."""

    def __init__(self, url: str, number: int, latencies: Latencies) -> None:
        super().__init__(ClientProtocol(parse_uri(url), max_size=4))
        frames = RECORDING[: len(RECORDING) // HOP * HOP].reshape(-1, HOP)
        self.start = number % STARTS * len(frames) // STARTS
        self.frames = [frame.tobytes() for frame in np.roll(frames, -self.start, axis=0)]
        self.latencies = latencies
        self.sent: list[float] = []
        self.replies: list[bytes] = []
        self.ready = asyncio.get_running_loop().create_future()
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the service for a connection."""
        super().connection_made(transport)
        self.protocol.send_request(self.protocol.connect())
        self.flush()

    def received(self, event: object) -> None:
        """Take a reply, or the beginning."""
        if isinstance(event, Response):
            error = self.protocol.handshake_exc
            if error is None:
                self.ready.set_result(None)
            else:
                self.ready.set_exception(error)
        elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
            self.latencies.add(time.perf_counter() - self.sent[len(self.replies)])
            self.replies.append(bytes(event.data))
            self.done.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Wake up who waits."""
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before it was open"))
        self.done.set()

    def send(self) -> None:
        """Send the next frame."""
        if self.protocol.state is not State.OPEN:
            raise SystemExit(f"the service has hung up: {self.protocol.close_reason}")
        self.sent.append(time.perf_counter())
        self.protocol.send_binary(self.frames[(len(self.sent) - 1) % len(self.frames)])
        self.flush()

    async def finish(self) -> None:
        """Wait for the last reply, and hang up."""
        while len(self.replies) < len(self.sent) and not self.transport.is_closing():
            self.done.clear()
            await asyncio.wait_for(self.done.wait(), 10)
        if not self.transport.is_closing():
            self.protocol.send_close()
            self.flush()


async def load(
    url: str, connections: int, interval: float, seconds: float
) -> tuple[list[Caller], Latencies]:
    """Call, send for so long, and hang up; times are in seconds."""
    loop = asyncio.get_running_loop()
    latencies = Latencies(int(connections * seconds / interval) + connections)
    uri = parse_uri(url)
    callers = []
    for number in range(connections):
        _, caller = await loop.create_connection(
            lambda number=number: Caller(url, number, latencies), uri.host, uri.port
        )
        await caller.ready
        callers.append(caller)
    begin = time.perf_counter()
    for number in range(connections * max(int(seconds / interval), 1)):
        wait = begin + number * interval / connections - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        callers[number % connections].send()
    for caller in callers:
        await caller.finish()
    return callers, latencies


def compare(callers: list[Caller]) -> int:
    """Return how many replies are those of a lone stream; another one ends the program."""
    same = 0
    expected: dict[int, bytes] = {}
    for caller in callers:
        if len(caller.replies) != len(caller.sent):
            raise SystemExit(f"{len(caller.sent)} frames sent, {len(caller.replies)} replies")
        length = len(caller.replies)
        if len(expected.get(caller.start, b"")) < 4 * length:
            rolled = np.roll(RECORDING[: len(caller.frames) * HOP], -caller.start * HOP)
            audio = np.resize(rolled, length * HOP).astype("float32") / 32768
            expected[caller.start] = listen(audio)[0].tobytes()
        if b"".join(caller.replies) != expected[caller.start][: 4 * length]:
            raise SystemExit("a reply is not that of a lone stream")
        same += length
    return same


@contextlib.contextmanager
def service(capacity: int) -> Iterator[str]:
    """Have a service of one's own: gives its address."""
    script = str(Path(__file__).with_name("server.py"))
    command = [sys.executable, script, "--port", "0", "--capacity", str(capacity)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def main() -> None:
    """Load a service, and say how it did."""
    parser = argparse.ArgumentParser(description="Load the service of server.py.")
    parser.add_argument("--url", help="ws://host:port; without, a service of its own")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--interval", type=float, default=32, help="milliseconds between frames")
    parser.add_argument("--seconds", type=float, default=10, help="how long to send")
    arguments = parser.parse_args()

    with contextlib.ExitStack() as stack:
        url = arguments.url or stack.enter_context(service(arguments.connections))
        callers, latencies = asyncio.run(
            load(url, arguments.connections, arguments.interval / 1000, arguments.seconds)
        )
    print(f"{len(callers)} connections, {latencies.count} frames: {latencies}")
    print(f"all {compare(callers)} replies are those of a lone stream")


if __name__ == "__main__":
    main()
