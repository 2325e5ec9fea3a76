"""Starting, signalling and cancelling inside a caller's own transaction.

The rule: what the caller rolls back leaves nothing, what it commits is told by NOTIFY in the same commit. A
run's row is locked by ``cancel`` alone. What is refused is undone to a savepoint, so that the caller's transaction
goes on. The steps are the same for a sync and an async connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncRawCursor, RawCursor, errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from continuum._core.effects import Message
from continuum._journal import deliveries
from continuum._journal.canceller import requesting
from continuum._journal.cascade import Cascade, Step, Steps, cancelling
from continuum._journal.commit import NewRoot
from continuum._journal.connections import adapt, is_in_the_way, is_lock_timeout, is_of_values, one_line
from continuum._journal.hints import CHANNELS, payloads
from continuum._journal.lane import Lanes
from continuum._journal.rows import rendered, root_row
from continuum._journal.statements import Statement, statement
from continuum._journal.storable import is_storable
from continuum.errors import (
    ContinuumError,
    DatabaseBusy,
    DatabaseRefused,
    DatabaseUnreachable,
    InvalidSetting,
    RunNotActive,
    RunNotFound,
)

T = TypeVar("T")
Connection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
_NOTIFY = Statement(
    b"select count(pg_catalog.pg_notify(c, p)) from unnest($1::text[], $2::text[]) x(c, p)",
    ("channels", "payloads"),
)
_ISOLATION = Statement(b"select current_setting('transaction_isolation')", ())
_NOT_OURS = (
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
)  # what tells that our tables are not there, or are others than those we know
_STATES = {
    TransactionStatus.INERROR: "its transaction has failed: roll it back, and begin another",
    TransactionStatus.ACTIVE: "it is in the midst of a statement: finish that first",
    TransactionStatus.UNKNOWN: "it is closed: bring an open one",
}


class Place(NamedTuple):
    """Which database it is, so that no other is taken for it: its number, its name, when our tables were made."""

    number: int
    name: str
    made_us: int


class Outside:
    """What can be done in callers' transactions, as steps that ``take`` carries out on their connections.

    ``used`` is called before any: messages sent there are armed by whoever hears of them, this process if need be.
    """

    def __init__(self, lanes: Lanes, schema: str, used: Callable[[], None]) -> None:
        self._lanes = lanes
        self._used = used
        self._schema = schema
        self._place: Place | None = None

    async def __call__(self) -> Outside:
        """Return this when it knows where the journal is, so that it can refuse another database."""
        self._used()
        if self._place is None:
            ((number, name, made_us),) = await self._lanes.read(statement("place", self._schema), {})
            self._place = Place(number, name, made_us)
        return self

    def start(self, root: NewRoot) -> Steps[tuple[str, bytes] | None]:
        """Start a root run; if there is one of its id, return that one's workflow and input.

        Raises ``DatabaseBusy`` if another's open transaction is starting it.
        """
        return self._borrowed(_starting_one(self._schema, root))

    def send(self, message: Message) -> Steps[None]:
        """Put a message into an inbox. Raises ``RunNotFound``, ``RunNotActive`` and ``MessageIdTaken``."""
        return self._borrowed(sending(self._schema, [message]))

    def cancel(self, run_id: str, reason: str) -> Steps[None]:
        """Cancel a run and everything below it; a cancelled one is left as it is.

        Raises as ``cancelling_here``, and ``RunNotActive`` for a run that has completed or failed.
        """
        return self._borrowed(_cancelling_active(self._schema, run_id, reason))

    def request_cancel(self, run_id: str, reason: str, grace_s: float) -> Steps[None]:
        """Ask a run to stop by a deadline, counted from the transaction's begin; a cancelled one is left as it is.

        Raises ``RunNotFound``, and ``RunNotActive`` for a run that has completed or failed.
        """
        return self._borrowed(_requesting_active(self._schema, run_id, reason, grace_s))

    def _borrowed(self, steps: Steps[T]) -> Steps[T]:
        ((*found, patience, _),) = yield Step(statement("place", self._schema, frozenset(("patience",))), {})
        place, ours = Place(*found), self._place
        if ours is not None and place != ours:
            another = repr(place.name) if place.name != ours.name else f"another one named {place.name!r}"
            raise InvalidSetting(
                f"the connection leads to database {another} and the client's journal is in {ours.name!r}: give a "
                "connection to the same database, or connect a client to that one"
            )
        done = yield from steps
        yield Step(statement("give_back", self._schema), {"lock_timeout": patience})
        return done


def _starting_one(schema: str, root: NewRoot) -> Steps[tuple[str, bytes] | None]:
    if (yield from starting(schema, [root])):
        return None
    found = yield Step(statement("taken", schema), {"run_id": root.run_id})
    if not found:
        raise DatabaseBusy(
            f"run {root.run_id!r} exists, and this transaction cannot see it yet: begin another one"
        )
    ((workflow, given),) = found
    return workflow, given


def _cancelling_active(schema: str, run_id: str, reason: str) -> Steps[None]:
    done = yield from cancelling_here(schema, run_id, reason)
    if done.state is not None and not done.runs and done.state != "cancelled":
        raise RunNotActive(run_id, done.state)


def _requesting_active(schema: str, run_id: str, reason: str, grace_s: float) -> Steps[None]:
    if not is_storable(run_id):
        raise RunNotFound(run_id)
    state = yield from requesting(schema, run_id, reason, grace_s)
    if state is None:
        raise RunNotFound(run_id)
    if state in ("completed", "failed"):
        raise RunNotActive(run_id, state)
    yield _notify(schema, {"mail": [run_id]})


def starting(schema: str, runs: Sequence[NewRoot]) -> Steps[set[str]]:
    """Insert root runs; the result is the ids inserted."""
    rows = yield Step(statement("start", schema), {"runs": rendered(root_row, runs)})
    started = {row[0] for row in rows}
    yield _notify(
        schema, {"ready": sorted({f"{run.workflow}:{run.version}" for run in runs if run.run_id in started})}
    )
    return started


def sending(schema: str, messages: Sequence[Message]) -> Steps[None]:
    """Put messages into inboxes. Raises ``RunNotFound``, ``RunNotActive`` and ``MessageIdTaken``."""
    for message in messages:
        if not is_storable(message.run_id):
            raise RunNotFound(message.run_id)
    sent = yield from deliveries.sending(schema, messages, whole=True)
    if sent.taken is not None:
        raise sent.taken
    for run_id, state in sent.missed.items():
        raise RunNotFound(run_id) if state is None else RunNotActive(run_id, state)
    yield _notify(schema, {"mail": sent.reached})


def cancelling_here(schema: str, run_id: str, reason: str) -> Steps[Cascade]:
    """Cancel a run and everything below it. Its rows stay locked until the caller's transaction ends.

    Raises ``InvalidSetting`` in a transaction that does not see what others commit meanwhile: children would
    escape.
    """
    ((isolation,),) = yield Step(_ISOLATION, {})
    if isolation != "read committed":
        raise InvalidSetting(
            f"cancelling {run_id!r} needs a transaction of isolation level read committed: this one is {isolation}"
        )
    done = yield from cancelling(schema, run_id, reason)
    if done.state is None:
        raise RunNotFound(run_id)
    told = {"ended": done.ended(), "fenced": sorted(done.owners), "mail": done.parents()}
    if done.runs:
        yield _notify(schema, told)
    return done


def take(connection: psycopg.Connection[Any], steps: Steps[T]) -> T:
    """Run ``steps`` on a sync connection, whole or not at all.

    Outside a transaction of the caller's, a connection with autocommit commits them; another one begins the
    caller's transaction. Raises what the steps raise, ``InvalidSetting`` for a connection that cannot be used,
    ``DatabaseBusy``, ``DatabaseRefused``, and ``DatabaseUnreachable`` if the connection breaks.
    """
    with _meant(connection):
        if not connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
            with RawCursor(connection) as cursor:
                cursor.execute(b"select 1")
        with connection.transaction(), RawCursor(connection, row_factory=tuple_row) as cursor:
            adapt(cursor)
            try:
                step = next(steps)
                while True:
                    cursor.execute(step.statement.text, step.statement.arguments(step.values))
                    step = steps.send(cursor.fetchall())
            except StopIteration as end:
                result: T = end.value
                return result


async def take_async(connection: psycopg.AsyncConnection[Any], steps: Steps[T]) -> T:
    """Run ``steps`` on an async connection; see ``take``."""
    with _meant(connection):
        if not connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
            async with AsyncRawCursor(connection) as cursor:
                await cursor.execute(b"select 1")
        async with connection.transaction(), AsyncRawCursor(connection, row_factory=tuple_row) as cursor:
            adapt(cursor)
            try:
                step = next(steps)
                while True:
                    await cursor.execute(step.statement.text, step.statement.arguments(step.values))
                    step = steps.send(await cursor.fetchall())
            except StopIteration as end:
                result: T = end.value
                return result


@contextmanager
def _meant(connection: Connection) -> Generator[None]:
    """Refuse a connection that cannot be used, and say what its errors mean."""
    state = TransactionStatus.UNKNOWN if connection.closed else connection.info.transaction_status
    if state in _STATES:
        raise InvalidSetting(f"this connection cannot be used: {_STATES[state]}")
    if connection.info.encoding not in ("utf-8", "ascii"):
        raise InvalidSetting(
            f"this connection speaks {connection.info.encoding}: give one whose client_encoding is UTF8"
        )
    database = connection.info.dbname
    try:
        yield
    except psycopg.Error as error:
        raise _meaning(error, connection, database) from error
    except UnicodeError as error:
        raise DatabaseRefused(f"text that no encoding has: {one_line(error)}") from error


def _meaning(error: psycopg.Error, connection: Connection, database: str) -> ContinuumError:
    reason = one_line(error.diag.message_primary or error)
    if connection.closed:
        return DatabaseUnreachable(f"the connection broke, and its transaction is lost: {reason}")
    if is_lock_timeout(error):
        return DatabaseBusy(f"an open transaction holds what this needs: {reason}; this one can go on")
    if is_in_the_way(error):
        return DatabaseBusy(f"another transaction is in the way: {reason}; begin this one again")
    if is_of_values(error):
        return DatabaseRefused(f"Postgres refuses what it was given: {reason}")
    if isinstance(error, _NOT_OURS):
        return InvalidSetting(
            f"database {database!r}, to which the connection leads, has not the journal's tables: {reason}; "
            "give a connection to the client's database"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return InvalidSetting(
            f"the connection, which logged in as {connection.info.user!r}, may not write to the journal: "
            f"{reason}; grant its role the worker role (continuum db roles)"
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return InvalidSetting(f"the connection only reads: {reason}; give one that writes")
    if error.sqlstate is None:
        return InvalidSetting(f"this connection cannot be used: {reason}")
    return DatabaseUnreachable(f"Postgres refuses: {reason}")


def _notify(schema: str, said: Mapping[str, Iterable[str]]) -> Step:
    pairs = [
        (CHANNELS[kind].replace("{schema}", schema), part)
        for kind, names in said.items()
        for part in payloads(names)
    ]
    values = {"channels": [channel for channel, _ in pairs], "payloads": [payload for _, payload in pairs]}
    return Step(_NOTIFY, values)
