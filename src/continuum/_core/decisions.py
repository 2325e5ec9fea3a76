"""What a turn decides, and its comparison with what is recorded.

The rule: the same call decides live and on replay. Live, a decision is handed out; on replay it must stand among
those recorded with the turn's event, by type and key, and mean the same. One that is missing, changed or left
over is a divergence. An order among the decisions of one turn has no effect, so it is not compared.
"""

from __future__ import annotations

from typing import NoReturn

from continuum._core import commands as c
from continuum._core.codec import Codec
from continuum._core.entries import Entry, entry_of_decision, fields_of, value_in
from continuum._core.faults import Divergence, Fault, Undecodable, Unwind, source_line
from continuum._core.loop import WorkflowLoop
from continuum.errors import DecodeError

Recorded = dict[tuple[str, str], Entry]


class Decisions:
    """The commands of the turn under way; ``recorded`` is None while the run is live."""

    __slots__ = ("_loop", "at_us", "commands", "fault", "patches", "published", "recorded")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self.at_us = 0
        self.commands: list[c.Command] = []
        self.recorded: Recorded | None = None
        self.fault: Fault | None = None
        self.published: bytes | None = None  # in the turn under way
        self.patches: dict[str, bool] = {}  # which of them this generation applies, once it has asked

    @property
    def behind_us(self) -> int:
        """By how much the clock is behind journal time, which never goes back, as the event under way tells it."""
        return self._loop.now_us - self.at_us

    def request(self, request: c.Request) -> None:
        """Ask for something that leaves no entry. On replay what is still open is asked for again at the end."""
        if self.recorded is None:
            self.commands.append(request)

    def decide(self, decision: c.Decision, task_path: str, codec: Codec[object] | None = None) -> None:
        """Take a decision. ``codec`` compares its input by meaning."""
        if self.fault is not None:
            raise Unwind
        if self.recorded is None:
            self.commands.append(decision)
            return
        decided = entry_of_decision(decision, self.at_us)
        entry = self.recorded.pop((decided.type, decided.key), None)
        if entry is None or (entry.payload != decided.payload and not _same(entry, decided, codec)):
            self.diverge(entry or self._nearest(decided), decided, task_path)

    def publish(self, value: bytes) -> None:
        """Let people see ``value``. A replay publishes nothing: it was, in the commits that are repeated."""
        if self.recorded is None:
            self.published = value

    def take(self, type_: str, key: str) -> Entry | None:
        """Take the recorded decision of that type and key out, if there is one."""
        return self.recorded.pop((type_, key), None) if self.recorded else None

    def diverge(self, recorded: Entry | str, decided: Entry | str, task_path: str, key: str = "") -> NoReturn:
        """Set the fault, if it is the first, and leave the workflow's code."""
        if self.fault is not None:
            raise Unwind
        if isinstance(decided, Entry):
            key = decided.key
        self.fail(Divergence(in_words(recorded), in_words(decided), key, task_path, source_line()))
        raise Unwind

    def undecodable(self, error: DecodeError, key: str = "") -> NoReturn:
        """Set the fault for a recorded value that does not fit, and leave the workflow's code."""
        self.fail(Undecodable(str(error), key))
        raise Unwind

    def fail(self, fault: Fault) -> None:
        """Stop the run here: no further line of the workflow's code takes effect."""
        self.fault = fault
        self._loop.stopped = True

    def leftover(self) -> Entry | None:
        """Return a recorded decision that the turn did not take. A patch nobody asks for any more is none."""
        return next((entry for entry in (self.recorded or {}).values() if entry.type != "patch_applied"), None)

    def _nearest(self, decided: Entry) -> Entry | str:
        """Return the recorded decision that most likely stands for ``decided``."""
        entries = list((self.recorded or {}).values())
        same_type = (entry for entry in entries if entry.type == decided.type)
        same_key = (entry for entry in entries if entry.key == decided.key)
        return next(same_key, None) or next(same_type, None) or next(iter(entries), "nothing at this point")


def _same(recorded: Entry, decided: Entry, codec: Codec[object] | None) -> bool:
    """Compare payloads by meaning: parsed, the input by its codec, a child's version not at all."""
    try:
        old, new = fields_of(recorded), fields_of(decided)
        for fields in (old, new):
            fields.pop("version", None)
        if codec is not None:
            name = next(name for name in ("input", "payload", "result") if name in new)
            if not codec.means_the_same(value_in(recorded, name), value_in(decided, name)):
                return False
            del old[name], new[name]
    except DecodeError:
        return False
    return old == new


def in_words(entry: Entry | str) -> str:
    """Return an entry as a divergence tells it, its payload cut to 300 characters."""
    if isinstance(entry, str):
        return entry
    payload = entry.payload.decode("utf-8", "replace")
    return f"{entry.type} {entry.key} {payload if len(payload) <= 300 else payload[:297] + '...'}"
