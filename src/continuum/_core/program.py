"""What the core needs of a workflow's definition.

The rule: the core imports no definition. It names here what it asks of one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from continuum._core.codec import Codec


class Program(Protocol):
    """What the core needs of a workflow's definition."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def input(self) -> Codec[Any]: ...
    @property
    def result(self) -> Codec[Any]: ...
    @property
    def signals(self) -> Mapping[str, Codec[Any]]: ...
    @property
    def state(self) -> Codec[Any]: ...
    @property
    def undeclared(self) -> Callable[[str], str | None]: ...
    @property
    def function(self) -> Callable[..., Coroutine[Any, Any, Any]]: ...
    @property
    def start(self) -> Callable[[Any], Coroutine[Any, Any, Any]]: ...
