"""Workflows for the client's tests, and what an engine would do with their runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from continuum import Update, workflow
from continuum._core.failure import encode_failure
from continuum._journal.commit import Claimed, Complete, Fail
from continuum._journal.journal import PostgresJournal
from continuum.errors import Failure
from tests.journal.harness import claim, turn, write


@dataclass(frozen=True)
class Order:
    id: str
    cents: int = 100


@dataclass(frozen=True)
class Receipt:
    order_id: str


@dataclass(frozen=True)
class Approval:
    by: str


pay = Update("pay", Approval, Receipt)


@workflow(signals={"approve": Approval, "note": Any, "go": Any}, updates=[pay])
async def order_flow(order: Order) -> Receipt:
    return Receipt(order.id)


@workflow(version=3)
async def audit_flow() -> int:
    return 0


DEFINITIONS = ((order_flow.name, order_flow.version), (audit_flow.name, audit_flow.version), ("kid", 1))
ROOT_OF_IT = Failure("OSError", "disk full")
BOOM = Failure("ValueError", "no such order", "Traceback …", cause=ROOT_OF_IT)


async def take(engine: PostgresJournal, run_id: str) -> Claimed:
    """Claim a run that is due, and whatever else is."""
    return (await claim(engine, *DEFINITIONS))[run_id]


async def complete(engine: PostgresJournal, run_id: str, result: bytes = b'{"order_id":"o1"}') -> None:
    await write(engine, turn(await take(engine, run_id), status=Complete(result)))


async def fail(engine: PostgresJournal, run_id: str, failure: Failure = BOOM) -> None:
    await write(engine, turn(await take(engine, run_id), status=Fail(encode_failure(failure))))
