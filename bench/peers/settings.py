"""What is measured: each engine with the settings it comes with, and with those that we found best for it.

The rule: ``default`` settings are what an engine does when it is told nothing. What is best is not said here: it
is found, by measuring all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES = {"continuum": "Continuum", "dbos": "DBOS", "absurd": "Absurd", "restate": "Restate"}
SWEEP = (1, 4, 32, 200)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run an engine, and what it is to do.

    ``in_flight`` are numbers of workflows at a time; ``families`` and ``latencies`` are how it is done, in the
    words of the engine's script, and how many children or times.
    """

    engine: str
    name: str
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    in_flight: tuple[int, ...] = ()
    families: tuple[tuple[str, int], ...] = ()
    latencies: tuple[tuple[str, int], ...] = ()
    default: bool = False


_POLLED = {"poll_s": 0.01}
_OURS: Any = {
    "in_flight": (1, 4, 32, 200, 1_000),
    "families": (("all at once", 1_000), ("all at once", 10_000)),
    "latencies": (("between processes", 200),),
}
FIRST = Setting("continuum", "as it comes, first", default=True, **_OURS)
LAST = Setting("continuum", "as it comes, last", default=True, **_OURS)
PEERS = (
    Setting(
        "dbos",
        "as it comes, sync functions",
        in_flight=SWEEP,
        families=(("threads", 500), ("queue", 500)),
        latencies=(("same process", 200), ("queue", 10)),
        default=True,
    ),
    Setting(
        "dbos",
        "async functions",
        {"api": "async"},
        in_flight=SWEEP,
        families=(("coroutines", 1_000),),
    ),
    Setting(
        "dbos",
        "two processes, polling every 10 ms, no pre-ping",
        {"processes": 2, "config": {"db_engine_kwargs": {"pool_pre_ping": False}}, **_POLLED},
        in_flight=(4, 32, 200),
        families=(("threads", 500), ("queue", 500)),
        latencies=(("queue", 100),),
    ),
    Setting(
        "absurd",
        "as it comes, a worker with one task at a time",
        in_flight=(1,),
        families=(("results", 500),),
        latencies=(("waited for by its SDK", 30),),
        default=True,
    ),
    Setting(
        "absurd",
        "two workers, polling every 10 ms",
        {"processes": 2, **_POLLED},
        in_flight=(2,),
        families=(("results", 500),),
        latencies=(("asked every 2 ms", 100),),
    ),
    Setting(
        "absurd",
        "a worker of 4 coroutines",
        {"api": "async", "concurrency": 4, **_POLLED},
        in_flight=(4,),
    ),
    Setting(
        "absurd",
        "two workers of 16 coroutines",
        {"api": "async", "concurrency": 16, "processes": 2, **_POLLED},
        in_flight=(32,),
        families=(("results", 500),),
    ),
    Setting(
        "absurd",
        "two workers of 100 coroutines",
        {"api": "async", "concurrency": 100, "processes": 2, **_POLLED},
        in_flight=(200,),
    ),
    Setting(
        "restate",
        "as it comes, one process of handlers",
        in_flight=SWEEP,
        families=(("all at once", 1_000),),
        latencies=(("over HTTP", 200),),
        default=True,
    ),
    Setting(
        "restate",
        "two processes of handlers, 4 partitions",
        {"processes": 2, "config": {"RESTATE_DEFAULT_NUM_PARTITIONS": "4"}},
        in_flight=SWEEP,
        families=(("all at once", 1_000), ("waves", 1_000)),
        latencies=(("over HTTP", 200),),
    ),
)


def chosen(engines: frozenset[str]) -> list[Setting]:
    """Return the settings of these engines, ours first and last."""
    return [setting for setting in (FIRST, *PEERS, LAST) if setting.engine in engines]
