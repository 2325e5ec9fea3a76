"""Which definitions a worker has: collected from modules or given one by one, with no global registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, cast

from continuum.activity import Activity
from continuum.errors import DefinitionError
from continuum.workflow import Workflow

__all__ = ["Definitions"]

Definition = Workflow[Any, Any] | Activity[Any, Any]


class Definitions:
    """The workflows (by name and version) and activities (by name) found in ``sources``.

    A source is a definition or a module; a module contributes only what it defines itself. Raises ``ValueError``
    for two definitions of one name and version, for a module without any; ``DefinitionError`` for anything else.
    """

    __slots__ = ("activities", "workflows")

    def __init__(self, sources: Iterable[ModuleType | Definition]) -> None:
        self.workflows: dict[tuple[str, int], Workflow[Any, Any]] = {}
        self.activities: dict[str, Activity[Any, Any]] = {}
        for source in sources:
            for definition in _definitions(source):
                self._add(definition)

    def workflow(self, name: str, version: int | None = None) -> Workflow[Any, Any]:
        """Return the workflow of that name, the highest version unless one is given. Raises ``LookupError``."""
        versions = {found[1]: flow for found, flow in self.workflows.items() if found[0] == name}
        if not versions:
            known = {found for found, _ in self.workflows}
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
            raise LookupError(f"no workflow {name!r}; {hint}")
        if version is None:
            version = max(versions)
        if version not in versions:
            raise LookupError(f"workflow {name!r} has no version {version}; there are: {sorted(versions)}")
        return versions[version]

    def prepare(self) -> None:
        """Resolve every annotation now. Raises ``DefinitionError`` for the first that has no JSON form."""
        definitions: list[Definition] = [*self.workflows.values(), *self.activities.values()]
        for definition in definitions:
            definition.prepare()

    def _add(self, definition: Definition) -> None:
        if isinstance(definition, Activity):
            known: Definition = self.activities.setdefault(definition.name, definition)
            what = f"activity {definition.name!r}"
        else:
            known = self.workflows.setdefault((definition.name, definition.version), definition)
            what = f"workflow {definition.name!r} version {definition.version}"
        if known is not definition:
            places = " and ".join(
                f"{d.function.__module__}.{d.function.__qualname__}" for d in (known, definition)
            )
            raise ValueError(f"two definitions of {what}: {places}; give one of them another name= or version=")


def _definitions(source: Any) -> Iterator[Definition]:
    if isinstance(source, (Workflow, Activity)):
        yield cast("Definition", source)
        return
    if not isinstance(source, ModuleType):
        raise DefinitionError(f"definitions come from modules, workflows and activities: got {source!r}")
    found = False
    for member in vars(source).values():
        if isinstance(member, (Workflow, Activity)) and member.function.__module__ == source.__name__:
            found = True
            yield cast("Definition", member)
    if not found:
        raise ValueError(f"module {source.__name__!r} defines no workflow and no activity")
