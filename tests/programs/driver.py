"""Answers a program in random order: results and failures, timers, children, signals early and late, cancellation.

After every event the machine is thrown away and made again from its journal, so that each program is restarted
at every point; the new machine must be waiting for the same, and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from pydantic_core import to_json

from continuum import Failure
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.entries import DECISIONS, Entry, entry_of_decision, entry_of_event, event_of_entry
from continuum._core.machine import Machine, RunContext, Turn
from tests.programs.flows import program
from tests.programs.generate import Node, generate

T0 = 1_700_000_000_000_000
MAX_EVENTS = 40
CANCEL_AFTER = 28


class Mismatch(AssertionError):
    """A replay did not do what was recorded."""


@dataclass
class History:
    """What one seed gave: the program, its journal turn by turn, and the commands of each turn in words."""

    seed: int
    tree: Node
    entries: list[Entry] = field(default_factory=list)
    turns: list[list[str]] = field(default_factory=list)
    ended: bool = False

    @property
    def started(self) -> e.RunStarted:
        return e.RunStarted(T0, to_json(self.tree))

    @property
    def context(self) -> RunContext:
        return RunContext(f"program-{self.seed}")


def record(seed: int, tree: Node | None = None, *, restarts: bool = True) -> History:
    """Run the program of ``seed`` (or ``tree``) to its end or to a bounded number of events."""
    random = Random(seed)
    history = History(seed, generate(random) if tree is None else tree)
    machine = Machine(program, history.context)
    world = World(random)
    event: e.Event | None = history.started
    try:
        for count in range(MAX_EVENTS):
            turn = machine.apply(event)
            note(history, event, turn)
            if turn.fault is not None:
                raise Mismatch(f"seed {seed}: a live turn ended with a fault:\n{turn.fault}")
            if turn.closing is not None:
                history.ended = True
                break
            world.take(turn.commands)
            if restarts:
                fresh = Machine(program, history.context)
                machine, old = fresh, machine
                restart(history, old, fresh)
            if (event := world.next_event(count)) is None:
                break
    finally:
        machine.discard()
    return history


def note(history: History, event: e.Event, turn: Turn) -> None:
    if not isinstance(event, e.RunStarted):
        history.entries.append(entry_of_event(event))
    decisions = [x for x in turn.commands if isinstance(x, c.Decision)]
    history.entries += [entry_of_decision(decision, event.at_us) for decision in decisions]
    history.turns.append([words(command) for command in turn.commands])


def words(command: c.Command) -> str:
    """Return a command as text that does not depend on the Python that made it: no traceback."""
    if isinstance(command, c.FailRun):
        return f"FailRun {bare(command.failure)}"
    return repr(command)


def bare(failure: Failure) -> Failure:
    cause = bare(failure.cause) if failure.cause is not None else None
    return replace(failure, traceback="", cause=cause, parts=tuple(bare(part) for part in failure.parts))


def restart(history: History, old: Machine, fresh: Machine) -> None:
    """Bring a fresh machine to where the journal left the old one; both must wait for the same."""
    turn = fresh.replay(history.started, history.entries)
    before, after = sorted(map(repr, old.outstanding())), sorted(map(repr, fresh.outstanding()))
    waits = old.waiting_for(), fresh.waiting_for()
    old.discard()
    if turn.fault is not None:
        raise Mismatch(f"seed {history.seed}: the journal does not replay:\n{turn.fault}")
    if before != after or waits[0] != waits[1]:
        raise Mismatch(f"seed {history.seed}: waits differ after a restart:\n{before}\n{after}")


def verify(history: History) -> None:
    """Replay a history, as a journal and event by event; every command must come again. Raises ``Mismatch``."""
    machine = Machine(program, history.context)
    turn = machine.replay(history.started, history.entries)
    machine.discard()
    if turn.fault is not None:
        raise Mismatch(f"seed {history.seed}: the journal does not replay:\n{turn.fault}")
    if (turn.closing is not None) != history.ended:
        raise Mismatch(f"seed {history.seed}: replayed to {turn.closing}, recorded ended={history.ended}")
    machine = Machine(program, history.context)
    events = [event_of_entry(entry) for entry in history.entries if entry.type not in DECISIONS]
    try:
        for number, event in enumerate([history.started, *events]):
            got = [words(command) for command in machine.apply(event).commands]
            if got != history.turns[number]:
                lines = "\n  ".join(["recorded", *history.turns[number], "decided", *got])
                raise Mismatch(f"seed {history.seed}: turn {number} after {event}:\n  {lines}")
    finally:
        machine.discard()


def transcript(history: History) -> str:
    """Return a history as text: the program, then each event with the commands decided in answer to it."""
    lines = [f"program {history.tree!r}"]
    events = [event_of_entry(entry) for entry in history.entries if entry.type not in DECISIONS]
    for event, commands in zip([history.started, *events], history.turns, strict=False):
        lines.append(
            f"{(event.at_us - T0) / 1e6:9.3f}  {event!r}" if event is not history.started else "    0.000  start"
        )
        lines += [f"             -> {command}" for command in commands]
    return "\n".join(lines)


class World:
    """Everything outside the run: what it has asked for, and the dice that answer."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = T0
        self.open: dict[tuple[str, str], Any] = {}

    def take(self, commands: tuple[c.Command, ...]) -> None:
        for command in commands:
            match command:
                case c.RunActivity(key):
                    self.open["activity", key] = command
                case c.CancelActivity(key):
                    if self.random.random() < 0.5:  # else its late result is still to come
                        del self.open["activity", key]
                case c.StartTimer(key):
                    self.open["timer", key] = command
                case c.CancelTimer(key):
                    del self.open["timer", key]
                case c.StartChild(key):
                    self.open["child", key] = command
                case _:
                    pass

    def next_event(self, count: int) -> e.Event | None:
        self.now += self.random.choice([0, 1, 1_000, 250_000])
        dice = self.random.random()
        if count == CANCEL_AFTER or dice < 0.02:
            return e.CancelRequested(self.now, "enough")
        if dice < 0.12 or (not self.open and count < CANCEL_AFTER):
            return e.SignalReceived(self.now, self.random.choice("ab"), b"%d" % count)
        if not self.open:
            return None
        timers = [key for key in self.open if key[0] == "timer"]
        chosen = self.random.choice(list(self.open))
        if chosen[0] == "timer" and self.random.random() < 0.8:
            chosen = min(timers, key=lambda key: self.open[key].due_us)
        return self.answer(chosen, self.open.pop(chosen))

    def answer(self, chosen: tuple[str, str], asked: Any) -> e.Event:
        kind, key = chosen
        failed = self.random.random() < 0.25
        failure = Failure("OSError", "no luck", cause=Failure("KeyError", "deep"))
        match kind:
            case "timer":
                self.now = max(self.now, asked.due_us)
                return e.TimerFired(self.now, key)
            case "activity" if failed:
                return e.ActivityFailed(self.now, key, asked.name, asked.input, failure)
            case "activity":
                return e.ActivityCompleted(
                    self.now, key, asked.name, asked.input, b"%d" % self.random.randrange(9)
                )
            case _ if failed:
                return self.random.choice(
                    [e.ChildFailed(self.now, key, failure), e.ChildCancelled(self.now, key, "by hand")]
                )
            case _:
                return e.ChildCompleted(self.now, key, asked.input)
