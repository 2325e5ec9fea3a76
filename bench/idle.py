"""What a worker costs that has nothing to do: beside no run at all, and beside many that are suspended.

The rule: each has a database of its own, and both are measured in the same seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.flows import until_told
from bench.meter import Spent
from bench.place import Place, opened
from bench.server import make_database
from bench.worker import APPLICATIONS, running_worker
from continuum._journal.commit import NewRoot
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal

EMPTY, ASLEEP = "idle worker, no runs", "idle worker, suspended runs"
SETTLES_S = 2.0
_AWAKE = b"select 1 from continuum.runs where state <> 'suspended' limit 1"


@dataclass(slots=True)
class Idle:
    """Two databases: without runs, and with runs that wait for a signal."""

    places: dict[str, Place]

    async def measure(self, seconds: float) -> dict[str, float]:
        """Return the figures of one round."""
        figures: dict[str, float] = {}
        spent: dict[str, Spent] = {}
        async with AsyncExitStack() as workers:
            running = {
                name: await workers.enter_async_context(running_worker(place.url))
                for name, place in self.places.items()
            }
            await asyncio.sleep(SETTLES_S)
            async with AsyncExitStack() as measuring:
                for name, place in self.places.items():
                    measured = place.meter.measured(APPLICATIONS, running[name].cpu_us)
                    spent[name] = await measuring.enter_async_context(measured)
                await asyncio.sleep(seconds)
        for name, found in spent.items():
            assert found.statements is not None
            figures[name] = found.statements / found.wall_s
            figures[f"{name}, client CPU"] = found.client_us / found.wall_s / 1e4
            if found.server_us is not None:
                figures[f"{name}, server CPU"] = found.server_us / found.wall_s / 1e4
        return figures


@asynccontextmanager
async def idle_places(admin: Connection, url: str, suspended: int) -> AsyncGenerator[Idle, None]:
    """Make both databases. The runs are suspended by a worker that they came to."""
    async with (
        opened(await make_database(admin, url, "empty")) as empty,
        opened(await make_database(admin, url, "asleep")) as asleep,
    ):
        async with PostgresJournal(asleep.url).open(migrating=False) as journal:
            flow = until_told
            await journal.start(
                [NewRoot(f"asleep-{number:07d}", flow.name, flow.version, b"null") for number in range(suspended)]
            )
        async with running_worker(asleep.url, "--passivate-after=0.2"):
            await asleep.becomes_empty(_AWAKE)
        yield Idle({EMPTY: empty, ASLEEP: asleep})
