"""A planted bug as a value: what is replaced where, what that breaks, and what must catch it.

The rule: text that is to be replaced stands exactly once in its file, so that a catalogue which the sources have
left behind is refused, and never plants something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Whether a simulation of whole workers on the in-memory journal can see a bug. "in memory": since the same mistake
# is made there, which has no SQL. "no": it lies in what only Postgres has.
Simulated = Literal["yes", "in memory", "no"]


class OutOfDate(Exception):
    """A replacement does not fit the sources any more."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A piece of one file, below src/continuum, and what stands there instead."""

    file: str
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Replace it in the package in this folder. Raises ``OutOfDate`` unless the old text stands there once."""
        path = package / self.file
        if not path.is_file():
            raise OutOfDate(f"there is no {self.file}")
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise OutOfDate(f"{self.file} has this {count} times, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Check:
    """Tests of one suite, at least one of which must fail."""

    suite: Literal["core", "programs", "journal", "races", "conformance"]
    test: str  # as pytest names it, below tests/
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def node(self) -> str:
        """What pytest is given, from the project's folder."""
        return f"tests/{self.test}"

    @property
    def name(self) -> str:
        """The test's own name."""
        return self.test.rpartition("::")[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug. ``caught_by`` is what catches it, cheapest first: each of them must.

    ``in_memory`` is the same mistake in the in-memory journal, if it can be made there. It is planted too.
    """

    name: str
    breaks: str  # what is wrong, in short words
    promise: str  # which is broken by it
    changes: tuple[Replacement, ...]
    caught_by: tuple[Check, ...]
    in_memory: tuple[Replacement, ...] = ()
    harmless_alone: bool = False  # something stands in (a claim, the sweep, a poll), or no scenario looks at it

    @property
    def simulated(self) -> Simulated:
        """Whether a simulation can see it: the journal's own bugs only if they are made in memory too."""
        if self.harmless_alone:
            return "no"
        if self.in_memory:
            return "in memory"
        return "no" if any(change.file.startswith("_journal/") for change in self.changes) else "yes"

    def apply(self, package: Path) -> None:
        """Plant it in the package in this folder. Raises ``OutOfDate``."""
        for change in (*self.changes, *self.in_memory):
            change.apply(package)
