"""SQL files made into statements that Postgres can prepare.

The rule: a file holds one statement, says at its top what it locks, names its parameters ``:name`` and the schema
``{schema}``. Lines between ``-- if part`` and ``-- end`` belong to a part that a caller may leave out, or to
several parts together. Nothing else is ever put into a statement's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from continuum.errors import InvalidSetting

_PARAMETER = re.compile(r"(?<!:):([a-z][a-z_]*)")
_COMMENT = re.compile(r"^\s*--(?! (?:if |end$)).*\n", re.MULTILINE)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with ``$1``, ``$2`` … and the names of what goes there."""

    text: bytes
    parameters: tuple[str, ...]

    def arguments(self, values: dict[str, Any]) -> list[Any]:
        """Return ``values`` in the order of the parameters. Raises ``KeyError`` for one that is missing."""
        return [values[name] for name in self.parameters]


def check_schema(schema: object) -> str:
    """Return ``schema`` if it can be a schema's name, else raise ``InvalidSetting``."""
    if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise InvalidSetting(
            f"{schema!r} cannot name the journal's schema; use up to 40 of a-z, 0-9 and _, beginning with a letter"
        )
    return schema


def in_schema(text: str, schema: str) -> str:
    """Return ``text`` with the schema's name, quoted, for it may be a reserved word."""
    return text.replace("{schema}.", f'"{check_schema(schema)}".')


def file_text(name: str) -> str:
    """Return the text of a file of this package, such as ``sql/flush.sql``."""
    return resources.files("continuum._journal").joinpath(name).read_text(encoding="utf-8")


@cache
def statement(name: str, schema: str, parts: frozenset[str] = frozenset()) -> Statement:
    """Return the statement of ``sql/{name}.sql``, with its optional ``parts``."""
    text = _COMMENT.sub("", file_text(f"sql/{name}.sql"))
    text = in_schema("\n".join(_chosen(text.splitlines(), parts)), schema)
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return Statement(_PARAMETER.sub(number, text).encode(), tuple(names))


def parts_of(name: str) -> frozenset[str]:
    """Return the optional parts of ``sql/{name}.sql``."""
    return frozenset(" ".join(re.findall(r"-- if ([\w ]+)", file_text(f"sql/{name}.sql"))).split())


def _chosen(lines: Iterable[str], parts: frozenset[str]) -> Iterable[str]:
    taken: list[bool] = []
    for line in lines:
        bare = line.strip()
        if bare.startswith("-- if "):
            taken.append(parts.issuperset(bare.removeprefix("-- if ").split()))
        elif bare == "-- end":
            taken.pop()
        elif all(taken):
            yield line
