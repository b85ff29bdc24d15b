"""The WebSocket service and its load client, on loopback."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import example_scripts

pytest.importorskip("websockets")


@pytest.fixture(scope="module")
def server() -> Any:
    return example_scripts.load("server")


@pytest.fixture(scope="module")
def client() -> Any:
    return example_scripts.load("server_load")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = lc.get_num_threads()
    lc.set_num_threads(1)
    yield
    lc.set_num_threads(before)


def serving(server: Any, work: Callable[[Any, str], Awaitable[Any]], capacity: int = 50) -> Any:
    """Run work(service, url) in the event loop of a service."""

    async def main() -> Any:
        service = server.Service(capacity, gather=0.001)
        listener = await service.serve("127.0.0.1", 0)
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            return await work(service, url)
        finally:
            service.stepping.cancel()
            listener.close()
            await asyncio.sleep(0.05)  # connections end

    return asyncio.run(main())


async def closed(service: Any) -> None:
    """Wait until nobody is connected."""
    for _ in range(200):
        if len(service.pool) == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(service.pool)} streams are still open")


def test_forty_callers_get_what_lone_streams_give(
    server: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_AHEAD", 1000)  # this machine may be busy

    async def work(service: Any, url: str) -> Any:
        callers, latencies = await client.load(url, 40, 0.02, 1.2)
        await closed(service)
        return callers, latencies, len(service.latencies)

    callers, latencies, count = serving(server, work)
    assert len(callers) == 40
    assert count == len(latencies) == 40 * 60
    assert client.compare(callers) == count
    # The comparison sees a difference, and speech and silence are both among the replies.
    values = np.frombuffer(b"".join(b"".join(c.replies) for c in callers), "<f4")
    assert (values > 0.5).any()
    assert (values < 0.5).any()
    callers[3].replies[17] = np.nextafter(np.frombuffer(callers[3].replies[17], "<f4"), 2).tobytes()
    with pytest.raises(SystemExit, match="not that of a lone stream"):
        client.compare(callers)


@pytest.mark.parametrize("together", [1, 2, 128])
def test_frames_that_come_at_once_are_taken_in_order(
    server: Any, client: Any, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(server, "MOST_TOGETHER", together)  # of three that wait

    async def work(service: Any, url: str) -> Any:
        loop = asyncio.get_running_loop()
        latencies: list[float] = []
        callers = []
        uri = client.parse_uri(url)
        for number in range(3):
            _, caller = await loop.create_connection(
                lambda number=number: client.Caller(url, number, latencies), uri.host, uri.port
            )
            await caller.ready
            callers.append(caller)
        for caller in callers:
            for _ in range(20):
                caller.send()
        for caller in callers:
            await caller.finish()
        await closed(service)
        return callers

    assert client.compare(serving(server, work)) == 60


def test_those_who_do_not_keep_to_it(server: Any, client: Any) -> None:
    """They are told why, and their places are free; others go on."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async def reason(url: str, *messages: Any) -> tuple[int | None, str]:
        async with connect(url) as socket:
            for message in messages:
                await socket.send(message)
            await socket.wait_closed()
            return socket.close_code, socket.close_reason or ""

    async def work(service: Any, url: str) -> None:
        frame = bytes(1024)
        async with connect(url) as one:
            assert await reason(url, frame, bytes(1022)) == (
                1007,
                "expected 512 samples of 16 bits",
            )
            assert (await reason(url, frame, bytes(1026)))[0] == 1009  # larger than may be
            assert await reason(url, "hello") == (1003, "expected binary messages")
            async with connect(url):
                with pytest.raises(InvalidStatus, match="503"):
                    await connect(url)
            await one.send(frame)
            assert len(await one.recv()) == 4
        await closed(service)
        # One that hangs up without a word, with frames waiting.
        socket = await connect(url)
        for _ in range(5):
            await socket.send(frame)
        socket.transport.abort()
        await closed(service)
        # And too many frames ahead.
        service.gather = 0.5
        assert await reason(url, *[frame] * 65) == (1008, "more than 64 frames ahead")
        await closed(service)

    serving(server, work, capacity=2)


def test_those_who_say_goodbye_with_frames_waiting(server: Any, client: Any) -> None:
    """A step with nobody left to reply to is none; the service goes on."""

    async def work(service: Any, url: str) -> None:
        from websockets.asyncio.client import connect

        service.gather = 0.2
        async with connect(url) as going, connect(url) as staying:
            await going.send(bytes(1024))
            await staying.send(bytes(1024))
            await going.close()
            assert going.close_code == 1000
            assert len(await staying.recv()) == 4
        await closed(service)
        assert not service.stepping.done()

    serving(server, work, capacity=2)


@pytest.mark.parametrize("size", [1, 3, 700, 1032, 1040, 5000])
def test_however_the_bytes_come(server: Any, client: Any, size: int) -> None:
    """In pieces, several frames at once, and pings among them."""
    from websockets.frames import Frame, Opcode

    ping = Frame(Opcode.PING, b"still there?").serialize(mask=True)
    data = b"".join(client.MESSAGES[:5]) + ping + b"".join(client.MESSAGES[5:8]) + ping
    data += client.MESSAGES[8]

    async def work(service: Any, url: str) -> Any:
        loop, uri = asyncio.get_running_loop(), client.parse_uri(url)
        _, caller = await loop.create_connection(
            lambda: client.Caller(url, 0, []), uri.host, uri.port
        )
        await caller.ready
        mine = [o for o in gc.get_objects() if type(o) is server.Connection]
        (connection,) = (c for c in mine if c.service is service)
        for start in range(0, len(data), size):
            connection.data_received(data[start : start + size])
        caller.sent = [0.0] * 9
        await caller.finish()
        await closed(service)
        return connection, [caller]

    connection, callers = serving(server, work)
    assert client.compare(callers) == 9
    assert connection.pending == 0


def test_callers_are_told_why_the_service_hangs_up(server: Any, client: Any) -> None:
    async def work(service: Any, url: str) -> None:
        service.gather = 0.5
        with pytest.raises(SystemExit) as told:
            await client.load(url, 1, 0.002, 0.4)
        assert str(told.value) == (
            "the service has hung up: 1008 (policy violation) more than 64 frames ahead; "
            f"{told.value.args[0].split()[-5]} frames had no reply"
        )

    serving(server, work)


def test_it_is_started_and_loaded_from_the_command_line() -> None:
    said = example_scripts.run("server_load", "--connections", "30", "--seconds", "1")
    assert re.fullmatch(
        r"30 connections, 930 frames: median [\d.]+ ms, 99 % [\d.]+ ms, 99.9 % [\d.]+ ms, "
        r"most [\d.]+ ms",
        said[-2],  # after words about this machine, if it is busy
    )
    assert said[-1] == "all 930 replies are those of a lone stream"
