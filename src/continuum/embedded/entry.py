"""What ``python …/entry.py HOME REPORT`` runs, a plan on its stdin: the supervisor, without the rest of Continuum.

The rule: it needs the standard library alone, and ``python -S`` need not find our package. Importing
``continuum`` takes longer than starting Postgres, so the two packages above us stand in empty here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    for name, folder in (("continuum", here.parent), ("continuum.embedded", here)):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package

    from continuum.embedded.supervisor import main

    main(plan_text=sys.stdin.read(), report=int(sys.argv[2]))
