"""Updates: messages that are checked, handled by a task of their own, and answered once.

The rule: whoever sent an update hears of it once: a refusal, what its handler returned, or what it raised. The
answer is a decision. Whether an update was refused is recorded in the turn in which it was looked at, so a replay
asks no validator. One that came before its handler waits, also over generations, in the order of arrival.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, Protocol

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.codec import Codec
from continuum._core.decisions import Decisions
from continuum._core.entries import Entry, entry_of_decision, fields_of
from continuum._core.failure import capture
from continuum._core.faults import Unwind
from continuum._core.keys import Scope
from continuum._core.loop import WorkflowLoop
from continuum._core.mailbox import Mailbox
from continuum._core.values import value
from continuum.errors import DecodeError, Failure

UNKNOWN = "UnknownMessage"
GONE_ON = Failure("RunContinued", "the run continued as new before this update was answered")


class UpdateProgram(Protocol):
    """What the core needs of an update's declaration."""

    @property
    def name(self) -> str: ...
    @property
    def input(self) -> Codec[Any]: ...
    @property
    def result(self) -> Codec[Any]: ...


@value
class Handler:
    """Who handles the updates of one name from now on. ``context`` is the one it was named in."""

    update: UpdateProgram
    function: Callable[[Any], Coroutine[Any, Any, Any]]
    validator: Callable[[Any], object] | None
    context: Context


class Updates:
    """The updates of one run's generation. ``undeclared`` says what is wrong with a name, None if nothing is."""

    __slots__ = ("_begun", "_count", "_decisions", "_handlers", "_loop", "_mailbox", "_open", "_undeclared")

    def __init__(
        self,
        loop: WorkflowLoop,
        decisions: Decisions,
        mailbox: Mailbox,
        undeclared: Callable[[str], str | None],
        *,
        begun: bool,
    ) -> None:
        self._loop = loop
        self._decisions = decisions
        self._mailbox = mailbox
        self._undeclared = undeclared
        self._handlers: dict[str, Handler] = {}
        self._begun: dict[str, str] = {}  # task paths, by the ids of updates that are being handled
        self._count = 0
        self._open = begun  # those carried over are there before the run's first turn

    def open(self) -> None:
        """Begin: what was carried over and is no longer declared is refused."""
        self._open = True
        for update in self._mailbox.take_updates(lambda name: self._undeclared(name) is not None):
            self.requested(update)

    def requested(self, update: e.UpdateRequested) -> None:
        """Take in an update: refuse it, begin with it, or let it wait for its handler."""
        handler = self._handlers.get(update.name)
        if self._was_refused(update):
            return
        if handler is not None:
            self._begin(handler, update)
            return
        problem = self._undeclared(update.name)
        if problem is not None and self._open and self._decisions.recorded is None:
            self._decide(c.AnswerUpdate(update.update_id, None, Failure(UNKNOWN, problem), refused=True), "")
        else:
            self._mailbox.put_update(update)

    def handle(self, handler: Handler) -> None:
        """Let ``handler`` have the updates of its name: those that wait, in their order, and those to come."""
        name = handler.update.name
        self._handlers[name] = handler
        for update in self._mailbox.take_updates(lambda waiting: waiting == name):
            self._begin(handler, update)

    def close(self) -> None:
        """Answer what is being handled while the generation ends and the run goes on."""
        with suppress(Unwind):  # the fault is set
            for update_id, path in list(self._begun.items()):
                self._decide(c.AnswerUpdate(update_id, None, GONE_ON), path)
        self._begun.clear()

    def _was_refused(self, update: e.UpdateRequested) -> bool:
        """Say whether the journal has a refusal at this point, and go past it."""
        recorded, key = self._decisions.recorded, ("update_answered", update.update_id)
        if not recorded or key not in recorded or _kind(recorded[key]) != "refused":
            return False
        self._decisions.take(*key)
        return True

    def _begin(self, handler: Handler, update: e.UpdateRequested) -> None:
        given = None if self._was_refused(update) else self._accepted(handler, update)
        if given is None:
            return
        self._count += 1
        scope = Scope(f"u{self._count}.")
        self._begun[update.update_id] = scope.path
        work = self._work(handler, update.update_id, given[0], scope.path)
        self._loop.spawn_as(work, f"update {update.name}", handler.context.copy(), scope)

    def _accepted(self, handler: Handler, update: e.UpdateRequested) -> tuple[Any] | None:
        """Return the update's input, or None after refusing it; what a replay comes to was accepted."""
        decisions, update_id = self._decisions, update.update_id
        if decisions.recorded is not None:
            try:
                return (handler.update.input.decode(update.payload),)
            except DecodeError as error:
                decisions.undecodable(error, update_id)
        failure: Failure | None = None
        try:
            given = handler.update.input.decode(update.payload)
            if handler.validator is not None:
                self._validate(handler.validator, given)
        except (KeyboardInterrupt, Unwind):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the author's validator raises refuses the update
            failure = capture(error)
        else:
            return (given,)
        self._decide(c.AnswerUpdate(update_id, None, failure, refused=True), "")
        return None

    def _validate(self, validator: Callable[[Any], object], given: Any) -> None:
        before, self._loop.aside = self._loop.aside, True
        try:
            answer = validator(given)
        finally:
            self._loop.aside = before
        if asyncio.iscoroutine(answer):
            answer.close()
            raise TypeError("a validator is a plain function: it decides nothing and waits for nothing")
        if answer is not None:  # what looks like a verdict must not pass for consent
            raise TypeError(f"a validator raises to refuse: it returned {answer!r}")

    async def _work(self, handler: Handler, update_id: str, given: Any, path: str) -> None:
        result: bytes | None = None
        failure: Failure | None = None
        try:
            result = handler.update.result.encode(await handler.function(given))
        except (KeyboardInterrupt, SystemExit, GeneratorExit, Unwind):
            raise
        except BaseException as error:  # noqa: BLE001 - told to who asked, whatever the author's handler raises
            failure = capture(error)
        if self._begun.pop(update_id, None) is not None:
            self._decide(c.AnswerUpdate(update_id, result, failure), path, handler.update.result)

    def _decide(self, decision: c.AnswerUpdate, path: str, codec: Codec[Any] | None = None) -> None:
        decisions = self._decisions
        if decisions.recorded is None or decision.failure is None or decisions.fault is not None:
            decisions.decide(decision, path, codec)
            return
        # Of a failure the kind is compared alone: its text may hold lines and addresses.
        entry = decisions.take("update_answered", decision.update_id)
        if entry is None or _kind(entry) != ("refused" if decision.refused else "error"):
            words = entry or f"no answer to update {decision.update_id} at this point"
            decisions.diverge(words, entry_of_decision(decision, decisions.at_us), path)


def _kind(entry: Entry) -> str:
    return next(iter(fields_of(entry)), "")
