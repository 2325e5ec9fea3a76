"""What holds several workers back: processors, their own cores, commits, or each other.

The rule: the kernel tells how much of the machine was idle, samples of the server tell what its backends
waited for; both for the time in which the work was done, whoever else was on the machine included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench.worker import APPLICATIONS
from continuum._journal.connections import Connection

IDLE, COMMITS = "idle cores", "backends that wait for a commit"
UNITS = {IDLE: "cores"} | dict.fromkeys((COMMITS, "backends that wait for a row", "backends at work"), "at a time")
WORKER, SERVER = "cores of a worker", "cores of the server"
SAMPLED_S = 0.02
NEARLY_ALL, MOST = 0.9, 0.5
_WAITS = b"""
select count(*) filter (where w like 'io/wal%' or w like 'lwlock/wal%'), count(*) filter (where w like 'lock/%'),
  count(*) filter (where w is null)
from (select lower(wait_event_type || '/' || wait_event) w from pg_stat_activity
  where datname = current_database() and application_name = any($1) and state = 'active') a"""


@dataclass(slots=True)
class Limits:
    """How many cores were idle, and how many backends waited at a time, or worked."""

    idle_cores: float = 0.0
    commit_waits: float = 0.0
    lock_waits: float = 0.0
    working: float = 0.0

    def figures(self, name: str) -> dict[str, float]:
        """Return the figures, under ``name``."""
        values = (self.idle_cores, self.commit_waits, self.lock_waits, self.working)
        return {f"{name}, {figure}": value for figure, value in zip(UNITS, values, strict=True)}


def limit(figures: Mapping[str, float], name: str, workers: int) -> str:
    """Return what was the limit, by the figures of ``name`` and the cores that each worker kept busy."""
    if figures[f"{name}, {IDLE}"] <= cores() * (1 - NEARLY_ALL):
        return "processors: all of them are busy"
    if figures[f"{name}, {WORKER}"] >= NEARLY_ALL:
        return "the worker's core: its one thread is always busy"
    if figures[f"{name}, {COMMITS}"] >= MOST * workers:
        return "commits: more than half of the time a worker waits for the disk"
    return "turns: worker and server wait for each other, neither is busy all the time"


@asynccontextmanager
async def watched(connection: Connection, found: Limits) -> AsyncGenerator[None, None]:
    """Watch machine and server for the block; ``found`` is filled at its end."""
    samples, done = list[tuple[float, ...]](), asyncio.Event()
    total, idle = _ticks()
    watching = asyncio.create_task(_sample(connection, samples, done))
    try:
        yield
    finally:
        done.set()
        await watching
    now, idle_now = _ticks()
    found.idle_cores = cores() * (idle_now - idle) / max(now - total, 1)
    found.commit_waits, found.lock_waits, found.working = (fmean(column) for column in zip(*samples, strict=True))


async def _sample(connection: Connection, samples: list[tuple[float, ...]], done: asyncio.Event) -> None:
    while not done.is_set():
        row = await (await connection.execute(_WAITS, [APPLICATIONS])).fetchone()
        assert row is not None
        samples.append(tuple(map(float, row)))
        with suppress(TimeoutError):
            async with asyncio.timeout(SAMPLED_S):
                await done.wait()


def cores() -> int:
    """Return how many processors the machine has."""
    return sum(line[3:4].isdigit() for line in _stat() if line.startswith("cpu"))


def _ticks() -> tuple[int, int]:
    """Return the ticks of all processors since the machine began, and the idle ones of them."""
    ticks = [int(word) for word in _stat()[0].split()[1:9]]  # guests' time, behind these, is in the first
    return sum(ticks), ticks[3] + ticks[4]


def _stat() -> list[str]:
    return Path("/proc/stat").read_text(encoding="ascii").splitlines()  # Linux only
