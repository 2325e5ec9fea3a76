"""Short words for what the journal's tests say again and again."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from continuum._core.effects import Message, NewRun
from continuum._core.entries import Entry
from continuum._journal.commit import Claimed, Commit, Committed, NewRoot, NewTask
from continuum._journal.hints import CHANNELS
from continuum._journal.hooks import INERT, Hooks
from continuum._journal.journal import PostgresJournal
from continuum._journal.protocol import Journal
from continuum.policies import ChildOptions
from tests.until import soon, until

FLOW = ("flow", 1)
KID = ("kid", 1)


@asynccontextmanager
async def worker(
    url: str, worker_id: str = "w", *, lease_s: float = 10, hooks: Hooks = INERT
) -> AsyncIterator[PostgresJournal]:
    """An open journal whose process is a worker."""
    async with PostgresJournal(url, hooks=hooks).open(migrating=False) as journal:
        await journal.register(worker_id, lease_s, {"host": "here"})
        yield journal


def root(run_id: str = "r", workflow: str = "flow", input: bytes = b"null", **options: Any) -> NewRoot:
    return NewRoot(run_id, workflow, 1, input, **options)


def entry(
    key: str = "a", payload: bytes = b'{"name":"a","input":null,"result":1}', type: str = "activity_completed"
) -> Entry:
    return Entry(type, key, 1_700_000_000_000_000, payload)


def signal(to: str, payload: bytes = b"1", name: str = "go", delivery_id: str | None = None) -> Message:
    return Message(to, "signal_received", name, b'{"payload":%b}' % payload, delivery_id)


def outcome(child_id: str, result: bytes = b"1") -> Message:
    """The message that tells a parent its child's result."""
    parent, _, key = child_id.rpartition("/")
    return Message(parent, "child_completed", key, b'{"result":%b}' % result)


def child(parent: str, key: str, *, workflow: str = "kid", input: bytes = b"null", **options: Any) -> NewRun:
    run_id = f"{parent}/{key}"
    return NewRun(run_id, parent, key, run_id.count("/"), workflow, 1, input, ChildOptions(**options))


def task(key: str = "t", queue: str = "q", **options: Any) -> NewTask:
    return NewTask(key, queue, "work", b"null", **options)


def turn(run: Claimed, **parts: Any) -> Commit:
    """A commit under the lease of ``run``; its entries are numbered from 1 unless ``seq`` says otherwise."""
    return Commit(run.run_id, run.token, run.generation, parts.pop("seq", 1), **parts)


async def claim(journal: Journal, *definitions: tuple[str, int], limit: int = 100) -> dict[str, Claimed]:
    return {run.run_id: run for run in await journal.claim(definitions or (FLOW, KID), limit)}


async def begin(journal: Journal, *runs: NewRoot) -> list[Claimed]:
    """Start runs and claim them, in the order given."""
    runs = runs or (root(),)
    assert await journal.start(runs) == {run.run_id for run in runs}
    claimed = await claim(journal)
    return [claimed[run.run_id] for run in runs]


async def write(journal: Journal, *commits: Commit) -> tuple[Committed, ...]:
    """Commit, and insist that it is durable."""
    outcomes = await soon(journal.commit(*commits))
    return tuple(found for found in outcomes if isinstance(found, Committed) or not_written(outcomes))


def not_written(outcomes: object) -> bool:
    raise AssertionError(f"not committed: {outcomes}")


class Heard:
    """The hints that a journal was told."""

    def __init__(self, journal: Journal) -> None:
        self.hints: list[tuple[str, str]] = []
        self._more = asyncio.Event()
        journal.on_hint = self.take

    def take(self, kind: str, names: Collection[str]) -> None:
        self.hints += [(kind, name) for name in names] or [(kind, "")]
        self._more.set()

    async def until(self, kind: str, name: str = "") -> None:
        async def look() -> None:
            while (kind, name) not in self.hints:
                self._more.clear()
                await self._more.wait()

        try:
            await soon(look())
        except TimeoutError:
            raise AssertionError(f"no hint {kind} {name!r} among {self.hints}") from None


async def listening(journal: PostgresJournal) -> Heard:
    """Return what a journal hears from now on, when it hears: of everything, whatever it needs itself."""
    heard = Heard(journal)
    journal._listener.need(*CHANNELS)

    async def hears() -> bool:
        return journal.hears

    await until(hears)
    return heard


def select(url: str, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Run a statement of the test's own, in a transaction of its own."""
    cursor = LOOKING.at(url).execute(sql.encode(), arguments)
    return cursor.fetchall() if cursor.description else []


class Looking:
    """The connection that a test looks with: conditions are asked again and again, and a new one takes 5 ms."""

    def __init__(self) -> None:
        self._url = ""
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        atexit.register(self.close)

    def at(self, url: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a live connection there; it is made anew for another url, or if it was broken."""
        if self._connection is not None and url == self._url:
            try:
                self._connection.execute("select 1")
                return self._connection
            except psycopg.OperationalError:
                pass
        self.close()
        self._url = url
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        return self._connection

    def close(self) -> None:
        """Let it go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


LOOKING = Looking()


def strike(url: str, name: str, blow: str = "pg_terminate_backend") -> int:
    """Terminate (or cancel) the backends of a journal's connection of that name; return how many."""
    where = "application_name = %s and datname = current_database()"
    gone = ", 10000" if blow == "pg_terminate_backend" else ""  # milliseconds until it has ended
    return len(select(url, f"select {blow}(pid{gone}) from pg_stat_activity where {where}", f"continuum {name}"))


def waiting_for_a_lock(url: str, name: str) -> Callable[[], Awaitable[bool]]:
    """A condition for ``until``: a journal's connection of that name waits for a lock."""

    async def look() -> bool:
        where = "application_name = %s and datname = current_database() and wait_event_type = 'Lock'"
        return bool(select(url, f"select 1 from pg_stat_activity where {where}", f"continuum {name}"))

    return look


async def blocked(url: str, name: str = "flush") -> None:
    """Wait until a journal's connection of that name waits for a lock."""
    await until(waiting_for_a_lock(url, name))
