"""How the watch sees calls on Python 3.11, which has no ``sys.monitoring``.

The rule: a profiler is set during the first ``PROFILED_TURNS`` turns of each definition, for the first
``PROFILED_CALLS`` calls of each, unless another profiler is.
"""

from __future__ import annotations

import sys
from types import FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Final

from continuum._core.guards.rules import ABSENT, INDEX, UNSEEN, Rule, lookup

if TYPE_CHECKING:
    from continuum._core.guards.watch import Judge

PROFILED_TURNS: Final = 200
PROFILED_CALLS: Final = 50_000


class Profiling:
    """Sees calls through ``sys.setprofile`` during a definition's first turns."""

    def __init__(self, judge: Judge) -> None:
        self.active = True
        self._judge = judge
        self._turns: dict[object, int] = {}
        self._profiler = self._on_event
        self._left = 0

    def watch(self, function: FunctionType) -> None:
        pass

    def watches(self, function: object) -> bool:
        return self.active and self._turns.get(function, 0) < PROFILED_TURNS

    def passed(self, function: object) -> None:
        self._turns[function] = self._turns.get(function, 0) + 1

    def begin(self, function: object) -> bool:
        turns = self._turns.get(function, 0)
        if turns >= PROFILED_TURNS or not self.active or sys.getprofile() is not None:
            return False
        self._turns[function] = turns + 1
        self._left = PROFILED_CALLS
        sys.setprofile(self._profiler)
        return True

    def end(self) -> None:
        if sys.getprofile() is self._profiler:  # a refusal has unset it
            sys.setprofile(None)

    def close(self) -> None:
        self.active = False

    def _on_event(self, frame: FrameType, event: str, callee: object) -> None:
        if event == "c_call":
            caller, rule = frame, INDEX.of_call(callee, UNSEEN)
        elif event == "call" and frame.f_code.co_name == "__del__":
            return  # the garbage collector's call, whoever runs just then
        elif event == "call" and frame.f_back is not None:
            caller, rule = frame.f_back, INDEX.of_code(frame.f_code)
        else:
            return
        self._left -= 1
        if self._left < 0:  # a turn that starts ten thousand children is not to take a second for it
            sys.setprofile(None)
            return
        if self._judge.origin.is_user(caller.f_code, caller.f_globals):
            rule = rule or (_rule_of_method(frame) if event == "call" else None)
            if rule is not None and self._judge.is_on():
                self._judge.refuse(rule, caller)


def _rule_of_method(frame: FrameType) -> Rule | None:
    """Find the rule that a method's call breaks, from the method's frame as it starts."""
    code = frame.f_code
    if code.co_argcount == 0:
        return None
    names = code.co_varnames[: code.co_argcount]
    given: list[object] = [frame.f_locals.get(name, ABSENT) for name in names]
    receiver = given[0]
    if code.co_name == "__init__":
        return INDEX.of_call(type(receiver), given[1] if len(given) > 1 else UNSEEN)
    is_class = issubclass(type(receiver), type)
    raw = lookup(receiver if is_class else type(receiver), code.co_name)
    kind = type(raw)
    function = object.__getattribute__(raw, "__func__") if kind is classmethod else raw
    if type(function) is not FunctionType or function.__code__ is not code:
        return None  # a plain function whose first argument it is
    return INDEX.of_call(MethodType(function, receiver), UNSEEN)
