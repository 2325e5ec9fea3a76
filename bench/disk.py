"""Where a benchmark's server keeps its data, and what a commit costs there.

The rule: figures of durable writes are worth nothing in memory, so the data lies below the checkout, a file system
that is none is refused, and the measured time of one plain commit stands beside all that waits for commits.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from continuum._journal.connections import Connection

IGNORED = Path(__file__).resolve().parents[1] / ".continuum"  # as .gitignore has it
IN_MEMORY = ("tmpfs", "ramfs")
COMMITS = 100
COMMIT = "one plain commit, p50"


class InMemory(Exception):
    """The data would lie in memory."""


@contextmanager
def home_folder() -> Generator[Path, None, None]:
    """Make a home folder for a server below the checkout, and remove it with all that is in it.

    The server must have stopped when the block ends.
    """
    home: Path | None = None
    try:
        home = _made()
        home.chmod(0o755)  # Postgres refuses to run as root, and its account must get in
        yield home
    finally:
        if home is not None:
            _remove(home)
        with suppress(OSError):  # it is not empty: somebody's embedded server lies there
            IGNORED.rmdir()


def _made() -> Path:
    while True:
        IGNORED.mkdir(exist_ok=True)
        refuse_memory(IGNORED)
        with suppress(FileNotFoundError):  # another benchmark has just removed the folder behind itself
            return Path(tempfile.mkdtemp(prefix="bench-", dir=IGNORED))


def _remove(home: Path) -> None:
    # Where the server's account cannot get in, the data lies elsewhere and this file says where.
    with suppress(FileNotFoundError):
        shutil.rmtree((home / "server.location").read_text(encoding="utf-8").strip())
    shutil.rmtree(home)


def refuse_memory(folder: Path) -> str:
    """Return the type of the file system that ``folder`` lies on. Raises ``InMemory``."""
    found = file_system(folder)
    if found in IN_MEMORY:
        raise InMemory(f"{folder} is on {found}, which is memory: use a checkout that lies on a disk")
    return found


def file_system(folder: Path) -> str:
    """Return the type of the file system that ``folder`` lies on, by the kernel's table of mounts."""
    folder = folder.resolve()
    best, found = -1, "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():  # Linux only
        _, escaped, kind, *_ = line.split()
        place = Path(escaped.encode().decode("unicode_escape"))  # a blank is written \040
        if folder.is_relative_to(place) and len(place.parts) >= best:  # of two at one place the later is on top
            best, found = len(place.parts), kind
    return found


async def make_commit_table(connection: Connection) -> None:
    """Make the table of ``commit_ms``."""
    await connection.execute(b"create table public.one_row (n bigint not null)")
    await connection.execute(b"insert into public.one_row values (0)")


async def commit_ms(connection: Connection) -> float:
    """Return the median milliseconds of a commit that changes one small row, with nobody beside it."""
    times: list[float] = []
    for _ in range(COMMITS):
        started = time.perf_counter()
        await connection.execute(b"update public.one_row set n = n + 1")
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
