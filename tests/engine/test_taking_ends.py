"""Ends of children that wake nobody, taken in many at a time: none is lost, and a commit stays bounded."""

from __future__ import annotations

import pytest

from continuum._core import events as e
from continuum._core.entries import Entry, entry_of_child
from continuum._engine import taking
from continuum._engine.resident import Arrival, TurnTaken
from continuum._engine.taking import MOST_ROWS
from tests.engine.test_taking import Bench


def end(number: int, *ended: TurnTaken) -> Arrival:
    """How a child's end arrives, with what is to be committed with it."""
    return Arrival(e.ChildCompleted(2, f"leaf-{number}", b"0"), None, ended)


def test_an_error_between_two_ends_loses_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken is submitted by itself then, and what is left when its parent is let go; see ``Turns``."""
    bench = Bench()
    run = bench.run("parent", b"4")
    bench.take(run)
    ended = [bench.take(bench.run("leaf", b"0", f"r/leaf-{number}")) for number in range(3)]
    written: list[Entry] = []

    def without_memory(event: e.ChildCompleted) -> Entry:
        if written:
            raise MemoryError
        written.append(entry_of_child(event))
        return written[0]

    monkeypatch.setattr(taking, "entry_of_child", without_memory)
    run.arrivals.extend(end(number, one) for number, one in enumerate(ended))
    taken = TurnTaken(run)
    with pytest.raises(MemoryError):
        bench.taker.take(taken)
    assert [*taken.ended, *(one for arrival in run.arrivals for one in arrival.ended)] == ended


def test_ends_behind_other_arrivals_count_with_those() -> None:
    bench = Bench()
    run = bench.run("parent", b"%d" % (2 * MOST_ROWS))
    bench.take(run)
    signals = [Arrival(e.SignalReceived(2, "add", b"1"), mail=at) for at in range(MOST_ROWS - 5)]
    taken = bench.take(run, *signals, *[end(number) for number in range(MOST_ROWS)])
    assert taken.commit is not None
    assert len(taken.commit.entries) == MOST_ROWS
    assert len(run.arrivals) == MOST_ROWS - 5
