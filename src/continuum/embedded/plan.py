"""How a server is to run, as one value: what a starter hands to the supervisor, and what that one writes down.

The rule: it lies in ``server.json`` only after the server was ready, so who finds it there and finds the
supervisor alive need decide nothing: not which binaries, not which account, not which folder for the socket.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from continuum.embedded.files import read_note, write_note
from continuum.embedded.trouble import EmbeddedError

DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run a server. ``port`` is None when it listens on its unix socket alone."""

    home: str
    data: str
    socket: str
    binaries: str
    version: str
    major: int
    settings: dict[str, str]
    port: int | None
    idle_stop_s: float
    uid: int | None
    gid: int | None

    @property
    def socket_port(self) -> int:
        """The number that names the socket's file, for Postgres has one port for both."""
        return self.port or DEFAULT_PORT

    @property
    def url(self) -> str:
        # Always with the port, or a client's PGPORT would win.
        return f"postgresql://postgres@/postgres?host={quote(self.socket)}&port={self.socket_port}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def write(self) -> None:
        """Put it into the home folder, whole or not at all."""
        write_note(plan_file(Path(self.home)), self.to_json())


def plan_file(home: Path) -> Path:
    return home / "server.json"


def from_json(text: str) -> Plan:
    return Plan(**json.loads(text))


def read(home: Path) -> Plan | None:
    """Return what the last server that was ready ran with, unless this folder is a copy of that one's."""
    try:
        found = from_json(read_note(plan_file(home)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise EmbeddedError(
            f"{plan_file(home)} was written by another version of Continuum, whose server still runs: "
            f"stop it by `continuum db stop --home {home}`, then start again"
        ) from error
    return found if found.home == str(home) else None


def read_if_possible(home: Path) -> Plan | None:
    """Return the same, or None too if another version wrote it: for those who can do without."""
    with contextlib.suppress(EmbeddedError):
        return read(home)
    return None
