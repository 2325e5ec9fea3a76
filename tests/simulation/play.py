"""Plays scenarios: with its faults, and without to know what a confluent root must come to.

The rule: a scenario either holds, or says in one line which promise was broken. A simulation that fails itself
says that, and nothing of promises.
"""

from __future__ import annotations

import logging
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import current_thread, main_thread

from tests.simulation.blame import blame
from tests.simulation.checker import Broken
from tests.simulation.cluster import Cluster
from tests.simulation.programs import Scenario

MOST_CPU_S = 60.0  # of one scenario; most take less than one


@dataclass
class Played:
    """What came of a scenario: nothing in ``broken`` if it holds, a traceback in ``crashed`` if nobody knows.

    ``place`` is the line that found a promise broken: two scenarios with the same one break in the same way.
    """

    scenario: Scenario
    broken: str = ""
    place: str = ""
    crashed: str = ""
    runs: int = 0
    entries: int = 0
    operations: int = 0
    seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter[str])


def play(scenario: Scenario, says: Callable[[str], None] | None = None) -> Played:
    """Play a scenario, and once more without faults if the results of its confluent roots are to be compared."""
    played = Played(scenario)
    with _quiet() as errors, _bounded():
        cluster = Cluster(scenario, says)
        try:
            _compare(scenario, cluster.run().results)
        except Endless as error:
            at = traceback.extract_tb(error.__traceback__)[-2]  # the last is who has raised it
            played.place = f"{at.filename} {at.name}"
            played.broken = f"after {MOST_CPU_S:g} s of work it is still in {at.name} of {Path(at.filename).name}"
        except Exception as error:
            match blame(error):
                case Broken() as broken:
                    played.broken = str(broken) or "a promise"
                    frame = traceback.extract_tb(broken.__traceback__)[-1]
                    played.place = f"{frame.filename}:{frame.lineno}"
                case found:
                    played.crashed = "".join(traceback.format_exception(found))
    if errors.first and not played.broken and not played.crashed:
        played.broken = errors.first
    memory, network = cluster.memory, cluster.network
    played.runs = len(memory.runs)
    played.entries = sum(len(rows) for run in memory.runs.values() for rows in run.journal.values())
    played.operations, played.seconds, played.struck = network.operations, cluster.now, network.struck
    return played


def _compare(scenario: Scenario, results: dict[str, tuple[str, object]]) -> None:
    """Raise ``Broken`` if faults have changed what a confluent root came to."""
    roots = [root.run_id for root in scenario.roots if root.confluent]
    if not (scenario.faults and roots):
        return
    wanted = Cluster(replace(scenario, faults=())).run().results
    for run_id in roots:
        if results[run_id] != wanted[run_id]:
            raise Broken(f"run {run_id!r} came to {results[run_id]}; undisturbed {wanted[run_id]}")


class Endless(KeyboardInterrupt):
    """Ends a callback that does not end by itself; nothing in the engine catches it."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Bound the processor time of the block, for a callback that never ends cannot be stepped over."""
    if current_thread() is not main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S, MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class _Errors(logging.Handler):
    """Takes what the engine logs with a traceback: an error of its own, survived by reading a run anew."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not self.first:
            found = "".join(traceback.format_exception(*record.exc_info))
            self.first = f"the engine failed: {record.getMessage()}\n{found}"


@contextmanager
def _quiet() -> Iterator[_Errors]:
    """Let the engine say nothing, and take its own errors: what else it would say is in the transcript."""
    logger, errors = logging.getLogger("continuum"), _Errors()
    before = (logger.level, logger.propagate)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(errors)
    try:
        yield errors
    finally:
        logger.removeHandler(errors)
        logger.level, logger.propagate = before
        logger.setLevel(before[0])
