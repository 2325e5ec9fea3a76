"""What processes use, told by the kernel: CPU time, most memory, bytes written to disk. Linux only.

The rule: a process counts with all its descendants, for every engine has its own idea of how many it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")


def with_descendants(pids: Iterable[int]) -> set[int]:
    """Return the processes and all that come from them."""
    below: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and (parent := parent_of(int(folder.name))) is not None:
            below.setdefault(parent, []).append(int(folder.name))
    found, waiting = set[int](), list(pids)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += below.get(pid, [])
    return found


def parent_of(pid: int) -> int | None:
    """Return the parent of a process, or None if it has ended."""
    told = _lines(pid, "status").get("PPid")
    return None if told is None else int(told)


def cpu_us(pids: Iterable[int]) -> dict[int, float]:
    """Return the CPU time of each process that lives, all its threads, in microseconds."""
    found: dict[int, float] = {}
    for pid in pids:
        try:
            found[pid] = time.clock_gettime_ns((~pid << 3) | 2) / 1e3
        except OSError:  # it has ended
            continue
    return found


def gained(before: Mapping[int, float], now: Mapping[int, float]) -> float:
    """Return by how much all of them grew; a process that is new grew from nothing."""
    return sum(value - before.get(pid, 0.0) for pid, value in now.items())


def most_memory_mb(pids: Iterable[int]) -> float:
    """Return how much memory they had resident at most, each by itself, added up."""
    told = (_lines(pid, "status").get("VmHWM", "0 kB") for pid in pids)
    return sum(int(size.split()[0]) for size in told) / 1e3


def written_bytes(pids: Iterable[int]) -> dict[int, float]:
    """Return how many bytes each process has had written to disk."""
    return {pid: float(_lines(pid, "io").get("write_bytes", 0)) for pid in pids}


def _lines(pid: int, file: str) -> dict[str, str]:
    try:
        lines = (_PROC / str(pid) / file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
