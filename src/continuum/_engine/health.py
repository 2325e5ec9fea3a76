"""``GET /healthz`` and ``GET /readyz``: what an orchestrator asks of a worker.

The rule: it answers from the loop that does the work, so a loop that hangs does not answer either. It reads one
request of bounded size and time from each connection, answers, and closes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from continuum.errors import InvalidSetting

logger = logging.getLogger("continuum.worker")
REQUEST_S = 5.0  # for the whole request, and again for the answer
REQUEST_BYTES = 8_192
MOST_CONNECTIONS = 100
_METHODS = ("GET", "HEAD")


class Health:
    """Answers on a port while ``run()`` runs.

    ``/healthz`` is 200 while ``alive()``, ``/readyz`` while ``ready()``, else 503; both with the JSON of
    ``status()``. Port 0 takes any that is free; ``port`` says which once it is bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        alive: Callable[[], bool],
        ready: Callable[[], bool],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self.host = host
        self.port = port
        self._checks = {"/healthz": alive, "/readyz": ready}
        self._status = status
        self._server: asyncio.Server | None = None
        self._connections: asyncio.TaskGroup | None = None
        self._open = 0

    async def bind(self) -> None:
        """Take the port; nobody is answered yet. Raises ``InvalidSetting`` if it cannot be had.

        ``run()`` does it too; a worker calls it first, so that a taken port is told before anything else happens.
        """
        if self._server is not None:
            return
        if not 0 <= self.port <= 65_535:
            raise InvalidSetting(f"{self.port} is not a port: a port is 1 to 65535")
        try:
            self._server = await asyncio.start_server(self._connected, self.host, self.port, limit=REQUEST_BYTES)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise InvalidSetting(
                f"cannot answer health checks on {self.host} port {self.port}: {reason}; choose another one"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Give up the port, if it was taken."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def run(self) -> None:
        """Answer until cancelled; then give up the port and every connection."""
        await self.bind()
        try:
            async with asyncio.TaskGroup() as self._connections:
                await asyncio.get_running_loop().create_future()
        finally:
            self._connections = None
            self.close()

    def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._connections is None or self._open >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        self._connections.create_task(self._serve(reader, writer))

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(REQUEST_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                answer = self._answer(head)
            except asyncio.LimitOverrunError:
                answer = _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            except TimeoutError:
                answer = _response(HTTPStatus.REQUEST_TIMEOUT)
            async with asyncio.timeout(REQUEST_S):
                writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # who asked went away
        finally:
            self._open -= 1
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        check = self._checks.get(target.partition("?")[0])
        if check is None:
            return _response(HTTPStatus.NOT_FOUND, whole=method != "HEAD")
        if method not in _METHODS:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            well = check()
            body = {"ok": well, **self._status()}
        except Exception:
            logger.exception("a health check failed")
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR, whole=method != "HEAD")
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, body, whole=method != "HEAD")


def _response(status: HTTPStatus, body: dict[str, Any] | None = None, *, whole: bool = True) -> bytes:
    """Return an answer; without ``whole`` only its head, as a HEAD request wants it."""
    content = json.dumps(body if body is not None else {"error": status.phrase}, default=str).encode() + b"\n"
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        head.append(f"Allow: {', '.join(_METHODS)}")
    return "\r\n".join([*head, "", ""]).encode() + (content if whole else b"")
