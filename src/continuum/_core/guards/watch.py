"""Refuse, at the call, what workflow code must not use: for helpers, and for names that only a run resolves.

The rule: nothing is patched. From Python 3.12 on, ``sys.monitoring`` reports the calls made by the code of
registered functions, and of what they call as long as that is user code (not the standard library, not
site-packages unless the workflow lives there, not Continuum). A location found harmless ``LOOKS`` times in
turns is disabled and costs nothing any more; outside a turn a look is one call of ``in_turn``. On 3.11 there
is only ``sys.setprofile`` (see ``profiling``), and it sees the same calls.

A call is refused inside a turn only, outside ``suspended()`` only, and when the way to it from the workflow
leads through user code only: what logging, an import or pydantic do with a user's function is theirs.

Not caught, on any version:

* what watched code does not call itself: ``os.environ["X"]`` in a helper (3.12+), a property, an operator,
  what a C function or a library calls back (``sorted(key=...)``, pydantic's ``default_factory``). A user
  function handed over as *first* argument (``map(f, xs)``) is followed, so are the methods behind ``with``,
  ``for`` and ``await`` of a user class that watched code instantiates;
* a forbidden callable that C code calls (``map(time.ctime, xs)``, ``defaultdict(uuid4)``);
* a forbidden callee at a location after ``LOOKS`` harmless ones; on 3.11 after the profiled turns, or in a
  turn after a first refusal;
* instances made outside: a ``random.Random()`` at module level, an open file;
* on 3.12, a forbidden *Python* function called with ``*args`` or ``**kwargs`` (``choice(*xs)``): that version
  reports only C functions there. User functions called so are found through globals and closures.

When all tool ids are taken nothing is watched, and the comparison on replay is what is left.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    TracebackType,
    WrapperDescriptorType,
)
from typing import ClassVar, Final, NoReturn, Protocol

from continuum._core.guards.profiling import PROFILED_TURNS, Profiling
from continuum._core.guards.rules import INDEX, Rule, lookup
from continuum.errors import NotDeterministic

if sys.version_info >= (3, 12):
    from opcode import opmap
    from sys import monitoring

    from continuum._core.guards.rules import ABSENT

__all__ = ["LOOKS", "PROFILED_TURNS", "Suspension", "Watch"]

LOOKS: Final = 100  # so that the second and third callee of a decorator's `fn(*args)` are followed too

_OWN: Final = __name__.partition(".")[0]
_CODEC: Final = f"{_OWN}._core.codec"
_CACHED: Final = type(functools.cache(len))
_IN_C: Final = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType)
_CALLED_UNSEEN: Final = (
    *("__new__", "__init__", "__enter__", "__exit__", "__aenter__", "__aexit__"),
    *("__iter__", "__next__", "__aiter__", "__anext__", "__await__"),
)
_suspended: ContextVar[bool] = ContextVar("continuum_watch_suspended", default=False)


def _raise(error: NotDeterministic) -> NoReturn:
    raise error


class Watch:
    """Watches the calls of registered functions. One for each process: it holds a ``sys.monitoring`` tool id.

    ``in_turn`` says whether the calling thread is inside a workflow turn right now; ``refuse`` raises, from the
    call that is refused.
    """

    needs_turns: ClassVar[bool] = sys.version_info < (3, 12)
    """Whether turns must be framed by ``begin`` and ``end``."""

    def __init__(
        self, in_turn: Callable[[], bool], refuse: Callable[[NotDeterministic], NoReturn] = _raise
    ) -> None:
        self.spent: set[object] = set()
        self._judge = Judge(in_turn, refuse)
        self._method: _Method = _make_method(self._judge)
        self.begin = (
            self._method.begin
        )  # opens a turn of a registered function; true when ``end`` has to be called

    @property
    def active(self) -> bool:
        """Whether calls are seen at all; false when all tool ids are taken."""
        return self._method.active

    def register(self, function: object) -> None:
        """Watch a workflow function. Doing it again changes nothing."""
        if type(function) is not FunctionType:
            return
        if self._judge.origin.add_root(function):
            self._method.watch(function)
            self.register(function.__dict__.get("__wrapped__"))

    def watches(self, function: object) -> bool:
        """Watch a workflow function and say whether its turns are to be framed; if not it is ``spent``."""
        self.register(function)
        if self._method.watches(function):
            return True
        self.spent.add(function)
        return False

    def passed(self, function: object) -> None:
        """Count a turn of a registered function in which none of its code ran, so that it was not framed."""
        self._method.passed(function)
        self.watches(function)

    def end(self) -> None:
        """Close the turn, in the thread that opened it."""
        self._method.end()

    def suspended(self) -> Suspension:
        """Let everything pass inside a ``with`` block, in this context only."""
        return Suspension()

    def close(self) -> None:
        """Stop watching and give the tool id back."""
        self._method.close()


class Suspension:
    """The block in which ``side_effect`` runs its function."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _suspended.set(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _suspended.reset(self._before)


class _Method(Protocol):
    """How calls are seen on this Python."""

    active: bool

    def watch(self, function: FunctionType) -> None: ...
    def watches(self, function: object) -> bool: ...
    def passed(self, function: object) -> None: ...
    def begin(self, function: object) -> bool: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Judge:
    """Decides about one call; the same on every Python."""

    def __init__(self, in_turn: Callable[[], bool], refuse: Callable[[NotDeterministic], NoReturn]) -> None:
        self.origin = _Origin()
        self._in_turn = in_turn
        self._refuse = refuse

    def is_on(self) -> bool:
        """Whether workflow code is running that must keep the rules."""
        return self._in_turn() and not _suspended.get()

    def refuse(self, rule: Rule, caller: FrameType) -> None:
        """Raise, if it is the workflow's own code that called."""
        if self.origin.leads_to_workflow(caller):
            while caller.f_code.co_filename.startswith("<") and caller.f_back is not None:
                caller = caller.f_back  # out of generated code, such as a dataclass's __init__
            where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            self._refuse(NotDeterministic(rule.what, rule.instead, where))


class _Origin:
    """Tells user code from libraries."""

    _TRANSPARENT: ClassVar = frozenset({"contextlib", "functools"})  # they only call on
    _STANDARD: ClassVar = functools.__file__.replace("\\", "/").rpartition("/")[0] + "/"

    def __init__(self) -> None:
        self._roots: dict[int, CodeType] = {}
        self._packages: set[str] = set()

    def add_root(self, function: FunctionType) -> bool:
        """Take a workflow function's package for user code, wherever it lies; false if it was known."""
        if id(function.__code__) in self._roots:
            return False
        for code in _nested(function.__code__):
            self._roots[id(code)] = code
        self._packages.add(_top(function.__globals__))
        return True

    def is_user(self, code: CodeType, namespace: dict[str, object]) -> bool:
        """Whether a function with this code and these globals was written by the user."""
        top = _top(namespace)
        if top == _OWN or code.co_filename.startswith("<frozen"):
            return False
        if top in self._packages:
            return True
        # Generated code (a dataclass's __init__) has no file of its own, so the globals' file comes first.
        file = namespace.get("__file__")
        path = (file if isinstance(file, str) else code.co_filename).replace("\\", "/")
        if "/site-packages/" in path or "/dist-packages/" in path:
            return False
        return not (top in sys.stdlib_module_names and path.startswith(self._STANDARD))

    def leads_to_workflow(self, frame: FrameType | None) -> bool:
        """Whether the way back from a frame to the workflow's loop leads through user code only."""
        while frame is not None and id(frame.f_code) not in self._roots:
            top = _top(frame.f_globals)
            if top in (_OWN, asyncio.__name__):
                return frame.f_globals.get("__name__") != _CODEC  # what a type does to be decoded is its own
            if top not in self._TRANSPARENT and not self.is_user(frame.f_code, frame.f_globals):
                return False
            frame = frame.f_back
        return True


def _top(namespace: dict[str, object]) -> str:
    name = namespace.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code and those of the functions, lambdas and generator expressions written in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _functions_of(callee: object) -> Iterator[FunctionType]:
    """Yield the Python functions that calling this object runs, as far as that shows without running any."""
    kind = type(callee)  # not isinstance(), which asks a proxy for its __class__
    if kind in _IN_C:
        return
    inner: list[object] = []
    if kind is FunctionType and isinstance(callee, FunctionType):
        yield callee
        if _top(callee.__globals__) != _OWN:  # not an activity's function: that runs elsewhere
            inner = [callee.__dict__.get("__wrapped__")]
    elif kind in (MethodType, staticmethod, classmethod):
        inner = [object.__getattribute__(callee, "__func__")]
    elif kind is functools.partial:
        inner = [object.__getattribute__(callee, "func")]
    elif kind is _CACHED:
        inner = [object.__getattribute__(callee, "__wrapped__")]
    elif issubclass(kind, type):
        inner = [lookup(callee, name) for name in _CALLED_UNSEEN]
    else:
        call = lookup(kind, "__call__")
        inner = [call] if type(call) is FunctionType else []
    for function in inner:
        yield from _functions_of(function)


if sys.version_info >= (3, 12):
    _TOOL_IDS: Final = (4, 3, 5)  # the others belong to debuggers, coverage and profilers
    _CALL_STAR: Final = opmap["CALL_FUNCTION_EX"]

    class _Monitoring:
        """Follows calls through ``sys.monitoring``, with local events only."""

        def __init__(self, judge: Judge) -> None:
            self._judge = judge
            self._origin = judge.origin
            # id(code): how often each of its locations was harmless; and what forgets it with the code
            self._looks: dict[int, dict[int, int]] = {}
            self._codes: dict[int, weakref.ref[CodeType]] = {}
            free = (tool for tool in _TOOL_IDS if monitoring.get_tool(tool) is None)
            self._tool = next(free, None)
            self.active = self._tool is not None
            if self._tool is not None:
                monitoring.use_tool_id(self._tool, "continuum")
                monitoring.register_callback(self._tool, monitoring.events.CALL, self._on_call)

        def watch(self, function: FunctionType) -> None:
            """Report the calls of a function, and of the functions written in it."""
            if self._tool is None:
                return
            known = id(function.__code__) in self._looks
            fresh = [] if known else list(_nested(function.__code__))
            for code in fresh:
                key = id(code)
                self._looks[key] = {}
                self._codes[key] = weakref.ref(code, functools.partial(self._forget, key))
                monitoring.set_local_events(self._tool, code, monitoring.events.CALL)
            if sys.version_info < (3, 13):  # f(*args) is not reported if f is a Python function
                for callee in _mentioned(function, fresh):
                    if id(callee.__code__) not in self._looks:
                        self._follow(callee)

        def _on_call(self, code: CodeType, offset: int, callee: object, first: object) -> object:
            if not self._judge.is_on():
                return None  # and look again: nothing was followed, and a turn may come this way
            first = ABSENT if first is monitoring.MISSING else first
            rule = INDEX.of_call(callee, first)
            if rule is not None:
                # With f(*args), what unless_arguments asks for may be among the stars.
                if not rule.unless_arguments or code.co_code[offset] != _CALL_STAR:
                    self._judge.refuse(rule, sys._getframe(1))
                return None
            self._follow(callee)
            if type(first) is FunctionType:
                self._follow(first)
            looks = self._looks.setdefault(id(code), {})
            looks[offset] = looks.get(offset, 0) + 1
            return monitoring.DISABLE if looks[offset] >= LOOKS else None

        def _follow(self, callee: object) -> None:
            for function in _functions_of(callee):
                known = id(function.__code__) in self._looks and not function.__closure__
                if not known and self._origin.is_user(function.__code__, function.__globals__):
                    self.watch(function)

        def _forget(self, key: int, _: weakref.ref[CodeType]) -> None:
            self._looks.pop(key, None)
            self._codes.pop(key, None)

        def watches(self, function: object) -> bool:
            return False

        def passed(self, function: object) -> None:
            pass

        def begin(self, function: object) -> bool:
            return False

        def end(self) -> None:
            pass

        def close(self) -> None:
            if self._tool is None:
                return
            for reference in list(self._codes.values()):
                code = reference()
                if code is not None:
                    monitoring.set_local_events(self._tool, code, monitoring.events.NO_EVENTS)
            monitoring.register_callback(self._tool, monitoring.events.CALL, None)
            monitoring.free_tool_id(self._tool)
            self._tool, self.active = None, False

    def _mentioned(function: FunctionType, fresh: list[CodeType]) -> Iterator[FunctionType]:
        """Yield the functions in a function's closure, and those that newly watched code names globally."""
        values = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
        values += [function.__globals__.get(name) for code in fresh for name in code.co_names]
        yield from (value for value in values if type(value) is FunctionType)

    _make_method = _Monitoring

else:
    _make_method = Profiling
