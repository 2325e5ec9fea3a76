"""What scenarios are made of: counted, so that none of it is missing without anybody seeing.

``python -m tests.simulation.census 1000`` prints the share of so many seeds that use each feature.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.simulation.confluence import APART, LONG_S, demanded, parts
from tests.simulation.flows import Node
from tests.simulation.programs import Scenario, scenario

RACES = {"race", "wait", "timeout", "wait_for", "later", "first", "order"}


def features(found: Scenario) -> set[str]:
    """Return the names of what a scenario uses."""
    used = {f"{len(found.workers)} workers", f"{len(found.roots)} roots"}
    for root in found.roots:
        used.add("confluent root" if root.confluent else "wild root")
        used |= {name for node, depth in walk(root.tree) for name in of_node(node, depth)}
        if any(max_generations(node) > 2 for node, _ in walk(root.tree) if node[0] == "main"):
            used.add("third generation")
    for action in found.actions:
        where = "a child" if "/" in action.run_id else "a root"
        used.add(f"from outside: {action.kind} {where}")
    asked = [(action.run_id, action.delivery_id) for action in found.actions if action.kind == "update"]
    if len(set(asked)) < len(asked):
        used.add("an update asked for twice")
    settings = [worker.settings for worker in found.workers]
    used |= {f"cache of {found}" for found in ("2", "3") if any(str(s.get("cache")) == found for s in settings)}
    if any(s.get("passivate_after") == 0.01 for s in settings):
        used.add("passivated at once")
    if any(s.get("claim_batch") == 1 for s in settings):
        used.add("claims one by one")
    return used


def walk(node: Node, depth: int = 0) -> Iterator[tuple[Node, int]]:
    """Yield every node of a tree with the depth of the run that it belongs to."""
    yield node, depth
    below = depth + (node[0] in APART)
    for inner in parts(node):
        yield from walk(inner, below)


def max_generations(node: Node) -> int:
    """Return how many generations a run has, without its children."""
    inside = () if node[0] in APART else parts(node)
    return int(node[0] == "again") + max(map(max_generations, inside), default=1)


def of_node(node: Node, depth: int) -> Iterator[str]:
    kind, *args = node
    yield f"node {kind}"
    if kind == "main":
        yield f"depth {depth}"
    if kind == "again":
        yield "again in a child" if depth else "again in a root"
    if kind == "work":
        yield from (f"activity {name}" for name in ("takes", "fails", "ever", "hangs") if name in args[1])
    if kind == "sleep" and args[0] >= LONG_S:
        yield "an hour's sleep"
    if kind in ("collect", "read"):
        yield f"{kind} in a child" if depth else f"{kind} in a root"
    if kind == "mapping":
        how, trees = args
        yield f"map that may {how['rest']} the rest"
        yield "map that collects" if how["collect"] else "map that counts"
        yield from (
            f"map with {name}" for name in ("enough", "tolerate", "limit", "retry") if how[name] is not None
        )
        yield from (f"map that is {name}" for name in ("paged", "named") if how[name])
        if how["window"] < len(trees):
            yield "map with a window"
    if kind in ("fan", "carry"):
        kids: list[dict[str, Any]] = args[-1]
        if kind == "fan":
            yield f"children by {args[0]}"
        if len(kids) >= 10:
            yield "many children"
        yield from (name for one in kids for name in of_kid(one))


def of_kid(one: dict[str, Any]) -> Iterator[str]:
    yield "child without an id" if one["id"] is None else "child with an id"
    if one["cancel"] is not None:
        yield f"child cancelled {one['cancel']}"
        if any(node[0] == "fan" for node in parts(one["tree"])):
            yield "cascade"
    if one["limit"] is not None:
        yield "child with a timeout"
    if one.get("retry"):
        yield "child tried again"
        if demanded(one["tree"]):
            yield "child tried again that reads"
    if one.get("close") == "cancel":
        yield "child that closes"
    yield from (f"child sent a signal {when}" for when in ("now", "then") if one[when])


def census(found: Iterable[Scenario]) -> Counter[str]:
    """Count the scenarios that use each feature."""
    return Counter(name for one in found for name in features(one))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for name, times in sorted(census(map(scenario, range(count))).items(), key=lambda item: -item[1]):
        print(f"{times / count:7.1%}  {name}")
