"""A simulated cluster: processes, one clock, the journal, and who may go on next.

The rule: everything that happens is drawn from the scenario's seed, so that it happens again. Time passes only
when nobody has anything to do.
"""

from __future__ import annotations

import heapq
import random as global_random
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from random import Random

from continuum.definitions import Definitions
from tests.simulation.blame import blame
from tests.simulation.checker import Broken, Watched
from tests.simulation.network import Listeners, Network
from tests.simulation.outside import Outside
from tests.simulation.processes import Killed, Process, WorkerProcess
from tests.simulation.programs import DEFINITIONS, Scenario, install

EPOCH_S = 1_700_000_000
LONGEST_S = 400_000.0
LONGEST_STILL_S = 4_500.0  # without a commit: no run waits for so long
MOST_STEPS = 3_000_000
MOST_AT_ONCE = 50_000  # steps without any time passing
FIRST_WITHIN_S = 0.1  # until the first workers are there
AGAIN_AFTER_S = (0.05, 8)  # until one is started in the place of one that is gone
COST, COST_OF_A_FAULT, COST_TO_BEGIN = 4, 40, 100
BURST = 40  # callbacks of one process before others may have theirs


class Cluster:
    """One scenario being played. ``says`` gets a line for each thing that happens."""

    def __init__(self, scenario: Scenario, says: Callable[[str], None] | None = None) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.random = Random(f"cluster {scenario.seed}")
        self.definitions = Definitions(DEFINITIONS)
        self.definitions.prepare()
        self.jumped_s = 0.0
        self.memory = Watched(lambda: int((EPOCH_S + self.now + self.jumped_s) * 1_000_000), self.definitions)
        self.network = Network(self)
        self.memory.listeners = Listeners(self)
        self.process: Process | None = None  # whose callback runs
        self.living: list[Process] = []
        self._over: list[Process] = []
        self.points = 0
        self._says = says
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sent = 0
        self._deadly = {fault.operation for fault in scenario.faults if fault.kind == "kill at point"}
        self._workers = 0
        self._stopping = False
        self.calls: Counter[tuple[str, str]] = Counter()
        self._called: list[tuple[str, str]] = []  # activities that began in the callback that runs

    @property
    def tells(self) -> bool:
        """Whether anybody wants to know what happens."""
        return self._says is not None

    def say(self, text: str) -> None:
        """Note what happens."""
        if self._says is not None:
            self._says(f"{self.now:12.6f}  {text}")

    # --- the play

    def run(self) -> Outside:
        """Play the scenario to its end and return what was seen from outside. Raises ``Broken``."""
        before, state = install(self), global_random.getstate()
        global_random.seed(self.scenario.seed)
        try:
            outside = Outside(self, self.scenario)
            self.living.append(outside)
            for number in range(len(self.scenario.workers)):
                self.after(self.random.uniform(0, FIRST_WITHIN_S), partial(self.launch, number))
            self._play(lambda: outside.over and not any(run.live for run in self.memory.runs.values()))
            self._stopping = True
            self.say("everything has ended; the workers stop")
            for process in self.living:
                if isinstance(process, WorkerProcess):
                    process.drain()
            self._play(lambda: not self.living)
            self.memory.check_end()
            outside.check(self.memory)
            self._check_costs()
            return outside
        finally:
            install(before)
            for process in (*self._over, *self.living):
                process.bury()
            global_random.setstate(state)

    def _play(self, over: Callable[[], bool]) -> None:
        steps, since, began = 0, self.now, 0
        commits, written_s = 0, self.now
        while not over():
            steps += 1
            if self.now != since:
                since, began = self.now, steps
            if self.memory.costs["commits"] != commits:
                commits, written_s = self.memory.costs["commits"], self.now
            endless = steps > MOST_STEPS or self.now > LONGEST_S or steps - began > MOST_AT_ONCE
            if endless or self.now - written_s > LONGEST_STILL_S:
                live = {run.run_id: run.waiting_for for run in self.memory.runs.values() if run.live}
                raise Broken(f"it does not end; live: {live}")
            ready, soonest = self._ready()
            if ready:
                self._step(self.random.choice(ready))
                continue
            if self._events:
                soonest = min(soonest, self._events[0][0])
            if soonest == inf:
                raise Broken("nothing will ever happen any more")
            self.now = max(self.now, soonest)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()

    def _ready(self) -> tuple[list[Process], float]:
        """Return the processes that have something to do now, and when the next of the others has."""
        ready, soonest = list[Process](), inf
        for process in self.living:
            at = process.next_at()
            if at is None:
                continue
            if at <= self.now:
                ready.append(process)
            elif at < soonest:
                soonest = at
        return ready, soonest

    def _step(self, process: Process) -> None:
        self.process = process
        for _ in range(self.random.randint(1, BURST)):
            process.step()
            if process.loop.failures:
                raise blame(process.loop.failures[0])
            while self._called:  # not before: a replay is no business of the task that called
                self.memory.check_cause(*self._called.pop())
            if not process.is_ready(self.now):
                break
        self.process = None
        if not process.alive:
            self._gone(process)

    def after(self, delay_s: float, then: Callable[[], None]) -> None:
        """Do something later."""
        self._sent += 1
        heapq.heappush(self._events, (self.now + delay_s, self._sent, then))

    # --- processes

    def launch(self, number: int) -> None:
        """Start a worker by its plan."""
        if self._stopping:
            return
        self._workers += 1
        name = f"w{number}-{self._workers}"
        self.say(f"{name} starts")
        plan = self.scenario.workers[number]
        made = WorkerProcess(
            name,
            lambda: self.now,
            self.random,
            memory=self.memory,
            wire=self.network.wire,
            definitions=self.definitions,
            settings=plan.settings,
            points=lambda process: _Points(self, process),
            plan=number,
        )
        self.living.append(made)

    def kill(self, process: Process) -> None:
        """Let a process be no more, as ``kill -9`` does."""
        if process.alive and isinstance(process, WorkerProcess):
            process.alive = False
            self._gone(process)

    def _gone(self, process: Process) -> None:
        if process not in self.living:
            return
        self.living.remove(process)
        self._over.append(process)
        self.say(f"{process.name} is gone")
        if process.error is not None:
            raise blame(process.error)
        if isinstance(process, WorkerProcess) and not self._stopping:
            if process.drained:
                raise Broken(f"{process.name} ended by itself")
            self.after(self.random.uniform(*AGAIN_AFTER_S), partial(self.launch, process.plan))

    # --- the engine's points

    def pass_point(self, process: Process, point: str, run_id: str) -> None:
        """Let a process pass a point, or not."""
        if not process.alive:
            return
        self.points += 1
        if self.points in self._deadly:
            self.network.struck["kill at point"] += 1
            self.say(f"{process.name} dies at {point} of {run_id}")
            raise Killed

    # --- the activities' ledger

    def note(self, run_id: str, key: str, value: object) -> int:
        """Take in a call of an activity; a process that is over calls nobody."""
        if self.process is None or not self.process.alive:
            return 1
        self._called.append((run_id, key))
        self.calls[run_id, key] += 1
        self.say(f"{self.process.name} activity {key} of {run_id}")
        return self.calls[run_id, key]

    def _check_costs(self) -> None:
        memory, costs = self.memory, self.memory.costs
        entries = sum(len(rows) for run in memory.runs.values() for rows in run.journal.values())
        faults = sum(self.network.struck.values())
        bound = COST * (entries + 3 * len(memory.runs)) + COST_OF_A_FAULT * faults + COST_TO_BEGIN
        for what in ("commits", "claimed"):
            if costs[what] > bound:
                told = f"{costs[what]} {what} for {entries} entries of {len(memory.runs)} runs"
                raise Broken(f"{told}: over {bound}")


class _Points:
    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._process = cluster, process

    def at(self, point: str, run_id: str) -> None:
        self._cluster.pass_point(self._process, point, run_id)
