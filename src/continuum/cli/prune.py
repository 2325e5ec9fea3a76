"""``continuum db prune``: delete what has ended long ago.

The rule: an age is named with its unit, since a number alone is days to one reader and seconds to another.
"""

from __future__ import annotations

import argparse
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from continuum.cli.options import Commands, add_verb, whole, with_client
from continuum.cli.output import say

if TYPE_CHECKING:
    from continuum.client import Client

AT_ONCE = 100  # trees in one transaction
_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "min": 60, "s": 1}


def add(verbs: Commands) -> None:
    """Add ``prune``."""
    parser = add_verb(
        verbs,
        "prune",
        _prune,
        "delete trees of runs that ended long ago",
        about="A tree goes as a whole, with its journals, and stays as long as anything in it lives.",
        example="continuum db prune --older-than 30d",
    )
    parser.add_argument(
        "--older-than", type=age, required=True, metavar="AGE", help="since the root's end: 90d, 12h, 30min, 10s"
    )
    parser.add_argument("--limit", type=whole(1), metavar="N", help="so many trees at most; else all")


def age(text: str) -> timedelta:
    """Read an argument that is a number with a unit."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s?(w|d|h|min|s)", text.strip(), re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"it is a number with w, d, h, min or s behind it, not {text!r}")
    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text} is longer than there are runs") from None


def _prune(arguments: argparse.Namespace) -> int:
    async def work(client: Client) -> int:
        done, left = 0, arguments.limit
        while left is None or done < left:
            size = AT_ONCE if left is None else min(AT_ONCE, left - done)
            gone = await client.prune(older_than=arguments.older_than, limit=size)
            done += gone
            if gone == 0:
                break
        say(f"deleted {done:,} tree{'' if done == 1 else 's'}")
        return 0

    return with_client(arguments, work)
