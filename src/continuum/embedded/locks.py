"""Locks on files by which processes that do not know each other agree about one server.

    start.lock       exclusive: one process at a time starts or stops the server, its pid inside
    clients.lock     shared: held by each client for as long as it uses the server
    supervisor.lock  exclusive: held by the supervisor for all its life, with its pid inside

The rule: a lock is a ``flock``, which the kernel drops when its holder dies, however it dies. A pid that is
written somewhere is believed only while the lock beside it is held. No wait for a lock is without end.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path

from continuum.embedded.files import open_plain, read_note
from continuum.embedded.trouble import EmbeddedError

START = "start.lock"
CLIENTS = "clients.lock"
SUPERVISOR = "supervisor.lock"

PATIENCE_S = 10.0  # after which we say whom we wait for
LIMIT_S = 600.0  # who holds it may recover a large database after a crash
INSTANT_S = 1.0  # within which a holder has written its pid

# A fork copies descriptors: a child would keep what we hold, should we die before we unlock it.
_ours: set[int] = set()


def take_shared(path: Path) -> int:
    """Wait for a shared lock and return its descriptor; closing that gives the lock back.

    A child made by fork holds it as well: it may use the server too.
    """
    descriptor = _take(path, exclusive=False)
    _ours.discard(descriptor)
    return descriptor


@contextlib.contextmanager
def exclusively(path: Path) -> Generator[None]:
    """Wait for an exclusive lock and hold it for the block, with our pid in the file."""
    descriptor = _take(path, exclusive=True)
    try:
        sign(descriptor)
        yield
    finally:
        release(descriptor)


def try_exclusive(path: Path) -> int | None:
    """Take an exclusive lock if nobody holds it. Raises ``FileNotFoundError`` rather than make the file."""
    return _try(path, os.O_RDWR, exclusive=True)


def sign(descriptor: int) -> None:
    """Write our pid into the file of a lock that we hold."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def release(descriptor: int) -> None:
    """Give a lock back, also where a process that was forked meanwhile has the descriptor too."""
    import fcntl

    _ours.discard(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """Return the pid in the file. Ask only while the lock is held."""
    with contextlib.suppress(OSError, ValueError):
        return int(read_note(path))
    return None


def supervisor_pid(home: Path) -> int | None:
    """Return the pid of the supervisor, believed only while it holds its lock."""
    path = home / SUPERVISOR
    deadline = time.monotonic() + INSTANT_S
    while is_held_exclusively(path):
        if (pid := holder(path)) is not None:
            return pid
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)  # it has the lock and has not written yet
    return None


def is_held_at_all(path: Path) -> bool:
    """Tell whether somebody holds a lock of any kind. Only the supervisor may ask: two that ask see each other."""
    return _is_refused(path, exclusive=True)


def is_held_exclusively(path: Path) -> bool:
    """Tell whether somebody holds an exclusive lock. Those who ask at the same time do not see each other."""
    return _is_refused(path, exclusive=False)


def empty_if_free(path: Path) -> None:
    """Make the file if it is missing, and take out the pid of a holder that is gone."""
    # Shared: it keeps a new holder out as well, and nobody takes it for one and believes the old pid.
    descriptor = _try(path, os.O_RDWR | os.O_CREAT, exclusive=False)
    if descriptor is not None:
        os.ftruncate(descriptor, 0)
        release(descriptor)


def _is_refused(path: Path, *, exclusive: bool) -> bool:
    try:
        descriptor = _try(path, os.O_RDWR, exclusive=exclusive)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    release(descriptor)
    return False


def _try(path: Path, flags: int, *, exclusive: bool) -> int | None:
    import fcntl

    descriptor = open_plain(path, flags)
    _ours.add(descriptor)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BaseException as error:
        _ours.discard(descriptor)
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _take(path: Path, *, exclusive: bool) -> int:
    began = told = time.monotonic()
    while (descriptor := _try(path, os.O_RDWR | os.O_CREAT, exclusive=exclusive)) is None:
        now = time.monotonic()
        if now - began > LIMIT_S:
            raise EmbeddedError(f"{path} is held by {_named(path)} for {LIMIT_S:g} s: end that process, or wait")
        if now - told > PATIENCE_S:
            told = now
            import logging  # takes long, and the supervisor does not need it

            logging.getLogger("continuum.embedded").warning(
                "waiting for %s, which starts or stops the server and holds %s", _named(path), path
            )
        time.sleep(0.005)
    return descriptor


def _named(path: Path) -> str:
    return f"process {holder(path) or 'unknown'}"


def _forget_in_child() -> None:
    for descriptor in _ours:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _ours.clear()


os.register_at_fork(after_in_child=_forget_in_child)
