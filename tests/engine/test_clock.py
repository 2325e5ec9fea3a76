"""The database's time, carried on by a monotonic clock."""

from continuum._engine.clock import Clock


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


def test_time_never_goes_back_when_the_database_says_it_is_earlier() -> None:
    hands = Hands()
    clock = Clock(hands)
    clock.set(9_000_000_000, hands.at)
    assert clock.now_us() == 9_000_000_000
    clock.set(8_000_000_000, hands.at)
    assert clock.now_us() == 9_000_000_000
    hands.at += 1001
    assert clock.now_us() == 9_001_000_000


def test_a_due_time_is_a_time_of_the_loop() -> None:
    hands = Hands()
    clock = Clock(hands)
    clock.set(1_000_000_000, hands.at)
    assert clock.loop_time(1_030_000_000) == 130.0
