"""Names that are the same on every replay: task paths, operation keys, run ids.

The rule: a key depends on which task asks, for what, and how often it has asked before; never on a line number,
an address, a clock or the order of other tasks. So a step put into one branch moves no key of another.
"""

from __future__ import annotations

import re
from typing import Any

from continuum.errors import InvalidId

MAX_KEY_BYTES = 80
MAX_RUN_ID_BYTES = 900
_PLAIN = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_KEY_BYTES}}}")  # what nearly every id of a child is made of
_PATH = re.compile(r"[tgu]\d+\.")


class Scope:
    """One task's place in its run: the path to it, and what it has counted so far.

    The main task's path is empty; the second task it makes is ``t2.``, that one's first ``t2.t1.``. The task that
    handles the third update is ``u3.``.
    """

    __slots__ = ("_counts", "_tasks", "path", "streams")

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.streams: dict[str, Any] | None = None  # random numbers drawn on this path, made on demand
        self._tasks = 0
        self._counts: dict[str, int] | None = None

    def task(self) -> Scope:
        """Return the scope of the next task made by this one."""
        self._tasks += 1
        return Scope(f"{self.path}t{self._tasks}.")

    def key(self, name: str) -> str:
        """Return the key of this task's next operation called ``name``, such as ``t2.charge-1``."""
        counts = self._counts
        if counts is None:
            counts = self._counts = {}
        counts[name] = ordinal = counts.get(name, 0) + 1
        return f"{self.path}{name}-{ordinal}"


def check_child_key(key: object) -> str:
    """Return ``key`` if it can name a child, else raise ``InvalidId`` or ``TypeError``."""
    if isinstance(key, str) and _PLAIN.fullmatch(key):
        return key
    return _check("child id", key, MAX_KEY_BYTES)


def check_definition_name(name: object) -> str:
    """Return ``name`` if keys can be made of it, else raise ``InvalidId`` or ``TypeError``."""
    checked = _check("name", name, MAX_KEY_BYTES)
    if _PATH.match(checked):
        raise InvalidId(f"name {checked!r} begins like a task path or a generation; use another first word")
    return checked


def check_root_id(run_id: object) -> str:
    """Return ``run_id`` if it can name a root run, else raise ``InvalidId`` or ``TypeError``."""
    return _check("run id", run_id, MAX_RUN_ID_BYTES)


def check_text(what: str, text: object, limit: int) -> str:
    """Return ``text`` if a journal's entry can hold it, else raise ``InvalidId`` or ``TypeError``."""
    one = f"an {what}" if what[0] in "aeiou" else f"a {what}"
    if not isinstance(text, str):
        raise TypeError(f"{one} is a str: got {text!r} of type {type(text).__name__}")
    if not text or text.isspace():
        raise InvalidId(f"{one} must not be {'blank' if text else 'empty'}")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidId(f"{one} must not hold NUL or a lone surrogate: got {text!r}")
    if len(text.encode()) > limit:
        raise InvalidId(f"{what} {text[:40] + '…'!r} is longer than {limit} bytes; give a shorter one")
    return text


def child_run_id(parent_run_id: str, key: str) -> str:
    """Return the run id of the child ``key`` of a run: ``{parent}/{key}``. Raises ``InvalidId`` past 900 bytes."""
    run_id = f"{parent_run_id}/{key}"
    # The length of the text is checked first: ids are nearly always ASCII and short.
    if len(run_id) * 4 > MAX_RUN_ID_BYTES and len(run_id.encode()) > MAX_RUN_ID_BYTES:
        raise InvalidId(
            f"the id of child {key!r} would be longer than {MAX_RUN_ID_BYTES} bytes; use shorter ids in this tree"
        )
    return run_id


def _check(what: str, name: object, limit: int) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a {what} is a str: got {name!r} of type {type(name).__name__}")
    if not name or name.isspace():
        raise InvalidId(f"a {what} must not be {'blank' if name else 'empty'}; leave id= out to have one derived")
    if "/" in name or not name.isprintable():
        bad = next(letter for letter in name if letter == "/" or not letter.isprintable())
        raise InvalidId(f"{what} {name!r} must not hold {bad!r}; use letters, digits, '-', '_', '.' or ':'")
    if len(name) > limit or len(name.encode()) > limit:
        raise InvalidId(f"{what} {name[:40] + '…'!r} is longer than {limit} bytes; give a shorter one")
    return name
