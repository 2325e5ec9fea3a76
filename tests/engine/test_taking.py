"""Turns as commits: what has arrived at a run goes in, one commit comes out. No database, no loop."""

from __future__ import annotations

import asyncio

import pytest

from continuum import (
    Definitions,
    Failure,
    Retry,
    activity,
    await_children,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from continuum._core import events as e
from continuum._core.commands import CompleteRun, RunActivity
from continuum._core.entries import Entry
from continuum._engine.clock import Clock
from continuum._engine.resident import Arrival, Resident, TurnTaken
from continuum._engine.taking import MOST_ROWS, Taker, next_generation
from continuum._engine.timers import Timers
from continuum._journal.commit import Claimed, Complete, Continue, Keep, Park
from continuum._journal.render import retry_text


@activity
async def charge(cents: int) -> str: ...


@workflow
async def leaf(n: int) -> int:
    return n


@workflow
async def charging(cents: int) -> str:
    return await charge(cents)


@workflow
async def parent(n: int) -> int:
    refs = [start_child(leaf, at, id=f"leaf-{at}") for at in range(n)]
    return sum(await await_children(refs))


@workflow
async def counting(n: int) -> int:
    total = 0
    while True:
        total += await wait_signal("add", int)


@workflow
async def continuing(n: int) -> int:
    if n < 3:
        await child(leaf, n)
        continue_as_new(n + 1)
    return n


@workflow(version=2, name="continuing")
async def continuing_anew(n: int) -> int:
    return n


@workflow
async def sleeping(n: int) -> str:
    try:
        async with asyncio.timeout(60):
            await wait_signal("go")
    except TimeoutError:
        return "late"
    await asyncio.sleep(5)
    return "gone"


@workflow
async def starting_again(n: int) -> int:
    await wait_signal("on")
    return await child(leaf, n, id="kid")


@workflow
async def closing(n: int) -> None:
    start_child(leaf, n, on_parent_close="cancel")
    await wait_signal("end")


@workflow
async def stillborn(how: str) -> None:
    refs = [start_child(leaf, n, on_parent_close="cancel" if n == 1 else "abandon") for n in range(3)]
    if how == "cancels":
        refs[1].cancel()
        await wait_signal("end")


@workflow
async def cleaning() -> None:
    try:
        await wait_signal("end")
    finally:
        start_child(leaf, 1)


FLOWS = Definitions(
    [cleaning, leaf, charging, parent, counting, continuing, sleeping, starting_again, closing, stillborn, charge]
)


class Bench:
    """A taker by itself, and runs to try it on."""

    def __init__(self, definitions: Definitions = FLOWS, claimable: int = 1_000_000) -> None:
        timers = Timers(Clock(lambda: 0.0), lambda run, key: None)
        timers.arm = self._arm  # type: ignore[method-assign]  # the heap needs a loop; these tests fire by hand
        self.taker = Taker(definitions, timers, lambda count: min(count, claimable), 10)

    def _arm(self, run: Resident, key: str, due_us: int) -> None:
        run.timers[key] = due_us

    def run(self, workflow: str, given: bytes, run_id: str = "r", generation: int = 1) -> Resident:
        depth = run_id.count("/")
        return Resident(Claimed(run_id, 7, generation, workflow, 1, depth, 1_000_000, given, False, 0, None), 0.0)

    def take(self, run: Resident, *arrivals: Arrival) -> TurnTaken:
        run.arrivals.extend(arrivals)
        taken = TurnTaken(run)
        self.taker.take(taken)
        if taken.commit is not None:
            run.seq += len(taken.commit.entries)
        return taken


def test_a_turn_that_only_asks_for_an_activity_writes_nothing() -> None:
    taken = Bench().take(Bench().run("charging", b"5"))
    assert taken.commit is None
    assert [type(request) for request in taken.requests] == [RunActivity]


def test_several_arrivals_are_one_commit_in_their_order() -> None:
    bench = Bench()
    run = bench.run("counting", b"0")
    bench.take(run)
    signals = [Arrival(e.SignalReceived(2_000_000 + at, "add", b"%d" % at), mail=at) for at in range(5)]
    commit = bench.take(run, *signals).commit
    assert commit is not None
    assert [entry.at_us for entry in commit.entries] == [2_000_000 + at for at in range(5)]
    assert commit.consumed == (0, 1, 2, 3, 4)
    assert commit.seq == 1
    assert isinstance(commit.status, Keep)


def test_a_commit_is_bounded_and_the_rest_stays() -> None:
    bench = Bench()
    run = bench.run("counting", b"0")
    bench.take(run)
    taken = bench.take(run, *[Arrival(e.SignalReceived(1, "add", b"1"), mail=at) for at in range(2 * MOST_ROWS)])
    assert taken.commit is not None
    assert len(taken.commit.entries) == MOST_ROWS
    assert len(run.arrivals) == MOST_ROWS


def test_children_of_a_turn_are_one_commit_and_as_many_are_claimed_as_fit() -> None:
    commit = Bench(claimable=4).take(Bench().run("parent", b"10")).commit
    assert commit is not None
    assert len(commit.children) == len(commit.entries) == 10
    assert commit.claimed == 4


def test_children_that_this_worker_cannot_run_are_not_claimed() -> None:
    bench = Bench(Definitions([parent]))
    commit = bench.take(bench.run("parent", b"3")).commit
    assert commit is not None
    assert commit.claimed == 0


@pytest.mark.parametrize("how", ["cancels", "ends"])
def test_a_child_that_is_cancelled_by_the_commit_that_starts_it_is_not_claimed(how: str) -> None:
    bench = Bench()
    commit = bench.take(bench.run("stillborn", b'"%b"' % how.encode())).commit
    assert commit is not None
    assert [child.key for child in commit.children] == ["leaf-1", "leaf-3", "leaf-2"]
    assert commit.claimed == 2


def test_nothing_is_claimed_below_a_run_that_lets_its_cancellation_through() -> None:
    bench = Bench()
    run = bench.run("cleaning", b"null")
    bench.take(run)
    commit = bench.take(run, Arrival(e.CancelRequested(2_000_000, "stop"), mail=1)).commit
    assert commit is not None
    assert (len(commit.children), commit.claimed) == (1, 0)


def test_an_end_is_told_apart_from_what_is_written() -> None:
    bench = Bench()
    taken = bench.take(bench.run("leaf", b"4", run_id="r/leaf-4"))
    assert taken.commit is not None
    assert taken.commit.status == Complete(b"4")
    assert taken.commit.messages == ()
    assert taken.outcome == CompleteRun(b"4")


def test_a_root_that_ends_tells_nobody() -> None:
    bench = Bench()
    taken = bench.take(bench.run("leaf", b"4"))
    assert taken.commit is not None
    assert taken.commit.status == Complete(b"4")
    assert taken.outcome is None


def test_a_run_that_has_ended_keeps_no_machine_while_its_commit_waits() -> None:
    bench = Bench()
    ended, waiting = bench.run("leaf", b"4", run_id="r/leaf-4"), bench.run("sleeping", b"0")
    assert isinstance(getattr(bench.take(ended).commit, "status", None), Complete)
    bench.take(waiting)
    assert ended.machine is None
    assert waiting.machine is not None


def test_an_input_that_does_not_fit_parks_the_run() -> None:
    bench = Bench()
    taken = bench.take(bench.run("leaf", b'"no number"'))
    assert taken.commit is not None
    assert isinstance(taken.commit.status, Park)


def test_what_was_decided_before_a_divergence_is_kept_and_the_run_parked() -> None:
    bench = Bench()
    run = bench.run("counting", b"0")
    bench.take(run)
    unasked = Arrival(e.ActivityCompleted(3, "charge-1", "charge", b"{}", b"1"))
    taken = bench.take(run, Arrival(e.SignalReceived(2, "add", b"1"), mail=8), unasked)
    assert taken.commit is not None
    assert [entry.type for entry in taken.commit.entries] == ["signal_received"]
    assert taken.commit.consumed == (8,)
    assert isinstance(taken.commit.status, Park)
    assert taken.fault is not None
    assert taken.fault.type == "NonDeterminismError"
    assert list(run.arrivals) == [unasked]


def test_a_timer_cancelled_in_the_same_commit_does_not_fire() -> None:
    bench = Bench()
    run = bench.run("sleeping", b"0")
    bench.take(run)
    (first,) = run.timers
    taken = bench.take(
        run, Arrival(e.SignalReceived(2_000_000, "go", b"null"), mail=1), Arrival(e.TimerFired(2_000_001, first))
    )
    assert taken.commit is not None
    assert [entry.type for entry in taken.commit.entries] == ["signal_received"]
    assert len(run.timers) == 1
    assert first not in run.timers


def test_the_end_of_a_child_that_is_known_leaves_no_entry() -> None:
    bench = Bench()
    run = bench.run("parent", b"2")
    bench.take(run)
    ended = Arrival(e.ChildCompleted(2, "leaf-0", b"0"), mail=4)
    again = Arrival(e.ChildCompleted(3, "leaf-0", b"0"), mail=5)
    commit = bench.take(run, ended, again).commit
    assert commit is not None
    assert [entry.key for entry in commit.entries] == ["leaf-0"]
    assert commit.consumed == (4, 5)


def test_a_message_of_another_generation_is_consumed_without_an_entry() -> None:
    bench = Bench()
    run = bench.run("counting", b"0")
    bench.take(run)
    commit = bench.take(run, Arrival(None, mail=3)).commit
    assert commit is not None
    assert (commit.entries, commit.consumed) == ((), (3,))


def test_the_next_generation_takes_the_highest_version_and_only_what_is_not_its_own_past() -> None:
    bench = Bench(Definitions([continuing, continuing_anew, leaf]))
    run = bench.run("continuing", b"0")
    bench.take(run)
    taken = bench.take(run, Arrival(e.ChildCompleted(2, "leaf-1", b"0")))
    assert taken.commit is not None
    status = taken.commit.status
    assert isinstance(status, Continue)
    assert status.version == 2
    late = Arrival(e.ActivityCompleted(3, "charge-1", "charge", b"{}", b"1"), mail=9)
    run.arrivals.extend(
        [Arrival(e.TimerFired(3, "timer-1")), late, Arrival(e.SignalReceived(4, "x", b"1"), mail=2)]
    )
    next_generation(run, status)
    assert [(arrival.event and type(arrival.event), arrival.mail) for arrival in run.arrivals] == [
        (None, 9),
        (e.SignalReceived, 2),
    ]
    taken = bench.take(run)
    assert taken.commit is not None
    assert taken.commit.generation == 2
    assert taken.commit.seq == 1
    assert taken.commit.status == Complete(b"1")


def test_a_later_generation_compares_its_children_when_it_is_replayed() -> None:
    bench = Bench()
    run = bench.run("continuing", b"0")
    bench.take(run)
    status = _continued(bench, run)
    next_generation(run, status)
    first = bench.take(run)
    assert first.commit is not None
    assert first.requests == []
    again = bench.run("continuing", b"0", generation=2)
    again.entries = (*status.entries, *first.commit.entries)
    again.arrivals.append(Arrival(e.ChildCompleted(3, "g2.leaf-1", b"1"), mail=4))
    taken = bench.take(again)
    assert [start.key for start in taken.unsure] == ["g2.leaf-1"]
    assert taken.commit is None, "what is heard of a child waits until it is known whose it is"
    assert [arrival.mail for arrival in again.comparing["g2.leaf-1"]] == [4]


def test_no_outcome_is_taken_in_the_commit_that_starts_its_child_again() -> None:
    """It was there before the child is, so it is an earlier generation's."""
    bench = Bench()
    run = bench.run("starting_again", b"2", generation=2)
    run.entries = (Entry("run_started", "", 1, b'{"input":2}'),)
    bench.take(run)
    on, ended = e.SignalReceived(3, "on", b"null"), e.ChildCompleted(3, "kid", b"1")
    taken = bench.take(run, Arrival(on, mail=1), Arrival(ended, mail=2), Arrival(on, mail=3))
    assert taken.commit is not None
    assert taken.commit.consumed == (1,)
    assert [arrival.mail for arrival in run.arrivals] == [2, 3]


def test_what_was_withheld_is_told_the_next_generation_and_a_refused_start_is_not() -> None:
    bench = Bench()
    run = bench.run("continuing", b"0")
    bench.take(run)
    status = _continued(bench, run)
    run.comparing = {"kid": [Arrival(e.ChildCompleted(3, "kid", b"1"), mail=5)]}
    run.arrivals.append(Arrival(e.ChildStartFailed(3, "other", "another one")))
    next_generation(run, status)
    assert [arrival.mail for arrival in run.arrivals] == [5]
    assert not run.comparing


def test_a_failing_child_with_attempts_left_is_due_again_and_tells_nobody() -> None:
    bench = Bench()
    run = bench.run("charging", b"5", "p/kid")
    run.claimed = run.claimed._replace(retry=retry_text(Retry(max_attempts=3, initial=2, jitter=0)))
    bench.take(run)
    failure = Failure("Busy", "not\nnow")
    failed = e.ActivityFailed(9_000_000, "charge-1", "charge", b'{"cents":5}', failure)
    taken = bench.take(run, Arrival(failed))
    assert taken.commit is not None
    status = taken.commit.status
    assert isinstance(status, Continue)
    assert (status.wakeup_us, taken.outcome, taken.commit.messages) == (11_000_000, None, ())
    assert status.waiting_for == "attempt 2 of 3 after ActivityFailed: activity 'charge' failed: Busy: not"


def test_what_an_end_does_to_the_runs_below_is_part_of_its_commit() -> None:
    bench = Bench()
    for event, expected in (
        (e.SignalReceived(3, "end", b"null"), "close"),
        (e.CancelRequested(3, "enough"), "cancel"),
    ):
        run = bench.run("closing", b"1")
        bench.take(run)
        taken = bench.take(run, Arrival(event, mail=1))
        assert taken.commit is not None
        assert taken.commit.descendants == expected


def test_a_retry_policy_that_nobody_wrote_parks_the_run() -> None:
    bench = Bench()
    run = bench.run("leaf", b"1", "p/kid")
    run.claimed = run.claimed._replace(retry=b'{"max_attempts":"x"}')
    taken = bench.take(run)
    assert taken.fault is not None
    assert taken.commit is not None
    assert isinstance(taken.commit.status, Park)


def _continued(bench: Bench, run: Resident) -> Continue:
    taken = bench.take(run, Arrival(e.ChildCompleted(2, "leaf-1", b"0")))
    assert taken.commit is not None
    assert isinstance(taken.commit.status, Continue)
    return taken.commit.status


def test_rows_that_no_release_wrote_park_the_run() -> None:
    bench = Bench()
    run = bench.run("counting", b"0", generation=2)
    run.entries = (Entry("run_started", "", 1, b'{"nothing":1}'),)
    taken = bench.take(run)
    assert taken.fault is not None
    assert taken.commit is not None
    assert isinstance(taken.commit.status, Park)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_parked_run_tells_nobody_that_it_ended(depth: int) -> None:
    bench = Bench()
    run = bench.run("counting", b"0", run_id="r/x" if depth else "r")
    bench.take(run)
    taken = bench.take(run, Arrival(e.TimerFired(5, "timer-9")), Arrival(e.ChildCompleted(5, "nobody", b"1")))
    assert taken.outcome is None
    assert taken.commit is not None
    assert isinstance(taken.commit.status, Park)
