"""Exceptions to ``Failure`` and back: what survives of an error on its way through a journal.

The rule: capturing never fails, whatever an exception's ``__str__`` does, and is bounded in depth and size.
"""

from __future__ import annotations

import re
import traceback
from typing import Any, cast

from continuum._core.jsontext import dump, load
from continuum.errors import ActivityFailed, ActivityTimedOut, ChildFailed, ChildTimedOut, Failure, RemoteError

MAX_CHAIN = 20
MAX_PARTS = 100
MAX_FAILURES = 500
MAX_TEXT = 16_384
_OURS = __file__.rpartition("_core")[0]
_FRAME = re.compile(r'^(?=  File ")', re.MULTILINE)
_ENGINE = re.compile(r"[/\\](site|dist)-packages[/\\]continuum[/\\]")  # of a worker on another machine
_LIBRARY = re.compile(r"[/\\](site|dist)-packages[/\\]|[/\\]lib[/\\]python3\.\d+[/\\]|<frozen ")


def capture(error: BaseException) -> Failure:
    """Return what is recorded of ``error``, with its causes and, of a group, its parts."""
    return _capture(error, MAX_CHAIN, set(), [MAX_FAILURES])


def where(failure: Failure) -> str:
    """Say where the author's code failed: the innermost failure in it, then the outermost if that is another.

    The tracebacks are the recorded ones without the frames of the engine and of libraries; "" if none are left.
    """
    chain: list[Failure] = []
    found: Failure | None = failure
    while found is not None and len(chain) <= MAX_CHAIN:
        chain.append(found)
        found = found.cause or (found.parts[0] if found.parts else None)
    told = [f"{frames}{one}" for one in reversed(chain) if (frames := own_frames(one.traceback))]
    return "\n".join(told if len(told) < 2 else (told[0], told[-1]))


def own_frames(recorded: str) -> str:
    """Return the frames of a recorded traceback that are the author's; those of libraries if all others are."""
    frames = [(part.partition("\n")[0], part) for part in _FRAME.split(recorded) if part.startswith("  File ")]
    outside = [(line, part) for line, part in frames if f'"{_OURS}' not in line and not _ENGINE.search(line)]
    own = [part for line, part in outside if not _LIBRARY.search(line)]
    return "".join(own or [part for _, part in outside])


def _capture(error: BaseException, depth: int, seen: set[int], left: list[int]) -> Failure:
    if type(error) is RemoteError:
        return error.failure  # the wrapper in a chain stands for the original
    seen.add(id(error))
    cause: Failure | None = None
    if isinstance(error, RemoteError):
        cause = error.failure
    elif depth > 0:
        before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if before is not None and id(before) not in seen:
            cause = _capture(before, depth - 1, seen, left)
    parts: list[Failure] = []
    for part in _parts(error) if depth > 0 else ():
        left[0] -= 1  # groups may share their parts, so the depth alone bounds nothing
        if left[0] < 0:
            break
        parts.append(_capture(part, depth - 1, seen, left))
    return Failure(
        type(error).__name__,
        _text(error),
        _traceback(error),
        cause,
        tuple(parts),
    )


def _parts(error: BaseException) -> tuple[BaseException, ...]:
    group = cast("BaseExceptionGroup[BaseException]", error)
    return group.exceptions[:MAX_PARTS] if isinstance(error, BaseExceptionGroup) else ()


def _text(error: BaseException) -> str:
    try:
        return storable(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the author's __str__ may do anything
        return f"<{type(error).__name__} whose text cannot be made>"


def _traceback(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        return storable("".join(traceback.format_tb(error.__traceback__)))
    except Exception:  # noqa: BLE001 - a traceback is worth having, never worth failing for
        return ""


def storable(text: str) -> str:
    """Return ``text`` as Postgres can store it: no NUL, no lone surrogates, at most 16,384 characters."""
    if len(text) > MAX_TEXT:
        text = (
            f"{text[: MAX_TEXT // 2]}\n… {len(text) - MAX_TEXT:,} characters left out …\n{text[-MAX_TEXT // 2 :]}"
        )
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


# What a parent hears of a child whose timeout passed.
CHILD_TIMED_OUT = Failure("TimeoutError", "the child's timeout passed", timed_out=True)


def encode_failure(failure: Failure) -> bytes:
    """Return ``failure`` as JSON text; what is empty is left out."""
    return dump(_plain(failure))


def decode_failure(data: bytes) -> Failure:
    """Return the failure that ``data`` holds, tolerant of what is missing."""
    return _failure(load(data))


def _plain(failure: Failure) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": failure.type, "message": failure.message}
    if failure.traceback:
        plain["traceback"] = failure.traceback
    if failure.cause is not None:
        plain["cause"] = _plain(failure.cause)
    if failure.parts:
        plain["parts"] = [_plain(part) for part in failure.parts]
    if failure.timed_out:
        plain["timed_out"] = True
    return plain


def _failure(plain: Any) -> Failure:
    if not isinstance(plain, dict):
        return Failure("Unknown", str(plain))
    fields = cast("dict[str, Any]", plain)
    parts = cast("list[Any] | None", fields.get("parts"))
    return Failure(
        str(fields.get("type", "Unknown")),
        str(fields.get("message", "")),
        str(fields.get("traceback", "")),
        _failure(fields["cause"]) if fields.get("cause") is not None else None,
        tuple(_failure(part) for part in parts) if isinstance(parts, list) else (),
        bool(fields.get("timed_out", False)),
    )


def remote(failure: Failure) -> RemoteError:
    """Return an exception that stands for ``failure``, its causes chained behind it."""
    error = RemoteError(failure)
    if failure.cause is not None:
        error.__cause__ = remote(failure.cause)
    return error


def activity_error(activity: str, failure: Failure) -> ActivityFailed:
    """Return what the await of a failed activity raises."""
    error = (ActivityTimedOut if failure.timed_out else ActivityFailed)(activity, failure)
    error.__cause__ = remote(failure)
    return error


def child_error(child_run_id: str, workflow: str, failure: Failure) -> ChildFailed:
    """Return what the await of a failed child raises."""
    error = (ChildTimedOut if failure.timed_out else ChildFailed)(child_run_id, workflow, failure)
    error.__cause__ = remote(failure)
    return error
