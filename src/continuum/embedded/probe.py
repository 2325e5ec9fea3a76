"""Whether a server answers, found out by asking it.

The rule: a server lives if it accepts a connection. Neither a pid nor a file says so: both outlive a crash.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from enum import Enum
from pathlib import Path

_PROTOCOL_3 = 196608
_ASK = b"user\0postgres\0database\0postgres\0application_name\0continuum probe\0\0"
_STARTUP = struct.pack("!II", len(_ASK) + 8, _PROTOCOL_3) + _ASK
_CANNOT_CONNECT_NOW = b"C57P03\0"  # the field with the error's code
_TERMINATE = b"X\0\0\0\x04"


class Answer(Enum):
    """What came back."""

    READY = "ready"
    NOT_YET = "not yet"  # it starts, recovers or shuts down
    NOBODY = "nobody"


def socket_file(folder: str, port: int) -> Path:
    return Path(folder) / f".s.PGSQL.{port}"


def ask(folder: str, port: int, timeout_s: float = 5.0) -> Answer:
    """Try to connect as a client would, and say what the server answered."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(socket_file(folder, port)))
        except BlockingIOError:
            return Answer.NOT_YET  # its queue of connections is full
        except OSError:
            return Answer.NOBODY
        try:
            connection.sendall(_STARTUP)
            answer = connection.recv(4096)
        except OSError:
            return Answer.NOT_YET
        if not answer or (answer.startswith(b"E") and _CANNOT_CONNECT_NOW in answer):
            return Answer.NOT_YET
        # Any other error comes from a server that runs, such as that all its connections are taken.
        with contextlib.suppress(OSError):
            connection.sendall(_TERMINATE)
        return Answer.READY
