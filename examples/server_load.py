"""Load the service of server.py: hundreds of callers, each with a frame of audio every 32 ms.

    pip install "lstmcore[server]"
    python examples/server_load.py [--connections 500] [--interval 32] [--seconds 10] [--url URL]

Without --url it starts a service of its own, in another process. Every caller sends the recording
that comes with voice_activity.py, from another place on, over and over; callers take turns, so
that frames come evenly spread over the interval. At the end it prints how long replies took, from
the moment when a frame was sent, and compares every reply with that of a lone stream: any
difference, to the bit, is an error. A frame that these callers send late, because they are slow
themselves, counts from then on. Nobody waits for a reply before sending the next frame, so that a
service that stalls has it counted for every frame that it keeps waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from server import HOP, WebSocket, percentiles
from voice_activity import WEIGHTS, listen
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

STARTS = 16  # different places in the recording
SAMPLES = np.round(WEIGHTS["recording"] * 32768).clip(-32768, 32767).astype("<i2")
FRAMES = SAMPLES[: len(SAMPLES) // HOP * HOP].reshape(-1, HOP)
MESSAGES = [Frame(Opcode.BINARY, frame.tobytes()).serialize(mask=True) for frame in FRAMES]


class Caller(WebSocket):
    """A connection that sends frames and keeps the replies."""

    def __init__(self, url: str, number: int, latencies: list[float]) -> None:
        super().__init__(ClientProtocol(parse_uri(url), max_size=125), 4)
        self.start = number % STARTS * len(MESSAGES) // STARTS
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
        """Take the beginning, or a reply."""
        super().received(event)
        if isinstance(event, Response):
            error = self.protocol.handshake_exc
            if error is None:
                self.ready.set_result(None)
            else:
                self.ready.set_exception(error)

    def message(self, message: bytes) -> None:
        """Take a reply."""
        self.latencies.append(time.perf_counter() - self.sent[len(self.replies)])
        self.replies.append(message)
        if len(self.replies) == len(self.sent):
            self.done.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Wake up who waits."""
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before it was open"))
        self.done.set()

    def send(self) -> None:
        """Send the next frame."""
        if self.protocol.state is not State.OPEN:
            self.give_up()
        self.done.clear()
        message = MESSAGES[(self.start + len(self.sent)) % len(MESSAGES)]
        self.sent.append(time.perf_counter())
        self.transport.write(message)

    def give_up(self) -> None:
        """End the program: say what the service did in place of replying."""
        missing = f"{len(self.sent) - len(self.replies)} frames had no reply"
        if self.protocol.state is State.OPEN:
            raise SystemExit(f"{missing} within ten seconds")
        reason = self.protocol.close_rcvd or "without a word"
        raise SystemExit(f"the service has hung up: {reason}; {missing}")

    async def finish(self) -> None:
        """Wait for the last reply, ten seconds at most, and hang up."""
        with contextlib.suppress(asyncio.TimeoutError):
            if self.sent:
                await asyncio.wait_for(self.done.wait(), 10)
        if len(self.replies) < len(self.sent):
            self.give_up()
        if self.protocol.state is State.OPEN:
            self.protocol.send_close()
            self.flush()


async def load(
    url: str, connections: int, interval: float, seconds: float
) -> tuple[list[Caller], list[float]]:
    """Call, send for so long, and hang up; times are in seconds."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    uri = parse_uri(url)
    callers = []
    for number in range(connections):
        _, caller = await loop.create_connection(
            lambda number=number: Caller(url, number, latencies), uri.host, uri.port
        )
        await caller.ready
        callers.append(caller)
    gc.freeze()
    sent, late = 0, 0.0
    total = connections * max(int(seconds / interval), 1)
    begin = time.perf_counter()
    while sent < total:
        due = int((time.perf_counter() - begin) / interval * connections) + 1
        late = max(late, (due - sent) * interval / connections)
        for number in range(sent, min(due, total)):
            callers[number % connections].send()
        sent = max(sent, due)
        await asyncio.sleep(0.001)
    if late > interval:
        print(f"these callers do not keep up: frames were sent up to {1000 * late:.0f} ms late")
    for caller in callers:
        await caller.finish()
    return callers, latencies


def compare(callers: list[Caller]) -> int:
    """Return how many replies are those of a lone stream; another one ends the program."""
    same = 0
    expected: dict[int, bytes] = {}
    for caller in callers:
        length = len(caller.replies)
        if len(expected.get(caller.start, b"")) < 4 * length:
            samples = np.resize(np.roll(FRAMES, -caller.start, axis=0), length * HOP)
            expected[caller.start] = listen(samples.astype("float32") / 32768)[0].tobytes()
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
    print(f"{len(callers)} connections, {len(latencies)} frames: {percentiles(latencies)}")
    print(f"all {compare(callers)} replies are those of a lone stream")


if __name__ == "__main__":
    main()
