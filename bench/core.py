"""What the deterministic core costs: replay, live turns, children, resident machines; and what a start costs."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench.report import Figure, resident_bytes
from bench.startup import help_ms, import_ms, interpreter_ms
from continuum import activity, await_children, start_child, workflow
from continuum._core import events as e
from continuum._core.commands import StartChild
from continuum._core.entries import Entry, entry_of_decision, entry_of_event
from continuum._core.machine import Machine, RunContext

T0 = 1_700_000_000_000_000
REPLAYED_OFTEN = 15
FLAT_AT_MOST = 1.3


@activity
async def step(n: int) -> str:
    return "ok"


@workflow
async def steps(n: int) -> str:
    for number in range(n):
        await step(number)
    return "done"


@workflow
async def leaf(n: int) -> int:
    return n


@workflow
async def one_by_one(n: int) -> int:
    refs = [start_child(leaf, number, id=f"c{number}") for number in range(n)]
    return sum([await ref for ref in refs])


@workflow
async def gathered(n: int) -> int:
    refs = [start_child(leaf, number, id=f"c{number}") for number in range(n)]
    return sum(await asyncio.gather(*refs))


@workflow
async def together(n: int) -> int:
    refs = [start_child(leaf, number, id=f"c{number}") for number in range(n)]
    return sum(await await_children(refs))


def journal(n: int) -> list[Entry]:
    """Return the journal of ``n`` steps as a database would give it."""
    return [
        entry_of_event(e.ActivityCompleted(T0 + i, f"step-{i + 1}", "step", b'{"n":%d}' % i, b'"ok"'))
        for i in range(n)
    ]


def replay(n: int) -> Callable[[], float]:
    """Microseconds an entry, from the rows of a journal to a machine that waits where it was."""
    entries = journal(n)

    def once() -> float:
        machine = Machine(steps, RunContext("bench"))
        started = time.perf_counter()
        turn = machine.replay(e.RunStarted(T0, b"%d" % n), entries)
        seconds = time.perf_counter() - started
        assert turn.closing is not None
        assert turn.fault is None
        machine.discard()
        return seconds / n * 1e6

    return once


def flat(small: int, large: int) -> Callable[[], float]:
    """How many times as long an entry of a large journal takes as one of a small journal, replayed often."""
    of_small, of_large = replay(small), replay(large)
    return lambda: of_large() / statistics.median(of_small() for _ in range(REPLAYED_OFTEN))


def live(n: int = 2_000) -> float:
    """Microseconds a live turn: an event in, values through the codec both ways, commands out."""
    machine = Machine(steps, RunContext("bench"))
    machine.apply(e.RunStarted(T0, b"%d" % n))
    events = [e.ActivityCompleted(T0 + i, f"step-{i + 1}", "step", b'{"n":%d}' % i, b'"ok"') for i in range(n)]
    started = time.perf_counter()
    for event in events:
        machine.apply(event)
    seconds = time.perf_counter() - started
    assert machine.closing is not None
    machine.discard()
    return seconds / n * 1e6


def children(flow: object, n: int) -> Callable[[], float]:
    """Microseconds a child: decided, its outcome taken in, its result handed to the parent."""

    def once() -> float:
        machine = Machine(flow, RunContext("bench"))  # type: ignore[arg-type]  # any of the flows above
        outcomes = [e.ChildCompleted(T0 + i, f"c{i}", b"%d" % i) for i in range(n)]
        started = time.perf_counter()
        turn = machine.apply(e.RunStarted(T0, b"%d" % n))
        entries = [entry_of_decision(command, T0) for command in turn.commands if isinstance(command, StartChild)]
        for outcome in outcomes:
            machine.apply(outcome)
        seconds = time.perf_counter() - started
        assert len(entries) == n
        assert machine.closing is not None
        machine.discard()
        return seconds / n * 1e6

    return once


def residents(n: int) -> tuple[float, float]:
    """Microseconds and kilobytes for each of ``n`` suspended machines held at once."""
    steps.prepare()
    step.prepare()
    for warm in range(300):  # past the turns that are watched on 3.11
        Machine(steps, RunContext(f"warm-{warm}")).apply(e.RunStarted(T0, b"5"))
    gc.collect()
    before = resident_bytes()
    started = time.perf_counter()
    machines = []
    for number in range(n):
        machine = Machine(steps, RunContext(f"run-{number}"))
        machine.apply(e.RunStarted(T0, b"5"))
        machines.append(machine)
    seconds = time.perf_counter() - started
    size = resident_bytes() - before
    for machine in machines:
        machine.discard()
    return seconds / n * 1e6, size / n / 1e3


def residents_in_process(n: int) -> tuple[float, float]:
    """The same in a process of its own: memory that was used before hides what is used now."""
    code = f"from bench.core import residents; print(*residents({n}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    each_us, each_kb = done.stdout.split()
    return float(each_us), float(each_kb)


def yardstick(n: int = 20_000) -> float:
    """Microseconds for plain asyncio to hand one future's result to the task that waits for it."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        for _ in range(n):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        return (time.perf_counter() - started) / n * 1e6

    return asyncio.run(main())


def figures() -> list[Figure]:
    """Return what is measured in interleaved rounds."""
    small = Figure("replay, 1,000 entries", "us/entry", replay(1_000), at_most=5)
    return [
        Figure("yardstick: plain asyncio, one future handed over", "us", yardstick),
        small,
        Figure("replay, 10,000 entries", "us/entry", replay(10_000), at_most=5),
        Figure("replay, 100,000 entries", "us/entry", replay(100_000), at_most=5),
        Figure(
            "replay, an entry of 100,000 beside one of 1,000",
            "times",
            flat(1_000, 100_000),
            at_most=FLAT_AT_MOST,
        ),
        Figure("live turn with codec", "us", live, at_most=12),
        Figure("child, awaited one by one, of 1,000", "us/child", children(one_by_one, 1_000)),
        Figure("child, awaited one by one, of 10,000", "us/child", children(one_by_one, 10_000)),
        Figure("child, gather over refs, of 10,000", "us/child", children(gathered, 10_000)),
        Figure("child, await_children, of 10,000", "us/child", children(together, 10_000)),
        Figure("start of the interpreter", "ms", interpreter_ms),
        Figure("import continuum", "ms", import_ms, at_most=200),
        Figure("continuum --help", "ms", help_ms, at_most=300),
        Figure("suspended machine, made, of 2,500", "us", lambda: residents_in_process(2_500)[0]),
        Figure("suspended machine, made, of 10,000", "us", lambda: residents_in_process(10_000)[0]),
        Figure(
            "suspended machines, 10,000, memory",
            "MB",
            lambda: residents_in_process(10_000)[1] * 10,
            at_most=150,
        ),
    ]
