"""A handle on one run: wait for it, look at it, signal it, cancel it.

The rule: a handle holds an id and no state. Every verb asks the database, and what it changed is durable on
return.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from continuum._caller import within_async
from continuum._core.codec import ANY, Codec
from continuum._core.effects import Message
from continuum._core.entries import entry_of_event
from continuum._core.events import SignalReceived
from continuum._core.failure import remote, where
from continuum._core.keys import MAX_RUN_ID_BYTES, check_text
from continuum._journal.commit import End
from continuum._journal.description import EventRow, RunRow
from continuum._updating import AskedUpdate, declared
from continuum.children import MAX_NAME_BYTES, MAX_REASON_BYTES
from continuum.descriptions import Event, RunDescription, described, event, failure_of, is_due
from continuum.errors import (
    DatabaseUnreachable,
    InvalidSetting,
    RunCancelled,
    RunFailed,
    RunNotActive,
    RunNotFound,
    UnknownMessage,
)
from continuum.policies import Duration, duration, expect
from continuum.updates import Update
from continuum.workflow import Workflow, undeclared_signal

if TYPE_CHECKING:
    from continuum._journal.cascade import Steps
    from continuum._journal.protocol import Journal

__all__ = ["RunHandle"]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")
MAX_DELIVERY_BYTES = 500
LAST_LOOK_S = 5.0  # when a wait is over, for saying how the run stands


class RunHandle(Generic[R]):
    """One run, by its id. ``Client.start`` and ``Client.get_run`` make handles; they are plain values.

    >>> run = await client.start(order_flow, order, id="order-7")  # doctest: +SKIP
    >>> receipt = await run.result(timeout=30)  # doctest: +SKIP
    """

    __slots__ = ("_flow", "_journal", "id")

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name
        journal: Callable[[], Journal],
        flow: Workflow[Any, R] | None = None,
    ) -> None:
        self.id = check_text("run id", id, MAX_RUN_ID_BYTES)
        self._journal = journal
        self._flow = flow

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait until the run has ended and return its result.

        Raises ``RunFailed`` with the recorded error and a note on where it failed, ``RunCancelled``,
        ``RunNotFound``; ``TimeoutError`` when ``timeout`` (seconds or ``timedelta``) has passed, whose text says
        what the run waits for. Waiting for a parked run goes on until somebody resumes it. The run does not notice
        who waits for it, or stops to.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        journal = self._journal()
        if timeout is None:
            return self._outcome(await journal.wait(self.id))
        limit_s = duration("timeout", timeout).total_seconds()
        bound = asyncio.timeout(limit_s)
        try:
            async with bound:
                return self._outcome(await journal.wait(self.id))
        except TimeoutError:
            if not bound.expired():
                raise
        told = f"run {self.id!r} has not ended within {limit_s:g} s"
        return self._outcome(await self._last_look(journal, told))

    async def describe(self) -> RunDescription:
        """Return the run as it stands. Raises ``RunNotFound``."""
        journal = self._journal()
        return (await described_all(journal, [await existing(journal, self.id)], self._flow))[0]

    async def history(self, generation: int | None = None) -> list[Event]:
        """Return the journal of one generation (they count from 1), or of all. Raises ``RunNotFound``.

        How a run began and ended stands in ``describe``; the journal has what happened in between.
        """
        journal = self._journal()
        events: list[Event] = []
        after = (0, -1)
        while page := await journal.views.history(self.id, generation, after=after):
            results = await self._child_results(journal, page)
            events += [event(row, results) for row in page]
            after = (page[-1].generation, page[-1].seq)
        if not events:
            await existing(journal, self.id)
        return events

    async def signal(
        self,
        name: str,
        payload: Any = None,
        *,
        delivery_id: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Send the run a signal; it is durable on return, and read whenever the run asks for it.

        Of all signals with one ``delivery_id`` the run gets the first, in whichever generation: so sending may be
        repeated until it succeeds. With a ``connection`` of the caller's it is part of the transaction there; see
        ``Client.start``. Raises ``EncodeError`` for a payload that does not fit the type the workflow declares for
        it, ``UnknownMessage`` for a name that it does not declare though it declares others, ``RunNotFound``,
        ``RunNotActive`` for a run that has ended and never had this ``delivery_id``, ``MessageIdTaken`` for one
        under which something else was sent, and ``DatabaseBusy`` while an open transaction sends under it.
        """
        if connection is not None:
            await within_async(connection, await self._sending(name, payload, delivery_id))
            return
        missed = await self._journal().send([await self._checked(name, payload, delivery_id)])
        if self.id in missed:
            raise _ended(self.id, missed[self.id])

    @overload
    async def update(
        self, update: Update[I, T], value: I, *, id: str | None = None, timeout: Duration | None = None
    ) -> T: ...
    @overload
    async def update(
        self, update: str, value: Any = None, *, id: str | None = None, timeout: Duration | None = None
    ) -> Any: ...
    async def update(
        self,
        update: Any,
        value: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - the word of the interface
        timeout: Duration | None = None,
    ) -> Any:
        """Ask the run for an update and return its answer; by name with plain JSON.

        ``id`` names the update (else it gets a UUID): asked again under the same id it is the same update, done
        once, and its answer is there as long as the run is kept. It waits in the run until somebody handles it.

        Raises ``UpdateRefused`` (nothing was done), ``UpdateFailed``, ``EncodeError`` for a value that does not
        fit, ``UnknownMessage`` for a name that the workflow does not declare, ``MessageIdTaken`` for an id under
        which something else was sent, ``RunNotFound``, ``RunNotActive``; ``TimeoutError`` when ``timeout``
        (seconds or ``timedelta``) has passed, whose text says what the run waits for: the update stays, and its
        answer can be asked for under the same ``id``.

        >>> receipt = await run.update(set_address, address, timeout=10)  # doctest: +SKIP
        """
        known = declared(self._flow, update)
        update_id = str(uuid.uuid4()) if id is None else check_text("update's id", id, MAX_DELIVERY_BYTES)
        asked = AskedUpdate(self.id, update_id, known.name, known.input.encode(value), known.result)
        journal = self._journal()
        if timeout is None:
            return await asked.answer(journal)
        limit_s = duration("timeout", timeout).total_seconds()
        bound = asyncio.timeout(limit_s)
        try:
            async with bound:
                return await asked.answer(journal)
        except TimeoutError:
            if not bound.expired():
                raise
        told = f"run {self.id!r} has not answered update {known.name!r} within {limit_s:g} s"
        await self._last_look(journal, told, f"; ask again under id={update_id!r}")
        return await asked.answer(journal)  # the run has ended, so there is nothing to wait for

    async def cancel(
        self,
        reason: str = "cancelled by request",
        *,
        grace: Duration | None = None,
        connection: object | None = None,
    ) -> None:
        """Cancel the run and every run below it, at once and together. A cancelled run is left as it is.

        With ``grace`` (seconds or ``timedelta``) the run is asked first: its main task gets ``CancelledError``,
        and its clean-up may wait for activities and children. If it lets the error through, or has not ended when
        the time is over, it is cancelled with all that is below it; if it returns, it has completed, and if it
        raises another error, failed: then each child stays or goes as its ``on_parent_close`` says. On return the
        request and its deadline are durable: whatever becomes of workers, somebody keeps it. Asked again, the
        earlier deadline counts.

        With a ``connection`` of the caller's it is part of the transaction there, see ``Client.start``; until that
        ends, these runs wait. Raises ``RunNotFound``, ``RunNotActive`` if it has completed or failed, and
        ``DatabaseBusy`` while somebody's transaction holds one of the runs.
        """
        grace_s = grace_s_of(reason, grace)
        if connection is not None:
            await within_async(connection, await self._cancelling(reason, grace_s))
            return
        journal = self._journal()
        if not grace_s:
            done = await journal.cancel(self.id, reason)
            if done.runs == 0 and done.state != "cancelled":
                raise RunNotActive(self.id, done.state)
            return
        state = await journal.request_cancel(self.id, reason, grace_s)
        if state is None or state in ("completed", "failed"):
            raise _ended(self.id, state)

    async def resume(self) -> None:
        """Let a parked run be tried again; one that is not parked is left alone.

        Raises ``RunNotFound``, and ``RunNotActive`` for a run that has ended.
        """
        journal = self._journal()
        if not await journal.resume(self.id):
            row = await existing(journal, self.id)
            if row.completed_at is not None:
                raise RunNotActive(self.id, row.state)

    async def prune_generations(self, keep: int = 1) -> int:
        """Delete the journals of all generations but the newest ``keep``; return how many entries that were.

        For runs that go on for years. What the run does next does not depend on them; ``history()`` lacks them.
        Raises ``RunNotFound``.
        """
        expect("keep", keep, int, "a whole number")
        if keep < 1:
            raise InvalidSetting(f"keep is a whole number from 1, for a run needs its generation: got {keep}")
        return await self._journal().prune_generations(self.id, keep)

    def __repr__(self) -> str:
        return f"<run {self.id}{f' ({self._flow.name})' if self._flow is not None else ''}>"

    def _message(self, name: str, payload: Any, delivery_id: str | None) -> Message:
        check_text("signal's name", name, MAX_NAME_BYTES)
        if delivery_id is not None:
            check_text("delivery id", delivery_id, MAX_DELIVERY_BYTES)
        codec = self._flow.signal_codec(name) if self._flow is not None else ANY
        entry = entry_of_event(SignalReceived(0, name, codec.encode(payload), delivery_id))
        return Message(self.id, entry.type, entry.key, entry.payload, delivery_id)

    async def _checked(self, name: str, payload: Any, delivery_id: str | None) -> Message:
        """Return a signal; without a definition its name is looked up in what workers have announced.

        A run that is not seen, perhaps for it is part of the caller's transaction, is left to whoever sends.
        """
        message = self._message(name, payload, delivery_id)
        found = None if self._flow is not None else await self._journal().views.declared(self.id)
        problem = None if found is None else undeclared_signal(found[0], name, found[1])
        if found is not None and problem is not None:
            raise UnknownMessage(found[0], name, problem)
        return message

    async def _sending(self, name: str, payload: Any, delivery_id: str | None) -> Steps[None]:
        """Return the steps of a signal in a caller's transaction."""
        outside = await self._journal().outside()
        return outside.send(await self._checked(name, payload, delivery_id))

    async def _cancelling(self, reason: str, grace_s: float) -> Steps[None]:
        """Return the steps of a cancellation in a caller's transaction."""
        outside = await self._journal().outside()
        return outside.request_cancel(self.id, reason, grace_s) if grace_s else outside.cancel(self.id, reason)

    def _outcome(self, end: End) -> R:
        __tracebackhide__ = True
        if end.state == "completed":
            data = b"null" if end.result is None else end.result
            return (self._flow.result if self._flow is not None else cast("Codec[R]", ANY)).decode(data)
        failure = failure_of(end.error)
        if end.state == "cancelled":
            raise RunCancelled(self.id, failure.message, parent_cancelled=failure.type == "parent_cancelled")
        error = RunFailed(self.id, failure)
        error.__cause__ = remote(failure)
        if frames := where(failure):
            error.add_note(f"it failed here:\n{frames}")
        raise error

    async def _last_look(self, journal: Journal, told: str, then: str = "") -> End:
        """Return how the run has ended after all, or raise ``TimeoutError`` with what it waits for."""
        try:
            async with asyncio.timeout(LAST_LOOK_S):
                row = await existing(journal, self.id)
                (found,) = await described_all(journal, [row], self._flow)
        except (TimeoutError, DatabaseUnreachable) as error:
            raise TimeoutError(f"{told}, and Postgres does not say how it stands{then}") from error
        if row.completed_at is not None:
            return End(row.state, row.result, row.error)
        doing = f" by worker {found.worker_id!r}" if found.worker_id else ""
        if found.stop_by is not None:
            doing += f", asked to stop by {found.stop_by:%Y-%m-%d %H:%M:%S} UTC ({found.stop_reason})"
        waits = "last waited for" if found.state == "running" else "waiting for"
        waiting = f", {waits} {found.waiting_for}" if found.waiting_for else ""
        standing = getattr(journal, "standing", _unknown)(self.id)
        raise TimeoutError(f"{told}: it is {found.state}{doing}{waiting}{standing}{then}")

    async def _child_results(self, journal: Journal, page: Sequence[EventRow]) -> dict[str, bytes]:
        """Return results that are in the children's rows alone, by key."""
        keys = {f"{self.id}/{row.key}": row.key for row in page if row.payload is None}
        if not keys:
            return {}
        rows = await journal.views.describe_all(list(keys))
        return {keys[row.run_id]: row.result for row in rows if row.result is not None}


async def existing(journal: Journal, run_id: str) -> RunRow:
    """Return a run's row. Raises ``RunNotFound``."""
    row = await journal.describe(run_id)
    if row is None:
        raise RunNotFound(run_id)
    return row


async def described_all(
    journal: Journal, rows: Sequence[RunRow], flow: Workflow[Any, Any] | None = None
) -> list[RunDescription]:
    """Return ``rows`` as callers see them; who works on what is asked only if it matters to one of them."""
    workers: dict[tuple[str, int], int] = {}
    if any(is_due(row) for row in rows):
        for found, count in (await journal.definitions()).items():
            if found.kind == "workflow":
                workers[found.name, found.version] = count
    return [described(row, flow, workers) for row in rows]


def grace_s_of(reason: str, grace: Duration | None) -> float:
    """Return the seconds of a grace, 0 without one. Raises for a bad one, and for a bad reason."""
    check_text("reason", reason, MAX_REASON_BYTES)
    return 0.0 if grace is None else duration("grace", grace).total_seconds()


def _unknown(_run_id: str) -> str:
    """Say nothing of how a run stands in another process; the journal of a test's environment knows."""
    return ""


def _ended(run_id: str, state: str | None) -> Exception:
    return RunNotFound(run_id) if state is None else RunNotActive(run_id, state)
