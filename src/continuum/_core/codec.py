"""Values to JSON and back, by annotation, on pydantic's ``TypeAdapter``.

The rule: what a workflow is handed has always been through JSON, also the first time, so that a replay sees an
equal object. What JSON or Postgres would change silently (NaN, NUL, lone surrogates) is refused with its path.
Encoded values are UTF-8 JSON text as ``bytes``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from continuum.errors import DecodeError, DefinitionError, EncodeError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MAX_VALUE_BYTES = 64 * 1024 * 1024
_U = ord("u")


class Codec(Generic[T]):
    """Encodes and decodes values of one annotation. ``what`` names the value in errors.

    The adapter is made at first use: an annotation may name a class that is defined further down, and importing
    pydantic is dear.
    """

    __slots__ = ("_adapter", "_annotation", "_from_json", "_schema", "_to_json", "what")

    def __init__(self, annotation: Any, what: str) -> None:
        self.what = what
        self._annotation = annotation
        self._adapter: TypeAdapter[T] | None = None
        self._schema: dict[str, Any] | None = None
        self._to_json: Callable[..., bytes] = self._first_to_json
        self._from_json: Callable[..., T] = self._first_from_json

    def encode(self, value: T) -> bytes:
        """Return ``value`` as JSON text that decodes again.

        Raises ``EncodeError`` naming the field that does not fit. The text is read back strictly: that finds a
        wrong type, a broken constraint and what would not come back, for less than the serializer's warnings cost.
        """
        try:
            data = self._to_json(value, warnings=False)
            self._from_json(data, strict=True)
        except DefinitionError:
            raise
        except Exception as error:  # noqa: BLE001 - the author's validators and serializers may raise anything
            raise self._refusal(value, error) from None
        # NaN comes out as null and NUL as an escape; both are rare, so only their traces are looked into. Most
        # texts have not even a "u", and that is found ten times faster than a word.
        if _U in data and value is not None and (data.find(b"null") >= 0 or data.find(b"\\u0000") >= 0):
            self._refuse_leaves(value)
        if len(data) > MAX_VALUE_BYTES:
            raise EncodeError(
                self.what,
                f"{len(data):,} bytes of JSON, the limit is {MAX_VALUE_BYTES:,}; pass a reference to it",
            )
        return data

    def decode(self, data: bytes) -> T:
        """Return the value that ``data`` holds. Raises ``DecodeError`` naming the field that does not fit."""
        try:
            return self._from_json(data)
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            field, problem = _first_problem(error)
            raise DecodeError(self.what, problem, field) from None

    def means_the_same(self, recorded: bytes, decided: bytes) -> bool:
        """Say whether two JSON texts are one value to this annotation.

        So a field added with a default, another order of keys or of a set's members is no difference.
        """
        if recorded == decided:
            return True
        try:
            old = self.decode(recorded)
            return self.encode(old) == decided or bool(old == self.decode(decided))
        except (DecodeError, EncodeError, DefinitionError):
            return False

    def prepare(self) -> TypeAdapter[T]:
        """Make the adapter now. Raises ``DefinitionError`` if the annotation has no JSON form."""
        if self._adapter is None:
            from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

            try:
                self._adapter = TypeAdapter(self._annotation)
            except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
                reason = str(error).splitlines()[0]
                raise DefinitionError(
                    f"{self.what}: {self._annotation!r} has no JSON form ({reason}); use a dataclass, a model, "
                    f"a TypedDict or plain JSON types"
                ) from None
            self._to_json = self._adapter.serializer.to_json
            self._from_json = self._adapter.validator.validate_json
        return self._adapter

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON schema of what this decodes, or None for what has none."""
        if self._schema is None:  # made once: every worker of a process announces it, and a test has many
            try:
                self._schema = self.prepare().json_schema()
            except Exception:  # noqa: BLE001 - of the author's types; they work without
                return None
        return self._schema

    def _first_to_json(self, value: T, **options: Any) -> bytes:
        self.prepare()
        return self._to_json(value, **options)

    def _first_from_json(self, data: bytes, **options: Any) -> T:
        self.prepare()
        return self._from_json(data, **options)

    def _refuse_leaves(self, value: T) -> None:
        plain = self.prepare().dump_python(value, warnings=False)
        for field, leaf in _leaves(plain):
            if problem := _leaf_problem(leaf):
                raise EncodeError(self.what, problem, field)

    def _refusal(self, value: T, error: Exception) -> EncodeError:
        """Turn pydantic's error into ours; what JSON cannot hold is looked for in the value itself first."""
        try:
            self._refuse_leaves(value)
        except EncodeError as found:
            return found
        except Exception:  # noqa: BLE001 - then pydantic's own words have to do
            pass
        field, problem = _first_problem(error)
        return EncodeError(self.what, problem, field)


def _first_problem(error: Exception) -> tuple[str, str]:
    """Return the field and the problem that an error of pydantic's names first."""
    if not isinstance(error, ValueError) or not hasattr(error, "errors"):
        text = str(error).partition("\n")[0]
        return "", text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
    first = cast("ValidationError", error).errors(include_url=False, include_context=False)[0]
    got = repr(first["input"])
    return _path(first["loc"]), f"{first['msg']}, got {got if len(got) <= 80 else got[:77] + '...'}"


def _path(steps: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, member in cast("dict[Any, Any]", value).items():
            yield path, name
            yield from _leaves(member, f"{path}.{name}".lstrip("."))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, member in enumerate(cast("list[Any]", value)):
            yield from _leaves(member, f"{path}[{index}]")
    else:
        yield path, value


def _leaf_problem(leaf: Any) -> str | None:
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return f"{leaf} has no JSON form; use None or a str"
    if isinstance(leaf, str):
        if "\0" in leaf:
            return "text with a NUL character cannot be stored in Postgres; strip it or encode it as base64"
        if any("\ud800" <= letter <= "\udfff" for letter in leaf):
            return "text with a lone surrogate is not valid Unicode; decode it with errors='replace'"
    from pydantic_core import to_json

    try:
        to_json(leaf)
    except ValueError:
        return (
            f"a value of type {type(leaf).__name__} has no JSON form; use a dataclass, a model or plain JSON types"
        )
    return None


ANY: Codec[Any] = Codec(Any, "value")
