"""Postgres for tests: one server a session, one database a test, made from a migrated template."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from continuum._journal.migrate import migrate
from continuum.embedded import TEST_SETTINGS, Server

TEMPLATE = "continuum_template"
SYSTEM = Path("/usr/lib/postgresql")
KEPT = 2  # databases of tests that have ended, and are still to be dropped
ROOM_BYTES = 1_000_000_000  # for two servers; a container's /dev/shm has 64 MB


def _fast_place() -> Path | None:
    """A folder in memory, if it has room enough; else the place for temporary files will do."""
    memory = Path("/dev/shm")
    fits = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_BYTES
    return memory if fits else None


FAST_PLACE = _fast_place()


class Servers:
    """The servers of this session, started when a test first asks."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._held = (
            contextlib.ExitStack()
        )  # what holds a server is a lock: it goes with this process, however that ends
        self._urls: dict[str, str] = {}
        self._kept: dict[str, psycopg.Connection[tuple[object, ...]]] = {}
        self._ended: dict[str, list[str]] = {}
        self._numbers = 0

    def url(self, kind: str) -> str:
        if kind not in self._urls:
            with _binaries(kind):
                server = Server(self._home / kind, TEST_SETTINGS, idle_stop=1.0)
                url = self._held.enter_context(server.running())
            self._urls[kind] = url
            run(url, f"create database {TEMPLATE}")
            asyncio.run(migrate(make_conninfo(url, dbname=TEMPLATE)))
        return self._urls[kind]

    def log(self, kind: str) -> Path:
        """Where the server says what it does."""
        self.url(kind)
        return self._home / kind / "postgres.log"

    @contextlib.contextmanager
    def database(self, kind: str, template: str | None = TEMPLATE) -> Iterator[str]:
        """A database of its own, migrated unless ``template`` is None."""
        url = self.url(kind)
        self._numbers += 1
        name = f"test_{self._numbers}"
        self._do(url, f"create database {name} template {template or 'template0'} strategy file_copy")
        try:
            yield make_conninfo(url, dbname=name)
        finally:
            self._end(url, name)

    def _end(self, url: str, name: str) -> None:
        """End the connections to a database, and drop the one before the last that was ended.

        Postgres waits a tenth of a second if it finds connections to what it is to drop. Later they are gone.
        """
        self._do(url, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
        ended = self._ended.setdefault(url, [])
        ended.append(name)
        if len(ended) > KEPT:
            self._do(url, f"drop database {ended.pop(0)} with (force)")

    def _do(self, url: str, sql: str) -> None:
        """Run a statement on the one connection kept for such, or on a new one if the server has restarted."""
        kept = self._kept.get(url)
        if kept is not None:
            try:
                kept.execute("select 1")
            except psycopg.OperationalError:
                kept.close()
                kept = None
        if kept is None:
            kept = self._kept[url] = psycopg.connect(url, autocommit=True)
        kept.execute(sql.encode())

    def stop(self) -> None:
        for kept in self._kept.values():
            kept.close()
        self._held.close()
        for kind in self._urls:
            Server(self._home / kind).stop()


def run(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def system_binaries() -> Path | None:
    """The newest Postgres that the system has."""
    found = sorted(SYSTEM.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def _binaries(kind: str) -> Iterator[None]:
    if kind == "embedded":
        yield
        return
    folder = system_binaries()
    if folder is None:
        pytest.skip("the system has no Postgres of its own")
    before = os.environ.get("CONTINUUM_PG_BIN")
    os.environ["CONTINUUM_PG_BIN"] = str(folder)
    try:
        yield
    finally:
        del os.environ["CONTINUUM_PG_BIN"]
        if before is not None:
            os.environ["CONTINUUM_PG_BIN"] = before


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The session's servers; nothing of them is left at its end."""
    home = Path(tempfile.mkdtemp(prefix="continuum-tests-", dir=FAST_PLACE))
    home.chmod(0o755)
    made = Servers(home)
    yield made
    made.stop()
    shutil.rmtree(home)


@pytest.fixture
def postgres() -> str:
    """Which server a test uses: "embedded", or "system". Folders that want both override it."""
    return "embedded"


@pytest.fixture
def database(servers: Servers, postgres: str) -> Iterator[str]:
    """The url of a migrated database that is the test's own."""
    with servers.database(postgres) as url:
        yield url


@pytest.fixture
def empty_database(servers: Servers, postgres: str) -> Iterator[str]:
    """The url of a database without our schema."""
    with servers.database(postgres, None) as url:
        yield url
