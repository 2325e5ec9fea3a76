"""Every race with thousands of random rounds: `make races`. In `make test` each storm is short.

A failure prints its seed; CONTINUUM_RACE_SEED repeats the same delays, though not the same scheduling.
CONTINUUM_RACE_ROUNDS sets the rounds of each storm.
"""

from __future__ import annotations

import logging

import pytest

from continuum._journal import canceller, flusher, large
from tests.journal.races import scenarios
from tests.journal.races.invariants import check, no_deadlocks
from tests.journal.races.round import Storm
from tests.journal.races.sides import session
from tests.journal.races.storm import SHORT, Scenario, brewing, rage, rounds


@pytest.mark.parametrize("hints", ["poked", "dropped"])
@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda scenario: scenario.__name__)
async def test_a_storm_breaks_nothing(raced: str, scenario: Scenario, hints: str) -> None:
    count = rounds()
    if scenario is scenarios.neighbours and count <= SHORT:
        count //= 2  # a round of it has 48 commits, far more than the others
    async with brewing(raced, poked=hints == "poked") as storm:
        await rage(storm, scenario, check, count)
    await _calm(raced, storm, f"{scenario.__name__} {hints}", count)


async def test_a_storm_of_broken_connections_breaks_nothing_else(
    raced: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With every hint dropped: mail of a commit without an answer is poked by nobody."""
    caplog.set_level(logging.CRITICAL)
    async with brewing(raced, poked=False, breaking=True) as storm:
        await rage(storm, scenarios.losing, check, rounds())
    await _calm(raced, storm, "losing dropped", rounds())
    assert storm.tally["Unknown"]


@pytest.mark.parametrize("hints", ["poked", "dropped"])
async def test_a_storm_of_callers_that_hold_rows_breaks_nothing(
    raced: str, hints: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A flush waits for 10 ms instead of a second, so that its batches are taken apart all the time."""
    caplog.set_level(logging.CRITICAL)
    for module, name, value in (
        (flusher, "PATIENT", "10ms"),
        (flusher, "WARY", "2ms"),
        (flusher, "HELD_S", 0.01),
        (large, "LOCK_TIMEOUT", "10ms"),
        (canceller, "LOCK_TIMEOUT", "10ms"),
    ):
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, value)
    async with brewing(raced, poked=hints == "poked") as storm:
        await rage(storm, scenarios.callers, check, rounds() // 4)  # each takes as long as callers hold rows
    await _calm(raced, storm, f"callers {hints}", rounds() // 4)


async def _calm(url: str, storm: Storm, name: str, count: int) -> None:
    async with session(url) as db:
        storm.problems.extend(filter(None, [await no_deadlocks(db)]))
    counted = ", ".join(f"{what} {count}" for what, count in sorted(storm.tally.items()) if count)
    print(f"\nstorm {name} seed {storm.seed}: {counted}")
    assert not storm.problems, "\n".join([f"CONTINUUM_RACE_SEED={storm.seed}", *storm.problems[:20]])
    assert storm.tally["rounds"] == count
