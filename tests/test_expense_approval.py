"""The example of an approval by a human, through all of its three days."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from examples import expense_approval
from examples.expense_approval import Approval, Decision, Expense, expense_flow, pay, send_mail

from continuum.testing import WorkflowEnvironment, assert_history

pytestmark = pytest.mark.continuum(expense_approval)
EXPENSE = Expense("e1", "ada", "bob", 4200)


@pytest.fixture
def env(continuum_env: WorkflowEnvironment) -> WorkflowEnvironment:
    continuum_env.replace(send_mail, lambda to, subject: None)
    continuum_env.replace(pay, lambda expense_id, cents: "paid")
    return continuum_env


def mails(env: WorkflowEnvironment) -> list[tuple[str, str]]:
    return [(call.arguments["to"], call.arguments["subject"]) for call in env.calls(send_mail)]


async def test_an_expense_that_is_approved_in_time_is_paid(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    env.after(timedelta(hours=2), lambda: run.signal("approve", Approval(True, "well spent")))
    assert await run.result() == Decision(True, "well spent")
    assert env.now - env.started == timedelta(hours=2)
    assert [call.arguments for call in env.calls(pay)] == [{"expense_id": "e1", "cents": 4200}]
    assert_history(
        await run.history(),
        [
            ("activity_completed", "send_mail-1"),
            ("signal_received", "approve"),
            ("activity_completed", "pay-1"),
            ("activity_completed", "send_mail-2", {"input": {"to": "ada", "subject": "expense e1 was approved"}}),
        ],
    )


async def test_an_expense_that_is_denied_is_not_paid(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    await run.signal("approve", Approval(False, "too much"))
    assert await run.result() == Decision(False, "too much")
    assert env.now == env.started
    assert env.calls(pay) == []


async def test_the_approver_is_reminded_after_a_day_and_not_before(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    await env.sleep(timedelta(days=1) - timedelta(seconds=1))
    assert mails(env) == [("bob", "please approve expense e1")]
    await env.sleep(1)
    assert mails(env)[1:] == [("bob", "expense e1 still waits for you")]
    await run.signal("approve", Approval(True))
    assert (await run.result()).approved


async def test_an_expense_that_nobody_answers_is_denied_after_three_days(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    assert await run.result() == Decision(False, "nobody answered in three days")
    assert env.now - env.started == timedelta(days=3)
    assert [to for to, _ in mails(env)] == ["bob", "bob", "ada"]
    assert env.calls(pay) == []


async def test_an_approval_that_comes_too_late_reaches_nobody(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    env.at(timedelta(days=3, seconds=1), lambda: run.signal("approve", Approval(True)))
    assert not (await run.result()).approved


async def test_a_worker_that_dies_in_the_middle_sends_no_mail_twice(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    await env.sleep(timedelta(days=2))
    before = mails(env)
    assert len(before) == 2
    await env.restart()
    assert await env.until_waiting(run) == "signal approve; timer timer-2"
    env.after(timedelta(hours=1), lambda: run.signal("approve", Approval(True)))
    assert (await run.result()).approved
    assert mails(env) == [*before, ("ada", "expense e1 was approved")]


@pytest.mark.continuum(expense_approval, replay_every_step=True)
async def test_it_decides_the_same_when_it_is_replayed_at_every_step(env: WorkflowEnvironment) -> None:
    run = await env.start(expense_flow, EXPENSE)
    assert not (await run.result()).approved


def test_the_program_approves_and_prints_what_was_decided(database: str) -> None:
    done = subprocess.run(
        [sys.executable, expense_approval.__file__],
        env={**os.environ, "CONTINUUM_DATABASE_URL": database},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "Decision(approved=True, reason='well spent')", done.stderr


async def test_mail_that_cannot_be_sent_at_first_is_sent_in_the_end(env: WorkflowEnvironment) -> None:
    outcomes = iter([ConnectionError("no server"), ConnectionError("no server"), None])

    def fail_twice(to: str, subject: str) -> None:
        if (error := next(outcomes, None)) is not None:
            raise error

    env.replace(send_mail, fail_twice)
    run = await env.start(expense_flow, EXPENSE)
    await run.signal("approve", Approval(True))
    assert (await run.result()).approved
    assert len(env.calls(send_mail)) == 4
    assert timedelta() < env.now - env.started < timedelta(minutes=1)
