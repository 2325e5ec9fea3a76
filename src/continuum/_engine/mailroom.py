"""Mail for resident runs: told of by hints, found by a poll, read from the inbox, handed to the run.

The rule: what is read stays in the inbox until a commit consumes it by id, so a message is remembered by its id
until then, and none is handed out twice. A run that is not here is no business of ours: POKE has armed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from continuum._core.entries import Entry, event_of_entry
from continuum._engine.clock import Clock
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident
from continuum._engine.residents import Residents
from continuum._engine.turns import Turns
from continuum._journal.commit import Mail
from continuum._journal.protocol import Journal

logger = logging.getLogger("continuum.engine")
MOST_AT_ONCE = 500  # inboxes read in one statement
# An inbox is read a page at a time. After so much of it there may be more behind.
PAGE_MAIL = 100
PAGE_BYTES = 1_000_000


class Mailroom:
    """Reads the inboxes of residents."""

    def __init__(self, journal: Journal, residents: Residents, turns: Turns, clock: Clock) -> None:
        self._journal = journal
        self._residents = residents
        self._turns = turns
        self._clock = clock
        self._wanted: dict[str, Resident] = {}
        self._some = asyncio.Event()

    def told(self, run_ids: Collection[str]) -> None:
        """Take a hint that these runs have mail."""
        by_id = self._residents.by_id
        for run_id in run_ids:
            run = by_id.get(run_id)
            if run is not None:
                self.want(run)

    def want(self, run: Resident) -> None:
        """Read a run's inbox soon."""
        if run.loading or run.reading:
            run.more_mail = True
            return
        run.more_mail = False
        self._wanted[run.run_id] = run
        self._some.set()

    def deliver(self, run: Resident, mail: Sequence[Mail]) -> None:
        """Hand a run what it does not know yet."""
        size = 0
        for message in mail:
            size += len(message.payload)
            if message.id in run.known_mail:
                continue
            run.known_mail.add(message.id)
            event = None
            if message.generation is None or message.generation == run.claimed.generation:
                event = event_of_entry(Entry(message.type, message.key, self._clock.now_us(), message.payload))
            self._turns.arrive(run, event, message.id)
        if len(mail) >= PAGE_MAIL or size >= PAGE_BYTES:
            run.more_mail = True

    def consumed(self, run: Resident, ids: tuple[int, ...]) -> None:
        """Forget messages that a commit has consumed; while the inbox is being read they may come once more."""
        if run.reading:
            run.consumed += ids
        else:
            run.known_mail.difference_update(ids)

    async def run(self) -> None:
        """Read inboxes until cancelled."""
        retrying = Retrying("reading mail")
        while True:
            await self._some.wait()
            self._some.clear()
            while self._wanted:
                batch = [self._wanted.pop(run_id) for run_id in list(self._wanted)[:MOST_AT_ONCE]]
                runs = [run for run in batch if not run.gone]
                async with retrying:
                    await self._read(runs)
                if retrying.failed:
                    for run in runs:
                        self.want(run)

    async def _read(self, runs: list[Resident]) -> None:
        for run in runs:
            run.reading = True
        try:
            found = await self._journal.mail([run.run_id for run in runs]) if runs else {}
        finally:
            for run in runs:
                run.reading = False
        for run in runs:
            if run.gone:
                continue
            try:
                self.deliver(run, found.get(run.run_id, ()))
            except Exception as error:  # noqa: BLE001 - whatever the row holds, it is one run's trouble
                run.cannot_read("a message in its inbox", error)
                self._turns.schedule(run)
            run.known_mail.difference_update(run.consumed)
            run.consumed.clear()
            if run.more_mail and run.at_rest:
                self.want(run)


class MailPoll:
    """Finds the mail that a lost hint would hide."""

    def __init__(self, journal: Journal, residents: Residents, mailroom: Mailroom) -> None:
        self._journal = journal
        self._residents = residents
        self._mailroom = mailroom

    async def once(self) -> None:
        """Look which residents have mail."""
        if len(self._residents):
            self._mailroom.told(await self._journal.residents_with_mail())
