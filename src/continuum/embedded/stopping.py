"""How a server is stopped, from whatever state it is in.

The rule: a stop asks nobody's leave. It signals the supervisor without the start lock, wakes what was paused, and
ends by force what does not end; every wait has its limit, and who is waited for is named.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from continuum.embedded import locks, places
from continuum.embedded import plan as plans
from continuum.embedded.postmaster import end_orphan
from continuum.embedded.trouble import EmbeddedError

SUPERVISOR_LIMIT_S = 90.0  # it gives the postmaster 75 s by itself
KILLED_LIMIT_S = 5.0
STARTER_LIMIT_S = 10.0  # to see that its server is gone
TOTAL_LIMIT_S = 300.0
_logger = logging.getLogger("continuum.embedded")


def stop_server(home: Path) -> bool:
    """End whatever runs in the folder, and tell whether there was something."""
    ended = False
    began = seen = time.monotonic()
    start = home / locks.START
    while True:
        (home / places.KEEP).unlink(missing_ok=True)
        if end_supervisor(home):
            ended, seen = True, time.monotonic()
        try:
            lock = locks.try_exclusive(start)
        except FileNotFoundError:
            return ended
        if lock is not None:
            break
        # A starter waits under this lock for a server that is gone now, and may begin another one.
        now = time.monotonic()
        if now - seen > STARTER_LIMIT_S or now - began > TOTAL_LIMIT_S:
            raise EmbeddedError(
                f"process {locks.holder(start) or 'unknown'} holds {start} and may start the server again: "
                f"end that process, then `continuum db stop --home {home}`"
            )
        time.sleep(0.02)
    try:
        locks.sign(lock)
        (home / places.KEEP).unlink(missing_ok=True)
        ended = end_supervisor(home) or ended
        return _end_what_it_left(home) or ended
    finally:
        locks.release(lock)


def tell_supervisor(pid: int) -> None:
    """Ask a supervisor to stop its server, also one that is paused."""
    for one in (signal.SIGTERM, signal.SIGCONT):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, one)


def end_supervisor(home: Path) -> bool:
    """End the supervisor and its server, and tell whether there was one."""
    pid = locks.supervisor_pid(home)
    if pid is None:
        return False
    tell_supervisor(pid)
    if _has_let_go(home, pid, SUPERVISOR_LIMIT_S):
        return True
    _logger.warning("process %s, the supervisor in %s, does not stop: killing it", pid, home)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not _has_let_go(home, pid, KILLED_LIMIT_S):
        raise EmbeddedError(f"process {pid}, the supervisor in {home}, cannot be killed: see what it waits for")
    _end_what_it_left(home)
    return True


def _has_let_go(home: Path, pid: int, limit_s: float) -> bool:
    """Wait until that supervisor is gone. Another one may have come, which is not this wait's matter."""
    began = told = time.monotonic()
    while locks.is_held_exclusively(home / locks.SUPERVISOR) and locks.holder(home / locks.SUPERVISOR) in {
        None,
        pid,
    }:
        now = time.monotonic()
        if now - began > limit_s:
            return False
        if now - told > locks.PATIENCE_S:
            told = now
            _logger.warning("waiting for process %s, which stops the embedded Postgres in %s", pid, home)
        time.sleep(0.01)
    return True


def _end_what_it_left(home: Path) -> bool:
    """End a server whose supervisor was killed, where the kernel does not do it for us."""
    plan = plans.read_if_possible(home)
    return plan is not None and end_orphan(plan, time.sleep)
