"""The two sides of a race: workers with their journals, and transactions that stay open.

The rule: what a side does in the database is what the journal does there, the same statement files with the same
parameters; a test only decides when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from continuum._core.effects import Message, NewRun
from continuum._core.entries import Entry
from continuum._journal.batch import Written, flush_parts, flush_values, written
from continuum._journal.cascade import Cascade, cancelling
from continuum._journal.commit import Claimed, Commit, NewRoot
from continuum._journal.connections import Connection, connect
from continuum._journal.journal import PostgresJournal
from continuum._journal.outside import take_async
from continuum._journal.render import Row, render
from continuum._journal.statements import statement
from continuum.policies import ChildOptions
from tests.journal.races.stepper import Stepper, until

SCHEMA = "continuum"
FLOW = ("flow", 1)
LIVE = ("pending", "running", "suspended", "parked")


@dataclass(slots=True)
class Worker:
    """A worker: its journal, and what steps it. ``heard`` is what it was told by hints."""

    name: str
    journal: PostgresJournal
    stepper: Stepper
    heard: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def claim_one(self) -> Claimed:
        """Claim the one run that is due."""
        (run,) = await self.journal.claim([FLOW], 10)
        return run

    async def listen(self) -> None:
        """Write down the hints that come from now on."""
        self.journal.on_hint = lambda kind, names: self.heard.extend((kind, name) for name in names)

        async def hears() -> bool:
            return self.journal.hears

        await until(hears, f"worker {self.name} to hear")

    def die_silently(self) -> None:
        """If its hints do not pass, see that it does not try to send them when it closes."""
        if not self.stepper.lets_pass("poke.begin"):
            self.journal._hints._some.clear()

    async def hears(self, kind: str, name: str) -> None:
        """Wait until a hint came."""

        async def came() -> bool:
            return (kind, name) in self.heard

        await until(came, f"worker {self.name} to hear of {kind} {name}")


@asynccontextmanager
async def working(url: str, *names: str) -> AsyncIterator[list[Worker]]:
    """Workers with these names, registered, until the end of the block."""
    async with AsyncExitStack() as stack:
        team: list[Worker] = []
        for name in names:
            stepper = Stepper()
            journal = await stack.enter_async_context(PostgresJournal(url, hooks=stepper).open(migrating=False))
            await journal.register(name, 60, {})
            team.append(Worker(name, journal, stepper))
        try:
            yield team
        finally:
            for worker in team:
                worker.die_silently()


class Session:
    """A connection of a test's own: to look at the tables, and to hold a transaction open."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pid = connection.info.backend_pid

    async def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(sql.encode(), arguments)
        return await cursor.fetchall() if cursor.description is not None else []

    async def one(self, sql: str, *arguments: Any) -> Any:
        ((value,),) = await self.rows(sql, *arguments)
        return value

    # --- transactions

    async def begin(self) -> None:
        await self.rows("begin")

    async def commit(self) -> None:
        await self.rows("commit")

    async def roll_back(self) -> None:
        await self.rows("rollback")

    async def run(self, file: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement file of the journal."""
        wanted = statement(file, SCHEMA)
        cursor = await self.connection.execute(wanted.text, wanted.arguments(values))
        return await cursor.fetchall() if cursor.description is not None else []

    async def flush(self, worker: str, *commits: Commit, lock_timeout: str = "10s") -> Written:
        """Write commits by the flush statement, as ``worker``; several stand or fall together."""
        members = [render(commit, 1 if len(commits) > 1 else None) for commit in commits]
        rows: dict[str, list[Row]] = {}
        for member in members:
            for table, found in member.rows.items():
                rows.setdefault(table, []).extend(found)
        parts = flush_parts(members, mates=len(members) > 1)
        wanted = statement("flush", SCHEMA, parts)
        values = flush_values(worker, members, rows, lock_timeout)
        cursor = await self.connection.execute(wanted.text, wanted.arguments(values))
        return written(parts, (await cursor.fetchall())[0])

    async def cancel(self, run_id: str, reason: str = "") -> Cascade:
        """Cancel a run with all below it, in the transaction that is open."""
        return await take_async(self.connection, cancelling(SCHEMA, run_id, reason))

    async def hold(self, *run_ids: str) -> None:
        """Lock rows of runs, as a caller's ``select … for update`` does."""
        await self.rows("select 1 from continuum.runs where run_id = any($1) for update", list(run_ids))

    async def waits(self, name: str) -> None:
        """Wait until a session of that name, such as "continuum flush", waits for a lock."""

        async def waiting() -> bool:
            sql = """select count(*) from pg_stat_activity where datname = current_database()
                     and wait_event_type = 'Lock' and application_name = $1"""
            return bool(await self.one(sql, name))

        await until(waiting, f"{name} to wait for a lock")

    async def blocks(self, *, others: int = 1) -> None:
        """Wait until so many other sessions wait for a lock that this one holds."""

        async def waiting() -> bool:
            sql = "select count(*) from pg_stat_activity where $1 = any(pg_blocking_pids(pid))"
            async with session(self.connection.info.dsn) as other:
                return bool(await other.one(sql, self.pid) >= others)

        await until(waiting, f"{others} sessions to wait for {self.pid}")

    # --- looking

    async def state(self, run_id: str) -> str:
        return str(await self.one("select state from continuum.runs where run_id = $1", run_id))

    async def journal_of(self, run_id: str) -> list[str]:
        """The keys of a run's entries, in order."""
        sql = "select key from continuum.events where run_id = $1 order by generation, seq"
        return [row[0] for row in await self.rows(sql, run_id)]

    async def inbox_of(self, run_id: str) -> list[str]:
        sql = "select key from continuum.inbox where run_id = $1 order by id"
        return [row[0] for row in await self.rows(sql, run_id)]

    async def is_due(self, run_id: str) -> bool:
        sql = "select lease_owner is null and next_wakeup_at <= now() from continuum.runs where run_id = $1"
        return bool(await self.one(sql, run_id))

    async def until_due(self, run_id: str, seconds: float = 5) -> None:
        await until(lambda: self.is_due(run_id), f"run {run_id} to be due", seconds)

    async def live_below(self, run_id: str) -> int:
        sql = "select count(*) from continuum.runs where run_id >= $1 and run_id < $1 || '0' and state = any($2)"
        return int(await self.one(sql, run_id, list(LIVE)))

    async def deadlocks(self) -> int:
        """Return how many there were. Waits until every other session is gone: only then all have been counted."""

        async def alone() -> bool:
            sql = """select count(*) from pg_stat_activity
                     where datname = current_database() and backend_type = 'client backend' and pid <> $1"""
            return not await self.one(sql, self.pid)

        await until(alone, "the other sessions to end")
        await self.rows("select pg_stat_force_next_flush()")
        await self.rows("select pg_stat_clear_snapshot()")
        return int(await self.one("select deadlocks from pg_stat_database where datname = current_database()"))

    async def put(self, run_id: str, owner: str | None = None, *, due: bool = False, state: str = "") -> None:
        """Insert a run that stands as asked for; a lease has token 1."""
        sql = """insert into continuum.runs
                   (run_id, depth, workflow, version, input, state, lease_owner, lease_token,
                    next_wakeup_at, started_at)
                 values ($1, $2, 'flow', 1, 'null', $3, $4, 1, case when $5 then now() end, now())"""
        state = state or ("running" if owner else "suspended")
        await self.rows(sql, run_id, run_id.count("/"), state, owner, due)


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Session]:
    """A session of its own until the end of the block."""
    connection = await connect(url, name="test", prepared=False)
    try:
        yield Session(connection)
    finally:
        await connection.close()


# --- values, in short


def entry(key: str, payload: bytes = b"{}", kind: str = "signal_received") -> Entry:
    return Entry(kind, key, 1, payload)


def message(run_id: str, key: str, payload: bytes = b"{}", kind: str = "signal_received") -> Message:
    return Message(run_id, kind, key, payload)


def child(run_id: str) -> NewRun:
    parent, _, key = run_id.rpartition("/")
    return NewRun(run_id, parent, key, run_id.count("/"), FLOW[0], FLOW[1], b"null", ChildOptions())


def root(run_id: str) -> NewRoot:
    return NewRoot(run_id, FLOW[0], FLOW[1], b"null")


def turn(run_id: str, token: int = 1, seq: int = 1, keys: Sequence[str] = (), **rest: Any) -> Commit:
    """A commit of generation 1 that records ``keys``."""
    return Commit(run_id, token, 1, seq, tuple(entry(key) for key in keys), **rest)
