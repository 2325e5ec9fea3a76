"""A parent of 100,000 children: what one of them costs beside one of 1,000, and the worker's memory.

The rule: one worker with its usual settings runs small families and then the large one, in a database of its own
each round. A small family is over in no time, so it is the median of several.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from statistics import median

from bench.beside import Beside, beside
from bench.disk import COMMIT
from bench.ending import Ending
from bench.engine import FILL_OTHERS, YARDSTICK, rate
from bench.fanout import family, name_of, warm_up
from bench.place import Place, opened
from bench.report import Line, show
from bench.server import make_database, measure_on_own_server
from bench.worker import running_worker
from bench.yardstick import OTHERS
from continuum.client import connect

DEARER_AT_MOST = 1.3  # a child of the large family than one of a small one
MEMORY_AT_MOST_MB = 1_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a round."""

    small: int = 1_000
    often: int = 7
    large: int = 100_000


def run(rounds: int, ending: Ending, sizes: Sizes | None = None) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    measure_on_own_server(ending, lambda url, found: _measure(url, rounds, found, sizes or Sizes()))


async def _measure(url: str, rounds: int, found: dict[str, object], sizes: Sizes) -> None:
    async with beside(url, rounds, found) as plain:
        samples: dict[str, list[float]] = {}
        for number in range(rounds):
            gc.collect()
            for name, value in (await _round(plain, url, f"wide_{number}", sizes)).items():
                samples.setdefault(name, []).append(value)
        show(lines(sizes), samples)


async def _round(plain: Beside, url: str, database: str, sizes: Sizes) -> dict[str, float]:
    """Return the figures of one round, in a database that is gone afterwards."""
    figures = await plain.measure()
    async with opened(await make_database(plain.admin, url, database)) as place:
        for fill in FILL_OTHERS:
            await place.own.execute(fill, [OTHERS])
        await place.vacuum()
        figures |= await _families(place, sizes)
    await plain.admin.execute(f"drop database {database} (force)".encode())
    return figures


async def _families(place: Place, sizes: Sizes) -> dict[str, float]:
    small, large = name_of(sizes.small), name_of(sizes.large)
    async with running_worker(place.url) as worker, connect(place.url, migrate=False) as client:
        await warm_up(place)
        found = [await family(place, worker, client, small, sizes.small) for _ in range(sizes.often)]
        figures = {name: median(each[name] for each in found) for name in found[0]}
        figures[_memory_name(sizes.small)] = worker.peak_mb()
        figures |= await family(place, worker, client, large, sizes.large)
        figures[_memory_name(sizes.large)] = worker.peak_mb()

    def cpu(name: str) -> float:
        return figures[f"{name}, client CPU"] + figures.get(f"{name}, server CPU", 0.0)

    figures[_dearer_name(sizes, "time")] = figures[small] / figures[large]
    figures[_dearer_name(sizes, "CPU")] = cpu(large) / cpu(small)
    return figures


def lines(sizes: Sizes) -> list[Line]:
    """Return what is printed, in order."""
    found = [Line(COMMIT, "ms"), *rate(YARDSTICK, "row")]
    for size in (sizes.small, sizes.large):
        found += rate(name_of(size), "child", wal_bytes=2_600)
    found.append(Line(_dearer_name(sizes, "time"), "times", at_most=DEARER_AT_MOST))
    found.append(Line(_dearer_name(sizes, "CPU"), "times"))
    found.append(Line(_memory_name(sizes.small), "MB"))
    memory = _memory_name(sizes.large)
    return [*found, Line(memory, "MB", _memory_name(sizes.small), at_most=MEMORY_AT_MOST_MB, judged="worst round")]


def _dearer_name(sizes: Sizes, what: str) -> str:
    return f"a child of {sizes.large:,} beside one of {sizes.small:,}, {what}"


def _memory_name(size: int) -> str:
    return f"{name_of(size)}, worker's memory at most"
