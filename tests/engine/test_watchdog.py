"""The watchdog: what it concludes from its looks, and one loop that really is blocked."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading

import pytest

from continuum._engine.watchdog import SHOWN, Blocked, Looks, StoodStill, Turn, Watchdog, stack_of


class Stepped:
    """Looks each half second, blocked after one; the loop ticks at each look unless it is said not to."""

    def __init__(self) -> None:
        self.now = self.ticked_at = 100.0
        self.looks = Looks(1.0, self.now)

    def look(self, turn: Turn | None = None, *, tick: bool = False) -> Blocked | StoodStill | None:
        self.now += 0.5
        if tick:
            self.ticked_at = self.now
        return self.looks.look(self.now, turn, self.ticked_at)

    def several(self, count: int, turn: Turn | None = None) -> list[Blocked | StoodStill]:
        return [found for _ in range(count) if (found := self.look(turn)) is not None]


def test_a_loop_that_ticks_is_left_in_peace() -> None:
    stepped = Stepped()
    assert [stepped.look(tick=True) for _ in range(10)] == [None] * 10


def test_a_turn_is_reported_once_when_it_takes_too_long() -> None:
    stepped = Stepped()
    turn = ("run-1",)
    assert stepped.several(3, turn) == []
    assert stepped.look(turn) == Blocked(turn, 1.5)
    assert stepped.several(20, turn) == []


def test_each_turn_is_reported_for_itself_also_of_the_same_run() -> None:
    stepped = Stepped()
    for _ in range(2):
        turn = ("-".join(["run", "1"]),)
        assert stepped.several(9, turn) == [Blocked(turn, 1.5)]
        assert stepped.look(tick=True) is None


def test_many_short_turns_are_no_long_one() -> None:
    stepped = Stepped()
    assert [stepped.look((f"run-{n}",), tick=True) for n in range(10)] == [None] * 10


def test_a_loop_blocked_outside_of_a_turn_is_reported_once() -> None:
    stepped = Stepped()
    assert stepped.look(tick=True) is None
    assert stepped.several(10) == [Blocked(None, 1.5)]
    assert stepped.look(tick=True) is None
    assert stepped.several(10) == [Blocked(None, 1.5)]


def test_a_loop_busy_with_short_turns_that_never_ticks_is_reported() -> None:
    stepped = Stepped()
    found = [stepped.look((f"run-{n}",) if n % 2 else None) for n in range(10)]
    assert [report for report in found if report is not None] == [Blocked(None, 1.5)]


def test_a_reported_turn_that_has_just_ended_is_not_reported_again_as_the_loop() -> None:
    stepped = Stepped()
    turn = ("run-1",)
    assert stepped.several(4, turn) == [Blocked(turn, 1.5)]
    assert stepped.several(2) == []
    assert stepped.look(tick=True) is None


def test_a_loop_that_stays_blocked_after_a_reported_turn_is_reported_by_itself() -> None:
    stepped = Stepped()
    assert stepped.several(4, ("run-1",)) != []
    assert stepped.several(10) == [Blocked(None, 1.5)]


def test_a_process_that_was_suspended_accuses_nobody() -> None:
    stepped = Stepped()
    turn = ("run-1",)
    assert stepped.look(turn) is None
    stepped.now += 60
    assert stepped.look(turn) == StoodStill(60.5)
    assert stepped.several(2, turn) == []
    assert stepped.look(turn) == Blocked(turn, 1.5)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_the_limit_is_positive(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Watchdog(blocked_after_s=seconds)


class Waiter(logging.Handler):
    """Ends a blockage when it is reported."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []
        self.reported = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "_author_blocks" in record.getMessage():  # else it is the machine that is busy elsewhere
            self.told.append(record.getMessage())
            self.reported.set()


@pytest.mark.parametrize("in_turn", [True, False])
async def test_what_blocks_the_loop_is_named_with_its_line_and_stack(in_turn: bool) -> None:
    waiter, engine = Waiter(), logging.getLogger("continuum.engine")
    engine.addHandler(waiter)
    watchdog = Watchdog(blocked_after_s=0.1)
    service = asyncio.create_task(watchdog.run())
    await asyncio.sleep(0)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "continuum-watchdog")
    try:
        if in_turn:
            watchdog.turn = ("run-7",)
        _author_blocks(waiter.reported)
        watchdog.turn = None
    finally:
        service.cancel()
        await asyncio.wait([service])
        engine.removeHandler(waiter)
    thread.join(60)
    assert not thread.is_alive()
    told = waiter.told[0]
    assert told.startswith("run 'run-7' blocks the event loop" if in_turn else "the event loop is blocked")
    assert "at test_watchdog.py" in told
    assert "release.wait(60)" in told
    assert "run_forever" not in told, "what lies beyond the loop does not say who blocks it"
    assert "pytest" not in told.replace("test_watchdog.py", "")


def _author_blocks(release: threading.Event) -> None:
    assert release.wait(60)


async def test_a_stack_is_cut_to_the_authors_frames_and_the_innermost() -> None:
    found: list[str] = []

    def look(_: object) -> None:
        found.append(stack_of(sys._getframe()))

    def decode_again(_: object) -> None:
        json.loads("{}", object_hook=look)

    json.loads("{}", object_hook=decode_again)
    lines = [line.strip().rpartition(" in ")[2] for line in found[0].splitlines() if "    " not in line]
    assert lines[lines.index("test_a_stack_is_cut_to_the_authors_frames_and_the_innermost") + 1 :] == [
        "(3 frames left out)",  # json's
        "decode_again",
        "(1 frame left out)",
        "decode",
        "raw_decode",
        "look",
    ]


async def test_a_deep_stack_shows_its_innermost_frames() -> None:
    def deeper(levels: int) -> str:
        return stack_of(sys._getframe()) if levels == 0 else deeper(levels - 1)

    told = deeper(50)
    assert told.count("in deeper") == SHOWN
    assert told.startswith("  (4")
    assert "levels == 0" in told
