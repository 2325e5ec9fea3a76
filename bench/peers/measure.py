"""One setting after the other: what it does in a second, what that costs, and how soon an idle engine answers.

The rule: everybody is measured alike. Steps and children count from before the first start until the last result
has been seen, starts included; costs are those of the whole server and of all the engine's processes meanwhile, so
an engine's own polling is in them. Every setting has a fresh database. How many workflows are run follows from the
engine's speed: four times as many, until it takes long enough to be told from noise.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench.latency import PAUSE_S
from bench.meter import Meter, Spent
from bench.peers import processes
from bench.peers.engine import Engine, EngineFailed, running
from bench.peers.figures import Figure, What
from bench.peers.install import python_of, restate_server
from bench.peers.settings import Setting
from bench.report import p99
from bench.server import connection, make_database
from continuum._journal.connections import Connection

STEPS = 10
FIRST_WORKFLOWS, MOST_WORKFLOWS = 20, 4_000
LONG_ENOUGH_S = 1.5
WARM_CHILDREN, WARM_TIMES = 20, 3


@dataclass(slots=True)
class Trial:
    """An engine at work in one setting, on a database of its own. ``measure`` gives its figures."""

    setting: Setting
    engine: Engine
    meter: Meter | None  # None where Postgres is not used
    postmaster: int
    figures: list[Figure] = field(default_factory=list[Figure])
    _chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def measure(self) -> None:
        """Have it do everything that the setting says."""
        doing = ""
        try:
            for at_once in self.setting.in_flight:
                doing = f"{at_once:,} workflows in flight"
                await self._steps(at_once)
            for how, children in self.setting.families:
                doing = f"{children:,} children, {how}"
                await self._children(how, children)
            for how, times in self.setting.latencies:
                doing = f"start to result, {how}"
                await self._latency(how, times)
        except EngineFailed as error:  # nobody knows what it would still be busy with
            self.figures.append(_failed(self.setting, f"{doing}: {error}"))

    async def _steps(self, at_once: int) -> None:
        count = FIRST_WORKFLOWS
        while True:
            figure = await self._rate("steps", count, STEPS, workflows=count, at_once=at_once)
            warm = count > FIRST_WORKFLOWS
            if count >= MOST_WORKFLOWS or (warm and figure.rate and count * STEPS / figure.rate > LONG_ENOUGH_S):
                break
            count = min(MOST_WORKFLOWS, max(4 * count, at_once))
        self.figures.append(replace(figure, at_once=at_once))

    async def _children(self, how: str, children: int) -> None:
        await self.engine.tell("children", children=WARM_CHILDREN, how=how)
        self.figures.append(await self._rate("children", children, 1, children=children, how=how))

    async def _latency(self, how: str, times: int) -> None:
        await self.engine.tell("latency", pauses_s=self._pauses(WARM_TIMES), how=how)
        async with self._spent() as spent:
            answer = await self.engine.tell("latency", pauses_s=self._pauses(times), how=how)
        taken: list[float] = answer["ms"]
        figure = self._figure("latency", times, spent, how=how)
        self.figures.append(replace(figure, p50_ms=statistics.median(taken), p99_ms=p99(taken)))

    async def _rate(self, what: What, count: int, each: int, **how: object) -> Figure:
        async with self._spent() as spent:
            answer = await self.engine.tell(what, **how)
        figure = self._figure(what, count * each, spent, how=str(how.get("how", "")))
        return replace(figure, rate=count * each / answer["seconds"], count=count)

    def _figure(self, what: What, count: int, spent: _Spent, *, how: str) -> Figure:
        inner = spent.on_server
        return Figure(
            engine=self.setting.engine,
            setting=self.setting.name,
            default=self.setting.default,
            what=what,
            how=how,
            count=count,
            app_us=spent.app_us / count,
            store_us=spent.store_us / count,
            commits=None if inner is None else inner.commits / count,
            statements=None if inner is None else (inner.statements or 0.0) / count,
            bytes=(inner.wal_bytes if inner else spent.written) / count,
            memory_mb=spent.memory_mb,
        )

    def _pauses(self, count: int) -> list[float]:
        return [self._chance.uniform(*PAUSE_S) for _ in range(count)]

    @asynccontextmanager
    async def _spent(self) -> AsyncGenerator[_Spent, None]:
        """Measure the block; what it gives is filled at the end."""
        spent, stores = _Spent(), self.engine.stores or [self.postmaster]
        apps, store = self._apps, partial(processes.with_descendants, stores)
        before = processes.cpu_us(apps()), processes.cpu_us(store()), processes.written_bytes(store())
        async with AsyncExitStack() as stack:
            if self.meter is not None:
                spent.on_server = await stack.enter_async_context(self.meter.measured([]))
            yield spent
        spent.app_us = processes.gained(before[0], processes.cpu_us(apps()))
        spent.store_us = processes.gained(before[1], processes.cpu_us(store()))
        spent.written = processes.gained(before[2], processes.written_bytes(store()))
        memory = processes.with_descendants([*self.engine.workers, *self.engine.stores])
        spent.memory_mb = processes.most_memory_mb(memory)

    def _apps(self) -> set[int]:
        return processes.with_descendants([self.engine.pid]) - processes.with_descendants(self.engine.stores)


@dataclass(slots=True)
class _Spent:
    app_us: float = 0.0
    store_us: float = 0.0
    written: float = 0.0
    memory_mb: float = 0.0
    on_server: Spent | None = None


async def measure(
    admin: Connection, url: str, home: Path, setting: Setting, name: str, say: Callable[[Figure], None]
) -> str:
    """Measure one setting, and say each of its figures. Returns the engine's version, or nothing if it failed."""
    started = time.monotonic()
    options = dict(setting.options)
    if setting.engine == "restate":
        options |= {"server": str(restate_server()), "folder": tempfile.mkdtemp(prefix="restate-", dir=home)}
    found = await make_database(admin, url, name)
    postmaster = processes.parent_of(admin.info.backend_pid)
    assert postmaster is not None
    version = ""
    async with connection(found, "meter") as own:
        await own.execute(b"create extension pg_stat_statements")
        await own.execute(b"set pg_stat_statements.track = 'none'")
        log = home / f"{name}.log"
        try:
            async with running(python_of(setting.engine), f"run_{setting.engine}", found, options, log) as engine:
                meter = None if engine.stores else Meter(own, counts_statements=True)
                trial = Trial(setting, engine, meter, postmaster)
                try:
                    await trial.measure()
                finally:
                    for figure in trial.figures:
                        say(figure)
                version = engine.version
        except EngineFailed as error:
            say(_failed(setting, str(error)))
    await admin.execute(f"drop database {name} with (force)".encode())
    print(f"bench: {setting.engine}, {setting.name}: {time.monotonic() - started:.1f} s", flush=True)
    return version


def _failed(setting: Setting, problem: str) -> Figure:
    return Figure(
        engine=setting.engine, setting=setting.name, default=setting.default, what="none", problem=problem
    )
