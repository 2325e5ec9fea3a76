"""The operating system's account that Postgres runs as.

The rule: Postgres refuses to run as root, so for root it is another account, and for everybody else it is their
own. No account is made.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continuum.embedded.trouble import OWN_SERVER, EmbeddedError

ROOTS_PLACE = Path("/var/lib/continuum-embedded")
"""Where root keeps what the server's account could not reach in its own place."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs Postgres when it is root that asks for it."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Return who is to run Postgres, or None if it is the caller."""
    import pwd

    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise EmbeddedError(
                f"uid {os.geteuid()} has no name, which Postgres asks for: add it to /etc/passwd, or {OWN_SERVER}"
            ) from error
        return None
    wanted = os.environ.get("CONTINUUM_PG_USER")
    for name in [wanted] if wanted else ["postgres", "nobody"]:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise EmbeddedError(f"CONTINUUM_PG_USER={name} is root, which Postgres refuses: name another user")
        return Account(name, entry.pw_uid, entry.pw_gid)
    missing = f"CONTINUUM_PG_USER={wanted} does not exist" if wanted else "neither postgres nor nobody exists"
    raise EmbeddedError(
        f"Postgres refuses to run as root, and {missing}: set CONTINUUM_PG_USER to an unprivileged user, "
        f"run as one, or {OWN_SERVER}"
    )


def run_as(uid: int | None, gid: int | None) -> dict[str, Any]:
    """Return the arguments for ``subprocess`` that make a process run as that account."""
    return {} if uid is None else {"user": uid, "group": gid, "extra_groups": []}


def can_enter(folder: Path, account: Account) -> bool:
    """Tell whether the account may pass through a folder and everything above it."""
    return all(_has_right_to_pass(step.stat(), account) for step in (folder, *folder.parents))


def _has_right_to_pass(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
