"""Values: dataclasses that nobody changes.

The rule: type checkers hold them frozen. Python itself does not, for making a frozen one takes four times as long,
and a step makes half a dozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(kind: type[T]) -> type[T]:
    """Make a class a value: compared and hashed by its fields, with slots, frozen to type checkers."""
    return dataclass(slots=True, unsafe_hash=True)(kind)
