"""Reading what a run needs for its replay: entries, mail, and results too large to be kept twice.

The rule: rows that no release could have written are a ``problem`` of their run, told as text, and of no other
run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from continuum._core.entries import TYPES, Entry
from continuum._journal.commit import Claimed, End, Loaded, Mail
from continuum._journal.ends import Answers
from continuum._journal.lane import Lanes
from continuum._journal.render import BY_REFERENCE
from continuum._journal.rows import end_row
from continuum._journal.statements import statement
from continuum._journal.storable import is_storable

# Messages of one run read at once; the rest come after these are consumed. With an entry and a consumed id for
# each, a commit of all of them is not a large one.
MOST_MAIL = 900
MOST_BYTES = 3_000_000


class Reader:
    """Reads journals and inboxes; changes nothing."""

    def __init__(self, lanes: Lanes, schema: str) -> None:
        self._lanes = lanes
        self._schema = schema

    async def load(self, claimed: Sequence[Claimed]) -> list[Loaded]:
        """Return entries and mail of runs that the caller holds, in the order given."""
        ids = [run.run_id for run in claimed]
        values = {"run_ids": ids, "generations": [run.generation for run in claimed]}
        reading = self._lanes.read(statement("load_events", self._schema), values)
        rows, mail = await asyncio.gather(reading, self.mail(ids))
        results = await self._results(rows, key_at=4)
        journals: dict[str, list[tuple[Any, ...]]] = {}
        for row in rows:
            journals.setdefault(row[0], []).append(row)
        return [_loaded(run, journals.get(run.run_id, []), results, mail.get(run.run_id, ())) for run in claimed]

    async def mail(self, run_ids: Collection[str]) -> dict[str, tuple[Mail, ...]]:
        """Return the mail of runs that have some, in the order in which it came."""
        bounds = {"limit": MOST_MAIL, "bytes": MOST_BYTES}
        rows = await self._of("load_inbox", list(run_ids), bounds, one="load_inbox_of_one")
        results = await self._results(rows, key_at=4)
        found: dict[str, list[Mail]] = {}
        for run_id, number, generation, kind, key, payload in rows:
            text = _payload(run_id, key, payload, results)
            found.setdefault(run_id, []).append(Mail(number, kind, key, text, generation))
        return {run_id: tuple(messages) for run_id, messages in found.items()}

    async def ends(self, run_ids: Collection[str]) -> dict[str, End | None]:
        """Return how those of the runs ended that exist; None: not yet."""
        rows = await self._of("ends", list(filter(is_storable, run_ids)), {}, one="end_of_one")
        return {row[0]: end_row(*row[1:]) for row in rows}

    async def answers(self, keys: Collection[str]) -> dict[str, bytes | End | None]:
        """Return the answers under those keys whose runs exist, or how the run ended; None: neither yet."""
        pairs = [key.split("\0") for key in keys]
        values = {"run_ids": [run_id for run_id, _ in pairs], "delivery_ids": [found for _, found in pairs]}
        rows = await self._lanes.read(statement("answers", self._schema), values)
        return {Answers.key(row[0], row[1]): end_row(*row[3:]) if row[2] is None else row[2] for row in rows}

    async def _of(
        self, many: str, run_ids: list[str], values: Mapping[str, int], *, one: str
    ) -> list[tuple[Any, ...]]:
        """Read about some runs, or about one: nearly always it is one on an idle machine, where somebody waits."""
        if len(run_ids) == 1:
            return await self._lanes.read(statement(one, self._schema), {"run_id": run_ids[0], **values})
        return await self._lanes.read(statement(many, self._schema), {"run_ids": run_ids, **values})

    async def _results(self, rows: Iterable[tuple[Any, ...]], key_at: int) -> dict[str, bytes]:
        wanted = [f"{row[0]}/{row[key_at]}" for row in rows if row[-1] is None]
        if not wanted:
            return {}
        found = await self._lanes.read(statement("child_results", self._schema), {"run_ids": wanted})
        return {run_id: b"null" if result is None else result for run_id, result in found}


def _payload(run_id: str, key: str, payload: bytes | None, results: dict[str, bytes]) -> bytes:
    if payload is not None:
        return payload
    result = results.get(f"{run_id}/{key}")
    return b"{}" if result is None else b'{"result":%b}' % result


def _loaded(
    run: Claimed, rows: list[tuple[Any, ...]], results: dict[str, bytes], mail: tuple[Mail, ...]
) -> Loaded:
    first = 0 if run.generation > 1 else 1
    entries: list[Entry] = []
    problem: str | None = None
    for expected, (run_id, seq, at_us, kind, key, payload) in enumerate(rows, first):
        if seq != expected:
            problem = problem or f"entry {expected} of generation {run.generation} is missing, the next is {seq}"
        elif kind not in TYPES:
            problem = problem or f"entry {seq} of generation {run.generation} has the unknown type {kind!r}"
        elif payload is None and kind != BY_REFERENCE:
            problem = problem or f"entry {seq} of generation {run.generation} has no payload"
        elif payload is not None and payload[:1] != b"{" and not payload.lstrip().startswith(b"{"):
            problem = problem or f"the payload of entry {seq} of generation {run.generation} is no JSON object"
        entries.append(Entry(kind, key, at_us, _payload(run_id, key, payload, results)))
    if run.generation > 1 and not rows:
        problem = f"generation {run.generation} has no entries, not even its start"
    elif run.generation > 1 and entries[0].type != "run_started":
        problem = problem or f"generation {run.generation} begins with {entries[0].type!r}, not with its start"
    return Loaded(run.run_id, tuple(entries), mail, problem)
