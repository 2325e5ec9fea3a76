"""Starting, signalling and cancelling inside a caller's own transaction.

The rule: what the caller rolls back leaves nothing, what it commits is told by NOTIFY in the same commit. A
run's row is locked by ``cancel`` alone. The steps are the same for a sync and an async connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncRawCursor, RawCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from continuum._core.effects import Message
from continuum._journal.cascade import Cascade, Step, Steps, cancelling
from continuum._journal.commit import NewRoot
from continuum._journal.connections import adapt, is_storable
from continuum._journal.hints import CHANNELS, payloads
from continuum._journal.render import message_row
from continuum._journal.rows import rendered, root_row
from continuum._journal.statements import Statement, statement
from continuum.errors import InvalidSetting, RunNotActive, RunNotFound

T = TypeVar("T")
_NOTIFY = Statement(
    b"select count(pg_notify(c, p)) from unnest($1::text[], $2::text[]) x(c, p)", ("channels", "payloads")
)


_ISOLATION = Statement(b"select current_setting('transaction_isolation')", ())


def starting(schema: str, runs: Sequence[NewRoot]) -> Steps[set[str]]:
    """Insert root runs; the result is the ids inserted."""
    rows = yield Step(statement("start", schema), {"runs": rendered(root_row, runs)})
    started = {row[0] for row in rows}
    yield _notify(
        schema, {"ready": sorted({f"{run.workflow}:{run.version}" for run in runs if run.run_id in started})}
    )
    return started


def sending(schema: str, messages: Sequence[Message]) -> Steps[None]:
    """Put messages into inboxes. Raises ``RunNotFound`` and ``RunNotActive``."""
    for message in messages:
        if not is_storable(message.run_id):
            raise RunNotFound(message.run_id)
    wanted = statement("send", schema, frozenset(("all",)))
    rows = yield Step(wanted, {"messages": rendered(message_row, messages)})
    states = {run_id: (state, live) for run_id, state, live in rows}
    for message in messages:
        state, live = states.get(message.run_id, (None, False))
        if state is None:
            raise RunNotFound(message.run_id)
        if not live:
            raise RunNotActive(message.run_id, state)
    yield _notify(schema, {"mail": list(states)})


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
    told = {"ended": done.ended(), "fenced": sorted(done.owners), "mail": [done.parent] if done.parent else []}
    if done.runs:
        yield _notify(schema, told)
    return done


def take(connection: psycopg.Connection[Any], steps: Steps[T]) -> T:
    """Run ``steps`` on a sync connection, whole or not at all."""
    own = connection.transaction() if _needs_block(connection) else nullcontext()
    with own, RawCursor(connection, row_factory=tuple_row) as cursor:
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
    """Run ``steps`` on an async connection, whole or not at all."""
    own = connection.transaction() if _needs_block(connection) else nullcontext()
    async with own, AsyncRawCursor(connection, row_factory=tuple_row) as cursor:
        adapt(cursor)
        try:
            step = next(steps)
            while True:
                await cursor.execute(step.statement.text, step.statement.arguments(step.values))
                step = steps.send(await cursor.fetchall())
        except StopIteration as end:
            result: T = end.value
            return result


def _needs_block(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether the steps need a block of their own: a transaction, or a savepoint in the caller's.

    Not where the first statement begins the caller's transaction: a block would end it, too.
    """
    return connection.autocommit or connection.info.transaction_status is not TransactionStatus.IDLE


def _notify(schema: str, said: Mapping[str, Iterable[str]]) -> Step:
    pairs = [
        (CHANNELS[kind].replace("{schema}", schema), part)
        for kind, names in said.items()
        for part in payloads(names)
    ]
    values = {"channels": [channel for channel, _ in pairs], "payloads": [payload for _, payload in pairs]}
    return Step(_NOTIFY, values)
