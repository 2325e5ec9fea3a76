"""Text for terminals: columns, times, JSON.

The rule: what came from a database may hold anything, so no character that a terminal would act upon is printed as
it is: it is escaped as Python or JSON would write it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

SOME_TEXT = 2_000  # characters of a value that are shown where the whole has another place


def printable(text: str) -> str:
    """Return ``text`` with everything escaped that is no printable character, line ends too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that a terminal shows and does not act upon; what JSON lacks is given as text."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escaped(char) for char in text)


def _json_escaped(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"


def _plain(value: Any) -> Any:
    return moment(value) if isinstance(value, datetime) else str(value)


def some(text: str, most: int = SOME_TEXT) -> str:
    """Return the beginning of a long text, and how much of it is left out."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def moment(at: datetime) -> str:
    """Return a time as UTC in ISO 8601, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lasting(time: timedelta) -> str:
    """Return a duration in its two largest units."""
    seconds = max(0.0, time.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, below, smaller in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    raise AssertionError(whole)


def terminal_width() -> int | None:
    """Return how wide lines may be: COLUMNS, else the terminal's width, None if it is none."""
    if os.environ.get("COLUMNS", "").isdecimal() or (sys.stdout is not None and sys.stdout.isatty()):
        return max(40, shutil.get_terminal_size().columns)
    return None


def takes_unicode() -> bool:
    """Tell whether the output can show lines and dots that are not ASCII."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return encoding.lower().replace("-", "").startswith("utf")


def width_of(text: str) -> int:
    """Return how many columns a printable text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fitted(text: str, width: int | None) -> str:
    """Return ``text`` cut to ``width`` columns, with an ellipsis where it was cut."""
    if width is None or width_of(text) <= width:
        return text
    ellipsis = "…" if takes_unicode() else "..."
    kept, left = "", width - len(ellipsis)
    for char in text:
        left -= _char_width(char)
        if left < 0:
            break
        kept += char
    return kept + ellipsis


def columns(
    heads: Sequence[str], rows: Iterable[Sequence[str]], width: int | None, *, least: int = 0
) -> Iterator[str]:
    """Yield a table's lines. The last column takes what is left of ``width`` and is cut to it.

    Where less than ``least`` is left and a cell does not fit, it stands in a line of its own below.
    """
    lines = [[printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(width_of(line[number]) for line in lines) for number in range(len(heads) - 1)]
    left = None if width is None else width - sum(widths) - 2 * len(widths)
    for line in lines:
        fixed = "".join(cell + " " * (wide - width_of(cell) + 2) for cell, wide in zip(line, widths, strict=False))
        if left is not None and left < least and left < width_of(line[-1]):
            yield fitted(fixed.rstrip(), width)
            yield fitted(f"  {line[-1]}", width)
        else:
            yield fitted(f"{fixed}{line[-1]}".rstrip(), width)
