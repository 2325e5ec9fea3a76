"""A million suspended runs, each with a timer: what starts and claims cost beside them, and 100,000 due at once.

The rule: the same is done in two databases, with the million and with no run, in turns. The runs lie there as a
worker has left them. Starts and claims go through the journal in this process; their definition is one that no
worker here knows, so that none takes them away. The timers that fall due have one and the same time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

from bench.beside import Beside, beside
from bench.disk import COMMIT
from bench.ending import Ending
from bench.engine import YARDSTICK, rate
from bench.flows import nap, nothing
from bench.place import Place, opened
from bench.report import Line, show
from bench.server import make_database, measure_on_own_server
from bench.timers import FILL, fired
from bench.worker import APPLICATIONS, running_worker
from continuum._journal.commit import Lease, NewRoot
from continuum._journal.journal import PostgresJournal

STARTED = "started"
AT_ONCE = 100
A_DAY_S = 86_400.0
BETWEEN_US = 1e6
START, CLAIM, WORK, MEMORY = "a start", "a claim", "runs that do nothing", "worker's memory at most"
AS_WITH_NONE = 1.3  # what starts and claims cost at most, beside the same where no run is
FLAT = 1.2  # a worker's memory, likewise: some ten bytes for each of a million would show
NONE = "beside no run"
_FILL_DUE = b"""
insert into continuum.runs (run_id, workflow, version, input, state, started_at, next_wakeup_at, lease_token)
select $1 || '-' || lpad(i::text, 7, '0'), $2, 1, '1.0', 'suspended', since, since + interval '1 second', 1
from generate_series(1, $3::bigint) i, (select now() + ($4 - 1.0) * interval '1 second' as since) s
order by md5(i::text)"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a round; the suspended are written once."""

    suspended: int = 1_000_000
    started: int = 5_000
    worked: int = 5_000
    due: int = 100_000
    lead_s: float = 3.0  # from when the timers are there until they are due: a worker starts meanwhile


def run(rounds: int, ending: Ending, sizes: Sizes | None = None) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    measure_on_own_server(ending, lambda url, found: _measure(url, rounds, found, sizes or Sizes()))


async def _measure(url: str, rounds: int, found: dict[str, object], sizes: Sizes) -> None:
    samples: dict[str, list[float]] = {}
    async with beside(url, rounds, found) as plain, _crowds(plain, url, sizes) as crowds:
        for _ in range(rounds):
            gc.collect()
            figures = await plain.measure()
            for crowd in crowds:
                await crowd.place.vacuum()
            figures |= await _starts_and_claims(crowds, sizes.started // AT_ONCE)
            for crowd in crowds:
                figures |= await crowd.work(sizes.worked)
            figures |= await crowds[-1].wake(sizes)
            for name, value in figures.items():
                samples.setdefault(name, []).append(value)
    show(lines(sizes), samples)


@asynccontextmanager
async def _crowds(plain: Beside, url: str, sizes: Sizes) -> AsyncGenerator[tuple[Crowd, Crowd], None]:
    async with (
        opened(await make_database(plain.admin, url, "nobody")) as nobody,
        opened(await make_database(plain.admin, url, "million")) as million,
        PostgresJournal(nobody.url).open(migrating=False) as one,
        PostgresJournal(million.url).open(migrating=False) as other,
    ):
        for journal in (one, other):
            await journal.register(f"bench-{time.time_ns()}", 3600, {})
        await million.own.execute(FILL, ["asleep", nap.name, sizes.suspended, BETWEEN_US, A_DAY_S])
        yield Crowd(NONE, nobody, one), Crowd(beside_name(sizes), million, other)


async def _starts_and_claims(crowds: Sequence[Crowd], batches: int) -> dict[str, float]:
    """Return what a run's start and claim take; the crowds take turns, a batch each."""
    figures: dict[str, float] = {}
    for what in (START, CLAIM):
        times: dict[str, list[float]] = {crowd.name: [] for crowd in crowds}
        async with AsyncExitStack() as measuring:
            meters = [crowd.place.meter.measured(APPLICATIONS) for crowd in crowds]
            spent = [await measuring.enter_async_context(meter) for meter in meters]
            for _ in range(batches):
                for crowd in crowds:
                    began = time.perf_counter()
                    await (crowd.start_some() if what == START else crowd.claim_some())
                    times[crowd.name].append((time.perf_counter() - began) * 1e6 / AT_ONCE)
        for crowd, found in zip(crowds, spent, strict=True):
            figures[f"{what}, {crowd.name}"] = median(times[crowd.name])
            if found.server_us is not None:
                figures[f"{what}, server CPU, {crowd.name}"] = found.server_us / batches / AT_ONCE
    for crowd in crowds:
        await crowd.release()
    return figures


@dataclass(slots=True)
class Crowd:
    """A database, and the runs that lie there."""

    name: str
    place: Place
    journal: PostgresJournal
    _leases: list[Lease] = field(default_factory=list[Lease])

    async def start_some(self) -> None:
        """Start a batch of runs."""
        batch = self.place.name(STARTED)
        runs = [NewRoot(f"{batch}-{number:07d}", STARTED, 1, b"null") for number in range(AT_ONCE)]
        assert len(await self.journal.start(runs)) == AT_ONCE

    async def claim_some(self) -> None:
        """Claim a batch of them."""
        runs = await self.journal.claim([(STARTED, 1)], AT_ONCE)
        assert len(runs) == AT_ONCE
        self._leases += [Lease(run.run_id, run.token) for run in runs]

    async def release(self) -> None:
        """Give up what was claimed."""
        leases, self._leases = self._leases, []
        assert len(await self.journal.release(leases)) == len(leases)

    async def work(self, runs: int) -> dict[str, float]:
        """Let a worker run what does nothing, and return how fast it was and what memory it took."""
        batch = self.place.name("work")
        async with running_worker(self.place.url) as worker:
            started = time.perf_counter()
            await self.place.start(nothing, batch, runs)
            await self.place.ended(batch, runs)
            seconds = time.perf_counter() - started
            return {f"{WORK}, {self.name}": runs / seconds, f"{MEMORY}, {self.name}": worker.peak_mb()}

    async def wake(self, sizes: Sizes) -> dict[str, float]:
        """Write timers that are due at one moment, let a worker fire them, and return what one costs."""
        name, batch, place = due_name(sizes), self.place.name("nap"), self.place
        lead_s = sizes.lead_s + sizes.due / 10_000  # writing them takes a while
        due_s = time.time() + lead_s
        await place.own.execute(_FILL_DUE, [batch, nap.name, sizes.due, lead_s])
        await place.own.execute(b"analyze continuum.runs")
        async with running_worker(place.url) as worker:
            assert time.time() < due_s, "the timers were due before a worker was there: give them a longer lead"
            async with place.meter.measured(APPLICATIONS, worker.cpu_us) as spent:
                await place.ended(batch, sizes.due)
            memory = worker.peak_mb()
        late_ms, _ = await fired(place, batch)
        figures = {name: sizes.due / max(late_ms) * 1e3, **spent.each(name, sizes.due)}
        return figures | {f"{name}, fired": float(len(late_ms)), f"{name}, {MEMORY}": memory}


def lines(sizes: Sizes) -> list[Line]:
    """Return what is printed, in order."""
    found, crowd, due = [Line(COMMIT, "ms"), *rate(YARDSTICK, "row")], beside_name(sizes), due_name(sizes)
    for what in (START, f"{START}, server CPU", CLAIM, f"{CLAIM}, server CPU"):
        alone = f"{what}, {NONE}"
        found.append(Line(alone, "us/run"))
        found.append(Line(f"{what}, {crowd}", "us/run", alone, ratio_at_most=AS_WITH_NONE))
    found += [Line(f"{WORK}, {NONE}", "runs/s"), Line(f"{WORK}, {crowd}", "runs/s", f"{WORK}, {NONE}")]
    alone = f"{MEMORY}, {NONE}"
    found += [Line(alone, "MB"), Line(f"{MEMORY}, {crowd}", "MB", alone, ratio_at_most=FLAT)]
    found.append(Line(f"{due}, fired", "timers", at_least=sizes.due, judged="worst round"))
    found += rate(due, "timer")
    return [*found, Line(f"{due}, {MEMORY}", "MB", alone)]


def beside_name(sizes: Sizes) -> str:
    """Return how the crowd is called in the names of figures."""
    return f"beside {sizes.suspended:,} timers"


def due_name(sizes: Sizes) -> str:
    """Return the name of the figure."""
    return f"{sizes.due:,} timers due at once, {beside_name(sizes)}"
