"""Make a failing program small: drop and simplify nodes as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.programs.generate import Node

MAX_TRIES = 2_000


def shrink(tree: Node, fails: Callable[[Node], bool]) -> Node:
    """Return a smallest program found that still ``fails``; one that ``fails`` is given."""
    tries = 0
    smaller = True
    while smaller and tries < MAX_TRIES:
        smaller = False
        for candidate in _smaller(tree):
            tries += 1
            if fails(candidate):
                tree, smaller = candidate, True
                break
            if tries >= MAX_TRIES:
                break
    return tree


def _smaller(node: Node) -> Iterator[Node]:
    """Yield programs that are one step simpler, the boldest first."""
    yield from (child for child in _children(node) if child != node)
    for position, part in enumerate(node):
        if isinstance(part, list) and part and isinstance(part[0], list):
            if len(part) > 1:
                for index in range(len(part)):
                    yield _with(node, position, part[:index] + part[index + 1 :])
            for index, child in enumerate(part):
                for candidate in _smaller(child):
                    yield _with(node, position, [*part[:index], candidate, *part[index + 1 :]])
        elif isinstance(part, list) and part:
            for candidate in _smaller(part):
                yield _with(node, position, candidate)
            if part != ["pause"]:
                yield _with(node, position, ["pause"])


def _children(node: Node) -> Iterator[Node]:
    for part in node:
        if isinstance(part, list) and part and isinstance(part[0], list):
            yield from part
        elif isinstance(part, list) and part:
            yield part


def _with(node: Node, position: int, part: Any) -> Node:
    return [*node[:position], part, *node[position + 1 :]]
