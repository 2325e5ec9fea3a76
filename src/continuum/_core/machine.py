"""A generation of a run as a state machine: one event in, the commands it decided out.

Replaying and running live are the same ``apply``; on replay the decisions recorded with the event stand beside
it and must be taken again. The rules:

* One event at a time, and the workflow runs until it waits, before the next. So there is no order within a batch
  to keep compatible, and the order of completion is the order of the journal.
* What a machine is told and what it answers are values; it reads no clock and does no I/O.
* A machine with a fault or a closing takes no further event; ``discard`` it.

The order of durability is the caller's: a turn's event and decisions are one commit, its activities start and
its messages leave only after that commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.ahead import Ahead
from continuum._core.closings import ContinueAsNew, closing_of
from continuum._core.decisions import Decisions, Recorded, in_words
from continuum._core.entries import Entry, event_of_entry
from continuum._core.family import Family
from continuum._core.faults import Broken, Divergence, Fault, Overrun, Undecodable, Unwind, waiting_line
from continuum._core.loop import MAX_CALLBACKS_PER_TURN, WATCH, WorkflowLoop
from continuum._core.mailbox import Conditions, Mailbox
from continuum._core.program import Program
from continuum._core.requests import Activities, Timers
from continuum._core.tasks import WorkflowTask
from continuum._core.updates import Updates
from continuum._core.values import value
from continuum.errors import DecodeError, WorkflowMisuse
from continuum.policies import Retry

MAX_CHILD_DEPTH = 10
_T = TypeVar("_T")


@value
class RunContext:
    """Where a machine stands: what its keys, hashes and seeds are made of. A root has depth 0.

    ``namespace``, ``attributes`` (a JSON object) and ``trace`` are what its workflow may ask for. ``retry`` is how
    often it begins anew when it fails, and when.
    """

    run_id: str
    generation: int = 1
    depth: int = 0
    max_child_depth: int = MAX_CHILD_DEPTH
    namespace: str = "default"
    attributes: bytes | None = None
    trace: str | None = None
    retry: Retry | None = None


class Turn(NamedTuple):
    """What a turn came to: its commands, and the fault or closing that ended the generation's machine."""

    commands: tuple[c.Command, ...]
    fault: Fault | None = None
    closing: c.Closing | None = None


class Machine:
    """One generation of one run, in memory.

    >>> machine = Machine(order_flow, RunContext("order-7"))    # doctest: +SKIP
    >>> machine.apply(RunStarted(at_us, b'{"id": "o7"}'))       # doctest: +SKIP
    Turn(commands=(RunActivity(key='charge-1', ...),), fault=None, closing=None)
    """

    __slots__ = (
        "_mailbox",
        "_main",
        "_updates",
        "_watched",
        "activities",
        "ahead",
        "attempt",
        "cancelled",
        "closing",
        "conditions",
        "context",
        "decisions",
        "family",
        "loop",
        "program",
        "started",
        "timers",
    )

    def __init__(self, program: Program, context: RunContext) -> None:
        self._watched = program.function not in WATCH.spent and WATCH.watches(program.function)
        self.program = program
        self.context = context
        self.closing: c.Closing | None = None
        self.loop = loop = WorkflowLoop(self, context.run_id)  # type: ignore[abstract]  # what is abstract is refused
        self.decisions = Decisions(loop)
        self.conditions = Conditions(loop)
        self.family: Family | None = (
            None  # these three are made when they are first asked for: most runs need none
        )
        self._mailbox: Mailbox | None = None
        self._updates: Updates | None = None
        self._main: WorkflowTask | None = None
        self.cancelled: str | None = None  # why it was asked to stop
        self.started: e.RunStarted | None = None  # of a run that may be tried again
        self.attempt = 1

    if TYPE_CHECKING:  # and else made when they are first asked for: a run may be over without
        timers: Timers
        ahead: Ahead
        activities: Activities
    else:

        def __getattr__(self, name: str) -> object:
            """Make a part whose place is empty."""
            loop, decisions = self.loop, self.decisions
            if name == "timers":
                part = self.timers = loop.timers = Timers(loop, decisions)
            elif name == "ahead":
                part = self.ahead = Ahead(loop, decisions)
            elif name == "activities":
                part = self.activities = Activities(loop, decisions, self.ahead)
            else:
                raise AttributeError(f"a machine has no {name}")
            return part

    # What the engine calls.

    def apply(self, event: e.Event) -> Turn:
        """Take one live event, run until the workflow waits, return what it decided.

        The first event is ``RunStarted``. Raises ``RuntimeError`` for an event after the machine has ended.
        """
        loop, decisions = self.loop, self.decisions
        if self.closing is not None or decisions.fault is not None or loop.discarded:
            self._refuse()
        loop.enter()
        watched = self._watched and WATCH.begin(self.program.function)
        try:
            if type(event) is e.ActivityCompleted:
                self._turn(event.at_us, None, self.activities.ended, event)
            else:
                self._turn(event.at_us, None, self._deliver, event)
        finally:
            if watched:
                WATCH.end()
            loop.leave()
        if self.decisions.fault is not None:
            return Turn((), self.decisions.fault)
        return Turn(tuple(decisions.commands), None, self.closing)

    def replay(self, started: e.RunStarted, entries: Sequence[Entry], *, begun: bool = False) -> Turn:
        """Bring a new machine to where ``entries`` left the run; return what is outstanding.

        ``entries`` is the generation's journal behind its start. If nothing but carried signals is recorded, the
        first turn is run live, and what it decides is to be committed; unless the generation has ``begun``: its
        first turn is known to be committed (an activity of it is queued) and left no entry.
        """
        decisions = self.decisions
        if self.closing is not None or decisions.fault is not None or self.loop.discarded:
            self._refuse()
        self.loop.enter()
        # A replay repeats what has run under the watch before.
        live = len(entries) <= started.carried and not begun
        watched = live and self._watched and WATCH.begin(self.program.function)
        try:
            if live and not started.carried and self._main is None:  # nearly every run's first turn
                self._turn(started.at_us, None, self._start, started)
            else:
                self._replay(started, entries, live)
        except DecodeError as error:
            decisions.fail(Undecodable(str(error)))
        finally:
            if watched:
                WATCH.end()
            self.loop.leave()
            if entries:
                self.ahead.close()
            decisions.recorded = None
        if self.decisions.fault is not None:
            return Turn((), self.decisions.fault)
        if live or self.closing is not None:
            return Turn(tuple(decisions.commands), None, self.closing)
        return Turn(tuple(self.outstanding()))

    def discard(self) -> None:
        """Let the workflow go: its coroutines are closed, and what their clean-up tries reaches nothing."""
        self.loop.discard()

    @property
    def children(self) -> Family:
        """The run's children. ``family`` is None while there cannot be any."""
        family = self.family
        if family is None:
            family = self.family = Family(self.loop, self.decisions, self.context)
        return family

    @property
    def signals(self) -> Mailbox:
        """The messages that nobody has taken."""
        if self._mailbox is None:
            self._mailbox = Mailbox(self.loop)
        return self._mailbox

    @property
    def updates(self) -> Updates:
        """The updates that are handled, and who handles them."""
        if self._updates is None:
            undeclared, begun = self.program.undeclared, self._main is not None
            self._updates = Updates(self.loop, self.decisions, self.signals, undeclared, begun=begun)
        return self._updates

    @property
    def fault(self) -> Fault | None:
        """Why the machine cannot go on, if it cannot."""
        return self.decisions.fault

    @property
    def replaying(self) -> bool:
        """Whether the turn under way repeats what is recorded."""
        return self.decisions.recorded is not None

    @property
    def next_timer_us(self) -> int | None:
        """When the earliest timer is due, in microseconds since 1970, or None without timers."""
        return min((timer.due_us for timer in self.timers.outstanding()), default=None)

    def outstanding(self) -> Iterable[c.Request]:
        """Yield the requests that have no answer yet: what a worker that takes over has to ask for again."""
        yield from self.activities.outstanding()
        yield from self.timers.outstanding()
        yield from self.children.outstanding()

    def waiting_for(self) -> str:
        """Say in words what the workflow waits for, such as ``child order-7 (order_flow); signal approve``."""
        waits = [f"activity {request.key}" for request in self.activities.outstanding()]
        waits += [
            f"child {child.key}" + (f" ({child.workflow})" if child.workflow else "")
            for child in self.children.awaited()
        ]
        waits += [f"signal {name}" for name in self.signals.awaited()]
        waits += ["a condition"] * bool(self.conditions.waiting)
        waits += [f"timer {timer.key}" for timer in self.timers.outstanding()]
        shown = "; ".join(waits[:5])
        return f"{shown}; and {len(waits) - 5} more" if len(waits) > 5 else shown or "nothing that can come"

    # What authors' functions call.

    def continue_as_new(self, given: object) -> NoReturn:
        """End this generation and open the next with ``given``."""
        if asyncio.current_task(self.loop) is not self._main:
            raise WorkflowMisuse(
                "continue_as_new() ends the run's generation: call it from the workflow's main task"
            )
        raise ContinueAsNew(self.program.input.encode(given))

    # The turn.

    def _replay(self, started: e.RunStarted, entries: Sequence[Entry], live: bool) -> None:
        carried, size, ahead = started.carried, len(entries), self.ahead
        if carried > size:
            raise DecodeError("the journal's start", f"{carried} carried signals announced, {size} entries found")
        for entry in entries[:carried]:
            self._deliver(event_of_entry(entry))
        if live:
            self._turn(started.at_us, None, self._deliver, started)
            return
        ahead.open(entries, carried)
        self._turn(started.at_us, ahead.take_decisions(), self._deliver, started)
        decisions, repeat = self.decisions, self.activities.repeat
        while ahead.position < size and decisions.fault is None:
            entry = ahead.take()
            if self.closing is not None:
                self._unexpected(entry, f"the run ended with {type(self.closing).__name__}")
                break
            deliver = repeat if entry.type == "activity_completed" else self._deliver_again
            self._turn(entry.at_us, ahead.take_decisions(), deliver, entry)

    def _turn(self, at_us: int, recorded: Recorded | None, deliver: Callable[[_T], None], what: _T) -> None:
        """Deliver one event and run until the workflow waits; ``recorded`` is what it decided then, if it did."""
        loop, decisions = self.loop, self.decisions
        if at_us > loop.now_us:
            loop.now_us = at_us
        decisions.at_us, decisions.recorded, decisions.commands = at_us, recorded, []
        loop.budget = MAX_CALLBACKS_PER_TURN
        try:
            deliver(what)
            within_bounds = loop.drain()
            if self.conditions.waiting and within_bounds:
                within_bounds = self._wake_conditions()
            if not within_bounds:
                decisions.fail(Overrun(MAX_CALLBACKS_PER_TURN))
        except Unwind:
            pass
        except DecodeError as error:
            decisions.fail(Undecodable(str(error)))
        except Exception as error:  # noqa: BLE001 - the last edge: no event may wedge the engine
            decisions.fail(Broken(f"{type(error).__name__}: {error}"))
        except BaseException:  # an interrupt leaves the turn half taken: nothing of it may count
            decisions.fail(Broken("the turn was interrupted"))
            raise
        if decisions.fault is not None:
            self._locate_fault()
            return
        if decisions.published is not None:
            decisions.commands.append(c.PublishState(decisions.published))
            decisions.published = None
        main = self._main
        if loop.exit is not None or (main is not None and main.done()):
            loop.stopped = True
            if main is not None:
                main.settle()
            self.closing = closing_of(self, main)
            if recorded is None:
                decisions.commands.append(self.closing)
        if decisions.recorded and (entry := decisions.leftover()) is not None:
            self._unexpected(entry, f"nothing; the workflow waits for {self.waiting_for()}")

    def _deliver_again(self, entry: Entry) -> None:
        self._deliver(event_of_entry(entry))

    def _deliver(self, event: e.Event) -> None:
        match event:
            case e.ActivityCompleted() | e.ActivityFailed():
                self.activities.ended(event)
            case e.TimerFired():
                self.timers.fired(event)
            case e.ChildCompleted() | e.ChildFailed() | e.ChildCancelled() | e.ChildStartFailed():
                self.children.ended(event)
            case e.SignalReceived():
                self.signals.put(event)
            case e.UpdateRequested():
                self.updates.requested(event)
            case e.CancelRequested(reason=reason):
                self.cancelled = reason
                if self._main is not None:
                    self._main.cancel()
            case e.RunStarted():
                if self._main is not None:
                    raise DecodeError("journal entry run_started", "the generation has started already")
                self._start(event)
            case e.ActivityStarted():
                pass

    def _start(self, event: e.RunStarted) -> None:
        try:
            given = self.program.input.decode(event.input)
        except DecodeError as error:
            self.decisions.undecodable(error)
        self.started = None if self.context.retry is None else event
        self.attempt = event.attempt
        if event.child_deadlines or event.closes_children:
            self.children.carry(event.child_deadlines, event.closes_children)
        self._main = self.loop.spawn(self._run_main(given))
        if self._updates is not None:
            self._updates.open()
        if self.cancelled is not None:  # asked before it began
            self._main.cancel()

    async def _run_main(self, given: object) -> object:
        try:
            return await self.program.start(given)
        finally:
            self.loop.stopped = True  # the run closes here: what else is ready does not run

    def _wake_conditions(self) -> bool:
        """Wake the conditions that have come true and drain, until nothing moves; return False out of bounds."""
        loop, main = self.loop, self._main
        while not loop.stopped and main is not None and not main.done() and self.conditions.check():
            if not loop.drain():
                return False
        return True

    def _locate_fault(self) -> None:
        """Say where the main task waits in a fault that no line of the workflow's was running for."""
        fault, main = self.decisions.fault, self._main
        if isinstance(fault, (Divergence, Overrun)) and not fault.source and main is not None and not main.done():
            self.decisions.fault = replace(fault, source=waiting_line(main))

    def _unexpected(self, entry: Entry, decided: str) -> None:
        self.closing = None
        self.decisions.fail(Divergence(in_words(entry), decided, entry.key))
        self._locate_fault()

    def _refuse(self) -> NoReturn:
        why = self.fault or self.closing or "it was discarded"
        raise RuntimeError(f"run {self.context.run_id!r}: this machine has ended and takes no event: {why}")
