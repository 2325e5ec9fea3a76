"""Updates: messages to a run that are checked, handled and answered. ``on_update`` handles them in a workflow.

The rule: an ``Update`` is a value that both sides share; making one has no side effect.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from continuum._core.codec import Codec
from continuum._core.keys import check_text
from continuum.errors import DefinitionError, InvalidId

__all__ = ["Update"]

MAX_NAME_BYTES = 200  # as of a signal's

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")


class Update(Generic[I, R]):
    """An update that workflows may answer: its name, and the types of its input and of its answer.

    ``input`` and ``result`` are the codecs of the two; without types they are plain JSON. Raises
    ``DefinitionError`` for a name that cannot be used.

    >>> set_address = Update("set_address", str, bool)
    >>> set_address
    <update set_address>
    """

    __slots__ = ("input", "name", "result")

    @overload
    def __init__(self: Update[Any, Any], name: str) -> None: ...
    @overload
    def __init__(self: Update[T, Any], name: str, input: type[T]) -> None: ...
    @overload
    def __init__(self, name: str, input: type[I], result: type[R]) -> None: ...
    @overload
    def __init__(self: Update[T, None], name: str, input: type[T], result: None) -> None: ...
    @overload
    def __init__(self: Update[Any, Any], name: str, input: Any, result: Any) -> None: ...
    def __init__(self, name: str, input: Any = Any, result: Any = Any) -> None:  # noqa: A002 - as @workflow has it
        try:
            self.name = check_text("update's name", name, MAX_NAME_BYTES)
        except (TypeError, InvalidId) as error:
            raise DefinitionError(str(error)) from None
        self.input: Codec[I] = Codec(input, f"input of update {name!r}")
        self.result: Codec[R] = Codec(result, f"result of update {name!r}")

    def __repr__(self) -> str:
        return f"<update {self.name}>"
