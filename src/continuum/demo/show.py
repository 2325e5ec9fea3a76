"""What people see of a demo: how it goes, and what came of it.

The rule: on a terminal one line is painted over and over; elsewhere a line is written now and then, and nothing
but text. No colour if NO_COLOR is set, no letter that the output's encoding lacks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Iterator
from typing import TextIO

from continuum.demo.drive import Figures
from continuum.demo.files import MAX_BYTES, MAX_FILES
from continuum.demo.ledger import Ledger
from continuum.demo.packages import MAX_PACKAGES

BAR = 24
PAINT_S = 0.05
STEP = 0.1  # of the work, between two lines that are not painted over
MAX_SHOWN = 10
KINDS = {"distribution": "distributions", "library": "of the standard library", "entry": "entries"}
CODES = {"good": "32", "bad": "31", "weak": "2"}


class Show:
    """Writes to one stream how a demo goes. Commands are shown between ``call`` and ``options``."""

    def __init__(self, stream: TextIO, call: str = "continuum", options: str = "") -> None:
        self._stream = stream
        self._call = call
        self._options = options
        self._paints = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._paints and not os.environ.get("NO_COLOR")
        self._full, self._empty = ("█", "░") if _can_write(stream, "█░") else ("#", ".")
        self._painted = False
        self._last_s = 0.0
        self._next = STEP

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._erase()
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def progress(self, ledger: Ledger) -> None:
        """Show how far it is, unless that was just shown."""
        if not ledger.packages:
            return
        if self._paints:
            now = time.monotonic()
            if now - self._last_s > PAINT_S or ledger.done == ledger.packages:
                self._last_s = now
                self._paint(ledger)
        elif ledger.share >= self._next - 1e-9:
            self._next += STEP * (1 + (ledger.share + 1e-9 - self._next) // STEP)
            self.say(f"{ledger.share:4.0%}  {_counts(ledger)}")

    def interrupted(self, run_id: str) -> None:
        """Say how a run goes on that was left."""
        self.say(f"{run_id} stays in the journal. Any worker carries it on:")
        self.say(f"  {self._command('worker', 'continuum.demo.flows')}")

    def result(self, figures: Figures) -> None:
        """Write what came of it, and where to look further."""
        for line in summary(figures):
            self.say(line)
        self.say("")
        if figures.ok:
            self.say(
                self._coloured("good", "Ledger and journals agree: nothing is missing, and nothing ran twice")
            )
            self.say(self._coloured("good", "but what was in flight at a kill."))
        else:
            self.say(self._coloured("bad", "Ledger and journals do not agree:"))
            for line in _first(figures.problems, len(figures.problems)):
                self.say(line)
        self.say("")
        self.say("Look further:")
        self.say(f"  {self._command('runs', 'tree', figures.run_id)}")
        if figures.example:
            self.say(f"  {self._command('runs', 'history', f'{figures.run_id}/{figures.example}')}")
        self.say(f"  {figures.ledger} is the ledger")

    def close(self) -> None:
        """Leave nothing half painted."""
        self._erase()
        self._stream.flush()

    def _paint(self, ledger: Ledger) -> None:
        full = int(ledger.share * BAR + 1e-9)
        bar = self._full * full + self._empty * (BAR - full)
        line = f"{bar} {ledger.share:4.0%}  {_counts(ledger)}"
        self._stream.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        self._stream.flush()
        self._painted = True

    def _erase(self) -> None:
        if self._painted:
            self._stream.write("\r\x1b[K")
            self._painted = False

    def _command(self, *words: str) -> str:
        return f"{self._call} {shlex.join(words)}{self._options}"

    def _coloured(self, kind: str, text: str) -> str:
        return f"\x1b[{CODES[kind]}m{text}\x1b[0m" if self._colours else text


def summary(figures: Figures) -> Iterator[str]:
    """Yield the lines of the table, and below it what was found out of order."""
    report, total = figures.report, figures.report.total
    kinds = ", ".join(f"{number:,} {KINDS.get(kind, kind)}" for kind, number in report.kinds.items())
    rows = {
        "children": f"{report.packages:,}" + (f"  ({kinds})" if kinds else ""),
        "files": f"{total.files:,}" + (f"  ({total.compared:,} compared with RECORD)" if total.compared else ""),
        "bytes": f"{total.bytes:,}",
        "mismatches": f"{total.mismatches:,}",
        "kills": f"{figures.kills:,}"
        + (f"  (of {figures.asked:,}: it was done sooner)" if figures.missed else ""),
        "resumed": f"{figures.resumed:,}  (runs that another worker replayed and went on with)",
        "run twice": f"{figures.again:,}  (of {figures.steps:,} activities{_how(figures)})",
        "time": f"{figures.seconds:.1f} s",
        "children/s": f"{figures.children_per_s:,.0f}",
    }
    yield ""
    for name, value in rows.items():
        yield f"  {name:12}{value}".rstrip()
    yield from _out_of_order(figures)


def _how(figures: Figures) -> str:
    """Say how those that ran twice were cut short by a kill."""
    if not figures.again:
        return ""
    return f"; {figures.cut:,} were cut off, {figures.again - figures.cut:,} had ended and were not recorded yet"


def _out_of_order(figures: Figures) -> Iterator[str]:
    report, total = figures.report, figures.report.total
    notes = {
        f"files differ from what RECORD says{':' if total.examples else ''}": total.mismatches,
        f"files could not be read, or are larger than {MAX_BYTES >> 20:,} MiB": total.unread,
        "distributions have no RECORD, so their files are not known": total.unlisted,
        f"files are left out: of one package {MAX_FILES:,} are looked at": total.left_out,
        f"packages are left out: {MAX_PACKAGES:,} are looked at": report.left_out,
    }
    if any(notes.values()):
        yield ""
    for text, number in notes.items():
        if number:
            yield f"{number:,} {text}"
        if number and text.startswith("files differ"):
            yield from _first(total.examples, total.mismatches)


def _first(lines: list[str], number: int) -> Iterator[str]:
    """Yield some of ``number`` lines, and how many there are more."""
    for line in lines[:MAX_SHOWN]:
        yield f"  {line}"
    if number > len(lines[:MAX_SHOWN]):
        yield f"  and {number - len(lines[:MAX_SHOWN]):,} more"


def _counts(ledger: Ledger) -> str:
    return f"{ledger.done:,} of {ledger.packages:,} packages, {ledger.files:,} files"


def _can_write(stream: TextIO, letters: str) -> bool:
    try:
        letters.encode(stream.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True
