"""Runs that this worker has leased come into memory: their journals are read, and they have their first turn.

The rule: a run is known as loading before its inbox is read, so that no hint of mail is lost in between. One that
nobody has held before has no entries and begins at once; its mail is read behind its first turn. A lease is
never dropped silently: what cannot be loaded now is tried again, what this worker has no code for is released. A
run that somebody's open transaction holds keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from continuum._core.entries import Entry, fields_of
from continuum._engine.hooks import EngineHooks
from continuum._engine.mailroom import Mailroom
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident
from continuum._engine.residents import Residents
from continuum._engine.turns import Turns
from continuum._journal.commit import Claimed, Lease, Loaded
from continuum._journal.protocol import Journal
from continuum.definitions import Definitions
from continuum.errors import DecodeError, Failure

logger = logging.getLogger("continuum.engine")
AGAIN_S = 0.2  # until a lease is asked for again that somebody's transaction keeps us from


class Loader:
    """Adopts claimed runs, and reads those anew whose copy was wrong."""

    def __init__(
        self,
        journal: Journal,
        residents: Residents,
        turns: Turns,
        mailroom: Mailroom,
        definitions: Definitions,
        hooks: EngineHooks,
    ) -> None:
        self._journal = journal
        self._residents = residents
        self._turns = turns
        self._mailroom = mailroom
        self._definitions = definitions
        self._hooks = hooks
        self.failed: Callable[[Resident, Exception], None]
        self.reread: Callable[[Claimed, Sequence[Entry]], None]
        self._again: list[tuple[Claimed, bool]] = []
        self._coming: set[str] = set()
        self._some = asyncio.Event()

    def reload(self, claimed: Claimed, doubtful: bool) -> None:
        """Read a run anew. ``doubtful``: a commit of it may have happened or not, so take its lease anew first."""
        self._again.append((claimed, doubtful))
        self._coming.add(claimed.run_id)
        self._some.set()

    def holds(self) -> set[str]:
        """Return the runs that are still to be read anew."""
        return set(self._coming)

    async def run(self) -> None:
        """Read anew what is to be read anew, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            again, self._again = self._again, []
            held: list[Claimed] = []
            await self.adopt([claimed for claimed, doubtful in again if not doubtful])
            if doubted := {claimed.run_id: claimed for claimed, doubtful in again if doubtful}:
                found, held = await self._reclaim(doubted)
                await self.adopt(found)
                if held:
                    asyncio.get_running_loop().call_later(AGAIN_S, self._ask_again, held)
            done = {claimed.run_id for claimed, _ in again} - {claimed.run_id for claimed in held}
            self._coming -= done - {claimed.run_id for claimed, _ in self._again}

    async def adopt(self, claimed: Sequence[Claimed], *, just_claimed: bool = False) -> None:
        """Take in runs whose leases are this worker's, and schedule their turns.

        Of those ``just_claimed``, the ones under their first token are new: nobody has held them before.
        """
        for run in await self.fetch(claimed, just_claimed=just_claimed):
            self.begin(run)

    async def fetch(self, claimed: Sequence[Claimed], *, just_claimed: bool = False) -> list[Resident]:
        """Read runs into memory, not yet scheduled."""
        known = [run for run in claimed if (run.workflow, run.version) in self._definitions.workflows]
        if len(known) < len(claimed):
            await self._give_back([run for run in claimed if run not in known])
        now = asyncio.get_running_loop().time()
        runs = [Resident(found, now) for found in known]
        for run in runs:
            run.is_new = just_claimed and run.claimed.token == 1 and run.run_id not in self._residents.by_id
            self._residents.add(run)
        try:
            await self._read([run for run in runs if not run.is_new])
        except BaseException:  # nobody will let them have their turn: their leases are given back
            for run in runs:
                self._residents.drop(run)
            raise
        return [run for run in runs if not run.gone]

    async def _read(self, runs: Sequence[Resident]) -> None:
        retrying = Retrying("reading journals")
        while runs:
            async with retrying:
                loaded = await self._journal.load([run.claimed for run in runs])
                for run, found in zip(runs, loaded, strict=True):
                    try:
                        self._fill(run, found)
                    except Exception as error:  # noqa: BLE001 - whatever its rows hold, it is one run's trouble
                        run.cannot_read("its journal or its inbox", error)
                return

    def begin(self, run: Resident) -> None:
        """Let a run that was fetched have its turn."""
        claimed = run.claimed
        if self._hooks.points is not None:
            try:
                self._hooks.points.at("claim.adopted", claimed.run_id)
            except Exception as error:  # noqa: BLE001 - whoever hangs things in may make the engine fail here
                self.failed(run, error)
                return
        if run.is_new:
            self._hooks.tell("continuum.run.started", run_id=claimed.run_id, workflow=claimed.workflow)
            run.more_mail = True  # it is read behind its first turn, unless that is the last
        run.loading = False
        self._turns.schedule(run)

    def _fill(self, run: Resident, loaded: Loaded) -> None:
        run.entries = loaded.entries
        run.seq = len(loaded.entries) + (1 if run.claimed.generation == 1 else 0)
        if loaded.problem is not None:
            run.problem = Failure("Undecodable", loaded.problem)
            return
        self.reread(run.claimed, loaded.entries)
        run.attempts = {entry.key: _attempt(entry) for entry in loaded.entries if entry.type == "activity_started"}
        self._mailroom.deliver(run, loaded.mail)

    async def _reclaim(self, doubted: Mapping[str, Claimed]) -> tuple[list[Claimed], list[Claimed]]:
        """Return runs whose leases were taken anew, and those for which that has to wait.

        A child that the unknown write gives birth to can be seen when that has ended, so it waits with its parent.
        """
        retrying = Retrying("taking leases anew")
        while True:
            async with retrying:
                found = await self._journal.reclaim([Lease(run.run_id, run.token) for run in doubted.values()])
                left = doubted.keys() - {run.run_id for run in found}
                if not left:
                    return found, []
                ours = {lease.run_id for lease in await self._journal.leases()}
                held = [doubted[run_id] for run_id in left if run_id in ours or _parent(run_id) in left & ours]
                return found, held

    def _ask_again(self, held: Sequence[Claimed]) -> None:
        for claimed in held:
            if claimed.run_id in self._residents.by_id:  # it was given up and claimed meanwhile
                self._coming.discard(claimed.run_id)
            else:
                self.reload(claimed, True)

    async def _give_back(self, claimed: Sequence[Claimed]) -> None:
        """Release runs of definitions that this worker does not have: a generation may change its version."""
        retrying = Retrying("releasing runs")
        while True:
            async with retrying:
                await self._journal.release([Lease(run.run_id, run.token) for run in claimed])
                return


def _parent(run_id: str) -> str:
    return run_id.rpartition("/")[0]


def _attempt(entry: Entry) -> int:
    """Return the attempt that was under way; a worker's death uses none."""
    try:
        return max(1, int(fields_of(entry).get("attempt", 1)))
    except (DecodeError, TypeError, ValueError, ArithmeticError):
        return 1
