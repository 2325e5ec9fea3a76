"""What it costs to begin: the interpreter, ``import continuum``, ``continuum --help``.

The rule: each is a process of its own, from before it is started until it has ended, with compiled modules there.
"""

from __future__ import annotations

import subprocess
import sys
import time


def interpreter_ms() -> float:
    """Milliseconds of an interpreter that does nothing."""
    return _ms("-c", "pass")


def import_ms() -> float:
    """Milliseconds that ``import continuum`` adds to that."""
    return _ms("-c", "import continuum") - interpreter_ms()


def help_ms() -> float:
    """Milliseconds of the whole command, the interpreter included."""
    return _ms("-m", "continuum", "--help")


def _ms(*words: str) -> float:
    started = time.perf_counter()
    # In a session of its own: Ctrl-C is ours to act on, and it would print a traceback.
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, start_new_session=True)
    return (time.perf_counter() - started) * 1e3
