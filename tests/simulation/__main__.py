"""Plays simulated clusters: ``python -m tests.simulation --seeds 500``; see ``command``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # else sets of text iterate in another order in each process
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})

    from tests.simulation.command import main

    sys.exit(main(sys.argv[1:]))
