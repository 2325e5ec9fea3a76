"""``continuum runs tree``: a run and everything below it.

The rule: each line says what one wants to know of a run without asking again. A level that is too wide is folded:
what failed is shown, the rest is counted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from continuum.cli.options import with_client
from continuum.cli.output import say
from continuum.cli.text import as_json, fitted, printable, takes_unicode, terminal_width

if TYPE_CHECKING:
    from continuum.client import Client
    from continuum.descriptions import RunDescription

MOST_SHOWN = 20  # children of one parent
SHORTEST_S = 0.1  # between two looks
_FIRST = ("failed", "parked", "running", "suspended", "pending", "cancelled", "completed")


@dataclass(slots=True)
class Node:
    """A run and its children, in the order of ids."""

    run: RunDescription
    children: list[Node] = field(default_factory=list["Node"])


def run(arguments: argparse.Namespace) -> int:
    """Print the tree below a run."""

    import asyncio

    async def show(client: Client) -> int:
        drawn = Drawn()
        while True:
            found = await client.tree(
                arguments.run_id, levels=arguments.depth, limit=arguments.limit + 1, values=arguments.json
            )
            root = _grown(found[: arguments.limit])
            if arguments.json:
                say(as_json(_plain(root), indent=2))
                return 0
            has_ended = root.run.completed_at is not None
            lines = [*_lines(root), *_left_out(len(found) - arguments.limit, arguments.limit)]
            drawn.draw(lines, found, last=has_ended or arguments.watch is None)
            if has_ended or arguments.watch is None:
                return 0
            await asyncio.sleep(max(arguments.watch, SHORTEST_S))

    return with_client(arguments, show)


class Drawn:
    """A tree that is drawn again and again: on a terminal in its place, elsewhere whenever it has changed."""

    def __init__(self) -> None:
        self._in_place = sys.stdout is not None and sys.stdout.isatty()
        self._height = 0  # lines that stand on the terminal
        self._shown: list[object] | None = None

    def draw(self, lines: Sequence[str], found: Sequence[RunDescription], *, last: bool) -> None:
        """Print ``lines``, the last ones all of them; ``found`` is what they tell, but for how long it took."""
        width = terminal_width()
        if self._in_place:
            fitting = lines if last else _fitting(lines)
            back = f"\x1b[{self._height}F\x1b[J" if self._height else ""
            say(back + "\n".join(fitted(line, width) for line in fitting))
            self._height = len(fitting)
            return
        stands: list[object] = [
            (run.id, run.state, run.generation, run.waiting_for, run.error, run.stop_by) for run in found
        ]
        if stands == self._shown:
            return
        if self._shown is not None:
            say("")
        self._shown = stands
        for line in lines:
            say(fitted(line, width))


def _fitting(lines: Sequence[str]) -> list[str]:
    """Return as many lines as a terminal shows: what scrolled out of it cannot be drawn again."""
    most = max(2, shutil.get_terminal_size().lines - 1)
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"and {len(lines) - most + 1:,} more lines"]


def _left_out(count: int, limit: int) -> Iterator[str]:
    if count > 0:
        yield f"only the first {limit:,} runs in the order of ids were read: --limit reads more"


def _grown(found: Sequence[RunDescription]) -> Node:
    """Return the first run as a node, with all others below it: a parent always stands before its children."""
    nodes: dict[str, Node] = {}
    for one in found:
        node = nodes[one.id] = Node(one)
        if one.parent_run_id in nodes:
            nodes[one.parent_run_id].children.append(node)
    return nodes[found[0].id]


def _plain(node: Node) -> dict[str, Any]:
    from continuum.cli.runs import plain

    return {**plain(node.run), "children": [_plain(child) for child in node.children]}


def _lines(root: Node) -> Iterator[str]:
    yield _line(root.run, root.run.id)
    yield from _below(root, "")


def _below(node: Node, indent: str) -> Iterator[str]:
    shown, folded = _folded(node.children)
    branch, last, rail = ("├─ ", "└─ ", "│  ") if takes_unicode() else ("|- ", "`- ", "|  ")
    for number, child in enumerate(shown):
        at_end = number == len(shown) - 1 and not folded
        key = child.run.id.rpartition("/")[2]
        yield f"{indent}{last if at_end else branch}{_line(child.run, key)}"
        yield from _below(child, indent + ("   " if at_end else rail))
    if folded:
        yield f"{indent}{last}and {sum(folded.values()):,} more: {_counts(folded)}"


def _folded(children: Sequence[Node]) -> tuple[list[Node], Counter[str]]:
    """Return the children to be shown, and the states of the others; among many, what failed comes first."""
    if len(children) <= MOST_SHOWN:
        return list(children), Counter()
    by_state = sorted(
        children, key=lambda child: _FIRST.index(child.run.state) if child.run.state in _FIRST else 0
    )
    return by_state[:MOST_SHOWN], Counter(child.run.state for child in by_state[MOST_SHOWN:])


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{states[state]:,} {state}" for state in _FIRST if states[state])


def _line(run: RunDescription, name: str) -> str:
    from continuum.cli.runs import remark, took

    parts = (name, run.workflow, run.state, took(run), remark(run))
    return "  ".join(printable(part) for part in parts if part)
