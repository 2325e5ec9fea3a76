"""What can go wrong with the embedded server, in one sentence.

The rule: a message says what happened, to what, and the way out. Where Postgres gave the reason, it stands there
in Postgres' own words.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from continuum.errors import ContinuumError

__all__ = ["EmbeddedError"]

OWN_SERVER = "set CONTINUUM_DATABASE_URL to use a Postgres of your own"

_REASON = re.compile(r"\b(?:FATAL|PANIC|ERROR|DETAIL|HINT|error|detail|hint): +(.+)")
_PARAMETER = re.compile(r'parameter "([^"]+)"')


class EmbeddedError(ContinuumError):
    """The embedded Postgres could not be started, used or stopped. The message names the way out."""


@contextlib.contextmanager
def told_as_one(home: Path) -> Generator[None]:
    """Turn what the operating system refuses into an ``EmbeddedError`` that names the path."""
    try:
        yield
    except OSError as error:
        where = error.filename or home
        reason = "is a symbolic link where none may be" if error.errno == errno.ELOOP else error.strerror or error
        raise EmbeddedError(
            f"embedded Postgres in {home}: {where}: {reason}; "
            f"choose another folder by CONTINUUM_HOME or --home, or {OWN_SERVER}"
        ) from error


def reasons(output: str) -> str:
    """Return what Postgres gave as reasons in its output, or else the last words it said."""
    found = [line.strip().rstrip(".") for line in _REASON.findall(output)]
    if not found:
        found = [line.strip() for line in output.splitlines() if line.strip()][-3:]
    return "; ".join(dict.fromkeys(found)) or "it said nothing"


def why_it_did_not_start(
    output: str, *, data: str, settings: Mapping[str, str], port: int | None, log: str
) -> str:
    """Explain a postmaster that ended before it was ready, from what it wrote."""
    if port is not None and "Address already in use" in output:
        return port_taken(port)
    return (
        setting_refused(output, settings)
        or f"embedded Postgres did not start on {data}: {reasons(output)} (all of it is in {log})"
    )


def setting_refused(output: str, settings: Mapping[str, str]) -> str | None:
    """Explain which of the settings Postgres complained about, if it was one of them."""
    for name in _PARAMETER.findall(output):
        if name in settings:
            refused = f"{name}={settings[name]}"
            return f"Postgres refuses the setting {refused}: {reasons(output)}; change it or leave it out"
    return None


def port_taken(port: int) -> str:
    return (
        f"port {port} on 127.0.0.1 is taken by another program: choose another one by port= or --port, "
        f"or leave it out, for the unix socket needs none"
    )


def other_major(data: str, made_by: str, ours: str) -> str:
    return (
        f"the data in {data} was made by Postgres {made_by}, the binaries found are Postgres {ours}: "
        f"point CONTINUUM_PG_BIN to the bin folder of a Postgres {made_by.partition('.')[0]} to use or dump the "
        f"data, or move that folder away to begin with an empty one"
    )


def differing(asked: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """Name the settings that were asked for and that the running server has otherwise."""
    return [
        f"{name}={value} (the server has {running.get(name, 'its default')})"
        for name, value in sorted(asked.items())
        if running.get(name) != value
    ]


def runs_otherwise(home: Path, others: Sequence[str]) -> str:
    return (
        f"the embedded Postgres in {home} already runs with other settings than asked for: {', '.join(others)}; "
        f"stop it by `continuum db stop` to change them"
    )
