"""ZMTP by hand: the bytes of a connection, so that they can be cut, delayed, and made wrong.

Rules of this file: bytes and plain sockets only; what libzmq would refuse to send is made here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from evener_wire import messages as m
from evener_wire.codec import encode

SIGNATURE: Final = b"\xff\0\0\0\0\0\0\0\x01\x7f"
GREETING: Final = SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4


def frame(data: bytes, flags: int = 0) -> bytes:
    """One frame of ZMTP 3."""
    if len(data) > 255:
        return bytes([flags | LONG]) + struct.pack(">Q", len(data)) + data
    return bytes([flags, len(data)]) + data


def ready(properties: Mapping[bytes, bytes] | None = None) -> bytes:
    """The command READY, of a DEALER unless `properties` say otherwise."""
    wanted = {b"Socket-Type": b"DEALER", b"Identity": b"", **(properties or {})}
    body = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in wanted.items()
    )
    return frame(body, COMMAND)


def multipart(frames: Sequence[bytes]) -> bytes:
    """One message of several frames."""
    return b"".join(frame(part, MORE) for part in frames[:-1]) + frame(frames[-1])


def message(message: m.Message, session: int = 0, number: int = 0) -> bytes:
    """A message of evener, as it goes over the connection."""
    return multipart([bytes(part) for part in encode(message, session, number)])


def hello(role: m.Role = "client", instance: bytes = b"raw".ljust(16, b"-")) -> m.Hello:
    """HELLO of somebody without a past."""
    return m.Hello(1, 1, role, instance, "stranger", 0, bytes(16), {})


def connect(port: int, seconds: float = 10.0) -> socket.socket:
    """A plain connection to the broker."""
    made = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def greet(made: socket.socket, properties: Mapping[bytes, bytes] | None = None) -> None:
    """Greet as a DEALER does, and wait until the other side did: before, it takes no message."""
    made.sendall(GREETING + ready(properties))
    got = b""
    while len(got) < len(GREETING) + 2 or len(got) < len(GREETING) + 2 + got[len(GREETING) + 1]:
        part = made.recv(4_096)
        assert part, "the broker ended the connection"
        got += part


def send_and_leave(port: int, data: bytes) -> None:
    """Send these bytes on a new connection, say that there are no more, and wait for its end.

    Closed at once it might be reset, and what the broker had not read yet would be lost.
    """
    with connect(port) as made:
        try:
            made.sendall(data)
            made.shutdown(socket.SHUT_WR)
            while made.recv(65_536):
                pass
        except OSError:
            return  # the broker was quicker to end it


def try_send(made: socket.socket, data: bytes) -> None:
    """Send, unless the other side has ended the connection."""
    try:
        made.sendall(data)
    except OSError:
        return


def is_closed(made: socket.socket) -> bool:
    """Whether the other side ended the connection; what it sent before is passed over."""
    made.setblocking(False)
    try:
        while made.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True
