"""The worker of an environment: the real engine on a journal in memory, and what is known of its runs.

The rule: it is stopped as a crash stops it, so that whatever a test restarts is replayed from its journal.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from continuum._core.events import SignalReceived
from continuum._engine.engine import Engine
from continuum._engine.hooks import EngineHooks
from continuum._engine.settings import WorkerSettings
from continuum._journal.description import EventRow
from continuum._journal.memory.journal import MemoryJournal
from continuum._journal.memory.store import Memory, entry_rows
from continuum._journal.memory.tables import RunRow
from continuum.descriptions import event, failure_of, plain
from continuum.testing.errors import RunParked, RunStuck
from continuum.testing.loop import SteppedLoop
from continuum.testing.passing import UnderWay
from continuum.testing.replacing import StandIns
from continuum.testing.replaying import History

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = timedelta(days=200_000)
SHOWN = 5  # runs below a stuck one that are named
SETTINGS: Mapping[str, Any] = {
    # With these nothing that the engine does by itself depends on how far the clock of runs has jumped.
    "lease": NEVER,
    "passivate_after": NEVER,
    "cache": 1_000_000,
    "claim_batch": 1_000,
}


class Serving:
    """Runs an engine on ``inner``, again and again. It is the ``World`` that ``Passing`` knows."""

    def __init__(
        self,
        memory: Memory,
        inner: SteppedLoop,
        stand_ins: StandIns,
        settings: Mapping[str, Any],
        *,
        seed: int,
        passivating: bool,
        begun_us: int,
    ) -> None:
        self.memory, self._inner, self._stand_ins = memory, inner, stand_ins
        self._settings = WorkerSettings(**{**SETTINGS, **settings})
        self._chance = random.Random(seed)
        self._passivating = passivating
        self._begun_us = begun_us
        self._workers = 0
        self._told_us = 0  # until when runs that sleep are the dispatcher's business
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        self.ended: dict[str, None] = {}  # runs that have ended lately
        self.told_parked: set[str] = set()
        self._any_parked = False
        self._any_retried = False  # so that some may sleep until they are tried again

    # --- life

    def begin(self) -> None:
        """Let another worker serve."""
        self._task = asyncio.Task(self._serve(), loop=self._inner, name="continuum worker of a test")

    def end(self) -> asyncio.Task[None] | None:
        """Let the worker stop as in a crash; return what to wait for."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _serve(self) -> None:
        async with MemoryJournal(self.memory).open() as journal:
            hooks = EngineHooks(listeners=(self._told,))
            engine = self._engine = Engine(
                journal,
                self._stand_ins.definitions,
                self._settings,
                hooks=hooks,
                chance=self._chance,
                name_worker=self._name_worker,
            )
            self._stand_ins.attend(engine)
            try:
                await engine.run()
            finally:
                self._engine = None
                engine.residents.drop_all()
                engine.timers.close()
                if journal.worker_id is not None:
                    self.memory.release(journal.worker_id, self.memory.leases(journal.worker_id))
                    self.memory.deregister(journal.worker_id)

    def _name_worker(self) -> str:
        self._workers += 1
        return f"worker-{self._workers}"

    def _told(self, name: str, fields: Mapping[str, Any]) -> None:
        if name in ("continuum.run.completed", "continuum.run.failed", "continuum.run.cancelled"):
            self.ended[fields["run_id"]] = None
        elif name == "continuum.run.parked":
            self._any_parked = True
        elif name == "continuum.run.retried":
            self._any_retried = True

    # --- what the passing of time asks

    def threads_busy(self) -> bool:
        """Tell whether an activity runs in a thread."""
        if self._engine is None:
            return False
        _, lane = self._engine.activities._slots.both  # one on the loop is known to whoever called it
        return lane.free < lane.size

    def next_due_us(self) -> int | None:
        """Return when the next thing of a run is due, in elapsed time."""
        if self._engine is None:
            return None
        due = [] if (timer_us := self._next_timer_us()) is None else [timer_us - self._begun_us]
        asleep = [run.wakeup_us for run in self._asleep() if run.wakeup_us is not None]
        asleep += [due_us for due_us, _ in self.memory.cancellations.values()]
        due += [at_us - self._begun_us for at_us in asleep if at_us > self._told_us]
        if (attempt := self._inner.next_due_us()) is not None:
            due.append(attempt)
        return min(due, default=None)

    def came_to_rest(self) -> bool:
        """Let everybody leave memory, if that is wanted."""
        engine = self._engine
        if engine is None or not self._passivating:
            return False
        return engine.cache.passivate(list(self._residents()), -1, len(engine.residents)) > 0

    def time_came(self) -> bool:
        """Have runs taken up that sleep and are due; return whether there are any."""
        before_us, self._told_us = self._told_us, self.memory.now_us()
        due = any(before_us < (run.wakeup_us or 0) <= self._told_us for run in self._asleep())
        overdue = any(before_us < due_us <= self._told_us for due_us, _ in self.memory.cancellations.values())
        if due and self._engine is not None:
            self._engine.dispatcher.told(())
        if overdue and self._engine is not None:
            self._engine.heartbeat.overdue.set()
        return due or overdue

    def trouble(self) -> BaseException | None:
        """Return what ended the engine, if it has ended by itself."""
        task = self._task
        if task is None or not task.done() or task.cancelled():
            return None
        return _only(task.exception()) or RuntimeError("the environment's worker has ended by itself")

    def verdict(self, run_id: str) -> BaseException | None:
        """Return the fault of a run that is parked, or of one below it."""
        for run in self._tree(run_id) if self._any_parked else ():
            if run.state == "parked":
                return self.parked(run)
        return None

    def parked(self, run: RunRow) -> RunParked:
        """Return the error of a parked run."""
        self.told_parked.add(run.run_id)
        failure = failure_of(run.error)
        return RunParked(run.run_id, failure.message or failure.type)

    def stuck(self, run_id: str, why: str = "waits for what can never come", hints: str = "") -> BaseException:
        """Return the error of waiting for a run, or for time (``""``), in vain; ``hints`` are lines."""
        if run_id not in self.memory.runs:
            found = [run for run in self.memory.runs.values() if run.live]
            return RunStuck(
                "",
                f"{len(found)} run{'s' * (len(found) != 1)} under way",
                self._lines("run", found) + hints,
                why=why,
            )
        below = [run for run in self._tree(run_id) if run.live and run.run_id != run_id]
        told = self._unread(run_id) + self._lines("child", below) + hints
        return RunStuck(run_id, self.waiting_for(run_id), told, why=why)

    def _lines(self, what: str, runs: list[RunRow]) -> str:
        lines = [
            f"\n  {what} {run.run_id!r} waits for {self.waiting_for(run.run_id)}{self._unread(run.run_id)}"
            for run in runs[:SHOWN]
        ]
        if len(runs) > SHOWN:
            lines.append(f"\n  and {len(runs) - SHOWN} more wait")
        return "".join(lines)

    def _unread(self, run_id: str) -> str:
        """Say which messages a run in memory has not taken; '' if none."""
        resident = None if self._engine is None else self._engine.residents.by_id.get(run_id)
        if resident is None or resident.machine is None:
            return ""
        messages = resident.machine.signals.unread()
        signals = Counter(message.name for message in messages if isinstance(message, SignalReceived))
        updates = Counter(message.name for message in messages if not isinstance(message, SignalReceived))
        told = [f"\n  unread: signal {name} ({number})" for name, number in signals.items()]
        told += [f"\n  nobody handles: update {name} ({number})" for name, number in updates.items()]
        return "".join(told)

    def under_way(self) -> list[UnderWay]:
        """Return the activities that are under way."""
        return list(self._stand_ins.attempts)

    # --- what tests ask

    def standing(self, run_id: str) -> str:
        """Say how a run stands that somebody has waited for too long, in lines of their own."""
        if run_id not in self.memory.runs or not self.memory.runs[run_id].live:
            return ""
        now = _EPOCH + timedelta(microseconds=self.memory.now_us())
        return f"\n  it waits for {self.waiting_for(run_id)}{self._unread(run_id)}\n  env.now is {now}"

    def waiting_for(self, run_id: str) -> str:
        """Say in words what a run waits for; '' if it has ended."""
        row = self.memory.runs[run_id]
        if not row.live:
            return ""
        engine = self._engine
        resident = None if engine is None else engine.residents.by_id.get(run_id)
        if resident is not None and resident.machine is not None:
            return resident.machine.waiting_for()
        if row.owner is None and (row.workflow, row.version) not in self._stand_ins.definitions.workflows:
            return (
                f"a worker with workflow {row.workflow!r} version {row.version}; "
                f"give that, or its module, to the environment"
            )
        return row.waiting_for or "a worker"

    def history(self, run_id: str) -> History:
        """Return a run as it is recorded."""
        row = self.memory.runs[run_id]
        rows = [
            EventRow(number, seq, entry.at_us, entry.type, entry.key, entry.payload)
            for number, seq, entry in entry_rows(row, None)
        ]
        return History(
            run_id=run_id,
            workflow=row.workflow,
            version=row.version,
            depth=row.depth,
            generation=row.generation,
            state=row.state,
            started_at=_EPOCH + timedelta(microseconds=row.started_us or row.created_us),
            input=plain(row.input),
            result=None if row.result is None else plain(row.result),
            events=tuple(event(found, {}) for found in rows),
            namespace=row.namespace,
            attributes=row.attributes,
            traceparent=row.trace,
        )

    # --- rows

    def _residents(self) -> Any:
        return () if self._engine is None else self._engine.residents.by_id.values()

    def _next_timer_us(self) -> int | None:
        assert self._engine is not None
        heap = self._engine.timers._heap  # its top is the next one, unless that was cancelled
        if heap and heap[0][2].timers.get(heap[0][3]) == heap[0][0]:
            return heap[0][0]
        return min((min(run.timers.values()) for run in self._residents() if run.timers), default=None)

    def _asleep(self) -> list[RunRow]:
        """Return runs that a time will wake. Without passivating only those sleep that are tried again later."""
        if not (self._passivating or self._any_retried):
            return []
        memory = self.memory
        return [run for run in memory.runs.values() if run.wakeup_us is not None and memory.is_free(run)]

    def _tree(self, run_id: str) -> list[RunRow]:
        root = self.memory.runs.get(run_id)
        found = [] if root is None else [root]
        for level in self.memory.descendants(run_id):
            found += level
        return found


def _only(error: BaseException | None) -> BaseException | None:
    """Return the one error of a group, or the group."""
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _only(parts[0]) if len(parts) == 1 else error
