"""Workers and a client on one database: what the tests of sentences about the whole engine are written with.

The rule: a test acts through the public interface and waits for conditions. Its workers are quick to notice
everything, and one made ``FORGETFUL`` replays a run whenever that has waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import continuum
from continuum import Activity, Client, RunDescription, RunHandle, Worker, activity
from tests.journal.harness import select
from tests.journal.proxy import Proxy
from tests.until import PATIENCE_S, until

QUICK: dict[str, Any] = {"lease": 1, "heartbeat": 0.2, "poll": 0.2, "drain": 2}
FORGETFUL: dict[str, Any] = {"passivate_after": 0.01}


class Told:
    """A worker's listener: what it was told, and waiting for more."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.events.append((name, dict(fields)))

    def of(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the fields of all events of that name (without "continuum.") that have these."""
        return [
            told for known, told in self.events if known == f"continuum.{name}" and fields.items() <= told.items()
        ]

    async def until(self, name: str, count: int = 1, **fields: Any) -> None:
        async def enough() -> bool:
            return len(self.of(name, **fields)) >= count

        await until(enough)


class Gate:
    """``held``: an activity that goes on when the test says so. It notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.ended: list[str] = []
        self._entered = asyncio.Event()
        self._opened = asyncio.Event()

        @activity
        async def held(value: Any = None) -> Any:
            self.calls.append(value)
            self._entered.set()
            try:
                await self._opened.wait()
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("returned")
            return value

        self.held: Activity[..., Any] = held

    async def entered(self, times: int = 1) -> None:
        """Wait until it has been called so often."""

        async def enough() -> bool:
            return len(self.calls) >= times

        await until(enough)

    def open(self) -> None:
        self._opened.set()


class Raising:
    """Points of the engine of which one raises, some times, for one run."""

    def __init__(self, point: str, run_id: str, times: int = 1) -> None:
        self.point, self.run_id, self.left, self.raised = point, run_id, times, 0

    def at(self, point: str, run_id: str) -> None:
        if self.left and (point, run_id) == (self.point, self.run_id):
            self.left -= 1
            self.raised += 1
            raise RuntimeError(f"raised at {point}")


class Cluster:
    """One journal, its client, and as many workers as a test makes. In memory it has no ``url``."""

    def __init__(self, url: str | None, client: Client) -> None:
        self._url = url
        self.client = client

    @property
    def url(self) -> str:
        """The database's url. A test that asks for it speaks to the database itself, and is skipped elsewhere."""
        if self._url is None:
            pytest.skip("it speaks to the database itself")
        return self._url

    @asynccontextmanager
    async def worker(
        self,
        sources: Iterable[Any],
        *,
        client: Client | None = None,
        listeners: Sequence[Callable[[str, Mapping[str, Any]], None]] = (),
        **settings: Any,
    ) -> AsyncIterator[Worker]:
        """A worker for the block, quick unless ``settings`` say otherwise. At its end it has handed over."""
        made = Worker(client or self.client, list(sources), listeners=listeners, **{**QUICK, **settings})
        async with made as worker:
            yield worker

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Cluster]:
        """The same database through another url."""
        async with continuum.connect(url, migrate=False) as client:
            yield Cluster(self.url, client)

    async def start(self, flow: Any, input: Any = None, **options: Any) -> RunHandle[Any]:
        return await self.client.start(flow, input, **options)

    async def result(self, flow: Any, input: Any = None, **options: Any) -> Any:
        """Start a run and return its result."""
        run = await self.start(flow, input, **options)
        return await run.result(timeout=PATIENCE_S)

    async def until_state(self, run_id: str, *states: str) -> RunDescription:
        """Wait until a run is in one of these states, and return how it stands then."""

        return await self._until(run_id, lambda found: found.state in states)

    async def _until(self, run_id: str, wanted: Callable[[RunDescription], bool]) -> RunDescription:
        async def look() -> RunDescription | None:
            try:
                found = await self.client.get_run(run_id).describe()
            except continuum.RunNotFound:  # not yet
                return None
            return found if wanted(found) else None

        return await until(look)

    async def until_waiting(self, run_id: str, *words: str) -> RunDescription:
        """Wait until a run says that it waits for something with these words, and return how it stands then."""

        return await self._until(run_id, lambda found: all(word in (found.waiting_for or "") for word in words))

    async def entries(self, run_id: str, generation: int | None = None) -> list[tuple[str, str]]:
        """Return type and key of the entries of a run."""
        events = await self.client.get_run(run_id).history(generation)
        return [(event.type, event.key) for event in events]

    async def until_entry(
        self, run_id: str, type: str, key: str | None = None, *, generation: int | None = None
    ) -> None:
        """Wait until a run's journal has such an entry, in one generation or in any."""

        async def there() -> bool:
            try:
                entries = await self.entries(run_id, generation)
            except continuum.RunNotFound:  # not yet
                return False
            return any(found[0] == type and key in (None, found[1]) for found in entries)

        await until(there)

    async def until_generation(self, run_id: str, number: int) -> RunDescription:
        """Wait until a run is in that generation."""
        return await self._until(run_id, lambda found: found.generation == number)

    async def children(self, run_id: str) -> dict[str, RunDescription]:
        """Return a run's children by key."""
        found = await self.client.list_children(run_id)
        return {child.id.removeprefix(f"{run_id}/"): child for child in found}

    def transactions(self, run_id: str) -> int:
        """Return in how many transactions the journal of a run was written."""
        ((count,),) = select(
            self.url, "select count(distinct xmin::text) from continuum.events where run_id = %s", run_id
        )
        return int(count)


async def failing(run: RunHandle[Any]) -> continuum.RunFailed:
    """Return how a run failed."""
    try:
        found = await run.result(timeout=PATIENCE_S)
    except continuum.RunFailed as error:
        return error
    raise AssertionError(f"run {run.id} returned {found!r}")


@contextmanager
def dark(proxy: Proxy) -> Iterator[None]:
    """Let there be no database behind ``proxy`` for the block."""
    target, proxy._target = proxy._target, "/nowhere"
    proxy.cut_all()
    try:
        yield
    finally:
        proxy._target = target
