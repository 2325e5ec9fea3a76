"""The children of a run, by key: started, awaited, ended.

The rule: one key names one child for all of a run's generations. How a child ended is known once it stands in
the parent's journal, and awaiting it again gives the same answer. A child of an earlier generation is known by
its ref or its outcome alone; started again, it is for the journal to say whether it is the same one. So it is with
a child that was let go when it ended, because there may be a million of them and nobody has their refs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, cast

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.child import Callback, Child, Outcome
from continuum._core.codec import Codec
from continuum._core.decisions import Decisions
from continuum._core.ends import AllEnded
from continuum._core.entries import entry_of_event, value_in
from continuum._core.failure import CHILD_TIMED_OUT, child_error
from continuum._core.keys import MAX_KEY_BYTES, Scope, check_child_key, child_run_id
from continuum._core.loop import WorkflowLoop
from continuum._core.requests import due_us
from continuum.errors import (
    ChildCancelled,
    ChildDepthExceeded,
    DecodeError,
    DuplicateChildId,
    InvalidId,
    WorkflowMisuse,
)
from continuum.policies import ChildOptions

if TYPE_CHECKING:
    from continuum._core.machine import RunContext

MOST_LET_GO = 1_000  # whose workflows are still known by name: more than end in one commit


class ChildProgram(Protocol):
    """What the core needs of a child workflow's definition."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def input(self) -> Codec[Any]: ...
    @property
    def result(self) -> Codec[Any]: ...


class Family:
    """All children that a run's generation has to do with."""

    __slots__ = (
        "_carried_closing",
        "_children",
        "_decisions",
        "_depth",
        "_ended",
        "_generation",
        "_let_go",
        "_limit",
        "_loop",
        "_refused",
        "_refused_in",
        "_run_id",
        "get",
        "knows_all",
        "last_failed",
    )

    def __init__(self, loop: WorkflowLoop, decisions: Decisions, of: RunContext) -> None:
        self._loop = loop
        self._decisions = decisions
        self._run_id = of.run_id
        self._generation = of.generation
        self._depth = of.depth
        self._limit = of.max_child_depth
        self._children: dict[str, Child] = {}
        self.get = self._children.get  # the child of a key, if this machine has heard of it and not let it go
        self._carried_closing = False
        self._let_go: dict[str, str] = {}  # workflows of the last that were let go, by key
        self.knows_all = of.generation == 1  # whether a key that is not here names no child yet
        self._ended = 0
        self.last_failed = False  # whether the one that ended last has not completed
        self._refused: dict[str, tuple[int, int]] = {}  # depth and limit, by key, of the turn that has ...
        self._refused_in: object = None  # ... these commands

    def key(self, scope: Scope, workflow: str, given: object = None) -> str:
        """Return the key of a child: the one given, or else derived from the call's place in the run."""
        if given is not None:
            return check_child_key(given)
        key = scope.key(workflow)
        if self._generation > 1:
            key = f"g{self._generation}.{key}"
        if len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidId(f"the derived child id {key!r} is longer than {MAX_KEY_BYTES} bytes; give an id=")
        return key

    def start(self, key: str, path: str, program: ChildProgram, given: bytes, options: ChildOptions) -> Child:
        """Decide to start a child, or return the one that this key names already."""
        known = self._children.get(key)
        if known is not None and known.start is not None:
            self.refuse_duplicate(key, program, given)
            known.fleeting = False
            return known
        if self._depth >= self._limit or self._refused or self._decisions.recorded is not None:
            self._check_depth(key, program)
        run_id = child_run_id(self._run_id, key)
        decision = c.StartChild(key, run_id, program.name, program.version, given, options)
        self._decisions.decide(decision, path, program.input)
        if known is None:
            known = self._children[key] = Child(key, run_id, decision)
        elif known.outcome is None:
            known.start = decision
        else:  # how an earlier generation's child ended, perhaps another one's: who has it keeps it, nobody else
            cancelled, known = known.cancelled, Child(key, run_id, decision)
            known.cancelled = cancelled
            self._children[key] = known
        if options.timeout is not None and known.deadline_us is None:  # a carried one bounds its whole life
            self._bound(known, due_us(self._loop.time() + cast("Any", options.timeout).total_seconds()))
        return known

    def refuse_duplicate(self, key: str, program: ChildProgram, given: bytes) -> None:
        """Raise ``DuplicateChildId`` if this generation has started another child under ``key``."""
        known = self._children.get(key)
        if known is None or known.start is None:
            return
        workflow = known.start.workflow
        if workflow != program.name:
            differs = f"as {workflow} and not as {program.name}"
        elif not program.input.means_the_same(known.start.input, given):
            differs = f"as {workflow} with another input"
        else:
            return
        raise DuplicateChildId(
            f"child {known.run_id!r} is already started, {differs}; give each child its own id="
        )

    def knows(self, key: str) -> bool:
        """Say whether the key names a child that this machine has heard of and not let go."""
        return key in self._children

    def find(self, run_id: str) -> Child:
        """Return the child of that run id. Raises ``WorkflowMisuse`` if it cannot be one of this run's."""
        parent, _, key = run_id.rpartition("/")
        child = self._children.get(key) if parent == self._run_id else None
        if child is not None:
            return child
        if parent != self._run_id or not key:
            raise WorkflowMisuse(
                f"child {run_id!r} was not started by run {self._run_id!r}; await a ref in the run that started it"
            )
        if self.knows_all:
            raise WorkflowMisuse(f"child {run_id!r} was never started; refs come from start_child()")
        child = self._children[key] = Child(key, run_id)  # of an earlier generation, or let go
        return child

    async def wait(self, child: Child) -> Outcome:
        """Wait until a child has ended; cancelling the wait leaves the child alone."""
        if child.outcome is None:
            self.ask(child)
            future = self._loop.create_future()

            def wake() -> None:
                if not future.done():
                    future.set_result(None)

            child.waiters.append(wake)
            try:
                await future
            except asyncio.CancelledError:
                if child.outcome is None:
                    child.waiters.remove(wake)
                raise
        return cast("Outcome", child.outcome)

    def ask(self, child: Child) -> None:
        """Make sure that the end of a child is reported: one of an earlier generation must be asked for."""
        if child.start is None and not child.asked and child.outcome is None:
            child.asked = True
            self._decisions.request(c.AwaitChild(child.key, child.run_id))

    async def wait_all(self, children: Sequence[Child], *, fail_fast: bool) -> None:
        """Wait until all have ended or, with ``fail_fast``, one has not completed. One future for any number."""
        open_ = [child for child in children if child.outcome is None]
        if not open_ or (fail_fast and self.first_failed(children) is not None):
            return
        future = self._loop.create_future()
        wake = AllEnded(future, len(open_), self if fail_fast else None)
        for child in open_:
            if child.start is None:
                self.ask(child)
            child.waiters.append(wake)
        try:
            await future
        finally:
            for child in open_:
                if child.outcome is None:
                    child.waiters.remove(wake)

    def first_failed(self, children: Iterable[Child]) -> Child | None:
        """Return the one that ended first, in journal order, without completing."""
        failed = (c_ for c_ in children if c_.outcome is not None and not isinstance(c_.outcome, e.ChildCompleted))
        return min(failed, key=lambda child: child.order, default=None)

    def when_ended(
        self, child: Child, callback: Callable[..., object], *args: object, context: Context | None
    ) -> None:
        """Call back from the loop when the child has ended."""
        call = Callback(self._loop, callback, args, context)
        if child.outcome is not None:
            call()
        else:
            self.ask(child)
            child.waiters.append(call)

    def forget(self, child: Child, callback: Callable[..., object]) -> int:
        """Drop the callbacks registered with ``when_ended``; return how many there were."""
        kept = [wake for wake in child.waiters if not (isinstance(wake, Callback) and wake.callback == callback)]
        dropped = len(child.waiters) - len(kept)
        child.waiters = kept
        return dropped

    def cancel(self, child: Child, path: str, reason: str, *, timed_out: bool = False) -> None:
        """Decide to cancel a child and all below it; one that has ended or is being cancelled is left alone."""
        if child.outcome is None and not child.cancelled:
            child.cancelled = True
            self._decisions.decide(c.CancelChild(child.key, child.run_id, reason, timed_out), path)

    def ended(self, event: Outcome) -> None:
        """Take in how a child ended."""
        child = self._children.get(event.key)
        if child is None:
            if event.key in self._let_go or (self._generation == 1 and not self.knows_all):
                return  # let go, and told again: by its timeout and then by its row
            if self.knows_all:
                words = f"no child of key {event.key!r} is started"
                self._decisions.diverge(entry_of_event(event), words, "", event.key)
            child = self._children[event.key] = Child(event.key, child_run_id(self._run_id, event.key))
        if child.outcome is None:
            self.settle(child, event)

    def settle(self, child: Child, outcome: Outcome) -> None:
        """Keep how a child ended, and tell who waits for it."""
        self._ended += 1
        child.order = self._ended
        child.outcome = outcome
        if child.deadline is not None:
            child.deadline.cancel()
            child.deadline = None
        self.last_failed = not isinstance(outcome, e.ChildCompleted)
        if child.waiters:
            waiters, child.waiters = child.waiters, []
            for wake in waiters:
                wake()
        if child.fleeting:
            self._forget_ended(child)

    def value(self, child: Child, workflow: str, codec: Codec[Any]) -> Any:
        """Return the result of a child that has ended, or raise how it ended."""
        match child.outcome:
            case e.ChildCompleted() as completed:
                try:
                    return codec.decode(completed.result)
                except DecodeError as error:
                    self._decisions.undecodable(error, child.key)
            case e.ChildFailed(failure=failure):
                raise child_error(child.run_id, workflow or child.workflow, failure)
            case e.ChildCancelled(reason=reason):
                raise ChildCancelled(child.run_id, workflow or child.workflow, reason)
            case e.ChildStartFailed(message=message):
                raise DuplicateChildId(message)
            case None:
                raise AssertionError("the child has not ended")

    @property
    def closes(self) -> bool:
        """Whether a child may live that is to be cancelled when the run ends."""
        return self._carried_closing or any(
            child.outcome is None and _closes(child) for child in self._children.values()
        )

    def carry(self, deadlines: tuple[tuple[str, int], ...], closes: bool) -> None:
        """Keep the timeouts of children of earlier generations, and whether some of those close with the run."""
        self._carried_closing = closes
        for key, at_us in deadlines:
            child = self._children.setdefault(key, Child(key, child_run_id(self._run_id, key)))
            if child.outcome is None:
                self._bound(child, at_us)

    def deadlines(self) -> tuple[tuple[str, int], ...]:
        """Return the timeouts of children that have not ended, for the next generation, by the clock."""
        return tuple(
            (child.key, child.deadline_us - self._decisions.behind_us)
            for child in self._children.values()
            if child.outcome is None and child.deadline_us is not None
        )

    def outliving(self) -> tuple[tuple[str, int], ...]:
        """Return the timeouts of children that may live on when the run ends, by the clock."""
        return tuple(
            (child.key, child.deadline_us - self._decisions.behind_us)
            for child in self._children.values()
            if child.outcome is None and child.deadline_us is not None and not (child.cancelled or _closes(child))
        )

    def outcome_of(self, key: str) -> Outcome | None:
        """Return how the child of that key ended, or None if that is not known, or not any more."""
        child = self._children.get(key)
        return None if child is None else child.outcome

    def workflow_of(self, key: str) -> str:
        """Return the name of a child's workflow, or '' if only an earlier generation knows it."""
        child = self._children.get(key)
        return child.workflow if child is not None else self._let_go.get(key, "")

    def has_ended(self, key: str) -> bool:
        """Say whether this run has heard how the child of that key ended."""
        child = self._children.get(key)
        return key in self._let_go if child is None else child.outcome is not None

    def unanswered(self) -> list[c.StartChild]:
        """Return the starts of this generation that nothing was heard of."""
        return [
            child.start for child in self._children.values() if child.start is not None and child.outcome is None
        ]

    def awaited(self) -> Iterator[Child]:
        """Yield the children that somebody waits for."""
        return (child for child in self._children.values() if child.outcome is None and child.waiters)

    def outstanding(self) -> Iterator[c.AwaitChild]:
        """Yield what was asked about children of earlier generations."""
        return (
            c.AwaitChild(child.key, child.run_id)
            for child in self._children.values()
            if child.asked and child.outcome is None
        )

    def _check_depth(self, key: str, program: ChildProgram) -> None:
        # Workers' limits may differ, so a refusal is a decision: on replay the journal says what it was.
        depth, limit = self._depth + 1, self._limit
        if self._refused_in is not self._decisions.commands:
            self._refused_in, self._refused = self._decisions.commands, {}
        if key in self._refused:  # asked again in the same turn: decided already
            depth, limit = self._refused[key]
        elif self._decisions.recorded is not None:
            refused = self._decisions.take("child_refused", key)
            if refused is None:
                return
            try:
                depth, limit = (int(value_in(refused, name)) for name in ("depth", "limit"))
            except ValueError as error:
                self._decisions.undecodable(DecodeError(f"journal entry child_refused {key}", str(error)), key)
        elif depth <= limit:
            return
        else:
            self._decisions.decide(c.RefuseChild(key, program.name, depth, limit), "")
        self._refused[key] = depth, limit
        raise ChildDepthExceeded(
            f"child {key!r} ({program.name}) would lie {depth} below its root; max_child_depth is {limit}"
        )

    def _bound(self, child: Child, at_us: int) -> None:
        child.deadline_us = at_us
        child.deadline = self._loop.call_at_as(f"{child.key}.timeout", at_us / 1_000_000, self._expire, child)

    def _expire(self, child: Child) -> None:
        child.deadline = None
        if child.outcome is not None:
            return
        self.cancel(child, "", "timeout", timed_out=True)
        self.settle(child, e.ChildFailed(self._loop.now_us, child.key, CHILD_TIMED_OUT))

    def _forget_ended(self, child: Child) -> None:
        del self._children[child.key]
        self.knows_all = False
        self._let_go[child.key] = child.workflow
        if len(self._let_go) > MOST_LET_GO:
            del self._let_go[next(iter(self._let_go))]


def _closes(child: Child) -> bool:
    return child.start is not None and child.start.options.on_parent_close == "cancel"
