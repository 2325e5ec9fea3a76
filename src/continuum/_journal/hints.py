"""What is said after a commit: who has mail, what is due, who has ended.

The rule: nothing here is needed for a run to go on, only for it to go on soon. What is lost is found by the
polls and by the sweep. Said at once the first time, then after a pause, with everything gathered meanwhile in one
small statement that commits without waiting for the disk. The pause is four times what the last one took, within
bounds: when nothing else goes on hints are quick, and when much goes on they take no more than a fifth of a
connection's time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from continuum._journal import arrays
from continuum._journal.arrays import Elements, Texts, elements
from continuum._journal.backoff import Backoff
from continuum._journal.connections import is_lock_timeout, is_of_values, one_line
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Lane, OutcomeUnknown
from continuum._journal.statements import statement
from continuum._journal.storable import is_storable
from continuum.errors import DatabaseBusy, DatabaseRefused

logger = logging.getLogger("continuum.journal")
SHORTEST_PAUSE_S, LONGEST_PAUSE_S, PAUSE = 0.001, 0.01, 4.0
AGAIN_S = 0.2
LAST_S = 1.0  # that closing waits for the last hints
LARGEST_PAYLOAD = 7000  # Postgres refuses 8,000 bytes
MOST_KEPT = 100_000  # of each kind, while there is no database: the sweep finds the rest
CHANNELS = {
    "wake": "{schema}_run_wake",  # run ids that have mail
    "mail": "{schema}_mail",  # run ids that have mail and that nobody could arm yet: whoever hears it does
    "ready": "{schema}_run_ready",  # definitions, "name:version", with runs that are due
    "ended": "{schema}_run_ended",  # run ids; "id/" for all below it
    "answered": "{schema}_answered",  # run ids that have answered updates
    "fenced": "{schema}_fenced",  # workers that lost leases
    "tasks": "{schema}_tasks",  # queues with tasks that are due
}

OF_WORKERS = ("wake", "mail", "ready", "fenced", "tasks")  # what a worker acts on

LONGEST_ALONG_S = 0.004  # what two commits in a row that tell may take: others who tell wait for them
APART_S = 1.0
_TOLD = frozenset(("told",))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Telling:
    """What a statement tells when it commits: its part for that, and the part's parameters."""

    parts: frozenset[str]
    values: dict[str, Any]


SILENT = Telling(frozenset(), {})


class Hints:
    """Gathers hints and sends them; arms runs that have mail and no worker (POKE)."""

    def __init__(
        self, lane: Lane, schema: str, hooks: Hooks, here: Callable[[str, Collection[str]], None]
    ) -> None:
        self._lane = lane
        self._here = here
        self._hooks = hooks
        self._poke, self._tell = statement("poke", schema), statement("tell", schema)
        self._channels = {kind: name.replace("{schema}", schema) for kind, name in CHANNELS.items()}
        self._runs: dict[str, None] = {}
        self._said: dict[str, dict[str, None]] = {kind: {} for kind in CHANNELS}
        self._some = asyncio.Event()
        self._quiet = False  # the next POKE arms and tells nobody
        self._telling = False  # a commit that tells is under way
        self._slow = False  # the last one took long
        self._along_at = 0.0  # from this loop time on commits may tell

    def mail(self, near: Collection[str], far: Collection[str], *, told: bool = False) -> None:
        """Note runs that have mail: ``near`` with this worker, which is told now, ``far`` with another or none.

        Whoever has them may be ``told`` already; they are armed after the commit all the same.
        """
        self.arm(near)
        self.arm(far)
        self.say("wake", () if told else far)
        if near:
            self._here("wake", near)

    def arm(self, run_ids: Iterable[str]) -> None:
        """Note runs that may have mail and nobody to read it, such as those that just gave up their lease."""
        self._keep(filter(is_storable, run_ids))

    def say(self, kind: str, names: Iterable[str]) -> None:
        """Note something to be told on the channel of ``kind``."""
        said = self._said[kind]
        if len(said) < MOST_KEPT:
            said.update(dict.fromkeys(filter(is_storable, names)))
        if said:
            self._some.set()

    async def run(self) -> None:
        """Send what is noted until cancelled."""
        backoff, time = Backoff(), asyncio.get_running_loop().time
        while True:
            await self._some.wait()
            began_at = time()
            if await self._send():
                backoff.reset()
                took_s = time() - began_at
                await asyncio.sleep(min(max(PAUSE * took_s, SHORTEST_PAUSE_S), LONGEST_PAUSE_S))
            else:
                await backoff.pause()

    async def last(self) -> None:
        """Send what is still noted when the journal closes: a signal that nobody armed waits for the sweep."""
        if self._some.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await self._send()

    async def _send(self) -> bool:
        self._some.clear()
        await self._hooks.reach("poke.begin")
        runs, self._runs = list(self._runs), {}
        quiet, self._quiet = self._quiet, False
        said: dict[str, list[str]] = {}
        if quiet:
            self._some.set()  # what is to be told comes next
        else:
            said = {kind: list(names) for kind, names in self._said.items() if names}
            self._said = {kind: {} for kind in CHANNELS}
        values: dict[str, Any] = {"run_ids": runs, "ready_channel": "" if quiet else self._channels["ready"]}
        values |= _told(self._pairs(said))
        try:
            rows = await self._lane.rows(self._poke if runs else self._tell, values)
        except (OutcomeUnknown, psycopg.Error, asyncio.CancelledError) as error:
            if isinstance(error, psycopg.Error) and is_of_values(error):  # it would be refused for ever
                logger.error("hints refused and dropped, polls find what they were of: %s", one_line(error))
                if runs and not quiet:  # the queue of notifications may be full: runs are armed all the same
                    self._quiet = True
                    self._keep(runs)
                return True
            self._keep(runs)
            for kind, names in said.items():
                self.say(kind, names)
            if isinstance(error, asyncio.CancelledError):
                raise
            logger.info("hints not sent: %s; trying again", one_line(error))
            return False
        await self._hooks.reach("poke.committed")
        if runs and (again := rows[0][0]):  # somebody holds their rows: a transaction that may be rolled back
            asyncio.get_running_loop().call_later(AGAIN_S, self._keep, again)
        return True

    async def along(
        self, said: Mapping[str, Iterable[str]], write: Callable[[Telling], Awaitable[T]]
    ) -> tuple[T, bool]:
        """Write, and tell in the same commit if nobody has to wait for that. Returns whether it told.

        A commit that tells locks the queue of notifications until it is on disk, and all that tell come one after
        the other. So one at a time does here, and none for a while after two that took long. What Postgres
        refuses is written once more without telling, for the queue may be full, or somebody hold it for long.
        """
        time = asyncio.get_running_loop().time
        began_at = time()
        telling = SILENT if self._telling or began_at < self._along_at else self._telling_of(said)
        if telling is SILENT:
            return await write(SILENT), False
        self._telling = True
        try:
            done = await write(telling)
            slow, self._slow = self._slow, time() - began_at > LONGEST_ALONG_S
            if slow and self._slow:
                self._along_at = time() + APART_S
            return done, True
        except (psycopg.Error, DatabaseBusy, DatabaseRefused) as error:
            cause = error if isinstance(error, psycopg.Error) else error.__cause__
            if isinstance(cause, psycopg.Error) and is_lock_timeout(cause) and cause.diag.context:
                raise  # it was for a row, and Postgres says which; of the queue it says nothing
            logger.info("a commit that tells is refused: %s; written again without telling", one_line(error))
            self._along_at = time() + APART_S
        finally:
            self._telling = False
        return await write(SILENT), False

    def _telling_of(self, said: Mapping[str, Iterable[str]]) -> Telling:
        pairs = self._pairs(said)
        return Telling(_TOLD, _told(pairs)) if pairs else SILENT

    def _pairs(self, said: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
        """Return channels, each with a payload for it."""
        return [
            (self._channels[kind], part)
            for kind, names in said.items()
            for part in payloads(filter(is_storable, names))
        ]

    def _keep(self, runs: Iterable[str]) -> None:
        if len(self._runs) < MOST_KEPT:
            self._runs.update(dict.fromkeys(runs))
        if self._runs:
            self._some.set()


def _told(pairs: Sequence[tuple[str, str]]) -> dict[str, Elements]:
    """Return the parameters of a statement that tells."""
    channels, parts = [arrays.name(channel) for channel, _ in pairs], [arrays.text(part) for _, part in pairs]
    return {"channels": elements(Texts, channels), "payloads": elements(Texts, parts)}


def payloads(names: Iterable[str]) -> Iterator[str]:
    """Yield ``names`` joined by newlines into texts that NOTIFY takes. Polls find what is too long for it."""
    part: list[str] = []
    size = 0
    for name in names:
        weight = len(name.encode()) + 1
        if weight > LARGEST_PAYLOAD:
            continue
        if part and size + weight > LARGEST_PAYLOAD:
            yield "\n".join(part)
            part, size = [], 0
        part.append(name)
        size += weight
    if part:
        yield "\n".join(part)
