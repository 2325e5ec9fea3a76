"""What a workflow's event loop refuses, and what to use instead.

The rule: what has no meaning in a replay is refused at the call, by name, with the way out.
"""

from __future__ import annotations

import asyncio
import sys
from types import CodeType
from typing import Any, NoReturn

from continuum.errors import NotDeterministic

_MOVE = "move it to an activity"
_REFUSED = {
    "threads": "run_in_executor set_default_executor shutdown_default_executor",
    "the network": "getaddrinfo getnameinfo",
    "sockets": (
        "create_connection create_server create_unix_connection create_unix_server create_datagram_endpoint "
        "connect_accepted_socket start_tls sendfile sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into "
        "sock_sendall sock_sendto sock_connect sock_accept sock_sendfile"
    ),
    "file descriptors": "add_reader remove_reader add_writer remove_writer",
    "pipes": "connect_read_pipe connect_write_pipe",
    "subprocesses": "subprocess_exec subprocess_shell",
    "operating system signals": "add_signal_handler remove_signal_handler",
}
_OWN = {
    "call_soon_threadsafe": "send the run a signal",
    "run_forever": "the engine runs the loop; await what you need",
    "run_until_complete": "the engine runs the loop; await what you need",
    "stop": "return from the workflow",
    "close": "return from the workflow",
    "shutdown_asyncgens": "the engine closes what a run leaves",
    "set_task_factory": "leave the loop as it is",
    "set_exception_handler": "leave the loop as it is",
    "set_debug": "leave the loop as it is",
}


def refuse_on(loop: type[asyncio.AbstractEventLoop]) -> None:
    """Give a loop class a refusing method for everything in the tables."""
    for what, names in _REFUSED.items():
        for name in names.split():
            setattr(loop, name, _refusal(what, _MOVE))
    for name, instead in _OWN.items():
        setattr(loop, name, _refusal(f"loop.{name}()", instead))


def _refusal(what: str, instead: str) -> Any:
    def refused(self: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> NoReturn:
        for arg in args:
            if asyncio.iscoroutine(arg):
                arg.close()
        raise NotDeterministic(what, instead)

    return refused


def _code_objects(function: Any) -> set[CodeType]:
    """Return the code of ``function`` or of a class's methods, with all that is nested in it."""
    found: set[CodeType] = set()
    members = vars(function).values() if isinstance(function, type) else [function]
    todo = [member.__code__ for member in members if hasattr(member, "__code__")]
    while todo:
        code = todo.pop()
        found.add(code)
        todo += [const for const in code.co_consts if isinstance(const, CodeType)]
    return found


_ENSURE_FUTURE = _code_objects(asyncio.ensure_future) | _code_objects(
    getattr(asyncio.tasks, "_ensure_future", None)
)
_AS_COMPLETED = _code_objects(asyncio.as_completed) | _code_objects(
    getattr(asyncio.tasks, "_AsCompletedIterator", None)
)


def is_as_completed(frame_depth: int = 2) -> bool:
    """Say whether a task is being made by ``asyncio.as_completed``, for a caller that many frames up."""
    frame = sys._getframe(frame_depth)
    if frame.f_code not in _ENSURE_FUTURE:
        return False
    for _ in range(5):
        if frame.f_back is None:
            return False
        frame = frame.f_back
        if frame.f_code in _AS_COMPLETED:
            return True
    return False
