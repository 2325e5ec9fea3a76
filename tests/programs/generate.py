"""Random programs over all that asyncio and Continuum offer a workflow: a tree of lists, plain JSON."""

from __future__ import annotations

from random import Random
from typing import Any

Node = list[Any]

LEAVES = {
    "act": 10,
    "sleep": 6,
    "child": 5,
    "start": 3,
    "named": 2,
    "signal": 4,
    "cond": 2,
    "bump": 3,
    "side": 2,
    "patch": 2,
    "draw": 2,
    "now": 1,
    "pause": 4,
    "refs": 3,
    "cancel_ref": 1,
    "map": 3,
    "fail": 1,
}
COMPOUNDS = {
    "seq": 10,
    "gather": 6,
    "group": 8,
    "wait": 5,
    "race": 5,
    "shields": 2,
    "wait_for": 5,
    "timeout": 5,
    "shield": 2,
    "try": 7,
    "later": 5,
    "queue": 3,
    "sem": 3,
    "event": 2,
    "lock": 2,
    "baton": 2,
}
MAX_DEPTH = 4


def generate(random: Random) -> Node:
    """Return a program; about every tenth ends by continuing as new."""
    body = [_node(random, 0) for _ in range(random.randint(2, 6))]
    if random.random() < 0.1:
        body.append(["again"])
    return ["seq", [["try", node, ["bump"], ["pause"], False] for node in body[:-1]] + body[-1:]]


def _node(random: Random, depth: int) -> Node:
    if depth >= MAX_DEPTH or random.random() < 0.35 + 0.1 * depth:
        return _leaf(random)
    kind = _pick(random, COMPOUNDS)
    some = [_node(random, depth + 1) for _ in range(random.randint(1, 3))]
    match kind:
        case "gather":
            return [kind, random.random() < 0.5, some]
        case "wait":
            return [kind, random.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]), some]
        case "wait_for" | "timeout":
            return [kind, random.choice([0, 1, 2, 5]), some[0]]
        case "shield" | "later" | "lock":
            return [kind, some[0]]
        case "try":
            return [kind, some[0], _leaf(random), _leaf(random), random.random() < 0.3]
        case "queue":
            return [kind, random.randint(1, 4), random.randint(1, 2), some[0]]
        case "sem" | "baton":
            return [kind, random.randint(1, 2), some]
        case "event":
            return [kind, _leaf(random), some]
        case _:
            return [kind, some]


def _leaf(random: Random) -> Node:
    kind = _pick(random, LEAVES)
    match kind:
        case "signal" | "patch":
            return [kind, random.choice("ab")]
        case "refs":
            return [kind, random.choice(["gather", "all", "completed", "wait", "each"])]
        case "map":
            return [kind, random.randint(0, 4), random.choice(["all", "first", "counted", "paged"])]
        case "pause" | "bump" | "draw" | "now" | "cancel_ref" | "fail":
            return [kind]
        case _:
            return [kind, random.randint(0, 4)]


def _pick(random: Random, weights: dict[str, int]) -> str:
    return random.choices(list(weights), list(weights.values()))[0]
