"""Planted bugs: mistakes that an honest programmer could make, each with the tests that must catch it.

``make mutants`` plants them one at a time in a copy of the sources (tools/mutants.py). One that nothing catches is
a hole in the tests. A bug is added to the list of its layer and to the table in docs/reliability.md, which
``python -m tools.mutants --table`` prints.
"""

from __future__ import annotations

from tests.mutants.in_commits import IN_COMMITS
from tests.mutants.in_core_and_engine import IN_CORE_AND_ENGINE
from tests.mutants.in_leases import IN_LEASES
from tests.mutants.mutant import Check, Mutant, Replacement

__all__ = ["CATALOGUE", "Check", "Mutant", "Replacement"]

CATALOGUE = {mutant.name: mutant for mutant in (*IN_LEASES, *IN_COMMITS, *IN_CORE_AND_ENGINE)}
