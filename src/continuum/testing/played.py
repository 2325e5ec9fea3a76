"""One play of a workflow in a world of its own: workers, a client, time, and at most one death on the way.

The rule: engine, client and journal in memory are those of every other test; what is drawn by chance is drawn
alike in every play. Time passes when nobody has anything to do: through what the engine does by itself soon, then
in one jump to what runs wait for.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from continuum._engine.settings import WorkerSettings
from continuum._journal.commit import Commit
from continuum._journal.memory.store import Memory
from continuum._journal.protocol import Journal
from continuum.client import Client
from continuum.definitions import Definition, Definitions
from continuum.runs import RunHandle
from continuum.testing.mortal import Begun, Clock, InPlace, Process, WorkerProcess
from continuum.workflow import Workflow

BEGUN_US = 1_900_000_000_000_000  # 2030, in every play
RUN_ID = "run"
SOON_US = 300_000  # what the engine does by itself before time jumps
LATE_US = 2  # the engine looks at its timers a microsecond late, so that no rounding makes it early
PATIENCE_US = 120_000_000  # until what it does by itself has been waited for enough
MOST_JUMPS = 100_000
LISTEN_S = 0.05
WRITTEN = 3  # runs that are named of a commit
SETTINGS: Mapping[str, Any] = {
    "poll": 0.1,
    "passivate_after": timedelta(days=200_000),
    "cache": 1_000_000,
    "blocked_after": timedelta(days=10_000),
}
Meanwhile = Sequence[tuple[timedelta, Callable[[RunHandle[Any]], object]]]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is played. ``roles`` are the workers, each with the workflows it has; None: all."""

    flow: Workflow[Any, Any]
    input: Any
    sources: tuple[Definition, ...]
    replace: Mapping[Any, Callable[..., Any]]
    meanwhile: Meanwhile
    roles: Mapping[str, Callable[[Workflow[Any, Any]], bool]]
    lease_s: float
    stuck_after_s: float
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a worker is killed: the worker's role, and how many boundaries it passed before."""

    role: str
    number: int


@dataclass(slots=True)
class Played:
    """What came of a play."""

    memory: Memory
    passed: dict[str, int] = field(default_factory=dict[str, int])
    killed_at: str = ""  # in words; "" if nobody was
    under_way: set[Begun] = field(default_factory=set[Begun])  # at the kill
    begun: Counter[Begun] = field(default_factory=Counter[Begun])
    stuck: str = ""
    ledger: Any = None
    error: BaseException | None = None  # of the engine, or of what happens meanwhile


class Play:
    """A world. ``kill`` is where somebody dies, if anybody does."""

    def __init__(self, piece: Piece, kill: Point | None) -> None:
        self._piece, self._kill = piece, kill
        self._clock = Clock()
        self._memory = Memory(lambda: BEGUN_US + self._clock.elapsed_us)
        self.played = Played(self._memory, dict.fromkeys(piece.roles, 0))
        self._stand_ins = InPlace(Definitions(piece.sources))
        for definition, by in piece.replace.items():
            self._stand_ins.replace(definition, by)
        self._living: list[Process] = []
        self._over: list[Process] = []
        self._lives = 0
        self._jumps = 0
        self._stirred_us = 0
        self._writes = 0
        self._moments: Counter[tuple[str, str]] = Counter()
        self._actions = sorted(
            ((delay // timedelta(microseconds=1), number) for number, (delay, _) in enumerate(piece.meanwhile)),
            reverse=True,
        )
        self._acting: list[asyncio.Task[None]] = []
        self._run: RunHandle[Any] | None = None

    def run(self, ledger: Callable[[], Any] | None) -> Played:
        """Play to the end; return what came of it."""
        state = random.getstate()
        random.seed(0)
        try:
            client = Process("client", "client", self._clock, self._memory, None)
            self._living.append(client)
            client.begin(self._start(client))
            for role in self._piece.roles:
                self._launch(role)
            self._play()
            if ledger is not None:
                self.played.ledger = ledger()
            self.played.begun = Counter(begun for _, begun in self._stand_ins.begun)
            return self.played
        finally:
            for process in (*self._over, *self._living):
                process.bury()
            self._stand_ins.close()
            random.setstate(state)

    async def _start(self, process: Process) -> None:
        async with process.journal.open():
            client = Client(cast("Journal", process.journal))
            self._run = await client.start(cast("Any", self._piece.flow), self._piece.input, id=RUN_ID)
            await asyncio.get_running_loop().create_future()

    def _launch(self, role: str) -> None:
        self._lives += 1
        has = self._piece.roles[role]
        definitions = Definitions(self._piece.sources)
        flows = self._stand_ins.definitions.workflows
        definitions.workflows = {name: flow for name, flow in flows.items() if has(flow)}
        lease_s = self._piece.lease_s
        settings: dict[str, Any] = {**SETTINGS, "lease": lease_s, "heartbeat": lease_s / 5, **self._piece.settings}
        worker = WorkerProcess(
            f"{role}-{self._lives}",
            role,
            self._clock,
            self._memory,
            self,
            stand_ins=self._stand_ins,
            definitions=definitions,
            settings=WorkerSettings(**settings),
            chance=random.Random(self._lives),
        )
        self._living.append(worker)

    # --- boundaries

    def passes(self, process: Process, moment: str, groups: Any) -> bool:
        """Count a boundary; say whether the process survives it."""
        self._writes += 1
        played = self.played
        number = played.passed[process.role] = played.passed[process.role] + 1
        self._moments[process.role, moment] += 1
        if played.killed_at or Point(process.role, number) != self._kill:
            return True
        which = f"{moment} commit {self._moments[process.role, moment]} of the worker {process.role!r}"
        played.killed_at = f"{which}, which writes {_written(groups)}"
        mine = {begun for who, begun in self._stand_ins.begun if who is process}
        played.under_way = {begun for begun in mine if not self._recorded(begun)}
        self._living.remove(process)
        self._over.append(process)
        self._launch(process.role)
        return False

    def _recorded(self, begun: Begun) -> bool:
        run = self._memory.runs.get(begun.run_id)
        rows = {} if run is None else run.journal.get(begun.generation, {})
        return any(entry.key == begun.key and entry.type in _ENDS for entry in rows.values())

    # --- time

    def _play(self) -> None:
        while not self._is_over():
            writes = self._writes
            if sum(process.step() for process in list(self._living)):
                if self._writes != writes:
                    self._stirred_us = self._clock.elapsed_us
                continue
            if (trouble := self._trouble()) is not None:
                self.played.error = trouble
                return
            if self._hear():
                continue
            if not self._pass_time():
                return

    def _is_over(self) -> bool:
        runs = self._memory.runs.values()
        if any(run.state == "parked" for run in runs):
            return True
        return bool(runs) and not any(run.live for run in runs) and not self._acts()

    def _acts(self) -> bool:
        self._acting = [task for task in self._acting if not task.done() or task.exception() is not None]
        return bool(self._acting)

    def _trouble(self) -> BaseException | None:
        for process in self._living:
            if (trouble := process.trouble()) is not None:
                return trouble
        return next((task.exception() for task in self._acting if task.done()), None)

    def _hear(self) -> bool:
        """Wait really for what activities wait for outside; say whether anything came."""
        asking = [one for one in self._living if one.under_way and one.loop.waits_outside()]
        if not asking:
            return False
        due_us, patience_s = self._due_us(), self._piece.stuck_after_s
        if due_us is not None:  # a bound of an activity, perhaps: it gets the time that it really has
            patience_s = min(patience_s, (due_us - self._clock.elapsed_us) / 1_000_000)
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            for process in asking:
                process.loop.listen(LISTEN_S / len(asking))
                if process.step():
                    return True
        return False

    def _pass_time(self) -> bool:
        """Let time pass as far as something is due; False if nothing is, so that nothing can come."""
        now_us, soon_us, due_us = self._clock.elapsed_us, self._own_due_us(), self._due_us()
        waits = due_us is None and self._memory.runs[RUN_ID].live
        patience_us = PATIENCE_US if self._is_unsettled() or waits else SOON_US
        if (
            soon_us is not None
            and soon_us - self._stirred_us <= patience_us
            and (due_us is None or soon_us <= due_us)
        ):
            self._clock.elapsed_us = max(now_us, soon_us)
        elif due_us is not None and self._jumps < MOST_JUMPS:
            self._jump(due_us)
        else:
            self.played.stuck = self._stuck(bounded=due_us is not None)
            return False
        for process in self._living:
            if process.loop.fire():
                self._stirred_us = self._clock.elapsed_us
        self._act()
        return True

    def _jump(self, to_us: int) -> None:
        by_us = max(0, to_us - self._clock.elapsed_us)
        self._jumps += 1
        for process in self._living:
            process.loop.shift(by_us)
        for worker in self._memory.workers.values():
            if worker.dead_us is None:
                worker.beat_us += by_us
        self._clock.elapsed_us += by_us
        self._stirred_us = self._clock.elapsed_us
        for process in self._living:
            if isinstance(process, WorkerProcess) and process.engine is not None:
                process.loop.call_soon(process.engine.dispatcher.told, ())

    def _own_due_us(self) -> int | None:
        return min((at for at in (one.loop.own_due_us() for one in self._living) if at is not None), default=None)

    def _due_us(self) -> int | None:
        due = [at for at in (process.loop.due_us() for process in self._living) if at is not None]
        workers = [process for process in self._living if isinstance(process, WorkerProcess)]
        due += [at - BEGUN_US + LATE_US for at in (worker.timer_us() for worker in workers) if at is not None]
        now_us = self._memory.now_us()
        due += [
            run.wakeup_us - BEGUN_US
            for run in self._memory.runs.values()
            if run.live and run.wakeup_us is not None and run.wakeup_us > now_us
        ]
        if self._actions:
            due.append(self._actions[-1][0])
        return min(due, default=None)

    def _is_unsettled(self) -> bool:
        """Tell whether a death is not yet noticed, or runs wait that somebody could have."""
        names = {process.name for process in self._over}
        workers = self._memory.workers.values()
        if any(row.dead_us is None and row.worker_id.rpartition(".")[0] in names for row in workers):
            return True
        now_us, flows = self._memory.now_us(), self._stand_ins.definitions.workflows
        return any(
            run.live
            and run.state != "parked"
            and (run.workflow, run.version) in flows
            and (run.suspected or (run.owner is None and run.wakeup_us is not None and run.wakeup_us <= now_us))
            for run in self._memory.runs.values()
        )

    def _act(self) -> None:
        """Begin what is to happen meanwhile."""
        while self._actions and self._actions[-1][0] <= self._clock.elapsed_us:
            _, number = self._actions.pop()
            action = self._piece.meanwhile[number][1]
            self._acting.append(self._living[0].loop.create_task(self._done(action)))

    async def _done(self, action: Callable[[RunHandle[Any]], object]) -> None:
        assert self._run is not None
        value = action(self._run)
        if inspect.isawaitable(value):
            await value

    def _stuck(self, *, bounded: bool) -> str:
        waiting = [
            f"{run.run_id!r} ({run.state}) waits for {self._waiting_for(run.run_id)}"
            for run in self._memory.runs.values()
            if run.live
        ]
        why = f"has not ended within {self._jumps:,} jumps of time" if bounded else "nothing can come"
        return f"{why}; {'; '.join(waiting)}"

    def _waiting_for(self, run_id: str) -> str:
        for process in self._living:
            engine = process.engine if isinstance(process, WorkerProcess) else None
            resident = None if engine is None else engine.residents.by_id.get(run_id)
            if resident is not None and resident.machine is not None:
                return resident.machine.waiting_for()
        run = self._memory.runs[run_id]
        if (run.workflow, run.version) not in self._stand_ins.definitions.workflows:
            return f"a worker with workflow {run.workflow!r} version {run.version}; name it in sources="
        return run.waiting_for or "a worker"


_ENDS = ("activity_completed", "activity_failed")


def _written(groups: Collection[Collection[Commit]]) -> str:
    commits = [commit for group in groups for commit in group]
    parts: list[str] = []
    for commit in commits[:WRITTEN]:
        what = [f"{entry.type} {entry.key}".rstrip() for entry in commit.entries[:WRITTEN]]
        what += ["…"] * (len(commit.entries) > WRITTEN)
        status = type(commit.status).__name__.lower()
        what += [status] * (status != "keep")
        parts.append(f"{commit.run_id}: {', '.join(what) or 'nothing'}")
    more = len(commits) - WRITTEN
    return "; ".join(parts) + (f"; and {more} more runs" if more > 0 else "")
