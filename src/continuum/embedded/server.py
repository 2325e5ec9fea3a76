"""The server as its users see it: attach to it or start it, keep it, stop it, ask how it is.

The rule: all of it happens under ``start.lock``, so of many starters one starts and the others attach. A client
holds ``clients.lock`` for as long as it uses the server; no process counts clients, the kernel does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from continuum.embedded import locks, places
from continuum.embedded import plan as plans
from continuum.embedded.account import server_account
from continuum.embedded.binaries import find_binaries
from continuum.embedded.password import password_url, set_password
from continuum.embedded.plan import Plan
from continuum.embedded.probe import Answer, ask
from continuum.embedded.settings import DEFAULT_SETTINGS, checked
from continuum.embedded.trouble import OWN_SERVER, EmbeddedError, differing, told_as_one

__all__ = ["Server", "Status"]

START_ATTEMPTS = 3
PATIENCE_S = 10.0  # after which we say that we still wait
_logger = logging.getLogger("continuum.embedded")


@dataclass(frozen=True, slots=True)
class Status:
    """How a server is. What only a running one has is None while it is not."""

    running: bool
    starting: bool
    kept: bool
    home: Path
    data: Path | None
    version: str | None
    url: str | None
    tcp_url: str | None
    supervisor_pid: int | None


class Server:
    """A private Postgres in a folder, shared by all processes that name the folder.

    ``home`` is that folder: CONTINUUM_HOME or ``./.continuum`` without it. ``settings`` go to Postgres and win
    over ``DEFAULT_SETTINGS``. ``idle_stop`` is for how many seconds it stays when nobody uses it any more. With
    ``port`` it also listens on 127.0.0.1, with a password.

    >>> from continuum.embedded import TEST_SETTINGS, Server
    >>> with Server("/tmp/example", TEST_SETTINGS).running() as url:  # doctest: +SKIP
    ...     psycopg.connect(url)

    Nothing happens before the first use. Every failure is an ``EmbeddedError``.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        idle_stop: float = 5.0,
        port: int | None = None,
    ) -> None:
        if os.name == "nt":
            raise EmbeddedError(f"the embedded Postgres does not run on Windows: use WSL, or {OWN_SERVER}")
        if port is not None and not 1 <= port <= 65535:
            raise EmbeddedError(f"port {port} is none: choose one from 1024 to 65535")
        self.home = places.home_folder(home)
        self._asked = checked(settings)
        self._idle_stop_s = idle_stop
        self._port = port

    @contextlib.contextmanager
    def running(self) -> Generator[str]:
        """Hold the server for the block, started if it does not run, and give its libpq URL.

        When the last of all holders has left, or died, the server stops after ``idle_stop`` seconds.
        """
        url, client = self._attach()
        try:
            yield url
        finally:
            os.close(client)

    def start(self) -> str:
        """Start it if it does not run, keep it running until ``stop()``, and return its URL."""
        url, client = self._attach(keep=True)
        os.close(client)
        return url

    def stop(self) -> bool:
        """Stop it, clients or not, and return whether there was something to stop.

        Clients lose their connections and their open transactions. Returns when it has stopped.
        """
        if not self.home.is_dir():
            return False
        with told_as_one(self.home), locks.exclusively(self.home / locks.START):
            (self.home / places.KEEP).unlink(missing_ok=True)
            pid = self._supervisor_pid()
            if pid is None and not self._stop_without_supervisor():
                return False
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            # It ends the postmaster the hard way if need be, so this wait has an end.
            while locks.is_held_exclusively(self.home / locks.SUPERVISOR):
                time.sleep(0.01)
        _logger.info("embedded Postgres in %s stopped", self.home)
        return True

    def status(self) -> Status:
        """Look how it is, without starting it."""
        with told_as_one(self.home):
            pid = self._supervisor_pid()
            plan = plans.read_if_possible(self.home)
            ready = pid is not None and plan is not None and ask(plan.socket, plan.socket_port) is Answer.READY
            kept = (self.home / places.KEEP).exists()
            return Status(
                running=ready,
                starting=pid is not None and not ready,
                kept=kept,
                home=self.home,
                data=Path(plan.data) if plan else None,
                version=plan.version if plan else None,
                url=plan.url if plan and ready else None,
                tcp_url=password_url(plan) if plan and ready else None,
                supervisor_pid=pid,
            )

    def connections(self) -> int | None:
        """Count the connections of clients to the running server. None if that cannot be told."""
        url = self.status().url
        if url is None:
            return None
        import psycopg

        counting = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid() AND application_name <> 'continuum probe'"
        )
        try:
            with psycopg.connect(url, connect_timeout=5) as connection:
                row = connection.execute(counting).fetchone()
                return int(row[0]) if row else None
        except psycopg.Error:  # it just stopped, or all its connections are taken
            return None

    def _attach(self, *, keep: bool = False) -> tuple[str, int]:
        """Return the URL of a server that answers, and the descriptor of the lock that holds it."""
        with told_as_one(self.home):
            places.make_home(self.home, server_account())
            with locks.exclusively(self.home / locks.START):
                client = locks.take_shared(self.home / locks.CLIENTS)
                try:
                    plan = self._running_plan()
                    if self._port is not None and plan.port is not None:
                        set_password(plan)
                    if keep:
                        (self.home / places.KEEP).touch(mode=0o600)
                except BaseException:
                    os.close(client)
                    raise
        return plan.url, client

    def _running_plan(self) -> Plan:
        for _ in range(START_ATTEMPTS):
            if plan := self._found():
                _logger.info("using the embedded Postgres %s that runs in %s", plan.version, plan.data)
                self._warn_of_differences(plan)
                return plan
            if plan := self._started():
                _logger.info("using the embedded Postgres %s, started in %s", plan.version, plan.data)
                return plan
        raise EmbeddedError(
            f"the supervisor of the embedded Postgres in {self.home} was killed {START_ATTEMPTS} times "
            f"at its start: see {self.home / 'supervisor.log'}"
        )

    def _found(self) -> Plan | None:
        """Return how the server runs once it answers, or None if it has no supervisor."""
        told = time.monotonic()
        while locks.is_held_exclusively(self.home / locks.SUPERVISOR):
            plan = plans.read(self.home)
            if plan is not None and ask(plan.socket, plan.socket_port) is Answer.READY:
                return plan
            if time.monotonic() - told > PATIENCE_S:
                told = time.monotonic()
                _logger.warning("the embedded Postgres in %s still starts or recovers; waiting", self.home)
            time.sleep(0.02)
        return None

    def _started(self) -> Plan | None:
        """Start a supervisor and wait for its report.

        None if it gave none: it was killed, or that of a starter who was killed came before it.
        """
        plan = self._plan()
        locks.empty_if_free(self.home / locks.SUPERVISOR)
        reader, writer = os.pipe()
        with open(reader, encoding="utf-8") as report:
            try:
                subprocess.run(
                    # -S: it needs nothing of site-packages; -P: nothing of the folder its file lies in.
                    [sys.executable, "-S", "-P", Path(__file__).with_name("entry.py"), self.home, str(writer)],
                    cwd="/",
                    input=plan.to_json().encode(),
                    stdout=subprocess.DEVNULL,
                    pass_fds=[writer],
                    start_new_session=True,
                    check=True,
                )
            except subprocess.SubprocessError as error:
                raise EmbeddedError(f"the supervisor of the embedded Postgres did not start: {error}") from error
            finally:
                os.close(writer)
            while not select.select([reader], [], [], PATIENCE_S)[0]:
                _logger.warning("the embedded Postgres in %s still starts or recovers; waiting", plan.data)
            said = report.read()
        if not said:
            return None
        message = json.loads(said)
        if "error" in message:
            raise EmbeddedError(message["error"])
        return plan

    def _plan(self) -> Plan:
        account = server_account()
        binaries = find_binaries(account)
        settings = {**DEFAULT_SETTINGS, **self._asked}
        disposable = settings["fsync"].lower() in {"off", "false", "no", "0"}
        data = places.data_folder(self.home, binaries.major, account, disposable=disposable)
        return Plan(
            home=str(self.home),
            data=str(data),
            socket=str(places.socket_folder(data, account)),
            binaries=str(binaries.folder),
            version=binaries.version,
            major=binaries.major,
            settings=settings,
            port=self._port,
            idle_stop_s=self._idle_stop_s,
            uid=account.uid if account else None,
            gid=account.gid if account else None,
        )

    def _warn_of_differences(self, plan: Plan) -> None:
        others = differing(self._asked, plan.settings)
        if self._port is not None and self._port != plan.port:
            others.append(f"port={self._port} (the server has {plan.port or 'none'})")
        if others:
            _logger.warning(
                "the embedded Postgres in %s already runs with other settings than asked for: %s; "
                "stop it by `continuum db stop` to change them",
                self.home,
                ", ".join(others),
            )

    def _stop_without_supervisor(self) -> bool:
        """End a server whose supervisor was killed, where the kernel does not do it for us."""
        plan = plans.read_if_possible(self.home)
        if plan is None or ask(plan.socket, plan.socket_port) is Answer.NOBODY:
            return False
        from continuum.embedded.postmaster import end_orphan

        end_orphan(plan, time.sleep)
        return True

    def _supervisor_pid(self) -> int | None:
        """Return the pid of the supervisor, believed only while it holds its lock."""
        path = self.home / locks.SUPERVISOR
        deadline = time.monotonic() + 2.0
        while locks.is_held_exclusively(path):
            if (written := path.read_text(encoding="ascii").strip()).isdigit():
                return int(written)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)  # it has the lock and has not written yet
        return None
