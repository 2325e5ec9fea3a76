"""What holds for every run that a test drives.

A test shows one thing; that its run replays from each of its turns is shown for all of them here, when the test
has ended. So "recorded" and "recorded but pending" hold for every primitive in every situation that is tested.
"""

from collections.abc import Iterator

import pytest
from tests.core import harness


@pytest.fixture(autouse=True)
def every_run_replays() -> Iterator[None]:
    """Replay each run of the test from each of its turns, then let all machines go."""
    harness.RUNS.clear()
    yield
    runs = list(harness.RUNS)
    try:
        for run in runs:
            if run.replayable:
                run.check_every_turn()
    finally:
        for run in runs:
            run.machine.discard()
        harness.RUNS.clear()
