"""How a server is started: the plan is made and checked, a supervisor gets it, and its report is waited for.

The rule: it happens under the start lock, and what can be refused is refused before there is a supervisor. Who
gives up waiting tells the supervisor to stop.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from continuum.embedded import checks, locks, places
from continuum.embedded import plan as plans
from continuum.embedded.account import Account, server_account
from continuum.embedded.binaries import find_binaries
from continuum.embedded.plan import Plan
from continuum.embedded.probe import Answer, ask
from continuum.embedded.settings import DEFAULT_SETTINGS
from continuum.embedded.stopping import tell_supervisor
from continuum.embedded.trouble import EmbeddedError

PATIENCE_S = 10.0  # after which we say that we still wait
LIMIT_S = 600.0  # as long as a recovery may take; the supervisor goes on when we give up
SILENCE_S = 5.0  # without a supervisor, after which no report is to be expected
_LOOK_S = 0.5
_logger = logging.getLogger("continuum.embedded")


def make_plan(home: Path, asked: Mapping[str, str], *, idle_stop_s: float, port: int | None) -> Plan:
    """Decide how a server is to run. Raises ``EmbeddedError`` for what would not work."""
    account = server_account()
    binaries = find_binaries(account)
    settings = {**DEFAULT_SETTINGS, **asked}
    disposable = settings["fsync"].lower() in {"off", "false", "no", "0"}
    if asked:
        checks.refuse_settings(settings, binaries, account)
    if port is not None:
        _refuse_port(home, port, account)
    data = places.data_folder(home, binaries.major, account, disposable=disposable)
    return Plan(
        home=str(home),
        data=str(data),
        socket=str(places.socket_folder(data, account)),
        binaries=str(binaries.folder),
        version=binaries.version,
        major=binaries.major,
        settings=settings,
        port=port,
        idle_stop_s=idle_stop_s,
        uid=account.uid if account else None,
        gid=account.gid if account else None,
    )


def _refuse_port(home: Path, port: int, account: Account | None) -> None:
    earlier = plans.read_if_possible(home)
    if earlier is not None and ask(earlier.socket, earlier.socket_port) is not Answer.NOBODY:
        return  # a server of ours that lost its supervisor may have the port; the next supervisor ends it
    checks.refuse_port(port, account)


def launch(plan: Plan) -> bool:
    """Start a supervisor and wait until its server is ready.

    False if it gave no report: it was killed, or that of a starter who was killed came before it.
    """
    home = Path(plan.home)
    locks.empty_if_free(home / locks.SUPERVISOR)
    reader, writer = os.pipe()
    try:
        try:
            subprocess.run(
                # -S: it needs nothing of site-packages; -P: nothing of the folder its file lies in.
                [sys.executable, "-S", "-P", Path(__file__).with_name("entry.py"), plan.home, str(writer)],
                cwd="/",
                input=plan.to_json().encode(),
                stdout=subprocess.DEVNULL,
                pass_fds=[writer],
                start_new_session=True,
                check=True,
            )
        finally:
            os.close(writer)
        said = _report(reader, plan)
    except subprocess.SubprocessError as error:
        raise EmbeddedError(f"the supervisor of the embedded Postgres did not start: {error}") from error
    except KeyboardInterrupt:
        _tell_to_stop(home)
        raise
    finally:
        os.close(reader)
    if said is None:
        return False
    if "error" in said:
        raise EmbeddedError(said["error"])
    return True


def _report(reader: int, plan: Plan) -> dict[str, str] | None:
    """Wait for the supervisor's line. A process forked meanwhile has the pipe too, so its end may never come."""
    began = told = seen = time.monotonic()
    said = b""
    while not said.endswith(b"\n"):
        if select.select([reader], [], [], _LOOK_S if PATIENCE_S > _LOOK_S else PATIENCE_S)[0]:
            part = os.read(reader, 65536)
            if not part and not said:
                return None
            if not part:
                break
            said += part
            continue
        now = time.monotonic()
        if locks.is_held_exclusively(Path(plan.home) / locks.SUPERVISOR):
            seen = now
        if now - seen > SILENCE_S:
            return None
        if now - began > LIMIT_S:
            raise EmbeddedError(still_starting(Path(plan.home)))
        if now - told > PATIENCE_S:
            told = now
            _logger.warning("the embedded Postgres in %s still starts or recovers; waiting", plan.data)
    found: dict[str, str] = json.loads(said)
    return found


def _tell_to_stop(home: Path) -> None:
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        pid = locks.supervisor_pid(home)
        if pid is not None:
            tell_supervisor(pid)
            return
        time.sleep(0.02)  # it may be on its way to its lock


def still_starting(home: Path) -> str:
    return (
        f"the embedded Postgres in {home} still starts or recovers after {LIMIT_S:g} s: see "
        f"{home / 'postgres.log'}, then start again to wait for it, or end it by `continuum db stop --home {home}`"
    )
