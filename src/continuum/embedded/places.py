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
from continuum.embedded.files import read_note, touch, write_note
from continuum.embedded.trouble import EmbeddedError, other_major

KEEP = "server.keep"
LOCATION = "server.location"
SOCKET_PATH_LIMIT = 90  # bytes; the kernels' are 107 on Linux and 103 on macOS


def home_folder(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder that was given, else CONTINUUM_HOME, else ``.continuum`` where we are."""
    chosen: object = given if given is not None else os.environ.get("CONTINUUM_HOME") or ".continuum"
    another = "choose another folder by CONTINUUM_HOME or --home"
    if not isinstance(chosen, str | os.PathLike) or not os.fspath(chosen):
        raise EmbeddedError(f"the home folder {chosen!r} is not the path of a folder: {another}")
    try:
        home = Path(os.fspath(chosen)).expanduser().resolve()
        os.fsencode(home).decode("utf-8")
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error) or type(error).__name__
        raise EmbeddedError(
            f"the home folder {os.fspath(chosen)!r} cannot be used: {reason}; {another}"
        ) from error
    if any(ord(character) < 32 or ord(character) == 127 for character in str(home)):
        raise EmbeddedError(f"the home folder {str(home)!r} has a control character in its path: {another}")
    return home


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
        if any(data.iterdir()):
            _refuse_other_data(data, major)
    elif others:
        raise EmbeddedError(other_major(str(parent / f"pg{others[-1]}"), others[-1], str(major)))
    return data


def _refuse_other_data(data: Path, major: int) -> None:
    version = data / "PG_VERSION"
    made_by = read_note(version).strip() if version.exists() else ""
    if not made_by:
        raise EmbeddedError(
            f"{version} is {'empty' if version.exists() else 'missing'}, so the data there is damaged or not "
            f"Postgres': put it back from a copy, or move {data} away to begin with an empty database"
        )
    if made_by != str(major):
        raise EmbeddedError(other_major(str(data), made_by, str(major)))


def _data_parent(home: Path, account: Account | None, *, disposable: bool) -> Path:
    place = _noted(home)
    if place is not None:
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
        _refuse_if_of_another(place, home)
    elif account is None or can_enter(home, account):
        return home
    else:
        for version in home.glob("pg*/PG_VERSION"):
            raise EmbeddedError(
                f"the data in {version.parent} is out of reach of {account.name}, as whom root runs Postgres: let "
                f"others pass through the folders above it, move {home} to where it was, or choose another --home"
            )
        _clear_abandoned()
        ROOTS_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix="data-", dir=ROOTS_PLACE))
        place.chmod(0o711)
        write_note(home / LOCATION, f"{place}\n")
    write_note(place / "home", f"{home}\n")
    if disposable:
        touch(place / "disposable")
    else:
        (place / "disposable").unlink(missing_ok=True)
    return place


def _noted(home: Path) -> Path | None:
    """Return the place that the note in the home folder names, if there is a note and the place is one of ours."""
    try:
        place = Path(read_note(home / LOCATION).strip())
    except FileNotFoundError:
        return None
    if place.parent != ROOTS_PLACE or not place.name.startswith("data-") or place.is_symlink():
        raise EmbeddedError(
            f"{home / LOCATION} does not name a folder {ROOTS_PLACE}/data-*: remove it to begin with an empty "
            f"database, or write the folder's path into it"
        )
    return place


def left_behind() -> list[tuple[Path, str]]:
    """Return root's data whose home folder is gone, with the path that the home folder had."""
    found: list[tuple[Path, str]] = []
    for place in sorted(ROOTS_PLACE.glob("data-*")):
        with contextlib.suppress(OSError):
            home = read_note(place / "home").strip()
            if not _claims(Path(home), place):
                found.append((place, home))
    return found


def _refuse_if_of_another(place: Path, home: Path) -> None:
    """A home folder may be moved. If it was copied, one place must not become the data of two."""
    with contextlib.suppress(FileNotFoundError):
        other = Path(read_note(place / "home").strip())
        if other != home and _claims(other, place):
            raise EmbeddedError(
                f"{home} is a copy of {other}, whose data lies in {place}: use that one, or remove "
                f"{home / LOCATION} to begin with an empty database"
            )


def _claims(home: Path, place: Path) -> bool:
    try:
        return read_note(home / LOCATION).strip() == str(place)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _clear_abandoned() -> None:
    """Remove data that ran with fsync off and whose home folder is gone: what test runs leave behind."""
    for place, _ in left_behind():
        with contextlib.suppress(OSError):
            runs = any(_lives(pid_in_file(file.parent)) for file in place.glob("*/postmaster.pid"))
            if (place / "disposable").exists() and not runs:
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
