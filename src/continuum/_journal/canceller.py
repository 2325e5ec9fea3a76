"""Cancelling for clients and for workers' chores: at once, or by a deadline that is kept in the database.

The rule: a cascade is one transaction on a connection of its own. A request to stop is a message and a deadline
in one commit; whoever comes first after the deadline cancels, and it does not matter if several come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import psycopg

from continuum._core.effects import Message
from continuum._core.entries import entry_of_event
from continuum._core.events import CancelRequested
from continuum._journal.backoff import Backoff
from continuum._journal.cascade import Cascade, Root, Step, Steps, cancelling, cascading, stopped
from continuum._journal.commit import Cancelled
from continuum._journal.connections import JsonText, is_in_the_way, is_of_values, one_line
from continuum._journal.hints import Hints
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Lane, Lanes, OutcomeUnknown
from continuum._journal.statements import statement
from continuum._journal.storable import is_storable
from continuum._journal.transaction import transaction
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable, RunNotFound

logger = logging.getLogger("continuum.journal")
LOCK_TIMEOUT = "1s"  # that a cascade waits for a row
WARY = "50ms"  # of what is overdue, when some are known to be held
PATIENCE_S = 30.0  # of a cascade for rows that others hold
MOST_OVERDUE = 100
LONGEST_GRACE_S = 3_000_000_000.0  # a hundred years: what is later cannot be added to a time of the database


class Canceller:
    """Cancels runs with everything below them, one cascade after the other."""

    def __init__(self, lane: Lane, lanes: Lanes, hints: Hints, *, schema: str, hooks: Hooks) -> None:
        self._lane = lane
        self._lanes = lanes
        self._hints = hints
        self._schema = schema
        self._hooks = hooks
        self._lock = asyncio.Lock()

    async def cancel(self, run_id: str, reason: str) -> Cancelled:
        """End a run and everything below it.

        Raises ``RunNotFound``, ``DatabaseUnreachable``, ``DatabaseRefused``, after a while ``DatabaseBusy``.
        """
        backoff = Backoff()
        give_up_at = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                done = await self._cascade(f"of run {run_id!r}", cancelling(self._schema, run_id, reason))
            except DatabaseBusy as error:
                if asyncio.get_running_loop().time() > give_up_at:
                    raise DatabaseBusy(f"others hold runs below {run_id!r}: {one_line(error)}") from error
                logger.info("a cascade from %r has to wait: %s", run_id, one_line(error))
                await backoff.pause()
            else:
                if done.state is None:
                    raise RunNotFound(run_id)
                return Cancelled(done.state, done.runs)

    async def request(self, run_id: str, reason: str, grace_s: float) -> str | None:
        """Ask a run to stop, and note its deadline; return its state as it was, None: there is no such run."""
        if not is_storable(run_id):
            return None
        state = await self._lanes.take(requesting(self._schema, run_id, reason, grace_s))
        if state is not None:
            self._hints.mail((), [run_id])
        return state

    async def overdue(self) -> int:
        """Cancel runs whose deadline has passed; return how many runs that ended.

        Those that somebody holds are passed over, so that the turn of the others comes, and so that this ends.
        """
        place = {"after": None, "after_id": ""}
        while True:
            found = await self._lanes.read(statement("overdue", self._schema), {**place, "limit": MOST_OVERDUE})
            ended = await self._stop([stopped(run_id, reason) for run_id, reason, _, free in found if free])
            if ended or len(found) < MOST_OVERDUE:
                return ended
            place = {"after": found[-1][2], "after_id": found[-1][0]}

    async def _stop(self, roots: Sequence[Root], patience: str | None = None) -> int:
        if not roots:
            return 0
        try:
            return (await self._cascade("of overdue runs", cascading(self._schema, roots), patience)).runs
        except DatabaseBusy as error:
            if len(roots) == 1:  # the next call finds it again
                logger.info("an overdue run has to wait: %s", one_line(error))
                return 0
        return sum([await self._stop([root], WARY) for root in roots])

    async def _cascade(self, what: str, steps: Steps[Cascade], patience: str | None = None) -> Cascade:
        """Run a cascade's steps as one transaction, and tell of it. Raises ``DatabaseBusy`` for rows in use."""
        try:
            async with self._lock:
                await self._lane.ping()
                connection = await self._lane.now()
                await self._hooks.reach("cancel.begin")
                async with transaction(
                    self._lane, connection, self._hooks, lock_timeout=patience or LOCK_TIMEOUT
                ) as inside:
                    done = await inside.take(steps)
                await self._hooks.reach("cancel.committed")
        except OutcomeUnknown as error:
            raise DatabaseUnreachable(f"the outcome of the cancellation {what} is not known: {error}") from error
        except psycopg.Error as error:
            if is_of_values(error):
                raise DatabaseRefused(f"Postgres refuses what it was given: {one_line(error)}") from error
            if is_in_the_way(error):
                raise DatabaseBusy(one_line(error)) from error
            raise DatabaseUnreachable(f"Postgres refuses to cancel: {one_line(error)}") from error
        done.tell(self._hints)
        return done


def requesting(schema: str, run_id: str, reason: str, grace_s: float) -> Steps[str | None]:
    """Ask a run to stop within some seconds; the result is its state as it was.

    Raises ``DatabaseRefused`` for a reason that cannot be stored.
    """
    values = {
        "run_id": run_id,
        "reason": reason,
        "grace_s": min(max(grace_s, 0.0), LONGEST_GRACE_S),
        "payload": JsonText(request_to_stop(run_id, reason).payload),
    }
    rows = yield Step(statement("request_cancel", schema), values)
    return rows[0][0] if rows else None


def request_to_stop(run_id: str, reason: str) -> Message:
    """Return the message that asks a run to stop.

    Raises ``DatabaseRefused`` for a reason that cannot be stored.
    """
    if not is_storable(reason):
        raise DatabaseRefused(f"the reason for cancelling run {run_id!r} cannot be stored: {reason!r}")
    entry = entry_of_event(CancelRequested(0, reason))
    return Message(run_id, entry.type, entry.key, entry.payload)
