"""Files in the home folder, opened so that a link that somebody planted there is not followed.

The rule: the last step of a path is never a symbolic link, and a note is replaced whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path


def open_plain(path: Path, flags: int) -> int:
    """Open a file that is no link, and return its descriptor. One that is made is its owner's alone."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def read_note(path: Path) -> str:
    """Return a small text file. Raises ``FileNotFoundError`` if it is missing."""
    with open(open_plain(path, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
        return file.read()


def write_note(path: Path, text: str) -> None:
    """Put a small text file there: beside its place, then renamed."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(open_plain(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def touch(path: Path) -> None:
    """Make an empty file if it is missing."""
    os.close(open_plain(path, os.O_WRONLY | os.O_CREAT))
