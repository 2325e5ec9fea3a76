"""The example that maps a child over a million items a page at a time, at a small size."""

import os
import subprocess
import sys
from pathlib import Path

from examples import page_through_a_million
from examples.page_through_a_million import Progress

from continuum._core import commands as c
from tests.core.harness import Run

PROGRAM = Path(page_through_a_million.__file__)


def test_a_generation_maps_one_page_and_hands_over_where_it_stopped() -> None:
    run = Run(page_through_a_million.million_flow, Progress(5, 2))
    run.completed("page-1", [0, 1])
    run.child_completed("item_flow-1", None)
    run.child_completed("item_flow-2", None)
    assert isinstance(run.closing, c.ContinueRun)
    following = run.next_generation()
    following.completed("page-1", [2, 3])
    assert [command.key for command in following.commands] == ["g2.item_flow-1", "g2.item_flow-2"]  # type: ignore[union-attr]
    for made in (run, following):
        made.check_every_turn()
        made.machine.discard()


def test_the_program_counts_all_and_its_last_history_is_that_of_one_page(database: str) -> None:
    environ = {**os.environ, "CONTINUUM_DATABASE_URL": database}
    command = [sys.executable, str(PROGRAM), "130", "50"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # Of the last page: its start, what was read, a start and an end for each of 30 children, what the map came to.
    wanted = ["children completed: 130", "generations: 3", f"entries of the last generation: {3 + 2 * 30}"]
    assert done.stdout.splitlines()[:3] == wanted
