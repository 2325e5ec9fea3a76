"""A connection that misbehaves: stands between libpq and Postgres, and knows just enough of what it passes on.

The rule: faults are asked for by the end of a connection's application name ("flush", "large", "journal", …) and
strike its next statement, or one ``after`` it; everything else passes untouched. A fault says with ``struck`` that
it has happened.

    async with proxied(database) as proxy:
        async with PostgresJournal(proxy.url).open() as journal:
            fault = proxy.lose_answer("flush")
            (outcome,) = await journal.commit(commit)  # Unknown
            await fault.struck.wait()
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum, auto

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_STATEMENTS = b"EQ"  # Execute, Query
_READY = b"Z"
_NOTIFICATION = b"A"
_SYNC = b"S\0\0\0\4"


class What(Enum):
    """What a fault does to a statement."""

    LOSE_ANSWER = auto()  # Postgres has carried it out, the client hears nothing
    LOSE_CLIENT = auto()  # Postgres has it, and goes on with it after the client is gone
    LOSE_STATEMENT = auto()  # Postgres never gets it
    STALL = auto()  # nothing passes until ``go_on``


@dataclass(slots=True)
class Fault:
    """One fault, struck once."""

    name: str
    what: What
    after: int = 0  # statements that pass before
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def go_on(self) -> None:
        """Let what is stalled pass."""
        self.over.set()


class Proxy:
    """Passes connections on to one server. ``deaf``: notifications never come through."""

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(url)
        self._target = f"{given['host']}/.s.PGSQL.{given.get('port', 5432)}"
        self._given = url
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.faults: list[Fault] = []
        self.deaf = False
        self.url = ""

    def lose_answer(self, name: str, *, after: int = 0) -> Fault:
        """Cut the next connection of that name when Postgres has answered its statement."""
        return self._fault(name, What.LOSE_ANSWER, after)

    def lose_client(self, name: str, *, after: int = 0) -> Fault:
        """Cut it when Postgres has got its statement, which may then be waiting for a lock."""
        return self._fault(name, What.LOSE_CLIENT, after)

    def lose_statement(self, name: str, *, after: int = 0) -> Fault:
        """Cut it before Postgres gets its statement."""
        return self._fault(name, What.LOSE_STATEMENT, after)

    def stall(self, name: str, *, after: int = 0) -> Fault:
        """Keep its next statement until ``go_on``."""
        return self._fault(name, What.STALL, after)

    def cut_all(self) -> None:
        """Break every connection there is."""
        for link in self._links:
            link.cut()

    async def open(self) -> None:
        """Begin to listen on a free port of this machine."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = make_conninfo(self._given, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")

    async def close(self) -> None:
        """Stop listening and break every connection."""
        if self._server is not None:
            self._server.close()
        self.cut_all()
        await asyncio.gather(*(link.done.wait() for link in list(self._links)))

    def fault_of(self, name: str) -> Fault | None:
        """Take the fault that waits for a connection of this name."""
        for fault in self.faults:
            if not name.endswith(fault.name):
                continue
            if fault.after == 0:
                self.faults.remove(fault)
                return fault
            fault.after -= 1
        return None

    def _fault(self, name: str, what: What, after: int) -> Fault:
        fault = Fault(name, what, after)
        self.faults.append(fault)
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await link.run(reader, await asyncio.open_unix_connection(self._target))
        finally:
            link.cut()
            link.done.set()
            self._links.discard(link)


class _Link:
    """One client and its session at the server."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._losing: Fault | None = None
        self._name = ""
        self._to_server = b""
        self.done = asyncio.Event()

    async def run(
        self, reader: asyncio.StreamReader, server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> None:
        """Pass messages on in both directions until either side goes."""
        from_server, self._server = server
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        startup = await reader.readexactly(length - 4)
        words = startup[4:].split(b"\0")
        pairs = dict(zip(words[::2], words[1::2], strict=False))
        self._name = pairs.get(b"application_name", b"").decode()
        self._server.write(struct.pack("!i", length) + startup)
        ways = [asyncio.ensure_future(self._up(reader)), asyncio.ensure_future(self._down(from_server))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def cut(self) -> None:
        """Break it on both sides."""
        for writer in (self._client, self._server):
            if writer is not None:
                writer.close()

    async def _up(self, reader: asyncio.StreamReader) -> None:
        server = self._server
        assert server is not None
        async for messages in _batches(reader):
            for kind, message in messages:
                fault = self._proxy.fault_of(self._name) if kind in _STATEMENTS else None
                if fault is not None and fault.what is What.LOSE_STATEMENT:
                    fault.struck.set()
                    return
                if fault is not None and fault.what is What.STALL:
                    fault.struck.set()
                    await fault.over.wait()
                if fault is not None and fault.what is What.LOSE_ANSWER:
                    self._losing = fault
                self._to_server += message
                if fault is not None and fault.what is What.LOSE_CLIENT:
                    self._to_server += _SYNC if kind == b"E" else b""  # without it nothing would be carried out
                    server.write(self._to_server)
                    await server.drain()
                    fault.struck.set()
                    return
            server.write(self._to_server)
            self._to_server = b""

    async def _down(self, reader: asyncio.StreamReader) -> None:
        async for messages in _batches(reader):
            passed = b""
            for kind, message in messages:
                if self._losing is None:
                    if kind != _NOTIFICATION or not self._proxy.deaf:
                        passed += message
                elif kind == _READY:
                    self._losing.struck.set()
                    return
            self._client.write(passed)


async def _batches(reader: asyncio.StreamReader) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Yield whole messages, each with its kind, as many as came at once."""
    rest = b""
    while chunk := await reader.read(65536):
        rest += chunk
        found: list[tuple[bytes, bytes]] = []
        at = 0
        while len(rest) >= at + 5:
            end = at + 1 + int.from_bytes(rest[at + 1 : at + 5], "big")
            if len(rest) < end:
                break
            found.append((rest[at : at + 1], rest[at:end]))
            at = end
        rest = rest[at:]
        if found:
            yield found


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the server of ``url``, gone at the end."""
    proxy = Proxy(url)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
