"""Where the server's files lie: the home folder, the data, the socket.

The rule: modes of folders are set when we make them, and a folder that was there before is never changed. Where
the server's account cannot enter the home folder (root's home and pytest's ``tmp_path`` are 0700), the data goes
to a place of root's, and the file ``server.location`` in the home folder says which.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from continuum.embedded.account import ROOTS_PLACE, Account, can_enter
from continuum.embedded.trouble import EmbeddedError, other_major

KEEP = "server.keep"
LOCATION = "server.location"
SOCKET_PATH_LIMIT = 90  # bytes; the kernels' are 107 on Linux and 103 on macOS


def home_folder(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder that was given, else CONTINUUM_HOME, else ``.continuum`` where we are."""
    chosen = given if given is not None else os.environ.get("CONTINUUM_HOME") or ".continuum"
    return Path(chosen).expanduser().resolve()


def make_home(home: Path, account: Account | None) -> None:
    """Make the home folder if it is missing, closed to others: all but passing through where that is needed."""
    if home.is_dir():
        return
    home.parent.mkdir(parents=True, exist_ok=True)
    # Another starter must not see it half made: closed to the server's account, it would put the data elsewhere.
    fresh = Path(tempfile.mkdtemp(prefix=".continuum-home-", dir=home.parent))
    try:
        (fresh / ".gitignore").write_text("*\n", encoding="utf-8")
        if account is not None:
            fresh.chmod(0o711)
        fresh.rename(home)
    except OSError:
        if not home.is_dir():  # else another starter was faster
            raise
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


def data_folder(home: Path, major: int, account: Account | None, *, disposable: bool) -> Path:
    """Return where the data of a major version lies or is to lie. Call it under the start lock.

    Raises ``EmbeddedError`` when there is data of other versions only: an empty database would look like a loss.
    """
    parent = _data_parent(home, account, disposable=disposable)
    data = parent / f"pg{major}"
    others = sorted(other.parent.name.removeprefix("pg") for other in parent.glob("pg*/PG_VERSION"))
    if data.is_dir():
        with contextlib.suppress(FileNotFoundError):
            made_by = (data / "PG_VERSION").read_text(encoding="ascii").strip()
            if made_by != str(major):
                raise EmbeddedError(other_major(str(data), made_by, str(major)))
    elif others:
        raise EmbeddedError(other_major(str(parent / f"pg{others[-1]}"), others[-1], str(major)))
    return data


def _data_parent(home: Path, account: Account | None, *, disposable: bool) -> Path:
    note = home / LOCATION
    if note.exists():
        place = Path(note.read_text(encoding="utf-8").strip())
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
        _refuse_if_of_another(place, home)
    elif account is None or can_enter(home, account):
        return home
    else:
        _clear_abandoned()
        ROOTS_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix="data-", dir=ROOTS_PLACE))
        place.chmod(0o711)
        note.write_text(f"{place}\n", encoding="utf-8")
    (place / "home").write_text(f"{home}\n", encoding="utf-8")
    if disposable:
        (place / "disposable").touch()
    else:
        (place / "disposable").unlink(missing_ok=True)
    return place


def _refuse_if_of_another(place: Path, home: Path) -> None:
    """A home folder may be moved. If it was copied, one place must not become the data of two."""
    with contextlib.suppress(FileNotFoundError):
        other = Path((place / "home").read_text(encoding="utf-8").strip())
        if other != home and _claims(other, place):
            raise EmbeddedError(
                f"{home} is a copy of {other}, whose data lies in {place}: use that one, or remove "
                f"{home / LOCATION} to begin with an empty database"
            )


def _claims(home: Path, place: Path) -> bool:
    note = home / LOCATION
    return note.exists() and note.read_text(encoding="utf-8").strip() == str(place)


def _clear_abandoned() -> None:
    """Remove data that ran with fsync off and whose home folder is gone: what test runs leave behind."""
    for place in ROOTS_PLACE.glob("data-*"):
        with contextlib.suppress(OSError):
            home = Path((place / "home").read_text(encoding="utf-8").strip())
            runs = any(_lives(pid_in_file(file.parent)) for file in place.glob("*/postmaster.pid"))
            if (place / "disposable").exists() and not _claims(home, place) and not runs:
                shutil.rmtree(place)


def _lives(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def pid_in_file(data: Path) -> int | None:
    """Return the pid that Postgres wrote down in its data folder, which proves nothing."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()[0])
    return None


def socket_folder(data: Path, account: Account | None) -> Path:
    """Return the folder for the socket: the data folder, or a short one where a client could not use that path."""
    if _fits(data):
        return data
    import hashlib  # takes long, and the supervisor does not need it

    owner = account.uid if account else os.geteuid()
    name = f"continuum-{owner}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    for parent in _short_places():
        if _fits(parent / name) and (account is None or can_enter(parent, account)):
            return parent / name
    raise EmbeddedError(f"no folder for the socket has a path short enough: set TMPDIR, or move {data} up")


def _short_places() -> Iterator[Path]:
    yield Path(tempfile.gettempdir()).resolve()
    yield Path("/tmp").resolve()


def _fits(folder: Path) -> bool:
    # A comma separates hosts in a URL, also in a path.
    return "," not in str(folder) and len(os.fsencode(folder / ".s.PGSQL.65535")) <= SOCKET_PATH_LIMIT


def make_socket_folder(folder: Path, uid: int | None, gid: int | None) -> None:
    """Make the short folder for the socket. Anybody can make folders there, so refuse one that is not ours."""
    owner = os.geteuid() if uid is None else uid
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    opened = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY) if _is_plain(folder) else None
    if opened is None:
        raise EmbeddedError(f"{folder}, meant for the server's socket, is not a folder: remove it, or set TMPDIR")
    try:
        status = os.fstat(opened)
        if status.st_uid not in {owner, os.geteuid()} or stat.S_IMODE(status.st_mode) & 0o077:
            raise EmbeddedError(
                f"{folder}, meant for the server's socket, belongs to or is open to somebody else "
                f"(uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}): remove it, or set TMPDIR"
            )
        if uid is not None and gid is not None:
            os.fchown(opened, uid, gid)
    finally:
        os.close(opened)


def _is_plain(folder: Path) -> bool:
    return stat.S_ISDIR(folder.lstat().st_mode)
