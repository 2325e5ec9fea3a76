"""The process that owns the postmaster: makes the data, starts it, starts it again, stops it when nobody is left.

The rule: the postmaster is our child, so we see its end as it happens and reap it, and it is told to stop by the
kernel should we die. We hold ``supervisor.lock`` for all our life; who wants us to stop sends SIGTERM while we do.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from continuum.embedded import locks
from continuum.embedded import plan as plans
from continuum.embedded.files import open_plain
from continuum.embedded.places import KEEP, make_socket_folder
from continuum.embedded.plan import Plan
from continuum.embedded.postmaster import Postmaster, end_orphan, make_data
from continuum.embedded.trouble import EmbeddedError

TICK_S = 0.25
LOCK_WAIT_S = 0.5  # others hold our lock for an instant, to see whether it is held
IN_USE_WAIT_S = 15.0  # what a killed postmaster leaves takes that long at most to go
STEADY_S = 10.0  # who ran that long did not fail at its start
RESTARTS = 5
LARGEST_LOG = 1_000_000


def main(plan_text: str, report: int) -> None:
    """Become a daemon and supervise. What the starter is to know goes into ``report``, a pipe."""
    if os.fork():
        os._exit(0)  # the starter waits for this one, so we are never its child and never its zombie
    os.umask(0o077)
    told = Report(report)
    try:
        plan = plans.from_json(plan_text)
        _write_into(Path(plan.home) / "supervisor.log")
        Supervisor(plan, told).run()
    except Exception as error:  # noqa: BLE001 - the edge: the starter waits for a word, whatever it was
        expected = isinstance(error, EmbeddedError | OSError)
        reason = str(error) if expected else f"the supervisor failed with {type(error).__name__}: {error}"
        told.tell({"error": reason})
        _log(f"ended: {reason}")
        sys.exit(1)


class Report:
    """The pipe to the starter: one line, once."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    @property
    def is_due(self) -> bool:
        return self._pipe is not None

    def tell(self, message: dict[str, str | bool]) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):  # the starter is gone
                os.write(self._pipe, json.dumps(message).encode() + b"\n")
            os.close(self._pipe)
            self._pipe = None


class Supervisor:
    """Keeps one server running for as long as somebody wants it."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._home = Path(plan.home)
        self._report = report
        self._version: os.stat_result | None = None
        self._told_to_stop = False
        self._lock = -1
        self._wakeup, waker = os.pipe()
        for end in (self._wakeup, waker):
            os.set_blocking(end, False)
        # A signal interrupts our pauses: the end of the child and the wish that we stop are seen at once.
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _take_notice)
        signal.signal(signal.SIGHUP, _take_notice)
        signal.signal(signal.SIGTERM, self._stop_soon)
        signal.signal(signal.SIGINT, self._stop_soon)

    def run(self) -> None:
        """Return when the server has stopped because it should. Raises ``EmbeddedError`` if it cannot run."""
        lock = self._take_lock()
        if lock is None:
            _log("another supervisor was faster")
            return  # our starter gets no report, and finds that one
        locks.sign(lock)
        plan = self._plan
        for earlier in (plan, plans.read_if_possible(self._home)):
            if earlier is not None:
                end_orphan(earlier, self._pause)
        plans.plan_file(self._home).unlink(missing_ok=True)
        make_data(plan)
        self._version = (Path(plan.data) / "PG_VERSION").stat()
        if plan.socket != plan.data:
            make_socket_folder(Path(plan.socket), plan.uid, plan.gid)
        try:
            self._keep_running()
            self._report.tell(
                {"error": f"the embedded Postgres in {self._home} was told to stop while it started"}
            )
        finally:
            if plan.socket != plan.data:
                with contextlib.suppress(OSError):
                    Path(plan.socket).rmdir()

    def _keep_running(self) -> None:
        failures = 0
        while not self._told_to_stop:
            postmaster = self._started()
            if postmaster.ended() is None:
                if self._watch(postmaster):
                    return
            elif self._report.is_due:
                raise EmbeddedError(postmaster.why_it_ended())
            _log(f"postmaster {postmaster.pid} ended with status {postmaster.ended()}")
            if postmaster.ended() == 0 or not self._is_there():
                return  # somebody told it to shut down, as by pg_ctl
            steady = time.monotonic() - postmaster.started > STEADY_S
            failures = 1 if steady else failures + 1
            if failures > RESTARTS:
                raise EmbeddedError(f"given up after {RESTARTS} restarts: {postmaster.why_it_ended()}")
            self._pause(0.05 * 2**failures)

    def _started(self) -> Postmaster:
        """Return a postmaster that is ready, or one that ended, or any if we are told to stop."""
        deadline = time.monotonic() + IN_USE_WAIT_S
        while True:
            postmaster = Postmaster(self._plan)
            self._wait_until_ready(postmaster)
            if postmaster.ended() is None:
                _log(f"postmaster {postmaster.pid} started")
                return postmaster
            if not postmaster.finds_data_in_use() or time.monotonic() > deadline or self._told_to_stop:
                return postmaster
            self._pause(0.1)

    def _wait_until_ready(self, postmaster: Postmaster) -> None:
        """Wait for as long as it lives: recovery after a crash takes what it takes."""
        while postmaster.ended() is None and not self._told_to_stop:
            if postmaster.ready():
                if self._report.is_due:
                    self._plan.write()
                    self._report.tell({"ok": True})
                return
            self._pause(0.01 if time.monotonic() - postmaster.started < 1 else 0.1)

    def _watch(self, postmaster: Postmaster) -> bool:
        """Return True when the server was stopped on purpose, False when it ended by itself."""
        idle_since: float | None = None
        tick_s = min(TICK_S, max(0.02, self._plan.idle_stop_s / 4))
        while postmaster.ended() is None:
            self._pause(tick_s)
            if not self._is_there():
                _log("the home folder or the data is gone")
                postmaster.abort(self._pause)
                return True
            if self._told_to_stop:
                _log("told to stop")
                postmaster.stop(self._pause)
                return True
            if self._is_wanted():
                idle_since = None
                continue
            now = time.monotonic()
            idle_since = now if idle_since is None else idle_since
            if now - idle_since >= self._plan.idle_stop_s and self._closed_the_door():
                _log("nobody is left")
                postmaster.stop(self._pause)
                return True
        return False

    def _is_wanted(self) -> bool:
        return (self._home / KEEP).exists() or locks.is_held_at_all(self._home / locks.CLIENTS)

    def _closed_the_door(self) -> bool:
        """Keep new clients out, to our end, unless one comes at this moment."""
        try:
            door = locks.try_exclusive(self._home / locks.START)
        except FileNotFoundError:
            return True
        if door is None:
            return False
        if self._is_wanted():
            locks.release(door)
            return False
        locks.sign(door)
        return True

    def _is_there(self) -> bool:
        """Tell whether home folder and data are still those we started with, and not removed or made anew."""
        version = Path(self._plan.data) / "PG_VERSION"
        try:
            return os.path.samestat((self._home / locks.SUPERVISOR).stat(), os.fstat(self._lock)) and (
                self._version is None or os.path.samestat(version.stat(), self._version)
            )
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _take_lock(self) -> int | None:
        deadline = time.monotonic() + LOCK_WAIT_S
        path = self._home / locks.SUPERVISOR
        while (lock := locks.try_exclusive(path)) is None:
            if time.monotonic() > deadline:
                return None
            self._pause(0.01)
        self._lock = lock
        return lock

    def _pause(self, seconds: float) -> None:
        if select.select([self._wakeup], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)

    def _stop_soon(self, _signal: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True


def _take_notice(_signal: int, _frame: FrameType | None) -> None:
    """A handler, so that the signal wakes a pause; ignoring it would be inherited by the server."""


def _write_into(path: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    log = open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(log).st_size > LARGEST_LOG:
        os.ftruncate(log, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not end a server that still reads
        os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} [{os.getpid()}] {text}\n".encode())
