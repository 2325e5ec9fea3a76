"""Maps over children in a scenario: how one is played, and what must hold of it.

The rule: the id of a child says to which map it belongs and what was promised of that, so the tables alone show
whether it was kept: ``m7w2c.3`` is of a map that has two in flight at most, and cancels the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random
from typing import Any

from continuum import Retry, Workflow, map_children
from continuum._core.jsontext import load
from continuum._journal.commit import Commit
from tests.simulation.endings import Broken, Runs

DECIDED, ENDED = "the map that started it was decided", "the map that started it has ended"
NAMED = re.compile(r"(m\d+w(\d+)([ca]))\.\d+")


def drawn(random: Random, name: str, *, calm: bool) -> dict[str, Any]:
    """Return how to map, by chance; what makes a map race only if it is not ``calm``."""
    window, rest = random.randint(1, 3), random.choice(["cancel", "abandon"])
    how: dict[str, Any] = {"label": f"{name}w{window}{rest[0]}", "window": window, "rest": rest}
    how |= {"named": random.random() < 0.8, "collect": random.random() < 0.7, "paged": random.random() < 0.3}
    how |= {"enough": None, "tolerate": None, "limit": None, "retry": None}
    how["close"] = random.choice(["abandon", "cancel"])
    if random.random() < 0.3:
        how["retry"] = {"tries": 3, "wait": random.choice([0, 0.01, 1, 5])}
    if not calm:
        how["enough"] = random.choice([None, 1, 1, 2])
        how["tolerate"] = random.choice([None, None, 0, 1])
        how["limit"] = random.choice([None, None, None, 0.5, 10])
    return how


async def play_map(
    flow: Workflow[Any, Any], items: Sequence[Any], how: Mapping[str, Any], seconds: Callable[[float], float]
) -> Any:
    """Map over ``items`` as ``how`` says; return what it came to, without what depends on the order of ends."""
    names = {id(item): f"{how['label']}.{number}" for number, item in enumerate(items)}

    async def paged() -> AsyncIterator[Any]:
        for number, item in enumerate(items):
            if number % 2:
                await asyncio.sleep(seconds(0.5))
            yield item

    again, limit = how["retry"], how["limit"]
    done = await map_children(
        flow,
        paged() if how["paged"] else iter(items),
        id=(lambda item: names[id(item)]) if how["named"] else None,
        concurrency=how["window"],
        min_successful=how["enough"],
        tolerate_failures=how["tolerate"],
        rest=how["rest"],
        collect=how["collect"],
        retry=again and Retry(max_attempts=again["tries"], initial=seconds(again["wait"])),
        timeout=None if limit is None else seconds(limit),
        on_parent_close=how["close"],
    )
    kinds = [None if outcome is None else type(outcome).__name__ for outcome in done.outcomes]
    decided = sorted(ref.id for ref in done.decided_by)
    return [done.results, kinds, decided, done.completed, done.failed, done.cancelled]


def check_maps(runs: Runs, commit: Commit) -> None:
    """Never are more of a map's children in flight than it may have, and none after it has cancelled the rest."""
    for name, window in {(found[1], int(found[2])) for child in commit.children if (found := _map(child.key))}:
        if len(live := _live(runs, commit.run_id, name)) > window:
            raise Broken(f"run {commit.run_id!r} has {live} in flight, and its map {name!r} may have {window}")
    decisions = [load(entry.payload)["decided_by"] for entry in commit.entries if entry.type == "map_decided"]
    left = [key for keys in decisions for key in keys]
    for entry in commit.entries:
        reason = load(entry.payload)["reason"] if entry.type == "child_cancel_requested" else ""
        if reason == DECIDED and not decisions:
            raise Broken(
                f"run {commit.run_id!r} cancels {entry.key!r}, and no entry says that its map was decided"
            )
        left += [entry.key] if reason in (DECIDED, ENDED) else []
    begun = {child.run_id for child in commit.children}  # perhaps of the next attempt at the same map
    for name in {found[1] for key in left if (found := _map(key)) and found[3] == "c"}:
        if live := [run_id for run_id in _live(runs, commit.run_id, name) if run_id not in begun]:
            raise Broken(f"{live} live on, and map {name!r} of run {commit.run_id!r} has cancelled the rest")


def _map(key: str) -> re.Match[str] | None:
    return NAMED.fullmatch(key)


def _live(runs: Runs, parent_id: str, name: str) -> list[str]:
    """Return the children of a map that have not ended."""
    found: list[str] = []
    for run_id, run in runs.items():
        above, _, key = run_id.rpartition("/")
        named = _map(key) if run.live and above == parent_id else None
        found += [run_id] if named and named[1] == name else []
    return found
