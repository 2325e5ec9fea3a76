"""What stands beside the figures of a part whose rounds have other databases: the plain fenced group commit.

The rule: its database is made once, on the same server, and it runs in every round.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench import steps
from bench.disk import COMMIT, commit_ms, make_commit_table
from bench.engine import BATCH, YARDSTICK
from bench.group_commit import NAME
from bench.meter import Meter, Spent
from bench.place import opened
from bench.report import facts, say
from bench.server import connection, make_database, server_facts
from bench.yardstick import Yardstick
from continuum._journal.connections import Connection

YARDSTICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Beside:
    """The yardstick, and the connection that makes databases. ``measure`` may be called any number of times."""

    admin: Connection
    yardstick: Yardstick
    meter: Meter

    async def measure(self) -> dict[str, float]:
        """Return what a row costs by the yardstick, and what a plain commit takes."""
        spent = Spent()
        count = await self.yardstick.turn(self.meter, BATCH, YARDSTICK_S, spent)
        figures = {COMMIT: await commit_ms(self.admin)}
        return figures | {YARDSTICK: count / spent.wall_s, **spent.each(YARDSTICK, count)}


@asynccontextmanager
async def beside(url: str, rounds: int, found: dict[str, object]) -> AsyncGenerator[Beside, None]:
    """Make the yardstick's database, say what figures depend on, and connect for the block."""
    async with connection(url, "bench") as admin:
        await make_commit_table(admin)
        async with opened(await make_database(admin, url, "plain")) as place, connection(place.url, NAME) as plain:
            yardstick = Yardstick(plain, await steps.payload_of_a_step(place))
            await yardstick.prepare()
            about: dict[str, object] = {"plain_commit_us": round(await commit_ms(admin) * 1e3)}
            say(facts(rounds) | found | about | await server_facts(admin))
            yield Beside(admin, yardstick, place.meter)
