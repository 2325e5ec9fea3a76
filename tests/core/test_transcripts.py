"""Whole runs as transcripts: what happened, and what was decided below it.

``pytest --rewrite-transcripts`` writes ``tests/transcripts/*.txt`` anew. A changed transcript may be a changed
journal of every run under way, so commit it only with the reason.
"""

import asyncio
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.core.harness import Run

from continuum import (
    ActivityFailed,
    ActivityTimedOut,
    ChildFailed,
    Failure,
    Retry,
    activity,
    await_children,
    child,
    continue_as_new,
    now,
    patched,
    start_child,
    wait_signal,
    workflow,
)

TRANSCRIPTS = Path(__file__).resolve().parents[1] / "transcripts"


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Approval:
    by: str
    granted: bool


@activity(retry=Retry(max_attempts=3))
async def charge(order_id: str, cents: int) -> str:
    return f"receipt of {order_id}"


@activity
async def refund(receipt: str) -> None: ...


@activity
async def notify(who: str, text: str) -> None: ...


@activity
async def quote(carrier: str) -> int:
    return 0


@workflow
async def ship(order: Order) -> str:
    return f"{order.id} is at sea"


# An approval that may come too late.


@workflow(signals={"approve": Approval})
async def approval(order: Order) -> str:
    await notify("ann", f"please approve {order.id}")
    try:
        answer = await wait_signal("approve", timeout=3600)
    except TimeoutError:
        await notify("bob", f"nobody approved {order.id}")
        return "expired"
    return await charge(order.id, order.cents) if answer.granted else "refused"


def approved_in_time() -> list[Run]:
    run = Run(approval, Order("o1", 500))
    run.completed("notify-1")
    run.restart().signal("approve", {"by": "ann", "granted": True})
    run.restart().completed("charge-1", "receipt of o1")
    return [run]


def approved_too_late() -> list[Run]:
    run = Run(approval, Order("o1", 500))
    run.completed("notify-1")
    run.restart().fired()
    run.signal("approve", {"by": "ann", "granted": True}, delivery_id="d-1")
    run.restart().completed("notify-2")
    return [run]


# A fan-out one of whose children fails.


@workflow
async def fan_out(orders: list[Order]) -> list[str]:
    refs = [start_child(ship, order, id=f"order-{order.id}", on_parent_close="cancel") for order in orders]
    try:
        return await await_children(refs)
    except ChildFailed as error:
        for ref in refs:
            ref.cancel(f"{error.child_run_id} failed")
        ends = await await_children(refs, return_exceptions=True)
        raise LookupError(f"{sum(isinstance(end, str) for end in ends)} of {len(ends)} shipped") from error


def fan_out_with_a_failing_child() -> list[Run]:
    run = Run(fan_out, [Order("a", 1), Order("b", 2), Order("c", 3), Order("d", 4)])
    run.child_completed("order-c", "c is at sea")
    run.restart().child_failed("order-b", Failure("Lost", "the ship sank", cause=Failure("Storm", "force 12")))
    run.child_cancelled("order-a", "run-1/order-b failed")
    run.restart().child_completed("order-d", "d is at sea")
    return [run]


# A saga by try and except, cancelled half way.


@workflow
async def saga(order: Order) -> str:
    undo: list[str] = []
    try:
        undo.append(await charge(order.id, order.cents))
        async with asyncio.timeout(86_400):
            return await child(ship, order)
    except (ActivityFailed, ChildFailed, asyncio.CancelledError):
        for receipt in reversed(undo):
            await refund(receipt)
        raise


def saga_that_is_cancelled() -> list[Run]:
    run = Run(saga, Order("o1", 500))
    run.completed("charge-1", "receipt of o1")
    run.restart().cancel("the customer called")
    run.restart().child_cancelled("ship-1", "its parent stopped waiting")
    run.restart().completed("refund-1")
    return [run]


# A counter that continues as new and leaves no signal behind.


@workflow
async def counter(total: int) -> int:
    for _ in range(2):
        amount = await wait_signal("add", int)
        total += amount
        if amount == 0:
            break
    else:
        await notify("ann", f"{total} so far")
        continue_as_new(total)
    return total


def continue_as_new_with_carried_signals() -> list[Run]:
    first = Run(counter, 0)
    first.signal("add", 1)
    first.signal("add", 2)
    first.signal("add", 30, delivery_id="d-30")
    first.restart().signal("add", 0)
    first.completed("notify-1")
    return [first, first.next_generation()]


# An activity races a timer, twice.


@workflow
async def race(carriers: list[str]) -> list[str]:
    offers: list[str] = []

    async def ask(carrier: str) -> None:
        offers.append(f"{carrier}: {await quote.with_options(start_to_close=5, queue='quotes')(carrier)}")

    tasks = [asyncio.create_task(ask(carrier)) for carrier in carriers]
    done, late = await asyncio.wait(tasks, timeout=10)
    for task in late:
        task.cancel()
    failed = [str(task.exception()) for task in done if isinstance(task.exception(), ActivityTimedOut)]
    return [*offers, *failed, f"after {now():%M:%S}"]


def race_of_activities_against_a_timer() -> list[Run]:
    run = Run(race, ["dhl", "ups", "fedex"])
    run.completed("t2.quote-1", 700)
    run.restart().failed("t3.quote-1", Failure("TimeoutError", "start_to_close passed", timed_out=True))
    run.restart().fired()
    return [run]


# A patch: a run of before keeps its path, a new one takes the other.


@workflow(name="order")
async def order_before(order: Order) -> str:
    receipt = await charge(order.id, order.cents)
    return receipt + ", " + await child(ship, order)


@workflow(name="order")
async def order_after(order: Order) -> str:
    if patched("notify-first"):
        await notify("ann", f"{order.id} is coming")
    receipt = await charge(order.id, order.cents)
    return receipt + ", " + await child(ship, order)


def patched_for_new_runs_only() -> list[Run]:
    old = Run(order_before, Order("old", 1), id="old")
    old.completed("charge-1", "receipt of old")
    old.flow = order_after
    old.restart().child_completed("ship-1", "old is at sea")
    old.replayable = False  # its first turn was another code's
    new = Run(order_after, Order("new", 2), id="new")
    new.restart().completed("notify-1")
    new.completed("charge-1", "receipt of new")
    new.restart().child_completed("ship-1", "new is at sea")
    return [old, new]


SCENARIOS = [
    approved_in_time,
    approved_too_late,
    fan_out_with_a_failing_child,
    saga_that_is_cancelled,
    continue_as_new_with_carried_signals,
    race_of_activities_against_a_timer,
    patched_for_new_runs_only,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_run_reads_as_its_transcript(scenario: Callable[[], list[Run]], request: pytest.FixtureRequest) -> None:
    runs = scenario()
    headed = [f"{run.context.run_id} generation {run.context.generation}\n{run.transcript()}" for run in runs]
    text = "\n".join(headed)
    path = TRANSCRIPTS / f"{scenario.__name__}.txt"
    if request.config.getoption("--rewrite-transcripts"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text != known:
        lines = difflib.unified_diff(known.splitlines(), text.splitlines(), path.name, "this run", lineterm="")
        pytest.fail(
            "\n".join(lines)
            + "\n\nThe transcript changed. If that is meant, write it anew with `pytest --rewrite-transcripts` "
            "and say why in the commit.",
            pytrace=False,
        )


def test_every_transcript_belongs_to_a_scenario() -> None:
    names = {scenario.__name__ for scenario in SCENARIOS}
    assert {path.stem for path in TRANSCRIPTS.glob("*.txt")} == names
