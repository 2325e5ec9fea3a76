"""What is looked at before anything is started, so that a mistake costs no time and leaves no data.

The rule: what was asked for is refused here in our words; what only Postgres can judge is asked of Postgres.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from continuum.embedded.account import Account, run_as
from continuum.embedded.binaries import Binaries
from continuum.embedded.postmaster import environment
from continuum.embedded.trouble import OWN_SERVER, EmbeddedError, port_taken, setting_refused

LOOK_LIMIT_S = 10.0
_FIRST_FOR_ALL = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def checked_port(port: object) -> int | None:
    """Return the port, or refuse what is none."""
    if port is None:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise EmbeddedError(f"{port!r} is not a port: choose a number from 1024 to 65535")
    return port


def checked_idle_stop(seconds: object) -> float:
    """Return the seconds, or refuse what is no span of time."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < math.inf:
        return float(seconds)
    raise EmbeddedError(f"idle_stop={seconds!r} is not a number of seconds: pass 0 or more, such as 5.0")


def refuse_home(home: Path) -> None:
    """Raise ``EmbeddedError`` if the home folder is none, or is not ours.

    Root would hide its owner's data, lock the owner out, and follow what the owner laid there.
    """
    try:
        status = home.stat()
    except FileNotFoundError:
        return
    if not home.is_dir():
        raise EmbeddedError(f"{home} is a file, not a folder: choose a folder by CONTINUUM_HOME or --home")
    if status.st_uid != os.geteuid():
        raise EmbeddedError(
            f"{home} belongs to {_name_of(status.st_uid)}: run this as that user, or choose another folder "
            f"by CONTINUUM_HOME or --home"
        )


def _name_of(uid: int) -> str:
    import pwd

    with contextlib.suppress(KeyError):
        return f"the user {pwd.getpwuid(uid).pw_name}"
    return f"the user with uid {uid}"


def refuse_port(port: int, account: Account | None) -> None:
    """Raise ``EmbeddedError`` if a server of that account could not listen there now."""
    if account is not None and port < _first_for_all():
        raise EmbeddedError(_privileged(port))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise EmbeddedError(port_taken(port)) from error
            if error.errno == errno.EACCES:
                raise EmbeddedError(_privileged(port)) from error
            raise EmbeddedError(
                f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): leave it out, for the unix socket "
                f"needs none, or {OWN_SERVER}"
            ) from error


def _first_for_all() -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(_FIRST_FOR_ALL.read_text(encoding="ascii"))
    return 1024


def _privileged(port: int) -> str:
    return f"port {port} is for root, as which Postgres does not run: choose one from 1024 to 65535"


def refuse_settings(settings: Mapping[str, str], binaries: Binaries, account: Account | None) -> None:
    """Raise ``EmbeddedError`` if Postgres does not know a setting or refuses its value."""
    passed = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    try:
        said = subprocess.run(
            # It looks at the settings first, then ends for want of a data folder.
            [binaries.folder / "postgres", *passed, "-C", "data_directory"],
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=LOOK_LIMIT_S,
            **(run_as(account.uid, account.gid) if account else {}),
        ).stderr
    except subprocess.TimeoutExpired:
        return  # it will be seen at the start
    if refused := setting_refused(said, settings):
        raise EmbeddedError(refused)
