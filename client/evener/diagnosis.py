"""Why a broker cannot be reached, in words for a person.

Rules of this file: looks only, with a plain TCP connection of its own, and only once something is
wrong. ZeroMQ keeps such things to itself: it tries again for ever.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

# What each ZMTP peer sends first: a signature of ten bytes.
_SIGNATURE: Final = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"
_LOOK_S: Final = 1.0


class Finding(NamedTuple):
    """`final`: waiting longer does not help."""

    reason: str
    final: bool


def check_name(address: str) -> Finding | None:
    """Whether the host of an address has a name that nobody knows."""
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return None
    host, _, port = rest.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        return Finding(f"the name {host!r} does not resolve ({text})", final=True)
    return None


def look(address: str) -> Finding:
    """What answers at an address. Takes a second at most."""
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return Finding("no answer", final=False)
    host, _, port = rest.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _LOOK_S) as probe:
            return _listen(probe)
    except ConnectionRefusedError:
        return Finding("connection refused", final=False)
    except TimeoutError:
        return Finding("nothing answers there", final=False)
    except OSError as error:
        return Finding(error.strerror or str(error), final=False)


def _listen(probe: socket.socket) -> Finding:
    probe.settimeout(_LOOK_S)
    said = b""
    try:
        # What speaks in lines answers to the empty ones that follow.
        probe.sendall(_SIGNATURE + b"\r\n\r\n")
        while len(said) < len(_SIGNATURE):
            part = probe.recv(64)
            if not part:
                break
            said += part
    except TimeoutError:
        if not said:
            return Finding("something accepts connections there, but says nothing", final=False)
    except OSError:
        return Finding("something closes the connection there, so it is no broker", final=False)
    if said[:1] == _SIGNATURE[:1] and len(said) >= 10 and said[9] == _SIGNATURE[9]:
        return Finding("something speaks ZeroMQ there, but gave no welcome", final=False)
    return Finding("something answered there, but not as evener", final=True)
