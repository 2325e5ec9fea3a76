"""What the tests of the embedded server share: real processes, and looking at them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from continuum.embedded import TEST_SETTINGS, Server
from continuum.embedded.account import server_account
from continuum.embedded.plan import Plan, read

CLIENT = Path(__file__).with_name("client.py")
IDLE_STOP_S = 0.2
MEMORY = Path("/dev/shm")
FAST_PLACE = str(MEMORY) if os.access(MEMORY, os.W_OK) else None  # else where temporary files go

NEVER = '#!/bin/sh\n[ "$1" = -D ] || exec echo "postgres (PostgreSQL) 18.6"\nexec sleep 30\n'
"""A ``postgres`` that never gets ready."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a server as another account")


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Look again and again whether something has come true; fail if it has not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.01)


def server(home: Path, settings: dict[str, str] | None = None, port: int | None = None) -> Server:
    return Server(home, {**TEST_SETTINGS, **(settings or {})}, idle_stop=IDLE_STOP_S, port=port)


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def supervisor_pid(home: Path) -> int:
    pid = Server(home).status().supervisor_pid
    assert pid is not None
    return pid


def postmaster_pid(home: Path) -> int:
    return int((Path(plan(home).data) / "postmaster.pid").read_text().splitlines()[0])


def plan(home: Path) -> Plan:
    found = read(home)
    assert found is not None
    return found


def data(home: Path) -> Path:
    """Return the data folder of a home folder that was warm before."""
    [found] = home.glob("pg*")
    return found


def has_stopped(home: Path) -> bool:
    status = Server(home).status()
    return not status.running and not status.starting


def gone(pid: int) -> bool:
    """Tell whether a process has ended. A container's first process may be slow to reap what it inherits."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Client:
    """A client in a process of its own."""

    def __init__(self, home: Path, idle_stop_s: float = IDLE_STOP_S) -> None:
        self.process = subprocess.Popen(
            [sys.executable, CLIENT, home, str(idle_stop_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        """Wait until it has the server."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        self.process.communicate()
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def account_arguments() -> dict[str, Any]:
    """Arguments of ``subprocess`` that run something as the account that Postgres runs as."""
    account = server_account()
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def ticks(pid: int) -> int:
    """Count how often a process has gone to sleep: a supervisor does so each time it has looked for clients."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("voluntary")
    ]
    return int(line.split()[1])
