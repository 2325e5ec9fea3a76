"""Postgres that restarts, goes away, or breaks connections in the middle of a commit."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

import continuum
from continuum.embedded import Server
from tests.databases import FAST_PLACE, Servers
from tests.embedded.harness import postmaster_pid
from tests.journal.proxy import Proxy, proxied
from tests.length import at_length
from tests.processes import flows, parents
from tests.processes.harness import LONG, Nursery, Site, closing, until

STEPS = 40 if LONG else 10


class OwnServer:
    """A server that may be stopped: nobody else's tests are on it."""

    def __init__(self, home: Path) -> None:
        self.servers = Servers(home)
        self.servers.url("embedded")
        self.home = home / "embedded"

    async def stop(self, how: signal.Signals) -> int:
        """Send the postmaster what ends it, and wait until that one is gone."""
        pid = postmaster_pid(self.home)
        os.kill(pid, how)
        await until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), "the postmaster ends")
        return pid

    async def start(self) -> None:
        await asyncio.to_thread(Server(self.home).start)


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnServer]:
    home = Path(tempfile.mkdtemp(prefix="continuum-tests-", dir=FAST_PLACE))
    home.chmod(0o755)
    made = OwnServer(home)
    yield made
    made.servers.stop()
    shutil.rmtree(home)


@pytest.fixture
async def own_site(own_server: OwnServer, tmp_path: Path, nursery: Nursery) -> AsyncIterator[Site]:
    """A site on the server that may be stopped. What is acknowledged there survives a crash of the server."""
    with own_server.servers.database("embedded") as url:
        async with continuum.connect(url, migrate=False) as client:
            with closing(Site(url, tmp_path, client, nursery)) as site:
                name = site.one("select current_database()")
                import psycopg

                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"alter database {name} set synchronous_commit = on")
                yield site


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_postgres_restarts_under_load(own_server: OwnServer, own_site: Site, how: signal.Signals) -> None:
    """CR17 Postgres restarted (fast, immediate) under load: nothing lost, workers reconnect by themselves."""
    site = own_site
    workers = [site.worker(lease=3), site.worker(lease=3)]
    for worker in workers:
        await worker.ready()
    runs = [
        await site.start(parents.family, f"f{number}", children=6, steps=STEPS, pause_s=0.02)
        for number in range(3)
    ]
    asleep = await site.start(flows.paced, "t", pause_s=0.5)
    for _ in range(2 if LONG else 1):
        lines = len(site.ledger())
        await until(lambda: len(site.ledger()) > lines + 40, "work goes on")
        await own_server.stop(how)
        await own_server.start()
    for run in runs:
        assert await run.result(timeout=60) == 6 * STEPS
    assert await asleep.result(timeout=60) == ["t#0", "t#1"]
    assert all(worker.code is None for worker in workers)
    site.check()


@at_length
async def test_after_an_outage_longer_than_a_lease_nobody_takes_over(
    own_server: OwnServer, own_site: Site
) -> None:
    """CR20 Postgres away longer than a lease: no mutual takeover, nothing lost."""
    site = own_site
    workers = [site.worker(lease=2), site.worker(lease=2)]
    names = {await worker.ready() for worker in workers}
    runs = [await site.start(flows.held, f"r{number}", gate="go") for number in range(10)]
    await until(lambda: all(site.did(f"r{number}#1") for number in range(10)), "all are in their activity")
    await own_server.stop(signal.SIGINT)
    await until(lambda: all(worker.said("silent") for worker in workers), "both are away for a lease time")
    await own_server.start()
    await until(lambda: all(worker.said("heard") for worker in workers), "both are back")
    watched = "select bool_and(now() - connected_at > interval '3 s') from continuum.workers"
    await until(lambda: site.one(watched), "each has had the time to judge the other")
    site.open("go")
    for run in runs:
        assert await run.result(timeout=30) == 3
    assert site.declared_dead() == 0
    assert {row[0] for row in site.sql("select worker_id from continuum.workers")} == names
    assert site.tokens("r%") == {1}
    labels = [line.label for line in site.ledger()]
    assert len(labels) == len(set(labels)), "nothing was done twice"
    site.check()


@at_length
async def test_who_is_back_first_judges_nobody_before_its_own_heartbeat(site: Site) -> None:
    """CR20 no mutual takeover: a worker whose own heartbeat is not through yet cannot say who is dead."""
    first, second = Cable(site.url), Cable(site.url)
    async with first.laid(), second.laid():
        workers = [site.worker(url=cable.url, lease=2) for cable in (first, second)]
        for worker in workers:
            await worker.ready()
        runs = [await site.start(flows.held, f"r{number}", gate="go") for number in range(6)]
        await until(lambda: all(site.did(f"r{number}#1") for number in range(6)), "all are in their activity")
        first.cut()
        second.cut()
        await until(lambda: all(worker.said("silent") for worker in workers), "both are away for a lease time")
        stalled = first.stall("heartbeat")
        first.mend()
        later = await site.start(flows.leaf, "later")
        assert await later.result(timeout=20) == 3, "the first is back"
        since = site.one("select now()")
        await until(
            lambda: site.one("select now() > %s + interval '1.5 s'", since), "it has looked for dead workers"
        )
        assert site.declared_dead() == 0
        second.mend()
        stalled.go_on()
        site.open("go")
        for run in runs:
            assert await run.result(timeout=30) == 3
        site.check()
        for worker in workers:
            await worker.die()


class Cable(Proxy):
    """A way to the server that can be cut for as long as one likes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._is_cut = False

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[None]:
        await self.open()
        try:
            yield
        finally:
            for fault in self.faults:
                fault.go_on()
            await self.close()

    def cut(self) -> None:
        self._is_cut = True
        self.cut_all()

    def mend(self) -> None:
        self._is_cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.close()
        else:
            await super()._serve(reader, writer)


@at_length
async def test_connections_that_are_broken_again_and_again(site: Site) -> None:
    """CR17 every connection of a worker terminated, repeatedly and under load: nothing lost, nothing doubled."""
    victim = site.worker(lease=3, url=make_conninfo(site.url, application_name="victim"))
    name = await victim.ready()
    runs = [
        await site.start(parents.family, f"f{number}", children=6, steps=40, pause_s=0.02) for number in range(3)
    ]
    waiting = await site.start(flows.signalled, "s")
    for number in range(6):
        lines = len(site.ledger())
        await until(lambda: len(site.ledger()) > lines + 30, "work goes on")
        site.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'")
        if number in (2, 4):
            await waiting.signal("go", str(number))
    for run in runs:
        assert await run.result(timeout=30) == 240
    assert await waiting.result(timeout=30) == "24"
    assert victim.said("ready") == [name]
    assert site.declared_dead() == 0
    site.check()


LANES = ("flush", "journal", "hints", "heartbeat")
FAULTS = ("lose_answer", "lose_client", "lose_statement")


async def test_connections_lost_after_commit_was_sent(site: Site) -> None:
    """CR18 connection lost after COMMIT was sent: outcome is resolved, nothing doubled."""
    async with proxied(site.url) as proxy:
        worker = site.worker(url=proxy.url, lease=5)
        name = await worker.ready()
        for number, lane in enumerate(LANES * (2 if LONG else 1)):
            for at, what in enumerate(FAULTS):
                getattr(proxy, what)(lane, after=2 * at + number % 3)
            family = await site.start(parents.family, f"f{number}", children=3, steps=3)
            chain = await site.start(flows.chain, f"g{number}", steps=3)
            assert await family.result(timeout=30) == 9
            assert await chain.result(timeout=30) == 3
            await _struck(proxy, site, number)
            kinds = [kind for kind, _ in site.entries(f"f{number}")]
            assert kinds.count("child_started") == kinds.count("child_completed") == 3
            assert site.one("select generation from continuum.runs where run_id = %s", f"g{number}") == 3
        assert worker.said("ready") == [name]
        assert worker.said("reborn") == []
        site.check()
        await worker.die()


async def _struck(proxy: Proxy, site: Site, number: int) -> None:
    """See to it that every fault happens: with some more work, if need be."""
    for more in range(20):
        if not proxy.faults:
            return
        # Several at a time: what one run alone has to tell goes along in its commit, and is no statement.
        runs = [await site.start(flows.leaf, f"more{number}x{more}x{each}") for each in range(4)]
        assert await asyncio.gather(*(run.result(timeout=30) for run in runs)) == [3] * 4
    await until(lambda: not proxy.faults, f"all are struck: {proxy.faults}")
