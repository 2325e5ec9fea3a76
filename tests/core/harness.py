"""Drives one machine by hand: tells it events, keeps its journal, restarts it, prints it as a transcript.

The rule: a harness decides nothing. It says what happened, as a worker would, and writes down what comes back
as a worker would: the event's entry, then the decisions of its turn.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from continuum import Failure, Retry, Workflow
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.entries import Entry, entry_of_decision, entry_of_event
from continuum._core.failure import capture
from continuum._core.faults import Divergence, Fault
from continuum._core.machine import MAX_CHILD_DEPTH, Machine, RunContext, Turn

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
RUNS: list[Run] = []  # those of the test that is running; see conftest.py


def recorded(type_: str, key: str = "", /, *, at: float | None = None, **payload: Any) -> Entry:
    """Return an entry as a journal holds it, ``at`` seconds after the run's start."""
    at_us = 0 if at is None else START_US + round(at * 1_000_000)
    return Entry(type_, key, at_us, as_json(payload))


def as_json(value: Any) -> bytes:
    """Return ``value`` as compact JSON text; ``bytes`` are JSON text already."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def failure_of(error: Failure | BaseException) -> Failure:
    return error if isinstance(error, Failure) else capture(error)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A turn that has been: what it was told and said, and where it left the run."""

    event: e.Event
    turn: Turn
    journal_size: int
    outstanding: tuple[c.Request, ...]
    waiting_for: str


class Run:
    """One generation of a run. Each method that tells an event returns the turn that came of it.

    An event comes a second after the one before; a timer fires when it is due. A turn with a fault, or one that
    left an unhandled exception, fails the test unless the test has said ``allow_fault=True``.
    """

    def __init__(
        self,
        flow: Workflow[Any, Any],
        value: Any = None,
        *,
        id: str = "run-1",
        generation: int = 1,
        depth: int = 0,
        max_child_depth: int = MAX_CHILD_DEPTH,
        carried: Sequence[e.SignalReceived] = (),
        child_deadlines: tuple[tuple[str, int], ...] = (),
        closes_children: bool = False,
        retry: Retry | None = None,
        attempt: int = 1,
        journal: Iterable[Entry] | None = None,
        at_us: int = START_US,
        allow_fault: bool = False,
    ) -> None:
        self.flow = flow
        self.context = RunContext(id, generation, depth, max_child_depth, retry=retry)
        given = value if isinstance(value, bytes) else flow.input.encode(value)
        self.started = e.RunStarted(
            at_us, given, len(carried), child_deadlines, attempt, closes_children=closes_children
        )
        self.now_us = at_us
        self.allow_fault = allow_fault
        self.replayable = not allow_fault
        self.asked: dict[str, c.RunActivity] = {}
        self.journal: list[Entry] = [entry_of_event(signal) for signal in carried]
        self.steps: list[Step] = []
        self.lines: list[str] = []
        self.machine = Machine(flow, self.context)
        RUNS.append(self)
        if journal is not None:
            self.journal += [self._dated(entry, n) for n, entry in enumerate(journal, 1)]
        if self.journal:
            self.turn = self.machine.replay(self.started, list(self.journal))
            self.now_us = max(at_us, *(entry.at_us for entry in self.journal))
        else:
            self.turn = self.machine.apply(self.started)
        self._take_in(self.started, self.turn, live=journal is None)

    @classmethod
    def replayed(cls, flow: Workflow[Any, Any], value: Any, *journal: Entry, **options: Any) -> Run:
        """Return a run that a worker has taken over with this journal."""
        return cls(flow, value, journal=journal, **options)

    # What there is to see.

    @property
    def commands(self) -> tuple[c.Command, ...]:
        """The commands of the last turn."""
        return self.turn.commands

    @property
    def command(self) -> c.Command:
        """The only command of the last turn."""
        assert len(self.turn.commands) == 1, self.turn.commands
        return self.turn.commands[0]

    @property
    def closing(self) -> c.Closing | None:
        return self.turn.closing

    @property
    def result(self) -> Any:
        """What the workflow returned."""
        assert isinstance(self.closing, c.CompleteRun), self.turn
        return json.loads(self.closing.result)

    @property
    def failure(self) -> Failure:
        """What the workflow raised."""
        assert isinstance(self.closing, c.FailRun), self.turn
        return self.closing.failure

    @property
    def fault(self) -> Fault | None:
        return self.turn.fault

    @property
    def divergence(self) -> Divergence:
        assert isinstance(self.turn.fault, Divergence), self.turn
        return self.turn.fault

    @property
    def open(self) -> tuple[c.Request, ...]:
        """The requests that have no answer yet."""
        return tuple(self.machine.outstanding())

    # What can happen.

    def completed(self, key: str, result: Any = None) -> Turn:
        name, given = self._asked(key)
        return self.event(e.ActivityCompleted(self._next(), key, name, given, as_json(result)))

    def failed(self, key: str, error: Failure | BaseException) -> Turn:
        name, given = self._asked(key)
        return self.event(e.ActivityFailed(self._next(), key, name, given, failure_of(error)))

    def fired(self, key: str | None = None) -> Turn:
        """Tell that a timer has fired, when it was due: the earliest, or the one of that key."""
        timers = [request for request in self.open if isinstance(request, c.StartTimer)]
        due = {timer.key: timer.due_us for timer in timers}
        found = min(due, key=lambda key: due[key]) if key is None else key
        self.now_us = max(self.now_us, due.get(found, self.now_us))
        return self.event(e.TimerFired(self.now_us, found))

    def child_completed(self, key: str, result: Any = None) -> Turn:
        return self.event(e.ChildCompleted(self._next(), key, as_json(result)))

    def child_failed(self, key: str, error: Failure | BaseException) -> Turn:
        return self.event(e.ChildFailed(self._next(), key, failure_of(error)))

    def child_cancelled(self, key: str, reason: str = "no longer needed") -> Turn:
        return self.event(e.ChildCancelled(self._next(), key, reason))

    def child_start_failed(self, key: str, message: str) -> Turn:
        return self.event(e.ChildStartFailed(self._next(), key, message))

    def signal(self, name: str, payload: Any = None, delivery_id: str | None = None) -> Turn:
        return self.event(e.SignalReceived(self._next(), name, as_json(payload), delivery_id))

    def update(self, name: str, value: Any = None, id: str = "u-1") -> Turn:
        return self.event(e.UpdateRequested(self._next(), name, as_json(value), id))

    def cancel(self, reason: str = "asked to") -> Turn:
        return self.event(e.CancelRequested(self._next(), reason))

    def event(self, event: e.Event) -> Turn:
        """Tell the machine an event and write the turn down."""
        self.turn = self.machine.apply(event)
        self.journal.append(entry_of_event(event))
        self._take_in(event, self.turn, live=True)
        return self.turn

    # Crashes.

    def restart(self) -> Run:
        """Lose the machine and replay another from the journal: it must ask for what was outstanding."""
        before = self.machine
        wanted, words = self._expected(self.steps[-1]), before.waiting_for()
        before.discard()
        self.machine = Machine(self.flow, self.context)
        turn = self.machine.replay(self.started, list(self.journal))
        assert turn.fault is None, turn.fault
        assert turn.commands == wanted
        assert self.machine.waiting_for() == words
        assert not self.machine.loop.unhandled
        asks = ", ".join(_name(command) for command in turn.commands)
        self.lines.append(f"       (restarted; asks again for {asks or 'nothing'})")
        return self

    def check_every_turn(self) -> None:
        """Replay the journal as it stood after each turn: nothing diverges, and the same is outstanding."""
        for step in self.steps:
            machine = Machine(self.flow, self.context)
            turn = machine.replay(self.started, self.journal[: step.journal_size])
            try:
                assert turn.fault is None, f"after {step.event}: {turn.fault}"
                assert turn.commands == self._expected(step), f"after {step.event}"
                assert machine.waiting_for() == step.waiting_for
                assert _plain(turn.closing) == _plain(step.turn.closing)
            finally:
                machine.discard()

    def next_generation(self, **options: Any) -> Run:
        """Open the generation that this one continued as, or that tries again what it failed at."""
        closing = self.closing
        assert isinstance(closing, c.ContinueRun | c.RetryRun), self.turn
        again = isinstance(closing, c.RetryRun)
        return Run(
            self.flow,
            closing.input,
            id=self.context.run_id,
            generation=self.context.generation + 1,
            depth=self.context.depth,
            max_child_depth=self.context.max_child_depth,
            carried=closing.unread,
            child_deadlines=closing.child_deadlines,
            closes_children=closing.closes_children,
            retry=self.context.retry,
            attempt=closing.attempt if again else 1,
            at_us=closing.due_us if again else self._next(),
            **options,
        )

    # Writing down.

    def transcript(self) -> str:
        """Return what happened as text: times since the start, events, and what was decided below them."""
        return "\n".join(self.lines) + "\n"

    def _expected(self, step: Step) -> tuple[c.Command, ...]:
        """Return what a replay up to ``step`` must ask for: the first turn's commands if nothing is recorded."""
        if step.journal_size == self.started.carried:
            return step.turn.commands
        return step.outstanding if step.turn.closing is None else ()

    def _take_in(self, event: e.Event, turn: Turn, *, live: bool) -> None:
        if not self.allow_fault:
            assert turn.fault is None, turn.fault
            assert not self.machine.loop.unhandled, self.machine.loop.unhandled
        if turn.fault is not None:
            self.replayable = False
        if live:
            at_us = event.at_us
            self.journal += [entry_of_decision(d, at_us) for d in turn.commands if isinstance(d, c.Decision)]
        self.asked.update((cmd.key, cmd) for cmd in turn.commands if isinstance(cmd, c.RunActivity))
        open_ = () if turn.fault or turn.closing else tuple(self.machine.outstanding())
        self.steps.append(Step(event, turn, len(self.journal), open_, self.machine.waiting_for()))
        self.lines.append(self._line(event))
        self.lines += [f"         -> {self._words(command)}" for command in turn.commands]
        self.lines += [f"         !! {line}" for line in str(turn.fault).splitlines() if turn.fault]

    def _next(self) -> int:
        self.now_us += 1_000_000
        return self.now_us

    def _asked(self, key: str) -> tuple[str, bytes]:
        command = self.asked.get(key)
        return (key.rpartition("-")[0], b"{}") if command is None else (command.name, command.input)

    def _dated(self, entry: Entry, n: int) -> Entry:
        return entry if entry.at_us else dataclasses.replace(entry, at_us=self.started.at_us + n * 1_000_000)

    def _line(self, event: e.Event) -> str:
        return f"{(event.at_us - self.started.at_us) / 1_000_000:6.1f} {self._words(event)}"

    def _words(self, value: Any) -> str:
        parts = [type(value).__name__]
        for field in dataclasses.fields(value):
            told = getattr(value, field.name)
            if field.name == "at_us" or told is None or told == field.default:
                continue
            if isinstance(value, e.ActivityCompleted | e.ActivityFailed) and field.name in ("name", "input"):
                continue  # as decided
            parts.append(self._field(field.name, told))
        return " ".join(part for part in parts if part)

    def _field(self, name: str, told: Any) -> str:
        if name == "delay_us":
            return f"delay={told / 1_000_000:.1f}"
        if name == "due_us":
            return f"due={(told - self.started.at_us) / 1_000_000:.1f}"
        if name == "child_deadlines":
            due = ", ".join(f"{key}: {(at - self.started.at_us) / 1_000_000:.1f}" for key, at in told)
            return f"child_deadlines={{{due}}}"
        if name == "unread":
            return f"unread=[{', '.join(f'{signal.name} {signal.payload.decode()}' for signal in told)}]"
        if name == "options":
            return " ".join(_changed(told))
        if isinstance(told, Failure):
            return f"{name}=" + " <- ".join(f"{failure.type}({failure.message!r})" for failure in told.chain())
        return f"{name}={told.decode('utf-8', 'replace') if isinstance(told, bytes) else repr(told)}"


def _changed(options: Any) -> Iterator[str]:
    """Yield the options that are set, as ``name=value``."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            text = (
                f"{type(value).__name__}({', '.join(_changed(value))})" if isinstance(value, Retry) else str(value)
            )
            yield f"{field.name}={text}"


def _name(command: c.Command) -> str:
    return str(getattr(command, "key", type(command).__name__))


def _plain(closing: c.Closing | None) -> Any:
    """Return a closing without tracebacks: a replayed side effect fails on another line of ours."""
    if isinstance(closing, c.FailRun | c.RetryRun):
        return dataclasses.replace(closing, failure=_without_traceback(closing.failure))
    return closing


def _without_traceback(failure: Failure) -> Failure:
    cause = _without_traceback(failure.cause) if failure.cause is not None else None
    parts = tuple(map(_without_traceback, failure.parts))
    return dataclasses.replace(failure, traceback="", cause=cause, parts=parts)
