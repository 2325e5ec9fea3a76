"""An expense that somebody has to approve: a reminder after a day, a denial after three.

    python examples/expense_approval.py

asks for one on the Postgres of CONTINUUM_DATABASE_URL, else on a private one in ``./.continuum``, and approves it.
``tests/test_expense_approval.py`` lives through all three days in milliseconds.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from continuum import Retry, Worker, activity, connect, wait_signal, workflow

PATIENCE = timedelta(days=3)
REMINDED_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Expense:
    id: str
    employee: str
    approver: str
    cents: int


@dataclass(frozen=True)
class Approval:
    approved: bool
    comment: str = ""


@dataclass(frozen=True)
class Decision:
    approved: bool
    reason: str


@activity(retry=Retry(max_attempts=10))
async def send_mail(to: str, subject: str) -> None:
    """Send a mail; here it is printed."""
    print(f"to {to}: {subject}")


@activity
async def pay(expense_id: str, cents: int) -> str:
    """Pay the money out, once for each expense whatever happens."""
    return f"payment-{expense_id}"


@workflow(version=1, signals={"approve": Approval})
async def expense_flow(expense: Expense) -> Decision:
    """Ask, remind, and decide; whatever happens to workers meanwhile."""
    await send_mail(expense.approver, f"please approve expense {expense.id}")
    try:
        answer = await answer_to(expense)
    except TimeoutError:
        await send_mail(expense.employee, f"nobody approved expense {expense.id}")
        return Decision(False, "nobody answered in three days")
    if answer.approved:
        await pay(expense.id, expense.cents)
    await send_mail(expense.employee, f"expense {expense.id} was {'approved' if answer.approved else 'denied'}")
    return Decision(answer.approved, answer.comment)


async def answer_to(expense: Expense) -> Approval:
    """Wait for an answer, and ask once more after a day; raise ``TimeoutError`` when patience ends."""
    try:
        return await wait_signal("approve", Approval, timeout=REMINDED_AFTER)
    except TimeoutError:
        await send_mail(expense.approver, f"expense {expense.id} still waits for you")
        return await wait_signal("approve", Approval, timeout=PATIENCE - REMINDED_AFTER)


async def main() -> None:
    async with connect() as client, Worker(client, [expense_flow]):
        run = await client.start(expense_flow, Expense("e1", "ada@example.org", "bob@example.org", 4200))
        await run.signal("approve", Approval(True, "well spent"))
        print(await run.result())


if __name__ == "__main__":
    asyncio.run(main())
