"""Plays a scenario on the bare core: machines, their mail and one clock, with neither workers nor a journal.

Everything that may happen is drawn by chance: whose mail is read, which activity ends, or that time goes on to the
next timer or action. Machines are thrown away now and then and made again from their entries. What a turn brings
about comes from ``effects``, so this is the smallest thing that keeps the promises.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from continuum import Failure
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import Effects, Message, NewRun, effects, to_parent
from continuum._core.entries import Entry, event_of_entry
from continuum._core.machine import Machine, RunContext, Turn
from continuum.policies import Retry
from tests.programs.flows import kid
from tests.simulation.flows import simulated, work
from tests.simulation.programs import Action, Root, Scenario

T0 = 1_700_000_000_000_000
MOST_STEPS = 20_000
AGAIN = "next attempt"  # the key of the timer of a run that waits for it
FLOWS: dict[str, Any] = {flow.name: flow for flow in (simulated, kid)}


class Stuck(AssertionError):
    """A scenario did not end, or a machine did not do what it had done."""


@dataclass
class Run:
    """One run: its generation under way, and how it ended."""

    context: RunContext
    flow: Any
    started: e.RunStarted
    machine: Machine
    entries: list[Entry] = field(default_factory=list)
    close: str = "abandon"
    next: tuple[Entry, ...] = ()  # how its next attempt begins, while it waits for that
    mail: deque[e.Event] = field(default_factory=deque)
    asked: dict[str, c.RunActivity] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    older: int = 0  # entries of earlier generations
    state: str = "running"
    end: Any = None

    @property
    def size(self) -> int:
        return self.older + len(self.entries)


class Bare:
    """One scenario, played in an order that ``seed`` decides."""

    def __init__(self, scenario: Scenario, seed: int, *, restarts: float = 0.2) -> None:
        self.scenario = scenario
        self.random = Random(f"bare {seed}")
        self.restarts = restarts
        self.now_us = T0
        self.runs: dict[str, Run] = {}
        self.steps = 0
        self._count = 0
        self._clock: list[tuple[int, int, Root | Action | tuple[str, str]]] = []
        self._delivered: set[tuple[str, str]] = set()
        for root in scenario.roots:
            self._at(T0 + int(root.start_at_s * 1e6), root)
        for action in scenario.actions:
            self._at(T0 + int(action.at_s * 1e6), action)

    def play(self) -> dict[str, Any]:
        """Play to the end; return how each root ended. Raises ``Stuck``."""
        try:
            while self._step():
                self.steps += 1
                if self.steps > MOST_STEPS:
                    raise Stuck(f"seed {self.scenario.seed}: no end after {MOST_STEPS} steps")
            for run in self.runs.values():
                if run.state == "running":
                    waits = run.machine.waiting_for()
                    raise Stuck(f"seed {self.scenario.seed}: run {run.context.run_id} waits for ever, for {waits}")
        finally:
            for run in self.runs.values():
                run.machine.discard()
        return {
            root.run_id: (self.runs[root.run_id].state, self.runs[root.run_id].end) for root in self.scenario.roots
        }

    # Time and chance.

    def _step(self) -> bool:
        while self._clock and isinstance(what := self._clock[0][2], tuple) and not self._is_set(*what):
            heapq.heappop(self._clock)
        living = [run for run in self.runs.values() if run.state == "running"]
        may: list[Any] = [run for run in living if run.mail and not run.next]
        may += [(run, key) for run in living for key in run.asked]
        if self._clock and (not may or self.random.random() < 0.3):
            self._tick()
            return True
        if not may:
            return False
        self.now_us += self.random.choice([0, 1, 1000, 20_000])
        chosen = self.random.choice(may)
        if isinstance(chosen, Run):
            self._tell(chosen, replace(chosen.mail.popleft(), at_us=self.now_us))
        else:
            self._tell(chosen[0], self._work(chosen[0].asked.pop(chosen[1])))
        return True

    def _tick(self) -> None:
        due, _, what = heapq.heappop(self._clock)
        self.now_us = max(self.now_us, due)
        match what:
            case Root():
                program = simulated
                self._begin(RunContext(what.run_id), program, program.input.encode(what.plan()))
            case Action():
                self._act(what)
            case (run_id, key):
                run = self.runs[run_id]
                del run.timers[key]
                if run.next:
                    self._go_on(run)
                else:
                    self._tell(run, e.TimerFired(self.now_us, key))

    def _at(self, due_us: int, what: Root | Action | tuple[str, str]) -> None:
        self._count += 1
        heapq.heappush(self._clock, (due_us, self._count, what))

    def _is_set(self, run_id: str, key: str) -> bool:
        return self.runs[run_id].state == "running" and key in self.runs[run_id].timers

    def _act(self, action: Action) -> None:
        run = self.runs.get(action.run_id)
        if run is None or run.state != "running":
            return
        if action.kind == "stop":
            asked = any(entry.type == "cancel_requested" for entry in run.entries)
            if not run.next and not asked and not any(isinstance(event, e.CancelRequested) for event in run.mail):
                run.mail.append(e.CancelRequested(0, "by hand, gently"))
            late = Action(action.at_s + action.payload, "cancel", action.run_id, payload="by hand, gently")
            self._at(self.now_us + int(action.payload * 1e6), late)
        elif action.kind == "cancel":
            self._cancel(action.run_id, str(action.payload))
        elif action.kind == "signal" and (action.run_id, action.delivery_id) not in self._delivered:
            if action.delivery_id:
                self._delivered.add((action.run_id, action.delivery_id))
            payload = json.dumps(action.payload).encode()
            run.mail.append(e.SignalReceived(0, action.name, payload, action.delivery_id or None))
        elif action.kind == "update" and (action.run_id, action.delivery_id) not in self._delivered:
            self._delivered.add((action.run_id, action.delivery_id))
            payload = json.dumps(action.payload).encode()
            run.mail.append(e.UpdateRequested(0, action.name, payload, action.delivery_id))

    def _work(self, asked: c.RunActivity) -> e.Event:
        """Do the activity itself, without its waits, as often as its retries have it."""
        arguments = work.arguments.decode(asked.input)
        arguments["spec"].pop("takes", None)
        failure = Failure("TimeoutError", "time is up", timed_out=True)
        for _ in range(0 if "hangs" in arguments["spec"] else (asked.options.retry or Retry()).max_attempts):
            call: Any = work.function(**arguments)
            try:
                call.send(None)
            except StopIteration as done:
                result = work.result.encode(done.value)
                return e.ActivityCompleted(self.now_us, asked.key, asked.name, asked.input, result)
            except OSError as error:
                failure = Failure("OSError", str(error))
        return e.ActivityFailed(self.now_us, asked.key, asked.name, asked.input, failure)

    # Turns.

    def _begin(self, context: RunContext, flow: Any, given: bytes, close: str = "abandon") -> None:
        started = e.RunStarted(self.now_us, given)
        run = self.runs[context.run_id] = Run(context, flow, started, Machine(flow, context), close=close)
        self._take(run, started, run.machine.apply(started))

    def _tell(self, run: Run, event: e.Event) -> None:
        self._take(run, event, run.machine.apply(event))
        if run.state == "running" and not run.next and self.random.random() < self.restarts:
            old, run.machine = run.machine, Machine(run.flow, run.context)
            turn = run.machine.replay(run.started, run.entries)
            before, after = (sorted(map(repr, machine.outstanding())) for machine in (old, run.machine))
            old.discard()
            if turn.fault is not None or before != after:
                raise Stuck(f"{run.context.run_id} does not replay: {turn.fault}\n{before}\n{after}")

    def _take(self, run: Run, event: e.Event, turn: Turn) -> None:
        if turn.fault is not None:
            raise Stuck(f"{run.context.run_id}: {turn.fault}")
        made = effects(run.context, event, turn)
        run.entries += made.entries
        for new in made.children:
            self._insert(new)
        for message in made.messages:
            self._post(message)
        for request in made.requests:
            self._request(run, request)
        if run.context.depth and isinstance(made.closing, c.CompleteRun | c.FailRun | c.CancelRun):
            self._post(to_parent(run.context.run_id, made.closing))
        if made.closing is not None:
            self._close(run, made)
        for cancel in made.cancels:
            self._cancel(cancel.run_id, cancel.reason)

    def _post(self, message: Message) -> None:
        to = self.runs.get(message.run_id)
        if to is not None and to.state == "running":
            to.mail.append(event_of_entry(Entry(message.type, message.key, 0, message.payload)))

    def _request(self, run: Run, request: c.Request) -> None:
        match request:
            case c.RunActivity(key):
                run.asked[key] = request
            case c.CancelActivity(key):
                if self.random.random() < 0.5:  # else its late result is still to come
                    run.asked.pop(key, None)
            case c.StartTimer(key, due_us):
                run.timers[key] = due_us
                self._at(due_us, (run.context.run_id, key))
            case c.CancelTimer(key):
                run.timers.pop(key, None)
            case c.AwaitChild(_, run_id):
                self._tell_again(run_id)

    def _insert(self, new: NewRun) -> None:
        known, flow = self.runs.get(new.run_id), FLOWS[new.workflow]
        if known is None:
            options = new.options
            context = RunContext(new.run_id, depth=new.depth, retry=options.retry)
            self._begin(context, flow, new.input, options.on_parent_close)
            return
        parent = self.runs[new.parent_run_id]  # what it has not heard yet of the one there was is not of this one
        parent.mail = deque(event for event in parent.mail if getattr(event, "key", None) != new.key)
        if known.flow is flow and flow.input.means_the_same(known.started.input, new.input):
            self._tell_again(new.run_id)
        else:
            words = f"child {new.run_id!r} is another one"
            parent.mail.append(e.ChildStartFailed(0, new.key, words))

    def _close(self, run: Run, made: Effects) -> None:
        run.asked.clear()
        run.timers.clear()
        match made.closing:
            case c.ContinueRun() | c.RetryRun() as closing:
                run.machine.discard()
                run.mail = deque(event for event in run.mail if not isinstance(event, e.ChildStartFailed))
                run.older += len(run.entries)
                run.next = made.next_entries
                if isinstance(closing, c.RetryRun):
                    run.timers[AGAIN] = closing.due_us
                    self._at(closing.due_us, (run.context.run_id, AGAIN))
                else:
                    self._go_on(run)
            case c.CompleteRun(result):
                self._end(run, "completed", json.loads(result))
            case c.FailRun(failure):
                self._end(run, "failed", str(failure))
            case _:
                self._end(run, "cancelled", "")

        self._leave(run, made)

    def _go_on(self, run: Run) -> None:
        """Begin a run's next generation."""
        started, *entries = run.next
        run.context, run.next = replace(run.context, generation=run.context.generation + 1), ()
        event = event_of_entry(started)
        assert isinstance(event, e.RunStarted)
        run.started, run.entries, run.machine = event, entries, Machine(run.flow, run.context)
        self._take(run, event, run.machine.replay(event, run.entries))

    def _leave(self, run: Run, made: Effects) -> None:
        """Cancel what is to end with a run that has ended."""
        run_id = run.context.run_id
        for below, other in list(self.runs.items()):
            child = below.rpartition("/")[0] == run_id
            falls = made.descendants == "cancel" and below.startswith(f"{run_id}/")
            if falls or (made.descendants == "close" and child and other.close == "cancel"):
                self._cancel(below, "its parent has ended")

    def _end(self, run: Run, state: str, end: Any) -> None:
        run.state, run.end = state, end
        run.mail.clear()
        run.asked.clear()
        run.timers.clear()
        run.machine.discard()

    def _tell_again(self, run_id: str) -> None:
        """Tell a parent how a child ended, if it has."""
        run = self.runs[run_id]
        parent, _, key = run_id.rpartition("/")
        outcome: e.ChildOutcome
        match run.state:
            case "completed":
                outcome = e.ChildCompleted(0, key, json.dumps(run.end).encode())
            case "failed":
                outcome = e.ChildFailed(0, key, Failure(*run.end.split(": ", 1)))
            case "cancelled":
                outcome = e.ChildCancelled(0, key, str(run.end))
            case _:
                return
        self.runs[parent].mail.append(outcome)

    def _cancel(self, run_id: str, reason: str) -> None:
        """End a run and all below it; the parent is told."""
        run = self.runs[run_id]
        if run.state != "running":
            return
        for below, other in self.runs.items():
            if other.state == "running" and (below == run_id or below.startswith(f"{run_id}/")):
                self._end(other, "cancelled", reason)
        parent, _, key = run_id.rpartition("/")
        if parent and self.runs[parent].state == "running":
            self.runs[parent].mail.append(e.ChildCancelled(0, key, reason))


def play(scenario: Scenario, seed: int = 0, *, restarts: float = 0.2) -> dict[str, Any]:
    """Return how each root ended."""
    return Bare(scenario, seed, restarts=restarts).play()
