"""``/healthz`` and ``/readyz``: answers, and what bad clients get."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from continuum._engine import health
from continuum._engine.health import Health
from continuum.errors import InvalidSetting


class Worker:
    """What is asked for its health."""

    alive, ready = True, False


@asynccontextmanager
async def answering(worker: Any = Worker) -> AsyncIterator[int]:
    made = Health(
        "127.0.0.1", 0, alive=lambda: worker.alive, ready=lambda: worker.ready, status=lambda: {"worker": "w-1"}
    )
    await made.bind()
    async with asyncio.TaskGroup() as services:
        serving = services.create_task(made.run())
        yield made.port
        serving.cancel()


async def asked(port: int, request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Return status line, headers and body."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, dict(line.decode().lower().split(": ", 1) for line in lines), body


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what still comes, nothing if the other side has cut the connection."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_each_path_answers_with_what_its_check_says() -> None:
    async with answering() as port:
        first, headers, body = await asked(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first == b"HTTP/1.1 200 OK"
        assert json.loads(body) == {"ok": True, "worker": "w-1"}
        assert headers["content-type"] == "application/json"
        assert headers["content-length"] == str(len(body))
        assert headers["connection"] == "close"
        first, _, body = await asked(port, b"GET /readyz?verbose=1 HTTP/1.0\r\n\r\n")
        assert first == b"HTTP/1.1 503 Service Unavailable"
        assert json.loads(body)["ok"] is False


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /healthz/ HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"\x00\xff\r\n\r\n", b"400 Bad Request"),
        (b"GET /healthz\r\n\r\n", b"400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 60_000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
    ],
)
async def test_any_other_request_is_refused(request_: bytes, status: bytes) -> None:
    async with answering() as port:
        first, headers, _ = await asked(port, request_)
        assert first == b"HTTP/1.1 " + status
        assert ("allow" in headers) == (status[:3] == b"405")
        assert (await asked(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0].endswith(b"200 OK")


async def test_head_gets_no_body() -> None:
    async with answering() as port:
        first, headers, body = await asked(port, b"HEAD /healthz HTTP/1.1\r\n\r\n")
        assert (first, body) == (b"HTTP/1.1 200 OK", b"")
        assert int(headers["content-length"]) > 0


async def test_a_check_that_fails_is_an_error_of_the_server_and_no_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        @property
        def alive(self) -> bool:
            raise RuntimeError("no idea")

    async with answering(Broken()) as port:
        for _ in range(2):
            assert (await asked(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0].endswith(b"500 Internal Server Error")
    assert "no idea" in caplog.text


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_S", 0.05)
    async with answering() as port:
        assert (await asked(port, b"GET /heal"))[0] == b"HTTP/1.1 408 Request Timeout"


async def test_who_goes_away_or_comes_too_often_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_CONNECTIONS", 3)
    async with answering() as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        refused = [reader for reader, _ in silent[3:]]
        for reader in refused:
            assert await rest(reader) == b""
        for _, writer in silent:
            writer.close()
        async with asyncio.timeout(10):
            while True:  # until the server has noticed that they are gone
                try:
                    if (await asked(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0].endswith(b"200 OK"):
                        break
                except ConnectionError:
                    pass


async def test_at_its_end_it_gives_up_the_port_and_who_is_connected() -> None:
    async with answering() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        assert await rest(reader) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_that_is_taken_or_is_none_is_one_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        for port, says in ((taken, f"127.0.0.1 port {taken}: "), (70_000, "70000 is not a port")):
            made = Health("127.0.0.1", port, alive=bool, ready=bool, status=dict)
            with pytest.raises(InvalidSetting, match=says):
                await made.run()
