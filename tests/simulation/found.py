"""Scenarios that once broke a promise, made small and kept as files in ``found``.

The rule: each is kept with the sentence that it broke, and the tests play it for ever after. One that was found
with a bug planted says which, and must break again when that is planted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.play import Played, play
from tests.simulation.programs import Scenario, read, write
from tests.simulation.shrink import MAX_TRIES, shrink

FOLDER = Path(__file__).parent / "found"


@dataclass(frozen=True, slots=True)
class Found:
    """A scenario, what it broke, and with which planted bug, if it was one."""

    scenario: Scenario
    broke: str
    bug: str = ""


def smallest(played: Played, *, tries: int = MAX_TRIES, bug: str = "") -> Found:
    """Return the smallest scenario found that breaks the promise that ``played`` did, at the same line."""
    last = played

    def fails(candidate: Scenario) -> bool:
        nonlocal last
        tried = play(candidate)
        if tried.place != played.place:
            return False
        last = tried
        return True

    scenario = shrink(played.scenario, fails, tries=tries)
    return Found(scenario, last.broken, bug)


def keep(found: Found, path: Path) -> None:
    """Write it down."""
    about = f' "broke": {json.dumps(found.broke)},\n "bug": {json.dumps(found.bug)},\n'
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + about + write(found.scenario).removeprefix("{\n") + "\n", encoding="utf-8")


def kept(path: Path) -> Found:
    """Return what is written in a file; a bare scenario will do."""
    text = path.read_text(encoding="utf-8")
    plain = json.loads(text)
    return Found(read(text), plain.get("broke", ""), plain.get("bug", ""))
