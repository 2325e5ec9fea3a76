"""The server's process and the making of its data, as the supervisor handles them.

The rule: a child of ours dies with us. On Linux the kernel tells it to; elsewhere the next supervisor ends what
an earlier one left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from continuum.embedded.account import run_as
from continuum.embedded.files import open_plain
from continuum.embedded.places import pid_in_file
from continuum.embedded.plan import Plan
from continuum.embedded.probe import Answer, ask, socket_file
from continuum.embedded.trouble import EmbeddedError, reasons, why_it_did_not_start

Pause = Callable[[float], None]

INITDB_LIMIT_S = 300.0
FAST_STOP_S = 60.0  # a fast shutdown writes a checkpoint
HARD_STOP_S = 10.0
KILL_S = 5.0
FRESH = ".continuum-init-"
LARGEST_LOG = 10_000_000
_STEPS = ((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, HARD_STOP_S), (signal.SIGKILL, KILL_S))

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: as another account, the child may not be able to read the standard library.
_LIBC = ctypes.CDLL(None)
_STILL_IN_USE = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


def make_data(plan: Plan) -> None:
    """Make the data folder if it is missing: beside its place, then renamed, so that it is whole or not there."""
    data = Path(plan.data)
    if (data / "PG_VERSION").exists():
        return
    for leftover in data.parent.glob(f"{FRESH}*"):
        shutil.rmtree(leftover)
    fresh = Path(tempfile.mkdtemp(prefix=FRESH, dir=data.parent))
    try:
        if plan.uid is not None and plan.gid is not None:
            os.chown(fresh, plan.uid, plan.gid)
        try:
            made = _run_initdb(plan, fresh)
        except subprocess.TimeoutExpired as error:
            raise EmbeddedError(f"initdb did not make {data} within {INITDB_LIMIT_S:g} s: see the disk") from error
        if made.returncode:
            raise EmbeddedError(f"initdb could not make {data}: {reasons(made.stdout)}")
        fresh.rename(data)
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


def _run_initdb(plan: Plan, folder: Path) -> subprocess.CompletedProcess[str]:
    if plan.major >= 17:  # the same order of text on every platform
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    else:
        locale = ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]
    sync = ["--no-sync"] if plan.settings.get("fsync") == "off" else []
    return subprocess.run(
        # Over TCP only with a password, and there is none until somebody asks for a port.
        [f"{plan.binaries}/initdb", "-D", str(folder), "-U", "postgres", "-E", "UTF8"]
        + ["--auth-local=trust", "--auth-host=scram-sha-256", *locale, *sync],
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=INITDB_LIMIT_S,
        preexec_fn=_die_with_parent(),
        **run_as(plan.uid, plan.gid),
    )


def environment() -> dict[str, str]:
    """Return our environment without what would change the server behind the plan's back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}  # we read its messages


class Postmaster:
    """One life of the server's first process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = Path(plan.home) / "postgres.log"
        if self._log.exists() and self._log.stat().st_size > LARGEST_LOG:
            self._log.replace(self._log.with_suffix(".log.1"))
        if ask(plan.socket, plan.socket_port) is Answer.NOBODY:
            # It holds a pid that outlives a crash as well, and guards nothing that the data's own file does not.
            Path(f"{socket_file(plan.socket, plan.socket_port)}.lock").unlink(missing_ok=True)
        with open(open_plain(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as log:
            self._written_before = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - the supervisor has one thread
                **run_as(plan.uid, plan.gid),
            )
        self.started = time.monotonic()

    def _command(self) -> list[str]:
        plan = self._plan
        settings = {
            **plan.settings,
            "listen_addresses": "127.0.0.1" if plan.port else "",
            "port": str(plan.socket_port),
            "unix_socket_directories": '"' + plan.socket.replace('"', '""') + '"',
        }
        passed = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [f"{plan.binaries}/postgres", "-D", plan.data, *passed]

    def _environment(self) -> dict[str, str]:
        # A pid file that outlived its server blocks a start when its pid is a zombie's or somebody else's. This
        # makes Postgres not mind that pid; over a server that truly lives it still refuses, for its shared memory.
        # Shown by test_a_pid_file_whose_pid_was_given_to_another_process_does_not_matter.
        pid = pid_in_file(Path(self._plan.data))
        return environment() if pid is None else {**environment(), "PG_GRANDPARENT_PID": str(pid)}

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """Return the exit status, once there is one."""
        return self._process.poll()

    def ready(self) -> bool:
        return ask(self._plan.socket, self._plan.socket_port, timeout_s=2.0) is Answer.READY

    def output(self) -> str:
        """Return what it has written since it started."""
        with self._log.open("rb") as log:
            log.seek(self._written_before)
            return log.read(1_000_000).decode(errors="replace")

    def finds_data_in_use(self) -> bool:
        """Tell whether it ended because processes of an earlier one have not all gone yet."""
        return any(words in self.output() for words in _STILL_IN_USE)

    def why_it_ended(self) -> str:
        plan = self._plan
        return why_it_did_not_start(
            self.output(), data=plan.data, settings=plan.settings, port=plan.port, log=str(self._log)
        )

    def stop(self, pause: Pause) -> None:
        """End it with its clients' transactions rolled back; harder if it does not end."""
        self._end(_STEPS, pause)

    def abort(self, pause: Pause) -> None:
        """End it without a checkpoint: for a server whose data is gone."""
        self._end(_STEPS[1:], pause)

    def _end(self, steps: Sequence[tuple[signal.Signals, float]], pause: Pause) -> None:
        for how, patience_s in steps:
            if self._process.poll() is None:
                self._process.send_signal(how)
                self._process.send_signal(signal.SIGCONT)  # a paused one would not take notice
            deadline = time.monotonic() + patience_s
            while self._process.poll() is None and time.monotonic() < deadline:
                pause(0.05)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent, libc = os.getpid(), _LIBC

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_the_kernel


def end_orphan(plan: Plan, pause: Pause) -> bool:
    """End a server that lost its supervisor, and tell whether there was one.

    It answers, so its pid file is its own.
    """
    if ask(plan.socket, plan.socket_port) is Answer.NOBODY:
        return False
    pid = pid_in_file(Path(plan.data))
    for how, patience_s in _STEPS:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
                os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if ask(plan.socket, plan.socket_port, timeout_s=0.5) is Answer.NOBODY:
                return True
            pause(0.05)
    raise EmbeddedError(f"an earlier server on {plan.data} (pid {pid}) does not stop: end that process")
