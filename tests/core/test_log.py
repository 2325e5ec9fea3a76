"""The log of workflow code: said once, however often it is replayed."""

import logging

import pytest
from tests.core.harness import Run

from continuum import activity, log, workflow


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def talks() -> str:
    log.info("charging %s", "o1", extra={"cents": 5})
    receipt = await charge("o1")
    log.warning("charged")
    return receipt


def test_a_replay_repeats_no_line_and_goes_on_where_it_is_live(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "continuum.workflow")
    run = Run(talks)
    run.completed("charge-1", "paid")
    assert [record.getMessage() for record in caplog.records] == ["charging o1", "charged"]
    run.restart()
    assert len(caplog.records) == 2


def test_a_line_names_its_run_and_keeps_what_was_added(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "continuum.workflow")
    Run(talks, id="order-7")
    (record,) = caplog.records
    assert (vars(record)["run_id"], vars(record)["cents"]) == ("order-7", 5)


def test_outside_a_workflow_it_is_an_ordinary_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "continuum.workflow")
    log.info("from a unit test")
    assert [record.getMessage() for record in caplog.records] == ["from a unit test"]
