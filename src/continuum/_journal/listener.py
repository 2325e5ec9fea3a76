"""Hears what other processes say after their commits.

The rule: hearing is a gain in time, nothing else. Whenever something may have been missed, the listener says
"gap" and the polls find it. A pooler that swallows notifications is found out by a probe and reported once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress

import psycopg
from psycopg import Notify

from continuum._journal.backoff import Backoff
from continuum._journal.connections import Connection, connect, one_line
from continuum._journal.hints import CHANNELS
from continuum._journal.lane import Lane, OutcomeUnknown
from continuum._journal.statements import Statement
from continuum.errors import DatabaseUnreachable

logger = logging.getLogger("continuum.journal")
PROBE_S = 60.0  # between probes
ANSWER_S = 3.0
_NOTIFY = Statement(b"select pg_notify($1, $2)", ("channel", "payload"))


class Listener:
    """One connection that listens, from when somebody first needs it. ``hears`` tells whether the last probe came.

    What comes is read by a plain callback of the loop: no task wakes in between, and none while all is quiet.
    """

    def __init__(self, url: str, speak: Lane, schema: str, tell: Callable[[str, Collection[str]], None]) -> None:
        self.hears = False
        self._url = url
        self._speak = speak
        self._tell = tell
        self._channels = {kind: name.replace("{schema}", schema) for kind, name in CHANNELS.items()}
        self._kinds = {name: kind for kind, name in self._channels.items()}
        self._probe = f"{schema}_probe"
        self._nonce = ""
        self._heard = asyncio.Event()
        self._needed: dict[str, None] = {}  # channels
        self._changed = asyncio.Event()  # more is needed than is listened to, or the connection broke
        self._broke: psycopg.Error | None = None
        self._listening = False
        self._anew = asyncio.Event()
        self._reported = False

    def need(self, *kinds: str) -> None:
        """Listen to hints of these kinds from soon on, for good. What was missed until then is a "gap"."""
        for kind in kinds:
            if self._channels[kind] not in self._needed:
                self._needed[self._channels[kind]] = None
                self.hears = False  # until all that is needed is heard
                self._changed.set()

    async def run(self) -> None:
        """Listen until cancelled; after a break, listen again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe_now_and_then())
            await self._changed.wait()
            await self._listen_again_and_again()

    async def _listen_again_and_again(self) -> None:
        backoff, told = Backoff(), False
        while True:
            try:
                connection = await connect(self._url, name="listen", prepared=False)
                told = False
                connection.add_notify_handler(self._take)
                try:
                    await self._listen(connection, backoff)
                finally:
                    await connection.close()
            except (DatabaseUnreachable, psycopg.Error) as error:
                logger.log(
                    logging.DEBUG if told else logging.INFO, "not listening: %s; trying again", one_line(error)
                )
                told = True
            self.hears = self._listening = False
            await backoff.pause()

    async def _listen(self, connection: Connection, backoff: Backoff) -> None:
        loop, socket = asyncio.get_running_loop(), connection.fileno()
        self._broke = None
        here: set[str] = set()
        while self._broke is None:
            self._changed.clear()
            for channel in (*self._needed, self._probe):
                if channel not in here:
                    await connection.execute(f"listen {channel}".encode())
                    here.add(channel)
            backoff.reset()
            self._tell("gap", ())
            self._listening = True
            self._anew.set()
            loop.add_reader(socket, self._read, connection, socket)
            try:
                self._read(connection, socket)  # what came with the last answer rings no bell
                await self._changed.wait()
            finally:
                if self._broke is None:  # else libpq has closed it, and its number may be another one's by now
                    loop.remove_reader(socket)
        raise self._broke

    def _read(self, connection: Connection, socket: int) -> None:
        """Take what has come; a callback of the loop."""
        try:
            connection.pgconn.consume_input()
            while found := connection.pgconn.notifies():
                encoding = connection.info.encoding
                self._take(Notify(found.relname.decode(encoding), found.extra.decode(encoding), found.be_pid))
        except psycopg.Error as error:
            self._broke = error
            self._changed.set()
            asyncio.get_running_loop().remove_reader(socket)

    def _take(self, notify: Notify) -> None:
        if notify.channel == self._probe:
            if notify.payload == self._nonce:
                self._heard.set()
        elif kind := self._kinds.get(notify.channel):
            self._tell(kind, notify.payload.split("\n"))

    async def _probe_now_and_then(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    await self._anew.wait()
            self._anew.clear()
            if self._listening:
                await self._probe_once()

    async def _probe_once(self) -> None:
        """Speak on another connection and see whether it is heard: on the same one it would always be."""
        self._nonce = secrets.token_hex(8)
        self._heard.clear()
        try:
            await self._speak.rows(_NOTIFY, {"channel": self._probe, "payload": self._nonce})
            async with asyncio.timeout(ANSWER_S):
                await self._heard.wait()
            self.hears = self._listening
        except TimeoutError:
            self.hears = False
            if self._listening and not self._reported:
                self._reported = True
                logger.warning(
                    "notifications do not come through, so everything is polled more often: LISTEN needs a direct "
                    "connection; with a pooler in between, set CONTINUUM_LISTEN_URL to one without"
                )
        except (OutcomeUnknown, psycopg.Error) as error:
            logger.info("probe not sent: %s", one_line(error))
