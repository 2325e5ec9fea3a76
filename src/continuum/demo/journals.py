"""What the journals of an audit's children have recorded, to be held against the ledger."""

from __future__ import annotations

from typing import Any

from continuum.client import Client
from continuum.demo.flows import Report
from continuum.demo.ledger import Step

PAGE = 1_000
TAKES_STOCK = "take_stock-1"


async def recorded(client: Client, run_id: str, report: Report) -> tuple[dict[Step, list[str]], list[str]]:
    """Return the executions that are recorded of each step, and what should be recorded and is not.

    There must be a child for each package of the report, and in its journal each part that it has counted.
    """
    executions: dict[Step, list[str]] = {}
    problems: list[str] = []
    children = await _children(client, run_id)
    packages = [key for key in children if key != TAKES_STOCK]
    if len(packages) != report.packages or TAKES_STOCK not in children:
        problems.append(f"the report has {report.packages} packages, the database children for {len(packages)}")
    for key in children:
        package = "" if key == TAKES_STOCK else key
        parts = 0
        for payload in await _outcomes(client, f"{run_id}/{key}"):
            result = payload["result"]
            step = Step(package, payload["input"].get("part", 0))
            executions.setdefault(step, []).append(result["execution"])
            parts += result.get("parts", 0)
        wanted = (Step(package, part) for part in range(parts + 1))
        problems += [f"the journal lacks {step}" for step in wanted if step not in executions]
    return executions, problems


async def _children(client: Client, run_id: str) -> list[str]:
    """Return the keys of a run's children."""
    ids: list[str] = []
    while page := await client.list_children(run_id, limit=PAGE, after=ids[-1] if ids else ""):
        ids += [child.id for child in page]
    return [child_id.rpartition("/")[2] for child_id in ids]


async def _outcomes(client: Client, run_id: str) -> list[dict[str, Any]]:
    """Return what is recorded of a run's activities: input and result."""
    history = await client.get_run(run_id).history()
    return [event.payload for event in history if event.type == "activity_completed"]
