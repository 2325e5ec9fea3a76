"""Several worker processes beside each other: what a step costs with one, two and four, and what the limit is.

The rule: the same runs of ten steps as the engine's figure, with as many in flight in each worker. They fall due
together and every worker claims what it can; a run belongs to one of them to its end.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from bench import steps
from bench.beside import Beside, beside
from bench.disk import COMMIT
from bench.ending import Ending
from bench.engine import FILL_OTHERS, YARDSTICK, rate
from bench.flows import STEPS
from bench.limits import SERVER, UNITS, WORKER, Limits, limit, watched
from bench.place import Place, opened
from bench.report import Line, Samples, say, show
from bench.server import make_database, measure_on_own_server
from bench.worker import running_worker
from bench.yardstick import OTHERS

LEAST_BUSY = "the least busy one's part"
GROWS_AT_MOST = 1.15  # the CPU of a step, client's and server's, beside that with one worker


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a round; ``in_flight`` is for each worker."""

    workers: tuple[int, ...] = (1, 2, 4)
    runs: int = 10_000
    in_flight: int = 1_000
    warm: int = 500


def run(rounds: int, ending: Ending, sizes: Sizes | None = None) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    measure_on_own_server(ending, lambda url, found: _measure(url, rounds, found, sizes or Sizes()))


async def _measure(url: str, rounds: int, found: dict[str, object], sizes: Sizes) -> None:
    samples: dict[str, list[float]] = {}
    async with (
        beside(url, rounds, found) as plain,
        opened(await make_database(plain.admin, url, "workers")) as place,
    ):
        for fill in FILL_OTHERS:
            await place.own.execute(fill, [OTHERS])
        for _ in range(rounds):
            gc.collect()
            for name, value in (await _round(plain, place, sizes)).items():
                samples.setdefault(name, []).append(value)
    show(lines(sizes), samples)
    for line in limits_of(sizes, samples):
        say(line)


async def _round(plain: Beside, place: Place, sizes: Sizes) -> dict[str, float]:
    figures = await plain.measure()
    for workers in sizes.workers:
        await place.vacuum()
        figures |= await _together(place, sizes, workers)
    one = _cpu(figures, name_of(sizes.workers[0]))
    for workers in sizes.workers[1:]:
        figures[grown_name(sizes, workers)] = _cpu(figures, name_of(workers)) / one
    return figures


async def _together(place: Place, sizes: Sizes, workers: int) -> dict[str, float]:
    name, limits, rows = name_of(workers), Limits(), await place.rows()
    async with AsyncExitStack() as stack:
        options = f"--cache={sizes.in_flight}"
        running = [await stack.enter_async_context(running_worker(place.url, options)) for _ in range(workers)]
        await steps.warm_up(place, sizes.warm * workers)
        before = [worker.cpu_us() for worker in running]
        seconds, spent = await steps.together(place, running, sizes.runs, watched(place.own, limits))
        used = [worker.cpu_us() - had for worker, had in zip(running, before, strict=True)]
    count, started = sizes.runs * STEPS, sizes.runs + sizes.warm * workers
    figures = {name: count / seconds, **spent.each(name, count), **limits.figures(name)}
    figures[f"{name}, rows"] = (await place.rows() - rows - started) / (started * STEPS)
    figures[f"{name}, {WORKER}"] = spent.client_us / spent.wall_s / 1e6 / workers
    if spent.server_us is not None:
        figures[f"{name}, {SERVER}"] = spent.server_us / spent.wall_s / 1e6
    return figures | {f"{name}, {LEAST_BUSY}": min(used) / sum(used) * 100}


def _cpu(figures: Mapping[str, float], name: str) -> float:
    return figures[f"{name}, client CPU"] + figures.get(f"{name}, server CPU", 0.0)


def lines(sizes: Sizes) -> list[Line]:
    """Return what is printed, in order."""
    found = [Line(COMMIT, "ms"), *rate(YARDSTICK, "row")]
    for workers in sizes.workers:
        name = name_of(workers)
        found += rate(name, "step")
        found += [Line(f"{name}, {figure}", "cores") for figure in (WORKER, SERVER)]
        found += [Line(f"{name}, {figure}", unit) for figure, unit in UNITS.items()]
        found.append(Line(f"{name}, {LEAST_BUSY}", "%"))
    grown = [grown_name(sizes, workers) for workers in sizes.workers[1:]]
    return [*found, *(Line(name, "times", at_most=GROWS_AT_MOST) for name in grown)]


def limits_of(sizes: Sizes, samples: Samples) -> list[dict[str, object]]:
    """Return a line for each number of workers that says what held them back."""
    medians = {name: median(values) for name, values in samples.items()}
    return [
        {"figure": f"{name_of(workers)}, the limit", "limit": limit(medians, name_of(workers), workers)}
        for workers in sizes.workers
    ]


def name_of(workers: int) -> str:
    """Return the name of the figure."""
    return f"steps, {workers} worker process{'es' * (workers > 1)}"


def grown_name(sizes: Sizes, workers: int) -> str:
    """Return the name of what a step's CPU has grown to."""
    return f"CPU of a step with {workers} worker processes, beside that with {sizes.workers[0]}"
