"""What the conformance tests need beside the protocol: other workers, deaths, other people's locks.

The rule: a test of this folder says nothing of SQL. Whoever writes another journal writes another ``World``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol

import psycopg

from continuum._core.effects import Message
from continuum._journal.hints import CHANNELS
from continuum._journal.journal import PostgresJournal
from continuum._journal.protocol import Journal
from tests.journal.harness import Heard, select
from tests.journal.proxy import proxied


class Fault(Protocol):
    """Something that will get no answer; ``struck`` when it did not."""

    @property
    def struck(self) -> asyncio.Event: ...


class Losing(Protocol):
    """The way to a journal, which can lose a statement of a kind, or its answer, once."""

    def lose_answer(self, what: str) -> Fault: ...
    def lose_statement(self, what: str) -> Fault: ...


class World(ABC):
    """One place where runs are kept, as it looks to somebody who can stop clocks. ``heard`` is by worker."""

    def __init__(self) -> None:
        self.heard: dict[str | None, Heard] = {}

    @abstractmethod
    def journal(self, worker_id: str | None = "w", *, lease_s: float = 10) -> AbstractAsyncContextManager[Journal]:
        """A process with a journal of its own; without ``worker_id`` it is a client."""

    @abstractmethod
    def losing(self, worker_id: str) -> AbstractAsyncContextManager[tuple[Journal, Losing]]:
        """A process whose connections can be made to lose what they carry."""

    @abstractmethod
    def silence(self, worker_id: str) -> None:
        """Let a worker be silent for longer than its lease."""

    @abstractmethod
    def season(self, worker_id: str) -> None:
        """Let a worker have been connected for longer than its lease."""

    @abstractmethod
    def lapse_tasks(self) -> None:
        """Let the leases of all attempts be over."""

    @abstractmethod
    def lapse_deadlines(self) -> None:
        """Let the time of all runs that were asked to stop be over."""

    @abstractmethod
    def hold(self, *run_ids: str) -> AbstractContextManager[None]:
        """Keep runs locked in somebody else's transaction."""

    @abstractmethod
    def deliver_silently(self, message: Message) -> None:
        """Put a message into an inbox and tell nobody, as a sender does that dies right after its commit."""

    @abstractmethod
    def lease(self, run_id: str) -> tuple[str | None, int]:
        """Return a run's owner and token."""

    @abstractmethod
    def state(self, run_id: str) -> str:
        """Return a run's state as people see it."""

    @abstractmethod
    def error(self, run_id: str) -> str:
        """Return a run's error as text."""

    @abstractmethod
    def inherited(self, run_id: str) -> tuple[str, object, str | None]:
        """Return a run's namespace, its attributes as plain values, and its trace."""

    @abstractmethod
    def entries(self, run_id: str, generation: int = 1) -> list[tuple[int, str, str]]:
        """Return number, type and key of the entries of one generation."""

    @abstractmethod
    def count(self, what: str) -> int:
        """Return how many runs, events, messages ("inbox"), tasks, deliveries or cancellations there are."""


class PostgresWorld(World):
    """A database of Postgres."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    @asynccontextmanager
    async def journal(self, worker_id: str | None = "w", *, lease_s: float = 10) -> AsyncIterator[Journal]:
        opening = PostgresJournal(self.url)
        opening._listener.need(*CHANNELS)
        self.heard[worker_id] = Heard(opening)
        async with opening.open(migrating=False) as journal:
            if worker_id is not None:
                await journal.register(worker_id, lease_s, {})
            yield journal

    @asynccontextmanager
    async def losing(self, worker_id: str) -> AsyncIterator[tuple[Journal, Losing]]:
        async with proxied(self.url) as proxy, PostgresJournal(proxy.url).open(migrating=False) as journal:
            await journal.register(worker_id, 10, {})
            yield journal, proxy

    def silence(self, worker_id: str) -> None:
        self._sql(
            "update continuum.workers set beat_at = now() - interval '1 day' where worker_id = %s", worker_id
        )

    def season(self, worker_id: str) -> None:
        sql = "update continuum.workers set connected_at = now() - interval '1 day' where worker_id = %s"
        self._sql(sql, worker_id)

    def lapse_tasks(self) -> None:
        self._sql(
            "update continuum.tasks set lease_until = now() - interval '1 second' where lease_until is not null"
        )

    def lapse_deadlines(self) -> None:
        self._sql("update continuum.cancellations set due_at = now() - interval '1 second'")

    @contextmanager
    def hold(self, *run_ids: str) -> Iterator[None]:
        with psycopg.connect(self.url) as connection:
            connection.execute("select 1 from continuum.runs where run_id = any(%s) for update", [list(run_ids)])
            yield
            connection.rollback()

    def deliver_silently(self, message: Message) -> None:
        sql = "insert into continuum.inbox (run_id, type, key, payload) values (%s, %s, %s, %s)"
        self._sql(sql, message.run_id, message.type, message.key, message.payload.decode())

    def lease(self, run_id: str) -> tuple[str | None, int]:
        ((owner, token),) = self._sql(
            "select lease_owner, lease_token from continuum.runs where run_id = %s", run_id
        )
        return owner, token

    def state(self, run_id: str) -> str:
        ((state,),) = self._sql("select state from continuum.overview where run_id = %s", run_id)
        return str(state)

    def error(self, run_id: str) -> str:
        ((error,),) = self._sql("select error::text from continuum.runs where run_id = %s", run_id)
        return str(error)

    def inherited(self, run_id: str) -> tuple[str, object, str | None]:
        sql = "select namespace, attributes, trace from continuum.runs where run_id = %s"
        ((namespace, attributes, trace),) = self._sql(sql, run_id)
        return namespace, attributes, trace

    def entries(self, run_id: str, generation: int = 1) -> list[tuple[int, str, str]]:
        sql = "select seq, type, key from continuum.events where run_id = %s and generation = %s order by seq"
        return [(seq, kind, key) for seq, kind, key in self._sql(sql, run_id, generation)]

    def count(self, what: str) -> int:
        ((count,),) = self._sql(f"select count(*) from continuum.{what}")
        return int(count)

    def _sql(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        return select(self.url, sql, *arguments)
