"""Who leaves memory leaves nothing behind, and what no release has written ends nobody else."""

from __future__ import annotations

import gc
import weakref

from continuum._core.entries import Entry
from continuum._engine.loading import _attempt
from continuum._engine.residents import Residents
from tests.engine.test_taking import Bench


def test_a_machine_is_freed_when_its_run_leaves() -> None:
    bench, residents = Bench(), Residents(10)
    run = bench.run("sleeping", b"0")
    residents.add(run)
    bench.take(run)
    assert run.machine is not None
    machine = weakref.ref(run.machine.loop)
    held_by_a_timer = [run]
    residents.drop(run)
    gc.collect()
    assert machine() is None
    assert held_by_a_timer[0].gone
    assert len(residents) == 0


def test_an_attempt_that_is_no_number_is_the_first() -> None:
    for payload in (b'{"attempt":1e999}', b'{"attempt":"x"}', b'{"attempt":-4}', b"[]", b"{}"):
        assert _attempt(Entry("activity_started", "charge-1", 1, payload)) == 1
