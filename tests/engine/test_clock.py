"""The database's time, carried on by a monotonic clock."""

import re
from pathlib import Path

import pytest

import continuum
from continuum._engine.clock import Clock

YEAR_US = 365 * 86_400_000_000


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_the_middle_between_question_and_answer_is_when_the_database_said_it() -> None:
    hands = Hands()
    clock = Clock(hands)
    asked_at, hands.at = 100.0, 102.0
    clock.set(5_000_000_000, asked_at)
    assert clock.now_us() == 5_001_000_000
    hands.at = 103.0
    assert clock.now_us() == 5_002_000_000


def test_a_small_correction_never_takes_time_back() -> None:
    hands = Hands()
    clock = Clock(hands)
    clock.set(9_000_000_000, hands.at)
    assert clock.now_us() == 9_000_000_000
    clock.set(8_999_100_000, hands.at)
    assert clock.now_us() == 9_000_000_000
    hands.at += 2
    assert clock.now_us() == 9_001_100_000


def test_small_corrections_one_after_the_other_hold_time_for_less_than_a_second() -> None:
    hands = Hands()
    clock = Clock(hands)
    said = [9_000_000_000 - 400_000 * step for step in range(20)]
    for now_us in said:
        clock.set(now_us, hands.at)
        assert 0 <= clock.now_us() - now_us < 1_000_000


def test_a_clock_that_somebody_sets_is_followed_both_ways_and_told_of() -> None:
    hands, told = Hands(), []
    clock = Clock(hands)
    clock.moved = lambda: told.append(clock.now_us())
    for now_us in (9_000_000_000, 9_000_000_000 + YEAR_US, 8_000_000_000):
        clock.set(now_us, hands.at)
        assert clock.now_us() == now_us
    assert told == [9_000_000_000 + YEAR_US, 8_000_000_000]


def test_an_answer_read_late_moves_no_clock_that_may_be_right() -> None:
    """A process that was stopped between question and answer knows only that the truth lies between."""
    hands = Hands()
    clock = Clock(hands)
    clock.set(9_000_000_000, hands.at)
    asked_at, hands.at = hands.at, hands.at + 60
    clock.set(9_000_500_000, asked_at)  # said half a second after it was asked
    assert clock.now_us() == 9_060_000_000
    clock.set(9_000_500_000, hands.at - 0.1)  # and this one was not: the database's clock was set back
    assert clock.now_us() == 9_000_550_000


def test_a_due_time_is_a_time_of_the_loop() -> None:
    hands = Hands()
    clock = Clock(hands)
    clock.set(1_000_000_000, hands.at)
    assert clock.loop_time(1_030_000_000) == 130.0


ASKS = re.compile(
    r"\btime\.(time|time_ns|localtime|gmtime|ctime)\b|\.(utcnow|today)\(|datetime\.now\(|from time import"
)
SOURCE = Path(continuum.__file__).parent


@pytest.mark.parametrize("part", ["_engine", "_journal", "_core"])
def test_nothing_that_decides_asks_the_host_for_the_time_of_day(part: str) -> None:
    """LF18 the database's clock only."""
    files = {path: path.read_text() for path in (SOURCE / part).rglob("*.py") if "guards" not in path.parts}
    assert files
    assert {path.name: found[0] for path, text in files.items() if (found := ASKS.search(text))} == {}
