"""Tell hundreds of callers at once where somebody speaks: a WebSocket service with one pool.

    pip install "lstmcore[server]"
    python examples/server.py [--port 8765] [--capacity 1024] [--gather 0]

The model is that of voice_activity.py. Every connection has a stream of its own in a pool. It sends
512 samples at 16000 per second, 16-bit little-endian integers, as one binary message every 32
milliseconds, and is told the probability of speech in them, a 32-bit float. What arrived during a
step takes the next one together, the more the busier the service is. With --gather it waits some
milliseconds more before each step, which costs less of the processor and answers later. Nothing
about the result depends on who else is there: it has the bits that a lone stream gives.

Every second it prints how many frames came and how long they took from arrival to reply.
server_load.py beside this is a client that loads it.

WebSockets are those of the `websockets` package, of which this uses the part that only makes and
reads bytes ("Sans-I/O"): a coroutine for each message would cost more than the model.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import time

import numpy as np
from voice_activity import CONTEXT, HOP, FrontEnd, make_model

import lstmcore as lc

try:
    from websockets.frames import CloseCode, Frame, Opcode, apply_mask
    from websockets.http11 import Request
    from websockets.protocol import Protocol, Side
    from websockets.server import ServerProtocol
except ImportError as error:
    raise SystemExit('this needs websockets: pip install "lstmcore[server]"') from error

MOST_TOGETHER = 128  # streams in a step; a frame takes longer among more, and replies wait for all
MOST_AHEAD = 64  # frames of one connection that wait: two seconds
REPLY = Frame(Opcode.BINARY, bytes(4)).serialize(mask=False)[:-4]  # stands before each float


class WebSocket(asyncio.Protocol):
    """One end of a connection: bytes of the network on one side, messages on the other.

    Nearly all that comes are binary messages of one size. They are read here, five times as fast
    as by `websockets`, which reads everything else.
    """

    def __init__(self, protocol: Protocol, size: int) -> None:
        self.protocol = protocol
        self.is_masked = protocol.side is Side.SERVER  # as all that clients send
        usual = Frame(Opcode.BINARY, bytes(size)).serialize(mask=self.is_masked)
        self.whole, self.begin = len(usual), usual[: -size - 4 * self.is_masked]
        self.pending = 0  # bytes that `websockets` has, and has not told of

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes, and what messages they make."""
        start = len(self.begin)
        while len(data) >= self.whole and data.startswith(self.begin) and not self.pending:
            message, data = data[start : self.whole], data[self.whole :]
            self.message(apply_mask(message[4:], message[:4]) if self.is_masked else message)
        if data:
            self.pending += len(data)
            self.protocol.receive_data(data)
            for event in self.protocol.events_received():
                self.received(event)
            self.flush()

    def received(self, event: object) -> None:
        """Take a message, or what opens and closes the connection."""
        if not isinstance(event, Frame):
            self.pending = 0
            return
        frame = event.serialize(mask=self.is_masked)
        self.pending -= len(frame)
        if len(frame) == self.whole and frame.startswith(self.begin):
            self.message(bytes(event.data))

    def message(self, message: bytes) -> None:
        """Take a message of the usual size."""
        raise NotImplementedError

    def eof_received(self) -> None:
        """The other end sends no more."""
        self.protocol.receive_eof()
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to send."""
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:  # nothing comes after this
                self.transport.close()

    def fail(self, code: CloseCode, reason: str) -> None:
        """Close the connection, and say why; the other end has ten seconds to agree."""
        self.protocol.send_close(code, reason)
        self.flush()
        asyncio.get_running_loop().call_later(10, self.transport.abort)


def percentiles(latencies: list[float]) -> str:
    """Say how long frames took from arrival to reply, given in seconds."""
    known = 1000 * np.array(latencies or [0])
    median, usual, slow = np.quantile(known, [0.5, 0.99, 0.999])
    return (
        f"median {median:.2f} ms, 99 % {usual:.2f} ms, 99.9 % {slow:.2f} ms, "
        f"most {known.max():.2f} ms"
    )


class Service:
    """The model, its pool, and what waits for the next step."""

    def __init__(self, capacity: int = 1024, gather: float = 0) -> None:
        self.front_end = FrontEnd()
        self.pool = make_model().stream_pool(capacity)
        self.gather = gather
        self.latencies: list[float] = []  # in seconds, those since they were last printed
        self.waiting: list[Connection] = []  # those with a frame, each once
        self.arrived = asyncio.Event()

    def add(self, connection: Connection) -> None:
        """Let a connection take part in the next step."""
        self.waiting.append(connection)
        self.arrived.set()

    async def run(self) -> None:
        """Take steps for ever: of all that arrived, when `gather` has passed."""
        while True:
            await self.arrived.wait()
            await asyncio.sleep(self.gather)
            self.arrived.clear()
            together, self.waiting = self.waiting, []
            for start in range(0, len(together), MOST_TOGETHER):
                part = together[start : start + MOST_TOGETHER]
                self.step([connection for connection in part if connection.is_open])

    def step(self, connections: list[Connection]) -> None:
        """Take one step of these, and reply to them."""
        if not connections:
            return
        ids = np.array([connection.id for connection in connections])
        samples = b"".join([connection.next_frame() for connection in connections])
        frames = np.frombuffer(samples, "<i2").reshape(len(ids), -1) / np.float32(32768)
        probabilities = self.pool.step(ids, self.front_end(frames)).tobytes()
        for i, connection in enumerate(connections):
            connection.transport.write(REPLY + probabilities[4 * i : 4 * i + 4])
        now = time.perf_counter()
        self.latencies += [now - connection.arrivals.popleft() for connection in connections]
        for connection in connections:
            if connection.arrivals:
                self.add(connection)

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        self.stepping = loop.create_task(self.run())
        return await loop.create_server(lambda: Connection(self), host, port)


class Connection(WebSocket):
    """A caller: its stream, and the frames that wait."""

    def __init__(self, service: Service) -> None:
        super().__init__(ServerProtocol(max_size=2 * HOP), 2 * HOP)
        self.service = service
        self.id = -1
        self.is_open = False
        self.frames: collections.deque[bytes] = collections.deque()
        self.arrivals: collections.deque[float] = collections.deque()
        self.before = bytes(2 * CONTEXT)  # the last samples of the frame before

    def received(self, event: object) -> None:
        """Begin, take a frame of audio, or end."""
        super().received(event)
        if isinstance(event, Request):
            self.accept(event)
        elif self.is_open and isinstance(event, Frame):
            if event.opcode is Opcode.TEXT:
                self.fail(CloseCode.UNSUPPORTED_DATA, "expected binary messages")
            elif event.opcode is Opcode.BINARY and (len(event.data) != 2 * HOP or not event.fin):
                self.fail(CloseCode.INVALID_DATA, f"expected {HOP} samples of 16 bits")
            elif event.opcode is Opcode.CLOSE:
                self.leave()

    def accept(self, request: Request) -> None:
        """Begin, if there is a place."""
        try:
            self.id = self.service.pool.open()
        except RuntimeError:
            self.protocol.send_response(self.protocol.reject(503, "all streams are in use\n"))
            return
        self.is_open = True
        self.protocol.send_response(self.protocol.accept(request))

    def message(self, message: bytes) -> None:
        """Let a frame of audio wait for the next step."""
        if not self.is_open:
            return  # it is closing
        if len(self.frames) == MOST_AHEAD:
            self.fail(CloseCode.POLICY_VIOLATION, f"more than {MOST_AHEAD} frames ahead")
            return
        self.frames.append(message)
        self.arrivals.append(time.perf_counter())
        if len(self.frames) == 1:
            self.service.add(self)

    def next_frame(self) -> bytes:
        """Return the samples that have waited longest, behind the last ones before them."""
        samples = self.before + self.frames.popleft()
        self.before = samples[-2 * CONTEXT :]
        return samples

    def fail(self, code: CloseCode, reason: str) -> None:
        """Close the connection, and leave at once."""
        super().fail(code, reason)
        self.leave()

    def connection_lost(self, error: Exception | None) -> None:
        """Leave."""
        self.leave()

    def leave(self) -> None:
        """Give the place to others."""
        if self.is_open:
            self.is_open = False
            self.service.pool.close(self.id)


async def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a voice-activity detector by WebSocket.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--capacity", type=int, default=1024, help="connections at once")
    parser.add_argument("--gather", type=float, default=0, help="milliseconds to wait for others")
    arguments = parser.parse_args()

    lc.set_num_threads(1)  # steps are too short for two
    service = Service(arguments.capacity, arguments.gather / 1000)
    server = await service.serve(arguments.host, arguments.port)
    print(f"listening at ws://{arguments.host}:{server.sockets[0].getsockname()[1]}", flush=True)
    percentiles([])  # the first time takes ten milliseconds, in which nobody would be answered
    gc.freeze()  # what has been imported need not be searched for garbage time and again
    while not service.stepping.done():
        await asyncio.wait([service.stepping], timeout=1)
        latencies, service.latencies = service.latencies, []
        if latencies:
            print(
                f"{len(service.pool)} connections, {len(latencies)} frames: "
                f"{percentiles(latencies)}",
                flush=True,
            )
    service.stepping.result()  # which has failed


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
