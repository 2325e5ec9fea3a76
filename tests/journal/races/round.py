"""One round of a storm: what its sides do, and what they are told of it.

The rule: whatever an outcome says is written down here, so that the tables can be compared with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from continuum._core.effects import Message
from continuum._core.entries import Entry
from continuum._journal.commit import (
    KEEP,
    Claimed,
    Commit,
    Committed,
    Continue,
    Fenced,
    Lease,
    Outcome,
    Passivate,
    Rejected,
    Status,
    Unknown,
)
from continuum._journal.statements import Statement
from continuum.errors import RunNotFound
from tests.journal.proxy import Proxy
from tests.journal.races.sides import Session, Worker, entry, message, session


@dataclass(slots=True)
class Storm:
    """Workers in a storm, what was counted, and what went wrong."""

    url: str
    seed: int
    team: list[Worker]
    poked: bool  # else every POKE is dropped, and with it every NOTIFY; two workers sweep all the time
    tally: Counter[str] = field(default_factory=Counter[str])
    problems: list[str] = field(default_factory=list[str])
    numbers: int = 0
    proxy: Proxy | None = None  # in front of Postgres, if connections are to break

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def by_name(self, name: str) -> Worker:
        return next(worker for worker in self.team if worker.name == name)


@dataclass(slots=True)
class Round:
    """One round of one lane: what its sides did, and what they were told of it."""

    storm: Storm
    prefix: str
    chance: Random
    db: Session  # looks, and holds rows
    raw: Session  # writes as workers that are no longer in the table of workers
    sent: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    maybe: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])  # messages of tasks
    markers: dict[str, bool] = field(default_factory=dict[str, bool])  # of commits: whether each is said to stand
    claims: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    cancelled: dict[str, int] = field(default_factory=dict[str, int])  # roots, and entries there just after
    bad: set[str] = field(default_factory=set[str])  # runs whose commits Postgres must refuse
    busy: dict[str, asyncio.Lock] = field(default_factory=dict[str, asyncio.Lock])

    @property
    def flow(self) -> tuple[str, int]:
        return (f"flow {self.prefix}", 1)

    def worker(self, name: str | None = None) -> Worker:
        return self.storm.by_name(name) if name else self.chance.choice(self.storm.team)

    def problem(self, text: str) -> None:
        self.storm.problems.append(f"{self.prefix}: {text}")

    async def jitter(self, most_ms: float = 3) -> None:
        await asyncio.sleep(self.chance.random() * most_ms / 1000 if self.chance.random() < 0.8 else 0)

    # --- what sides do

    async def put(
        self, run_id: str, owner: str | None = None, state: str = "", *, due: bool = False, closes: bool = False
    ) -> str:
        """Insert a run of this round; return its id."""
        sql = """insert into continuum.runs
                   (run_id, depth, workflow, version, input, state, lease_owner, lease_token,
                    next_wakeup_at, started_at, on_parent_close)
                 values ($1, $2, $6, 1, 'null', $3, $4, 1, case when $5 then now() end, now(),
                         case when $7 then 'cancel' end)"""
        state = state or ("running" if owner else "suspended")
        run_id = self.prefix + run_id
        await self.db.rows(sql, run_id, run_id.count("/"), state, owner, due, self.flow[0], closes)
        return run_id

    async def commit(self, by: Worker | str, *commits: Commit) -> tuple[Outcome, ...]:
        """Write commits, each with an entry that marks it; keep what was answered.

        ``by`` is a worker, or the name of one that is not in the table.
        """
        marked: list[Commit] = []
        for one in commits:
            mark = f"#{self.storm.number()}:{one.token}"
            self.markers[mark] = False
            marked.append(one._replace(entries=(entry(mark), *one.entries)))
        if isinstance(by, Worker):
            outcomes = await by.journal.commit(*marked)
        else:
            outcomes = await self._commit_raw(by, *marked)
        for one, outcome in zip(marked, outcomes, strict=True):
            if isinstance(outcome, Unknown) and isinstance(by, Worker) and self.storm.proxy is not None:
                outcome = await self._found_out(by, one)
                self.storm.tally["Unknown"] += 1
            self._answered(one, outcome)
        return outcomes

    async def _commit_raw(self, name: str, *commits: Commit) -> tuple[Outcome, ...]:
        async with self.busy.setdefault("raw", asyncio.Lock()):
            await self.raw.begin()
            try:
                result = await self.raw.flush(name, *commits)
                await self.jitter()
            finally:
                await self.raw.commit()
            passivated = [one.run_id for one in commits if isinstance(one.status, Passivate)]
            woken = [*passivated, *result.far, *result.near]
            if self.storm.poked and woken:
                rows = await self.raw.run("poke", run_ids=woken, channels=[], payloads=[], ready_channel="c")
                for _ in range(100):
                    if not rows[0][0]:
                        break
                    await asyncio.sleep(0.005)
                    rows = await self.raw.run(
                        "poke", run_ids=rows[0][0], channels=[], payloads=[], ready_channel="c"
                    )
            return tuple(result.outcome(one) for one in commits)

    def _answered(self, one: Commit, outcome: Outcome) -> None:
        self.storm.tally[type(outcome).__name__] += 1
        if isinstance(outcome, Committed):
            self.markers[one.entries[0].key] = True
            for said in one.messages:
                if said.run_id not in outcome.undelivered:
                    self.sent[said.run_id, said.key] = self.sent.get((said.run_id, said.key), 0) + 1
        elif isinstance(outcome, Rejected) != (one.run_id in self.bad) or isinstance(outcome, Unknown):
            self.problem(f"{one.run_id} was answered {outcome}")

    async def _found_out(self, worker: Worker, one: Commit) -> Outcome:
        """Take the run anew, then read whether the commit stands. That is final: ``check`` looks again."""
        await worker.journal.reclaim([Lease(one.run_id, one.token)])
        rows = await self.db.rows(_MARKS, one.run_id, one.entries[0].key)
        self.storm.tally["Unknown that stand"] += len(rows)
        return Committed(0) if rows else Fenced()

    async def token(self, run_id: str) -> int:
        rows = await self.worker().journal._lanes.read(_TOKEN, {"run_id": run_id})
        return int(rows[0][0])

    def says(self, sender: str, receiver: str) -> Message:
        """A message whose key tells its sender and its place among the sender's."""
        return message(receiver, f"{sender}>{self.storm.number():012}")

    async def serve(
        self, by: Worker | str, run_id: str, token: int, status: Status = KEEP, **rest: Any
    ) -> Outcome:
        """What the holder of a lease does: read journal and mail, and record the mail in one commit."""
        async with self.busy.setdefault(run_id, asyncio.Lock()):
            journal = by.journal if isinstance(by, Worker) else self.worker().journal
            found = await self.db_generation(run_id)
            run = Claimed(run_id, token, found, self.flow[0], 1, 0, 0, b"null", False, 0, None)
            (loaded,) = await journal.load([run])
            if loaded.problem and await self.db_generation(run_id) == found:
                self.problem(f"{run_id} does not load: {loaded.problem}")
            seq = len(loaded.entries) + (found == 1)
            entries = tuple(Entry(mail.type, mail.key, 1, mail.payload) for mail in loaded.mail)
            consumed = tuple(mail.id for mail in loaded.mail)
            commit = Commit(run_id, token, found, seq, entries, consumed, status=status, **rest)
            await self.jitter(1)
            (outcome,) = await self.commit(by, commit)
            return outcome

    async def claim(self, worker: Worker, *, serve: bool = True) -> list[Claimed]:
        """Claim what is due of this round, and serve it."""
        runs = await worker.journal.claim([self.flow], 100)
        for run in runs:
            self.claims[run.run_id, run.token] += 1
        for run in runs if serve else []:
            await self.jitter(1)
            await self.serve(worker, run.run_id, run.token)
        return runs

    async def cancel(self, run_id: str) -> None:
        await self.jitter(5)
        try:
            done = await self.worker().journal.cancel(run_id, "")
        except RunNotFound:
            return
        if done.runs:
            self.cancelled[run_id] = await self.entries_below(run_id)
            parent, _, key = run_id.rpartition("/")
            self.maybe.add((parent, key))

    async def stop(self, run_id: str) -> None:
        """Ask a run to stop, with no time to do so, and cancel what is overdue, as workers' chores do."""
        await self.jitter(5)
        worker = self.worker()
        self.maybe.add((run_id, ""))
        await worker.journal.request_cancel(run_id, "", 0)
        await self.jitter(1)
        await asyncio.gather(worker.journal.cancel_overdue(), self.worker().journal.cancel_overdue())
        self.maybe.add((run_id.rpartition("/")[0], run_id.rpartition("/")[2]))

    async def hold(self, run_id: str) -> None:
        """Hold a row for a moment, as a caller's transaction does."""
        if self.chance.random() < 0.5:
            return
        await self.jitter()
        async with session(self.storm.url) as holding:
            await holding.begin()
            await holding.hold(run_id)
            await self.jitter()
            await holding.roll_back()

    # --- what the tables say

    async def db_generation(self, run_id: str) -> int:
        rows = await self.worker().journal._lanes.read(_GENERATION, {"run_id": run_id})
        return int(rows[0][0]) if rows else 1

    async def entries_below(self, run_id: str) -> int:
        rows = await self.worker().journal._lanes.read(_ENTRIES, {"run_id": run_id})
        return int(rows[0][0])


_GENERATION = Statement(b"select generation from continuum.runs where run_id = $1", ("run_id",))
_TOKEN = Statement(b"select lease_token from continuum.runs where run_id = $1", ("run_id",))
_MARKS = "select 1 from continuum.events where run_id = $1 and key = $2"
_ENTRIES = Statement(
    b"select count(*) from continuum.events where run_id = $1 or (run_id > $1 || '/' and run_id < $1 || '0')",
    ("run_id",),
)


def next_generation() -> Continue:
    return Continue(1, (entry("", kind="run_started"),))


def next_attempt() -> Continue:
    """A next generation that is due at once, and begins with whoever claims it."""
    return Continue(1, (entry("", kind="run_started"),), 1, "another attempt")
