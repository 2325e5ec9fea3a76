"""The server as its users see it: attach to it or start it, keep it, stop it, ask how it is.

The rule: all of it happens under ``start.lock``, so of many starters one starts and the others attach. A client
holds ``clients.lock`` for as long as it uses the server; no process counts clients, the kernel does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from continuum.embedded import locks, places, starting
from continuum.embedded import plan as plans
from continuum.embedded.account import server_account
from continuum.embedded.checks import checked_idle_stop, checked_port, refuse_home
from continuum.embedded.files import touch
from continuum.embedded.password import password_url, set_password
from continuum.embedded.plan import Plan
from continuum.embedded.probe import Answer, ask
from continuum.embedded.settings import checked
from continuum.embedded.stopping import stop_server
from continuum.embedded.trouble import OWN_SERVER, EmbeddedError, differing, runs_otherwise, told_as_one

__all__ = ["Server", "Status"]

START_ATTEMPTS = 3
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
        self._port = checked_port(port)
        self._idle_stop_s = checked_idle_stop(idle_stop)
        self._asked = checked(settings)
        self.home = places.home_folder(home)

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
        with told_as_one(self.home):
            refuse_home(self.home)
            if not self.home.is_dir() or not stop_server(self.home):
                return False
        _logger.info("embedded Postgres in %s stopped", self.home)
        return True

    def status(self) -> Status:
        """Look how it is, without starting it."""
        with told_as_one(self.home):
            refuse_home(self.home)
            pid = locks.supervisor_pid(self.home)
            plan = plans.read_if_possible(self.home)
            ready = pid is not None and plan is not None and _answers(plan, timeout_s=1.0)
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
            with psycopg.connect(url, connect_timeout=2) as connection:
                row = connection.execute(counting).fetchone()
                return int(row[0]) if row else None
        except psycopg.Error:  # it just stopped, or all its connections are taken
            return None

    def _attach(self, *, keep: bool = False) -> tuple[str, int]:
        """Return the URL of a server that answers, and the descriptor of the lock that holds it."""
        with told_as_one(self.home):
            account = server_account()
            refuse_home(self.home)
            places.make_home(self.home, account)
            refuse_home(self.home)  # another one may have made it
            with locks.exclusively(self.home / locks.START):
                client = locks.take_shared(self.home / locks.CLIENTS)
                try:
                    plan = self._running_plan()
                    if self._port is not None and plan.port is not None:
                        set_password(plan)
                    if keep:
                        touch(self.home / places.KEEP)
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
        began = told = time.monotonic()
        while locks.is_held_exclusively(self.home / locks.SUPERVISOR):
            plan = plans.read(self.home)
            if plan is not None and _answers(plan, timeout_s=5.0):
                return plan
            now = time.monotonic()
            if now - began > starting.LIMIT_S:
                raise EmbeddedError(starting.still_starting(self.home))
            if now - told > starting.PATIENCE_S:
                told = now
                _logger.warning("the embedded Postgres in %s still starts or recovers; waiting", self.home)
            time.sleep(0.02)
        return None

    def _started(self) -> Plan | None:
        """Start it, or return None if somebody came before us or the supervisor was killed."""
        plan = starting.make_plan(self.home, self._asked, idle_stop_s=self._idle_stop_s, port=self._port)
        return plan if starting.launch(plan) else None

    def differences(self) -> list[str]:
        """Name what the running server has otherwise than asked for here: settings and port."""
        plan = plans.read_if_possible(self.home)
        return [] if plan is None else self._differences(plan)

    def _differences(self, plan: Plan) -> list[str]:
        others = differing(self._asked, plan.settings)
        if self._port is not None and self._port != plan.port:
            others.append(f"port={self._port} (the server has {plan.port or 'none'})")
        return others

    def _warn_of_differences(self, plan: Plan) -> None:
        if others := self._differences(plan):
            _logger.warning("%s", runs_otherwise(self.home, others))


def _answers(plan: Plan, *, timeout_s: float) -> bool:
    return ask(plan.socket, plan.socket_port, timeout_s) is Answer.READY
