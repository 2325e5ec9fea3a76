"""What the tests of the embedded server share. They run real processes, and see to it that none is left.

Every process that a test starts inherits a mark in its environment, Postgres included, so what is left at the end
is found by looking, not by keeping a list.
"""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from continuum.embedded import TEST_SETTINGS, Server
from continuum.embedded.account import ROOTS_PLACE
from tests.embedded.harness import FAST_PLACE, NEVER, Client, until

MARK = "CONTINUUM_TEST_MARK"
PREFIX = f"continuum-test-{uuid.uuid4().hex[:8]}-"  # of this session alone: others run at the same time


def marked_processes(mark: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def modes(folders: set[Path]) -> dict[Path, int]:
    return {folder: stat.S_IMODE(folder.stat().st_mode) for folder in folders}


@pytest.fixture(scope="package", autouse=True)  # of a whole session, servers of other tests would bear the mark
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end: no process, no mode changed above any folder we used, no data in root's place."""
    mark = uuid.uuid4().hex
    places = {tmp_path_factory.getbasetemp(), Path(tempfile.gettempdir()), Path(sys.prefix), Path(__file__)}
    watched = {above for place in places for above in place.resolve().parents}
    before = modes(watched)
    os.environ[MARK] = mark
    yield
    del os.environ[MARK]
    try:
        until(lambda: not marked_processes(mark))
    except AssertionError:
        left = marked_processes(mark)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pytest.fail(f"left running: {left}")
    assert modes(watched) == before
    for note in ROOTS_PLACE.glob("data-*/home") if os.geteuid() == 0 else []:
        home = Path(note.read_text().strip())
        if any(part.startswith(PREFIX) for part in home.parts):  # of ours only: other data there may be somebody's
            shutil.rmtree(note.parent)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTINUUM_HOME", "CONTINUUM_DATABASE_URL", "CONTINUUM_PG_USER", "CONTINUUM_SCHEMA"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=FAST_PLACE) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike ``tmp_path``."""
    with fast_folder() as made:
        yield made


@pytest.fixture(scope="session")
def made_once() -> Iterator[Path]:
    """A home folder with data and no server, to be copied."""
    with fast_folder() as made:
        server = Server(made / "home", TEST_SETTINGS)
        server.start()
        server.stop()
        (made / "home" / "server.json").unlink()  # it names this folder, and copies are not this folder
        yield made / "home"


@pytest.fixture
def home(folder: Path, made_once: Path) -> Path:
    """A home folder that had a server before, so a start in it is warm."""
    subprocess.run(["cp", "-a", made_once, folder / "home"], check=True)
    return folder / "home"


@pytest.fixture
def never_ready(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every server start for as long as the test takes."""
    never = folder / "never"
    never.mkdir()
    (never / "initdb").touch()
    (never / "postgres").write_text(NEVER)
    (never / "postgres").chmod(0o755)
    monkeypatch.setenv("CONTINUUM_PG_BIN", str(never))


@pytest.fixture
def client() -> Iterator[Callable[[Path], Client]]:
    clients: list[Client] = []

    def start(home: Path) -> Client:
        clients.append(Client(home))
        return clients[-1]

    yield start
    for one in clients:
        if one.process.poll() is None:
            one.kill()
