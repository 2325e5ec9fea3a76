"""What definitions take and give, as JSON schemas: for tools that have no code, such as a form that starts a run.

The rule: nothing is ever checked against them, and what has none is left out.
"""

from __future__ import annotations

from typing import Any

from continuum._core.jsontext import dump
from continuum.activity import Activity
from continuum.workflow import Workflow

LARGEST = 100_000  # bytes; every worker announces them


def schemas_of(definition: Workflow[Any, Any] | Activity[Any, Any]) -> bytes | None:
    """Return the schemas of a definition as one JSON object, or None if they are too large to be told."""
    told: dict[str, Any]
    if isinstance(definition, Workflow):
        told = {"input": definition.input.schema(), "result": definition.result.schema()}
        told["signals"] = {name: codec.schema() or {} for name, codec in definition.signals.items()}
        told["updates"] = {
            name: {"input": update.input.schema() or {}, "result": update.result.schema() or {}}
            for name, update in definition.updates.items()
        }
        told["state"] = definition.state.schema()
    else:
        told = {"input": definition.arguments.schema(), "result": definition.result.schema()}
    told = {name: schema for name, schema in told.items() if schema is not None and schema != {}}
    try:
        data = dump(told)
    except (TypeError, ValueError):  # a default that JSON does not have
        return None
    return data if len(data) <= LARGEST else None
