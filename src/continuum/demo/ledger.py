"""The ledger: what the activities write down themselves, in a plain file that no journal knows of.

    begin  <execution>  <pid>  <package>  <part>
    end    <execution>  <pid>  <package>  <part>  <how many>

An activity writes a line when it begins and one when it has ended; fields are separated by tabs. The result that
it returns names its execution, so the journal says which one it has recorded. Part 0 of a package counts its
parts, the others are its files; part 0 of no package lists the packages.

The rule: a line is one write to a file opened for appending, so that processes may write together, and a killed
one leaves whole lines.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Execution", "Ledger", "Step", "Verdict", "compare", "written"]

MAX_PROBLEMS = 10


class Step(NamedTuple):
    """What an activity does once, if nobody kills its worker."""

    package: str
    part: int

    def __str__(self) -> str:
        return f"part {self.part} of {self.package!r}" if self.package else "the list of packages"


@dataclass(slots=True)
class Execution:
    """One execution of a step. ``number`` is the line it began on, ``ended`` that of its end."""

    id: str
    pid: int
    step: Step
    number: int
    ended: int | None = None


class Noted:
    """An execution under way; ``how_many`` goes into the line of its end."""

    def __init__(self, id: str) -> None:  # noqa: A002 - the field's name
        self.id = id
        self.how_many = 0


@contextmanager
def written(path: str | os.PathLike[str], package: str, part: int) -> Generator[Noted]:
    """Write the line that the block begins, and when it has ended without an error the one of its end."""
    noted = Noted(secrets.token_hex(6))
    place = f"{noted.id}\t{os.getpid()}\t{package}\t{part}"
    _append(path, f"begin\t{place}\n")
    yield noted
    _append(path, f"end\t{place}\t{noted.how_many}\n")


def _append(path: str | os.PathLike[str], line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class Ledger:
    """A ledger as it is read while others write: what has been executed, and how far that is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.executions: dict[str, Execution] = {}
        self.packages: int | None = None  # how many there are, once that is known
        self.done = 0  # packages of which every part has ended
        self.files = 0
        self._share = 0.0
        self._read = 0
        self._lines = 0
        self._parts: dict[str, int] = {}
        self._ended: dict[str, set[int]] = {}

    @property
    def share(self) -> float:
        """How much of all packages is done, between 0 and 1."""
        return self._share / self.packages if self.packages else 0.0

    def read_on(self) -> None:
        """Take in the lines that were written since."""
        with open(self.path, "rb") as stream:
            stream.seek(self._read)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            self._lines += 1
            self._take_in(*line.split("\t"))

    def _take_in(self, verb: str, id: str, pid: str, package: str, part: str, how_many: str = "0") -> None:  # noqa: A002
        step = Step(package, int(part))
        if verb == "begin":
            self.executions[id] = Execution(id, int(pid), step, self._lines)
            return
        self.executions[id].ended = self._lines
        if not package:
            self.packages = int(how_many)
            return
        ended = self._ended.setdefault(package, set())
        if step.part in ended:
            return  # it was in flight at a kill: counted then
        ended.add(step.part)
        if step.part == 0:
            self._parts[package] = int(how_many)
        else:
            self.files += int(how_many)
        parts = self._parts[package]
        self.done += len(ended) == parts + 1
        self._share += 1 / parts if step.part else 0 if parts else 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of the comparison: how many executions are of no use, and how many of them were cut off before the
    end; which packages went on under another worker; what must not be.
    """

    again: int = 0
    cut: int = 0
    resumed: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])


def compare(
    executions: Iterable[Execution], recorded: Mapping[Step, Collection[str]], killed: Collection[int]
) -> Verdict:
    """Compare the ledger with the journals: ``recorded`` are the executions they have of each step.

    Each step must be recorded once, by an execution that ended. One that is not recorded must have been in flight
    when its worker was killed: begun by a killed process, before the recorded one had ended. It may have ended
    itself, if its outcome was not committed yet.
    """
    known = {execution.id: execution for execution in executions}
    problems = [f"{step} is recorded {len(ids)} times" for step, ids in recorded.items() if len(ids) != 1]
    kept: dict[Step, Execution] = {}
    for step, ids in recorded.items():
        for id_ in ids:
            execution = known.get(id_)
            if execution is None or execution.ended is None or execution.step != step:
                problems.append(f"the journal has {step}, the ledger has no end of it")
            else:
                kept[step] = execution
    again = cut = 0
    for execution in known.values():
        first = kept.get(execution.step)
        if first is execution:
            continue
        again += 1
        cut += execution.ended is None
        if first is None:
            problems.append(f"the ledger has {execution.step}, the journal does not")
        elif execution.pid not in killed:
            problems.append(f"{execution.step} ran twice, and process {execution.pid} was not killed")
        elif first.ended is not None and execution.number > first.ended:
            problems.append(f"{execution.step} ran again though its outcome was there")
    return Verdict(again, cut, _resumed(known.values()), problems)


def _resumed(executions: Iterable[Execution]) -> list[str]:
    """Return the packages of which several processes have executed something."""
    processes: dict[str, set[int]] = {}
    for execution in executions:
        processes.setdefault(execution.step.package, set()).add(execution.pid)
    return [package for package, pids in processes.items() if len(pids) > 1]
