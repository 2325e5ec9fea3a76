"""Locks on files by which processes that do not know each other agree about one server.

    start.lock       exclusive: one process at a time starts or stops the server
    clients.lock     shared: held by each client for as long as it uses the server
    supervisor.lock  exclusive: held by the supervisor for all its life, with its pid inside

The rule: a lock is a ``flock``, which the kernel drops when its holder dies, however it dies. A pid that is
written somewhere is believed only while the lock beside it is held.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

START = "start.lock"
CLIENTS = "clients.lock"
SUPERVISOR = "supervisor.lock"


def take_shared(path: Path) -> int:
    """Wait for a shared lock and return its descriptor; closing that gives the lock back."""
    return _take(path, exclusive=False)


@contextlib.contextmanager
def exclusively(path: Path) -> Generator[None]:
    """Wait for an exclusive lock and hold it for the block."""
    descriptor = _take(path, exclusive=True)
    try:
        yield
    finally:
        os.close(descriptor)


def try_exclusive(path: Path) -> int | None:
    """Take an exclusive lock if nobody holds it. Raises ``FileNotFoundError`` rather than make the file."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held_at_all(path: Path) -> bool:
    """Tell whether somebody holds a lock of any kind. Only the supervisor may ask: two that ask see each other."""
    try:
        descriptor = try_exclusive(path)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def is_held_exclusively(path: Path) -> bool:
    """Tell whether somebody holds an exclusive lock. Those who ask at the same time do not see each other."""
    try:
        descriptor = _try_shared(path)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def empty_if_free(path: Path) -> None:
    """Make the file if it is missing, and take out the pid of a holder that is gone."""
    path.touch(mode=0o600)
    # Shared: it keeps a new holder out as well, and nobody takes it for one and believes the old pid.
    descriptor = _try_shared(path)
    if descriptor is not None:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _try_shared(path: Path) -> int | None:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _take(path: Path, *, exclusive: bool) -> int:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
