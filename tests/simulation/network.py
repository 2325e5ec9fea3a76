"""The way between simulated processes and their journal: what is sent takes its time, is lost, or never begins.

The rule: every operation has a number, and the fault of that number befalls it. Every answer and every hint is an
event of the cluster's, so that what a process hears depends on the seed alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from continuum._journal.memory.journal import Wire
from continuum._journal.memory.store import Listener
from continuum._journal.memory.writer import NotSent
from continuum.errors import DatabaseUnreachable
from tests.simulation.processes import Process, WorkerProcess
from tests.simulation.programs import Fault

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

T = TypeVar("T")

WAYS_S = (0.0002, 0.0005, 0.001, 0.004)
"""How long it takes there, give or take a half."""
BACK_S = 0.0005
REFUSED_S = 0.001  # until who could not send knows
UNREACHABLE_S = 0.05  # until who calls a journal that is away knows
LATE_HINTS = 0.1  # of all
LATEST_HINT_S = 2.0
ENDING = {"flush", "large", "cancel"}
"""Operations in which runs can end."""
UNSAFE = {"claim", "poke", "beat", "load", "mail", "ends", "leases", "residents_with_mail", "definitions"}
"""Operations that wait for no disk."""
UNTOLD = {"beat", "residents_with_mail", "leases"}
"""Operations that no transcript speaks of, unless something befalls them."""
LONGEST_TOLD = 400


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on its way. ``answer`` is the future its process waits for."""

    process: Process
    what: str
    call: Callable[..., Any]
    values: tuple[Any, ...]
    number: int
    fault: Fault | None
    answer: asyncio.Future[Any]
    sent_at: float

    @property
    def kind(self) -> str:
        """What befalls it."""
        return "" if self.fault is None else self.fault.kind

    @property
    def amount(self) -> float:
        """By how much."""
        return 0.0 if self.fault is None else self.fault.amount


class Network:
    """The network of one cluster. ``operations`` counts what was sent, ``struck`` the faults that came true."""

    def __init__(self, cluster: Cluster) -> None:
        faults = cluster.scenario.faults
        self.operations = 0
        self.epoch = 1
        self.struck: Counter[str] = Counter()
        self._cluster = cluster
        self._faults = {fault.operation: fault for fault in faults if fault.kind != "kill at point"}
        self._deaf = any(fault.kind == "deaf" for fault in faults)
        self._down_from = self._down_until = 0.0

    def wire(self, process: Process) -> Wire:
        """Return the way from a process to the journal."""

        return _Wire(self, process)

    def send(
        self, process: Process, what: str, call: Callable[..., Any], values: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        cluster, chance = self._cluster, self._cluster.random
        self.operations += 1
        number = self.operations
        fault = self._faults.get(number)
        sent = Operation(process, what, call, values, number, fault, process.loop.create_future(), cluster.now)
        if fault is not None:
            self.struck[fault.kind] += 1
            cluster.say(f"operation {number}, {what} of {process.name}: {fault.kind} {fault.amount:g}")
            self._befall(fault, process)
        delay = chance.choice(WAYS_S) * chance.uniform(0.5, 1.5)
        if sent.kind == "lost, and late":
            self._answer(sent, None, DatabaseUnreachable("the answer was lost"), delay)
        late = sent.amount if sent.kind in ("late", "lost, and late") else 0.0
        cluster.after(delay + late, lambda: self._arrive(sent))
        return sent.answer

    def _arrive(self, sent: Operation) -> None:
        if sent.kind == "unsent" or (sent.kind == "kill" and sent.amount < 0.5):
            self._answer(sent, None, NotSent("refused"), REFUSED_S)
        elif sent.sent_at < self._down_until and self._cluster.now >= self._down_from:  # its connection broke
            lost = DatabaseUnreachable("went away") if sent.number % 2 else NotSent("no connection")
            self._answer(sent, None, lost, UNREACHABLE_S)
        else:
            self._act(sent)

    def _act(self, sent: Operation) -> None:
        cluster, memory = self._cluster, self._cluster.memory
        result: Any = None
        error: Exception | None = None
        try:
            result = sent.call(*sent.values)
        except ValueError as refused:
            error = refused
        memory.costs[sent.what] += 1
        if sent.what in ENDING:
            memory.note_ends()
        if sent.what not in UNSAFE:
            memory.durable()
        if cluster.tells and sent.what not in UNTOLD:
            cluster.say(f"{sent.process.name} {sent.what} {_short(sent.values)} -> {_short(result)}")
        delay = BACK_S * cluster.random.uniform(0.5, 1.5) + (sent.amount if sent.kind == "slow" else 0.0)
        if sent.kind == "lost":
            result, error = None, DatabaseUnreachable("the answer was lost")
        if cluster.now < self._down_until and error is None:
            result, error = None, DatabaseUnreachable("went away")
        self._answer(sent, result, error, delay)

    def _answer(self, sent: Operation, result: Any, error: Exception | None, delay_s: float) -> None:
        def tell() -> None:
            if sent.answer.done():
                return
            if error is not None:
                sent.answer.set_exception(error)
            else:
                sent.answer.set_result(result)

        def arrive() -> None:
            if sent.process.alive:
                sent.process.loop.call_soon(tell)

        self._cluster.after(delay_s, arrive)

    # --- hints

    def listening(self, process: Process, heard: Listener) -> Listener:
        """Return a listener of a process that is told later, or never."""
        cluster = self._cluster

        def told(kind: str, names: Collection[str]) -> None:
            if not process.alive or cluster.now < self._down_until or (self._deaf and kind != "gap"):
                return
            late = cluster.random.random() >= 1 - LATE_HINTS
            delay = cluster.random.uniform(0, LATEST_HINT_S) if late else BACK_S
            if kind == "gap":  # it is the new connection itself
                delay = 0.0
            cluster.after(delay, lambda: heard(kind, names) if process.alive else None)

        return told

    # --- what goes wrong

    def _befall(self, fault: Fault, process: Process) -> None:
        cluster = self._cluster
        match fault.kind:
            case "kill":
                cluster.kill(process)
            case "freeze":
                if isinstance(process, WorkerProcess):
                    process.frozen_until = cluster.now + fault.amount
            case "outage":
                self._go_down(fault.amount)
            case "crash":
                self._go_down(fault.amount)
                cluster.say(f"claims lost: {cluster.memory.crash()}")
            case "lock":
                self._lock(fault)
            case "clock":
                cluster.jumped_s += fault.amount
                cluster.memory.away_us += int(min(0.0, fault.amount) * 1_000_000)  # it was as long ago as before
            case _:
                pass

    def _go_down(self, for_s: float) -> None:
        def back() -> None:
            self.epoch += 1
            for heard in list(self._cluster.memory.listeners):
                heard("gap", ())

        cluster = self._cluster
        if cluster.now >= self._down_until:
            self._down_from = cluster.now
        self._down_until = max(self._down_until, cluster.now + for_s)
        cluster.memory.away_us = cluster.memory.now_us() + int((self._down_until - cluster.now) * 1_000_000)
        cluster.after(for_s, back)

    def _lock(self, fault: Fault) -> None:
        memory = self._cluster.memory
        live = [run.run_id for run in memory.runs.values() if run.live]
        if live:
            run_id = live[fault.operation % len(live)]
            memory.locked.add(run_id)
            self._cluster.after(fault.amount, lambda: memory.locked.discard(run_id))


class _Wire:
    """The way of one process. Every outage breaks its connection, and afterwards it has another one."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network, self._process = network, process

    @property
    def epoch(self) -> int:
        return self._network.epoch

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        answer: T = await self._network.send(self._process, what, operation, values)
        return answer


class Listeners(list[Listener]):
    """A journal's listeners that hear over the network. Whose callback runs when one is added is its process."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster
        self._as_given: dict[int, Listener] = {}

    def append(self, heard: Listener) -> None:
        process = self._cluster.process
        assert process is not None
        told = self._as_given[id(heard)] = self._cluster.network.listening(process, heard)
        super().append(told)

    def remove(self, heard: Listener) -> None:
        super().remove(self._as_given.pop(id(heard)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]}…"
