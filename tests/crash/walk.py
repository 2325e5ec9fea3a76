"""A walk over every commit boundary of a flow: at each the worker is killed, and what comes of it is compared.

The rule: first the flow is played without a kill, and that is what every other play must come to: result, journals
of all runs, ledger. A boundary is a point of the journal and the number of its pass. Batching may vary, so one
that was seen and does not come is tried again, which the tally tells if it is in vain, and the walk is over when
none beyond those seen comes.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg

import continuum
from tests.processes.harness import Site, WorkerProcess, until

BOUNDARIES = "flush.begin", "flush.committed", "large.begin", "large.locked", "large.written", "large.committed"
GATHER = {"point": "flush.committed", "do": "gather"}
ABOVE, BELOW = "tests.crash.parents", "tests.crash.children"
STEPS = "tests.processes.flows:step", "tests.processes.flows:hold"
QUICK = {"lease": 0.4, "heartbeat": 0.1, "poll": 0.1}
STEADY = {"lease": 20, "heartbeat": 0.2, "poll": 0.1}  # of who is not to die: a slow machine must not kill it
TRIES, REPLAYS = 20, 10
NO_DECISION = frozenset(("activity_started",))
LEFT_OUT = frozenset(("traceback", "child_deadlines"))

Boundary = tuple[str, int]
"""A point of the journal, and which of its passes."""
Meanwhile = Callable[[Site, continuum.RunHandle[Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Shape:
    """A flow, how long it is to go on, and what happens to it meanwhile."""

    name: str
    flow: Any
    meanwhile: Meanwhile | None = None
    runs: int = 1  # of the tree


@dataclass(frozen=True, slots=True)
class Place:
    """Which workers there are: what the one has that is killed, and the other, if there is another."""

    name: str
    victim: tuple[str, ...]
    other: tuple[str, ...] = ()


PLACES = {
    "one worker": Place("one worker", (ABOVE, BELOW, *STEPS)),
    "the parent's worker": Place("the parent's worker", (ABOVE, *STEPS), (BELOW, *STEPS)),
    "the child's worker": Place("the child's worker", (BELOW, *STEPS), (ABOVE, *STEPS)),
}


@dataclass(slots=True)
class Seen:
    """What came of a play, in a form that is the same for each."""

    runs: list[str]
    labels: list[str]
    passed: Counter[str] = field(default_factory=Counter[str])
    struck: str = ""


@dataclass(slots=True)
class Tally:
    """What a walk has struck."""

    shape: str
    place: str
    killed: set[Boundary] = field(default_factory=set[Boundary])
    seldom: set[Boundary] = field(default_factory=set[Boundary])  # seen, and did not come again
    again: int = 0  # plays in which a healthy worker was taken for dead

    def __str__(self) -> str:
        points = Counter(point for point, _ in self.killed)
        boundaries = len(self.killed) + len(self.seldom)
        told = f"{self.shape}, {self.place}: {boundaries} boundaries, {len(self.killed)} kills, all equal"
        told += f" ({', '.join(f'{point} {times}' for point, times in sorted(points.items()))})"
        told += f"; {len(self.seldom)} did not come again" if self.seldom else ""
        return told + (f"; {self.again} played again" if self.again else "")


class Disturbed(Exception):
    """A worker that was not to die was taken for dead: the machine was too slow."""


class Lane:
    """Plays one after the other, on a database of their own."""

    def __init__(self, site: Site, shape: Shape, place: Place, tally: Tally, numbers: count[int]) -> None:
        self._site, self._shape, self._place, self._tally = site, shape, place, tally
        self._numbers = numbers
        self._other: WorkerProcess | None = None
        self._connection = psycopg.connect(site.url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    async def open(self) -> None:
        if self._place.other:
            self._other = self._site.worker(*self._place.other, crashes=[GATHER], **STEADY)
            await self._other.ready()

    async def quiet(self) -> Seen:
        """Play without a kill, and count."""
        return await self._played({"point": "|".join(BOUNDARIES), "do": "count"})

    async def killed_at(self, at: Boundary) -> Seen:
        """Play with the worker killed when it passes a boundary."""
        for _ in range(REPLAYS):
            try:
                return await self._played({"point": at[0], "after": at[1] - 1})
            except Disturbed:
                self._tally.again += 1
        raise AssertionError("this machine is too slow: healthy workers are taken for dead")

    async def _played(self, order: dict[str, Any]) -> Seen:
        site = self._site
        run_id = f"r{next(self._numbers)}x"
        victim = site.worker(*self._place.victim, crashes=[GATHER, order], **QUICK)
        await victim.ready()
        run = await site.client.start(self._shape.flow, run_id, id=run_id)
        meanwhile = asyncio.create_task(self._meanwhile(run))
        heir: WorkerProcess | None = None
        recorded: set[str] = set()
        try:
            await until(lambda: victim.code is not None or self._over(run_id), f"{run_id} ends, or its worker")
            if victim.code is not None:
                assert victim.code == -9, victim.log()
                recorded = self._recorded(run_id)
                heir = site.worker(*self._place.victim, **QUICK)  # its own lease has to pass before it judges
                await until(lambda: self._over(run_id), f"{run_id} ends")
            await meanwhile
        finally:
            meanwhile.cancel()
        seen = self._seen(run_id)
        seen.passed = Counter(victim.said("passed"))
        seen.struck = "".join(victim.said("struck"))
        for worker in (victim, heir):
            if worker is not None and worker.code is None:
                await worker.die()
        if any(worker is not None and worker.said("reborn") for worker in (victim, heir, self._other)):
            raise Disturbed
        self._check_ledger(run_id, victim, recorded)
        return seen

    async def _meanwhile(self, run: continuum.RunHandle[Any]) -> None:
        if self._shape.meanwhile is not None:
            await self._shape.meanwhile(self._site, run)

    # --- the books

    def _rows(self, statement: str, run_id: str) -> list[tuple[Any, ...]]:
        """Return what a statement finds of a run and of those below it."""
        return self._connection.execute(statement.encode(), (run_id, f"{run_id}/%")).fetchall()

    def _over(self, run_id: str) -> bool:
        """Tell whether the run and all below it have ended."""
        found = dict(self._rows(_STATES, run_id))
        return found.get("live", 0) == 0 and found.get("over", 0) >= self._shape.runs

    def _recorded(self, run_id: str) -> set[str]:
        return {str(row[0]) for row in self._rows(_RECORDED, run_id)}

    def _check_ledger(self, run_id: str, victim: WorkerProcess, recorded: set[str]) -> None:
        """See that what is recorded ran, and that only what was under way at the kill ran again."""
        lines = [line for line in self._site.ledger() if _is_of(run_id, line.label)]
        did = Counter(line.label for line in lines)
        assert self._recorded(run_id) <= {label.partition("@")[0] for label in did}
        for label, times in did.items():
            if times == 1:
                continue
            first = next(line.pid for line in lines if line.label == label)
            assert victim.code == -9, f"{label} ran {times} times, and nobody was killed"
            assert first == victim.pid, f"{label} ran again, and not since its worker was killed"
            assert times == 2, f"{label} ran {times} times"
            assert label.partition("@")[0] not in recorded, f"{label} ran again, though it was recorded"

    def _seen(self, run_id: str) -> Seen:
        lines = [_line("run", row, run_id) for row in self._rows(_RUNS, run_id)]
        lines += sorted(
            _line("entry", row, run_id) for row in self._rows(_ENTRIES, run_id) if row[2] not in NO_DECISION
        )
        labels = {line.label for line in self._site.ledger() if _is_of(run_id, line.label)}
        return Seen(lines, sorted(label.replace(run_id, "RUN") for label in labels))


def _is_of(run_id: str, label: str) -> bool:
    return label.startswith((f"{run_id}#", f"{run_id}/"))


def _line(what: str, row: Sequence[Any], run_id: str) -> str:
    text = json.dumps([_without(value) for value in row], sort_keys=True, default=str)
    return f"{what} {text.replace(run_id, 'RUN')}"


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(part) for name, part in value.items() if name not in LEFT_OUT}
    return [_without(part) for part in value] if isinstance(value, list) else value


class Walk:
    """Which boundaries are to be struck, and were. The lanes take them one after the other."""

    def __init__(self, tally: Tally, wanted: Seen, passed: Counter[str], every: int) -> None:
        self._tally, self._wanted, self._every = tally, wanted, every
        self._most = passed
        self._misses: Counter[Boundary] = Counter()
        known = [(point, number) for point in sorted(passed) for number in range(1, passed[point] + 1)]
        self._asked = set(known)
        self._waiting = deque(known[::every])
        self.problems: list[str] = []

    async def go(self, lane: Lane) -> None:
        """Let a lane strike until nothing is left."""
        while self._waiting:
            at = self._waiting.popleft()
            seen = await lane.killed_at(at)
            self.problems += _compared(self._wanted, seen, at)
            if seen.struck:
                self._struck(at)
            elif at[1] <= self._most[at[0]]:  # it was seen, so it comes again
                self._misses[at] += 1
                if self._misses[at] < TRIES:
                    self._waiting.append(at)
                else:
                    self._tally.seldom.add(at)
            else:
                self._asked.remove(at)  # perhaps it is seen later

    def _struck(self, at: Boundary) -> None:
        """Note it; whoever got as far on one side of a commit gets as far on the other, and perhaps farther."""
        point, number = at
        self._tally.killed.add(at)
        if self._every > 1:
            return
        for other in BOUNDARIES:
            if other.partition(".")[0] == point.partition(".")[0]:
                self._most[other] = max(self._most[other], number)
                self._ask((other, number))
        self._ask((point, number + 1))

    def _ask(self, at: Boundary) -> None:
        if at not in self._asked:
            self._asked.add(at)
            self._waiting.append(at)


async def walk(
    lanes: Sequence[Lane], tally: Tally, *, every: int = 1, says: Callable[[str], None] = lambda _: None
) -> None:
    """Kill at every boundary, or at every so manieth of those seen without a kill, all lanes at the same time."""
    seen, problems = await _expected(lanes)
    passed: Counter[str] = Counter()
    for one in seen:
        passed |= one.passed
    assert passed, "nothing was ever committed"
    made = Walk(tally, seen[0], passed, every)
    async with asyncio.TaskGroup() as going:
        for lane in lanes:
            going.create_task(made.go(lane))
    problems += made.problems
    assert not problems, "\n\n".join(problems[:3])
    says(str(tally))


async def _expected(lanes: Sequence[Lane]) -> tuple[list[Seen], list[str]]:
    """Play without a kill on each lane; return what came of it."""
    for lane in lanes:
        await lane.open()
    wanted = list(await asyncio.gather(*(lane.quiet() for lane in lanes)))
    problems = [problem for seen in wanted[1:] for problem in _compared(wanted[0], seen, ("another play", 0))]
    return wanted, problems


def _compared(wanted: Seen, seen: Seen, at: Boundary) -> list[str]:
    before, after = [*wanted.runs, *wanted.labels], [*seen.runs, *seen.labels]
    if before == after:
        return []
    return ["\n".join(difflib.unified_diff(before, after, "undisturbed", f"killed at {at}", lineterm=""))]


def wanted_share() -> str:
    """Return how much of the walk is asked for: "all", "long" or "short"."""
    if os.environ.get("CONTINUUM_CRASH"):
        return "all"
    return "long" if os.environ.get("CONTINUUM_LONG") else "short"


_STATES = """
select case when state in ('completed', 'failed', 'cancelled') then 'over' else 'live' end, count(*)
from continuum.runs where run_id = %s or run_id like %s group by 1"""
_RECORDED = """
select payload->'input'->>'label' from continuum.events
where type in ('activity_completed', 'activity_failed') and (run_id = %s or run_id like %s)"""
_RUNS = """
select run_id, workflow, generation, state, result, error from continuum.runs
where run_id = %s or run_id like %s order by run_id"""
_ENTRIES = """
select run_id, generation, type, key, payload from continuum.events where run_id = %s or run_id like %s"""
