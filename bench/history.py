"""What history costs: the same work beside none, beside a million entries of runs that have ended, beside ten.

The rule: one server, a database for each size, and in every round each database does the same work in turn. Next
to each time stand the blocks that the statements touched, in memory or not: they do not depend on the machine.
Autovacuum is off; a round ends with a vacuum of its own, which is timed. A round adds as many trees as it prunes.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.columns import FLUSH, HIT, IDLE, IN_FLIGHT, RESULT, VACUUM, YARDSTICK, lines, table, title
from bench.disk import COMMIT, commit_ms, make_commit_table
from bench.ending import Ending
from bench.flows import nothing
from bench.group_commit import NAME
from bench.latency import WARM
from bench.meter import Spent
from bench.past import COMMON, ENTRIES, NOBODY, RARE, RUNS, Past, id_of
from bench.place import Place, opened
from bench.report import facts, say, show
from bench.server import SETTINGS, connection, make_database, own_server, server_facts
from bench.worker import APPLICATIONS, running_worker
from bench.yardstick import PAYLOAD, T0, WORKER, Yardstick, keep_going, run_id_of
from continuum._asked import new_run_id
from continuum._core.entries import Entry
from continuum._journal.commit import Claimed, Commit, Committed, Lease, NewRoot
from continuum._journal.journal import PostgresJournal
from continuum.client import connect

OURS = [f"continuum {name}" for name in ("flush", "journal", "hints", "large", "cancel", "heartbeat", "prune")]
AT_ONCE = 100
OLD_S = 86_400.0
_BLOCKS = b"""
select coalesce(sum(shared_blks_hit + shared_blks_read), 0)::float8,
  coalesce(sum(shared_blks_read), 0)::float8
from pg_stat_statements(false) where dbid = (select oid from pg_database where datname = current_database())"""
_TREE = b"""
insert into continuum.runs (run_id, depth, workflow, version, state, input)
select $1 || case when i > 0 then '/child-' || lpad(i::text, 5, '0') else '' end, least(i, 1), 'tree', 1,
  'suspended', 'null' from generate_series(0, $2::int) i"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much history there is, and how much is done in a round."""

    entries: tuple[int, ...] = (0, 1_000_000, 10_000_000)
    live: int = 50_000  # suspended runs, in each database
    times: int = 20  # of what is timed
    flush_s: float = 1.0
    results: int = 40
    pruned: int = 200  # trees, of five runs each
    cancelled: int = 1_000


def run(rounds: int, ending: Ending, sizes: Sizes | None = None) -> None:
    """Measure on a server of our own; print a JSON line for each figure, and rows of a table on stderr.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    settings = SETTINGS | {
        "autovacuum": "off",
        "shared_preload_libraries": "pg_stat_statements",
        "max_wal_size": "2GB",
        "maintenance_work_mem": "256MB",
    }
    with own_server(ending, settings) as (url, found):
        ending.run(_measure(url, rounds, found, sizes or Sizes()))


async def _measure(url: str, rounds: int, found: dict[str, object], sizes: Sizes) -> None:
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(connection(url, "bench"))
        await make_commit_table(admin)
        about: dict[str, object] = {"plain_commit_us": round(await commit_ms(admin) * 1e3)}
        say(facts(rounds) | found | about | await server_facts(admin))
        histories: list[History] = []
        for entries in sizes.entries:
            began = time.perf_counter()
            histories.append(await stack.enter_async_context(_history(url, entries, sizes)))
            say({"filled": title(entries), "seconds": round(time.perf_counter() - began, 1)})
        samples: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for history in histories:
                gc.collect()
                figures = {COMMIT: await commit_ms(admin), **await history.measure()}
                if not number:  # does not count: plans, caches, and pages that no checkpoint has seen yet
                    continue
                for name, value in figures.items():
                    samples.setdefault(f"{name}, {title(history.entries)}", []).append(value)
        show(lines(sizes.entries), samples)
        for row in table(sizes.entries, samples):
            print(row, file=sys.stderr)


@dataclass(slots=True)
class History:
    """A database with so many entries of ended runs in it. ``measure`` may be called any number of times."""

    entries: int
    sizes: Sizes
    place: Place
    past: Past
    journal: PostgresJournal
    yardstick: Yardstick
    _tokens: list[int] = field(default_factory=list[int])
    _next: list[int] = field(default_factory=lambda: [1] * IN_FLIGHT)
    _figures: dict[str, float] = field(default_factory=dict[str, float])

    async def prepare(self) -> None:
        """Lease the runs that are written to, and put live ones and history beside them."""
        await self.place.own.execute(
            b"insert into continuum.runs (run_id, workflow, version, input, state) "
            b"select 'other-' || i, 'other', 1, '{}', 'suspended' from generate_series(1, $1) i",
            [self.sizes.live],
        )
        await self.past.add(self.entries // (RUNS * ENTRIES))
        await self.yardstick.prepare()
        runs = [NewRoot(run_id_of(number), "steps", 1, b"null") for number in range(IN_FLIGHT)]
        await self.journal.start(runs)
        claimed = {run.run_id: run.token for run in await self.journal.claim([("steps", 1)], IN_FLIGHT)}
        self._tokens = [claimed[run.run_id] for run in runs]
        await self.place.own.execute(b"vacuum analyze")

    async def measure(self) -> dict[str, float]:
        """Return the figures of one round."""
        self._figures = {}
        await self.past.add(self.sizes.pruned)
        touched, read = await self._blocks()
        await self._idle()
        await self._flush()
        claimed = await self._start_and_claim()
        await self._read(claimed)
        await self._list()
        await self._end_trees()
        await self._results()
        touched_now, read_now = await self._blocks()
        self._figures[HIT] = 100 * (1 - (read_now - read) / (touched_now - touched))
        self._figures[VACUUM] = await self.past.vacuum()
        await self.place.own.execute(b"analyze continuum.runs, continuum.events")
        return self._figures | await self.past.sizes()

    async def _flush(self) -> None:
        meter, other = self.place.meter, Spent()
        theirs = await self.yardstick.turn(meter, IN_FLIGHT, self.sizes.flush_s / 2, other)
        before, _ = await self._blocks()
        async with meter.measured(OURS) as spent:
            count = await keep_going(IN_FLIGHT, self._append, self.sizes.flush_s)
        touched, _ = await self._blocks()
        theirs += await self.yardstick.turn(meter, IN_FLIGHT, self.sizes.flush_s / 2, other)
        self._figures |= {
            YARDSTICK: theirs / other.wall_s,
            FLUSH: count / spent.wall_s,
            **spent.each(FLUSH, count),
        }
        self._figures[f"{FLUSH}, blocks"] = (touched - before) / count

    async def _append(self, index: int, at: int) -> None:
        seq, self._next[index] = self._next[index], self._next[index] + 1
        entry = Entry("activity_completed", f"step-{seq}", T0 + at, PAYLOAD)
        (outcome,) = await self.journal.submit(Commit(run_id_of(index), self._tokens[index], 1, seq, (entry,)))
        assert isinstance(outcome, Committed)

    async def _start_and_claim(self) -> list[Claimed]:
        """Start runs a hundred at a time, and claim them likewise."""
        claimed: list[Claimed] = []

        async def start(at: int) -> None:
            runs = [NewRoot(new_run_id(), "due", 1, b'{"n":1}') for _ in range(AT_ONCE)]
            assert len(await self.journal.start(runs)) == AT_ONCE

        async def claim(at: int) -> None:
            found = await self.journal.claim([("due", 1), ("rare", 1)], AT_ONCE)
            assert len(found) == AT_ONCE
            claimed.extend(found)

        await self._timed("start of 100", start, each=AT_ONCE)
        await self._timed("claim of 100", claim, each=AT_ONCE)
        return claimed

    async def _read(self, claimed: Sequence[Claimed]) -> None:
        """Read journals: one as people do, a hundred at once as a worker that takes over does."""

        async def one(at: int) -> None:
            tree = self.past.some_tree()
            assert len(await self.journal.views.history(id_of(tree, 1))) == ENTRIES

        async def hundred(at: int) -> None:
            trees = self.past.some_trees(AT_ONCE)
            runs = [run._replace(run_id=id_of(tree, 2)) for tree, run in zip(trees, claimed, strict=False)]
            assert all(len(loaded.entries) == ENTRIES for loaded in await self.journal.load(runs))

        await self._timed("history of a run", one, times=5 * self.sizes.times)
        await self._timed("load of 100", hundred, each=AT_ONCE)
        await self.journal.release([Lease(run.run_id, run.token) for run in claimed])
        await self.place.own.execute(b"delete from continuum.runs where workflow = 'due'")

    async def _list(self) -> None:
        views = self.journal.views

        async def tree(at: int) -> None:
            assert len(await views.outline(id_of(self.past.some_tree()))) == RUNS - 1

        async def newest(at: int) -> None:
            assert len(await views.roots(limit=AT_ONCE)) == AT_ONCE

        async def failed(at: int) -> None:
            await views.roots(state="failed", limit=AT_ONCE)

        async def rare(at: int) -> None:
            await views.roots(workflow=RARE, limit=AT_ONCE)

        async def none(at: int) -> None:
            assert not await views.roots(namespace=NOBODY, limit=AT_ONCE)

        await self._timed("tree of a root", tree)
        await self._timed("list, the newest 100", newest)
        await self._timed("list, failed", failed)
        await self._timed("list, one workflow in a hundred", rare, times=3)
        await self._timed("list, a filter that fits nothing", none, times=3)

    async def _end_trees(self) -> None:
        root, sizes = self.place.name("tree"), self.sizes
        await self.place.own.execute(_TREE, [root, sizes.cancelled])

        async def cancel(at: int) -> None:
            assert (await self.journal.cancel(root, "bench")).runs == sizes.cancelled + 1

        async def prune(at: int) -> None:
            assert await self.journal.prune(OLD_S, sizes.pruned) == sizes.pruned

        await self._timed("cascade over 1,000", cancel, times=1, each=sizes.cancelled)
        await self._timed("prune of 1,000 runs", prune, times=1, each=sizes.pruned * RUNS)
        self.past.pruned(sizes.pruned)

    async def _idle(self) -> None:
        """Ask what a worker asks by itself, each once. Without runs it leaves out inboxes and its own leases."""
        async with self.journal.another() as idle:
            await idle.register(self.place.name("idle"), 3600, {})

            async def everything(at: int) -> None:
                await idle.beat()
                assert not await idle.claim([(RARE, 1), (COMMON, 1)], AT_ONCE)
                await idle.residents_with_mail()
                await idle.leases()
                await idle.take_over()
                assert await idle.sweep(every_s=0)

            await self._timed(IDLE, everything)
            await idle.deregister()

    async def _results(self) -> None:
        place, count = self.place, self.sizes.results
        async with running_worker(place.url) as worker, connect(place.url, migrate=False) as client:

            async def result(number: int) -> float:
                started = time.perf_counter()
                assert await (await client.start(nothing, number)).result() == number
                return (time.perf_counter() - started) * 1e3

            await asyncio.gather(*map(result, range(WARM)))
            before, _ = await self._blocks()
            async with place.meter.measured(APPLICATIONS, worker.cpu_us) as spent:
                times = [await result(number) for number in range(count)]
        touched, _ = await self._blocks()
        self._figures |= {RESULT: statistics.median(times), **spent.each(RESULT, count)}
        self._figures[f"{RESULT}, blocks"] = (touched - before) / count

    async def _timed(
        self, name: str, work: Callable[[int], Awaitable[None]], *, times: int | None = None, each: int = 1
    ) -> None:
        """Do it so often, and keep the median milliseconds and what one of ``each`` costs."""
        found: list[float] = []
        times = self.sizes.times if times is None else times
        before, _ = await self._blocks()
        async with self.place.meter.measured(OURS) as spent:
            for at in range(times):
                started = time.perf_counter()
                await work(at)
                found.append((time.perf_counter() - started) * 1e3)
        touched, _ = await self._blocks()
        self._figures |= {name: statistics.median(found), **spent.each(name, times * each)}
        self._figures[f"{name}, blocks"] = (touched - before) / (times * each)

    async def _blocks(self) -> tuple[float, float]:
        """Return how many blocks statements have touched, and how many of them were not in shared buffers."""
        row = await (await self.place.own.execute(_BLOCKS)).fetchone()
        assert row is not None
        return float(row[0]), float(row[1])


@asynccontextmanager
async def _history(url: str, entries: int, sizes: Sizes) -> AsyncGenerator[History, None]:
    """Make the database of one size."""
    async with connection(url, "maker") as maker:
        url = await make_database(maker, url, f"history_{entries}")
    async with (
        opened(url) as place,
        PostgresJournal(url).open(migrating=False) as journal,
        connection(url, NAME) as plain,
    ):
        await journal.register(WORKER, 3600, {})
        history = History(entries, sizes, place, Past(url, place.own), journal, Yardstick(plain))
        await history.prepare()
        yield history
